"""The score-optimal schedule learned while the network trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...basics.checks import Array, choice, integer, matrix, number, vector
from ...models.evidence import VELOCITIES
from .score_optimal import equal_cost_levels

__all__ = ["OnlineSchedule"]


class OnlineSchedule:
    """Levels that move towards equal cost of the corrector as costs are observed (algorithm 2 of 2412.07877).

    In the training loop: draw intervals, evaluate both scores at the noisier point, `observe` their squared
    difference, and call `update` now and then. Costs are v^2 E |score' - score|^2.

    v of the source level is the default and not the paper's v of the receiving level: with that the update has
    spurious fixed points of equal cost with one giant last jump, since v -> 0 makes it cheap
    (docs/theory.md section 11.2). Where all levels can be measured at once, `ScoreOptimal` needs no iteration.

    Args:
        sigmas: (N,) descending noise levels to begin with, data units; the ends stay.
        blend: share of the way to the equal-cost levels that one update goes, in (0, 1]; the paper's gamma, 0.01 to
            0.1 in its code.
        minimum_visits: observations of every interval before an update; 24 in its code.
        burn_in: calls of `observe` at first that are counted and not used: an untrained score draws all levels to the
            noisy end.
        velocity: "source" or "receiving".
        exponent, floor: as for `equal_cost_levels`.

    Raises:
        ValueError: a malformed argument, by name.

    >>> online = OnlineSchedule([4.0, 2.0, 1.0], blend=0.5, minimum_visits=1)
    >>> online.observe([0, 1], [1.0, 1.0])  # lengths sigma |score' - score|: 4 and 2
    >>> online.update(), online.sigmas.round(3).tolist()
    (True, [4.0, 2.25, 1.0])
    """

    def __init__(
        self,
        sigmas: Any,
        *,
        blend: float = 0.05,
        minimum_visits: int = 24,
        burn_in: int = 0,
        velocity: str = "source",
        exponent: float = 2.0,
        floor: float = 1e-12,
    ) -> None:
        self.sigmas: Array = vector(sigmas, "sigmas", minimum_length=3, positive=True, descending=True)
        self.blend = number(blend, "blend", positive=True, maximum=1.0)
        self.minimum_visits = integer(minimum_visits, "minimum_visits", minimum=1)
        self.burn_in = integer(burn_in, "burn_in", minimum=0)
        self.velocity = choice(velocity, "velocity", VELOCITIES)
        self.exponent = number(exponent, "exponent", positive=True)
        self.floor = number(floor, "floor", positive=True, maximum=1.0)
        self.calls = 0
        self.updates = 0
        self._sums = np.zeros((2, self.sigmas.size - 1))  # visits and sums of squared differences

    @property
    def visits(self) -> Array:
        """(N-1,) observations of every interval since the last update."""
        return self._sums[0].copy()

    @property
    def costs(self) -> Array:
        """(N-1,) mean cost of every interval since the last update; nan where there was no observation."""
        v = self.sigmas[:-1] if self.velocity == "source" else self.sigmas[1:]
        visits = self._sums[0]
        return np.where(visits > 0, v**2 * self._sums[1] / np.where(visits > 0, visits, 1.0), np.nan)

    def observe(self, intervals: Any, squared: Any) -> None:
        """Add observations: |score(x, sigma_{i+1}) - score(x, sigma_i)|^2 of draws x of the law at sigma_i.

        Args:
            intervals: (M,) whole numbers i from 0 to N-2, the noisiest interval first.
            squared: (M,) >= 0, 1 / squared data units, summed over dimensions.
        """
        found = vector(squared, "squared", nonnegative=True)
        index = vector(intervals, "intervals", length=found.size, nonnegative=True)
        if np.any(index != np.floor(index)) or index.max() > self.sigmas.size - 2:
            raise ValueError(f"intervals must be whole numbers from 0 to {self.sigmas.size - 2}; {index} given.")
        self.calls += 1
        if self.calls <= self.burn_in:
            return
        np.add.at(self._sums[0], index.astype(np.intp), 1.0)
        np.add.at(self._sums[1], index.astype(np.intp), found)

    def update(self) -> bool:
        """Move towards equal cost where every interval has been visited often enough; whether it did.

        sigma_i <- blend sigma_i* + (1 - blend) sigma_i; observations start anew, as they belong to the old levels.
        """
        if self._sums[0].min() < self.minimum_visits or not np.any(self._sums[1] > 0):
            return False
        wanted = equal_cost_levels(self.sigmas, self.costs, self.sigmas.size, exponent=self.exponent, floor=self.floor)
        moved = self.blend * wanted + (1 - self.blend) * self.sigmas
        moved[0], moved[-1] = self.sigmas[0], self.sigmas[-1]
        moved.setflags(write=False)
        self.sigmas = moved
        self._sums = np.zeros_like(self._sums)
        self.updates += 1
        return True

    def state(self) -> dict[str, Array]:
        """Arrays from which `restore` goes on, for a checkpoint of the training run."""
        return {
            "sigmas": np.array(self.sigmas),
            "sums": self._sums.copy(),
            "counters": np.array([self.calls, self.updates], dtype=np.float64),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` wrote; the settings are those of this object.

        Raises:
            ValueError: a state of another number of levels.
        """
        sigmas = vector(state["sigmas"], "state sigmas", length=self.sigmas.size, positive=True, descending=True)
        sums = matrix(state["sums"], "state sums", shape=self._sums.shape, nonnegative=True)
        counters = vector(state["counters"], "state counters", length=2, nonnegative=True)
        self.sigmas, self._sums = sigmas, np.array(sums)
        self.calls, self.updates = int(counters[0]), int(counters[1])
