"""Variance of the weights of a linear denoiser trained by denoising score matching at one noise level.

Data of variance lambda along each direction, x = x_0 + sigma z of variance v = lambda + sigma^2, loss |W x -
x_0|^2 / 2: curvature v, residual variance S = lambda sigma^2 / v. All formulas of docs/theory.md section 5;
errors of the score are those of W divided by sigma^2. Constant steps are in `codesign_opt.training.constant_step`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, integer, noise_levels, number, shown, variances
from .lower_bounds import MATRICES, cramer_rao_variance

__all__ = [
    "WeightNoise",
    "average_step_factor",
    "burn_in_bias",
    "ema_variance",
    "finite_dataset_variance",
    "fresh_noise",
    "least_squares_variance",
    "noisy_levels",
    "outer_variance",
]

_LARGEST = 5 * 10**7  # variances of a full matrix that are built: 400 MB


@dataclass(frozen=True, eq=False)
class WeightNoise:
    """Variance of a denoiser's weights that factors, Var W_ij = row_i column_j: never B x B x L numbers.

    Of 1 / m examples (`fresh_noise`), or stationary under a constant step (`constant_step_variance`).

    Attributes:
        row: (B, L), what the output i contributes.
        column: (B, L), what the regressor x_j contributes.
        intercept: (B, L), variance of the learned intercept; zeros where none is learned.
    """

    row: Array
    column: Array
    intercept: Array

    def diagonal(self) -> Array:
        """Var W_ii, (B, L)."""
        return self.column * self.row

    def full(self) -> Array:
        """Var W_ij for i in band b and j in band b', (B, B, L); ValueError above 5e7 numbers."""
        return outer_variance(self.row, self.column)


def fresh_noise(eigenvalues: Array, sigma: Array) -> WeightNoise:
    """Noise of m fresh examples times m, of least squares or averaged SGD (docs/theory.md section 5.1).

    Row lambda sigma^2 / v, the residual variance; column 1 / v; the intercept has the residual variance.

    >>> fresh_noise(np.array([1.0]), np.array([1.0])).diagonal()
    array([[0.25]])
    """
    v = eigenvalues[:, None] + sigma**2
    row = eigenvalues[:, None] * sigma**2 / v
    return WeightNoise(row, 1 / v, row)


def least_squares_variance(
    eigenvalues: Any, sigma: Any, examples: float, *, matrix: str = "diagonal", regressors: int | None = None
) -> Array:
    """Variance of least-squares (or averaged-SGD) weights: lambda_i sigma^2 / (v_i v_j m).

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        sigma: (L,), noise levels, data units, > 0.
        examples: m, > 0.
        matrix: "diagonal" (one regressor per output) or "full" (all d).
        regressors: p, to replace m by m - p - 1, exact for least squares on Gaussian data without intercept;
            None: leading order.

    Returns:
        "diagonal": (B, L), Var W_ii; "full": (B, B, L), Var W_ij for i in band b and j in band b'.

    Raises:
        ValueError: an argument is out of its range, or m <= p + 1.

    >>> least_squares_variance([1.0], [1.0], 102, regressors=1)
    array([[0.0025]])
    """
    lam, level, v = noisy_levels(eigenvalues, sigma)
    m = number(examples, "examples", positive=True)
    if regressors is not None:
        p = integer(regressors, "regressors", minimum=1)
        if m <= p + 1:
            raise ValueError(f"examples is {m:g}; least squares on {p} regressors needs more than {p + 1}.")
        m -= p + 1  # the mean of an inverse Wishart matrix: exact, where 1 / m is its leading order
    unit = fresh_noise(lam, level)
    if choice(matrix, "matrix", MATRICES) == "full":
        return outer_variance(unit.row / m, unit.column)
    return np.asarray(unit.row / v / m)


def average_step_factor(learning_rate: float, curvature: float, batch: int) -> float:
    """Excess of the averaged iterate at a finite step: (2 - tau h) / (2 - (1 + 2 / beta) tau h), times A / m.

    docs/theory.md section 5, one regressor of Gaussian inputs, after burn-in.

    Args:
        learning_rate: effective rate tau omega_F c_in^2, > 0.
        curvature: h = v, > 0.
        batch: beta, >= 1.

    Returns:
        >= 1.

    Raises:
        ValueError: an argument is out of its range, or the rate is unstable.

    >>> average_step_factor(0.1, 2.0, 1).__round__(6)
    1.285714
    """
    step, wide = _step(learning_rate, curvature, batch)
    return (2 - step) / (2 - wide)


def ema_variance(
    stationary: float | Array, learning_rate: float, curvature: float, batch: int, decay: float
) -> float | Array:
    """Variance of an exponential moving average of the iterates, past its window.

    Pi (1 - e)(1 + phi e) / ((1 + e)(1 - phi e)), phi = 1 - tau h, e the decay per iteration (docs/theory.md
    section 5); tends to (A / beta)(1 - e) / (1 + e) when 1 - e << tau h << 1.

    Args:
        stationary: Pi, variance of the iterates, e.g. from `constant_step_variance`.
        learning_rate: effective rate tau omega_F c_in^2, > 0.
        curvature: h = v, > 0.
        batch: beta, >= 1 (for the check of stability).
        decay: e, in [0, 1).

    Returns:
        Like `stationary`, never larger.

    Raises:
        ValueError: an argument is out of its range, or the rate is unstable.

    >>> ema_variance(1.0, 0.1, 1.0, 1, 0.0)
    1.0
    """
    step, _ = _step(learning_rate, curvature, batch)
    e = number(decay, "decay", nonnegative=True)
    if e >= 1:
        raise ValueError(f"decay is {e:g}; it must be < 1.")
    value = np.asarray(stationary)
    if value.dtype.kind not in "iuf" or not np.all(np.isfinite(value)) or np.any(value < 0):
        raise ValueError(f"stationary is {shown(stationary)}; finite numbers >= 0 are needed.")
    # iterates k steps apart correlate as phi^k: an average over a window shorter than 1 / (tau h) averages nothing out
    phi = 1 - step
    return stationary * (1 - e) * (1 + phi * e) / ((1 + e) * (1 - phi * e))


