"""Grids of one number of whole steps and their descents, by the exact error of the model (docs/theory.md section 7.8).

Several starts descend together, the stopping point with the nodes. What the examples leave is followed along as a
function of the stopping point and of the money that is left, so that steps, stop and training are weighed together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..basics.checks import Array
from ..models.grid_descent import Cost, Descent, Descents
from .examples_cost import BestExamples, ExamplesCost, along
from .grid_starts import FEW, GridStarts
from .node_moves import moved_nodes, with_steps
from .settling import Settled

__all__ = [
    "ALIKE",
    "DESCENDED",
    "FIRST_MOVES",
    "ONE_BY_ONE",
    "ROUNDING",
    "Examples",
    "GridFit",
    "Paths",
    "SearchedGrid",
]

ROUNDING = 1e-12  # of the data's variance: relative errors of 1e-6, what float32 leaves after some tens of steps
DESCENDED = 400  # steps from which on a grid takes the shape of one of so many
ONE_BY_ONE = 48  # steps up to which nodes are placed one by one: of longer grids one is as good anywhere
_REACH = np.log(6.0)  # the stopping point may move so far from where its training was last worked out
FIRST_MOVES = 6  # of every start
_MOVES, _LAST_MOVES = 25, 100  # from nodes elsewhere, and of the best grid
_LAST_WORK, _MOVED_WORK, _LAST_TIMES = 4_000, 1_000, 400  # steps times these, as long grids take longer for each
_REARRANGED, _WON = 12, 1e-3  # times that a node changes its place, until it wins less
ALIKE = 10.0  # as much worse a start that goes on may be after few moves
_WEIGHED = 2**17  # nodes times bands of grids whose examples are bought together

Examples = BestExamples | ExamplesCost


@dataclass(frozen=True, eq=False)
class SearchedGrid:
    """A grid, its exact bias, and the whole error with the best examples for it.

    Args:
        sigmas: (K+1,) grid.
        bias: its exact error with a perfect denoiser.
        total: with what the examples leave, as settled where they are and else as expected.
        settled: the grid with its examples; None while they are not worked out.
        refined: whether many moves were made from it.
    """

    sigmas: Array
    bias: float
    total: float
    settled: Settled | None = None
    refined: bool = False

    @property
    def steps(self) -> int:
        """K."""
        return self.sigmas.size - 1


def least_of(found: Iterable[SearchedGrid]) -> SearchedGrid:
    """The grid that leaves least."""
    return min(found, key=lambda each: each.total)


@dataclass(frozen=True, eq=False)
class GridFit(ABC):
    """Descends grids of one number of steps.

    Args:
        starts: grids to start from; the question's model knows the exact error and its residuals, and there are no
            user's terms.
    """

    starts: GridStarts

    # what the kinds of questions differ in

    @property
    @abstractmethod
    def enough(self) -> float:
        """Relative decrease below which two moves in a row end a descent."""

    @property
    def added(self) -> int:
        """Nodes that are added or taken away one by one; 0 where grids of another number are not started from so."""
        return 0

    @abstractmethod
    def cost(self, sigmas: Array, known: Sequence[Settled] = ()) -> Examples | None:
        """What grids of as many steps leave besides their own errors; None for nothing.

        Args:
            sigmas: one of them.
            known: examples of other numbers of steps, where the best ones have no closed form.
        """

    @property
    def rounding(self) -> float:
        """Squared errors that are not told apart."""
        return ROUNDING * self.starts.study.model.spectrum.trace

    @property
    def signed(self) -> bool:
        """Whether errors of the sampler's steps may cancel."""
        return self.starts.study.model.sampler.signed

    def may_vanish(self, steps: int) -> bool:
        """Whether so few steps may leave nothing: as many as bands, whose errors may cancel with what stopping leaves,
        for any sampler."""
        return len(self.starts.study.model.spectrum) <= steps <= FEW

    def scored(self, grids: Sequence[Array], cost: Examples | None) -> list[SearchedGrid]:
        """Grids of as many steps with what they leave."""
        if not len(grids):
            return []
        rows = zip(grids, *self._left(np.array(grids), cost), strict=True)
        return [SearchedGrid(grid, float(bias), float(total)) for grid, bias, total in rows]

    def totals(self, grids: Array, cost: Examples | None) -> Array:
        """(G,) what grids (G, K+1) leave."""
        return self._left(grids, cost)[1] if len(grids) else np.zeros(0)

    def _left(self, grids: Array, cost: Examples | None) -> tuple[Array, Array]:
        """(G,) errors of grids alone, and with what the examples leave."""
        model, found = self.starts.study.model, []
        if cost is None:
            biases, _ = model.exact_values(grids)
            return biases, biases
        rows = max(1, _WEIGHED // (grids.shape[1] * len(model.spectrum)))
        for i in range(0, len(grids), rows):
            some = grids[i : i + rows]
            biases, sensitivity = model.exact_values(some, sensitive=True)
            found.append((biases, biases + cost.value(some, sensitivity)))
        biases, totals = (np.concatenate(part) for part in zip(*found, strict=True))
        return biases, totals

    def descended(self, starts: Sequence[SearchedGrid], cost: Examples | None, moves: int) -> list[SearchedGrid]:
        """Each of the grids after a descent, with what the examples leave."""
        path = Paths(self, starts, cost)
        path.go(moves)
        return path.found

    def with_nodes(self, found: SearchedGrid, steps: int, cost: Examples | None) -> Array:
        """The grid with nodes added or taken away one by one, each where it then leaves least."""
        return with_steps(found.sigmas, steps, lambda grids: self.totals(grids, cost))

    def with_moved_nodes(
        self, found: SearchedGrid, cost: Examples | None, moves: int, times: int = _REARRANGED
    ) -> SearchedGrid:
        """The grid after nodes were taken away and added elsewhere, so many times while a descent from there wins."""
        best = found
        for _ in range(times):
            moved = moved_nodes(best.sigmas, lambda grids: self.totals(grids, cost))
            starts = self.scored([grid for grid in moved if self.starts.admits(grid)], cost)
            if not starts:
                return best
            path = Paths(self, starts, cost)
            if cost is not None:
                path.go(3)
                path.keep(1)
                if path.best.total > 1.02 * best.total:
                    return best
            path.go(FIRST_MOVES)
            path.keep(1)
            path.go(FIRST_MOVES + moves)
            before, best = best, least_of([best, path.best])
            if best.total > before.total * (1 - _WON):
                return best
        return best

    def scattered(self, steps: int) -> list[Array]:
        """Random grids that are starts, too: none beside training, which hides the narrow valleys they would find."""
        return []

    def exhausted(self, found: SearchedGrid) -> SearchedGrid:
        """The grid after long descents and with nodes of it elsewhere: few moves do not tell which leads on."""
        if found.steps > DESCENDED:
            return found
        cost = self.cost(found.sigmas)
        moves = min(_LAST_MOVES, _LAST_WORK // found.steps)
        there, times = min(_MOVES, _MOVED_WORK // found.steps), self.moved_times(found.steps)
        moved = self.with_moved_nodes(found, cost, there, times)
        return self.descended([moved], cost, moves)[0]

    def moved_times(self, steps: int) -> int:
        """How often at most a node of a grid of so many steps changes its place before a last descent."""
        return min(_REARRANGED, _LAST_TIMES // steps)


class Paths:
    """Descents of several grids of as many steps, from which fewer and fewer go on."""

    def __init__(self, fit: GridFit, begun: Sequence[SearchedGrid], cost: Examples | None) -> None:
        self.fit, self.cost, self.found = fit, cost, list(begun)
        self._begun, self._on = list(begun), np.arange(len(begun))
        sigmas = np.array([each.sigmas for each in begun])
        model = fit.starts.study.model
        residuals, errors = model.exact_residuals, partial(model.exact_values, sensitive=cost is not None)
        assert residuals is not None
        how = Descent(errors, residuals, self._held(sigmas), self._stops(sigmas), enough=fit.enough)
        self._descents = Descents(sigmas, how)

    @property
    def best(self) -> SearchedGrid:
        """The best so far."""
        return least_of(self.found)

    def go(self, moves: int) -> None:
        """Up to so many moves of each, those made before counted."""
        self._descents.go(moves, self._on)
        sigmas, starts = list(self._descents.sigmas[self._on]), self.fit.starts
        grids = [starts.admissible(self._begun[k].sigmas, grid) for k, grid in zip(self._on, sigmas, strict=True)]
        known = self._known and all(grid is each for grid, each in zip(grids, sigmas, strict=True))
        scored = self._told(sigmas) if known else self.fit.scored(grids, self.cost)
        for k, found in zip(self._on, scored, strict=True):
            self.found[k] = least_of([self._begun[k], found])

    @property
    def _known(self) -> bool:
        """Whether descents follow the whole error: examples that are held leave more where nodes have moved."""
        return not isinstance(self.cost, ExamplesCost)

    def _told(self, sigmas: list[Array]) -> list[SearchedGrid]:
        """The grids where descents are, which know what these leave."""
        rows = zip(sigmas, self._descents.own[self._on], self._descents.errors[self._on], strict=True)
        return [SearchedGrid(grid, float(own), float(total)) for grid, own, total in rows]

    def keep(self, count: int, alike: float | None = None) -> None:
        """Go on with so many of the best, none worse than the best of all by more than a factor."""
        totals = np.array([each.total for each in self.found])
        self._on = self._on[np.argsort(totals[self._on], kind="stable")[:count]]
        if alike is not None:
            self._on = self._on[totals[self._on] <= alike * totals.min()]

    @property
    def _linear(self) -> bool:
        """Whether the slope of what the examples leave serves all moves: held examples change little for many steps."""
        return isinstance(self.cost, ExamplesCost) and self.found[0].steps > FEW

    def _held(self, sigmas: Array) -> Cost | None:
        if self.cost is None:
            return None
        held = self.cost.held(sigmas)
        return along(held, sigmas) if self._linear else held

    def _stops(self, sigmas: Array) -> tuple[float, float] | None:
        """The range of the stopping point, not far from where the examples were worked out."""
        if self.fit.starts.stops is None:
            return None
        low, high = (float(np.log(stop)) for stop in self.fit.starts.stops)
        known = None if self.cost is None else self.cost.known_at
        return (low, high) if known is None else (max(low, np.log(known) - _REACH), min(high, np.log(known) + _REACH))
