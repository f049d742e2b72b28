"""Schedules that need nothing but the range of noise levels: what users set by a flag today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .._validate import Array, number
from .evidence import Evidence
from .schedule import Schedule

__all__ = ["EDMRho", "LogSNR"]


@dataclass(frozen=True)
class EDMRho(Schedule):
    """Equal increments of sigma^(1/rho): EDM's grid (Karras et al. 2022, equation 5).

    Args:
        rho: 7 is EDM's default; 1 is uniform in sigma, infinity would be uniform in log sigma.

    >>> EDMRho(3.0).sigmas(3, Evidence(sigma_min=1.0, sigma_max=8.0)).round(12).tolist()
    [8.0, 3.375, 1.0, 0.0]
    """

    rho: float = 7.0
    name: ClassVar[str] = "edm"
    title: ClassVar[str] = "EDM, equal steps of sigma^(1/rho)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", number(self.rho, "EDMRho.rho", positive=True))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        ends = evidence.sigma_max ** (1 / self.rho), evidence.sigma_min ** (1 / self.rho)
        return evidence.between(np.linspace(*ends, count) ** self.rho)


@dataclass(frozen=True)
class LogSNR(Schedule):
    """Equal increments of log sigma, a geometric progression; "exponential" in k-diffusion and diffusers.

    >>> LogSNR().sigmas(3, Evidence(sigma_min=1.0, sigma_max=4.0)).round(12).tolist()
    [4.0, 2.0, 1.0, 0.0]
    """

    name: ClassVar[str] = "log_snr"
    title: ClassVar[str] = "equal steps of log sigma"

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        return evidence.between(np.geomspace(evidence.sigma_max, evidence.sigma_min, count))
