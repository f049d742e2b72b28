"""P1 exactly: where to train for a given sampler, by water-filling.

docs/theory.md section 7, P1. With s = error times examples, c = price, e = examples already spent,

    min sum_l s_l / (e_l + m_l)   subject to   sum_l c_l m_l <= budget,   low <= e + m <= high,

is solved by e + m = clip(t sqrt(s/c), low, high): one number t = multiplier^(-1/2), found among the 2L
values of t at which a level leaves its floor or meets its cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...basics.checks import Array, ndim, number, vector
from .levels import Fill, check_room, error_of, prepare
from .surface import water_level

__all__ = ["Waterfill", "square_root_rule", "waterfill"]

_BLOCK = 4_000_000  # entries of a budgets x levels table handled at once


@dataclass(frozen=True, eq=False)
class Waterfill:
    """The exact optimum of P1.

    Attributes:
        examples: (L,) new examples on each level; (R, L) for R budgets.
        value: sum_l s_l / (e_l + m_l); (R,) for R budgets.
        multiplier: -d value / d budget, 0 where the budget is not used up; (R,) for R budgets.
        slack: part of the budget that no level can use because every cap binds; (R,) for R budgets.
    """

    examples: Array
    value: Any
    multiplier: Any
    slack: Any


def waterfill(
    errors: ArrayLike,
    prices: ArrayLike,
    budget: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    spent: ArrayLike | None = None,
) -> Waterfill:
    """Examples per level that minimise the sum of error / examples within a budget, floors and caps.

    Exact: the segment between two of the 2L breakpoints that holds the budget is found by selection
    in expected O(L); on it the price is linear in t (docs/theory.md section 7, P1; co-design paper,
    square-root rule with box constraints).

    Args:
        errors: (L,) s_l >= 0, error times examples; a level with 0 gets its floor and no more.
        prices: (L,) or a number, c_l > 0, price of one example.
        budget: price of all new examples, >= 0; (R,) budgets are solved together.
        low, high: (L,) or numbers, bounds of the total e + m; 0 and infinity unless given.
        spent: (L,) examples e already there: they count, cost nothing and can't be taken back.

    Returns:
        A Waterfill: new examples, value, multiplier of the budget, slack of the budget.

    Raises:
        InfeasibleError: the floors cost more than the budget, spent examples exceed a cap, or a
            level whose error needs examples is left without any.
        ValueError: a negative, missing or non-finite entry, by name; low > high.

    >>> answer = waterfill([1.0, 4.0, 9.0], 1.0, 12.0, high=[10.0, 3.0, 10.0])
    >>> answer.examples.tolist(), round(answer.value, 12)
    ([2.25, 3.0, 6.75], 3.111111111111)
    """
    fill = prepare(errors, prices, low, high, spent)
    budgets = _budgets(budget)
    # only what lies above the floors is sought: beside large floors a small remainder keeps its digits
    floors = float(fill.price(fill.low - fill.spent))
    check_room(fill, budgets, floors)
    room = np.maximum(budgets - floors, 0.0)
    ramps = (*fill.breakpoints(), fill.slope)
    rows = max(1, _BLOCK // fill.rate.size)
    parts = [_solve(fill, ramps, room[i : i + rows]) for i in range(0, room.size, rows)]
    columns = (x[0] if len(x) == 1 else np.concatenate(x) for x in zip(*parts, strict=True))
    return _answer(budget, *columns)


def square_root_rule(errors: Any, prices: Any, budget: Any) -> Waterfill:
    """Examples proportional to sqrt(error / price): the optimum without floors and caps.

    m = sqrt(s/c) budget / sum sqrt(s c), value (sum sqrt(s c))^2 / budget, multiplier
    (sum sqrt(s c) / budget)^2 (docs/theory.md section 7, P1). Arguments, result and errors as for
    `waterfill`; a budget must be > 0.

    >>> square_root_rule([1.0, 4.0], 1.0, 6.0).examples.tolist()
    [2.0, 4.0]
    """
    fill = prepare(errors, prices, None, None, None)
    budgets = _budgets(budget)
    check_room(fill, budgets, 0.0)
    total = float(fill.slope.sum())
    scaled = budgets / total if total > 0 else np.zeros_like(budgets)
    examples = scaled[:, None] * fill.rate
    with np.errstate(divide="ignore"):
        value = np.where(total > 0, (fill.unit * total) ** 2 / budgets, 0.0)
    multiplier = np.divide(value, budgets, out=np.zeros_like(value), where=budgets > 0)
    slack = np.zeros_like(budgets) if total > 0 else budgets
    return _answer(budget, examples, value, multiplier, slack)


def _solve(fill: Fill, ramps: tuple[Array, Array, Array], room: Array) -> tuple[Array, Array, Array, Array]:
    """Examples, value, multiplier and slack for each amount of budget above the floors."""
    t = water_level(*ramps, room)
    total = fill.total(t)
    value = error_of(fill, total)
    slack = np.zeros_like(room)
    endless = np.isinf(t)
    if endless.any():  # every cap binds, or no level has an error
        slack[endless] = np.maximum(room[endless] - fill.price(total[endless] - fill.low), 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        multiplier = (fill.unit / t) ** 2
    total -= fill.spent
    return total, value, multiplier, slack


def _answer(budget: Any, examples: Array, value: Array, multiplier: Array, slack: Array) -> Waterfill:
    if ndim(budget) == 0:
        return Waterfill(examples[0], float(value[0]), float(multiplier[0]), float(slack[0]))
    return Waterfill(examples, value, multiplier, slack)


def _budgets(budget: Any) -> Array:
    if ndim(budget) == 0:
        return np.array([number(budget, "waterfill.budget", nonnegative=True)])
    return vector(budget, "waterfill.budget", nonnegative=True)
