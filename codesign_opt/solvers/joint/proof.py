"""From multipliers to an answer: a point inside every budget and bound, and the dual value that proves it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...basics.checks import Array
from ...basics.exact_sums import sum_of_products
from .dual import LevelDual, State

__all__ = ["JointSolution", "better", "conclude", "relative_gap"]


@dataclass(frozen=True, eq=False)
class JointSolution:
    """A primal point, the dual bound that proves it, and the multipliers.

    Attributes:
        examples: (L,) new examples.
        steps: (L,) steps; 0 where steps serve nothing.
        value: objective at the point, which meets every budget and bound.
        lower_bound: dual value at the multipliers; no design does better.
        relative_gap: (value - lower_bound) / the part of the value that the design can change.
        budget_multipliers: (J,) eta_j = - d value / d budget_j; 0 where the budget is not used up.
        band_multipliers: (B,) p_b.
        window_multiplier: nu, the price of an example near the stopping point.
        iterations: Newton iterations.
    """

    examples: Array
    steps: Array
    value: float
    lower_bound: float
    relative_gap: float
    budget_multipliers: Array
    band_multipliers: Array
    window_multiplier: float
    iterations: int


def better(first: JointSolution | None, second: JointSolution | None) -> JointSolution | None:
    """The smaller value with the larger bound: both stand, whoever found them."""
    if first is None or second is None:
        return first if second is None else second
    primal = first if first.value <= second.value else second
    dual = first if first.lower_bound >= second.lower_bound else second
    if primal is dual:
        return primal
    # the value's changeable part is not stored: the primal's own gap gives it back
    unit = (primal.value - primal.lower_bound) / primal.relative_gap if primal.relative_gap > 0 else primal.value
    gap = (primal.value - dual.lower_bound) / unit if unit > 0 else 0.0
    return replace(
        primal,
        lower_bound=dual.lower_bound,
        relative_gap=gap,
        budget_multipliers=dual.budget_multipliers,
        band_multipliers=dual.band_multipliers,
        window_multiplier=dual.window_multiplier,
    )


def conclude(dual: LevelDual, state: State, iteration: int) -> JointSolution | None:
    """The point moved into all budgets, its value, and the dual value at these multipliers."""
    program = dual.program
    point = _repaired(dual, state)
    if point is None:
        return None
    total, n = point
    found = dual.objective(total, n)
    value, constant = float(found.value), float(found.constant)
    proof: State | None = state
    if dual.a is not program.errors or dual.window is not None:
        # traces of error are the search's own: the bound must be one of the program as it was stated
        dual = LevelDual(program, dual.active) if dual.a is not program.errors else dual
        proof = dual.checked(state)
    if proof is None:
        return None
    lower = float(proof.value - dual.unconverged(proof))
    if not (np.isfinite(value) and np.isfinite(lower)):
        return None
    gap = float(relative_gap(value, lower, constant))
    multipliers, bands = np.zeros(program.budgets.size), np.zeros(len(program.response))
    multipliers[dual.active], bands[dual.rows] = state.eta, state.p
    examples, nu = total - dual.spent, float(proof.nu)
    return JointSolution(examples, n, value + constant, lower + constant, gap, multipliers, bands, nu, iteration)


def relative_gap(value: Any, lower: Any, constant: Any) -> Any:
    """(value - lower) / what the design can change, but no less than 1e-8 of the whole; 0 where all is 0.

    Below 1e-16 of the whole everything is rounding: a gap relative to a changeable part of 1e-12 of the whole would
    never close.
    """
    scale = np.maximum(value, 1e-8 * (value + constant))
    return np.where(scale > 0, (value - lower) / scale, 0.0)


def _repaired(dual: LevelDual, state: State) -> tuple[Array, Array] | None:
    """(T, n) moved towards the cheapest design until every budget is met, or away from it until one is used up.

    Floors and spent examples are kept: what is scaled is what lies above them, and only what the budget prices.
    """
    program = dual.program
    c, k, budgets = program.examples_prices, program.steps_prices, program.budgets
    least = dual.low - dual.spent
    room = np.array([
        sum_of_products(budget, (-example, least), (-step, dual.n_low))
        for budget, example, step in zip(budgets.tolist(), c, k, strict=True)
    ])  # fmt: skip
    if np.any(room < -1e-12 * budgets):
        return None
    above, further = state.levels.total - dual.low, state.levels.n - dual.n_low
    cost = c @ above + k @ further
    share = float(np.min(np.maximum(room, 0.0) / np.where(cost > 0, cost, 1e-300)))
    # nearly right, or nothing to balance: all in one proportion, which also spends what is left over. A factor above
    # 1.01 would be no repair but another design
    if 0.99 < share < 1.01 or budgets.size == 1:
        above, further = min(share, 1.01) * above, min(share, 1.01) * further
    else:
        # far off: each budget takes back only what it prices, so that a slack one does not shrink what others allow
        for j in range(budgets.size):
            cost_j = float(c[j] @ above + k[j] @ further)
            if cost_j > room[j]:
                shrink = max(float(room[j]), 0.0) / cost_j
                above, further = np.where(c[j] > 0, shrink, 1.0) * above, np.where(k[j] > 0, shrink, 1.0) * further
    return np.minimum(dual.low + above, dual.high), np.minimum(dual.n_low + further, dual.n_high)
