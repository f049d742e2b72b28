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

__all__ = ["PARAMETERIZATIONS", "Parameterization", "TabulatedWeight", "evaluate_weight"]

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
