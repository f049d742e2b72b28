"""Network parameterisations D = c_skip x + c_out F(c_in x): what a network predicts, and what that does to its noise.

A network predicts y = c_x x0 + c_eps eps of x_t = alpha x0 + sigma_t eps. Any estimate of x0 is one of y through
eps = (x_t - alpha x0) / sigma_t, and an error of x0 is an error (c_x sigma_t - c_eps alpha) / sigma_t times as large
of y: 1 / c_out. Targets and parameterisations are two views of one table.

What averaged training learns does not depend on the parameterisation; the floor of a constant step does, only
through the change of rate tau -> tau omega_F c_in^2 (docs/theory.md section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, noise_level, noise_levels, number, takes, vector
from ..basics.user_code import answer
from .process import Process

__all__ = [
    "PARAMETERIZATIONS",
    "TARGETS",
    "Form",
    "Parameterization",
    "TabulatedWeight",
    "amplitudes",
    "evaluate_weight",
    "target_coefficients",
    "target_gain",
    "target_name",
    "unchecked_skip",
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
        value = noise_level(self.sigma_data, "Parameterization.sigma_data")
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
        levels = noise_levels(sigma, "sigma")
        if weight is None:
            return self._row(levels)[3]
        return evaluate_weight(weight, levels, "weight") * self._row(levels)[1] ** 2

    def rate_factor(self, sigma: Any, weight: float | Weight | None = None) -> Array:
        """Effective learning rate of the denoiser's weights per unit learning rate: omega_F c_in^2.

        Args, returns and errors as in `output_weight`; inverse squared data units for a normalised input.

        >>> Parameterization("v").rate_factor([2.0])
        array([0.2])
        """
        levels = noise_levels(sigma, "sigma")
        return self.output_weight(levels, weight) * self._row(levels)[2] ** 2

    def _row(self, sigma: Any) -> tuple[Array, Array, Array, Array]:
        levels = noise_levels(sigma, "sigma")
        form = PARAMETERIZATIONS[self.name]
        alpha = form.scale(levels)
        noise = alpha * levels
        c_x, c_eps = _COEFFICIENTS[form.target](alpha, noise, self.sigma_data)
        share = _share(c_x, c_eps, alpha, noise)
        skip, out = 0.0 - c_eps * alpha / share, noise / share  # x0 out of y and x = x_t / alpha
        return skip, out, form.input(levels, self.sigma_data), form.weight(levels)


def unchecked_skip(name: str, sigma_data: float, levels: Array) -> Array:
    """`Parameterization(name, sigma_data).c_skip` of checked arguments, for descents, which ask often.

    >>> unchecked_skip("flow", 0.5, np.array([1.0]))
    array([0.5])
    """
    form = PARAMETERIZATIONS[name]
    if form.skip is not None:
        return np.full(levels.shape, form.skip)
    alpha = form.scale(levels)
    noise = alpha * levels
    c_x, c_eps = _COEFFICIENTS[form.target](alpha, noise, sigma_data)
    return np.asarray(0.0 - c_eps * alpha / _share(c_x, c_eps, alpha, noise))


def _unscaled(sigma: Array) -> Array:
    """alpha of the rescaled state, x0 + sigma eps."""
    return np.ones_like(sigma)


def _preserving(sigma: Array) -> Array:
    """alpha of the variance-preserving state, alpha^2 + sigma_t^2 = 1."""
    return np.asarray(1 / np.hypot(1.0, sigma))


def _straight(sigma: Array) -> Array:
    """alpha of the straight path, alpha + sigma_t = 1."""
    return np.asarray(1 / (1 + sigma))


@dataclass(frozen=True)
class Form:
    """What a network predicts and from which input: functions of sigma (and of sigma_data).

    Fields:
        target: y, a key of the coefficients below.
        scale: alpha of the state that the target is defined on.
        input: c_in.
        weight: omega_F of the plain loss.
        skip: c_skip where it is the same at every level; None where it is not.
    """

    target: str
    scale: Callable[[Array], Array]
    input: Callable[[Array, float], Array]
    weight: Callable[[Array], Array] = np.ones_like
    skip: float | None = None


def _fed(
    target: str,
    scale: Callable[[Array], Array],
    weight: Callable[[Array], Array] = np.ones_like,
    skip: float | None = None,
) -> Form:
    """A network that is fed with the very state that its target is defined on."""
    return Form(target, scale, lambda sigma, data: scale(sigma), weight, skip)


# the table of docs/theory.md section 5; c_skip and c_out follow from target and scale
PARAMETERIZATIONS: dict[str, Form] = {
    "x0": _fed("x0", _unscaled, skip=0.0),
    "eps": _fed("eps", _unscaled, skip=1.0),
    "eps_vp": _fed("eps", _preserving),
    "v": _fed("v", _preserving),
    "flow": _fed("flow", _straight),
    "score": _fed("score", _unscaled),
    "score_weighted": _fed("score", _unscaled, np.square),
    "edm": Form("edm", _unscaled, lambda sigma, data: np.asarray(1 / np.hypot(sigma, data))),
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
        x = np.log(noise_levels(sigma, "sigma"))
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
    return vector(answer(weight, sigma, name), name, length=sigma.size, positive=True)


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
    levels = noise_levels(sigma, "sigma")
    name = target_name(target, "target")
    if process is not None:
        alpha = np.asarray(process.scale(process.time(levels)))
    else:
        alpha = PARAMETERIZATIONS[name].scale(levels)
    return alpha, alpha * levels


def target_coefficients(target: str, alpha: Array, noise: Array, *, sigma_data: float = 0.5) -> tuple[Array, Array]:
    """(L,) c_x and c_eps of the target y = c_x x0 + c_eps eps under x = alpha x0 + noise eps.

    eps: (0, 1); x0: (1, 0); v = alpha eps - noise x0; flow u = eps - x0; EDM's F = (x0 - c_skip (x0 + sigma eps)) /
    c_out with sigma = noise / alpha (ERD, arXiv:2605.10790, section 2.1; Karras et al. 2022, table 1).

    >>> [part.tolist() for part in target_coefficients("v", np.array([0.6]), np.array([0.8]))]
    [[-0.8], [0.6]]
    """
    data = noise_level(sigma_data, "sigma_data")
    alpha = vector(alpha, "alpha", nonnegative=True)
    noise = vector(noise, "noise", length=alpha.size, nonnegative=True)
    name = target_name(target, "target")
    if name == "edm" and not np.all(alpha + noise > 0):
        raise ValueError("alpha and noise are both 0; such a state says nothing of the data.")
    with np.errstate(over="ignore"):
        found = _COEFFICIENTS[name](alpha, noise, data)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} has coefficients that no float holds at alpha and noise of such sizes.")
    return found


def _edm_coefficients(alpha: Array, noise: Array, data: float) -> tuple[Array, Array]:
    total = np.hypot(noise, data * alpha)  # c_out without a quotient by alpha, which is 0 at pure noise
    return noise / (data * total), -data * alpha / total


# c_x and c_eps from alpha, sigma_t and sigma_data; the score is that of the state's law given x0
_COEFFICIENTS: dict[str, Callable[[Array, Array, float], tuple[Array, Array]]] = {
    "eps": lambda alpha, noise, data: (np.zeros_like(alpha), np.ones_like(alpha)),
    "x0": lambda alpha, noise, data: (np.ones_like(alpha), np.zeros_like(alpha)),
    "v": lambda alpha, noise, data: (-noise, alpha),
    "flow": lambda alpha, noise, data: (-np.ones_like(alpha), np.ones_like(alpha)),
    "score": lambda alpha, noise, data: (np.zeros_like(alpha), -1 / noise),
    "edm": _edm_coefficients,
}


def _share(c_x: Array, c_eps: Array, alpha: Array, noise: Array) -> Array:
    """c_x sigma_t - c_eps alpha: y sigma_t = this x0 + c_eps x_t."""
    with np.errstate(over="ignore"):  # at noise levels whose squares no float holds
        return c_x * noise - c_eps * alpha


@takes(process=Process)
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
    return np.asarray(_share(c_x, c_eps, alpha, noise) / noise)
