"""Sensitivity of the terminal law to errors of the score: the kernel K(r, t; C) of docs/theory.md section 4.

A linear score error e = E x + b of zero mean at noise level sigma, independent from one sampler step to the
next, costs `kernel * variance * step**2` in squared Wasserstein distance at the end of one step. Everything
is written in the eigenbasis of the data covariance, band by band, with the terminal weight P_b, so that the
same formulas serve both terminal maps: H_bb' = P_b P_b' / (P_b + P_b') carries all of the second-order Bures
metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..basics.checks import Array, choice, matrix, noise_level, noise_levels, number, variances, vector
from ..samplers.terminal import TERMINALS, terminal_weight

__all__ = [
    "PairwiseKernel",
    "banded_sum",
    "diagonal_kernel",
    "harmonic_product",
    "mean_kernel",
    "output_sensitivity",
    "pairwise_kernel",
    "propagation_factor",
    "terminal_gain",
]

_BLOCK = 2**22  # entries of the largest band-by-band block held at once (32 MiB)
_LOUDEST = 1e30  # eta whose fourth power is a float
_LARGEST = 5 * 10**7  # entries of the largest pairwise kernel that is built (400 MB per array)


class PairwiseKernel(NamedTuple):
    """Error per unit of (co)variance of the entries of a full score-error matrix E.

    Attributes:
        off: (B, B, L), per unit Var E_ij, i in band b, j in band b', i != j.
        diagonal: (B, L), per unit Var E_ii; twice `off[b, b]`, because Cov(E_ii, E_ii) = Var E_ii.
        cross: (B, B, L), per unit Cov(E_ij, E_ji), for each ordered pair.
    """

    off: Array
    diagonal: Array
    cross: Array


def terminal_gain(eigenvalues: Any, stopping_sigma: float, terminal: str = "denoise") -> Array:
    """Factor by which the terminal map multiplies a deviation of the state along each direction.

    T_b = 1 for "rescale" and lambda_b / v_b(sigma_r) for "denoise", docs/theory.md section 4.

    Args and errors as in `terminal_weight`; returns (B,), in [0, 1].

    >>> terminal_gain([1.0, 0.0], 0.5)
    array([0.8, 0. ])
    """
    lam = variances(eigenvalues, "eigenvalues")
    stop = noise_level(stopping_sigma, "stopping_sigma")
    rescale = choice(terminal, "terminal", TERMINALS) == "rescale"
    return np.ones_like(lam) if rescale else lam / (lam + stop**2)


def propagation_factor(eigenvalues: Any, sigma: Any, stopping_sigma: float, *, eta: float = 0.0) -> Array:
    """Factor by which the sampler carries a deviation of the state from `sigma` to `stopping_sigma`.

    Phi_b = (v_b(sigma_r) / v_b(sigma))^((1 + eta^2) / 2), docs/theory.md section 4.

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        sigma: (L,), noise levels, data units, >= stopping_sigma, in any order.
        stopping_sigma: last positive noise level, data units, > 0.
        eta: noise of the sampler family, >= 0 (0: ODE, 1: reverse SDE).

    Returns:
        (B, L), in (0, 1].

    Raises:
        ValueError: an argument is out of its range.

    >>> propagation_factor([1.0], [2.0], 0.5).round(3)
    array([[0.5]])
    """
    lam, level, stop, eta = _checked(eigenvalues, sigma, stopping_sigma, eta)
    ratio = (lam + stop**2)[:, None] / (lam[:, None] + level**2)
    return np.asarray(ratio ** ((1 + eta**2) / 2))


def diagonal_kernel(
    eigenvalues: Any,
    sigma: Any,
    stopping_sigma: float,
    *,
    eta: float = 0.0,
    terminal: str = "denoise",
) -> Array:
    """Squared terminal error per unit variance of a diagonal score error, per squared step.

    kappa_b = (1 + eta^2)^2 sigma^2 P_b (v_b(sigma_r) / v_b(sigma))^(2 eta^2), per unit Var E_ii
    (docs/theory.md section 4; co-design paper, sensitivity kernel). Successive steps of size gamma_k with
    independent errors add: sum_k gamma_k^2 sum_b n_b kappa_b Var E_b.

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        sigma: (L,), noise levels, data units, >= stopping_sigma, in any order.
        stopping_sigma: last positive noise level, data units, > 0.
        eta: noise of the sampler family, >= 0 (0: ODE, 1: reverse SDE).
        terminal: "denoise" or "rescale".

    Returns:
        (B, L), data units to the fourth power; multiply by counts n_b and sum over bands.

    Raises:
        ValueError: an argument is out of its range.

    >>> diagonal_kernel([1.0], [2.0], 0.5, terminal="rescale")
    array([[5.]])
    """
    lam, level, stop, eta = _checked(eigenvalues, sigma, stopping_sigma, eta)
    # (Phi v)^2 Phi^2 / P of section 4.1, with the powers of v cancelled: for the ODE nothing but P is left, under both
    # terminal maps, which is why "denoise" needs no formulas of its own
    weight = terminal_weight(lam, stop, terminal)[:, None]
    return (1 + eta**2) ** 2 * level**2 * weight * damping(lam, level, stop, eta) ** 2


def output_sensitivity(
    eigenvalues: Array,
    counts: Array,
    sigma: Array,
    stopping_sigma: float,
    *,
    eta: float = 0.0,
    terminal: str = "denoise",
) -> Array:
    """Squared terminal error per squared error of the denoiser's output and per squared step in log sigma: g^2.

    sum_b f_b kappa_b / (sigma^2 v_b) with shares f_b in proportion to n_b lambda_b sigma^2 / v_b, those of an error of
    least squares (docs/theory.md section 4.4).

    Args:
        eigenvalues, counts: (B,).
        sigma: (L,), stopping_sigma, eta, terminal: as in `diagonal_kernel`.

    Returns:
        (L,), no units.

    >>> output_sensitivity(np.ones(1), np.ones(1), np.array([2.0]), 0.5, terminal="rescale")  # P / v
    array([0.25])
    """
    lam, n, level = (np.asarray(value, dtype=np.float64) for value in (eigenvalues, counts, sigma))
    v = lam[:, None] + level**2
    share = n[:, None] * lam[:, None] * level**2 / v
    kernel = diagonal_kernel(lam, level, stopping_sigma, eta=eta, terminal=terminal)
    return np.asarray((share * kernel / (level**2 * v)).sum(axis=0) / np.maximum(share.sum(axis=0), 1e-300))


def mean_kernel(
    eigenvalues: Any,
    sigma: Any,
    stopping_sigma: float,
    *,
    eta: float = 0.0,
    terminal: str = "denoise",
) -> Array:
    """Squared terminal error per unit variance of a constant score error, per squared step.

    (1 + eta^2)^2 sigma^2 P_b / v_b (v_b(sigma_r) / v_b(sigma))^(eta^2), per unit Var b_i
    (docs/theory.md section 4). Args, returns and errors as in `diagonal_kernel`; squared data units.

    >>> mean_kernel([1.0], [2.0], 0.5, terminal="rescale")
    array([[1.]])
    """
    lam, level, stop, eta = _checked(eigenvalues, sigma, stopping_sigma, eta)
    # a shift of the mean is squared in the distance itself: once r where a covariance has r^2
    weight = terminal_weight(lam, stop, terminal)[:, None] / (lam[:, None] + level**2)
    return (1 + eta**2) ** 2 * level**2 * weight * damping(lam, level, stop, eta)


def pairwise_kernel(
    eigenvalues: Any,
    sigma: Any,
    stopping_sigma: float,
    *,
    eta: float = 0.0,
    terminal: str = "denoise",
) -> PairwiseKernel:
    """Squared terminal error per unit (co)variance of the entries of a full score error, per squared step.

    off = (1 + eta^2)^2 sigma^2 H_bb' r_b r_b' v_b' / v_b per unit Var E_ij, cross = the same without v_b' /
    v_b per unit Cov(E_ij, E_ji), diagonal = `diagonal_kernel`; H = P P' / (P + P'), r = (v(sigma_r) /
    v)^(eta^2) (docs/theory.md section 4). Contract with `banded_sum`. The arrays hold B B L numbers: the
    closed forms used by the library's own training noise never build them.

    Args as in `diagonal_kernel`.

    Returns:
        PairwiseKernel(off (B, B, L), diagonal (B, L), cross (B, B, L)), data units to the fourth power.

    Raises:
        ValueError: an argument is out of its range, or B B L exceeds 5e7.

    >>> kernel = pairwise_kernel([1.0, 0.25], [2.0], 0.5, terminal="rescale")
    >>> bool(np.allclose(kernel.off[0, 0], kernel.diagonal[0] / 2))
    True
    """
    lam, level, stop, eta = _checked(eigenvalues, sigma, stopping_sigma, eta)
    if lam.size**2 * level.size > _LARGEST:
        raise ValueError(
            f"eigenvalues has {lam.size} bands and sigma {level.size} levels: the pairwise kernel would hold "
            f"{lam.size**2 * level.size:,} numbers, more than {_LARGEST:,}; merge bands or pass fewer levels."
        )
    # Var E_ij counts with v_j^2, Cov(E_ij, E_ji) with v_i v_j, and all else is the same: one array and a ratio
    harmonic = _harmonic(*(terminal_weight(lam, stop, terminal),) * 2)
    reach = damping(lam, level, stop, eta)
    variance = lam[:, None] + level**2
    cross = (1 + eta**2) ** 2 * level**2 * harmonic[:, :, None] * reach[:, None] * reach[None]
    off = cross * variance[None] / variance[:, None]
    return PairwiseKernel(off, diagonal_kernel(lam, level, stop, eta=eta, terminal=terminal), cross)


def banded_sum(
    kernel: PairwiseKernel,
    counts: Any,
    variance: Any,
    *,
    covariance: Any = None,
    diagonal_variance: Any = None,
) -> Array:
    """Sum of kernel times error variance over all d x d entries, from bands.

    sum_bb' n_b n_b' g_bb' + sum_b n_b (diagonal_b Var E_ii - g_bb) with g = off Var E_ij + cross Cov(E_ij,
    E_ji) (docs/theory.md section 4): the pairs i != j of one band, and the d diagonal entries, are counted
    exactly.

    Args:
        kernel: from `pairwise_kernel`, B bands, L levels.
        counts: (B,), directions per band, > 0.
        variance: (B, B, L), Var E_ij for i in band b, j in band b', i != j, >= 0.
        covariance: (B, B, L), Cov(E_ij, E_ji) for i != j; None: zero. For a symmetric E pass `variance`.
        diagonal_variance: (B, L), Var E_ii, >= 0; None: `variance[b, b]`.

    Returns:
        (L,), error per squared step.

    Raises:
        ValueError: a shape does not fit the kernel, or a value is out of its range.

    >>> kernel = pairwise_kernel([1.0], [2.0], 0.5, terminal="rescale")
    >>> banded_sum(kernel, [2.0], np.ones((1, 1, 1)))    # two diagonal entries of 5, two others of 2.5
    array([15.])
    """
    if not isinstance(kernel, PairwiseKernel):
        raise ValueError(f"kernel is {type(kernel).__name__}; a PairwiseKernel is needed.")
    bands, levels = kernel.diagonal.shape
    n = vector(counts, "counts", length=bands, positive=True)
    spread = matrix(variance, "variance", shape=(bands, bands, levels), nonnegative=True)
    pairs = kernel.off * spread
    if covariance is not None:
        pairs = pairs + kernel.cross * matrix(covariance, "covariance", shape=(bands, bands, levels))
    # the double sum takes every direction with itself as if it were a pair of two: taken off, and put in as it is
    own = np.einsum("bbl->bl", pairs)
    if diagonal_variance is None:
        single = np.einsum("bbl->bl", spread)
    else:
        single = matrix(diagonal_variance, "diagonal_variance", shape=(bands, levels), nonnegative=True)
    return np.einsum("b,c,bcl->l", n, n, pairs, optimize=True) + n @ (kernel.diagonal * single - own)


def harmonic_product(weight: Any, values: Any) -> Array:
    """Sum over b' of P_b P_b' / (P_b + P_b') times a value per band and level.

    The factor of the Bures metric that couples two bands does not depend on the level, so every full-matrix
    plug-in is a product with this B x B matrix; it is formed in blocks of rows (docs/theory.md sections 4,
    5).

    Args:
        weight: (B,), P_b, >= 0; a pair of zeros contributes nothing.
        values: (B, L).

    Returns:
        (B, L).

    Raises:
        ValueError: wrong shapes, NaN, infinite or negative weights.

    >>> harmonic_product([1.0, 1.0, 0.0], np.ones((3, 1))).ravel()
    array([1., 1., 0.])
    """
    p = vector(weight, "weight", nonnegative=True)
    x = matrix(values, "values", shape=(p.size, None))
    # blocks of rows: 3,072 single eigenvalues would make H 75 MB, 50,000 of them 20 GB
    rows = max(1, _BLOCK // p.size)
    return np.concatenate([_harmonic(p[i : i + rows], p) @ x for i in range(0, p.size, rows)])


def damping(eigenvalues: Array, sigma: Array, stopping_sigma: float, eta: float) -> Array:
    """Return r_b = (v_b(sigma_r) / v_b(sigma))^(eta^2), (B, L): what noise injection forgets of an error."""
    if eta == 0:  # the usual sampler; saves a power of B x L numbers
        return np.ones((eigenvalues.size, sigma.size))
    ratio = (eigenvalues + stopping_sigma**2)[:, None] / (eigenvalues[:, None] + sigma**2)
    return np.asarray(ratio ** (eta**2))


def _harmonic(left: Array, right: Array) -> Array:
    # P / (P + P') first: P P' underflows for tiny weights
    total = left[:, None] + right[None]
    share = np.divide(left[:, None], total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(share * right[None])


def _checked(eigenvalues: Any, sigma: Any, stopping_sigma: Any, eta: Any) -> tuple[Array, Array, float, float]:
    lam = variances(eigenvalues, "eigenvalues")
    level = noise_levels(sigma, "sigma")
    stop = noise_level(stopping_sigma, "stopping_sigma")
    below = np.flatnonzero(level < stop * (1 - 1e-9))  # a level's own edge may differ in the last digits
    if below.size:
        i = int(below[0])
        raise ValueError(
            f"sigma is {level[i]:g} at index {i}, below stopping_sigma = {stop:g}; the sampler never goes there."
        )
    return lam, level, stop, number(eta, "eta", nonnegative=True, maximum=_LOUDEST)
