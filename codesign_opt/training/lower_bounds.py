"""What no estimator can beat: Cramér–Rao floors of the score error, and the floor of a finite data set.

docs/theory.md sections 5 (finite data set) and 9. m pairs (x_0, x_t) tell about the covariance what m samples
x_0 tell: the same numbers bound a level trained on m examples and are the error of N images seen for ever.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..basics.checks import Array, choice, integer, noise_level, noise_levels, shown, variances, vector
from ..samplers.terminal import TERMINALS, terminal_weight
from .sensitivity_kernel import damping, diagonal_kernel, harmonic_product, mean_kernel

__all__ = [
    "MATRICES",
    "BoundReport",
    "bound_report",
    "cramer_rao_intercept",
    "cramer_rao_score_error",
    "cramer_rao_variance",
    "dataset_floor",
]

MATRICES = ("diagonal", "full")
_BLOCK = 2**22  # entries of the largest band-by-band block held at once (32 MiB)


class BoundReport(NamedTuple):
    """Achieved score term over its lower bound: `per_level` (L,) (NaN where both are zero) and `total`."""

    per_level: Array
    total: float


def cramer_rao_variance(eigenvalues: Any, sigma: Any) -> Array:
    """Smallest variance of the score's slope from one training pair: 2 lambda^2 / v^4 (divide by m pairs).

    Var E_ii >= 2 lambda_i^2 / (m v_i^4) for unbiased estimators of a diagonal covariance, docs/theory.md
    section 9. Denoising least squares has lambda / (sigma^2 v^2 m), v^2 / (2 lambda sigma^2) >= 2 times as
    much.

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        sigma: (L,), noise levels, data units, > 0.

    Returns:
        (B, L), data units to the power -4.

    Raises:
        ValueError: an argument is out of its range.

    >>> cramer_rao_variance([1.0], [1.0])
    array([[0.125]])
    """
    lam, level = _checked(eigenvalues, sigma)
    # the noise is known, so that a pair tells as much as its clean image: information 1 / (2 lambda^2) on lambda, and
    # the slope -1 / v of the score has the derivative 1 / v^2
    return np.asarray(2 * lam[:, None] ** 2 / (lam[:, None] + level**2) ** 4)


def cramer_rao_intercept(eigenvalues: Any, sigma: Any) -> Array:
    """Smallest variance of the score's intercept from one training pair: lambda / v^2 (divide by m pairs).

    docs/theory.md section 9. Args and errors as in `cramer_rao_variance`; (B, L), inverse squared data units.

    >>> cramer_rao_intercept([1.0], [1.0])
    array([[0.25]])
    """
    lam, level = _checked(eigenvalues, sigma)
    return np.asarray(lam[:, None] / (lam[:, None] + level**2) ** 2)


def cramer_rao_score_error(
    eigenvalues: Any,
    counts: Any,
    sigma: Any,
    stopping_sigma: float,
    *,
    eta: float = 0.0,
    terminal: str = "denoise",
    matrix: str = "diagonal",
    intercept: bool = False,
) -> Array:
    """Lower bound of the reducible coefficient a(sigma): the kernel contracted with the Cramér–Rao variances.

    Diagonal: sum_b n_b kappa_b 2 lambda^2 / v^4. Full covariance: Var E_ij >= lambda_i lambda_j (1 + delta_ij) / (m
    v_i^2 v_j^2) with E symmetric, Cov(E_ij, E_ji) = Var E_ij kept (docs/theory.md section 9). It bounds the score term
    of a design whose levels are trained independently, and nothing else of its error.

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        counts: (B,), directions per band, > 0.
        sigma: (L,), noise levels, data units, >= stopping_sigma.
        stopping_sigma: last positive noise level, data units, > 0.
        eta: noise of the sampler family, >= 0.
        terminal: "denoise" or "rescale".
        matrix: "diagonal" (eigenvectors known) or "full".
        intercept: whether the mean is learned too.

    Returns:
        (L,); in place of a(sigma), squared data units per unit sigma and per unit example density.

    Raises:
        ValueError: an argument is out of its range.

    >>> cramer_rao_score_error([1.0], [1.0], [1.0], 0.5, terminal="rescale")
    array([0.15625])
    """
    lam, level = _checked(eigenvalues, sigma)
    n = vector(counts, "counts", length=lam.size, positive=True)
    options: dict[str, Any] = {"eta": eta, "terminal": terminal}
    kappa = diagonal_kernel(lam, level, stopping_sigma, **options)
    both = check_flag(intercept, "intercept")
    total = n @ (kappa * cramer_rao_variance(lam, level))
    if choice(matrix, "matrix", MATRICES) == "full":
        v = lam[:, None] + level**2
        g = n[:, None] * damping(lam, level, stopping_sigma, eta) * lam[:, None] / v**3
        weight = terminal_weight(lam, stopping_sigma, terminal)
        # (v_i + v_j)^2 = v_i^2 + v_j^2 + 2 v_i v_j: two products with the level-independent H
        pairs = g * v**2 * harmonic_product(weight, g) + g * v * harmonic_product(weight, g * v)
        # the pairs already hold half of each diagonal entry's 1 + delta_ii
        total = total / 2 + (1 + eta**2) ** 2 * level**2 * pairs.sum(axis=0)
    if both:
        mean = mean_kernel(lam, level, stopping_sigma, **options)
        total = total + n @ (mean * cramer_rao_intercept(lam, level))
    return np.asarray(total)


def dataset_floor(
    eigenvalues: Any,
    counts: Any,
    stopping_sigma: float,
    dataset_size: int,
    *,
    terminal: str = "denoise",
    matrix: str = "diagonal",
    intercept: bool = False,
) -> float:
    """Squared terminal error left by N images however long one trains: T_N, one error at all levels.

    Diagonal: sum_b n_b lambda^2 / (2 v(sigma_r) N) for "rescale", sum_b n_b lambda^2 (lambda + 2 sigma_r^2)^2 / (2
    v(sigma_r)^3 N) for "denoise" (docs/theory.md section 5.3). Full: the terminal covariance is f(C_N), f(x)
    = x + sigma_r^2 or x^2 / (x + sigma_r^2), whence (1 / 2N) sum_ij lambda_i lambda_j (1 + delta_ij) f[i,
    j]^2 / (P_i + P_j) with f[i, j] the divided difference. With N = all examples of a design it is the lower
    bound of section 9 for levels that share the eigenvalues. No step sizes, no kernel; the same for every
    eta.

    Args as in `cramer_rao_score_error`; dataset_size: N, >= 1.

    Returns:
        Squared data units, summed over all dimensions, from sigma_max >> sqrt(lambda).

    Raises:
        ValueError: an argument is out of its range.

    >>> dataset_floor([1.0], [2.0], 1e-6, 1000, terminal="rescale").__round__(9)
    0.001
    """
    lam = variances(eigenvalues, "eigenvalues")
    n = vector(counts, "counts", length=lam.size, positive=True)
    stop = noise_level(stopping_sigma, "stopping_sigma")
    size = integer(dataset_size, "dataset_size", minimum=1)
    rescale = choice(terminal, "terminal", TERMINALS) == "rescale"
    full = choice(matrix, "matrix", MATRICES) == "full"
    mean = float(n @ lam) if check_flag(intercept, "intercept") else 0.0
    v = lam + stop**2
    # N images know their own covariance and nothing else: a perfect sampler ends at the terminal map of that, whose
    # derivative carries its error to the output, whatever happens in between
    slope = np.ones_like(lam) if rescale else lam * (lam + 2 * stop**2) / v**2
    weight = terminal_weight(lam, stop, terminal)
    keep = weight > 0  # a direction without variance is sampled exactly: 0 / 0 otherwise
    diagonal = float(np.sum(n[keep] * (lam * slope)[keep] ** 2 / (2 * weight[keep])))
    if full:  # the pairs count i = j once, as the 1 of 1 + delta_ij; half the diagonal is the delta
        diagonal = diagonal / 2 + _off_diagonal_floor(lam[keep], n[keep], weight[keep], stop, rescale)
    return (diagonal + mean) / size


def bound_report(achieved: Any, bound: Any, factor: Any = None) -> BoundReport:
    """Score term of a design over its lower bound, level by level and in total (docs/theory.md section 9).

    Args:
        achieved: (L,), the training noise's coefficient a(sigma) (or the score term per level), >= 0.
        bound: (L,), `cramer_rao_score_error` at the same levels, >= 0.
        factor: (L,), what both are multiplied by in the design (w max(1, gamma / l) / rho), >= 0; None: 1.

    Returns:
        BoundReport(per_level, total); NaN at a level where both are zero.

    Raises:
        ValueError: lengths differ, a value is negative or not finite, or the bound is zero in total.

    >>> bound_report([2.0, 6.0], [1.0, 2.0])
    BoundReport(per_level=array([2., 3.]), total=2.6666666666666665)
    """
    have = vector(achieved, "achieved", nonnegative=True)
    least = vector(bound, "bound", nonnegative=True, length=have.size)
    times = np.ones_like(have)
    if factor is not None:
        times = vector(factor, "factor", nonnegative=True, length=have.size)
    whole = float(times @ least)
    if whole <= 0:
        raise ValueError("bound is 0 at every level that counts; there is nothing to compare with.")
    # something over nothing is infinitely far from the bound, nothing over nothing says nothing
    empty = np.where(have > 0, np.inf, np.nan)
    ratio = np.divide(have, least, out=empty, where=least > 0)
    return BoundReport(ratio, float(times @ have) / whole)


def check_flag(value: Any, name: str) -> bool:
    """Return `value` when it is True or False, or raise ValueError."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {shown(value)}; True or False is needed.")
    return bool(value)


def _off_diagonal_floor(lam: Array, n: Array, weight: Array, stop: float, rescale: bool) -> float:
    v, total = lam + stop**2, 0.0
    rows = max(1, _BLOCK // max(1, lam.size))
    for i in range(0, lam.size, rows):
        a, part = lam[i : i + rows, None], slice(i, i + rows)
        # the divided difference of the terminal map, its denominator cancelled: (f(a) - f(b)) / (a - b) has no digits
        # for neighbouring eigenvalues
        difference = 1.0 if rescale else (a * lam + stop**2 * (a + lam)) / (v[part, None] * v)
        effect = a * lam * difference**2 / (2 * (weight[part, None] + weight))
        total += float(n[part] @ effect @ n)
    return total


def _checked(eigenvalues: Any, sigma: Any) -> tuple[Array, Array]:
    return variances(eigenvalues, "eigenvalues"), noise_levels(sigma, "sigma")
