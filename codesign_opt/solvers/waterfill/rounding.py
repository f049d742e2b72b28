"""Whole examples near a continuous plan: rounded down, handed out by marginal gain, then exchanged.

docs/theory.md section 7, P1: the error sum_l s_l / (e_l + m_l) is separable and convex, so that single
exchanges find its least value over whole m wherever all prices are equal.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...basics.checks import Array, integer, vector
from ...basics.errors import InfeasibleError
from .fill import waterfill
from .levels import ROUNDING, Fill, error_of, prepare

__all__ = ["round_examples", "separable_errors"]


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
    fill = prepare(errors, prices, low, high, spent, name="round_examples")
    plan = vector(examples, "round_examples.examples", length=fill.errors.size, nonnegative=True)
    limit = float(plan @ fill.prices) * (1 + ROUNDING)
    costs = fill.prices
    if total is not None:
        limit = float(integer(total, "round_examples.total", minimum=0))
        plan = plan * (limit / plan.sum() if plan.any() else 0.0)
        costs = np.ones_like(costs)
    whole = _greedy(fill, plan, costs, limit, exhaust=total is not None)
    before, after = (float(error_of(fill, fill.spent + new)) for new in (plan, whole))
    return whole, after / before - 1 if 0 < before < np.inf and after < np.inf else float(after > before)


def separable_errors(errors: Array, final: float, window: Array, plan: Array, beside: float = 0.0) -> Array:
    """(L,) errors a with sum a_l / m_l >= sum_l s_l / m_l + final / (window . m + beside), of equal slope at the plan.

    By Cauchy-Schwarz (w . p)^2 <= (w . m)(sum_l w_l p_l^2 / m_l) for every m, so that a_l = s_l + final w_l
    p_l^2 / (w . p)^2 bounds the last evaluation's error from above, with its value and slope at the plan p
    (docs/theory.md section 7, P1); with what serves it `beside` up to a constant.

    >>> separable_errors(np.array([1.0, 4.0]), 8.0, np.array([1.0, 0.0]), np.array([2.0, 4.0])).tolist()
    [9.0, 4.0]
    """
    near = float(window @ plan) + beside
    return errors + final * window * (plan / near) ** 2 if final > 0 and near > 0 else errors


def _greedy(fill: Fill, plan: Array, costs: Array, limit: float, *, exhaust: bool) -> Array:
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
    # 1e-9: a plan that is whole but for rounding stays what it is
    whole = np.clip(np.floor(plan + 1e-9), least, most)
    _take_back(fill, whole, least, costs, limit)
    while _add_bulk(fill, whole, most, costs, limit):
        pass
    _add(fill, whole, most, costs, limit, exhaust=exhaust)
    if np.ptp(fill.prices) == 0:
        _exchange(fill, whole, least, most)
    return whole


def _gain(fill: Fill, i: Any, whole: Any) -> Any:
    """Decrease of the error per price when level i goes from `whole` to one more; inf from nothing."""
    have = fill.spent[i] + whole
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fill.errors[i] > 0, fill.errors[i] / have / (have + 1.0) / fill.prices[i], 0.0)


def _take_back(fill: Fill, whole: Array, least: Array, costs: Array, limit: float) -> None:
    excess = float(whole @ costs) - limit
    heap = [(float(_gain(fill, i, whole[i] - 1)), int(i)) for i in np.flatnonzero(whole > least)]
    heapq.heapify(heap)
    while excess > 0 and heap:
        _, i = heapq.heappop(heap)
        whole[i] -= 1
        excess -= costs[i]
        if whole[i] > least[i]:
            heapq.heappush(heap, (float(_gain(fill, i, whole[i] - 1)), i))


def _add_bulk(fill: Fill, whole: Array, most: Array, costs: Array, limit: float) -> bool:
    """Spend what is left on the levels that can still be afforded, by the continuous rule rounded down."""
    rest = limit - float(whole @ costs)
    on = np.flatnonzero((costs <= rest) & (whole < most) & (fill.errors > 0))
    if not on.size or rest < 4 * float(costs[on].sum()):
        return False
    # one by one a heap takes millions of examples too slowly: the continuous rule hands out nearly all that is left
    have = fill.spent[on] + whole[on]
    more = waterfill(fill.errors[on], costs[on], rest, spent=have, high=fill.spent[on] + most[on]).examples
    more = np.minimum(np.floor(more), most[on] - whole[on])
    whole[on] += more
    return bool(more.any())


def _add(fill: Fill, whole: Array, most: Array, costs: Array, limit: float, *, exhaust: bool) -> None:
    rest = limit - float(whole @ costs)
    useful = (whole < most) & (exhaust | (fill.errors > 0))
    heap = [(-float(_gain(fill, i, whole[i])), int(i)) for i in np.flatnonzero(useful & (costs <= rest))]
    heapq.heapify(heap)
    while heap:
        _, i = heapq.heappop(heap)
        if costs[i] > rest:  # dearer than what is left; a cheaper level may still fit
            continue
        whole[i] += 1
        rest -= costs[i]
        if whole[i] < most[i]:
            heapq.heappush(heap, (-float(_gain(fill, i, whole[i])), i))


def _exchange(fill: Fill, whole: Array, least: Array, most: Array) -> None:
    """Move single examples while that lowers the error: local optimality is global for equal prices."""
    for give, take in _pairs(fill, whole, least, most):
        whole[give] -= 1
        whole[take] += 1


def _pairs(fill: Fill, whole: Array, least: Array, most: Array) -> Iterator[tuple[int, int]]:
    # every exchange lowers the error, so that they end by themselves; the limit is against rounding
    every = np.arange(whole.size)
    for _ in range(20 * whole.size):
        gain = np.where(whole < most, _gain(fill, every, whole), -1.0)
        loss = np.where(whole > least, _gain(fill, every, np.maximum(whole - 1, 0)), np.inf)
        take, give = int(np.argmax(gain)), int(np.argmin(loss))
        if not gain[take] > loss[give] * (1 + 1e-12):
            return
        yield give, take
