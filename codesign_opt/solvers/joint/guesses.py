"""Where Newton's method on the dual starts: multipliers of a plain design (docs/theory.md section 7.4).

The design need not be feasible or good: its multipliers need the right size, since Newton's method works on their
logarithms. Half the budget goes to steps in the proportions of the square-root rule of their own errors, half to
examples; then p_b = 2 S_b, and a budget's price is what is still to be gained there per price paid (the identity
of section 7.4).
"""

from __future__ import annotations

import numpy as np

from ...basics.checks import Array, Mask
from .dual import Dual, LevelDual
from .sums import dot, mix, weigh

__all__ = ["LARGEST", "above_floors", "first_guess", "guess_of"]

LARGEST = 690.0  # of a log multiplier: its exponential and the reciprocal of that are still finite
_TINY = 1e-300


def first_guess(dual: Dual, used: Mask | None = None) -> Array:
    """(..., D) theta at a plain design: steps by the discretisation rows, half the budget a side.

    Args:
        dual: the dual function.
        used: (..., L) levels that a member of a batch has; None: all.
    """
    levels, q = dual.levels, dual.q
    both = levels.trains.any(axis=-1) & (dual.c > 0).any(axis=(-1, -2))
    room = np.where(both, 0.5, 1.0)[..., None] * dual.budget
    n = _plain_steps(dual, room, used)
    safe = levels.safe(n)
    factor, excess, _ = levels.factor(safe)
    sums = weigh(dual.r, levels.power(safe))
    total = np.sqrt(levels.errors * factor / np.maximum(dual.c.sum(axis=-2), _TINY))
    paid = weigh(dual.c, total)
    total = total * np.where(paid > 0, room / np.maximum(paid, _TINY), 1e100).min(axis=-1, keepdims=True)
    total = np.maximum(np.maximum(total, levels.low), _TINY)
    total = total if levels.high is None else np.minimum(total, levels.high)
    score = np.where(levels.trains, levels.errors * factor / total, 0.0)
    slowed = score if levels.form == "per_step" else np.where(factor > 1, score, 0.0)
    for_steps = 2 * q * dot(sums, sums) + dot(levels.floors, excess)
    steps_cost = weigh(dual.k, n)
    by_steps = (for_steps[..., None] + weigh(dual.k > 0, slowed)) / np.maximum(steps_cost, _TINY)
    etas = np.maximum(weigh(dual.c > 0, score) / room, np.where(steps_cost > 0, by_steps, 0.0))
    return guess_of(dual, np.maximum(2 * sums, _TINY), np.clip(etas, 1e-100, 1e280))


def guess_of(dual: Dual, bands: Array, etas: Array) -> Array:
    """(..., D) theta at these multipliers, with nu from the examples that they buy near the stopping point."""
    theta = np.log(np.concatenate([bands, etas], axis=-1))
    if dual.window is not None:
        price, levels = mix(etas, dual.c), dual.levels
        total = np.maximum(np.sqrt(levels.errors / np.maximum(price, _TINY)), levels.low)
        total = total if levels.high is None else np.minimum(total, levels.high)
        near = np.maximum(dual.near(total), 1e-140)
        nu = np.minimum(np.maximum(dual.final_error / near**2, 1e-280), 1e280)
        if dual.open is None:  # the last entry is then log nu itself
            place = np.log(nu)
        else:
            ratio = nu / np.maximum(dual.ceiling(etas, price)[0], _TINY)
            # nu above the ceiling means that the last evaluation decides alone: T there is about sqrt(A_r / ceiling)
            far = np.minimum(np.log(2 * ratio), 60.0)
            place = np.where(ratio < 0.5, np.log(np.maximum(ratio, _TINY)), far)
        theta = np.concatenate([theta, place[..., None]], axis=-1)
    return np.clip(theta, -LARGEST, LARGEST)


def _plain_steps(dual: Dual, room: Array, used: Mask | None) -> Array:
    """(..., L) steps that cost what there is room for; a level that responds little still has a millionth of the most.

    The root of the squares of all bands stands for D: which bands will dominate is not known yet.
    """
    levels = dual.levels
    price = dual.k.sum(axis=-2)
    price = np.where(price > 0, price, 1.0)
    if dual.bands:
        shape = levels.root(np.sqrt((dual.r * dual.r).sum(axis=-2)) / price)
    else:  # only the score asks for steps: up to the kink, or as its floor balances their price
        shape = np.maximum(levels.kappa, np.sqrt(levels.floors * levels.kappa / price))
    shape = np.maximum(shape, np.maximum(1e-6 * shape.max(axis=-1, keepdims=True), 1e-100))
    shape = shape if used is None else np.where(used, shape, 0.0)
    n = shape * (room / np.maximum(weigh(dual.k, shape), _TINY)).min(axis=-1, keepdims=True)
    if levels.steps_low is None and levels.steps_high is None:
        return n
    n = n if levels.steps_low is None else np.maximum(n, levels.steps_low)
    n = n if levels.steps_high is None else np.minimum(n, levels.steps_high)
    return np.maximum(n, 1e-100)


def above_floors(dual: LevelDual) -> list[Array]:
    """theta at the floors of the steps plus half of what they leave, where that is little: none, or one.

    There the plain design is no guide: floors, not errors, decide its steps, and the multipliers depend on the little
    that is left to buy with.
    """
    spent = dual.c @ (dual.low - dual.spent) + dual.k @ dual.n_low
    room = np.maximum(dual.budget - spent, 1e-16 * dual.budget)
    if not dual.r.size or np.all(room > 0.1 * dual.budget):
        return []
    prices = np.maximum(dual.k.sum(axis=1), _TINY)
    further = 0.5 * float(np.min(np.where(dual.k.any(axis=1), room / prices, np.inf)))
    if not np.isfinite(further):
        return []
    sums = dual.r @ dual.levels.power(np.minimum(dual.n_low + further, dual.n_high))
    etas = dual.q * 2 * float(sums @ sums) / room
    theta = np.log(np.clip(np.concatenate([2 * sums, etas]), _TINY, 1 / _TINY))
    return [theta if dual.window is None else np.append(theta, 0.0)]
