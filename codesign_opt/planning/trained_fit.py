"""Grids where training is planned with them: with the best examples in closed form, or settled in turn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..basics.causes import BIAS
from ..basics.checks import Array
from ..ingredients.levels import Levels
from .examples_cost import BestExamples, ExamplesCost
from .grid_fit import ALIKE, DESCENDED, ONE_BY_ONE, GridFit, Paths, SearchedGrid, least_of
from .grid_starts import FEW
from .node_moves import between, extended, resized
from .question import Study
from .settling import Settled, settle

__all__ = ["BestExamplesFit", "SettledFit", "TrainedFit", "closed"]

_ENOUGH = 1e-6  # training hides what the last moves win
_ADDED = 6  # nodes that are added or taken away one by one
_MOVED_TIMES = 2  # that a node changes its place
_FIRST, _ON, _ON_SOON, _SHORT = 5, 12, 7, 8  # moves of every start, of those that go on, and of more than so many steps
_MOVES, _REFINING, _LAST_MOVES = 25, 20, 100
_LOOKING, _AS_MUCH_AGAIN = 6, 3.0  # moves of refining, after which the rest may win so many times what they won
_TURNS, _MORE_TURNS, _LAST_TURNS = (1, 1e-2), (3, 2e-3), (12, 1e-7)  # of settling and descending; until they win less
_SHARES = (1.0, 0.3, 0.1)  # of the way of a descent, until it is better with the best examples
_LIKELY = 1.5  # of few steps, some win a third by many moves
_FAR = 100.0  # times what is hopeless after a few moves: not even these
_NEAR, _NEAR_FEW = 1.02, 1.3  # examples are settled for grids so near to the best


def closed(study: Study, levels: Levels) -> bool:
    """Whether the best examples of a grid have a closed form: constant prices, and nothing but a budget."""
    prices = study.prices
    if (
        not study.trains
        or study.constraints
        or study.run is not None
        or study.model.coupling.pooling(levels) is not None
    ):
        return False
    return prices is not None and not callable(prices.example) and not callable(prices.evaluation)


class Effort(NamedTuple):
    """Starts that descend, those of them that go on after a few moves, and the moves of these."""

    starts: int
    kept: int
    on: int


@dataclass(frozen=True, eq=False)
class TrainedFit(GridFit):
    """Finds the best grid of one number of steps beside training, and the examples for it."""

    # what the kinds of questions differ in

    @abstractmethod
    def effort(self, steps: int) -> Effort:
        """How much is done for one number of steps."""

    @abstractmethod
    def refined(self, found: SearchedGrid, least: float) -> SearchedGrid | None:
        """The grid after many more moves, if these may leave less than the least of all; None where no examples fit."""

    @property
    def likely(self) -> float:
        """Times the best of few steps, up to which every number of them is refined; 1 where that takes programs."""
        return 1.0

    def near(self, found: SearchedGrid, steps: int) -> list[Array]:
        """Starts of so many steps from a grid of another number: of its density, and with its nodes where they are."""
        starts = [resized(found.sigmas, steps)]
        if steps == found.steps + 1 and self.starts.stops is not None:
            starts += extended(found.sigmas, self.starts.stops[0])
        if abs(steps - found.steps) <= self.added and max(steps, found.steps) <= ONE_BY_ONE:
            starts.append(self.with_nodes(found, steps, self.cost(found.sigmas)))
        return starts

    def rearranged(self, found: SearchedGrid) -> SearchedGrid:
        """The grid, or a better one that nodes of it elsewhere lead to."""
        return found

    def settled(self, found: SearchedGrid, known: Sequence[Settled]) -> SearchedGrid | None:
        """The grid with its examples worked out, where that is needed; None where none fit."""
        return found

    def finished(self, found: SearchedGrid) -> SearchedGrid | None:
        """The grid as it is handed out."""
        return found

    # one number of steps

    def best(
        self,
        steps: int,
        near: list[Array],
        *,
        alone: bool,
        known: Iterable[SearchedGrid],
        hopeless: float = np.inf,
    ) -> SearchedGrid | None:
        """The best descended grid of so many steps; None where nothing is left for training.

        Args:
            steps: K.
            near: grids of so many steps that are known to be good.
            alone: start from these alone, where there are any that are admitted.
            known: grids of other numbers of steps, whose examples say what those of this one leave.
            hopeless: where a few moves leave more than this, no more are made.
        """
        settled = [found.settled for found in known if found.settled is not None]
        near = [grid for grid in near if self.starts.admits(grid)]
        usual = [] if alone and near else self.starts.of(steps)
        first = [*near, *usual]
        if not first or not self.starts.money(first[0]) > 0:
            return None
        cost = self.cost(first[0], settled)
        if cost is None:
            return None
        effort = self.effort(steps)
        told, others = self.scored(near, cost), sorted(self.scored(usual, cost), key=lambda f: f.total)
        if steps > DESCENDED:
            return self.settled(least_of([*told, *others]), settled)
        begun = [*told, *others[: effort.starts - 1]]  # what is near goes on, however many are better
        if (start := least_of(begun)).total > _FAR * hopeless:
            return start
        path = Paths(self, begun, cost)
        if len(begun) > 1:  # a few moves show which start leads down
            path.go(_FIRST)
            if path.best.total > hopeless:
                return path.best
            path.keep(effort.kept, ALIKE)
        path.go(_FIRST + effort.on)
        return self.settled(least_of([path.best, *told, *others]), settled)

    def rough(self, steps: int, known: Sequence[Settled] = ()) -> float:
        """What the best of the usual grids leaves before any descent; infinite where nothing is left for training."""
        starts = self.starts.usual(steps)
        if not starts or not self.starts.money(starts[0]) > 0:
            return np.inf
        cost = self.cost(starts[0], known)
        return np.inf if cost is None else least_of(self.scored(starts, cost)).total


class BestExamplesFit(TrainedFit):
    """A grid's own error, and what the best examples for it leave."""

    @property
    def enough(self) -> float:
        return _ENOUGH

    @property
    def likely(self) -> float:
        return _LIKELY

    def moved_times(self, steps: int) -> int:
        return _MOVED_TIMES if steps <= ONE_BY_ONE else 0

    @property
    def added(self) -> int:
        return _ADDED

    def effort(self, steps: int) -> Effort:
        on = _ON if steps <= _SHORT else _ON_SOON
        return Effort(3, 2, on) if steps <= FEW else Effort(2, 1, on)

    def cost(self, sigmas: Array, known: Sequence[Settled] = ()) -> BestExamples:
        return BestExamples(self.starts.study, self.starts.money(sigmas))

    def refined(self, found: SearchedGrid, least: float) -> SearchedGrid:
        if found.steps > DESCENDED:
            return found
        path = Paths(self, [found], self.cost(found.sigmas))
        if found.total - found.bias > least:  # by the examples alone, which moves mend little
            path.go(_LOOKING)
            if path.best.total - least > _AS_MUCH_AGAIN * (found.total - path.best.total):
                return replace(path.best, refined=True)
        path.go(_REFINING)
        return replace(path.best, refined=True)

    def rearranged(self, found: SearchedGrid) -> SearchedGrid:
        if found.steps > (DESCENDED if self.signed else ONE_BY_ONE):
            return found
        return self.with_moved_nodes(found, self.cost(found.sigmas), _MOVES)

    def finished(self, found: SearchedGrid) -> SearchedGrid:
        if found.steps > DESCENDED:
            return found
        return self.descended([found], self.cost(found.sigmas), _LAST_MOVES)[0]


