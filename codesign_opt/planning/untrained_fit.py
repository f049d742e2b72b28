"""Grids where nothing is trained: long descents, since no examples hide what their last moves win."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..basics.checks import Array
from ..ingredients.grids import log_snr_grid
from .examples_cost import ExamplesCost
from .grid_fit import Examples, GridFit
from .run_examples import RunExamples, RunMass
from .settling import Settled

__all__ = ["UntrainedFit"]

_ENOUGH = 1e-8
_SOME, _SCREENED = 48, 16  # random grids that descend, and those of the rest that leave least at once
_SHORT = 8  # of more steps fewer of both, as each costs more
_LEVELS = 100  # on which a floor shows
_ADDED = 12  # nodes that are added or taken away one by one


class UntrainedFit(GridFit):
    """A grid's own error alone, and what is trained already: its floor, and what a run that is given leaves."""

    @property
    def enough(self) -> float:
        return _ENOUGH

    @property
    def added(self) -> int:
        return _ADDED

    def cost(self, sigmas: Array, known: Sequence[Settled] = ()) -> Examples | None:
        if self.starts.study.taught:
            return self._run
        return ExamplesCost(self.starts.study) if self._floors else None

    @cached_property
    def _floors(self) -> bool:
        """Whether training has a floor at any noise level."""
        starts = self.starts
        low = starts.plan.stopping_sigma if starts.stops is None else starts.stops[0]
        grid = log_snr_grid(_LEVELS, low, starts.top, terminal=starts.plan.terminal)
        return bool(starts.study.model.node_errors(grid).floor.any())

    @cached_property
    def _run(self) -> RunExamples:
        """What the run leaves, wherever grids may reach."""
        starts = self.starts
        low = min(starts.study.model.process.sigma_min, *(starts.stops or (starts.plan.stopping_sigma,)))
        return RunExamples(starts.study, 0.0, RunMass.of(starts.study, 0.5 * low, starts.top))

    def scattered(self, steps: int) -> list[Array]:
        """Some of many random grids, and the best of the rest: narrow valleys show in descents, wide ones at once."""
        if not self.signed:
            return []
        grids = self.starts.scattered(steps)
        count, best = (many * _SHORT // max(steps, _SHORT) for many in (_SOME, _SCREENED))
        some, rest = grids[:count], grids[count:]
        left = self.totals(rest, self._run if self.starts.study.taught else None)
        return [*some, *rest[np.argsort(left, kind="stable")[:best]]]
