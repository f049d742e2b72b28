"""Smoothing of a positive coefficient across noise levels: its logarithm against log sigma."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..basics.checks import Array, choice, vector

__all__ = ["SMOOTHINGS", "smooth_across_levels"]

SMOOTHINGS = ("none", "spline", "tv")
_PENALTIES = np.logspace(-4, 6, 41)
_REWEIGHTINGS = 40


def smooth_across_levels(sigma: Array, value: Array, error: Array, method: str) -> tuple[Array, Array]:
    """Smooth log(value) in log sigma, each level weighed by its standard error; zeros are filled in.

    "spline": least squares plus a penalty on second differences. "tv": plus total variation, for coefficients
    that jump. The strength minimises the estimated risk, chi^2 + 2 (degrees of freedom), so that nothing is
    smoothed that the errors do not allow.

    Args:
        sigma: (L,) ascending noise levels.
        value: (L,) >= 0; a zero or one without a finite error says nothing and takes its neighbours' value.
        error: (L,) standard errors.
        method: "none", "spline" or "tv".

    Returns:
        Smoothed values and their standard errors at the chosen strength, (L,) each. With fewer than three
        positive values, or "none", what came in.

    Raises:
        ValueError: arrays of different length, an unknown method.

    >>> value, _ = smooth_across_levels(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.2, 4.0]), np.full(3, 0.5), "spline")
    >>> np.log(value).round(2)
    array([0.1 , 0.75, 1.39])
    """
    logs = np.log(vector(sigma, "sigma", positive=True, ascending=True))
    value = vector(value, "value", length=logs.size, nonnegative=True)
    error = np.broadcast_to(np.asarray(error, dtype=np.float64), logs.shape)
    known = (value > 0) & np.isfinite(error)
    if choice(method, "smoothing", SMOOTHINGS) == "none" or known.sum() < 3:
        return value, error
    target = np.log(np.where(known, value, 1.0))
    spread = np.where(known, np.maximum(error / np.where(known, value, 1.0), 1e-6), np.inf)
    weight = np.where(known, 1 / spread**2, 0.0)
    linear = _spline(logs) if method == "spline" else _total_variation(logs.size)
    best: tuple[float, Array] | None = None
    for penalty in _PENALTIES * float(np.median(weight[known])):
        matrix, freedom = linear(weight, target, penalty)
        risk = float(weight @ (matrix @ target - target) ** 2) + 2 * freedom
        if best is None or risk < best[0] - 1e-9:
            best = risk, matrix
    assert best is not None
    smoothed = np.exp(best[1] @ target)
    return smoothed, smoothed * np.sqrt(best[1] ** 2 @ np.where(known, spread, 0.0) ** 2)


Smoother = Callable[[Array, Array, float], tuple[Array, float]]


def _spline(logs: Array) -> Smoother:
    """Penalty on the second derivative, integrated over log sigma."""
    step = np.diff(logs)
    curve = np.zeros((logs.size - 2, logs.size))
    for i in range(logs.size - 2):
        middle = (step[i] + step[i + 1]) / 2
        row = np.array([1 / step[i], -1 / step[i] - 1 / step[i + 1], 1 / step[i + 1]]) / middle
        curve[i, i : i + 3] = row * np.sqrt(middle)
    gram = curve.T @ curve

    def smoother(weight: Array, target: Array, penalty: float) -> tuple[Array, float]:
        matrix = np.linalg.solve(np.diag(weight) + penalty * gram, np.diag(weight))
        return np.asarray(matrix), float(np.trace(matrix))

    return smoother


def _total_variation(size: int) -> Smoother:
    """Penalty on absolute differences, by reweighted least squares; freedom is the number of pieces."""
    difference = np.diff(np.eye(size), axis=0)

    def smoother(weight: Array, target: Array, penalty: float) -> tuple[Array, float]:
        inverse: Array = np.ones(size - 1)
        matrix: Array = np.eye(size)
        for _ in range(_REWEIGHTINGS):
            system = np.diag(weight) + penalty * difference.T @ (inverse[:, None] * difference)
            matrix = np.asarray(np.linalg.solve(system, np.diag(weight)))
            inverse = 1 / np.maximum(np.abs(difference @ (matrix @ target)), 1e-6)
        return matrix, 1.0 + float((np.abs(difference @ (matrix @ target)) > 1e-3).sum())

    return smoother
