"""The saturating law on the steps of a grid: nodes that an untrained denoiser leaves no worse than it is.

With x = w R the error that a node's examples leave and y = f U that of the untrained denoiser, the node leaves
1 / (1 / x + 1 / y) (docs/theory.md section 5.6). That is concave in (x, y): its tangent is an error of the old form.
"""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..models.grid_descent import NodeErrors

__all__ = ["density_for", "saturated"]

_TURNS, _SOLVED, _WIDEST, _LEAP = 60, 1e-11, 40.0, 8.0


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
    share = np.divide(start, both, out=np.zeros_like(both), where=both > 0)
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
    monotone: one root (docs/theory.md section 7.2). Also (...) t^-2, the error's worth per money.

    Args:
        each, prior, price, near: (..., J) g, p, c and o.
        last, last_prior: (...) R and p_r.
        money: what all the density costs.

    >>> one = np.ones((1, 2))
    >>> rho, _ = density_for(np.array([[1.0, 4.0]]), 0 * one, one, 0 * one, np.zeros(1), np.zeros(1), 6.0)
    >>> rho.tolist()
    [[2.0, 4.0]]
    """
    ratio = np.divide(price, near, out=np.full_like(price, np.inf), where=near > 0)
    most = ratio.min(axis=-1)
    ends = np.isfinite(most) & (last > 0)
    most = np.where(ends, most, 0.0)

    def at(place: Array) -> tuple[Array, Array, Array]:
        share, rest = 1 / (1 + np.exp(-place)), 1 / (1 + np.exp(place))
        share, rest = np.where(ends, share, 0.0), np.where(ends, rest, 1.0)
        taken = most[..., None] * near
        # on the step that sets the ceiling nothing is left beside: without the difference of two equal numbers
        rate = np.sqrt(each / (np.maximum(price - taken, 0.0) + rest[..., None] * taken))
        scale = _scale(rate, price, prior, money)
        rho = np.maximum(scale[..., None] * rate - prior, 0.0)
        served = (near * rho).sum(axis=-1) + last_prior
        return rho, scale, np.log(share * most / last) + 2 * np.log(served / scale)

    low, high = np.full(most.shape, -_WIDEST), np.full(most.shape, _WIDEST)
    place = np.zeros(most.shape)
    before = (place, np.full(most.shape, np.nan))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_TURNS):
            rho, scale, excess = at(place)
            done = ~ends | (np.abs(excess) < _SOLVED) | (high - low < _SOLVED)
            if done.all():
                break
            low, high = np.where(excess < 0, place, low), np.where(excess < 0, high, place)
            # nearly a straight line of slope one in the logit of the share
            rise = (excess - before[1]) / (place - before[0])
            moved = place - np.clip(excess / np.where(rise > 0, rise, 1.0), -_LEAP, _LEAP)
            moved = np.where((moved > low) & (moved < high), moved, 0.5 * (low + high))
            before, place = (place, excess), np.where(done, place, moved)
    return rho, scale**-2.0


def _scale(rate: Array, price: Array, prior: Array, money: float) -> Array:
    """(...) t at which max(0, t rate - prior) costs the money: on one segment between two breakpoints."""
    begins = prior / rate
    order = np.argsort(begins, axis=-1)
    slopes, paid, begins = (np.take_along_axis(part, order, axis=-1) for part in (price * rate, price * prior, begins))
    reached = (money + np.cumsum(paid, axis=-1)) / np.cumsum(slopes, axis=-1)
    until = np.concatenate([begins[..., 1:], np.full((*begins.shape[:-1], 1), np.inf)], axis=-1)
    first = np.argmax(reached <= until, axis=-1)
    return np.take_along_axis(reached, first[..., None], axis=-1)[..., 0]
