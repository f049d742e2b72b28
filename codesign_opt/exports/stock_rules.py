"""Plans for UniPC, DEIS, DPM-Solver++(3M) and (2S) on the schedulers of diffusers that take these steps.

A rule gives the settings under which the scheduler's steps are the planned sampler's, and the levels with every digit
where its set_timesteps takes none: they are written into it. Facts as of diffusers 0.42, held by
tests/exports/test_stock_schedulers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..schedulers.scheduler_reading import class_names, setting
from .scheduler_rules import RULES, Draft, Rule
from .scheduler_settings import final_type, own_schedules_off, refuse_flow_table

__all__ = ["SCHEDULER_OF", "nodes_for", "stock_rule"]

SCHEDULER_OF = {
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "dpmpp_3m": "DPMSolverMultistepScheduler",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
}
"""Class of diffusers that takes a sampler's steps."""

_FEW = 15  # steps from which on DEIS and DPM-Solver lower no order near the end
_NEARLY_ZERO = 1e-6  # of the level before: what stands for zero where the scheduler's step to zero is not a number


def stock_rule(planned: Mapping[str, Any], scheduler: Any) -> Rule | None:
    """The rule for a planned sampler on a scheduler that takes its steps; None for other pairs."""
    name = planned.get("name", "")
    if SCHEDULER_OF.get(name) not in class_names(scheduler):
        return None
    return partial(_RULES[name], {key: value for key, value in planned.items() if key != "name"})


def nodes_for(wanted: Array, planned: Mapping[str, Any], scheduler: Any) -> Array:
    """The levels to list: those of the plan, for 2S with the middle of every step, where it asks the denoiser."""
    if planned.get("name") != "dpmpp_2s" or stock_rule(planned, scheduler) is None:
        return wanted
    positive = wanted[wanted > 0]
    inside = np.stack([positive[:-1], np.sqrt(positive[1:] * positive[:-1])], axis=1).ravel()
    return np.concatenate([inside, positive[-1:], wanted[wanted == 0]])


def _unipc(planned: Mapping[str, Any], wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    flow, zero = setting(scheduler, "use_flow_sigmas", False), wanted[-1] == 0
    lowered = planned["lower_order_final"]
    if zero and not lowered:
        raise ValueError(_no_step_to_zero("UniPCMultistepScheduler", "lower_order_final=False"))
    settings = {**planned, "predict_x0": True, "thresholding": False, "disable_corrector": []}
    if flow and zero and planned["solver_type"] == "bh2":
        draft = replace(RULES["UniPCMultistepScheduler"](wanted, scheduler, mu), same_steps={})
    else:  # B(h) = h is infinite at zero
        draft = _written(wanted, scheduler, ends=planned["solver_type"] == "bh2")
    return _with_settings(draft, "unipc", planned, settings, scheduler)


def _deis(planned: Mapping[str, Any], wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    count, zero = wanted.size - 1, wanted[-1] == 0
    if zero and count >= _FEW:
        raise ValueError(_no_step_to_zero("DEISMultistepScheduler", f"{count} steps, of {_FEW} or more,"))
    if zero and not planned["lower_order_final"]:
        raise ValueError(_no_step_to_zero("DEISMultistepScheduler", "lower_order_final=False"))
    taken, notes = _lowered(planned, count)
    settings = {**taken, "solver_type": "logrho", "algorithm_type": "deis", "thresholding": False}
    draft = _written(wanted, scheduler, ends=False)
    return _with_settings(replace(draft, notes=(*draft.notes, *notes)), "deis", taken, settings, scheduler)


def _three(planned: Mapping[str, Any], wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    taken, notes = _lowered(planned, wanted.size - 1)
    settings = {"solver_order": 3, **taken, "algorithm_type": "dpmsolver++", "thresholding": False}
    settings["euler_at_final"] = False
    draft = RULES["DPMSolverMultistepScheduler"](wanted, scheduler, mu)
    draft = replace(draft, same_steps={}, notes=(*draft.notes, *notes))
    return _with_settings(draft, "dpmpp_3m", taken, settings, scheduler)


def _two_s(planned: Mapping[str, Any], wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    settings = {"solver_order": 2, "solver_type": "midpoint", "algorithm_type": "dpmsolver++", "thresholding": False}
    settings["lower_order_final"] = bool(wanted[-1] == 0)
    draft = _written(wanted, scheduler, ends=True)
    note = "Every second level is the middle of a step, where 2S asks the denoiser: one node here is one evaluation."
    return _with_settings(replace(draft, notes=(*draft.notes, note)), "dpmpp_2s", planned, settings, scheduler)


_RULES: dict[str, Callable[[Mapping[str, Any], Array, Any, float | None], Draft]] = {
    "unipc": _unipc,
    "deis": _deis,
    "dpmpp_3m": _three,
    "dpmpp_2s": _two_s,
}


def _written(wanted: Array, scheduler: Any, ends: bool) -> Draft:
    """Levels that are written into the scheduler after set_timesteps.

    Args:
        ends: whether its step to zero is a number; else a level that stands for zero is the last.
    """
    refuse_flow_table(scheduler)
    flow, zero = setting(scheduler, "use_flow_sigmas", False), wanted[-1] == 0
    levels = wanted.copy()
    notes = ["The levels are written into the scheduler after set_timesteps, as apply and holding do."]
    if zero and not ends:
        levels[-1] = _NEARLY_ZERO * levels[-2]
        notes.append(
            f"This scheduler's step to zero is not a number: it ends at {levels[-1]:.2g}, {_NEARLY_ZERO:g} of the "
            "level before, which changes samples by as much of the noise that is left there."
        )
    listed = levels / (1.0 + levels) if flow else levels
    held = listed.astype(np.float32).astype(np.float64) if flow else listed
    becomes = held / (1.0 - held) if flow else held
    kept = np.append(True, np.diff(becomes) != 0)
    changes = {**own_schedules_off(scheduler), **final_type(scheduler, "zero" if zero else "sigma_min")}
    return Draft(
        {"num_inference_steps": int(kept.sum()) - 1}, becomes, changes, notes=tuple(notes), listed=listed[kept]
    )


def _lowered(planned: Mapping[str, Any], count: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The planned settings as far as the scheduler has them: from 15 steps on it lowers no order near the end."""
    if not planned["lower_order_final"] or count < _FEW:
        return dict(planned), ()
    note = (
        f"From {_FEW} steps on this scheduler lowers the order of no step but one to zero: its steps are those of the "
        "sampler with lower_order_final=False; plan for that."
    )
    return {**planned, "lower_order_final": False}, (note,)


def _with_settings(
    draft: Draft, name: str, taken: Mapping[str, Any], settings: Mapping[str, Any], scheduler: Any
) -> Draft:
    needed = {key: value for key, value in settings.items() if setting(scheduler, key, value) != value}
    return replace(draft, changes={**draft.changes, **needed}, sampler=name, sampler_settings=dict(taken))


def _no_step_to_zero(name: str, why: str) -> str:
    return (
        f"{name} takes no step to zero with {why}: it is not a number there, and no level near zero stands for it. "
        'Plan with lower_order_final=True and fewer than 15 steps, or with terminal="rescale", which ends above zero.'
    )
