"""Lower bounds over many intervals of stopping points at once: sweep's interval bound over arrays.

docs/theory.md sections 7 and 8. With given multipliers of budgets and band sums the Lagrangian separates over
levels; on each level it is convex in the logarithm of the steps, and a point near its minimum gives a rigorous
bound of it by the slope there.
"""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..certificate.levels import least_of_levels
from ..models.coefficient_batch import CoefficientBatch
from .question import Study

__all__ = ["interval_bounds"]


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
    if (study.run is not None and study.trains) or study.budgets.per_level:
        return None
    table = study.model.interval_batch(lows, highs, study.levels)
    if table is None or table.form not in ("max", "per_step") or bands.shape[1] != table.response.shape[1]:
        return None
    size = table.levels.used.shape
    if study.taught and not study.trains:
        given = _after_run(study, table, lows)
        if given is None:
            return None
        table = given
    # S_b^2 >= p_b S_b - p_b^2 / 4 whatever p_b: the band sums enter linearly, and levels part
    constant = table.truncation + table.initial + table.final_floor - (bands**2).sum(axis=1) / 4
    limits = study.budgets.of_batch(table, interval=True)
    constant -= (prices * limits.left).sum(axis=1)
    examples, steps = (np.einsum("rj,rjl->rl", prices, each) for each in (limits.example_prices, limits.step_prices))
    if study.prices is not None:
        gain, window = _last_evaluation(study, table, lows, prices[:, 0], near_examples)
        constant += gain
        examples = examples - window
    errors = table.example_error if study.trains else np.zeros(size)
    drag = np.matmul(bands[:, None], table.step_response)[:, 0]
    prior = table.prior_examples if study.trains else np.zeros(size)
    terms = (errors, prior, table.floor_error, table.kappa, drag)
    least = least_of_levels(*terms, table.order, examples, steps, table.form)
    return constant + np.where(table.levels.used, least, 0.0).sum(axis=1)


def _after_run(study: Study, table: CoefficientBatch, lows: Array) -> CoefficientBatch | None:
    """The tables with the least that a run may leave at any stopping point of each interval."""
    spent = study.spent_batch(table, lows)
    assert spent is not None
    count, length = lows.size, study.model.coupling.constant_length
    window = table.levels.window(np.full(count, np.inf if length is None else length))
    window[np.arange(count), table.levels.first] = 1.0
    return table.after(spent, (window * spent).sum(axis=1))


def _last_evaluation(
    study: Study, table: CoefficientBatch, lows: Array, price: Array, near_examples: Array
) -> tuple[Array, Array]:
    """(R,) constant and (R, L) price of an example that A / m_r >= 2 A / N - A m_r / N^2 gives and takes."""
    length = study.model.coupling.constant_length
    if length is None or not study.trains or study.prices is None:
        return np.zeros(lows.size), np.zeros(table.levels.used.shape)
    cheapest = price * _cheapest_example(study, lows)
    on = (table.final_score > 0) & (near_examples > 0)
    # the tangent may give an example no more than the cheapest costs, A / N^2 <= price: then those below the table's
    # levels, which are left out, never pay for themselves
    size = np.maximum(near_examples, np.sqrt(table.final_score / cheapest))
    rate = np.where(on, table.final_score / size**2, 0.0)
    window = table.levels.window(np.full(lows.size, length))
    return 2 * rate * size - rate * table.final_prior, rate[:, None] * window


def _cheapest_example(study: Study, lows: Array) -> Array:
    """(R,) the smallest price of an example on the levels above each stopping point."""
    assert study.prices is not None
    if not callable(study.prices.example):
        return np.full(lows.size, float(np.asarray(study.prices.example)))
    table = study.model.interval_batch(lows, lows, study.levels)
    assert table is not None  # as for the intervals themselves
    whole = table.levels
    prices = whole.spread(study.prices.example_price(whole.bins))
    return np.asarray(np.where(whole.used, prices, np.inf).min(axis=1))
