"""Settings of diffusers schedulers that decide what custom noise levels mean, and what to use instead of a refusal."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..basics.checks import Array, number
from ..schedulers.noise_table import FlowShift, NoiseTable
from ..schedulers.scheduler_reading import class_names, is_flow, setting

__all__ = [
    "accepted",
    "distilled",
    "final_type",
    "lowest",
    "needs_zero",
    "own_schedules_off",
    "refusal",
    "refuse_flow_table",
    "shift_of",
    "table_of",
    "trained_range",
]

# settings that put a schedule of the scheduler's own in place of custom levels
_OWN_SCHEDULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")

_EULER = "EulerDiscreteScheduler"
_DPM = "DPMSolverMultistepScheduler"
_ALTERNATIVES = {
    "DDIMScheduler": (_EULER, "the same deterministic first-order steps, from sigmas"),
    "DDIMParallelScheduler": (_EULER, "the same deterministic first-order steps, from sigmas"),
    "EulerAncestralDiscreteScheduler": ("DDPMScheduler", "the same ancestral steps, at whole timesteps"),
    "DPMSolverSDEScheduler": (_DPM, 'with algorithm_type="sde-dpmsolver++"; whole timesteps'),
    "DEISMultistepScheduler": (_DPM, "multistep of order 2, at whole timesteps"),
    "UniPCMultistepScheduler": (_DPM, "multistep of order 2, at whole timesteps"),
    "SASolverScheduler": (_DPM, "multistep of order 2, at whole timesteps"),
    "PNDMScheduler": (_DPM, "multistep of order 2, at whole timesteps"),
    "LMSDiscreteScheduler": (_DPM, "multistep of order 2, at whole timesteps"),
    "KDPM2DiscreteScheduler": ("HeunDiscreteScheduler", "two evaluations a step, fractional timesteps"),
    "KDPM2AncestralDiscreteScheduler": ("DDPMScheduler", "ancestral steps, at whole timesteps"),
    "EDMDPMSolverMultistepScheduler": ("EDMEulerScheduler", "first-order, takes positions on its ramp"),
    "FlowMatchHeunDiscreteScheduler": ("FlowMatchEulerDiscreteScheduler", "first-order flow steps, from sigmas"),
    "CMStochasticIterativeScheduler": (_EULER, "for a network that is not a consistency model"),
}
_NO_ALTERNATIVE = {
    "inverts a sampler, from data to noise; export for the scheduler that samples": (
        "DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler",
    ),
    "takes neither timesteps nor sigmas, and no other class has its shifted table of noise levels": (
        "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler",
    ),
    "works on tokens, which have no noise level sigma": (
        "AmusedScheduler", "BlockRefinementScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler",
        "VQDiffusionScheduler",
    ),
}  # fmt: skip


def accepted(scheduler: Any) -> tuple[str, ...]:
    """Which of `timesteps` and `sigmas` its set_timesteps takes, by its signature."""
    names = inspect.signature(scheduler.set_timesteps).parameters
    return tuple(name for name in ("timesteps", "sigmas") if name in names)


def refusal(scheduler: Any, why: str) -> str:
    """One sentence that says why a scheduler cannot take the levels, and which class can."""
    names = class_names(scheduler)
    for reason, kinds in _NO_ALTERNATIVE.items():
        if any(name in kinds for name in names):
            return f"{type(scheduler).__name__} {reason}."
    found = next((_ALTERNATIVES[name] for name in names if name in _ALTERNATIVES), None)
    if found is None:
        flow = "FlowMatchEulerDiscreteScheduler", "first-order flow steps, from sigmas"
        found = flow if is_flow(scheduler) else (_EULER, "first-order steps, from sigmas")
    name, what = found
    return f"{type(scheduler).__name__} {why}; use {name}.from_config(scheduler.config) ({what})."


def table_of(scheduler: Any) -> NoiseTable:
    """Its table of noise levels.

    Raises:
        ValueError: it has none.
    """
    table = NoiseTable.of(scheduler)
    if table is None:
        raise ValueError(f"{type(scheduler).__name__} has no alphas_cumprod; its timesteps have no noise levels.")
    return table


def trained_range(scheduler: Any) -> tuple[float, float] | None:
    """Noise levels that the network knows: of its table, or sigma_min and sigma_max of an EDM's settings."""
    if is_flow(scheduler):
        return None
    table = NoiseTable.of(scheduler)
    if table is not None and setting(scheduler, "timestep_type") != "continuous":
        return table.lowest, table.highest
    low, high = setting(scheduler, "sigma_min"), setting(scheduler, "sigma_max")
    return None if low is None or high is None else (float(low), float(high))


