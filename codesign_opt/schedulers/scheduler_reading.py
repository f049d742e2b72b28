"""The noise levels that a diffusers scheduler will use, read after its set_timesteps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array
from .noise_table import NoiseTable, pure_noise, sigma_of_flow_time

__all__ = ["class_names", "is_flow", "is_scheduler", "noise_levels", "setting", "told_alike", "told_beyond"]

# Classes without a list `sigmas` whose last step does not go to zero noise; the level is a function of the table.
_ENDS_ABOVE_ZERO = ("TCDScheduler",)

# Classes that step down by num_train_timesteps // steps timesteps, wherever their next listed timestep lies.
_EVEN_STEPS = (
    "DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler",
)  # fmt: skip

_EDGE = 1.01  # a level this little outside an EDM's range is rounding

# Classes whose lists of levels are not what is run.
_NOT_RUN = {
    "DDIMInverseScheduler": "goes from data to noise; read the scheduler that samples",
    "DPMSolverMultistepInverseScheduler": "goes from data to noise; read the scheduler that samples",
    "RePaintScheduler": "goes up and down between its levels",
    "ScoreSdeVeScheduler": "takes Langevin steps at every level between its own",
    "PiflowScheduler": "moves along a policy between its levels, not by steps from one to the next",
}


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

    Pure noise is infinite however it is written: t = 1 - 1e-6 of a flow, the 4096 that stands for a table's zero
    terminal SNR. A schedule that begins later (`set_begin_index`, image to image) begins there. DDIM's own step goes
    down by num_train_timesteps // steps timesteps, which is the next node for "leading" spacing and within one
    timestep of it for "trailing"; the nodes are its timesteps.

    Raises:
        ValueError: set_timesteps has not been called, the scheduler has neither `sigmas` nor `alphas_cumprod`, or its
            steps are not those between the levels that it lists.
    """
    name = type(scheduler).__name__
    _check_run(scheduler, name)
    _check_set(scheduler, name)
    table = NoiseTable.of(scheduler)
    listed = getattr(scheduler, "sigmas", None)
    if listed is not None and len(listed) > 1:
        levels = _plain(listed)
        flow = is_flow(scheduler) and bool(levels.max() <= 1.0 + 1e-6)  # Cosmos 2 lists noise levels, from 80 down
        if flow:
            levels = sigma_of_flow_time(1.0 - levels if setting(scheduler, "invert_sigmas", False) else levels)
        _check_signs(scheduler, levels, name)
        patched = bool(setting(scheduler, "rescale_betas_zero_snr", False))
        levels = pure_noise(levels, flow=flow, patched=patched)
        levels = levels[_begin(scheduler) :]
    elif table is not None:
        steps = np.rint(_plain(scheduler.timesteps)).astype(int)
        _check_even(scheduler, steps, name)
        levels = np.append(table.level(steps), _last(scheduler, table, steps))[_begin(scheduler) :]
    else:
        raise ValueError(f"{name} has neither `sigmas` nor `alphas_cumprod`; give its noise levels as a list.")
    return levels[np.append(True, np.diff(levels) != 0)]


def told_alike(scheduler: Any) -> str:
    """A note where levels apart by more than 5 % are told the same timestep; empty where none are.

    Some schedulers round the timesteps of levels that they choose by a formula (`use_karras_sigmas`), so that the
    network takes several for one.
    """
    listed, begin = getattr(scheduler, "sigmas", None), _begin(scheduler)
    if listed is None:
        return ""
    steps, levels = _plain(scheduler.timesteps)[begin:], _plain(listed)[begin:]
    if is_flow(scheduler) and levels.size and levels.max() <= 1.0 + 1e-6:
        levels = sigma_of_flow_time(1.0 - levels if setting(scheduler, "invert_sigmas", False) else levels)
    found = []
    for step in dict.fromkeys(steps.tolist()):
        same = levels[: steps.size][steps == step]
        if same.size > 1 and same.min() > 0 and same.max() > 1.05 * same.min():
            found.append(f"{step:g} at {same.size} levels from {same.max():.4g} to {same.min():.4g}")
    if not found:
        return ""
    name = type(scheduler).__name__
    return f"{name} tells the network the same timestep at several levels: {'; '.join(found)}."


