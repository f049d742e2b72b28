"""How each scheduler of diffusers takes custom noise levels: arguments, rounding, settings, and refusals.

A rule is a function of the wanted levels and the scheduler; `RULES` finds it by the name of the class or of a
parent. A class without a rule is tried on a copy, and refused with an alternative where nothing fits. Facts as
of diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..schedulers.noise_table import flow_time, sigma_of_flow_time
from ..schedulers.scheduler_reading import class_names, setting
from .scheduler_settings import (
    distilled,
    final_type,
    lowest,
    needs_zero,
    own_schedules_off,
    refusal,
    refuse_flow_table,
    shift_of,
    table_of,
)

__all__ = ["RULES", "Draft", "Rule", "rule_for"]


@dataclass(frozen=True, eq=False)
class Draft:
    """What a rule answers.

    Attributes:
        arguments: keyword arguments of set_timesteps.
        becomes: (K+1,) the level that each wanted node becomes; equal neighbours are merged.
        changes: settings the scheduler must have for these arguments to mean these levels.
        sampler: name of the library's sampler whose steps the scheduler takes where `same_steps` holds.
        same_steps: the settings for that.
        sampler_settings: the sampler's own, where its class has some.
        notes: what a user should know.
        listed: (K'+1,) what the scheduler's own `sigmas` is set to after set_timesteps where that takes no levels.
    """

    arguments: Mapping[str, Any]
    becomes: Array
    changes: Mapping[str, Any] = field(default_factory=dict)
    sampler: str | None = None
    same_steps: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    listed: Array | None = None
    sampler_settings: Mapping[str, Any] = field(default_factory=dict)


Rule = Callable[[Array, Any, float | None], Draft]


def rule_for(scheduler: Any) -> Rule | None:
    """The rule of the scheduler's class or of its nearest parent that has one."""
    return next((RULES[name] for name in class_names(scheduler) if name in RULES), None)


def _first_of_equals(levels: Array) -> Any:
    """Which levels differ from the one before: float32 may not tell two neighbours apart."""
    return np.append(True, np.diff(levels) != 0)


# one rule for each way of stating a schedule


def _euler(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    """sigma itself, with a final 0; float32 inside."""
    single = np.asarray(wanted, dtype=np.float32).astype(np.float64)
    return Draft({"sigmas": wanted[_first_of_equals(single)].tolist()}, single, sampler="euler")


def _edm_euler(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    """Positions on the scheduler's own ramp: it applies its Karras or exponential formula to `sigmas`."""
    import torch

    low, high = float(setting(scheduler, "sigma_min")), float(setting(scheduler, "sigma_max"))
    positive = wanted[wanted > 0]
    power = 1.0 / float(setting(scheduler, "rho"))
    ramp = (high**power - positive**power) / (high**power - low**power)
    becomes = np.append(positive.astype(np.float32).astype(np.float64), wanted[positive.size :])
    notes = ["`sigmas` of this scheduler are positions on its ramp from sigma_max (0) to sigma_min (1), as a tensor."]
    changes = final_type(scheduler, "zero" if wanted[-1] == 0 else "sigma_min")
    if setting(scheduler, "sigma_schedule") != "karras":
        changes["sigma_schedule"] = "karras"  # the exponential formula looks at the number of positions alone
    if wanted[-1] > 0:
        notes.append("The last node is passed twice by this scheduler: one more evaluation, and no step.")
    arguments = {"sigmas": torch.tensor(ramp, dtype=torch.float64)}
    return Draft(arguments, becomes, changes, "euler", notes=tuple(notes))


def _heun(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    """Fractional timesteps; the scheduler interpolates its table linearly in sigma, and ends at 0."""
    needs_zero(wanted, scheduler)
    table = table_of(scheduler)
    steps = table.timestep(wanted[:-1], "linear").astype(np.float32)
    becomes = table.sigma(steps.astype(np.float64), "linear")
    away = np.max(np.abs(np.log(table.sigma(steps) / becomes)))
    notes = () if away < 1e-3 else (
        f"The table is interpolated linearly in sigma; by its logarithm a node differs by up to {away:.1%}.",
    )  # fmt: skip
    arguments = {"timesteps": steps[_first_of_equals(becomes)].tolist()}
    changes = own_schedules_off(scheduler)
    return Draft(arguments, np.append(becomes, 0.0), changes, "heun", {"clip_sample": False}, notes)


def _whole_timesteps(wanted: Array, scheduler: Any, last: float) -> tuple[dict[str, Any], Array]:
    """Whole timesteps nearest in log sigma, each once; a node at the last level is the last node."""
    table = table_of(scheduler)
    steps = table.nearest(wanted[:-1])
    levels = table.sigmas[steps]
    kept = np.append(True, np.diff(steps) != 0) & (levels > last)
    if not kept.any():
        raise ValueError(f"no timestep of {type(scheduler).__name__} is left above sigma {last:.4g}; plan more steps.")
    return {"timesteps": [int(step) for step in steps[kept]]}, np.append(levels, last)


def _multistep(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    refuse_flow_table(scheduler)
    if setting(scheduler, "use_flow_sigmas", False):
        return _flow_multistep(wanted, scheduler)
    zero = wanted[-1] == 0
    changes = {**own_schedules_off(scheduler), **final_type(scheduler, "zero" if zero else "sigma_min")}
    last = 0.0 if zero else lowest(wanted, scheduler)
    arguments, becomes = _whole_timesteps(wanted, scheduler, last)
    same = {"algorithm_type": "dpmsolver++", "thresholding": False}
    if setting(scheduler, "solver_order") == 1:
        return Draft(arguments, becomes, changes, "euler", same)
    same |= {"solver_order": 2, "solver_type": "midpoint"}
    if not zero:  # with zero the last step is first-order in any case, as ours
        same |= {"lower_order_final": False, "euler_at_final": False}
    return Draft(arguments, becomes, changes, "dpmpp_2m", same)


def _flow_multistep(wanted: Array, scheduler: Any) -> Draft:
    """Flow times written in place of its own: set_timesteps takes none with use_flow_sigmas."""
    needs_zero(wanted, scheduler)
    times = np.append(flow_time(wanted[:-1]), 0.0).astype(np.float32).astype(np.float64)
    becomes = np.append(sigma_of_flow_time(times[:-1]), 0.0)
    listed = times[_first_of_equals(becomes)]
    changes = {**own_schedules_off(scheduler), **final_type(scheduler, "zero")}
    same = {"algorithm_type": "dpmsolver++", "thresholding": False}
    order = setting(scheduler, "solver_order")
    if order > 1:
        same |= {"solver_order": 2, "solver_type": "midpoint"}
    notes = (
        "set_timesteps of this scheduler takes no flow times; they are written into it afterwards, as apply does.",
        *_whole_flow_timesteps(listed[:-1], scheduler),
    )
    arguments, sampler = {"num_inference_steps": listed.size - 1}, "euler" if order == 1 else "dpmpp_2m"
    return Draft(arguments, becomes, changes, sampler, same, notes, listed)


def _whole_flow_timesteps(times: Array, scheduler: Any) -> tuple[str, ...]:
    """What the network of a flow is told by schedulers that cut its timesteps to whole ones."""
    trained = float(setting(scheduler, "num_train_timesteps"))
    given = times * trained
    cut = float(np.max(given - np.floor(given)))
    notes = [f"The network is given whole timesteps, cut off by up to {cut:.2g} of {trained:g}; the steps use sigmas."]
    if given.size > 1 and int(given[0]) == int(given[1]):
        notes.append("The first two timesteps are equal: call set_begin_index(0), or the first node is skipped.")
    return tuple(notes)


def _singlestep(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    draft = _multistep(wanted, scheduler, mu)
    order = setting(scheduler, "solver_order")
    if order == 1:
        return draft
    note = f"One step of order {order} spans {order} nodes; set solver_order=1 for first-order steps at every node."
    return Draft(draft.arguments, draft.becomes, draft.changes, notes=(*draft.notes, note), listed=draft.listed)


def _ddpm(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    needs_zero(wanted, scheduler)
    arguments, becomes = _whole_timesteps(wanted, scheduler, 0.0)
    same = {"clip_sample": False, "thresholding": False, "variance_type": "fixed_small"}
    return Draft(arguments, becomes, sampler="euler_ancestral", same_steps=same)


def _lcm(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    needs_zero(wanted, scheduler)
    arguments, becomes = _whole_timesteps(wanted, scheduler, 0.0)
    return Draft(arguments, becomes, notes=distilled(arguments["timesteps"], scheduler))


def _tcd(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    last = table_of(scheduler).lowest if wanted[-1] == 0 else lowest(wanted, scheduler)
    arguments, becomes = _whole_timesteps(wanted, scheduler, last)
    notes = [f"This scheduler's last step ends at timestep 0, sigma {last:.4g}, never at zero noise."]
    notes.append("Its steps are first-order and without noise where step or the pipeline is called with eta=0.")
    notes.extend(distilled(arguments["timesteps"], scheduler))
    same = {"clip_sample": False, "thresholding": False}
    return Draft(arguments, becomes, sampler="euler", same_steps=same, notes=tuple(notes))


def _flow(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    """Flow times without the final 0, before the scheduler's shift."""
    needs_zero(wanted, scheduler)
    times = flow_time(wanted[:-1])
    shift, changes, extra = shift_of(times, scheduler, mu)
    changes = {**own_schedules_off(scheduler), **changes}
    becomes = np.append(sigma_of_flow_time(times.astype(np.float32).astype(np.float64)), 0.0)
    same = {"stochastic_sampling": False} if setting(scheduler, "stochastic_sampling") is not None else {}
    known = "FlowMatchEulerDiscreteScheduler" in class_names(scheduler)
    notes = () if shift.factor == 1 else (
        f"The scheduler multiplies every sigma by its shift {shift.factor:.6g}; the times given are before the shift.",
    )  # fmt: skip
    arguments = {"sigmas": shift.undo(times)[_first_of_equals(becomes[:-1])].tolist(), **extra}
    return Draft(arguments, becomes, changes, "euler" if known else None, same, notes)


def _unipc(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    if not setting(scheduler, "use_flow_sigmas", False):
        flow = setting(scheduler, "prediction_type") == "flow_prediction"
        raise ValueError(refusal(scheduler, "takes sigmas only with use_flow_sigmas=True") if not flow else (
            "UniPCMultistepScheduler takes sigmas only with use_flow_sigmas=True; build it with "
            "UniPCMultistepScheduler.from_config(scheduler.config, use_flow_sigmas=True)."
        ))  # fmt: skip
    draft = _flow(wanted, scheduler, mu)
    changes = {**draft.changes, **final_type(scheduler, "zero")}
    count = wanted.size - 1
    same = {"solver_order": 2, "solver_type": "bh2", "predict_x0": True, "thresholding": False,
            "lower_order_final": True, "disable_corrector": list(range(count))}  # fmt: skip
    notes = [*draft.notes, *_whole_flow_timesteps(flow_time(draft.becomes[:-1]), scheduler)]
    arguments = {**draft.arguments, "sigmas": np.array(draft.arguments["sigmas"])}  # a list raises TypeError there
    return Draft(arguments, draft.becomes, changes, "dpmpp_2m", same, tuple(notes))


RULES: dict[str, Rule] = {
    "EulerDiscreteScheduler": _euler,
    "EDMEulerScheduler": _edm_euler,
    "HeunDiscreteScheduler": _heun,
    "DPMSolverMultistepScheduler": _multistep,
    "DPMSolverSinglestepScheduler": _singlestep,
    "DDPMScheduler": _ddpm,
    "DDPMParallelScheduler": _ddpm,
    "LCMScheduler": _lcm,
    "TCDScheduler": _tcd,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "FlowMatchLCMScheduler": _flow,
    "UniPCMultistepScheduler": _unipc,
}
