"""export: noise levels for diffusers, k-diffusion, ComfyUI, JSON and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, choice
from ..ingredients.grids import check_grid
from .diffusers_export import for_diffusers
from .noise_table import flow_time
from .schedule_files import csv_text, json_text, list_text, write_text

__all__ = ["TARGETS", "export"]

TARGETS = ("diffusers", "k-diffusion", "comfyui", "json", "csv")


def export(
    schedule: Any,
    target: str,
    scheduler: Any = None,
    *,
    path: str | Path | None = None,
    flow: bool = False,
    mu: float | None = None,
    clip: bool = False,
) -> Any:
    """A plan's or a list's noise levels in the form that another program takes; `read_schedule` is the way back.

        diffusers    DiffusersExport: arguments for the scheduler and for a pipeline's call, rounding, apply(scheduler)
        k-diffusion  (K+1,) torch tensor, float32: the `sigmas` of every sample_* function
        comfyui      list of K+1 numbers: SIGMAS, with its trailing 0
        json, csv    text with every digit, the number of steps and the terminal map

    Args:
        schedule: a Plan, or (K+1,) descending noise levels sigma_t / s_t whose last may be 0.
        target: one of the five above.
        scheduler: the diffusers scheduler that will be used (for "diffusers" alone).
        path: file to write as well: JSON for "diffusers" and "json", CSV, else numbers between commas.
        flow: give flow-matching times t = sigma / (1 + sigma), which k-diffusion's descendants and ComfyUI
            call sigmas for flow models (SD3, Flux).
        mu, clip: for "diffusers": see `for_diffusers`.

    Returns:
        See above; numbers of "k-diffusion" and "comfyui" are in the units that those programs call sigma.

    Raises:
        ValueError: an unknown target, a plan without a sampler, levels that float32 cannot tell apart, options of
            another target; a scheduler that takes no custom levels, with an alternative.

    >>> export([14.6, 2.5, 0.3, 0.0], "comfyui")
    [14.6, 2.5, 0.3, 0.0]
    >>> export([3.0, 1.0, 0.0], "comfyui", flow=True)
    [0.75, 0.5, 0.0]
    """
    choice(target, "export.target", TARGETS)
    sigmas, planned_for = _levels(schedule)
    given = {"scheduler": scheduler is not None, "mu": mu is not None, "clip": clip, "flow": flow}
    allowed = {"diffusers": {"scheduler", "mu", "clip"}, "k-diffusion": {"flow"}, "comfyui": {"flow"}}
    for name, used in given.items():
        if used and name not in allowed.get(target, set()):
            raise ValueError(f"export.{name} has no meaning for the target {target!r}; leave it out.")
    if target == "diffusers":
        if scheduler is None:
            raise ValueError('export: the target "diffusers" needs scheduler=, the scheduler that will be used.')
        value: Any = for_diffusers(sigmas, scheduler, mu=mu, clip=clip)
        value = value.noted(_other_sampler(planned_for, value.sampler))
        text = value.json()
    elif target in ("json", "csv"):
        value = text = json_text(sigmas) if target == "json" else csv_text(sigmas)
    else:
        levels = flow_time(sigmas) if flow else sigmas
        _distinct(levels, "flow times" if flow else "levels", "double precision")
        text = list_text(levels)
        value = _tensor(levels) if target == "k-diffusion" else levels.tolist()
    if path is not None:
        write_text(path, text)
    return value


def _levels(schedule: Any) -> tuple[Array, dict[str, Any]]:
    """The levels, and the record of the sampler they were planned for where that is known."""
    sampler: dict[str, Any] = {}
    if hasattr(schedule, "number_of_steps"):  # a plan
        sampler, schedule = dict(schedule.sampler), schedule.sigmas
        if schedule is None:
            raise ValueError(
                "the plan has no sampler's noise levels (its sigmas are None); plan with steps or a budget."
            )
    return check_grid(schedule, "export.schedule").sigmas, sampler


def _other_sampler(planned: dict[str, Any], taken: str | None) -> str | None:
    """A note where the scheduler takes other steps than those the plan was made for."""
    name, eta = planned.get("name"), planned.get("eta", 1.0)
    if name is None or (name == taken and eta == 1.0):  # the ancestral schedulers are those with eta = 1
        return None
    said = name if eta == 1.0 else f"{name} (eta = {eta:g})"
    return f"The plan was made for {said} steps; this scheduler takes {taken or 'others'}: plan for those it takes."


def _tensor(levels: Array) -> Any:
    import torch

    largest = float(np.finfo(np.float32).max)
    if levels[0] > largest:
        raise ValueError(f"level 0 is {levels[0]:.4g}; float32 ends at {largest:.4g}: start from a smaller level.")
    single = levels.astype(np.float32)
    _distinct(levels, "levels", "float32", single)
    return torch.from_numpy(single)


def _distinct(levels: Array, what: str, precision: str, rounded: Any = None) -> None:
    same = np.flatnonzero(np.diff(levels if rounded is None else rounded) >= 0)
    if same.size:
        i = int(same[0])
        raise ValueError(
            f"{what} {i} and {i + 1} ({levels[i]:.9g}, {levels[i + 1]:.9g}) are one number in {precision}."
        )
