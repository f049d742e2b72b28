"""At most so many whole steps: a chain through every number of them (docs/theory.md section 7.8).

Each link is found from fewer steps alone, and the chain to K steps runs through those of every smaller question: so
that what is handed out for at most K steps, the best link, never leaves more than fewer steps would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..basics.checks import Array
from ..ingredients.grids import family_grids
from .grid_fit import ALIKE, DESCENDED, FIRST_MOVES, ONE_BY_ONE, Examples, GridFit, Paths, SearchedGrid, least_of
from .grid_search import ladder
from .grid_starts import FEW, stop_of
from .node_moves import between, extended, resized, stretched

__all__ = ["EVERY", "EVERY_PRICED", "StepChain"]

EVERY = 200  # steps up to which every number is a link; beyond, those of the ladder
EVERY_PRICED = 100  # the same where steps take from the training
_OWN = 4  # steps from which on the program's density is a start, at powers of two
_AGAIN = 8  # further moves of a link that leaves no less than those of fewer steps
_OFTEN = 8  # links that take them
_MOVED, _TIMES = 8, 3  # moves after a node changed its place, and how often one does
_FAMILIES = 2  # times that a usual grid may take the place of a link
_BEGUN = 2  # usual grids of more than few steps that descend beside training
_SHARES = np.linspace(1.0, 0.0, 33)  # of the way of the last descent, where its end leaves less than one step more
_TOLD = 8  # fewer steps say nothing of how errors go on
_ENDED, _WOBBLE, _BEYOND = 2, 4, 4  # more steps than the best where examples leave more; all, or this part of them
_CLIMBS, _STEEP, _CLIMBING = 3, 1e-4, 8  # numbers of steps about the best, while they win so much; moves of each


class _Moves(NamedTuple):
    """Of all starts, of so many that go on, and of the best of these."""

    first: int
    kept: int
    more: int = 0
    last: int = 0


_FOLLOWED, _FOLLOWED_SIGNED = _Moves(2, 1), _Moves(3, 1)  # of many steps, from the link before
_LONG_RUNG = _Moves(5, 2, 10)
_FEW, _FEW_SIGNED = _Moves(6, 2, 8), _Moves(6, 4, 10, 6)
_RUNG, _RUNG_SIGNED = _Moves(6, 2, 16), _Moves(10, 8, 12, 8)
_SHORT, _SHORT_SIGNED = 8, _Moves(16, 8, 16, 6)  # up to so many steps random starts lead farther
_ROUGH, _STOPS = (16, 32, 64, 100), 9  # steps and stops of usual grids that say what more steps leave
_HOPELESS = 10.0  # times that, for each order of the sampler: a descent wins less
_EACH = 4  # of many steps beside training every fourth link moves
_TRAINED, _TRAINED_RUNG = _Moves(2, 1), _Moves(4, 2, 6)  # training hides what more of them win
_TRAINED_FEW, _TRAINED_FEW_RUNG = _Moves(4, 2, 6), _Moves(6, 2, 10)


@dataclass(frozen=True, eq=False)
class StepChain:
    """The best grid of each number of steps, from the fewest on.

    Args:
        fit: descends grids of one number of steps; the best examples for them are known at once, if there are any.
        priced: whether steps take from the training, so that more of them leave more in the end.
        found: the links so far.
        again: the numbers of steps of those that took further moves.
    """

    fit: GridFit
    priced: bool = False
    found: list[SearchedGrid] = field(default_factory=list)
    again: list[int] = field(default_factory=list)

    def up_to(self, most: int) -> list[SearchedGrid]:
        """The links of at most so many steps, and what their minima lead to, the least error first."""
        for steps in self._sizes(most):
            if self.ended:
                break
            if self.found and steps <= self.found[-1].steps:
                continue
            if (link := self._link(steps)) is not None:
                self.found.append(link)
        allowed = [each for each in self.found if each.steps <= most]
        if not allowed:
            return []
        grids = [*allowed, *self._about_minima(most)]
        if least_of(grids) is allowed[-1]:
            grids.append(self._last(allowed[-1]))
        return sorted(grids, key=lambda each: each.total)

    @property
    def ended(self) -> bool:
        """Whether longer grids are not worth it: errors that are rounding, or links beyond the best that leave more."""
        if not self.found:
            return False
        best, link = least_of(self.found), self.found[-1]
        if not self.priced:
            return best.total <= self.fit.rounding
        if link.steps < _TOLD or best.total > self._rough:
            return False
        spent = link.total - link.bias > best.total
        return link.steps >= best.steps + (_ENDED if spent else max(_WOBBLE, best.steps // _BEYOND))

    def _sizes(self, most: int) -> Iterator[int]:
        least = self.fit.starts.least
        if self.priced:
            yield from range(least, min(most + 1, EVERY_PRICED) + 1)
            return
        yield from range(least, min(most + 1, EVERY) + 1)
        if most > EVERY:
            yield from [*[k for k in ladder(least) if EVERY < k < most], most]

    def _link(self, steps: int) -> SearchedGrid | None:
        """The best grid of so many steps from those of fewer; at sizes of the ladder from usual ones, too."""
        starts = self.fit.starts
        rung = steps in ladder(starts.least)
        near = [grid for grid in self._near(steps) if starts.admits(grid)]
        others = self._others(steps) if rung or steps <= FEW or not near else []
        if (not near and not others) or not starts.money((near or others)[0]) > 0:
            return None
        cost = self.fit.cost((near or others)[0])
        beside = sorted(self.fit.scored(others, cost), key=lambda f: f.total)
        begun = [*self.fit.scored(near, cost), *beside[: _BEGUN if self._trained and steps > FEW else None]]
        if steps > DESCENDED:
            return self._exact(least_of(begun))
        if rung:
            begun += self.fit.scored(self.fit.scattered(steps), cost)
        start = least_of(begun)
        # no descent makes up for a factor of ten for each order; few steps may be all that is allowed
        hopeless = start.total > _HOPELESS**self._order * self._rough
        if steps > FEW and (hopeless or (self._trained and not rung and steps % _EACH)):
            return self._exact(start)
        link = self._descended(begun, cost, self._moves(steps, rung))
        if rung and (FEW if self.fit.signed else _OWN) < steps <= (FEW if self._trained else ONE_BY_ONE):
            # where nodes are wasted, longer grids begin with them; few that cancel have had random starts
            link = self.fit.with_moved_nodes(link, cost, _MOVED, _TIMES)
        if rung or not self._trained:
            link = self._beside_families(link, cost)
        return self._exact(link)

    @property
    def _trained(self) -> bool:
        return self.fit.starts.study.trains

    @property
    def _order(self) -> int:
        return self.fit.starts.study.model.sampler.order

    @cached_property
    def _rough(self) -> float:
        """What the best usual grid of many steps leaves before any descent; infinite without a price of steps."""
        starts, least = self.fit.starts, np.inf
        for steps in _ROUGH if self.priced else ():
            stops = [starts.any_stop] if starts.stops is None else np.geomspace(*starts.stops, _STOPS)
            families = [family_grids(steps, float(stop), starts.top, starts.plan.terminal).values() for stop in stops]
            grids = [grid for some in families for grid in some if starts.admits(grid)]
            if grids and starts.money(grids[0]) > 0:
                least = min(least, least_of(self.fit.scored(grids, self.fit.cost(grids[0]))).total)
        return least

    def _near(self, steps: int) -> list[Array]:
        """Of the density of the link before; of few steps also with one of its steps halved, or of a better link's."""
        if not self.found:
            return []
        before, best = self.found[-1], least_of(self.found)
        sources = [before] if best is before or best.steps < steps - self.fit.added else [before, best]
        grids = [stretched(each.sigmas, steps) for each in sources]
        if self._trained and before.steps == steps - 1 and self.fit.starts.stops is not None:
            grids += extended(before.sigmas, self.fit.starts.stops[0])
        if steps <= FEW:
            grids.append(resized(before.sigmas, steps))
            grids += [self.fit.with_nodes(each, steps, self.fit.cost(each.sigmas)) for each in sources]
        return grids

    def _others(self, steps: int) -> list[Array]:
        """The usual families, that stop where the link before does; of few steps also elsewhere, and now and then the
        program's density."""
        starts = self.fit.starts
        stop = stop_of(self.found[-1].sigmas) if self.found else starts.any_stop
        grids = [*family_grids(steps, stop, starts.top, starts.plan.terminal).values(), *starts.far(steps)]
        if _OWN <= steps <= FEW and steps & (steps - 1) == 0:
            grids += starts.program(steps, stop)
        return [grid for grid in grids if starts.admits(grid)]

    def _descended(self, begun: list[SearchedGrid], cost: Examples | None, moves: _Moves) -> SearchedGrid:
        path = Paths(self.fit, begun, cost)
        path.go(moves.first)
        if not moves.more and self._stuck(path.best):
            self.again.append(path.best.steps)
            path.go(moves.first + _AGAIN)
        if moves.more:
            path.keep(moves.kept, ALIKE)
            path.go(moves.first + moves.more)
            path.keep(1)
            path.go(moves.first + moves.more + moves.last)
        return path.best

    def _stuck(self, link: SearchedGrid) -> bool:
        """Whether errors that cancel no longer do, which further moves may mend; of few links."""
        return not self.priced and link.total >= least_of(self.found).total and len(self.again) < _OFTEN

    def _moves(self, steps: int, rung: bool) -> _Moves:
        signed = self.fit.signed
        if self._trained and steps > FEW:
            return _TRAINED_RUNG if rung else _TRAINED
        if steps <= _SHORT and rung and signed:
            return _SHORT_SIGNED
        if steps <= FEW:
            signed = signed or (self._trained and self.fit.may_vanish(steps))
            if self._trained and not signed:
                return _TRAINED_FEW_RUNG if rung else _TRAINED_FEW
            return (_RUNG_SIGNED if signed else _RUNG) if rung else _FEW_SIGNED if signed else _FEW
        return _LONG_RUNG if rung else _FOLLOWED_SIGNED if signed else _FOLLOWED

    def _last(self, best: SearchedGrid) -> SearchedGrid:
        """The last link that is allowed after a long descent, which ends where it leaves as little as one step more.

        What is handed out for more steps leaves no more than their links, so that it leaves no more than this.
        """
        longer = [each for each in self.found if each.steps > best.steps]
        if best.total <= self.fit.rounding or best.steps > (EVERY_PRICED if self.priced else EVERY):
            return best
        refined = self._exact(self.fit.exhausted(best))
        floor = least_of(longer).total if longer else 0.0
        if refined.total >= floor:
            return refined
        cost = self.fit.cost(best.sigmas)
        grids = [between(best.sigmas, refined.sigmas, float(share)) for share in _SHARES]
        tried = [self._exact(each) for each in self.fit.scored(grids, cost)]
        return least_of([best, *(each for each in tried if each.total >= floor)])

    def _about_minima(self, most: int) -> list[SearchedGrid]:
        """What links lead to that leave less than all before and no more than the next one, whatever is allowed.

        Errors that cancel wobble so often that this would take longer than all links: there the links stay.
        """
        if self.fit.signed:
            return []
        least, found = np.inf, list[SearchedGrid]()
        for link, after in pairwise(self.found):
            if link.total >= least or link.steps > min(most, DESCENDED):
                continue
            least = link.total
            if after.total >= link.total > self.fit.rounding:
                found += self._about(link)
        return [grid for grid in found if grid.steps <= most]

    def _about(self, link: SearchedGrid) -> list[SearchedGrid]:
        """A minimum after a long descent; with a price of steps also fewer and more from there, while that wins."""
        best = self._exact(self.fit.exhausted(link))
        found = [best]
        for less in (-1, 1) if self.priced else ():
            here = best
            for _ in range(_CLIMBS):
                steps = here.steps + less
                if steps < self.fit.starts.least or not self.fit.starts.money(resized(here.sigmas, steps)) > 0:
                    break
                found.append(self._climbed(here, steps))
                if found[-1].total > here.total * (1 - _STEEP):
                    break
                here = found[-1]
            if here is not best:
                return [*found, self._exact(self.fit.exhausted(here))]
        return found

    def _climbed(self, here: SearchedGrid, steps: int) -> SearchedGrid:
        """The best grid of another number of steps from this one."""
        cost = self.fit.cost(resized(here.sigmas, steps))
        grids = [resized(here.sigmas, steps), self.fit.with_nodes(here, steps, cost)]
        begun = self.fit.scored([grid for grid in grids if self.fit.starts.admits(grid)], cost)
        return self._exact(least_of(self.fit.descended(begun, cost, _CLIMBING))) if begun else here

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
