"""export: noise levels and fitted solvers for diffusers, k-diffusion, ComfyUI, JSON, CSV, and targets of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..basics.checks import shown
from ..ingredients.grids import check_grid
from ..samplers.linear_multistep import LinearMultistep
from ..samplers.own_levels import OnOwnLevels
from . import diffusers_export, number_lists, solver_loop  # noqa: F401  they enter their targets
from .schedule_files import write_text
from .targets import EXPORT_TARGETS, PlannedLevels, Target, targets

__all__ = ["export"]


def export(schedule: Any, target: str, scheduler: Any = None, *, path: str | Path | None = None, **options: Any) -> Any:
    """A plan's or a list's noise levels in the form that another program takes; `read_schedule` is the way back.

        diffusers    DiffusersExport: arguments for the scheduler, lines for a pipeline, rounding, apply(scheduler)
        k-diffusion  (K+1,) torch tensor, float32: the `sigmas` of every sample_* function
        comfyui      list of K+1 numbers: SIGMAS, with its trailing 0
        json, csv    text with every digit, the number of steps and the terminal map
        python       text of a module with sample(denoiser, x), where a step is one call of the denoiser without noise

    A fitted solver (`Plan.solver`) goes with its levels; `read_solver` is the way back:

        diffusers    LinearMultistepScheduler, for pipelines, whose save_pretrained needs this package no more
        k-diffusion  text of a module with sample_fitted(model, x, sigmas, extra_args, callback, disable)
        comfyui      JSON; `path` writes the file of a node beside it, which gives its SAMPLER and SIGMAS
        json, python text with its coefficients, and a module with sample(denoiser, x); "csv" is refused

    Any sampler of one call a step goes the same way by its rows: export(LinearMultistep.of(sampler, sigmas), ...).

    Args:
        schedule: a Plan, a LinearMultistep, or (K+1,) descending noise levels sigma_t / s_t whose last may be 0.
        target: one of the six above, or a name of one's own (`add_target`).
        scheduler: the diffusers scheduler that will be used (for "diffusers" alone).
        path: file to write as well: JSON for "diffusers" and "json", CSV, else numbers between commas; for a fitted
            solver what the list says, and beside it the file of the scheduler's class or of the node.
        options: those of the target; an option of another target may be None or False.
            flow: for "k-diffusion" and "comfyui": give flow-matching times t = sigma / (1 + sigma), which
                k-diffusion's descendants and ComfyUI call sigmas for flow models (SD3, Flux).
            mu, clip, outside, pipeline: for "diffusers": see `for_diffusers`. The scheduler is that of `pipeline` where
                a pipeline itself is given and no scheduler. A fitted solver takes outside, and pipeline for that alone.

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
    wanted = EXPORT_TARGETS.find(target)
    levels = _levels(schedule)
    if levels.own_steps and not wanted.takes_solver:
        able = ", ".join(repr(name) for name in targets() if EXPORT_TARGETS.find(name).takes_solver)
        raise ValueError(
            f"export: the plan's steps are those of a solver fitted to its denoiser, and {target!r} takes noise levels "
            f"alone, which another sampler would make little of; export it to one of {able}."
        )
    value, text = _written(wanted, levels, options if scheduler is None else {"scheduler": scheduler, **options})
    if path is not None:
        beside = {} if wanted.beside is None else wanted.beside(levels)
        for name, content in beside.items():
            write_text(Path(path).with_name(name), content)
        write_text(path, text)
    return value


def _written(target: Target, levels: PlannedLevels, options: dict[str, Any]) -> tuple[Any, str]:
    """What the target returns, and the text of its file."""
    known = {option for name in targets() for option in EXPORT_TARGETS.find(name).options}
    for name, value in options.items():
        off = name in known and (value is None or value is False)  # of another target, and not used
        if name not in target.options and not off:
            takes = f"it takes {', '.join(target.options)}" if target.options else "it takes no options"
            raise ValueError(f"export.{name} has no meaning for the target {target.name!r}; leave it out ({takes}).")
    found = target.write(levels, **{name: value for name, value in options.items() if name in target.options})
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], str)):
        raise ValueError(
            f"the target {target.name!r} wrote {shown(found)}; its `write` must return what export returns and the "
            "text of its file."
        )
    return found


def _levels(schedule: Any) -> PlannedLevels:
    """The levels, and the record of the sampler they were planned for where that is known."""
    sampler: dict[str, Any] = {}
    if isinstance(schedule, type):
        raise ValueError(
            f"export.schedule is the class {schedule.__name__}; noise levels, a plan or a sampler is needed."
        )
    if isinstance(schedule, OnOwnLevels) and not isinstance(schedule, LinearMultistep):
        raise ValueError(
            f"export.schedule is {shown(schedule)}, whose steps no other program takes; its noise levels alone, which "
            "another sampler would make little of, are co.export(sampler.levels, …)."
        )
    if getattr(schedule, "own_levels", None) is not None:  # a fitted solver
        sampler, schedule = schedule.to_dict(), schedule.own_levels
    elif hasattr(schedule, "number_of_steps"):  # a plan
        sampler, schedule = dict(schedule.sampler), schedule.sigmas
        if schedule is None:
            raise ValueError(
                "the plan has no sampler's noise levels (its sigmas are None); plan with steps or a budget."
            )
    return PlannedLevels(check_grid(schedule, "export.schedule").sigmas, sampler)
