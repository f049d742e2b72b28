"""The saturating law on the steps of a grid: nodes that an untrained denoiser leaves no worse than it is.

With x = w R the error that a node's examples leave and y = f U that of the untrained denoiser, the node leaves
1 / (1 / x + 1 / y) (docs/theory.md section 5.6). That is concave in (x, y): its tangent is an error of the old form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array
from ..models.grid_descent import NodeErrors

__all__ = ["density_for", "saturated"]

_TURNS, _SOLVED, _WIDEST, _LEAP = 60, 1e-5, 200.0, 16.0  # the error is least: what is off by so much shows squared
_UNFELT = -30.0  # of that root: a last evaluation of a share so small changes no density
_ACTIVE_TURNS = 100


def saturated(weights: NodeErrors, errors: NodeErrors, *, ends: bool = True) -> tuple[Array, NodeErrors, NodeErrors]:
    """(...) what nodes leave, and its tangent: weights whose sum with errors has its slope, and errors with weights.

    Args:
        weights: (..., P) w of R and f of F and U.
        errors: (..., P) R, F and U.
        ends: whether the last node is the last evaluation; else it shares the last step with the one before.

    >>> one = np.ones(1)
    >>> value, tangent, _ = saturated(NodeErrors(one, one), NodeErrors(one, 0 * one, one))
    >>> value.item(), tangent.reducible.item(), tangent.untrained.item()
    (0.5, 0.25, 0.25)
    """
    left = (weights.floor * errors.floor).sum(axis=-1)
    trained = weights.reducible * errors.reducible
    if errors.untrained is None:
        return np.asarray(left + trained.sum(axis=-1)), weights, errors
    start = weights.floor * errors.untrained
    both = trained + start
    share = np.divide(start, both, out=np.zeros(both.shape), where=both > 0)
    if not ends:
        pair = both[..., -2:].sum(axis=-1)
        share[..., -2:] = (start[..., -2:].sum(axis=-1) / np.where(pair > 0, pair, 1.0))[..., None]
    by_trained, by_start = share**2, (1 - share) ** 2
    tangent = NodeErrors(weights.reducible * by_trained, weights.floor, weights.floor * by_start)
    moved = NodeErrors(errors.reducible * by_trained, errors.floor + errors.untrained * by_start)
    return np.asarray(left + (trained * share).sum(axis=-1)), tangent, moved


def density_for(
    each: Array, prior: Array, price: Array, near: Array, last: Array, last_prior: Array, money: float
) -> tuple[Array, Array]:
    """(..., J) density rho on each step with the least sum g / (p + rho) + R / (p_r + o . rho) for the money.

    rho = max(0, t sqrt(g / (c - theta o)) - p) with t from the money and theta (p_r + o . rho)^2 = R t^2, both
    monotone: one root, by Newton's method (docs/theory.md section 7.2). Also (...) t^-2, the error's worth per money.

    Args:
        each, prior, price, near: (..., J) g, p, c and o.
        last, last_prior: (...) R and p_r.
        money: what all the density costs.

    >>> one = np.ones((1, 2))
    >>> rho, _ = density_for(np.array([[1.0, 4.0]]), 0 * one, one, 0 * one, np.zeros(1), np.zeros(1), 6.0)
    >>> rho.tolist()
    [[2.0, 4.0]]
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        most = np.minimum.reduce(price / near, axis=-1, keepdims=True)
        last, start = last[..., None], last_prior[..., None]
        ends = np.isfinite(most) & (last > 0)
        taken = np.where(ends, most, 0.0) * near
        beside = np.maximum(price - taken, 0.0)  # 0 on the step that sets the ceiling: no difference of equal numbers
        level, paid = np.log(np.where(ends, most / last, 1.0)), price * prior
        place, low, high = np.zeros(most.shape), np.full(most.shape, -_WIDEST), np.full(most.shape, _WIDEST)
        active = np.ones(price.shape, dtype=bool)
        for _ in range(_TURNS):
            rest = np.where(ends, 1 / (1 + np.exp(place)), 1.0)
            left = beside + rest * taken
            rate = np.sqrt(each / left)
            costs = price * rate
            scale, active, paying = _scale(costs, paid, rate, prior, active, money)
            rho = active * (scale * rate - prior)
            served = _sum(near * rho) + start
            excess = np.where(ends, level + np.log1p(-rest) + 2 * np.log(served / scale), 0.0)
            done = (np.abs(excess) < _SOLVED) | (high - low < _SOLVED) | ((place < _UNFELT) & (excess > 0))
            if done.all():
                break
            low, high = np.where(excess < 0, place, low), np.where(excess < 0, high, place)
            bent = active * taken / left  # twice the rate's relative slope over share times rest
            paying = _sum(costs * bent) / paying
            more = scale * _sum(near * rate * (bent - paying * active))
            rise = rest + (1 - rest) * rest * (more / served + paying)
            step = np.maximum(np.minimum(excess / np.where(rise > 0, rise, 1.0), _LEAP), -_LEAP)
            moved = place - step
            moved = np.where((moved > low) & (moved < high), moved, 0.5 * (low + high))
            place = np.where(done, place, moved)
    # beside priors of far more than the money, their difference is not all of it, or rounds to nothing: spread evenly
    bought = _sum(price * rho)
    known = (bought > 0) & np.isfinite(bought)
    return np.where(known, rho, 1.0) * (money / np.where(known, bought, _sum(price))), scale[..., 0] ** -2.0


def _scale(
    costs: Array, paid: Array, rate: Array, prior: Array, active: NDArray[np.bool_], money: float
) -> tuple[Array, NDArray[np.bool_], Array]:
    """(..., 1) t at which price max(0, t rate - prior) sums to the money, (..., J) where that is above 0, and (..., 1)
    the costs there.

    Newton's method on a convex sum of straight pieces ends after finitely many turns, from any steps taken as active.
    """
    for _ in range(_ACTIVE_TURNS):
        paying = _sum(active * costs)
        scale = (money + _sum(active * paid)) / paying
        before, active = active, scale * rate > prior
        if (before == active).all():
            break
    return scale, active, paying


def _sum(steps: Array) -> Array:
    return np.add.reduce(steps, axis=-1, keepdims=True)
