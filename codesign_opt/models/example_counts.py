"""How many examples lie between noise levels, however they were stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, number, vector
from ..ingredients.densities import SigmaDensity
from ..ingredients.levels import Levels
from ..ingredients.training_run import TrainingRun

__all__ = ["ExampleCounts"]

_CELLS = 2_000  # of a density, in log sigma
_TAIL = 1e-7  # of its examples left out on either side


@dataclass(frozen=True, eq=False)
class ExampleCounts:
    """Examples below each of some noise levels, spread evenly over log sigma between them.

    Args:
        logs: (N,) ascending log sigma.
        below: (N,) examples below each.

    >>> counts = ExampleCounts.of_levels(Levels(np.array([1.0, 2.0, 8.0])), [10.0, 20.0])
    >>> counts.between(np.log(2.0), np.log(4.0)).round(9).item()
    10.0
    """

    logs: Array
    below: Array

    @classmethod
    def of_levels(cls, levels: Levels, examples: Any) -> ExampleCounts:
        """From (L,) examples on levels."""
        each = vector(examples, "examples", length=len(levels), nonnegative=True)
        return cls(np.log(levels.edges), np.concatenate([[0.0], np.cumsum(each)]))

    @classmethod
    def of_density(cls, density: SigmaDensity, count: Any) -> ExampleCounts:
        """From a density and a number of examples drawn from it."""
        total = number(count, "examples", nonnegative=True)
        low, high = np.log(density.quantile(np.array([_TAIL, 1 - _TAIL])))
        logs = np.linspace(float(low), float(high), _CELLS + 1)
        below = total * density.tails(np.exp(logs))[0]
        return cls(logs, below - below[0])

    @classmethod
    def of_run(cls, run: TrainingRun, low: float, high: float) -> ExampleCounts:
        """From a run already made; of a density without a law of its own, between two noise levels."""
        if isinstance(run.density, SigmaDensity):
            return cls.of_density(run.density, run.examples)
        levels = Levels.log_uniform(low, high, _CELLS // 4)
        return cls.of_levels(levels, run.examples_on(levels))

    @classmethod
    def none(cls) -> ExampleCounts:
        """No examples."""
        return cls(np.array([0.0, 1.0]), np.zeros(2))

    def __add__(self, other: ExampleCounts) -> ExampleCounts:
        logs = np.union1d(self.logs, other.logs)
        return ExampleCounts(logs, self._up_to(logs) + other._up_to(logs))

    def _up_to(self, logs: Any) -> Array:
        return np.interp(logs, self.logs, self.below)

    def between(self, low: Any, high: Any) -> Array:
        """Examples between two values of log sigma, arrays or numbers."""
        return np.asarray(self._up_to(high) - self._up_to(low))

    def on(self, levels: Levels) -> Array:
        """(L,) examples on levels."""
        return np.diff(self._up_to(np.log(levels.edges)))

    @property
    def ends(self) -> tuple[float, float]:
        """log sigma of the lowest and the highest example."""
        held = np.flatnonzero(np.diff(self.below) > 0)
        if not held.size:
            return np.inf, -np.inf
        return float(self.logs[held[0]]), float(self.logs[held[-1] + 1])

    @property
    def total(self) -> float:
        """All examples."""
        return float(self.below[-1])
