"""Learning rates along a run, and averages of its weights: what an optimiser's law depends on, update by update."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..basics.checks import AT_ONCE, Array, choice, integer, number, shown

__all__ = ["LearningRate", "WeightAverage", "power_exponent", "power_relative_std"]

_SHAPES = ("constant", "cosine", "inverse_sqrt")
_MOST = 1e60  # of a rate: products with curvatures are floats
_KINDS = ("none", "exponential", "power")
_UNIFORM = float(np.sqrt(1 / 12))  # relative standard deviation of a uniform density on [0, 1]


@dataclass(frozen=True)
class LearningRate:
    """Learning rate of update t = 1 … N: peak x min(t / warmup, 1) x shape.

    "constant": 1. "cosine": (1 + cos(pi (t - 1/2) / N)) / 2, falling to 0 at the end. "inverse_sqrt": 1 / sqrt(max(t /
    reference, 1)), EDM2's (Karras et al. 2024, equation 67). The rise is linear over the first `warmup` updates.

    Args:
        peak: largest learning rate, > 0.
        shape: one of the three.
        warmup: updates of the rise, >= 0.
        reference: updates at the full rate before "inverse_sqrt" falls, > 0; needed there alone.

    Raises:
        ValueError: a field out of its range, an unknown shape.

    >>> LearningRate(0.1, "inverse_sqrt", reference=4).factors(16)[[0, 3, 15]].tolist()
    [1.0, 1.0, 0.5]
    """

    peak: float
    shape: str = "constant"
    warmup: int = 0
    reference: float | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "peak", number(self.peak, "LearningRate.peak", positive=True, maximum=_MOST))
        choice(self.shape, "LearningRate.shape", _SHAPES)
        put(self, "warmup", integer(self.warmup, "LearningRate.warmup", minimum=0))
        if self.shape == "inverse_sqrt":
            if self.reference is None:
                raise ValueError("LearningRate.reference is None; inverse_sqrt needs the updates before it falls.")
            put(self, "reference", number(self.reference, "LearningRate.reference", positive=True))
        elif self.reference is not None:
            raise ValueError(
                f"LearningRate.reference is {shown(self.reference)}, and {self.shape} has none; leave it out."
            )

    def factors(self, updates: int) -> Array:
        """(N,) rate of each update over the peak."""
        updates = integer(updates, "updates", minimum=1, maximum=AT_ONCE)
        t = np.arange(1, updates + 1, dtype=np.float64)
        shape = np.ones(updates)
        if self.shape == "cosine":
            shape = (1 + np.cos(np.pi * (t - 0.5) / updates)) / 2
        elif self.reference is not None:
            shape = 1 / np.sqrt(np.maximum(t / self.reference, 1.0))
        return shape * np.minimum(t / self.warmup, 1.0) if self.warmup else shape

    @property
    def is_constant(self) -> bool:
        return self.shape == "constant" and self.warmup == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the class takes them back by name."""
        return asdict(self)


@dataclass(frozen=True)
class WeightAverage:
    """Average of the weights that is used in the end: none, exponential, or a power of time (EDM2's).

    Update t leaves average <- e_t average + (1 - e_t) weights. "exponential": e = 1 - 1 / length, and the start counts
    with e^N. "power": e_t = (1 - 1/t)^(gamma + 1), so that the weights at time t count like t^gamma; length is their
    standard deviation relative to the run, sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))) (Karras et al. 2024,
    equations 4 and 5), at most that of the plain average of all, 1 / sqrt(12).

    Args:
        kind: "none", "exponential" or "power".
        length: of "exponential" in updates, >= 1; of "power" relative, in (0, 0.28868]; 0 for "none".

    Raises:
        ValueError: a field out of its range, an unknown kind.

    >>> WeightAverage.uniform().decays(4).round(6).tolist()
    [0.0, 0.5, 0.666667, 0.75]
    """

    kind: str = "none"
    length: float = 0.0

    def __post_init__(self) -> None:
        choice(self.kind, "WeightAverage.kind", _KINDS)
        length = number(self.length, "WeightAverage.length", nonnegative=True)
        object.__setattr__(self, "length", length)
        if self.kind == "none" and length != 0:
            raise ValueError(f"WeightAverage.length is {length:g} and kind is 'none'; give the kind of average.")
        if self.kind == "exponential" and length < 1:
            raise ValueError(f"WeightAverage.length is {length:g} updates; an exponential average needs at least 1.")
        if self.kind == "power" and not 0 < length <= _UNIFORM * (1 + 1e-9):
            raise ValueError(
                f"WeightAverage.length is {length:g} of the run; a power average needs (0, {_UNIFORM:.6g}]."
            )

    @classmethod
    def exponential(cls, updates: float) -> WeightAverage:
        """Of decay 1 - 1 / updates."""
        return cls("exponential", updates)

    @classmethod
    def power(cls, relative_std: float) -> WeightAverage:
        """EDM2's, by its standard deviation relative to the run: 0.05 to 0.25 in their figures."""
        return cls("power", relative_std)

    @classmethod
    def uniform(cls) -> WeightAverage:
        """The plain average of all weights (Polyak and Ruppert): the power average of gamma = 0."""
        return cls("power", _UNIFORM)

    def decays(self, updates: int) -> Array:
        """(N,) what is kept of the average at each update; the first of a power average is 0."""
        updates = integer(updates, "updates", minimum=1, maximum=AT_ONCE)
        if self.kind == "none":
            return np.zeros(updates)
        if self.kind == "exponential":
            return np.full(updates, 1 - 1 / self.length)
        t = np.arange(1, updates + 1, dtype=np.float64)
        return np.asarray((1 - 1 / t) ** (power_exponent(self.length) + 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the class takes them back by name."""
        return asdict(self)


def power_exponent(relative_std: float) -> float:
    """Exponent gamma of the power average of a relative standard deviation; 0 for the plain average.

    The root of (gamma + 1) = s^2 (gamma + 2)^2 (gamma + 3), docs/theory.md section 5.9.

    >>> round(power_exponent(0.05), 4)
    16.9722
    """
    inverse = number(relative_std, "relative_std", positive=True) ** -2.0
    root = float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())
    return root if root > 1e-9 else 0.0


def power_relative_std(exponent: float) -> float:
    """Standard deviation, relative to the run, of the density t^gamma on it.

    >>> round(power_relative_std(0.0) ** 2 * 12, 12)
    1.0
    """
    gamma = number(exponent, "exponent", nonnegative=True)
    return float(np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))))
