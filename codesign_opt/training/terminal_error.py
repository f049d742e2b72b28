"""Terminal error of a training covariance that factors, Var W_ij = row_i column_j: never B x B x L numbers.

docs/theory.md sections 2 (the closing denoiser call), 4 and 5.
"""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..samplers.terminal import terminal_weight
from .sensitivity_kernel import damping, diagonal_kernel, harmonic_product
from .sgd_variance import WeightNoise

__all__ = ["output_data_error", "output_error", "terminal_error"]


def terminal_error(
    eigenvalues: Array,
    counts: Array,
    sigma: Array,
    stopping_sigma: float,
    noise: WeightNoise,
    *,
    eta: float,
    terminal: str,
    full: bool,
) -> Array:
    """<K, Cov> at each level for the variance of the weights (entries i = j alone unless `full`), (L,).

    docs/theory.md section 4.1; the score error is the denoiser's over sigma^2. The intercept is left out.

    >>> x, w = np.ones(1), np.ones((1, 1))
    >>> terminal_error(x, x, x, 0.5, WeightNoise(w, w, w), eta=0.0, terminal="rescale", full=False)
    array([1.25])
    """
    kernel = diagonal_kernel(eigenvalues, sigma, stopping_sigma, eta=eta, terminal=terminal)
    diagonal = counts @ (kernel * noise.row * noise.column / sigma**4)
    if not full:
        return np.asarray(diagonal)
    reach = counts[:, None] * damping(eigenvalues, sigma, stopping_sigma, eta)
    v = eigenvalues[:, None] + sigma**2
    weight = terminal_weight(eigenvalues, stopping_sigma, terminal)
    # the kernel of a pair is H_ij times factors of i and of j: with a variance that factors too, the double sum is one
    # product with H for every level
    pairs = (reach * noise.row / v * harmonic_product(weight, reach * noise.column * v)).sum(axis=0)
    # the pairs hold half of each diagonal entry: Cov(E_ii, E_ii) = Var E_ii is the other half
    return np.asarray(diagonal / 2 + (1 + eta**2) ** 2 * pairs / sigma**2)


def output_error(lam: Array, n: Array, stop: float, noise: WeightNoise, full: bool) -> float:
    """Second-order squared distance between outputs for the weights' variance at the last evaluation.

    docs/theory.md section 2.2; the intercept is left out.
    """
    v = lam[:, None] + stop**2
    diagonal = float(n @ (noise.row * noise.column * v)[:, 0])
    if not full:
        return diagonal
    weight = lam**2 / v[:, 0]
    # lambda_j^2 / (P_i + P_j) = H_ij v_j / P_i; rows of a direction without variance are zero
    scaled = np.divide(noise.row, weight[:, None], out=np.zeros_like(noise.row), where=weight[:, None] > 0)
    pairs = float(n @ (scaled * harmonic_product(weight, n[:, None] * noise.column * v))[:, 0])
    return diagonal / 2 + pairs


def output_data_error(lam: Array, n: Array, stop: float, full: bool) -> float:
    """The same for the error of N = 1 image, a symmetric one.

    Var W_ij = Cov(W_ij, W_ji) = lambda_i lambda_j (1 + delta_ij) sigma^4 / (v_i v_j)^2.
    """
    keep = lam > 0
    lam, n = lam[keep], n[keep]
    v = lam + stop**2
    diagonal = float(n @ (2 * lam**2 * stop**4 / v**3))
    if not full or not lam.size:
        return diagonal
    # with P = lambda^2 / v, (lambda_i + lambda_j)^2 Var W_ij / (2 (P_i + P_j)) sums like
    # sigma^4 H_ij (lambda_i / lambda_j + 1) / (v_i v_j)
    values = np.stack([n / (lam * v), n / v], axis=1)
    pairs = harmonic_product(lam**2 / v, values)
    return diagonal / 2 + stop**4 * float((n * lam / v) @ pairs[:, 0] + (n / v) @ pairs[:, 1])
