"""Network parameterisations D = c_skip x + c_out F(c_in x) and what they do to constant-step noise.

What averaged training learns does not depend on the parameterisation; the floor of a constant step does, only
through the change of rate tau -> tau omega_F c_in^2 (docs/theory.md section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, number, vector
from .process import Process

__all__ = [
    "PARAMETERIZATIONS",
    "TARGETS",
    "Parameterization",
    "TabulatedWeight",
    "amplitudes",
    "evaluate_weight",
    "target_coefficients",
    "target_gain",
    "target_name",
]

Weight = Callable[[Array], Any]


@dataclass(frozen=True)
class Parameterization:
    """The denoiser as a skip connection plus a scaled network: D = c_skip x + c_out F(c_in x).

    Loss on the network's output: omega_F |F - target|^2 / 2 (docs/theory.md section 5). The input x is x_t /
    s_t.

    Fields:
        name: one of `PARAMETERIZATIONS`: "x0", "eps" (input x), "eps_vp" (variance-preserving input), "v",
            "flow", "score", "score_weighted" (loss weight sigma^2 on the score) and "edm".
        sigma_data: standard deviation of the data per dimension, data units, > 0; used by "edm" alone.

    Raises:
        ValueError: unknown name; sigma_data not a positive finite number.

    >>> edm = Parameterization("edm", sigma_data=0.5)
    >>> edm.rate_factor([0.5]), edm.rate_factor([0.5], weight=8.0)
    (array([2.]), array([2.]))
    """

    name: str = "edm"
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        choice(self.name, "Parameterization.name", PARAMETERIZATIONS)
        value = number(self.sigma_data, "Parameterization.sigma_data", positive=True)
        object.__setattr__(self, "sigma_data", value)

    def c_skip(self, sigma: Any) -> Array:
        """Weight of the noisy input in the denoiser, (L,).

        >>> Parameterization("flow").c_skip([1.0])
        array([0.5])
        """
        return self._row(sigma)[0]

    def c_out(self, sigma: Any) -> Array:
        """Factor of the network's output, (L,), data units for a network of unit output.

        >>> Parameterization("eps").c_out([2.0])
        array([-2.])
        """
        return self._row(sigma)[1]

    def c_in(self, sigma: Any) -> Array:
        """Factor of the network's input, (L,).

        >>> Parameterization("eps").c_in([2.0])
        array([1.])
        """
        return self._row(sigma)[2]

    def output_weight(self, sigma: Any, weight: float | Weight | None = None) -> Array:
        """Weight of the loss on the network's output: omega_F = omega c_out^2, or the table's own weight.

        Args:
            sigma: (L,), noise levels, > 0.
            weight: omega, the weight on the denoising loss |D - x0|^2 / 2: a positive number or a function
                of sigma; None: the parameterisation's plain loss (omega_F = 1, sigma^2 for "score_weighted").

        Returns:
            (L,), > 0.

        Raises:
            ValueError: sigma or the weight is not positive and finite, or of the wrong shape.

        >>> Parameterization("eps").output_weight([2.0], weight=1.0)
        array([4.])
        """
        levels = vector(sigma, "sigma", positive=True)
        if weight is None:
            return self._row(levels)[3]
        return evaluate_weight(weight, levels, "weight") * self._row(levels)[1] ** 2

    def rate_factor(self, sigma: Any, weight: float | Weight | None = None) -> Array:
        """Effective learning rate of the denoiser's weights per unit learning rate: omega_F c_in^2.

        Args, returns and errors as in `output_weight`; inverse squared data units for a normalised input.

        >>> Parameterization("v").rate_factor([2.0])
        array([0.2])
        """
        levels = vector(sigma, "sigma", positive=True)
        return self.output_weight(levels, weight) * self._row(levels)[2] ** 2

    def _row(self, sigma: Any) -> tuple[Array, Array, Array, Array]:
        levels = vector(sigma, "sigma", positive=True)
        row = PARAMETERIZATIONS[self.name](levels, self.sigma_data)
        skip, out, inner, weight = (np.broadcast_to(x, levels.shape).astype(float) for x in row)
        return skip, out, inner, weight


def _edm(s: Array, data: float) -> tuple[Any, ...]:
    total = np.hypot(s, data)
    return data**2 / total**2, s * data / total, 1 / total, 1.0


# c_skip, c_out, c_in, omega_F of the plain loss: the table of docs/theory.md section 5
PARAMETERIZATIONS: dict[str, Callable[[Array, float], tuple[Any, ...]]] = {
    "x0": lambda s, data: (0.0, 1.0, 1.0, 1.0),
    "eps": lambda s, data: (1.0, -s, 1.0, 1.0),
    "eps_vp": lambda s, data: (1.0, -s, 1 / np.hypot(1, s), 1.0),
    "v": lambda s, data: (1 / (1 + s**2), -s / np.hypot(1, s), 1 / np.hypot(1, s), 1.0),
    "flow": lambda s, data: (1 / (1 + s), -s / (1 + s), 1 / (1 + s), 1.0),
    "score": lambda s, data: (1.0, s**2, 1.0, 1.0),
    "score_weighted": lambda s, data: (1.0, s**2, 1.0, s**2),
    "edm": _edm,
}


@dataclass(frozen=True, eq=False)
class TabulatedWeight:
    """A loss weight known at some noise levels, a power law of sigma between two neighbours.

    Outside the table the power law of the nearest two entries goes on. A function of sigma becomes one of
    these when it is saved.

    Fields:
        sigma: (L,), strictly ascending, > 0.
        value: (L,), > 0.

    Raises:
        ValueError: different lengths, unsorted or non-positive values.

    >>> TabulatedWeight([0.1, 10.0], [100.0, 0.01])(np.array([1.0])).round(12)
    array([1.])
    """

    sigma: Array
    value: Array

    def __post_init__(self) -> None:
        sigma = vector(self.sigma, "TabulatedWeight.sigma", positive=True, ascending=True)
        value = vector(self.value, "TabulatedWeight.value", positive=True, length=sigma.size)
        object.__setattr__(self, "sigma", sigma)
        object.__setattr__(self, "value", value)

    def __call__(self, sigma: Any) -> Array:
        x = np.log(vector(sigma, "sigma", positive=True))
        if self.sigma.size == 1:
            return np.full(x.shape, self.value[0])
        knots, logs = np.log(self.sigma), np.log(self.value)
        left = np.clip(np.searchsorted(knots, x) - 1, 0, knots.size - 2)
        slope = np.diff(logs)[left] / np.diff(knots)[left]
        return np.asarray(np.exp(logs[left] + slope * (x - knots[left])))


def evaluate_weight(weight: float | Weight, sigma: Array, name: str) -> Array:
    """Values of a number or of a function of sigma at the levels, (L,), checked to be positive and finite.

    >>> evaluate_weight(lambda s: 1 / s**2, np.array([0.5, 2.0]), "weight")
    array([4.  , 0.25])
    """
    if not callable(weight):
        return np.full(sigma.shape, number(weight, name, positive=True))
    value = np.asarray(weight(sigma))
    return vector(value if value.ndim else np.full(sigma.shape, value), name, length=sigma.size, positive=True)


TARGETS = ("eps", "x0", "v", "flow", "edm")


_OTHER_NAMES = {"u": "flow", "F": "edm"}


def target_name(target: Any, what: str) -> str:
    """One of `TARGETS`; "u" and "F" are other names of "flow" and "edm".

    >>> target_name("u", "target")
    'flow'
    """
    return choice(_OTHER_NAMES.get(target, target) if isinstance(target, str) else target, what, TARGETS)


def amplitudes(sigma: Any, target: str, process: Process | None = None) -> tuple[Array, Array]:
    """(L,) alpha and sigma_t of x = alpha x0 + sigma_t eps at noise levels sigma = sigma_t / alpha.

    Args:
        sigma: (L,) noise levels, > 0.
        target: decides the schedule where no process is given, the one it was made for: variance preserving for
            "v", the straight path alpha = 1 - t, sigma_t = t for "flow", alpha = 1 for the rest.
        process: the schedule in use; it must reach these levels.

    >>> [part.round(6).tolist() for part in amplitudes([1.0], "flow")]
    [[0.5], [0.5]]
    """
    levels = vector(sigma, "sigma", positive=True)
    name = target_name(target, "target")
    if process is not None:
        alpha = np.asarray(process.scale(process.time(levels)))
    elif name == "v":
        alpha = 1 / np.hypot(1.0, levels)
    elif name == "flow":
        alpha = 1 / (1 + levels)
    else:
        alpha = np.ones_like(levels)
    return alpha, alpha * levels


def target_coefficients(target: str, alpha: Array, noise: Array, *, sigma_data: float = 0.5) -> tuple[Array, Array]:
    """(L,) c_x and c_eps of the target y = c_x x0 + c_eps eps under x = alpha x0 + noise eps.

    eps: (0, 1); x0: (1, 0); v = alpha eps - noise x0; flow u = eps - x0; EDM's F = (x0 - c_skip (x0 + sigma eps)) /
    c_out with sigma = noise / alpha (ERD, arXiv:2605.10790, section 2.1; Karras et al. 2022, table 1).

    >>> [part.tolist() for part in target_coefficients("v", np.array([0.6]), np.array([0.8]))]
    [[-0.8], [0.6]]
    """
    name = target_name(target, "target")
    one, zero = np.ones_like(alpha), np.zeros_like(alpha)
    if name == "edm":
        s, sigma = number(sigma_data, "sigma_data", positive=True), noise / alpha
        total = np.hypot(sigma, s)
        return sigma / (s * total), -s / total
    return {"eps": (zero, one), "x0": (one, zero), "v": (-noise, alpha), "flow": (-one, one)}[name]


def target_gain(target: str, sigma: Any, process: Process | None = None, *, sigma_data: float = 0.5) -> Array:
    """(L,) error in the target per unit error of the denoiser, signed: (c_x sigma_t - c_eps alpha) / sigma_t.

    Args:
        target: one of `TARGETS`.
        sigma: (L,) noise levels, > 0.
        process: schedule; that of the target unless given (see `amplitudes`).
        sigma_data: of "edm".

    >>> target_gain("eps", [0.5]).tolist(), target_gain("v", [1.0]).round(6).tolist()
    ([-2.0], [-1.414214])
    """
    alpha, noise = amplitudes(sigma, target, process)
    c_x, c_eps = target_coefficients(target, alpha, noise, sigma_data=sigma_data)
    return np.asarray((c_x * noise - c_eps * alpha) / noise)
