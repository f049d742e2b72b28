"""By how much averaged SGD misses least squares: it has not forgotten its start along directions of little variance.

A rate is stable only below the curvature of the widest direction, and along the others one average of m examples is a
few relaxation times, or less (docs/theory.md section 5.9).
"""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array

__all__ = ["averaged_sgd_excess"]

_RATES = np.geomspace(1e-3, 0.95, 24)  # of the largest stable rate


def averaged_sgd_excess(
    eigenvalues: Array, counts: Array, sigma: Array, examples: Array, start: Array
) -> tuple[Array, Array]:
    """Error of averaged SGD with the best constant rate of each level, and that of least squares, by level.

    One example an update, which forgets the start soonest: with n = m updates and k = tau v the average leaves
    D^2 ((1 - (1 - k)^n) / (n k))^2 of its start D, and of noise (lambda sigma^2 / (v^2 m)) (2 - k) / (2 - 3 k), less
    before the first relaxation time. Least squares is the one that starts there too, A / (m + A / D^2). Bands weigh
    n_b lambda_b, as the terminal distance weighs them at a low stopping point.

    Args:
        eigenvalues, counts: (B,) bands.
        sigma: (L,) noise levels.
        examples: (L,) m within one correlation length of each, > 0.
        start: (B, L) error of the slopes before training.

    Returns:
        (L,) each, per unit log sigma.

    >>> one = np.ones(1)
    >>> ours, least = averaged_sgd_excess(one, one, one, 1e6 * one, np.full((1, 1), 0.5))
    >>> bool(1 < ours[0] / least[0] < 1.1)
    True
    """
    v = eigenvalues[:, None] + sigma**2
    weight = (counts * eigenvalues)[:, None]
    one = eigenvalues[:, None] * sigma**2 / v**2
    begun = start != 0  # a direction without variance has nothing to learn
    with np.errstate(divide="ignore", over="ignore"):
        least = weight * np.where(begun, one / (examples + one / np.where(begun, start, 1.0) ** 2), 0.0)
    steepest = np.where(eigenvalues[:, None] > 0, v, 0.0).max(axis=0)
    found = np.full(sigma.size, np.inf)
    for share in _RATES:
        k = share * (2 / 3) * v / steepest
        x = -examples * np.log1p(-np.minimum(k, 1 - 1e-12))
        kept = -np.expm1(-x) / (examples * k)
        noise = one / examples * _averaged(x) * (2 - k) / (2 - 3 * k)
        found = np.minimum(found, (weight * (start**2 * kept**2 + noise)).sum(axis=0))
    return found, least.sum(axis=0)


def _averaged(x: Array) -> Array:
    """What the average has of least squares' variance after x relaxation times from no noise: x^2 / 3 at first."""
    small = np.minimum(x, 1e-2)
    late = 1 + 2 * np.expm1(-x) / x - np.expm1(-2 * x) / (2 * x)
    return np.where(x > small, late, small**2 / 3)
