"""Sums over levels, and mixtures of rows, for one program (L,) or for R programs (R, L) with the same words.

With one program these are matrix-vector products, with many a stack of them. numpy's stacked product would serve
both, but its overhead is felt by a solve of one millisecond that takes a hundred of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...basics.checks import Array, Mask

__all__ = ["dot", "mix", "pick", "weigh"]


def dot(left: Array, right: Array) -> Any:
    """(...) sums over the last axis of two (..., L).

    >>> dot(np.ones(3), np.arange(3.0)).item(), dot(np.ones((2, 3)), np.ones((2, 3))).tolist()
    (3.0, [3.0, 3.0])
    """
    if left.ndim == 1:
        return left @ right
    return np.matmul(left[:, None], right[:, :, None])[:, 0, 0]


def mix(weights: Array, rows: Array) -> Array:
    """(..., L) sums over the rows (..., J, L) with weights (..., J).

    >>> mix(np.array([1.0, 2.0]), np.eye(2)).tolist()
    [1.0, 2.0]
    """
    if weights.ndim > 1:
        return np.asarray(np.matmul(weights[:, None], rows)[:, 0])
    return np.asarray(weights[0] * rows[0] if weights.size == 1 else weights @ rows)


def weigh(rows: Array | Mask, values: Array) -> Array:
    """(..., J) sums over the levels of rows (..., J, L) times values (..., L).

    >>> weigh(np.eye(2), np.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return np.asarray(rows @ values if values.ndim == 1 else np.matmul(rows, values[:, :, None])[:, :, 0])


def pick(rows: Array, place: Any) -> Any:
    """(..., J) the entries of rows (..., J, L), or (...) those of (..., L), at one level of each program.

    >>> pick(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])).tolist()
    [1.0, 4.0]
    """
    return rows[np.arange(place.size), ..., place] if place.ndim else rows[..., place]