def told_beyond(scheduler: Any) -> str:
    """A note where a scheduler of EDM's preconditioning runs levels outside its sigma_min to sigma_max; else empty.

    Its set_timesteps takes positions on a ramp from 0 to 1, which levels of noise given in their place leave.
    """
    low, high = setting(scheduler, "sigma_min"), setting(scheduler, "sigma_max")
    if setting(scheduler, "sigma_data") is None or low is None or high is None:
        return ""
    levels = noise_levels(scheduler)
    levels = levels[levels > 0]
    off = levels[(levels > _EDGE * float(high)) | (levels < float(low) / _EDGE)]
    if not off.size:
        return ""
    name, more = type(scheduler).__name__, ", …" if off.size > 4 else ""
    said = ", ".join(f"{level:.4g}" for level in off[:4]) + more
    return (
        f"{name} runs {off.size} of {levels.size} levels outside sigma_min {low:g} to sigma_max {high:g} of its "
        f"settings ({said}), which its network may not know."
    )


def _begin(scheduler: Any) -> int:
    """Where the schedule begins: the index of an image-to-image pipeline, among its timesteps."""
    return int(getattr(scheduler, "begin_index", None) or 0)


def _check_run(scheduler: Any, name: str) -> None:
    for kind in class_names(scheduler):
        if kind in _NOT_RUN:
            raise ValueError(f"{name} {_NOT_RUN[kind]}: its list of levels is not what it runs.")
    if "PNDMScheduler" in class_names(scheduler) and not setting(scheduler, "skip_prk_steps", False):
        raise ValueError(
            f"{name} begins with Runge-Kutta steps, whose halves it lists as levels; use "
            f"{name}.from_config(scheduler.config, skip_prk_steps=True)."
        )


def _check_even(scheduler: Any, steps: Any, name: str) -> None:
    """Refuses timesteps that the scheduler does not step between: evenly spaced steps on another spacing."""
    count = getattr(scheduler, "num_inference_steps", None)
    if not count or not set(_EVEN_STEPS) & set(class_names(scheduler)):
        return
    stride = int(setting(scheduler, "num_train_timesteps")) // int(count)
    gaps = -np.diff(steps)
    off = np.abs(gaps[gaps > 0] - stride)
    if off.size and off.max() > 1:
        raise ValueError(
            f"{name} steps down by {stride} timesteps, but lists timesteps up to {int(off.max()) + stride} apart "
            f"(timestep_spacing={setting(scheduler, 'timestep_spacing')!r}): it does not step between the levels that "
            "it lists; use timestep_spacing='leading' or 'trailing', or EulerDiscreteScheduler."
        )


def _check_signs(scheduler: Any, levels: Array, name: str) -> None:
    """Refuses negative levels, and NaN: powers of negative numbers, which EDM's ramp has beyond its end."""
    bad = levels[~(levels >= 0)]
    if bad.size:
        ramp = "; `sigmas` of EDM's schedulers are positions on a ramp from 0 (sigma_max) to 1 (sigma_min)"
        known = setting(scheduler, "sigma_data") is not None
        raise ValueError(f"{name} lists the noise level {float(bad[0]):.4g}{ramp if known else ''}.")


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
    if set(_EVEN_STEPS) & set(class_names(scheduler)) and count and final is not None:
        before = int(steps[-1]) - int(setting(scheduler, "num_train_timesteps")) // int(count)
        share = float(final)
        return float(table.sigmas[before]) if before >= 0 else float(np.sqrt((1.0 - share) / share))
    return 0.0


def _plain(values: Any) -> Array:
    """A tensor on any device, or a list, as float64."""
    return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype=np.float64)
