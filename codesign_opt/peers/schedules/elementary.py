"""Closed forms of Euler's and of stochastic DDIM on Gaussian data: trajectories and divergences at finite K.

docs/theory.md sections 2.1 and 11.3 (An Elementary Approach to Scheduling in Generative Diffusion Models, 2601.13602).
With theta_b = arctan(sigma / sqrt(lambda_b)) an Euler step multiplies the variance of band b, relative to the exact
marginal, by cos^2 of the change of theta_b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ...basics.checks import Array, boolean, choice, noise_level, number, numbers, scale_of, takes, variances
from ...ingredients.grids import check_grid
from ...ingredients.spectrum import Spectrum

__all__ = [
    "euler_kl",
    "euler_trajectory",
    "euler_variance_ratio",
    "leading_kl",
    "path_energy",
    "stochastic_path_kl",
    "stochastic_variance_ratio",
    "tangent_coefficient",
]

_LARGEST = 1e60  # of a path's energy
_STARTS = ("marginal", "noise")


@takes(spectrum=Spectrum)
def euler_trajectory(sigmas: Any, spectrum: Spectrum, *, start: str = "marginal") -> Array:
    """Variance of every band at every node of Euler's method (DDIM with eta = 0) with the exact score.

    (lambda + sigma_k^2) times the product of cos^2(theta_j - theta_{j+1}) over the steps j < k.

    Args:
        sigmas: (K+1,) descending noise levels, data units; the last may be 0.
        spectrum: B bands.
        start: "marginal" from the exact law at sigmas[0], "noise" from N(0, sigmas[0]^2 I).

    Returns:
        (K+1, B) squared data units, in the order of the spectrum's bands (eigenvalues descending).

    Raises:
        ValueError: a malformed grid, or an unknown start.

    >>> euler_trajectory([1.0, 0.0], Spectrum([1.0], [1])).round(12).tolist()  # D = x / 2 of variance 2
    [[2.0], [0.5]]
    """
    grid = check_grid(sigmas).sigmas
    cosines = np.cos(np.diff(_angles(grid, spectrum.eigenvalues), axis=0)) ** 2
    kept = np.concatenate([np.ones((1, len(spectrum))), np.cumprod(cosines, axis=0)])
    return (spectrum.eigenvalues + grid[:, None] ** 2) * kept * _start_share(grid, spectrum, start)


@takes(spectrum=Spectrum)
def euler_variance_ratio(sigmas: Any, spectrum: Spectrum, *, start: str = "marginal") -> Array:
    """Variance that Euler's method ends in over that of the exact marginal, r_b = product of cos^2(d theta_b).

    Arguments and errors as for `euler_trajectory`; (B,) in (0, 1]. Under "noise" it holds sin^2(theta_b(sigma_max))
    besides. A direction without data has r = 1 where the grid ends above 0; where it ends at 0 both variances are 0
    and r is nan.

    >>> euler_variance_ratio([1.0, 0.0], Spectrum([1.0], [1])).round(12).tolist()
    [0.5]
    """
    grid = check_grid(sigmas).sigmas
    angles = _angles(grid, spectrum.eigenvalues)
    ratio = np.prod(np.cos(np.diff(angles, axis=0)) ** 2, axis=0) * _start_share(grid, spectrum, start)
    return np.where((spectrum.eigenvalues == 0) & (grid[-1] == 0), np.nan, ratio)


@takes(spectrum=Spectrum)
def euler_kl(
    sigmas: Any, spectrum: Spectrum, *, reverse: bool = False, start: str = "marginal", target: str = "marginal"
) -> float:
    """KL(target | output) of Euler's method in closed form, or KL(output | target) for `reverse`, in nats.

    sum_b n_b (1/r_b - 1 + log r_b) / 2, reversed sum_b n_b (r_b - 1 - log r_b) / 2, with r_b the variance of the output
    over the target's. From "noise", the missing data mean is counted as well.

    Args:
        sigmas, spectrum, start: as for `euler_trajectory`. Directions without data are left out where the grid ends
            at 0: there both laws are degenerate.
        target: "marginal", the exact law at the grid's last level: the error of discretisation (and start) alone; or
            "data", which a grid that ends above 0 also misses by stopping.

    Raises:
        ValueError: a malformed argument, or a direction without data against target "data" of a grid that ends
            above 0, where the divergence is infinite.

    >>> round(euler_kl([1.0, 0.0], Spectrum([1.0], [1])), 6)  # r = 1/2: (2 - 1 - log 2) / 2
    0.153426
    """
    choice(target, "target", ("marginal", "data"))
    grid = check_grid(sigmas).sigmas
    last = float(grid[-1])
    lam, n = spectrum.eigenvalues, spectrum.counts
    ratio = euler_variance_ratio(grid, spectrum, start=start)
    wanted = lam + (last**2 if target == "marginal" else 0.0)
    if last > 0 and np.any(wanted == 0):
        raise ValueError(
            "euler_kl is infinite: the spectrum has directions of zero variance, in which a grid that ends at "
            f'{last:g} leaves noise; use target="marginal", end the grid at 0, or give those eigenvalues a floor.'
        )
    keep = wanted > 0
    ratio, wanted, n = ratio[keep] * (lam + last**2)[keep] / wanted[keep], wanted[keep], n[keep]
    power = np.zeros(n.size)
    if start == "noise":  # the multiplier of the mean, squared: variance of the output per variance of the start
        power = spectrum.mean_power[keep] * ratio * wanted / grid[0] ** 2
    if boolean(reverse, "euler_kl: reverse"):
        return float(0.5 * (n @ (ratio - 1 - np.log(ratio)) + (power / wanted).sum()))
    return float(0.5 * (n @ (1 / ratio - 1 + np.log(ratio)) + (power / (wanted * ratio)).sum()))


@takes(spectrum=Spectrum)
def path_energy(sigmas: Any, spectrum: Spectrum) -> Array:
    """J_b = integral of (d theta_b / d tau)^2 over tau in [0, 1], for the path through equidistant nodes.

    K sum_k (theta_{k+1} - theta_k)^2: pass a fine grid of a schedule for its J_b, which is
    int lambda_b (d sigma / d tau)^2 / (lambda_b + sigma^2)^2 d tau of docs/theory.md section 11.3.

    Args:
        sigmas: (K+1,) descending noise levels, the last may be 0.
        spectrum: B bands; a direction without data has J = 0 (or, with a last step to 0, none: nan).

    Returns:
        (B,) no unit.

    >>> import math
    >>> fine = [math.tan(math.pi / 4 * (1 - k / 400)) for k in range(401)]  # tangent law from 1 to 0
    >>> path_energy(fine, Spectrum([1.0], [1])).round(9).tolist() == [round((math.pi / 4) ** 2, 9)]
    True
    """
    grid = check_grid(sigmas).sigmas
    energy = (grid.size - 1) * np.sum(np.diff(_angles(grid, spectrum.eigenvalues), axis=0) ** 2, axis=0)
    return np.where((spectrum.eigenvalues == 0) & (grid[-1] == 0), np.nan, energy)


@takes(spectrum=Spectrum)
def leading_kl(energy: Any, spectrum: Spectrum, steps: int) -> float:
    """Leading term of both divergences at many steps, sum_b n_b J_b^2 / (4 K^2).

    Euler-Maclaurin: -log r_b = J_b / K + O(K^-3), docs/theory.md section 11.3.

    Args:
        energy: (B,) J_b of the schedule, see `path_energy`.
        spectrum: B bands.
        steps: K >= 1.

    >>> leading_kl([2.0], Spectrum([1.0], [3]), 10)
    0.03
    """
    values = np.abs(numbers(energy, "energy"))
    if values.shape != spectrum.counts.shape:
        raise ValueError(f"energy has shape {values.shape}; one entry per band, {spectrum.counts.shape}, is needed.")
    count = scale_of(steps, "steps")
    if np.any(values > _LARGEST):
        raise ValueError(f"energy is {values.max():g} at most; it must be <= {_LARGEST:g}.")
    return float(spectrum.counts @ values**2 / (4 * count**2))


@takes(spectrum=Spectrum)
def stochastic_variance_ratio(sigmas: Any, spectrum: Spectrum) -> Array:
    """Variance that stochastic DDIM (eta = 1) ends in over the exact one, from the exact marginal.

    With t = sigma^2 the step t -> t' loses lambda (t - t')^2 / (t (lambda + t)), and what is lost shrinks with
    ((lambda + t_K)/(lambda + t'))^2 until the end: r_b = 1 - sum of both (docs/theory.md section 11.3).

    Args: sigmas (K+1,) descending, the last may be 0; spectrum of B bands. Returns (B,) in [0, 1]; nan for a direction
    without data where the grid ends at 0.

    >>> stochastic_variance_ratio([1.0, 0.0], Spectrum([1.0], [1])).tolist()
    [0.5]
    """
    time = (check_grid(sigmas).sigmas ** 2)[:, None]
    lam = spectrum.eigenvalues
    before, after = time[:-1], time[1:]
    lost = lam * (before - after) ** 2 / (before * (lam + before))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = lost / (lam + after) * ((lam + time[-1]) / (lam + after))
    return np.where((lam == 0) & (time[-1] == 0), np.nan, 1 - share.sum(axis=0))


@takes(spectrum=Spectrum)
def stochastic_path_kl(sigmas: Any, spectrum: Spectrum) -> float:
    """Divergence of the paths of stochastic DDIM from the exact reverse process, in nats, over the positive nodes.

    sum_b n_b sum_k [ (gamma_{k+1} - gamma_k) m_k - log((1 + gamma_{k+1} lambda_b) / (1 + gamma_k lambda_b)) ] / 2 with
    gamma = 1/sigma^2 and m_k = lambda_b / (1 + gamma_k lambda_b): docs/theory.md (11.1) for Gaussian data. A last step
    to 0 is left out, for which it is infinite.

    >>> round(stochastic_path_kl([1.0, 0.5], Spectrum([1.0], [1])), 6)  # (3/2 - log(5/2)) / 2
    0.291855
    """
    grid = check_grid(sigmas).sigmas
    snr = 1 / grid[grid > 0][:, None] ** 2
    lam = spectrum.eigenvalues
    relative = np.diff(snr, axis=0) * lam / (1 + snr[:-1] * lam)
    return float(0.5 * (relative - np.log1p(relative)).sum(axis=0) @ spectrum.counts)


@takes(spectrum=Spectrum)
def tangent_coefficient(
    spectrum: Spectrum, *, floor: float = 0.0, sigma_min: float = 0.0, sigma_max: float = np.inf
) -> float:
    """Coefficient g of the tangent law sigma = g tan(phi) with the least divergence of Euler's method at many steps.

    Over the whole range g = (sum n lambda / sum n / lambda)^(1/4) in closed form, docs/theory.md section 11.3. Over a
    finite range the minimum of sum n_b J_b^2 with
    J_b = (phi_1 - phi_0) [(g/c)(theta/2 + sin(2 theta)/4) + (c/g)(theta/2 - sin(2 theta)/4)], c = sqrt(lambda_b), taken
    between the ends, is found by a search.

    Args:
        spectrum: the data.
        floor: eigenvalues below it count as it, squared data units. Tiny ones dominate sum n / lambda, and an
            eigenvalue of 0 needs a floor; sigma_min^2, below which the sampler resolves nothing, is a natural one.
        sigma_min, sigma_max: the range; 0 and infinity for the closed form.

    Raises:
        ValueError: an eigenvalue of 0 without a floor, or a range that is not ascending.

    >>> tangent_coefficient(Spectrum([4.0, 0.25], [1, 1]))
    1.0
    """
    least = float(variances([number(floor, "floor")], "floor")[0])
    low = number(sigma_min, "sigma_min", nonnegative=True)
    high = np.inf if isinstance(sigma_max, float) and sigma_max == np.inf else noise_level(sigma_max, "sigma_max")
    if not low < high:
        raise ValueError(f"sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
    lam, n = np.maximum(spectrum.eigenvalues, least), spectrum.counts
    if np.any(lam == 0):
        raise ValueError("spectrum has eigenvalues of 0, for which the tangent law has no coefficient; give a floor.")
    closed = float(((n @ lam) / (n @ (1 / lam))) ** 0.25)
    if low == 0 and high == np.inf:
        return closed
    root = np.sqrt(lam)
    theta = np.arctan2([[high], [low]], root)
    plus, minus = (theta / 2 + sign * np.sin(2 * theta) / 4 for sign in (1, -1))
    plus, minus = plus[0] - plus[1], minus[0] - minus[1]

    def divergence(log_g: float) -> float:
        g = np.exp(log_g)
        width = np.arctan2(high, g) - np.arctan2(low, g)
        return float(n @ (width * (g / root * plus + root / g * minus)) ** 2)

    scan = np.linspace(np.log(root.min()) - 1, np.log(root.max()) + 1, 65)
    best = int(np.argmin([divergence(x) for x in scan]))
    bounds = (scan[max(best - 1, 0)], scan[min(best + 1, scan.size - 1)])
    return float(np.exp(minimize_scalar(divergence, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x))


def _angles(grid: Array, eigenvalues: Array) -> Array:
    """(K+1, B) theta; a direction without data stands at pi/2 while sigma > 0."""
    return np.arctan2(grid[:, None], np.sqrt(eigenvalues))


def _start_share(grid: Array, spectrum: Spectrum, start: str) -> Any:
    """Variance of the start over that of the exact law there."""
    choice(start, "start", _STARTS)
    return 1.0 if start == "marginal" else grid[0] ** 2 / (spectrum.eigenvalues + grid[0] ** 2)
