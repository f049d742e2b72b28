"""Lower bounds over many intervals of stopping points at once: sweep's interval bound over arrays.

docs/theory.md sections 7 and 8. With given multipliers of budgets and band sums the Lagrangian separates over
levels; on each level it is convex in the logarithm of the steps, and a point near its minimum gives a rigorous
bound of it by the slope there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..basics.checks import Array
from ..models.coefficient_batch import CoefficientBatch

if TYPE_CHECKING:
    from .question import Study

__all__ = ["interval_bounds", "least_of_levels"]

_NEWTON = 5  # from below the root of a convex function: each doubles the digits


def interval_bounds(
    study: Study, lows: Array, highs: Array, prices: Array, bands: Array, near_examples: Array
) -> Array | None:
    """(R,) bounds of the optimum at every stopping point in [lows, highs]; NaN where this route gives none.

    Args:
        study: the question; None is returned where its parts are not those of a batch.
        lows, highs: (R,) ends of the intervals.
        prices: (R, J) multipliers of the study's budgets.
        bands: (R, B) multipliers of the band sums.
        near_examples: (R,) examples within one correlation length at the point the multipliers come from.
    """
    arrays = () if study.prices is None else (study.prices.example, study.prices.evaluation)
    if study.run is not None or any(not callable(price) and np.ndim(price) > 0 for price in arrays):
        return None
    if not hasattr(study.model, "interval_batch"):
        return None
    table = study.model.interval_batch(lows, highs, study.levels)
    if table is None or table.form not in ("max", "per_step") or bands.shape[1] != table.response.shape[1]:
        return None
    size = table.levels.used.shape
    constant = table.truncation + table.initial + table.final_floor - (bands**2).sum(axis=1) / 4
    examples, steps, left = np.zeros(size), np.zeros(size), list(prices.T)
    if study.prices is not None and study.budget is not None:
        price = left.pop(0)
        constant -= price * study.budget
        if table.final_steps and not callable(study.prices.evaluation):  # a function of sigma is left out: lower
            constant += price * study.prices.final_price(float(lows[0]))
        examples = price[:, None] * table.levels.spread(study.prices.example_price(table.levels.bins))
        steps = steps + price[:, None] * table.evaluations_per_step * table.levels.spread(
            study.prices.evaluation_price(table.levels.bins)
        )
        gain, window = _last_evaluation(study, table, lows, price, near_examples)
        constant += gain
        examples = examples - window
    if study.steps is not None:
        price = left.pop(0)
        constant += price * (table.final_steps - study.steps)
        steps = steps + price[:, None] * table.levels.used
    errors = table.example_error if study.trains else np.zeros(size)
    drag = np.matmul(bands[:, None], table.step_response)[:, 0]
    least = least_of_levels(errors, table.floor_error, table.kappa, drag, table.order, examples, steps, table.form)
    return constant + np.where(table.levels.used, least, 0.0).sum(axis=1)


def _last_evaluation(
    study: Study, table: CoefficientBatch, lows: Array, price: Array, near_examples: Array
) -> tuple[Array, Array]:
    """(R,) constant and (R, L) price of an example that A / m_r >= 2 A / N - A m_r / N^2 gives and takes."""
    length = getattr(study.model.coupling, "log_width", None)
    if not isinstance(length, float) or not study.trains or study.prices is None:
        return np.zeros(lows.size), np.zeros(table.levels.used.shape)
    cheapest = price * _cheapest_example(study, lows)
    on = (table.final_score > 0) & (near_examples > 0)
    size = np.maximum(near_examples, np.sqrt(table.final_score / cheapest))
    rate = np.where(on, table.final_score / size**2, 0.0)
    window = table.levels.window(np.full(lows.size, length))
    return 2 * rate * size, rate[:, None] * window


def _cheapest_example(study: Study, lows: Array) -> Array:
    """(R,) the smallest price of an example on the levels above each stopping point."""
    assert study.prices is not None
    if not callable(study.prices.example):
        return np.full(lows.size, float(np.asarray(study.prices.example)))
    whole = study.model.interval_batch(lows, lows, study.levels).levels
    prices = whole.spread(study.prices.example_price(whole.bins))
    return np.asarray(np.where(whole.used, prices, np.inf).min(axis=1))


def least_of_levels(
    errors: Array, floors: Array, kappa: Array, drag: Array, order: int, examples: Array, steps: Array, form: str
) -> Array:
    """Lower bounds of min over m, n >= 0 of (A / m + F) M(kappa / n) + D / n^q + examples m + steps n.

    NaN where steps serve nothing or cost nothing, or an example pays. In u = log n the function is convex, its
    slope k n - r(n) with r falling: the minimum lies within |log(k n / r(n))| of any n, so that a tangent at any
    n bounds it. The n used solve the optimality condition nearly.

    Args:
        errors, floors, kappa, drag: (..., L) A, F, kappa and D of docs/theory.md section 7.
        order: q.
        examples, steps: (..., L) prices.
        form: "max" for M(x) = max(1, x), "per_step" for M(x) = x.

    >>> one, zero = np.ones(1), np.zeros(1)
    >>> least_of_levels(one, zero, one, one, 1, one, one, "max").round(12).tolist()  # n = 1 = kappa: 2 + 1 + 1
    [4.0]
    """
    with np.errstate(all="ignore"):
        bad = ~((drag > 0) & (steps > 0) & (examples >= 0))
        root = np.sqrt(errors * examples)
        n = (order * drag / steps) ** (1 / (order + 1))
        slowed = n < kappa if form == "max" else (errors > 0) | (floors > 0)
        where = np.nonzero(slowed & ~bad)
        if where[0].size:
            n[where] = _slowed_root(
                order, drag[where], root[where] * np.sqrt(kappa[where]), floors[where] * kappa[where], steps[where]
            )
        if form == "max":
            n = np.where(slowed, np.minimum(n, kappa), n)
        x = kappa / n
        factor = x if form == "per_step" else np.maximum(x, 1.0)
        score, power = root * np.sqrt(factor), drag * n**-order
        value = 2 * score + floors * factor + power + steps * n
        left, pull = steps * n, score + floors * factor
        plain = order * power
        # the slope jumps where x = 1: its two one-sided values
        before = plain + np.where(x >= 1, pull, 0.0) if form == "max" else plain + pull
        after = plain + np.where(x > 1, pull, 0.0) if form == "max" else plain + pull
        right = np.clip(left, after, before)  # the subgradient nearest to 0
        off = np.abs(left - right) * np.abs(np.log(left / right))
        return np.where(bad, np.nan, value - off)


def _slowed_root(order: int, drag: Array, score: Array, floor: Array, steps: Array) -> Array:
    """n with steps n = q D / n^q + score / sqrt(n) + floor / n, by Newton in log n from below."""
    first = np.maximum((order * drag / steps) ** (1 / (order + 1)), np.cbrt((score / steps) ** 2))
    n = np.maximum(first, np.sqrt(floor / steps))
    for _ in range(_NEWTON):
        plain, half, whole = order * drag * n**-order, score / np.sqrt(n), floor / n
        right = plain + half + whole
        bend = 1 + (order * plain + 0.5 * half + whole) / right
        n = n * np.exp(np.log(right / (steps * n)) / bend)
    return n
