"""Loss weights of the literature by name, each on the target it was stated for and on all others.

The signal-to-noise ratio is S = 1 / sigma^2, as in the papers, which takes data of unit variance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...basics.checks import Array, noise_level, number, shown
from ...ingredients.parameterization import target_name
from ...ingredients.process import VP, Process
from .base import WEIGHTINGS, Weighting, add_weighting
from .learned_uncertainty import LearnedUncertainty
from .recoverability import mean_variance, recoverability

__all__ = ["weighting", "weightings"]

_TIMESTEPS = 1000


def _snr(sigma: Array) -> Array:
    return 1 / sigma**2


@add_weighting("uniform")
def uniform_weight(target: str = "eps", sigma_data: float = 0.5) -> Weighting:
    """1 on a target: the plain loss."""
    return Weighting(f"uniform({target_name(target, 'uniform.target')})", target, np.ones_like, sigma_data)


@add_weighting("min_snr")
def min_snr_weight(gamma: float = 5.0) -> Weighting:
    """min(S, gamma) on x0, hence min(S, gamma) / S on eps and min(S, gamma) / (S + 1) on v (Hang et al. 2023)."""
    cap = number(gamma, "min_snr.gamma", positive=True)
    return Weighting(f"min_snr({cap:g})", "x0", lambda sigma: np.minimum(_snr(sigma), cap))


@add_weighting("soft_min_snr")
def soft_min_snr_weight(sigma_data: float = 0.5) -> Weighting:
    """(sigma s / (sigma^2 + s^2))^2 on EDM's F: k-diffusion's soft-min-snr, 1 / (sigma^2 + s^2) on the denoiser."""
    s = noise_level(sigma_data, "soft_min_snr.sigma_data")
    return Weighting("soft_min_snr", "edm", lambda sigma: (sigma * s / (sigma**2 + s**2)) ** 2, s)


@add_weighting("p2")
def p2_weight(gamma: float = 1.0, k: float = 1.0) -> Weighting:
    """(k + S)^-gamma on eps (Choi et al. 2022): k = 1, gamma 0.5 or 1."""
    power, offset = number(gamma, "p2.gamma", nonnegative=True), number(k, "p2.k", positive=True)
    return Weighting(f"p2({power:g})", "eps", lambda sigma: (offset + _snr(sigma)) ** -power)


@add_weighting("edm")
def edm_weight(sigma_data: float = 0.5) -> Weighting:
    """1 on F, (sigma^2 + s^2) / (sigma s)^2 on the denoiser (Karras et al. 2022, table 1)."""
    return Weighting("edm", "edm", np.ones_like, noise_level(sigma_data, "edm.sigma_data"))


@add_weighting("edm2")
def edm2_weight(uncertainty: LearnedUncertainty) -> Weighting:
    """exp(-u(ln sigma)) on F (Karras et al. 2024), u fitted to a loss log: `LearnedUncertainty.fit`."""
    if not isinstance(uncertainty, LearnedUncertainty):
        raise ValueError(f"edm2.uncertainty is {shown(uncertainty)}; give LearnedUncertainty.fit(log, sigma_data=…).")
    return Weighting("edm2", "edm", lambda sigma: np.exp(-uncertainty(sigma)), uncertainty.sigma_data)


@add_weighting("debias")
def debias_weight() -> Weighting:
    """sigma / alpha, 1 / sqrt(S), on eps (Yu et al. 2023, debiased estimation loss)."""
    return Weighting("debias", "eps", lambda sigma: sigma)


@add_weighting("snr")
def snr_weight() -> Weighting:
    """S on x0: the plain loss on eps."""
    return Weighting("snr", "x0", _snr)


@add_weighting("sd3_sigma_sqrt")
def sd3_sigma_sqrt_weight() -> Weighting:
    """t^-2 on the flow's velocity, t = sigma / (1 + sigma): "sigma_sqrt" of diffusers' Stable Diffusion 3 training."""
    return Weighting("sd3_sigma_sqrt", "flow", lambda sigma: ((1 + sigma) / sigma) ** 2)


@add_weighting("sd3_cosmap")
def sd3_cosmap_weight() -> Weighting:
    """2 / (pi (1 - 2 t + 2 t^2)) on the flow's velocity (Esser et al. 2024): the cosine schedule's density."""

    def weight(sigma: Array) -> Array:
        t = sigma / (1 + sigma)
        return 2 / (np.pi * (1 - 2 * t + 2 * t**2))

    return Weighting("sd3_cosmap", "flow", weight)


@add_weighting("erd")
def erd_weight(target: str = "eps", variance: Any = 1.0, process: Process | None = None) -> Weighting:
    """omega_y on the target y (ERD, arXiv:2605.10790, equation 110): another loss for every target.

    The weight is a function of the noise level with the schedule's own alpha; without a process that of the target,
    variance preserving for eps and x0.
    """
    name = target_name(target, "erd.target")

    def weight(sigma: Array) -> Array:
        return recoverability(name, sigma, process=process, variance=variance)

    mean_variance(variance)  # refused here, not at the first use
    return Weighting(f"erd({name})", name, weight)


@add_weighting("speed")
def speed_weight(
    process: Process | None = None, lam: float = 0.6, boundary: float = 0.7, target: str = "eps"
) -> Weighting:
    """SpeeD's weight: 1 - lam to lam in proportion to the rise of 1 - alpha-bar before the boundary, 1 after it.

    Wang et al. 2024 (arXiv:2405.17403), on the continuous time in [0, 1] of a process: (1 - lam) + (2 lam - 1) times
    d(1 - alpha-bar)/dt scaled to [0, 1].
    """
    path = VP() if process is None else process
    share, tau = number(lam, "speed.lam", positive=True, maximum=1.0), number(boundary, "speed.boundary")
    times = np.linspace(path.t_min, path.t_max, _TIMESTEPS)

    def rise(time: Array) -> Array:
        sigma = np.asarray(path.sigma(time))
        return 2 * sigma * np.asarray(path.dsigma_dt(time)) / (1 + sigma**2) ** 2

    low, high = float(rise(times).min()), float(rise(times).max())

    def weight(sigma: Array) -> Array:
        time = np.asarray(path.time(np.clip(sigma, path.sigma_min, path.sigma_max)))
        part = np.clip((rise(time) - low) / (high - low), 0.0, 1.0)
        return np.where(time < tau, (1 - share) + (2 * share - 1) * part, 1.0)

    return Weighting("speed", target, weight)


def weighting(name: str, **parameters: Any) -> Weighting:
    """A loss weight of the literature by its name.

    Args:
        name: one of `weightings()`: "min_snr" (gamma), "soft_min_snr" (sigma_data), "p2" (gamma, k), "edm"
            (sigma_data), "edm2" (uncertainty, from `LearnedUncertainty.fit`), "debias", "snr", "sd3_sigma_sqrt",
            "sd3_cosmap", "erd" (target, variance, process), "speed" (lam, boundary, process, target), "uniform"
            (target); or the name of one's own, see `add_weighting`.
        parameters: its own, by name.

    Raises:
        ValueError: an unknown name (the known ones are listed), or a parameter that it does not have.

    >>> v = weighting("min_snr", gamma=5.0).on("v")
    >>> v([0.1, 1.0]).round(6).tolist()  # min(S, 5) / (S + 1) at S = 100 and 1
    [0.049505, 0.5]
    """
    made: Weighting = WEIGHTINGS.make(name, parameters)
    return made


def weightings() -> list[str]:
    """Names that `weighting` knows, those of `add_weighting` elsewhere included.

    >>> "p2" in weightings()
    True
    """
    return WEIGHTINGS.names()