class SettledFit(TrainedFit):
    """A grid's own error, and what examples leave that a program decides: in turn with descents while they are held."""

    @property
    def enough(self) -> float:
        return _ENOUGH

    def effort(self, steps: int) -> Effort:
        return Effort(3, 2, _ON) if steps <= FEW else Effort(2, 2, _ON)

    def cost(self, sigmas: Array, known: Sequence[Settled] = ()) -> ExamplesCost | None:
        if not known:
            known = self._first
        if not known:
            return None
        count = sigmas.size - 1
        nearest = min(known, key=lambda s: (abs(np.log((s.sigmas.size - 1) / count)), s.sigmas.size))
        assert nearest.examples is not None
        paid = nearest.examples.costs["training"]
        return self._held(nearest, self.starts.money(sigmas) / paid) if paid > 0 else None

    @cached_property
    def _first(self) -> list[Settled]:
        """The program's own grid with its examples, for grids that no other examples are known for."""
        first = settle(self.starts.study, self.starts.program_grid(), even=True)
        return [] if first is None else [first]

    def _held(self, settled: Settled, scale: float) -> ExamplesCost:
        """The examples of a settled grid, for other money."""
        return ExamplesCost(self.starts.study, settled.examples, scale)

    def settled(self, found: SearchedGrid, known: Sequence[Settled]) -> SearchedGrid | None:
        least = min((each.total for each in known), default=np.inf)
        if found.total > (_NEAR_FEW if found.steps <= FEW else _NEAR) * least:
            return self._or_known(found)
        return self._or_known(self._in_turn(found, *_TURNS))

    def _or_known(self, found: SearchedGrid | None) -> SearchedGrid | None:
        """The grid, or what is known of as many steps: examples that are held elsewhere do not tell how good it is."""
        if found is None:
            return None
        known = [settle(self.starts.study, grid, even=True) for grid in self.starts.known_of(found.steps)]
        told = [SearchedGrid(s.sigmas, s.handed_out[BIAS], s.total, s) for s in known if s is not None]
        return least_of([found, *told])

    def refined(self, found: SearchedGrid, least: float) -> SearchedGrid | None:
        settled = self._in_turn(found, *_MORE_TURNS)
        return None if settled is None else replace(settled, refined=True)

    def finished(self, found: SearchedGrid) -> SearchedGrid | None:
        return self._in_turn(found, *_LAST_TURNS)

    def _in_turn(self, found: SearchedGrid, turns: int, worth: float) -> SearchedGrid | None:
        """Work out the examples of a grid and descend with them, in turn, while it pays."""
        study = self.starts.study
        settled = found.settled or settle(study, found.sigmas, even=True)
        if settled is None:
            return None
        best = SearchedGrid(found.sigmas, found.bias, settled.total, settled)
        for _ in range(turns if found.steps <= DESCENDED else 0):
            assert best.settled is not None
            cost = self._held(best.settled, 1.0)
            moved = self.descended(self.scored([best.sigmas], cost), cost, _MOVES)[0]
            before = best.total
            for share in _SHARES:  # far from where they are held, examples say little
                trial = self.starts.admissible(best.sigmas, between(best.sigmas, moved.sigmas, share))
                settled = settle(study, trial, even=True)
                if settled is not None and settled.total < before:
                    best = SearchedGrid(trial, settled.handed_out[BIAS], settled.total, settled)
                    break
            if best.total > before * (1 - worth):
                break
        return best
