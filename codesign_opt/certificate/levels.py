"""Lower bounds of one level's part of a Lagrangian, over arrays of levels (docs/theory.md section 8.1).

For the bounds between stopping points: the levels of hundreds of intervals at once, where the bracketing of
lagrangian.py would make a dozen passes over all of them. As there, nothing is taken from solvers/.
"""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array

__all__ = ["least_of_levels"]

_NEWTON = 5  # from below the root of a convex function: each doubles the digits


def least_of_levels(
    errors: Array,
    prior: Array,
    floors: Array,
    kappa: Array,
    drag: Array,
    order: int,
    examples: Array,
    steps: Array,
    form: str,
) -> Array:
    """Lower bounds of min over m, n >= 0 of (A / (m0 + m) + F) M(kappa / n) + D / n^q + examples m + steps n.

    NaN where steps serve nothing or cost nothing, or an example pays. In u = log n the function is convex, its
    slope k n - r(n) with r falling: the minimum lies within |log(k n / r(n))| of any n, so that a tangent at any
    n bounds it. The n used solve the optimality condition nearly.

    Args:
        errors, prior, floors, kappa, drag: (..., L) A, m0, F, kappa and D of docs/theory.md section 7.
        order: q.
        examples, steps: (..., L) prices.
        form: "max" for M(x) = max(1, x), "per_step" for M(x) = x.

    >>> one, zero = np.ones(1), np.zeros(1)
    >>> least_of_levels(one, zero, zero, one, one, 1, one, one, "max").round(12).tolist()  # n = 1 = kappa: 2 + 1 + 1
    [4.0]
    """
    with np.errstate(all="ignore"):
        bad = ~((drag > 0) & (steps > 0) & (examples >= 0))
        root = np.sqrt(errors * examples)  # min over m of A M / m + c m is 2 sqrt(A M c)
        n = (order * drag / steps) ** (1 / (order + 1))
        # beyond the kink M is constant: where the steps of the powers alone lie there, they are the minimiser already
        slowed = n < kappa if form == "max" else (errors > 0) | (floors > 0)
        where = np.nonzero(slowed & ~bad)
        if where[0].size:
            held, cost = floors[where] * kappa[where], steps[where]
            n[where] = _slowed_root(order, drag[where], root[where] * np.sqrt(kappa[where]), held, cost)
            # where no example is worth its price beside the prior, the score is A M / m0
            none = errors[where] * kappa[where] < examples[where] * prior[where] ** 2 * n[where]
            if none.any():
                at = tuple(part[none] for part in where)
                held = held[none] + errors[at] * kappa[at] / prior[at]
                n[at] = _slowed_root(order, drag[at], np.zeros(held.size), held, cost[none])
        if form == "max":
            n = np.where(slowed, np.minimum(n, kappa), n)
        x = kappa / n
        factor = x if form == "per_step" else np.maximum(x, 1.0)
        score, power = root * np.sqrt(factor), drag * n**-order
        alone = np.where(prior > 0, errors * factor / np.where(prior > 0, prior, 1.0), np.inf)
        trained = score < alone  # sqrt(A M / c) > m0
        value = np.where(trained, 2 * score - examples * prior, alone) + floors * factor + power + steps * n
        left, pull = steps * n, np.minimum(score, alone) + floors * factor
        plain = order * power
        # at a kink the slope jumps, and 0 may lie in the jump: k n - r(n) with r from its one-sided values
        before = plain + np.where(x >= 1, pull, 0.0) if form == "max" else plain + pull
        after = plain + np.where(x > 1, pull, 0.0) if form == "max" else plain + pull
        right = np.clip(left, after, before)  # the subgradient nearest to 0
        off = np.abs(left - right) * np.abs(np.log(left / right))
        return np.where(bad, np.nan, value - off)


def _slowed_root(order: int, drag: Array, score: Array, floor: Array, steps: Array) -> Array:
    """n with steps n = q D / n^q + score / sqrt(n) + floor / n, by Newton in log n from below."""
    # the largest root of a single part lies below the root of the sum, as Newton's method in log n needs: from there it
    # climbs without overshooting
    first = np.maximum((order * drag / steps) ** (1 / (order + 1)), np.cbrt((score / steps) ** 2))
    n = np.maximum(first, np.sqrt(floor / steps))
    for _ in range(_NEWTON):
        plain, half, whole = order * drag * n**-order, score / np.sqrt(n), floor / n
        right = plain + half + whole
        bend = 1 + (order * plain + 0.5 * half + whole) / right
        n = n * np.exp(np.log(right / (steps * n)) / bend)
    return n
