"""ERD's recoverability score, the allocation it makes, and Bayes floors of every prediction target.

Yao et al. 2026 (arXiv:2605.10790), sections 2.1 and 3.4; general covariance and the floors from one mmse curve are
ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...basics.checks import Array, matrix, ndim, noise_levels, number, scale_of, takes, variances, vector
from ...basics.user_code import answer
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ...ingredients.parameterization import amplitudes, target_coefficients, target_gain, target_name
from ...ingredients.process import Process
from ...ingredients.spectrum import Spectrum
from ..densities.of_time import OnLevels

__all__ = [
    "allocation",
    "allocation_density",
    "bayes_floor",
    "gaussian_mmse",
    "mean_variance",
    "recoverability",
    "time_allocation",
]

_POINTS = 16  # quadrature nodes inside a level


def mean_variance(variance: Any) -> float:
    """tr Cov(x0) / d from a number, a Spectrum, (d,) eigenvalues or a (d, d) covariance.

    >>> mean_variance([[3.0, 1.0], [1.0, 2.0]]), mean_variance(2.0)
    (2.5, 2.0)
    """
    if isinstance(variance, Spectrum):
        return float(variance.eigenvalues @ variance.counts / variance.counts.sum())
    if ndim(variance) == 1:
        return float(np.mean(variances(variance, "variance")))
    if ndim(variance) == 2:
        whole = matrix(variance, "variance")
        if whole.shape[0] != whole.shape[1]:
            raise ValueError(f"variance has shape {whole.shape}; a covariance is square.")
        return float(np.trace(whole) / len(whole))
    return scale_of(variance, "variance")


@takes(process=Process)
def recoverability(target: str, sigma: Any, *, process: Process | None = None, variance: Any = 1.0) -> Array:
    """omega_y = sqrt(c_x^2 alpha^2 tr Cov(x0) / d + c_eps^2 sigma_t^2), root mean square of the target's two parts.

    Each part enters with the amplitude it has in the corrupted input. Where Cov(x0) = I, as the paper assumes (ERD,
    equations 11 and 111), the score is alpha for x0, sigma_t for eps, sqrt(2) alpha sigma_t for v (there up to a
    factor) and sqrt(alpha^2 + sigma_t^2) for the flow, whose weight is 1 in the released code. It depends on the
    schedule's scale alpha, not on the noise level sigma = sigma_t / alpha alone. Data are centred.

    Args:
        target: "eps", "x0", "v", "flow" (or "u"); "edm" is an extension.
        sigma: (L,) noise levels, > 0.
        process: the schedule; unless given, the straight path for "flow", alpha = 1 for "edm" and the variance
            preserving one, alpha^2 + sigma_t^2 = 1, for the rest.
        variance: of the data, see `mean_variance`.

    Returns:
        (L,), > 0.

    >>> recoverability("v", [1.0]).round(6).tolist(), recoverability("x0", [1.0], variance=[1.0, 7.0]).round(6).tolist()
    ([0.707107], [1.414214])
    """
    name = target_name(target, "recoverability: target")
    power = mean_variance(variance)
    alpha, noise = amplitudes(sigma, "v" if name in ("eps", "x0") else name, process)
    c_x, c_eps = target_coefficients(name, alpha, noise)
    return np.sqrt((c_x * alpha) ** 2 * power + (c_eps * noise) ** 2)


@takes(density=SigmaDensity)
def allocation(weight: Callable[[Array], Array] | float, sigma: Any, density: SigmaDensity) -> Array:
    """M = w p |dt / d log-SNR|: the loss weight times the training density per unit log-SNR, (L,).

    ERD, section 2.1. A SigmaDensity knows its density per unit log-SNR, with the schedule's Jacobian inside;
    `time_allocation` takes the parts apart.

    Args:
        weight: on the target in use, a function of sigma such as a Weighting, or a number.
        sigma: (L,) noise levels, > 0.
        density: of the training examples.

    >>> from codesign_opt import LogNormal
    >>> allocation(2.0, [1.0], LogNormal(0.0, 1.0)).round(6).tolist()
    [0.398942]
    """
    levels = noise_levels(sigma, "sigma")
    value = answer(weight, levels, "weight") if callable(weight) else number(weight, "weight", nonnegative=True)
    return np.asarray(value * density.per_log_snr(levels))


@takes(process=Process)
def time_allocation(
    weight: Callable[[Array], Array] | float, time: Any, process: Process, *, per_time: Any = None
) -> Array:
    """M = w p(t) |dt / d log-SNR| at times of a process, d log-SNR / dt = -2 sigma'(t) / sigma.

    Args:
        weight: on the target in use, a function of sigma, or a number.
        time: (L,) times.
        process: the schedule.
        per_time: (L,) density of the training examples per unit time; uniform over the process unless given.

    >>> from codesign_opt import VE
    >>> time_allocation(1.0, [0.5], VE(0.01, 100.0)).round(6).tolist()  # 1 / (2 ln 10^4)
    [0.054287]
    """
    at = vector(time, "time")
    p = np.full(at.size, 1 / (process.t_max - process.t_min))
    if per_time is not None:
        p = vector(per_time, "per_time", length=at.size, nonnegative=True)
    sigma = np.asarray(process.sigma(at))
    value = answer(weight, sigma, "weight") if callable(weight) else number(weight, "weight", nonnegative=True)
    return np.asarray(value * p * sigma / (2 * np.asarray(process.dsigma_dt(at))))


@takes(weight=callable, density=SigmaDensity, levels=Levels)
def allocation_density(weight: Callable[[Array], Array], density: SigmaDensity, levels: Levels) -> OnLevels:
    """Density of training whose unweighted loss spreads the same effort over noise levels, M divided by its integral.

    Weighting and density both move effort, and an expected loss tells them apart no more than by M; the noise of its
    gradient does.

    Args:
        weight: on the target in use, a function of sigma.
        density: of the weighted training.
        levels: its result is even in log sigma inside each.

    >>> from codesign_opt import LogNormal
    >>> law = allocation_density(lambda s: s, LogNormal(0.0, 1.0), Levels.log_uniform(1e-4, 1e4, 400))
    >>> float(law.quantile(0.5).round(3))  # exp(1), as the tilted normal has it
    2.718
    """
    effort = levels.average(
        lambda s: answer(weight, s.ravel(), "weight").reshape(s.shape) * density.per_log_sigma(s), points=_POINTS
    )
    return OnLevels(levels, effort * levels.log_width)


@takes(process=Process)
def bayes_floor(
    target: str, sigma: Any, mmse: Any, *, process: Process | None = None, sigma_data: float = 0.5
) -> Array:
    """Least loss E|y - E[y|x]|^2 of a prediction target: ((c_x sigma_t - c_eps alpha) / sigma_t)^2 mmse(sigma).

    One curve gives the floors of all targets: eps mmse / sigma^2, x0 mmse, v (variance preserving) (1 + sigma^2) mmse /
    sigma^2, flow ((1 + sigma) / sigma)^2 mmse. The network-free lower line of a loss curve.

    Args:
        target: "eps", "x0", "v", "flow" (or "u"), "edm" (or "F").
        sigma: (L,) noise levels, > 0.
        mmse: (L,) E|x0 - E[x0|x]|^2, for instance `gaussian_mmse`, or `RiskCurve.floor`.
        process: schedule; that of the target unless given (`amplitudes`).
        sigma_data: of "edm".

    >>> bayes_floor("eps", [2.0], [1.0]).tolist()
    [0.25]
    """
    levels = noise_levels(sigma, "sigma")
    least = vector(mmse, "mmse", length=levels.size, nonnegative=True)
    return target_gain(target, levels, process, sigma_data=sigma_data) ** 2 * least


@takes(spectrum=Spectrum)
def gaussian_mmse(spectrum: Spectrum, sigma: Any) -> Array:
    """Bayes risk of Gaussian data, sum_b n_b lambda_b sigma^2 / (lambda_b + sigma^2), (L,), summed over dimensions.

    >>> gaussian_mmse(Spectrum.from_eigenvalues([1.0, 1.0]), [1.0]).tolist()
    [1.0]
    """
    variance = noise_levels(sigma, "sigma")[:, None] ** 2
    return np.asarray((spectrum.eigenvalues * variance / (spectrum.eigenvalues + variance)) @ spectrum.counts)
