"""Stationary weights of a linear denoiser under constant-step SGD, at any stable step.

Data of variance lambda along each direction, x = x_0 + sigma z of variance v = lambda + sigma^2, loss
|W x - x_0|^2 / 2: curvature v, residual variance S = lambda sigma^2 / v. docs/theory.md section 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array, integer, number, vector
from .sgd_variance import WeightNoise, noisy_levels

__all__ = ["check_stable", "constant_step_variance", "largest_stable_rate"]


def constant_step_variance(
    eigenvalues: Any,
    sigma: Any,
    learning_rate: float,
    batch: int,
    *,
    counts: Any = None,
    rate_factor: Any = None,
    intercept_factor: Any = None,
    finite_step: bool = True,
) -> WeightNoise:
    """Stationary variance of the last iterate of SGD with a constant step, at any stable step.

    Row i: q_j = (tau / beta) / (2 - tau (1 + 1 / beta) v_j), R = sum_j q_j v_j, Var W_ij = q_j S_i / (1 - R);
    one regressor gives (tau Sigma / beta) / (2 h - tau h^2 (1 + 2 / beta)). A learned intercept of rate tau_0
    brings q_0 = (tau_0 / beta) / (2 - tau_0): row_i = S_i / (1 - R (1 + q_0)), column_j = q_j (1 + q_0), Var
    c_i = q_0 row_i. The fixed point of the second moments under Gaussian centred inputs, docs/theory.md
    section 5 (where the intercept is left out).

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        sigma: (L,), noise levels, data units, > 0.
        learning_rate: tau, > 0.
        batch: examples per step beta, >= 1.
        counts: (B,), directions per band: a full matrix; None: a diagonal one.
        rate_factor: (L,), omega_F c_in^2 of the parameterisation; None: 1 (the network predicts x_0).
        intercept_factor: (L,), omega_F, when an intercept is learned; None: no intercept.
        finite_step: False for the limit tau -> 0: tau S / (2 beta) and tau_0 S / (2 beta).

    Returns:
        Factors of Var W_ij: columns q_j (1 + q_0), what a regressor contributes; rows S_i / (1 - R (1 + q_0)), the
        residual variance of an output raised by the noise that the weights make themselves.

    Raises:
        ValueError: an argument is out of its range, or the rate is unstable: names the worst level and the
            largest stable rate there and everywhere.

    >>> constant_step_variance([1.0], [1.0], 0.1875, 1).diagonal().round(4)    # 0.0469 as tau -> 0
    array([[0.1071]])
    """
    lam, level, v = noisy_levels(eigenvalues, sigma)
    tau = number(learning_rate, "learning_rate", positive=True)
    size = integer(batch, "batch", minimum=1)
    n = None if counts is None else vector(counts, "counts", length=lam.size, positive=True)
    rate = tau * _factor(rate_factor, "rate_factor", level, 1.0)
    other = tau * _factor(intercept_factor, "intercept_factor", level, 0.0)
    check_stable(
        lam, level, tau, size, counts=n, rate_factor=rate_factor, intercept_factor=intercept_factor
    )  # fmt: skip
    residual = lam[:, None] * level**2 / v  # what a perfect denoiser leaves: the noise of every gradient
    if not finite_step:
        flat = np.broadcast_to(rate / (2 * size), v.shape)
        return WeightNoise(residual, flat.copy(), other / (2 * size) * residual)
    q, q0, load = _load(v, n, rate, other, size)
    # errors of the weights act like further residual: a geometric series whose ratio is the load
    row = residual / (1 - load)
    return WeightNoise(row, q * (1 + q0), q0 * row)


def largest_stable_rate(
    eigenvalues: Any,
    sigma: Any,
    batch: int,
    *,
    counts: Any = None,
    rate_factor: Any = None,
    intercept_factor: Any = None,
) -> Array:
    """Largest learning rate whose second moments stay bounded, by noise level.

    The rate where R (1 + q_0) reaches 1 (docs/theory.md section 5); 2 / ((1 + 2 / beta) v_max omega_F c_in^2)
    for a diagonal matrix without intercept. By bisection, to 1e-12 relative.

    Args and errors as in `constant_step_variance`; returns (L,), > 0.

    >>> largest_stable_rate([1.0], [1.0], 2).round(12)
    array([0.5])
    """
    lam, level, v = noisy_levels(eigenvalues, sigma)
    size = integer(batch, "batch", minimum=1)
    n = None if counts is None else vector(counts, "counts", length=lam.size, positive=True)
    unit = _factor(rate_factor, "rate_factor", level, 1.0)
    other = _factor(intercept_factor, "intercept_factor", level, 0.0)
    v = v if n is not None else v.max(axis=0, keepdims=True)  # one regressor: the stiffest decides
    pole = 2 / ((1 + 1 / size) * unit * v.max(axis=0))
    if intercept_factor is not None:
        pole = np.minimum(pole, 2 / other)
    low, high = np.zeros_like(pole), pole
    # the load rises from 0 to infinity on (0, pole): bisection needs no guess, and 60 halvings leave its last digit. A
    # polynomial's root instead would be of the degree of the number of bands
    for _ in range(60):
        middle = (low + high) / 2
        stable = _load(v, n, middle * unit, middle * other, size)[2].max(axis=0) < 1
        low, high = np.where(stable, middle, low), np.where(stable, high, middle)
    return low


def check_stable(
    eigenvalues: Array,
    sigma: Array,
    learning_rate: float,
    batch: int,
    *,
    counts: Array | None = None,
    rate_factor: Any = None,
    intercept_factor: Any = None,
    name: str = "learning_rate",
) -> None:
    """Raise ValueError naming the worst noise level and its largest stable rate.

    Args as in `constant_step_variance`; `name` is what the message calls the learning rate.
    """
    lam, level, v = noisy_levels(eigenvalues, sigma)
    unit = _factor(rate_factor, "rate_factor", level, 1.0)
    other = _factor(intercept_factor, "intercept_factor", level, 0.0)
    with np.errstate(over="ignore"):  # such rates are beyond every pole
        rate, rate0 = learning_rate * unit, learning_rate * other
        poles = (rate * (1 + 1 / batch) * v.max(axis=0) < 2) & (rate0 < 2)
    # beyond a pole q is negative and the load looks small again: such rates are taken out before and counted as bad
    safe_rates = np.where(poles, rate, 0.0), np.where(poles, rate0, 0.0)
    load = _load(v, counts, *safe_rates, batch)[2].max(axis=0)
    bad = np.flatnonzero(~(poles & (load < 1)))
    if bad.size == 0:
        return
    limit = largest_stable_rate(
        lam, level, batch, counts=counts, rate_factor=rate_factor, intercept_factor=intercept_factor
    )  # fmt: skip
    worst = int(bad[np.argmin(limit[bad])])
    raise ValueError(
        f"{name} is {learning_rate:g}, unstable at sigma = {level[worst]:g}, where the largest stable rate "
        f"is {limit[worst]:.6g} at batch {batch} ({bad.size} of {level.size} levels are unstable); use a "
        f"rate below {limit.min():.6g}, a larger batch, or a parameterization or weight with a smaller "
        "omega_F c_in^2 there."
    )


def _load(v: Array, counts: Array | None, rate: Array, other: Array, batch: int) -> tuple[Array, Array, Array]:
    """q_j (B, L), q_0 (L,), and R (1 + q_0), (B, L) for a diagonal matrix and (1, L) for a full one."""
    q = rate / batch / (2 - rate * (1 + 1 / batch) * v)
    q0 = other / batch / (2 - other)
    # a full row has all regressors, which shake one another; a diagonal one has its own
    share = q * v if counts is None else (counts @ (q * v))[None]
    return q, q0, share * (1 + q0)


def _factor(value: Any, name: str, sigma: Array, default: float) -> Array:
    if value is None:
        return np.full(sigma.shape, default)
    return vector(value, name, length=sigma.size, positive=True)
