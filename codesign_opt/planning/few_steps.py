"""Few steps: where the leading order of the discretisation error is far off, the stopping point too is exact.

The program of docs/theory.md section 7 chooses the stopping point by leading-order errors. Below
about 20 steps (32 for samplers whose local errors change sign) the exact error of the polished grid
may prefer another one, so it is searched on that error, and the better of the two plans is handed out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from ..basics.causes import TOTAL
from ..basics.errors import CodesignError
from ..ingredients.grids import log_snr_grid
from ..models.polish import PolishedGrid, polish_grid
from ..results.plan import Plan
from .question import Study
from .whole_steps import hand_out, leading_order_from

__all__ = ["exact_stop"]

_STOPS = 12
_WORTH = 1e-3


def exact_stop(study: Study, plan: Plan, low: float, high: float) -> Plan:
    """The plan at the stopping point with the smallest exact error for its number of steps, if that is better.

    The search covers [low, high]; `outer` then says status "moved", the program's own stopping point in
    "moved_from", and what was proved about the program in "program".
    """
    if study.model.exact_error is None:
        return plan  # no exact law; a measured grid was moved at its stopping end already
    if plan.sigmas is None or plan.number_of_steps >= leading_order_from(study.model) or study.terms:
        return plan  # the exact error knows nothing of the user's terms
    sigma = _best_stop(study, plan.number_of_steps, plan.stopping_sigma, low, high)
    if abs(np.log(sigma / plan.stopping_sigma)) < 1e-3:
        return plan
    try:
        other = study.solve(sigma)
    except CodesignError:
        return plan
    outer = {
        "status": "moved",
        "points": plan.outer.get("points", len(plan.curve)),
        "moved_from": plan.stopping_sigma,
        "program": dict(plan.outer),
    }
    other = hand_out(study, replace(other, curve=plan.curve, outer=outer), polish=True)
    if not other.handed_out or other.handed_out[TOTAL] >= plan.handed_out[TOTAL] * (1 - _WORTH):
        return plan
    note = (
        f"with {other.number_of_steps} whole steps the exact error is smaller when stopping at sigma = "
        f"{other.stopping_sigma:.4g} than at the program's {plan.stopping_sigma:.4g}"
    )
    return replace(other, notes=(*other.notes, note))


def _best_stop(study: Study, steps: int, known: float, low: float, high: float) -> float:
    """Stopping point whose polished grid has the smallest exact bias: a log grid, then a bounded refinement."""
    stops = np.unique(np.append(np.geomspace(low, high, _STOPS), known))
    errors = [_polished(study, steps, float(stop)).after for stop in stops]
    best = int(np.argmin(errors))
    found = minimize_scalar(
        lambda logs: np.log(_polished(study, steps, float(np.exp(logs))).after),
        bounds=(np.log(stops[max(best - 1, 0)]), np.log(stops[min(best + 1, stops.size - 1)])),
        method="bounded",
        options={"xatol": 1e-2, "maxiter": 12},
    )
    return float(np.exp(found.x)) if np.exp(found.fun) < errors[best] else float(stops[best])


def _polished(study: Study, steps: int, stop: float) -> PolishedGrid:
    model = study.model
    assert model.exact_error is not None
    start = log_snr_grid(steps, stop, model.process.sigma_max, terminal=model.terminal)
    return polish_grid(model.exact_error, start, max_iterations=100)
