"""Grids where nothing is trained: long descents, since no examples hide what their last moves win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..basics.checks import Array
from .examples_cost import ExamplesCost
from .grid_fit import DESCENDED, Effort, GridFit, SearchedGrid, least_of
from .grid_starts import FEW, stop_of
from .settling import Settled

__all__ = ["UntrainedFit"]

_ENOUGH = 1e-8
_FEW_STEPS, _MANY_STEPS = Effort(8, 8, 300), Effort(2, 2, 0)
_SOME, _SCREENED = 48, 16  # random grids that descend, and those of them that leave least at once
_ADDED = 12  # nodes that are added or taken away one by one
_MOVES, _REFINING = 25, 60
_LAST_MOVES = 400  # of the best grid
_LONG, _SAME = 3, 1e-2  # starts that descend so long; relative difference of errors in one valley
_SINGLE_MOVES = 100  # where errors do not cancel
_LAST_WORK = 20_000  # steps times moves: of many steps a move takes as much longer


class UntrainedFit(GridFit):
    """A grid's own error alone, and the floor of what is trained already."""

    @property
    def enough(self) -> float:
        return _ENOUGH

    @property
    def added(self) -> int:
        return _ADDED

    def effort(self, steps: int) -> Effort:
        return _FEW_STEPS if steps <= FEW else _MANY_STEPS

    def cost(self, sigmas: Array, known: Sequence[Settled] = ()) -> ExamplesCost | None:
        study = self.starts.study
        return ExamplesCost(study) if study.model.node_errors(sigmas).floor.any() else None

    def scattered(self, steps: int) -> list[Array]:
        """Some of many random grids, and the best of the rest: narrow valleys show in descents, wide ones at once."""
        grids = self.starts.scattered(steps) if self.signed else []
        some, rest = grids[:_SOME], self.scored(grids[_SOME:], None)
        return some + [found.sigmas for found in sorted(rest, key=lambda f: f.total)[:_SCREENED]]

    def refined(self, found: SearchedGrid) -> SearchedGrid:
        return replace(self._refined(found), refined=True)

    def _refined(self, found: SearchedGrid) -> SearchedGrid:
        """The best after long descents from the grid and from the usual ones: few moves do not tell which leads on."""
        if found.steps > DESCENDED:
            return found
        cost = self.cost(found.sigmas)
        if not self.signed:  # one valley, nearly: a few moves more find its bottom
            moved = self.with_moved_nodes(found, cost, _MOVES)
            return self.descended([moved], cost, _SINGLE_MOVES)[0]
        moves = min(_LAST_MOVES, _LAST_WORK // found.steps)
        usual = [*self.starts.usual(found.steps), *self.starts.usual(found.steps, stop_of(found.sigmas))[1:]]
        starts = [found, *self.scored(usual, cost)]
        apart = _apart(self.descended(starts, cost, _REFINING))
        best = least_of(self.descended(apart[:_LONG], cost, moves))
        return self.descended([self.with_moved_nodes(best, cost, _MOVES)], cost, moves)[0]


def _apart(tried: Sequence[SearchedGrid]) -> list[SearchedGrid]:
    """Grids in the order of their errors, without those that came to where a better one is."""
    kept: list[SearchedGrid] = []
    for found in sorted(tried, key=lambda f: f.total):
        if not kept or found.total > kept[-1].total * (1 + _SAME):
            kept.append(found)
    return kept
