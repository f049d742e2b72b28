"""read_schedule: the noise levels of an existing sampler, from wherever they are kept."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, boolean, noise_level
from ..ingredients.grids import check_grid
from ..schedulers.noise_table import sigma_of_flow_time
from ..schedulers.scheduler_reading import is_scheduler, noise_levels, told_alike, told_beyond
from .schedule_files import read_file

__all__ = ["read_schedule"]


def read_schedule(source: Any, *, flow: bool = False, sigma_max: float | None = None) -> Array:
    """The noise levels of an existing schedule, as `co.audit(sigmas=...)` and the rest of the library take them.

    sigma is the noise's standard deviation over the scale of the data, sigma_t / s_t (docs/theory.md
    section 1; EDM's convention). Repeated nodes count once.

    Args:
        source: a diffusers scheduler after set_timesteps; a k-diffusion or ComfyUI tensor or list; a Plan or
            DiffusersExport; the path of a .json, .csv or text file (what `export` writes, a saved plan, a plain
            list, or a table with a column `sigma`).
        flow: the numbers of a list or file are flow-matching times t in [0, 1]; a scheduler says so itself.
        sigma_max: level for a first node of pure noise (t = 1), where sigma is infinite; others stay.

    Returns:
        (K+1,) strictly descending noise levels; a last 0 is a step to zero noise.

    Warns:
        UserWarning: a scheduler that tells the network one timestep at several levels, or one of EDM's preconditioning
            that leaves its sigma_min to sigma_max; with the levels.

    Raises:
        ValueError: a truncated file, NaN, ascending levels, a scheduler whose set_timesteps was not called.
        OSError: the file cannot be read.

    >>> read_schedule([14.6, 2.5, 2.5, 0.3, 0.0]).tolist()
    [14.6, 2.5, 0.3, 0.0]
    >>> read_schedule([1.0, 0.75, 0.5, 0.0], flow=True, sigma_max=99.0).tolist()
    [99.0, 3.0, 1.0, 0.0]
    """
    name = "the schedule"
    if is_scheduler(source):
        name = f"the schedule of {type(source).__name__}"
        levels = noise_levels(source)
        for note in filter(None, (told_alike(source), told_beyond(source))):
            warnings.warn(note, stacklevel=2)
    elif isinstance(source, (str, PathLike)):
        name = str(source)
        levels = (
            _times(read_file(Path(source)), name) if boolean(flow, "read_schedule: flow") else read_file(Path(source))
        )
    else:
        levels = _listed(source)
        levels = _times(levels, name) if boolean(flow, "read_schedule: flow") else levels
    levels = levels[np.append(True, np.diff(levels) != 0)]
    return check_grid(_finite_start(levels, sigma_max, name), name).sigmas


def _plain(tensor: Any) -> Any:
    """A tensor that NumPy reads: bfloat16 is what it does not know."""
    kept = tensor.detach().cpu()
    return kept.double() if kept.is_floating_point() else kept


class _NotReal(ValueError):
    """Numbers, but no noise levels."""


def _listed(source: Any) -> Array:
    for field in ("used", "sigmas"):  # an export's levels, a plan's grid
        if hasattr(source, field):
            source = getattr(source, field)
            break
    if source is None:
        raise ValueError("the plan has no sampler's noise levels (its sigmas are None); plan with steps or a budget.")
    try:
        raw = np.asarray(_plain(source) if hasattr(source, "detach") else source)
        if raw.dtype.kind in "bc" or np.ma.is_masked(source):
            kind = "masked entries" if np.ma.is_masked(source) else f"dtype {raw.dtype}"
            raise _NotReal(f"the schedule has {kind}; real noise levels are needed.")
        levels = raw.astype(np.float64)
    except _NotReal:
        raise
    except Exception:  # whatever conversions raise: tensors without numbers, objects whose own methods fail
        raise ValueError(
            f"the schedule is {type(source).__name__}; give a scheduler, a list or tensor of noise levels, or a path."
        ) from None
    if levels.ndim != 1 or levels.size < 2:
        raise ValueError(f"the schedule has shape {levels.shape}; one list of at least 2 noise levels is needed.")
    return levels


def _times(times: Array, name: str) -> Array:
    if np.any((times < 0) | (times > 1)):
        worst = float(times[np.argmax(np.abs(times - 0.5))])
        raise ValueError(f"{name} has the flow time {worst:g}; times lie in [0, 1] (leave out flow for noise levels).")
    return np.asarray(sigma_of_flow_time(times))


def _finite_start(levels: Array, sigma_max: float | None, name: str) -> Array:
    if np.isnan(levels).any():
        raise ValueError(f"{name} is nan at index {int(np.flatnonzero(np.isnan(levels))[0])}; it must be finite.")
    if levels.size > 1 and np.all(np.diff(levels) > 0):
        raise ValueError(f"{name} ascends from {levels[0]:g} to {levels[-1]:g}; noise levels descend: reverse it.")
    if not np.isposinf(levels[0]):
        return levels
    if sigma_max is None:
        raise ValueError(f"{name} starts from pure noise (sigma infinite, t = 1); say which level to take: sigma_max=…")
    return np.append(noise_level(sigma_max, "sigma_max"), levels[1:])