def burn_in_bias(
    initial_error: float,
    learning_rate: float,
    curvature: float,
    batch: int,
    examples: float,
    *,
    average: bool = False,
) -> float:
    """Mean square of what is left of the initial error after m examples, to add to A / m + tau B.

    Last iterate: D^2 (1 - 2 tau h + (1 + 2 / beta) tau^2 h^2)^(m / beta), exact. Average: D^2 (beta / (tau h
    m))^2 times `average_step_factor`, exact once m tau h / beta >> 1 (docs/theory.md section 5 has tau -> 0).

    Args:
        initial_error: D, error of the weight at the start.
        learning_rate: effective rate tau omega_F c_in^2, > 0.
        curvature: h = v, > 0.
        batch: beta, >= 1.
        examples: m, > 0.
        average: of the average of all iterates instead of the last one.

    Returns:
        Mean squared error of the weight, >= 0.

    Raises:
        ValueError: an argument is out of its range, or the rate is unstable.

    >>> burn_in_bias(1.0, 0.1, 1.0, 64, 64_000) < 1e-80
    True
    """
    error = number(initial_error, "initial_error")
    step, wide = _step(learning_rate, curvature, batch)
    iterations = number(examples, "examples", positive=True) / batch
    if average:  # sum over all iterates of phi^k, of which the last ones no longer matter
        return error**2 / (step * iterations) ** 2 * (2 - step) / (2 - wide)
    # the mean square and not the square of the mean: minibatches shake an error that is still large
    return float(error**2 * (1 - 2 * step + wide * step) ** iterations)


def finite_dataset_variance(
    eigenvalues: Any, sigma: Any, dataset_size: int, examples: float, *, replacement: bool = False
) -> Array:
    """Variance of the score's slope after m draws from N images, fresh noise each time.

    2 lambda^2 / (v^4 N) + lambda (1 - 2 lambda sigma^2 / v^2) / (sigma^2 v^2 m) in whole passes (m a multiple
    of N); the second term is lambda / (sigma^2 v^2 m) for draws with replacement (docs/theory.md section 5).

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        sigma: (L,), noise levels, data units, > 0.
        dataset_size: N, >= 1.
        examples: m, > 0; `math.inf` is refused: take a large number.
        replacement: whether each level draws images independently.

    Returns:
        (B, L), Var E_ii of the diagonal model.

    Raises:
        ValueError: an argument is out of its range.

    >>> finite_dataset_variance([1.0], [1.0], 100, 100)      # one pass: as with 100 fresh images
    array([[0.0025]])
    """
    lam, level, v = noisy_levels(eigenvalues, sigma)
    size = integer(dataset_size, "dataset_size", minimum=1)
    m = number(examples, "examples", positive=True)
    # N images seen for ever with fresh noise know of the covariance what N clean images do
    common = cramer_rao_variance(lam, level)
    fresh = lam[:, None] / (level**2 * v**2)
    # in whole passes every image counts equally often: what an image's own part adds to the error is in the first term
    # already, and only the noise is drawn anew
    return np.asarray(common / size + (fresh if replacement else fresh - common) / m)


def _step(learning_rate: Any, curvature: Any, batch: Any) -> tuple[float, float]:
    """Return tau h and (1 + 2 / beta) tau h, checked to be stable."""
    tau = number(learning_rate, "learning_rate", positive=True)
    h = number(curvature, "curvature", positive=True)
    size = integer(batch, "batch", minimum=1)
    # Gaussian inputs: E x^4 = 3 h^2, so that a minibatch's curvature has the relative variance 2 / beta
    wide = (1 + 2 / size) * tau * h
    if wide >= 2:
        limit = 2 / ((1 + 2 / size) * h)
        raise ValueError(f"learning_rate is {tau:g}; the largest stable rate at curvature {h:g} is {limit:g}.")
    return tau * h, wide


def noisy_levels(eigenvalues: Any, sigma: Any) -> tuple[Array, Array, Array]:
    """Checked eigenvalues (B,) and levels (L,), and the variances v (B, L)."""
    lam = variances(eigenvalues, "eigenvalues")
    level = noise_levels(sigma, "sigma")
    return lam, level, lam[:, None] + level**2


def outer_variance(row: Array, column: Array) -> Array:
    """Row times column, (B, B, L) from two (B, L); ValueError above 5e7 numbers."""
    if row.shape[0] ** 2 * row.shape[1] > _LARGEST:
        raise ValueError(
            f"eigenvalues has {row.shape[0]} bands and sigma {row.shape[1]} levels: more than {_LARGEST:,} "
            "variances; merge bands or pass fewer levels."
        )
    return row[:, None] * column[None]
