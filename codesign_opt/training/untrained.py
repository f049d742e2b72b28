"""What a denoiser errs by before it has seen an example, the prior of the saturating law (docs/theory.md section 5.6).

A network whose output is 0 denoises by its skip connection alone, D = c_skip x. Shrunk towards it as if it had been
seen with m0 examples, least squares leaves (m a + m0^2 e0) / (m + m0)^2, a and e0 the contracted variance of one
example and squared error of the untrained denoiser: least for m0 = a / e0, where it is a / (m + m0).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array, choice, noise_level, noise_levels, number, variances, vector
from ..ingredients.parameterization import Parameterization, unchecked_skip
from .sensitivity_kernel import diagonal_kernel, mean_kernel

__all__ = ["UntrainedPrior", "kernel_arguments"]

_PRIORS = ("untrained",)  # beside None: A / m, which knows nothing before the first example


class UntrainedPrior:
    """Where training starts: the part of TrainingNoise that knows the untrained denoiser.

    Fields:
        prior: "untrained", or None for A / m.
        parameterization, sigma_data: of the network; its output is 0 before training.
    """

    prior: str | None = None
    parameterization: str = "x0"
    sigma_data: float = 0.5
    intercept: bool

    def untrained(
        self,
        eigenvalues: Any,
        counts: Any,
        sigma: Any,
        stopping_sigma: float,
        *,
        eta: float = 0.0,
        terminal: str = "denoise",
        mean_power: Any = None,
    ) -> Array | None:
        """Squared terminal error per unit sigma and step or correlation length before training: e0(sigma).

        <K, e e^T> of the untrained denoiser's error e = (c_skip - lambda / v) x / sigma^2, and of (1 - c_skip) mu
        where an intercept is learned (docs/theory.md section 5.6). a(sigma) / e0(sigma) is the number of examples
        within a correlation length that it is worth.

        Args:
            eigenvalues, counts, sigma, stopping_sigma, eta, terminal: as in `reducible`.
            mean_power: (B,), squared mean of the data summed over each band; None: 0.

        Returns:
            (L,), as `floor`; None without a prior, where nothing bounds the error of a level without examples.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD(prior="untrained").untrained([1.0], [1.0], [1.0], 0.5, terminal="rescale")
        array([0.3125])
        """
        if self.prior is None:
            return None
        lam, n, level, options = kernel_arguments(eigenvalues, counts, sigma, eta, terminal)
        power = np.zeros(lam.size)
        if self.intercept and mean_power is not None:
            power = vector(mean_power, "mean_power", length=lam.size, nonnegative=True)
        return _contracted(lam, n, power, level, stopping_sigma, self._skip(level), **options)

    def untrained_slopes(self, eigenvalues: Array, sigma: Array) -> Array | None:
        """(B, L) squared error of the untrained denoiser's slope in the diagonal model; None without a prior."""
        return None if self.prior is None else _slope_error(eigenvalues, sigma, self._skip(sigma)) ** 2

    def untrained_output(
        self, eigenvalues: Array, counts: Array, stops: Array, mean_power: Array
    ) -> tuple[Array, Array] | None:
        """Error of the closing denoiser call before training: signed roots (B, R) of the bands', and the mean's (R,).

        sum_b n_b v_b (c_skip - lambda_b / v_b)^2 + (1 - c_skip)^2 mu^2 (docs/theory.md sections 2.2 and 5.6), the
        latter where an intercept is learned; None without a prior.
        """
        if self.prior is None:
            return None
        skip, v = self._skip(stops), eigenvalues[:, None] + stops**2
        power = float(mean_power.sum()) if self.intercept else 0.0
        return np.sqrt(counts[:, None] * v) * _slope_error(eigenvalues, stops, skip), (1 - skip) ** 2 * power

    def _skip(self, sigma: Array) -> Array:
        return unchecked_skip(self.parameterization, self.sigma_data, sigma)

    def _check_prior(self, owner: str) -> None:
        if self.prior is not None:
            choice(self.prior, f"{owner}.prior", _PRIORS)
        data = noise_level(self.sigma_data, f"{owner}.sigma_data")
        object.__setattr__(self, "sigma_data", data)
        try:
            Parameterization(self.parameterization, data)
        except ValueError as error:
            raise ValueError(str(error).replace("Parameterization.name", f"{owner}.parameterization")) from None


def kernel_arguments(
    eigenvalues: Any, counts: Any, sigma: Any, eta: Any, terminal: Any
) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Eigenvalues, counts and levels, checked, and the options of a kernel."""
    lam = variances(eigenvalues, "eigenvalues")
    n = vector(counts, "counts", length=lam.size, positive=True)
    level = noise_levels(sigma, "sigma")
    return lam, n, level, {"eta": number(eta, "eta", nonnegative=True), "terminal": terminal}


def _slope_error(eigenvalues: Array, sigma: Array, skip: Array) -> Array:
    """Error of the untrained denoiser's slope along each direction: c_skip - lambda / v, (B, L).

    >>> _slope_error(np.array([1.0]), np.array([1.0]), np.array([0.0]))
    array([[-0.5]])
    """
    lam, square = eigenvalues[:, None], sigma**2
    v = lam + square
    # lambda / v below 1/2 as it is, above as 1 - sigma^2 / v: the difference from a skip of 1 keeps its digits
    return np.where(lam <= square, skip - lam / v, square / v - (1 - skip))


def _contracted(
    eigenvalues: Array,
    counts: Array,
    mean_power: Array,
    sigma: Array,
    stopping_sigma: float,
    skip: Array,
    *,
    eta: float,
    terminal: str,
) -> Array:
    """e0(sigma): the kernel contracted with the untrained denoiser's squared error of slope and of mean, (L,)."""
    kernel = diagonal_kernel(eigenvalues, sigma, stopping_sigma, eta=eta, terminal=terminal)
    with np.errstate(over="ignore"):  # of amounts at the end of the floats infinity is left
        result = counts @ (kernel * _slope_error(eigenvalues, sigma, skip) ** 2 / sigma**4)
        if mean_power.any():
            mean = mean_kernel(eigenvalues, sigma, stopping_sigma, eta=eta, terminal=terminal)
            result = result + mean_power @ mean * (1 - skip) ** 2 / sigma**4
    return np.asarray(result)
