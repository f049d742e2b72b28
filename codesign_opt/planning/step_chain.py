"""At most so many whole steps where nothing is trained: a chain through every number (docs/theory.md section 7.8).

Each link is found from fewer steps alone, and the chain to K steps runs through those of every smaller question: so
that what is handed out for at most K steps, the best link, never leaves more than fewer steps would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..basics.checks import Array
from ..ingredients.grids import family_grids
from .grid_fit import ALIKE, DESCENDED, FIRST_MOVES, Examples, Paths, SearchedGrid, least_of
from .grid_search import ladder
from .grid_starts import FEW, stop_of
from .node_moves import between, resized, stretched
from .untrained_fit import UntrainedFit

__all__ = ["EVERY", "StepChain"]

EVERY = 200  # steps up to which every number is a link; beyond, those of the ladder
_OWN = 4  # steps from which on the program's density is a start, at powers of two
_AGAIN = 8  # further moves of a link that leaves no less than those of fewer steps
_MOVED, _TIMES = 8, 3  # moves after a node changed its place, and how often one does
_FAMILIES = 2  # times that a usual grid may take the place of a link
_SHARES = np.linspace(1.0, 0.0, 33)  # of the way of the last descent, where its end leaves less than one step more


class _Moves(NamedTuple):
    """Of all starts, of so many that go on, and of the best of these."""

    first: int
    kept: int
    more: int = 0
    last: int = 0


_FOLLOWED, _FOLLOWED_SIGNED = _Moves(2, 1), _Moves(3, 1)  # of many steps, from the link before
_LONG_RUNG = _Moves(5, 2, 10)
_FEW, _FEW_SIGNED = _Moves(6, 2, 8), _Moves(6, 4, 10, 20)
_RUNG, _RUNG_SIGNED = _Moves(6, 2, 16), _Moves(10, 8, 16, 100)


@dataclass(frozen=True, eq=False)
class StepChain:
    """The best grid of each number of steps, from the fewest on.

    Args:
        fit: descends grids of one number of steps; of a question that trains nothing.
        found: the links so far.
    """

    fit: UntrainedFit
    found: list[SearchedGrid] = field(default_factory=list)

    def up_to(self, most: int) -> list[SearchedGrid]:
        """The links of at most so many steps, the least error first; one that reaches rounding is the last."""
        for steps in self._sizes(most):
            if self.found and least_of(self.found).total <= self.fit.rounding:
                break
            if (link := self._link(steps)) is not None:
                self.found.append(link)
        allowed = [each for each in self.found if each.steps <= most]
        if not allowed:
            return []
        return sorted([*allowed, self._last(least_of(allowed))], key=lambda each: each.total)

    def _sizes(self, most: int) -> Iterator[int]:
        least = self.fit.starts.least
        yield from range(least, min(most + 1, EVERY) + 1)
        if most > EVERY:
            yield from [*[k for k in ladder(least) if EVERY < k < most], most]

    def _link(self, steps: int) -> SearchedGrid | None:
        """The best grid of so many steps from those of fewer; at sizes of the ladder from usual ones, too."""
        starts = self.fit.starts
        rung = steps in ladder(starts.least)
        near = [grid for grid in self._near(steps) if starts.admits(grid)]
        others = self._others(steps) if rung or steps <= FEW or not near else []
        if not near and not others:
            return None
        cost = self.fit.cost((near or others)[0])
        begun = [*self.fit.scored(near, cost), *sorted(self.fit.scored(others, cost), key=lambda f: f.total)]
        if steps > DESCENDED:
            return self._exact(least_of(begun))
        if rung:
            begun += self.fit.scored(self.fit.scattered(steps), cost)
        link = self._descended(begun, cost, self._moves(steps, rung))
        if rung and steps > _OWN:  # where nodes are wasted, longer grids begin with them
            link = self.fit.with_moved_nodes(link, cost, _MOVED, _TIMES)
        return self._exact(self._beside_families(link, cost))

    def _near(self, steps: int) -> list[Array]:
        """Of the density of the link before; of few steps also with one of its steps halved, or of a better link's."""
        if not self.found:
            return []
        before, best = self.found[-1], least_of(self.found)
        sources = [before] if best is before or best.steps < steps - self.fit.added else [before, best]
        grids = [stretched(each.sigmas, steps) for each in sources]
        if steps <= FEW:
            grids.append(resized(before.sigmas, steps))
            grids += [self.fit.with_nodes(each, steps, self.fit.cost(each.sigmas)) for each in sources]
        return grids

    def _others(self, steps: int) -> list[Array]:
        """The usual families and now and then the program's density, that stop where the link before does; of few
        steps also elsewhere."""
        starts = self.fit.starts
        stop = stop_of(self.found[-1].sigmas) if self.found else starts.any_stop
        grids = [*family_grids(steps, stop, starts.top, starts.plan.terminal).values(), *starts.far(steps)]
        if steps >= _OWN and steps & (steps - 1) == 0:
            grids += starts.program(steps, stop)
        return [grid for grid in grids if starts.admits(grid)]

    def _descended(self, begun: list[SearchedGrid], cost: Examples | None, moves: _Moves) -> SearchedGrid:
        path = Paths(self.fit, begun, cost)
        path.go(moves.first)
        if not moves.more and path.best.total >= least_of(self.found).total:  # errors that cancel no longer do
            path.go(moves.first + _AGAIN)
        if moves.more:
            path.keep(moves.kept, ALIKE)
            path.go(moves.first + moves.more)
            path.keep(1)
            path.go(moves.first + moves.more + moves.last)
        return path.best

    def _moves(self, steps: int, rung: bool) -> _Moves:
        signed = self.fit.signed
        if steps <= FEW:
            return (_RUNG_SIGNED if signed else _RUNG) if rung else _FEW_SIGNED if signed else _FEW
        return _LONG_RUNG if rung else _FOLLOWED_SIGNED if signed else _FOLLOWED

    def _last(self, best: SearchedGrid) -> SearchedGrid:
        """The best link after a last, long descent, which ends where it leaves as little as one step more.

        What is handed out for more steps leaves no more than their links, so that it leaves no more than this.
        """
        floor = least_of(self.found).total
        if best.total <= self.fit.rounding or best.steps > DESCENDED:
            return best
        refined = self._exact(self.fit.refined(best))
        if refined.total >= floor:
            return refined
        cost = self.fit.cost(best.sigmas)
        grids = [between(best.sigmas, refined.sigmas, float(share)) for share in _SHARES]
        tried = [self._exact(each) for each in self.fit.scored(grids, cost)]
        return least_of([best, *(each for each in tried if each.total >= floor)])

    def _beside_families(self, link: SearchedGrid, cost: Examples | None) -> SearchedGrid:
        """The link, or a descent from a usual grid over the same range that leaves less."""
        starts = self.fit.starts
        for _ in range(_FAMILIES):
            grids = family_grids(link.steps, stop_of(link.sigmas), starts.top, starts.plan.terminal).values()
            better = least_of([link, *self.fit.scored([grid for grid in grids if starts.admits(grid)], cost)])
            if better is link:
                return link
            link = self.fit.descended([better], cost, FIRST_MOVES)[0]
        return link

    def _exact(self, link: SearchedGrid) -> SearchedGrid:
        """With the error of the whole spectrum, as it is handed out, where descents are of its bands."""
        model = self.fit.starts.study.model
        bias = model.bias(link.sigmas)
        return replace(link, bias=bias, total=link.total - link.bias + bias)