def own_schedules_off(scheduler: Any) -> dict[str, Any]:
    """The switches to turn off: with them set_timesteps refuses custom levels or overwrites them."""
    return {name: False for name in _OWN_SCHEDULES if setting(scheduler, name, False)}


def final_type(scheduler: Any, kind: str) -> dict[str, Any]:
    """`final_sigmas_type` where the scheduler ends otherwise than the grid."""
    return {"final_sigmas_type": kind} if setting(scheduler, "final_sigmas_type", kind) != kind else {}


def refuse_flow_table(scheduler: Any) -> None:
    """A flow's network on a table's noise levels: use_flow_sigmas was forgotten."""
    if setting(scheduler, "prediction_type") == "flow_prediction" and not setting(scheduler, "use_flow_sigmas", False):
        name = type(scheduler).__name__
        raise ValueError(
            f"{name} predicts flows (prediction_type='flow_prediction'), which have levels of their own only with "
            f"use_flow_sigmas=True; build it with {name}.from_config(scheduler.config, use_flow_sigmas=True)."
        )


def needs_zero(wanted: Array, scheduler: Any) -> None:
    """Refuse a grid that ends above zero for a scheduler that always goes on to zero."""
    if wanted[-1] > 0:
        raise ValueError(
            f"{type(scheduler).__name__} always takes a last step to zero noise, but the grid ends at sigma "
            f'{wanted[-1]:.4g}; plan with terminal="denoise", or append 0 (one more step).'
        )


def lowest(wanted: Array, scheduler: Any) -> float:
    """The table's lowest level, where the scheduler ends under final_sigmas_type="sigma_min"."""
    found = table_of(scheduler).lowest
    if abs(np.log(wanted[-1] / found)) > 0.1:
        raise ValueError(
            f"{type(scheduler).__name__} can end at its lowest level {found:.4g} or at 0, but the grid ends at sigma "
            f'{wanted[-1]:.4g}; plan with terminal="denoise" or stop at {found:.4g}.'
        )
    return found


def shift_of(times: Array, scheduler: Any, mu: float | None) -> tuple[FlowShift, dict[str, Any], dict[str, Any]]:
    """The shift that a flow scheduler applies to these times, the settings to change, and set_timesteps' mu."""
    changes: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if setting(scheduler, "use_dynamic_shifting", False):
        if mu is None:
            changes, factor = {"use_dynamic_shifting": False}, 1.0
            changes["flow_shift" if setting(scheduler, "flow_shift") is not None else "shift"] = 1.0
        else:
            extra = {"mu": number(mu, "export.mu")}
            factor = float(np.exp(mu)) if setting(scheduler, "time_shift_type") == "exponential" else float(mu)
    elif mu is not None:
        raise ValueError(f"export.mu is {mu}, but {type(scheduler).__name__} has use_dynamic_shifting=False; leave it.")
    else:
        own = getattr(scheduler, "shift", None)
        factor = float(setting(scheduler, "flow_shift", setting(scheduler, "shift", 1.0)) if own is None else own)
    terminal = setting(scheduler, "shift_terminal")
    if terminal and abs(times[-1] - float(terminal)) > 1e-6:
        changes["shift_terminal"] = None
        terminal = None
    return FlowShift(factor, float(terminal) if terminal else None), changes, extra


def distilled(steps: list[int], scheduler: Any) -> tuple[str, ...]:
    """A note where a distilled network is asked for timesteps that it was not trained on."""
    trained, original = setting(scheduler, "num_train_timesteps"), setting(scheduler, "original_inference_steps")
    spacing = int(trained) // int(original)
    off = [step for step in steps if (step + 1) % spacing]
    if not off:
        return ()
    return (f"{len(off)} of {len(steps)} timesteps are none of the {original} that the network was distilled on.",)
