"""Errors left at the end of a run, smoothed over noise levels: what is badly known follows its neighbours."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from ..basics.checks import Array, noise_level, vector

__all__ = ["smooth_errors_left", "smooth_shape", "usual_shape"]

_WANDERS = 0.7  # standard deviation of log(error / shape) over one unit of log sigma: measured are 0.3 to 0.7


def usual_shape(sigma: Array, sigma_data: float) -> Array:
    """sigma^2 / (sigma^2 + sigma_data^2): an error of x0 that falls as sigma^2 below the data's scale and stays above.

    >>> usual_shape(np.array([0.5, 1e9]), 0.5)
    array([0.5, 1. ])
    """
    return np.asarray(sigma**2 / (sigma**2 + sigma_data**2))


def smooth_errors_left(sigma: Array, value: Array, error: Array, sigma_data: float) -> tuple[Array, Array]:
    """Most probable errors left where log(error / usual shape) wanders from level to level, and its standard deviation.

    Minimises sum_l ((left_l - value_l) / error_l)^2 + sum_l (change of log(left / shape))^2 / (0.49 x distance in log
    sigma). A level whose error exceeds its value takes that of its neighbours, and says so; values below zero, which
    happen to differences, are read as they are.

    Args:
        sigma: (L,) ascending noise levels.
        value, error: (L,) measured, of either sign, and standard errors > 0.
        sigma_data: standard deviation of the data.

    Returns:
        left, (L,) > 0, and the standard deviation of its logarithm, (L,).

    Raises:
        ValueError: arrays of different length; no value is above zero.

    >>> sigma = np.array([0.1, 0.3, 1.0, 3.0])
    >>> left, spread = smooth_errors_left(sigma, usual_shape(sigma, 0.5), np.array([1e-3, 1e-3, 1e-3, 5.0]), 0.5)
    >>> bool(abs(left[3] - 0.97) < 0.02), spread.round(2).tolist()  # unknown at 3: as below, give or take
    (True, [0.03, 0.0, 0.0, 0.73])
    """
    level = vector(sigma, "sigma", positive=True, ascending=True)
    return smooth_shape(level, value, error, usual_shape(level, noise_level(sigma_data, "sigma_data")))


def smooth_shape(sigma: Array, value: Array, error: Array, shape: Array) -> tuple[Array, Array]:
    """`smooth_errors_left` about any shape, such as the Bayes loss of a spectrum: its size is free, its form a prior.

    Args:
        sigma: (L,) ascending noise levels.
        value, error: (L,) measured, of either sign, and standard errors > 0.
        shape: (L,) > 0.

    Returns, raises: as `smooth_errors_left`.

    >>> sigma, shape = np.array([0.1, 0.3, 1.0]), np.array([1.0, 2.0, 4.0])
    >>> smooth_shape(sigma, 5 * shape, 1e-3 * shape, shape)[0].round(3).tolist()
    [5.0, 10.0, 20.0]
    """
    at = np.log(vector(sigma, "sigma", positive=True, ascending=True))
    found, spread = vector(value, "value", length=at.size), vector(error, "error", length=at.size, positive=True)
    shape = vector(shape, "shape", length=at.size, positive=True)
    clear = found > 0
    if not clear.any():
        raise ValueError("no error left is above zero: the loss fell nowhere, so that nothing is said of training.")
    roots = _WANDERS * np.sqrt(np.diff(at))

    def residuals(u: Array) -> Array:
        return np.concatenate([(shape * np.exp(u) - found) / spread, np.diff(u) / roots])

    def jacobian(u: Array) -> Array:
        data = np.diag(shape * np.exp(u) / spread)
        return np.vstack([data, np.diff(np.eye(at.size), axis=0) / roots[:, None]])

    start = np.interp(at, at[clear], np.log(found[clear] / shape[clear]))
    best = least_squares(residuals, start, jac=jacobian)
    slopes = jacobian(best.x)
    covariance = np.linalg.inv(slopes.T @ slopes)
    return shape * np.exp(best.x), np.sqrt(np.diag(covariance))
