"""What a plan makes of every constraint: its value, its limit and the room that is left, in the author's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Mask
from ..modeling.algebra import Bound
from ..modeling.constraints import Constraint, Named
from ..modeling.design import Box, Design, Point
from ..modeling.stated_rows import stated_rows
from .budget import Budget

__all__ = ["constraint_values"]


def constraint_values(
    constraints: Sequence[Named], budgets: Mapping[str, Budget], design: Design, point: Point
) -> dict[str, dict[str, float]]:
    """{name: {"value", "limit", "slack"}} of every constraint at a point, in the units that it is stated in.

    Of a constraint with many rows or levels the record is that of the entry with the least slack; "sigma" says where
    it is for bounds of levels. A slack below zero is a violation. Where both sides of a row depend on the design,
    `value` is the left side and `limit` the right one.
    """
    if not all(item.name in budgets for item in constraints):
        design.set(point)
    return {item.name: _record(item, budgets.get(item.name), design, point) for item in constraints}


def _record(item: Named, budget: Budget | None, design: Design, point: Point) -> dict[str, float]:
    what = item.what
    if isinstance(what, Bound):
        if budget is None:
            value = float(sum(weight * leaf.value(design, point) for weight, leaf in what.term.leaves()))
        else:  # in numbers: a price may be a function that takes long
            value = float(budget.example @ point.new_examples + budget.step @ point.steps + what.limit - budget.room)
        return {"value": value, "limit": float(what.limit), "slack": float(what.limit) - value}
    box = what.level_bounds(design) if isinstance(what, Constraint) else None
    if box is not None:
        return _of_levels(box, getattr(what, "quantity", ""), design, point)
    with np.errstate(all="ignore"):  # what is given may be the argument of an exponential
        records = [_of_row(row) for row in stated_rows(item, design)]
    return min(records, key=lambda record: record["slack"], default=_none())


def _none() -> dict[str, float]:
    return {"value": 0.0, "limit": 0.0, "slack": float("inf")}


def _of_levels(box: Box, quantity: str, design: Design, point: Point) -> dict[str, float]:
    """The tightest level, in densities or step sizes where the bound is stated in them."""
    sides = [
        (point.examples, box.examples_low, box.examples_high),
        (point.steps, box.steps_low, box.steps_high),
    ]
    per = design.log_width if quantity in ("density", "step_density") else np.ones(len(design))
    found: list[dict[str, float]] = []
    for amounts, low, high in sides:
        if np.any(low > 0):
            found.append(_tightest(1.0, amounts / per, low / per, low > 0, design.sigma))
        if np.any(np.isfinite(high)):
            found.append(_tightest(-1.0, amounts / per, high / per, np.isfinite(high), design.sigma))
    if quantity == "step_size":
        with np.errstate(divide="ignore"):
            sizes, limits = design.width / point.steps, design.width / box.steps_low
        found = [_tightest(-1.0, sizes, limits, box.steps_low > 0, design.sigma)] if np.any(box.steps_low > 0) else []
    return min(found, key=lambda record: record["slack"], default=_none())


def _tightest(sign: float, amounts: Array, limits: Array, stated: Mask, sigma: Array) -> dict[str, float]:
    slack = np.where(stated, sign * (amounts - np.where(stated, limits, 0.0)), np.inf)
    at = int(np.argmin(slack))
    named = {"value": amounts[at], "limit": limits[at], "slack": slack[at], "sigma": sigma[at]}
    return {name: float(value) for name, value in named.items()}


def _of_row(row: cp.Constraint) -> dict[str, float]:
    if len(row.args) == 2 and not isinstance(row, cp.constraints.SOC):
        sides = [np.ravel(np.asarray(np.broadcast_to(arg.value, row.shape), dtype=np.float64)) for arg in row.args]
        left, right = sides
        slack = -np.abs(left - right) if isinstance(row, cp.constraints.Equality) else right - left
        at = int(np.argmin(slack))
        # cvxpy turns value >= limit round: the side that no design changes is the limit
        value, limit = (right, left) if row.args[0].is_constant() else (left, right)
        return {"value": float(value[at]), "limit": float(limit[at]), "slack": float(slack[at])}
    excess = float(np.max(np.asarray(row.violation())))
    return {"value": excess, "limit": 0.0, "slack": -excess}
