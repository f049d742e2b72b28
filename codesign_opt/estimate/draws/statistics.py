"""Means with standard errors, accumulated in float64 as sums, so that processes and resumed runs add up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, array, entries, integer, number
from ...basics.fields import holds
from .streams import sum_over_processes

__all__ = ["Estimate", "Moments", "squares"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A measured quantity: value and standard error of the same shape, from `count` independent samples."""

    value: Array
    standard_error: Array
    count: int

    def __post_init__(self) -> None:
        holds(self, value="...", standard_error="...", count=int)
        if np.shape(self.standard_error) != np.shape(self.value):
            raise ValueError(
                f"Estimate.standard_error has shape {np.shape(self.standard_error)}; {np.shape(self.value)}, that of "
                "the value, is needed."
            )

    def interval(self, z: float = 1.96) -> tuple[Array, Array]:
        """value -/+ z standard errors."""
        half = number(z, "Estimate.interval: z", nonnegative=True) * self.standard_error
        return self.value - half, self.value + half

    def __repr__(self) -> str:
        if np.size(self.value) == 1:
            return f"{float(np.ravel(self.value)[0]):.4g} +- {float(np.ravel(self.standard_error)[0]):.2g}"
        return f"Estimate(shape {np.shape(self.value)}, {self.count} samples)"


class Moments:
    """Mean and variance of independent samples of one shape, from their first two sums about a shift.

    The shift is the first sample's batch mean: sums about it lose no digits where the mean is large
    against the spread. Merging re-centres exactly.

    >>> moments = Moments(())
    >>> moments.add(np.array([1.0, 2.0, 3.0]))
    >>> float(moments.mean), float(moments.variance), moments.count
    (2.0, 1.0, 3)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        sizes = entries(shape, "Moments.shape", hint="Give () for numbers.")
        self.shape = tuple(integer(size, "Moments.shape", minimum=0, maximum=AT_ONCE) for size in sizes)
        if (count := math.prod(self.shape)) > AT_ONCE:
            raise ValueError(f"Moments.shape asks for {count:,} numbers; {AT_ONCE:,} are held at most.")
        self.count = 0
        self._mean = np.zeros(self.shape)
        self._squares = np.zeros(self.shape)

    def add(self, samples: ArrayLike) -> None:
        """Add (N, *shape) samples; a tensor on any device or an array."""
        values = array(samples, "Moments.add: samples")
        if values.ndim == 0 or values.shape[1:] != self.shape:
            raise ValueError(f"Moments.add: samples have shape {values.shape}; (N, {self.shape}) is needed.")
        if values.shape[0] == 0:
            return
        with np.errstate(over="ignore"):  # of numbers whose squares no float holds, the variance is infinite
            mean = values.mean(axis=0)
            self._absorb(values.shape[0], mean, ((values - mean) ** 2).sum(axis=0))

    def _absorb(self, count: int, mean: Array, squares: Array) -> None:
        if count == 0:
            return
        total = self.count + count
        shift = mean - self._mean
        self._squares = self._squares + squares + shift**2 * (self.count * count / total)
        self._mean = self._mean + shift * (count / total)
        self.count = total

    @property
    def mean(self) -> Array:
        """Mean of the samples."""
        return self._mean

    @property
    def variance(self) -> Array:
        """Unbiased variance of one sample; infinite for fewer than two."""
        return self._squares / (self.count - 1) if self.count > 1 else np.full(self.shape, np.inf)

    def estimate(self) -> Estimate:
        """The mean with its standard error sqrt(variance / count)."""
        return Estimate(self._mean, np.sqrt(self.variance / max(self.count, 1)), self.count)

    def merged(self, other: Moments) -> Moments:
        """Both sets of samples together."""
        result = Moments(self.shape)
        for part in (self, other):
            result._absorb(part.count, part._mean, part._squares)
        return result

    def reduced(self) -> Moments:
        """The samples of all processes together; itself where there is one process."""
        count = float(sum_over_processes(torch.tensor(float(self.count), dtype=torch.float64)))
        if count == 0:
            return self
        mean = sum_over_processes(torch.as_tensor(self._mean * self.count, dtype=torch.float64)).numpy() / count
        spread = self._squares + self.count * (self._mean - mean) ** 2
        result = Moments(self.shape)
        result.count, result._mean = int(count), mean
        result._squares = sum_over_processes(torch.as_tensor(spread, dtype=torch.float64)).numpy()
        return result

    def state(self) -> dict[str, Array]:
        """Arrays from which `from_state` goes on."""
        return {"count": np.array(float(self.count)), "mean": self._mean, "squares": self._squares}

    @classmethod
    def from_state(cls, state: Mapping[str, Array]) -> Moments:
        """The accumulator that `state` wrote."""
        result = cls(np.shape(state["mean"]))
        result.count = int(state["count"])
        result._mean, result._squares = np.array(state["mean"]), np.array(state["squares"])
        return result


def squares(x: torch.Tensor) -> torch.Tensor:
    """(n,) squared norms of the samples, in float64 on the CPU."""
    return x.detach().to("cpu", torch.float64).flatten(1).square().sum(dim=1)
