"""The noise levels that a diffusers scheduler will use, read after its set_timesteps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array
from .noise_table import NoiseTable, sigma_of_flow_time

__all__ = ["class_names", "is_flow", "is_scheduler", "noise_levels", "setting"]

# Classes without a list `sigmas` whose last step does not go to zero noise; the level is a function of the table.
_ENDS_ABOVE_ZERO = ("TCDScheduler",)


def is_scheduler(value: Any) -> bool:
    """Whether `value` acts like a diffusers scheduler."""
    return hasattr(value, "set_timesteps") and hasattr(value, "config")


def class_names(scheduler: Any) -> list[str]:
    """The names of the scheduler's class and its parents: a user's subclass is treated like its parent."""
    return [kind.__name__ for kind in type(scheduler).__mro__]


def setting(scheduler: Any, name: str, default: Any = None) -> Any:
    """An entry of the scheduler's config."""
    return getattr(scheduler.config, name, default)


def is_flow(scheduler: Any) -> bool:
    """Whether its levels are flow-matching times t in [0, 1] instead of sigma."""
    if setting(scheduler, "use_flow_sigmas", False):
        return True
    return any("Flow" in name or name.endswith("RFScheduler") for name in class_names(scheduler)) or (
        getattr(scheduler, "alphas_cumprod", None) is None and setting(scheduler, "shift") is not None
    )


def noise_levels(scheduler: Any) -> Array:
    """(K+1,) descending noise levels sigma_t / s_t of a scheduler after set_timesteps.

    Repeated nodes (Heun's and KDPM2's second stages, a final sigma_min at the last node) count once. A flow
    time t becomes t / (1 - t), which is infinite for a first node at t = 1.

    DDIM's own step goes down by num_train_timesteps // steps timesteps, which is the next node for "leading"
    spacing and within one timestep of it for others; the nodes are its timesteps.

    Raises:
        ValueError: set_timesteps has not been called, or the scheduler has neither `sigmas` nor `alphas_cumprod`.
    """
    name = type(scheduler).__name__
    _check_set(scheduler, name)
    table = NoiseTable.of(scheduler)
    listed = getattr(scheduler, "sigmas", None)
    if listed is not None and len(listed) > 1:
        levels = _plain(listed)
        if is_flow(scheduler):
            levels = sigma_of_flow_time(1.0 - levels if setting(scheduler, "invert_sigmas", False) else levels)
    elif table is not None:
        steps = np.rint(_plain(scheduler.timesteps)).astype(int)
        levels = np.append(table.sigmas[np.clip(steps, 0, table.sigmas.size - 1)], _last(scheduler, table, steps))
    else:
        raise ValueError(f"{name} has neither `sigmas` nor `alphas_cumprod`; give its noise levels as a list.")
    return levels[np.append(True, np.diff(levels) != 0)]


def _check_set(scheduler: Any, name: str) -> None:
    steps = getattr(scheduler, "timesteps", None)
    if steps is None:
        raise ValueError(f"{name} has no timesteps; call its set_timesteps first.")
    trained = setting(scheduler, "num_train_timesteps")
    if getattr(scheduler, "num_inference_steps", None) is None and trained is not None and len(steps) >= trained:
        raise ValueError(f"{name} still has all {len(steps):,} training timesteps; call its set_timesteps first.")


def _last(scheduler: Any, table: NoiseTable, steps: Any) -> float:
    """Where the last step goes for schedulers that know timesteps only."""
    if any(name in _ENDS_ABOVE_ZERO for name in class_names(scheduler)):
        return table.lowest
    count = getattr(scheduler, "num_inference_steps", None)
    final = getattr(scheduler, "final_alpha_cumprod", None)
    if any("DDIM" in name for name in class_names(scheduler)) and count and final is not None:
        before = int(steps[-1]) - int(setting(scheduler, "num_train_timesteps")) // int(count)
        share = float(final)
        return float(table.sigmas[before]) if before >= 0 else float(np.sqrt((1.0 - share) / share))
    return 0.0


def _plain(values: Any) -> Array:
    """A tensor on any device, or a list, as float64."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
