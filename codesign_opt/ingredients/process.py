"""Forward processes of the literature: variance preserving and exploding, EDM, cosine, flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .process_base import Process

__all__ = ["EDM", "VE", "VP", "Cosine", "FlowMatching", "Process"]


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving with linear beta: sigma = sqrt(exp(B) - 1), s = exp(-B/2), B = int_0^t beta.

    beta(t) = beta_min + (beta_max - beta_min) t, B = beta_min t + (beta_max - beta_min) t^2 / 2, t in
    [t_min, 1]. docs/theory.md section 1; Song et al. 2021, equations (11) and (32)-(33).

    Args: beta_min >= 0, beta_max > 0 not below beta_min, per unit time, with B(1) <= 600 (sigma would leave
    float64); 0 < t_min < 1. Raises ValueError otherwise.

    >>> round(VP().sigma_max, 2)
    152.17
    """

    name: ClassVar[str] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        self._store(beta_min=False, beta_max=True, t_min=True)
        if self.beta_max < self.beta_min:
            raise ValueError(f"VP.beta_max is {self.beta_max:g}; it must be >= beta_min = {self.beta_min:g}.")
        self._ascending("t_min", "t_max")
        if self._integral(1.0) > 600:
            raise ValueError(
                f"VP.beta_max is {self.beta_max:g}: the integral of beta is {self._integral(1.0):g}, at most "
                "600 fits float64. Divide a per-step beta of a discrete schedule by its number of steps."
            )

    @property
    def t_max(self) -> float:
        """Largest time, 1."""
        return 1.0

    def _integral(self, t: Any) -> Any:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _sigma(self, t: Any) -> Any:
        return np.sqrt(np.expm1(self._integral(t)))

    def _time(self, sigma: Any) -> Any:
        # The root of the quadratic in the form without cancellation; it also covers a constant beta.
        integral = np.log1p(sigma**2)
        discriminant = self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * integral
        return 2.0 * integral / (self.beta_min + np.sqrt(discriminant))

    def _scale(self, t: Any) -> Any:
        return np.exp(-0.5 * self._integral(t))

    def _dsigma_dt(self, t: Any) -> Any:
        sigma = self._sigma(t)
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        return 0.5 * beta * (sigma + 1.0 / sigma)


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding, geometric: sigma = sigma_min (sigma_max / sigma_min)^t, s = 1, t in [0, 1].

    docs/theory.md section 1; Song et al. 2021, appendix C (their small constant under the root left out).

    Args: 0 < sigma_min < sigma_max, data units. Raises ValueError otherwise.

    >>> round(VE(0.01, 100.0).sigma(0.5), 12)
    1.0
    """

    name: ClassVar[str] = "ve"
    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        self._store(sigma_min=True, sigma_max=True)
        self._ascending("sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        """Smallest time, 0."""
        return 0.0

    @property
    def t_max(self) -> float:
        """Largest time, 1."""
        return 1.0

    def _rate(self) -> Any:
        return np.log(self.sigma_max) - np.log(self.sigma_min)

    def _sigma(self, t: Any) -> Any:
        return self.sigma_min * np.exp(self._rate() * t)

    def _time(self, sigma: Any) -> Any:
        return np.log(sigma / self.sigma_min) / self._rate()

    def _scale(self, t: Any) -> Any:
        return 1.0 + 0.0 * t

    def _dsigma_dt(self, t: Any) -> Any:
        return self._rate() * self._sigma(t)


@dataclass(frozen=True)
class EDM(Process):
    """EDM: time is the noise level, sigma = t, s = 1.

    docs/theory.md section 1; Karras et al. 2022, table 1.

    Args: 0 < sigma_min < sigma_max, data units. Raises ValueError otherwise.

    >>> EDM()
    EDM(sigma_min=0.002, sigma_max=80.0)
    """

    name: ClassVar[str] = "edm"
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        self._store(sigma_min=True, sigma_max=True)
        self._ascending("sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        """Smallest time, sigma_min."""
        return self.sigma_min

    @property
    def t_max(self) -> float:
        """Largest time, sigma_max."""
        return self.sigma_max

    def _sigma(self, t: Any) -> Any:
        return t

    def _time(self, sigma: Any) -> Any:
        return sigma

    def _scale(self, t: Any) -> Any:
        return 1.0 + 0.0 * t

    def _dsigma_dt(self, t: Any) -> Any:
        return 1.0 + 0.0 * t


@dataclass(frozen=True)
class _Clipped(Process):
    """A process on 0 < t < 1 whose sigma is infinite at t = 1, so that both ends are clipped."""

    def __post_init__(self) -> None:
        self._store(t_min=True, t_max=True)
        self._ascending("t_min", "t_max")
        if self.t_max >= 1:
            raise ValueError(f"{type(self).__name__}.t_max is {self.t_max:g}; it must be < 1, where sigma is infinite.")


@dataclass(frozen=True)
class Cosine(_Clipped):
    """Cosine: s = cos(pi t / 2), sigma_t = sin(pi t / 2), so sigma = tan(pi t / 2).

    docs/theory.md section 1; Nichol and Dhariwal 2021, equation (17) without their offset.

    Args: 0 < t_min < t_max < 1; the defaults give sigma from 0.0016 to 80. Raises ValueError otherwise.

    >>> round(Cosine().sigma(0.5), 12)
    1.0
    """

    name: ClassVar[str] = "cosine"
    t_min: float = 1e-3
    t_max: float = 0.992

    def _sigma(self, t: Any) -> Any:
        return np.tan(0.5 * np.pi * t)

    def _time(self, sigma: Any) -> Any:
        return 2.0 / np.pi * np.arctan(sigma)

    def _scale(self, t: Any) -> Any:
        return np.cos(0.5 * np.pi * t)

    def _dsigma_dt(self, t: Any) -> Any:
        return 0.5 * np.pi / np.cos(0.5 * np.pi * t) ** 2


@dataclass(frozen=True)
class FlowMatching(_Clipped):
    """Flow matching (rectified flow): x_t = (1 - t) x_0 + t z, so s = 1 - t and sigma = t / (1 - t).

    docs/theory.md section 1; Lipman et al. 2023 and Liu et al. 2023, with noise at t = 1.

    Args: 0 < t_min < t_max < 1; the defaults give sigma from 0.002 to 82. Raises ValueError otherwise.

    >>> FlowMatching().sigma(0.5)
    1.0
    """

    name: ClassVar[str] = "flow_matching"
    t_min: float = 2e-3
    t_max: float = 0.988

    def _sigma(self, t: Any) -> Any:
        return t / (1.0 - t)

    def _time(self, sigma: Any) -> Any:
        return sigma / (1.0 + sigma)

    def _scale(self, t: Any) -> Any:
        return 1.0 - t

    def _dsigma_dt(self, t: Any) -> Any:
        return 1.0 / (1.0 - t) ** 2
