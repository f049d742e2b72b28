"""Grids where training is planned with them: with the best examples in closed form, or settled in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from ..basics.causes import BIAS
from ..basics.checks import Array
from ..ingredients.levels import Levels
from .examples_cost import BestExamples, ExamplesCost
from .grid_fit import DESCENDED, Effort, GridFit, SearchedGrid
from .grid_starts import FEW
from .node_moves import between
from .question import Study
from .settling import Settled, settle

__all__ = ["BestExamplesFit", "SettledFit", "closed"]

_ENOUGH = 1e-6  # training hides what the last moves win
_ADDED = 6  # nodes that are added or taken away one by one
_MOVES, _REFINING, _LAST_MOVES = 25, 20, 100
_TURNS, _MORE_TURNS, _LAST_TURNS = (1, 1e-2), (3, 2e-3), (12, 1e-7)  # of settling and descending; until they win less
_SHARES = (1.0, 0.3, 0.1)  # of the way of a descent, until it is better with the best examples
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


class BestExamplesFit(GridFit):
    """A grid's own error, and what the best examples for it leave."""

    @property
    def enough(self) -> float:
        return _ENOUGH

    @property
    def added(self) -> int:
        return _ADDED

    def effort(self, steps: int) -> Effort:
        return Effort(3, 2, 0) if steps <= FEW else Effort(2, 1, 0)

    def cost(self, sigmas: Array, known: Sequence[Settled] = ()) -> BestExamples:
        return BestExamples(self.starts.study, self.starts.money(sigmas))

    def refined(self, found: SearchedGrid) -> SearchedGrid:
        if found.steps > DESCENDED:
            return found
        return replace(self.descended([found], self.cost(found.sigmas), _REFINING)[0], refined=True)

    def rearranged(self, found: SearchedGrid) -> SearchedGrid:
        return found if found.steps > DESCENDED else self.with_moved_nodes(found, self.cost(found.sigmas), _MOVES)

    def finished(self, found: SearchedGrid) -> SearchedGrid:
        if found.steps > DESCENDED:
            return found
        return self.descended([found], self.cost(found.sigmas), _LAST_MOVES)[0]


class SettledFit(GridFit):
    """A grid's own error, and what examples leave that a program decides: in turn with descents while they are held."""

    @property
    def enough(self) -> float:
        return _ENOUGH

    def effort(self, steps: int) -> Effort:
        return Effort(3, 2, 0) if steps <= FEW else Effort(2, 2, 0)

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
        assert settled.examples is not None
        money = settled.examples.costs["training"]
        return ExamplesCost(self.starts.study, settled.examples, scale, settled.reducible / (money * scale**2))

    def settled(self, found: SearchedGrid, known: Sequence[Settled]) -> SearchedGrid | None:
        least = min((each.total for each in known), default=np.inf)
        if found.total > (_NEAR_FEW if found.steps <= FEW else _NEAR) * least:
            return found
        return self._in_turn(found, *_TURNS)

    def refined(self, found: SearchedGrid) -> SearchedGrid | None:
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
