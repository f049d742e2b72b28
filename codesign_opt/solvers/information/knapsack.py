"""Shares of one budget under caps: the best for a linear gain, and the nearest to given proportions."""

from __future__ import annotations

import numpy as np

from ...basics.checks import Array

__all__ = ["capped_shares", "knapsack"]


def knapsack(gains: Array, caps: Array) -> tuple[float, float]:
    """max sum u g over 0 <= u <= cap, sum u <= 1, and the price of the last share (0 if caps leave room).

    >>> knapsack(np.array([1.0, 3.0]), np.array([np.inf, 0.25]))
    (1.5, 1.0)
    """
    if not np.isfinite(caps).any():
        best = float(gains.max())
        return best, best
    order = np.argsort(-gains)
    taken = np.minimum(np.cumsum(caps[order]), 1.0)
    part = np.diff(taken, prepend=0.0)
    last = int(np.searchsorted(taken, 1.0))
    return float(part @ gains[order]), float(gains[order[last]]) if last < gains.size else 0.0


def capped_shares(weight: Array, caps: Array) -> Array:
    """min(cap, t weight) with t such that the shares sum to one (weights > 0, caps sum to at least one).

    >>> capped_shares(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.25])).tolist()
    [0.375, 0.375, 0.25]
    """
    shares = weight / weight.sum()
    if np.all(shares <= caps):
        return shares
    # as t grows the levels meet their caps in the order of cap / weight; t is right where the next has not met its own
    ratio = np.where(np.isfinite(caps), caps / weight, np.inf)
    order = np.argsort(ratio)
    filled = np.concatenate([[0.0], np.cumsum(np.where(np.isfinite(caps), caps, 0.0)[order])])[:-1]
    rest = np.cumsum(weight[order][::-1])[::-1]  # from the far end: a difference of sums would cancel there
    t = (1 - filled) / rest  # if the first i levels in this order are at their caps
    i = int(np.argmax(t <= ratio[order])) if np.any(t <= ratio[order]) else t.size - 1
    return np.minimum(caps, np.maximum(t[i], 0.0) * weight)
