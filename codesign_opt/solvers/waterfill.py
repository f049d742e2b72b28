"""P1 exactly: where to train for a given sampler, by water-filling over sorted breakpoints.

docs/theory.md section 7, P1. With s = error times examples, c = price, e = examples already spent,

    min sum_l s_l / (e_l + m_l)   subject to   sum_l c_l m_l <= budget,   low <= e + m <= high,

is solved by e + m = clip(t sqrt(s/c), low, high): one number t = multiplier^(-1/2), found among the 2L
values of t at which a level leaves its floor or meets its cap.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._validate import Array, integer, number, vector
from ..errors import InfeasibleError

__all__ = ["Waterfill", "round_examples", "square_root_rule", "waterfill"]

_ROUNDING = 1e-12  # floors that cost this much more than the budget, relatively, cost the budget
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


@dataclass(frozen=True, eq=False)
class _Fill:
    """u = clip(t rate, low, high), rate = sqrt(s/c) relative to its largest value `unit`."""

    errors: Array
    prices: Array
    spent: Array
    low: Array
    high: Array
    rate: Array
    unit: float

    def total(self, t: Array) -> Array:
        """(R, L) examples e + m at each of R values of t."""
        with np.errstate(over="ignore", invalid="ignore"):
            level = np.where(self.rate > 0, t[:, None] * self.rate, 0.0)
        return np.clip(level, self.low, self.high)

    def cost(self, t: Array) -> Array:
        """(R,) price above the floors: a fresh sum of nonnegative terms, so that nothing cancels."""
        return ((self.total(t) - self.low) * self.prices).sum(axis=1)


def waterfill(
    errors: Any, prices: Any, budget: Any, *, low: Any = None, high: Any = None, spent: Any = None
) -> Waterfill:
    """Examples per level that minimise the sum of error / examples within a budget, floors and caps.

    Exact: the 2L breakpoints are sorted and the segment that holds the budget is found by binary
    search, O(L log L); on it the price is linear in t (docs/theory.md section 7, P1; co-design
    paper, square-root rule with box constraints).

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
    fill = _prepare(errors, prices, low, high, spent)
    budgets = _budgets(budget)
    floors = fill.low - fill.spent
    room = budgets - float(floors @ fill.prices)
    _check_room(fill, budgets, room)
    room = np.maximum(room, 0.0)
    rows = max(1, _BLOCK // fill.rate.size)
    parts = [_solve(fill, room[i : i + rows]) for i in range(0, room.size, rows)]
    examples, value, multiplier, slack = (np.concatenate(column) for column in zip(*parts, strict=True))
    if np.ndim(budget) == 0:
        return Waterfill(examples[0], float(value[0]), float(multiplier[0]), float(slack[0]))
    return Waterfill(examples, value, multiplier, slack)


def square_root_rule(errors: Any, prices: Any, budget: Any) -> Waterfill:
    """Examples proportional to sqrt(error / price): the optimum without floors and caps.

    m = sqrt(s/c) budget / sum sqrt(s c), value (sum sqrt(s c))^2 / budget, multiplier
    (sum sqrt(s c) / budget)^2 (docs/theory.md section 7, P1). Arguments, result and errors as for
    `waterfill`; a budget must be > 0.

    >>> square_root_rule([1.0, 4.0], 1.0, 6.0).examples.tolist()
    [2.0, 4.0]
    """
    fill = _prepare(errors, prices, None, None, None)
    budgets = _budgets(budget)
    _check_room(fill, budgets, budgets)
    each = fill.rate * fill.prices
    total = float(each.sum())
    scaled = budgets / total if total > 0 else np.zeros_like(budgets)
    examples = scaled[:, None] * fill.rate
    with np.errstate(divide="ignore"):
        value = np.where(total > 0, (fill.unit * total) ** 2 / budgets, 0.0)
    multiplier = np.divide(value, budgets, out=np.zeros_like(value), where=budgets > 0)
    slack = np.zeros_like(budgets) if total > 0 else budgets
    if np.ndim(budget) == 0:
        return Waterfill(examples[0], float(value[0]), float(multiplier[0]), float(slack[0]))
    return Waterfill(examples, value, multiplier, slack)


def round_examples(
    errors: Any,
    prices: Any,
    examples: Any,
    *,
    spent: Any = None,
    total: int | None = None,
    low: Any = None,
    high: Any = None,
) -> tuple[Array, float]:
    """Whole new examples near a continuous plan, and the relative loss of rounding.

    The plan is rounded down, then single examples are added where they lower the error most per
    price: as many as make up `total` or, without it, as the plan's own price allows. With equal
    prices single examples are then exchanged while that helps, which makes the answer optimal.

    Args:
        errors, prices, spent, low, high: as for `waterfill`.
        examples: (L,) continuous new examples >= 0.
        total: number of new examples to hand out; the plan is scaled to it first.

    Returns:
        (L,) whole-valued floats, and error / error of the continuous plan - 1 (inf where both a
        level needs an example and the plan has none for it).

    Raises:
        InfeasibleError: the floors, or one example for each level that needs one, are more than
            the total or the price.

    >>> whole, loss = round_examples([1.0, 4.0, 9.0], 1.0, [1.6, 3.3, 5.1])
    >>> whole.tolist(), round(loss, 4)
    ([2.0, 3.0, 5.0], 0.0087)
    """
    fill = _prepare(errors, prices, low, high, spent)
    plan = vector(examples, "round_examples.examples", length=fill.errors.size, nonnegative=True)
    limit = float(plan @ fill.prices) * (1 + _ROUNDING)
    costs = fill.prices
    if total is not None:
        limit = float(integer(total, "round_examples.total", minimum=0))
        plan = plan * (limit / plan.sum() if plan.any() else 0.0)
        costs = np.ones_like(costs)
    whole = _greedy(fill, plan, costs, limit, exhaust=total is not None)
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = (
            float(np.where(fill.errors > 0, fill.errors / (fill.spent + m), 0.0).sum()) for m in (plan, whole)
        )
    return whole, after / before - 1 if 0 < before < np.inf and after < np.inf else float(after > before)


def _prepare(errors: Any, prices: Any, low: Any, high: Any, spent: Any) -> _Fill:
    s = vector(errors, "waterfill.errors", nonnegative=True)

    def per_level(value: Any, name: str, **rules: Any) -> Array:
        if np.ndim(value) == 0 and not (rules.get("infinite") and np.isposinf(value)):
            value = number(value, f"waterfill.{name}")
        spread = np.full(s.size, value) if np.ndim(value) == 0 else value
        return vector(spread, f"waterfill.{name}", length=s.size, **rules)

    c = per_level(prices, "prices", positive=True)
    e = per_level(0.0 if spent is None else spent, "spent", nonnegative=True)
    floor = per_level(0.0 if low is None else low, "low", nonnegative=True)
    cap = per_level(np.inf if high is None else high, "high", nonnegative=True, infinite=True)
    for bad, what, lower in ((floor > cap, "low", floor), (e > cap, "spent", e)):
        if bad.any():
            i = int(np.argmax(bad))
            said = f"waterfill.{what} is {lower[i]:g} at index {i}, above high = {cap[i]:g}"
            if what == "low":
                raise ValueError(f"{said}.")
            raise InfeasibleError(f"Infeasible: {said}; raise the cap.")
    barred = (cap == 0) & (s > 0)
    if barred.any():
        i = int(np.argmax(barred))
        raise InfeasibleError(f"Infeasible: waterfill.high is 0 at index {i}, where the error needs examples.")
    rate = np.sqrt(s) / np.sqrt(c)
    unit = float(rate.max()) or 1.0
    return _Fill(s, c, e, np.maximum(floor, e), cap, rate / unit, unit)


def _budgets(budget: Any) -> Array:
    if np.ndim(budget) == 0:
        return np.array([number(budget, "waterfill.budget", nonnegative=True)])
    return vector(budget, "waterfill.budget", nonnegative=True)


def _check_room(fill: _Fill, budgets: Array, room: Array) -> None:
    floors = float((fill.low - fill.spent) @ fill.prices)
    short = room < -_ROUNDING * budgets
    if short.any():
        budget = float(budgets[np.argmax(short)])
        record = {"name": "low", "limit": floors, "relaxed": budget, "amount": floors - budget}
        raise InfeasibleError(
            f"Infeasible: the floors cost {floors:.6g} but the budget is {budget:.6g}; raise the budget by "
            f"{floors - budget:.6g} or lower the floors.",
            [record],
        )
    needy = (fill.low == 0) & (fill.errors > 0)
    if needy.any() and np.any(room <= 0):
        raise InfeasibleError(
            f"Infeasible: the budget of {float(budgets[np.argmin(room)]):.6g} leaves nothing above the "
            f"floors (they cost {floors:.6g}), but the error at index {int(np.argmax(needy))} needs "
            "examples; raise the budget."
        )


def _solve(fill: _Fill, room: Array) -> tuple[Array, Array, Array, Array]:
    """Examples, value, multiplier and slack for each amount of budget above the floors."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        leaves = np.where(fill.rate > 0, fill.low / fill.rate, np.inf)
        meets = np.where(fill.rate > 0, fill.high / fill.rate, np.inf)
    points = np.unique(np.concatenate([leaves, meets]))
    points = points[np.isfinite(points)]
    if not points.size:  # no level has any error
        t, slack = np.full_like(room, np.inf), room.copy()
        total = np.broadcast_to(fill.low, (room.size, fill.low.size))
    else:
        t = _water_level(fill, points, leaves, meets, room)
        total = fill.total(t)
        slack = np.where(np.isposinf(t), room - fill.cost(points[-1:]), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(fill.errors > 0, fill.errors / total, 0.0).sum(axis=1)
        multiplier = (fill.unit / t) ** 2
    return total - fill.spent, value, multiplier, slack


def _water_level(fill: _Fill, points: Array, leaves: Array, meets: Array, room: Array) -> Array:
    """(R,) t at which the price above the floors equals `room`; inf where every cap binds before."""
    # cost(points[left]) <= room < cost(points[right]): at points[0] every level is at its floor, and the
    # index after the last stands for infinity
    left = np.zeros(room.size, dtype=np.intp)
    right = np.full(room.size, points.size, dtype=np.intp)
    while np.any(right - left > 1):
        middle = (left + right) // 2
        fits = fill.cost(points[middle]) <= room
        left, right = np.where(fits, middle, left), np.where(fits, right, middle)
    start = points[left]
    moving = (leaves <= start[:, None]) & (meets > start[:, None])
    slope = np.where(moving, fill.rate * fill.prices, 0.0).sum(axis=1)
    rest = np.maximum(room - fill.cost(start), 0.0)
    step = np.divide(rest, slope, out=np.zeros_like(rest), where=slope > 0)
    end = np.append(points, np.inf)[right]
    return np.where((slope == 0) & (right == points.size), np.inf, np.minimum(start + step, end))


def _greedy(fill: _Fill, plan: Array, costs: Array, limit: float, *, exhaust: bool) -> Array:
    """Whole examples: round down, take back what is too much, add what fits, exchange at equal prices."""
    needs = np.where((fill.errors > 0) & (fill.low == 0), 1.0, 0.0)
    least = np.maximum(np.ceil(np.maximum(fill.low - fill.spent, 0.0) - 1e-9), needs)
    with np.errstate(invalid="ignore"):
        most = np.floor(fill.high - fill.spent + 1e-9)
    if np.any(least > most) or float(least @ costs) > limit:
        raise InfeasibleError(
            f"Infeasible: whole floors, or one example where the error needs one, take "
            f"{float(least @ costs):.6g} of the {limit:.6g} there are, within the caps; raise the total or "
            "lower the floors."
        )
    whole = np.clip(np.floor(plan + 1e-9), least, most)
    _take_back(fill, whole, least, costs, limit)
    while _add_bulk(fill, whole, most, costs, limit):
        pass
    _add(fill, whole, most, costs, limit, exhaust=exhaust)
    if np.ptp(fill.prices) == 0:
        _exchange(fill, whole, least, most)
    return whole


def _gain(fill: _Fill, i: Any, whole: Any) -> Any:
    """Decrease of the error per price when level i goes from `whole` to one more; inf from nothing."""
    have = fill.spent[i] + whole
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fill.errors[i] > 0, fill.errors[i] / have / (have + 1.0) / fill.prices[i], 0.0)


def _take_back(fill: _Fill, whole: Array, least: Array, costs: Array, limit: float) -> None:
    excess = float(whole @ costs) - limit
    heap = [(float(_gain(fill, i, whole[i] - 1)), int(i)) for i in np.flatnonzero(whole > least)]
    heapq.heapify(heap)
    while excess > 0 and heap:
        _, i = heapq.heappop(heap)
        whole[i] -= 1
        excess -= costs[i]
        if whole[i] > least[i]:
            heapq.heappush(heap, (float(_gain(fill, i, whole[i] - 1)), i))


def _add_bulk(fill: _Fill, whole: Array, most: Array, costs: Array, limit: float) -> bool:
    """Spend what is left on the levels that can still be afforded, by the continuous rule rounded down."""
    rest = limit - float(whole @ costs)
    on = np.flatnonzero((costs <= rest) & (whole < most) & (fill.errors > 0))
    if not on.size or rest < 4 * float(costs[on].sum()):
        return False
    have = fill.spent[on] + whole[on]
    more = waterfill(fill.errors[on], costs[on], rest, spent=have, high=fill.spent[on] + most[on]).examples
    more = np.minimum(np.floor(more), most[on] - whole[on])
    whole[on] += more
    return bool(more.any())


def _add(fill: _Fill, whole: Array, most: Array, costs: Array, limit: float, *, exhaust: bool) -> None:
    rest = limit - float(whole @ costs)
    useful = (whole < most) & (exhaust | (fill.errors > 0))
    heap = [(-float(_gain(fill, i, whole[i])), int(i)) for i in np.flatnonzero(useful & (costs <= rest))]
    heapq.heapify(heap)
    while heap:
        _, i = heapq.heappop(heap)
        if costs[i] > rest:
            continue
        whole[i] += 1
        rest -= costs[i]
        if whole[i] < most[i]:
            heapq.heappush(heap, (-float(_gain(fill, i, whole[i])), i))


def _exchange(fill: _Fill, whole: Array, least: Array, most: Array) -> None:
    """Move single examples while that lowers the error: local optimality is global for equal prices."""
    for give, take in _pairs(fill, whole, least, most):
        whole[give] -= 1
        whole[take] += 1


def _pairs(fill: _Fill, whole: Array, least: Array, most: Array) -> Iterator[tuple[int, int]]:
    every = np.arange(whole.size)
    for _ in range(20 * whole.size):
        gain = np.where(whole < most, _gain(fill, every, whole), -1.0)
        loss = np.where(whole > least, _gain(fill, every, np.maximum(whole - 1, 0)), np.inf)
        take, give = int(np.argmax(gain)), int(np.argmin(loss))
        if not gain[take] > loss[give] * (1 + 1e-12):
            return
        yield give, take
