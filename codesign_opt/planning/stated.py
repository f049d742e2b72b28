"""What is said of a grid that was chosen by measured errors: its error on draws that chose nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..basics.causes import BIAS, TOTAL
from ..basics.checks import Array
from ..ingredients.fit_rules import FitRules
from ..ingredients.grids import family_grids
from ..ingredients.measured_error import MeasuredError
from ..models.base import Model
from ..results.plan import Plan
from ..samplers.base import Sampler

__all__ = ["FULL_RANGE", "said_of", "stated", "stated_with_solver"]

FULL_RANGE = "edm, full range"  # EDM's grid down to the process's end, beside that which ends where the plan does
_NEAR_ROUNDING = 0.005  # of a grid's error: descents of a bfloat16 network ended at up to 110 times that
_ENOUGH = 0.03  # of an error, that may be the fine solution's own without a word
_FAMILIES = {"edm": "EDM's grid", "log_snr": "the log-SNR grid"}


def stated_with_solver(model: Model, plan: Plan, peers: dict[str, Array], rules: FitRules) -> Plan:
    """The plan with a multistep sampler fitted from its grid on, which is a peer then, and the errors of all.

    Args:
        model: with a live denoiser.
        plan: with the grid and the sampler that the fit begins with.
        peers: grids of as many steps.
        rules: of the fit.

    Raises:
        ValueError: the model has no live denoiser, or its sampler takes more than one evaluation a step.
    """
    if plan.sigmas is None:
        return plan
    found = model.fitted(plan.sigmas, rules)
    stop = float(found.solver.levels[found.solver.levels > 0][-1])
    moved = abs(np.log(stop / plan.stopping_sigma)) > 1e-6
    program = plan.stopping_sigma if moved and plan.program_stopping_sigma is None else plan.program_stopping_sigma
    before = f"{model.sampler.name}, its own plan"
    fitted = replace(
        plan,
        sigmas=found.solver.levels,
        stopping_sigma=stop if moved else plan.stopping_sigma,
        program_stopping_sigma=program,
        sampler=found.solver.to_dict(),
        fits={**plan.fits, "solver": found.record},
        peers={**plan.peers, before: plan.handed_out},
    )
    return stated(model, fitted, {**peers, before: plan.sigmas}, given=True, solver=found.solver)


def stated(model: Model, plan: Plan, peers: dict[str, Array], *, given: bool, solver: Sampler | None = None) -> Plan:
    """The plan with the errors of its grid and of its peers as they are on draws that chose nothing.

    Args:
        model: whose errors of grids are not exact.
        plan: its `handed_out` and `peers` hold what grids were chosen by.
        peers: their grids.
        given: whether the grid was given, so that there was no descent.
        solver: what runs on the plan's grid; the model's sampler unless given.
    """
    if plan.sigmas is None:
        return plan
    found = dict(model.stated({"plan": plan.sigmas, **peers}, {} if solver is None else {"plan": solver}))
    own = found.pop("plan", None)
    if own is None:
        said = f"a grid of {plan.number_of_steps:,} steps is too long to measure: its error is predicted"
        return replace(plan, bias="predicted", notes=((said,) if model.probe is not None else ()) + plan.notes)
    handed = _with_bias(plan.handed_out, own)
    total = handed[TOTAL]
    others = {name: _peer(parts, found.get(name), total) for name, parts in plan.peers.items()}
    told = (None if given else _usual(plan.sigmas, plan.terminal), _coarse(own), _rounded(model, own))
    notes = [note for note in told if note]
    return replace(plan, bias="measured", measured=own, handed_out=handed, peers=others, notes=(*notes, *plan.notes))


def said_of(model: Model, sigmas: Array, parts: Mapping[str, float]) -> dict[str, float]:
    """A given grid's errors by cause, where they are measured as on the draws that plans are said of."""
    own = model.stated({"grid": sigmas}).get("grid")
    return dict(parts) if own is None else _with_bias(parts, own)


def _with_bias(parts: Mapping[str, float], said: MeasuredError) -> dict[str, float]:
    """Errors by cause with another bias, and their total."""
    return {**parts, BIAS: said.value, TOTAL: parts[TOTAL] - parts[BIAS] + said.value}


def _peer(parts: Mapping[str, float], said: MeasuredError | None, total: float) -> dict[str, float]:
    if said is None:
        return dict(parts)
    known = _with_bias(parts, said)
    known["standard_error"] = said.standard_error
    known["ratio"] = known[TOTAL] / total if total > 0 else np.inf
    if known[TOTAL] == known[BIAS]:  # nothing but the sampler's error, whose draws are paired
        known["ratio_standard_error"] = said.ratio_standard_error
    return known


def _usual(sigmas: Array, terminal: str) -> str | None:
    """That the grid is a usual one, where it is."""
    positive = sigmas[sigmas > 0]
    if positive.size < 3:
        return None
    low, high = float(positive[-1]), float(positive[0])
    for name, grid in family_grids(sigmas.size - 1, low, high, terminal).items():
        if np.allclose(grid, sigmas, rtol=1e-9):
            return f"descent found nothing better: this is {_FAMILIES[name]}, with its last level at sigma {low:.4g}"
    return None


def _rounded(model: Model, said: MeasuredError) -> str | None:
    """That the network's own rounding is near the error, where it is."""
    if model.rounded_error <= _NEAR_ROUNDING * said.value:
        return None
    return (
        f"the network rounds its answers by {model.rounded_error:.2g} where the grid errs by {said.value:.2g}: so near "
        "it tells no grids apart; plan on network.float(), which loses nothing, for those of exact answers"
    )


def _coarse(said: MeasuredError) -> str | None:
    """That the fine solution decides too much of the error, where it does."""
    if said.fine_share <= _ENOUGH:
        return None
    if said.fine_share >= 1:
        return (
            f"the grid is as near the fine solution of {said.fine_steps} steps as that is to a finer one: errors this "
            "small tell nothing; measure with more fine_steps or evaluations"
        )
    return (
        f"up to {said.fine_share:.0%} of the measured error may be that of its fine solution of {said.fine_steps} "
        "steps: measure with more fine_steps or evaluations"
    )
