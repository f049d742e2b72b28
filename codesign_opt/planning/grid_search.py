"""How many whole steps beside training: grids of the numbers that may be the best (docs/theory.md section 7.8).

What is found for a number of steps depends on fewer steps alone, and which numbers are tried does not depend on the
most steps that are allowed: so that a limit chooses among the same grids, and no limit never leaves more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps
from .grid_fit import SearchedGrid
from .grid_starts import FEW, MOST_STEPS
from .trained_fit import TrainedFit

__all__ = ["GridSearch", "ladder"]

_LADDER = 2**0.5  # ratio of the numbers of steps that are tried first
_TOLD = 8  # fewer steps say nothing of how errors go on
_ENDED, _WOBBLE = 2, 4  # more steps than the best of few, where examples alone leave more, or the whole
_WORSE, _FLAT = 2, 1e-4  # sizes of the ladder in a row that leave more, or win no more, after which longer grids do
_HOPELESS = 10.0  # times as much before any descent as the least of all: a descent wins a factor of two or three
_FAR = 1.15  # times the most steps that are allowed: what lies about longer grids is not handed out
_STARTS = 1.5  # the same of few steps
_FILLED = 3.0  # times the least of all: where few steps leave more, not every number of them is tried
_POOR = 30.0  # times that least after a few moves: such sizes are not descended further
_COARSE = 0.1  # relative, between numbers of so many steps: errors bend little there
_LOPSIDED = 3.0  # a parabola through errors on one side of the best moves by one size at a time
_MANY = 64
_NEAR = 1.1  # grids so near to the best are descended to the end
_REFINED, _APART = 3, 0.15  # so many of them, whose numbers of steps differ by so much in logarithms
_REFINED_BESIDE = 2  # and so many once both neighbours of the best are known
_REARRANGED, _WON = 3, 3e-3  # turns of climbing and of nodes elsewhere, until they win less
_STEEP = 1e-4  # a climb goes on while it wins so much
_CLIMBS, _STRIDE = 4, 4  # longer strides after shorter ones won; of many steps once, as one more changes little


@dataclass(frozen=True, eq=False)
class GridSearch:
    """Grids of whole steps for a certified plan, best first, by the exact error of the model.

    Args:
        fit: finds the best grid of one number of steps.
        cap: the most steps of a grid that is handed out; None where the budget alone limits them.
        costly: whether steps take from the training, so that more than `cap` may leave more.
        found: the best grids by their number of steps, of those that are known.
    """

    fit: TrainedFit
    cap: int | None = None
    costly: bool = False
    found: dict[int, SearchedGrid] = field(default_factory=dict)
    _finished: set[int] = field(default_factory=set)

    def grids(self) -> list[SearchedGrid]:
        """The best grid of every number of steps that was tried and is allowed, the least error first."""
        most = min(self.cap or MOST_STEPS, MOST_STEPS)
        if self.costly and self.cap is not None and self.cap <= FEW:
            if self._every(range(self._least, self.cap + 1), all_matter=True):  # the limit does not bind
                self._about_the_best()
            self._refine_few(self.cap)
        elif self.costly:
            self._up_the_ladder()
            if self.found and not self._beyond:
                self._about_the_best()
                self._among_few()
            self._at_the_cap()
        else:
            self._up_to(most)
            self._refine(most)
        self._finish(most)
        return self._allowed(most)

    def _allowed(self, most: int) -> list[SearchedGrid]:
        found = [each for each in self.found.values() if each.steps <= most]
        return sorted(found, key=lambda each: each.total)

    @property
    def _best(self) -> SearchedGrid:
        return min(self.found.values(), key=lambda found: found.total)

    @property
    def _beyond(self) -> bool:
        """Whether the best grid is so much longer than what is allowed that nothing about it is handed out."""
        return self.cap is not None and self._best.steps > _FAR * self.cap

    @property
    def _least(self) -> int:
        return self.fit.starts.least

    def _keep(self, found: SearchedGrid | None) -> None:
        """The better of two grids of as many steps; examples that are worked out tell more than expected ones."""
        if found is None:
            return
        before = self.found.get(found.steps)
        told = before is not None and before.settled is None and found.settled is not None
        if before is None or told or found.total <= before.total:
            self.found[found.steps] = found

    def _try(self, steps: int, near: SearchedGrid | None = None, *, alone: bool = False, hopeless: float = inf) -> None:
        """The best grid of so many steps, from that of fewer or from `near`, and unless alone from the families."""
        if steps in self.found:
            return
        if near is None:
            fewer = [k for k in self.found if k < steps]
            near = self.found[max(fewer)] if fewer else None
        starts: list[Array] = [] if near is None else self.fit.near(near, steps)
        known = self.found.values()
        self._keep(self.fit.best(steps, starts, alone=alone, known=known, hopeless=hopeless))

    # without a price of steps

    def _up_to(self, most: int) -> None:
        """Up to the steps that are allowed: each refines the one before, which is a plan of fewer steps itself."""
        plan = self.fit.starts.plan
        asked = round(float(plan.steps.sum())) + final_steps(plan.terminal)
        wanted = max(self._least, min(most, asked))
        for k in [*[k for k in ladder(self._least) if k < wanted - 1], wanted - 1, wanted]:
            if k >= self._least:
                self._try(k)

    # with a price of steps

    def _up_the_ladder(self) -> None:
        """From the fewest steps that are worth it to where more leave more."""
        most, (sizes, least) = self._most, self._promising
        few = [k for k in range(self._least, FEW + 1) if k <= most]
        if self.fit.rough(min(FEW, most)) <= _HOPELESS * least:
            if self._every(few) and self._best.total <= least:  # else longer grids leave less at once
                return
            self._longer([k for k in sizes if k > max(self.found, default=0)], least)
            return
        self._longer(sizes, least)
        rungs = [k for k in self.found if k <= FEW]
        if min((self.found[k].total for k in rungs), default=inf) <= _FILLED * self._best.total:
            for k in rungs:  # as where a limit is one of few: each from one less
                if k > self._least and k - 1 not in self.found:
                    del self.found[k]
            self._every(few)

    @property
    def _most(self) -> int:
        """The most steps that are worth a thought, whatever the limit."""
        return max(int(min(self.fit.starts.affordable, MOST_STEPS)), self._least)

    @cached_property
    def _promising(self) -> tuple[list[int], float]:
        """Sizes of the ladder that are worth it, and what the best start leaves."""
        return self._worth_it([k for k in ladder(self._least) if k < self._most] + [self._most])

    def _hopeless(self, steps: int) -> float:
        """So many steps that leave more after a few moves are not descended further."""
        if self.fit.may_vanish(steps):
            return inf
        return (_STARTS if steps <= FEW and not self.fit.signed else _POOR) * self._promising[1]

    def _longer(self, sizes: Iterable[int], least: float) -> None:
        """Sizes of the ladder until longer grids leave more, or win no more."""
        worse, before = 0, inf
        for k in sizes:
            self._try(k, hopeless=self._hopeless(k))
            if k not in self.found:
                continue
            worse = worse + 1 if self.found[k].total > (1 - _FLAT) * before else 0
            before = self._best.total
            enough = worse >= _WORSE and before <= least  # the best start is behind
            if self._beyond or (k >= _TOLD and (self._spent(k) or enough)):
                return

    def _every(self, sizes: Iterable[int], *, all_matter: bool = False) -> bool:
        """Every one of few steps, as errors wobble with their number, each from one less; whether more leave more.

        Where they are all that is allowed, none is left halfway because many steps leave less, nor the rest untried.
        """
        least = self._promising[1]
        for k in sizes:
            self._try(k, hopeless=inf if all_matter else self._hopeless(k))
            if self._ended(k) and (self._best.total <= least or not all_matter):
                return True
        return False

    def _ended(self, steps: int) -> bool:
        """Whether so many steps, which were tried, are so many more than the best that longer grids leave more."""
        if steps < _TOLD or steps not in self.found:
            return False
        return steps >= self._best.steps + (_ENDED if self._spent(steps) else _WOBBLE)

    def _spent(self, steps: int) -> bool:
        """Whether the examples alone leave more than the best: longer grids leave less for training."""
        return self.found[steps].total - self.found[steps].bias > self._best.total

    def _worth_it(self, sizes: list[int]) -> tuple[list[int], float]:
        """Without those whose starts leave so much that no descent makes up for it; and what the best start leaves."""
        least, rough = inf, {}
        for k in sizes:
            rough[k] = self.fit.rough(k)
            least = min(least, rough[k])
            if rough[k] > least and k > FEW:
                break
        return [k for k in sizes if self._hopeful(k, least)], least

    def _hopeful(self, steps: int, least: float) -> bool:
        """Whether a descent may make up for what the starts leave; errors that cancel may leave any share of that, and
        those of few steps may cancel with what stopping leaves."""
        return steps <= FEW or self.fit.signed or self.fit.rough(steps) <= _HOPELESS * least

    def _about_the_best(self) -> None:
        self._refine(MOST_STEPS)
        if self._best.steps > FEW:
            self._between()
        self._refine(MOST_STEPS, apart=0.0)
        self._climb()
        for _ in range(_REARRANGED):
            if self._beyond:
                return
            best = self._best
            self._keep(self.fit.rearranged(best))
            if self._best.total > best.total * (1 - _WON):
                break
            self._climb()
        for _ in range(_CLIMBS):  # what a limit of one step fewer would find must not be better
            if self._beyond:
                return
            self._finish(MOST_STEPS)
            steps = self._best.steps
            fewer = self.found.get(steps - 1)
            if steps > self._least and (fewer is None or fewer.total <= _NEAR * self._best.total):
                self._limited(steps - 1)
            if self._best.steps == steps:
                return

    def _finish(self, most: int) -> None:
        """The best of so many steps at most as it is handed out."""
        while (found := self._allowed(most)[:1]) and found[0].steps not in self._finished:
            self._finished.add(found[0].steps)
            self._keep(self.fit.finished(found[0]))

    def _between(self) -> None:
        """Numbers of steps between those tried, where errors bend, until both neighbours of the best are known.

        A neighbour from elsewhere, which may lie in a worse valley, is descended once more from the grid of the best.
        """
        told = {self._best.steps}
        for _ in range(40):
            if self._beyond:
                return
            best = self._best.steps
            below = max([k for k in self.found if k < best], default=self._least - 1)
            above = min([k for k in self.found if k > best], default=min(int(self.fit.starts.affordable), 2 * best) + 1)
            untold = {k for k in (below, above) if k in self.found} - told
            told |= untold
            for k in sorted(untold):
                start = self.fit.near(self._best, k)
                self._keep(self.fit.best(k, start, alone=True, known=self.found.values()))
            if self._best.steps != best:
                continue
            if best >= _MANY and above - below < _COARSE * best:
                return
            wanted = {(below + best) // 2, (best + above + 1) // 2} - {below, above, best}
            if below in self.found and above in self.found and wanted:
                wanted = self._inside(below, best, above)
            if not wanted:
                return
            for k in sorted(wanted):
                self._try(k, self._best, alone=True)
                told.add(k)

    def _inside(self, below: int, best: int, above: int) -> set[int]:
        """Where the parabola through three errors has its bottom, or halfway to the farther neighbour of the best."""
        lower, upper = log(best / below), log(above / best)
        if max(lower, upper) > _LOPSIDED * min(lower, upper):
            lowest = round((best * (below if lower > upper else above)) ** 0.5)
        else:
            lowest = _vertex(*((k, self.found[k].total) for k in (below, best, above)))
        return {min(max(lowest, below + 1), above - 1)} - {best} or {best - 1, best + 1} - {below, above}

    def _refine(self, most: int, apart: float = _APART) -> None:
        """Many moves for the best, and for those of other sizes near it: few steps lie in flat, curved valleys."""
        ranked = self._allowed(most)
        chosen: list[SearchedGrid] = []
        enough = (_REFINED if apart else _REFINED_BESIDE) if ranked and ranked[0].steps < _MANY else 1
        for found in ranked:
            other = all(abs(log(found.steps / each.steps)) > apart for each in chosen)
            if other and len(chosen) < enough and found.total <= _NEAR * ranked[0].total:
                chosen.append(found)
        for found in chosen:
            if not found.refined:
                self._keep(self.fit.refined(found, ranked[0].total))

    def _refine_few(self, most: int) -> None:
        """The same of few steps, and many moves for every number of them that these may make the best."""
        self._refine(most)
        ranked = self._allowed(most)
        for found in ranked:
            if not found.refined and found.total < self.fit.likely * ranked[0].total:
                self._keep(self.fit.refined(found, self._allowed(most)[0].total))

    def _climb(self) -> None:
        """Fewer steps than the best, from its grid, while that is better; where it never is, more."""
        for less in (-1, 1):
            won, stride = False, 1
            for _ in range(_CLIMBS if self._best.steps < _MANY else 1):
                if self._beyond:
                    return
                before = self._best
                k = before.steps + less * stride
                if self._least <= k <= self.fit.starts.affordable:
                    start = self.fit.near(before, k)
                    self._keep(self.fit.best(k, start, alone=True, known=self.found.values()))
                better = self._best.total <= before.total * (1 - _STEEP)
                if not better and stride == 1:
                    break
                won, stride = won or better, min(2 * stride, _STRIDE) if better else 1
            if won:
                return

    def _among_few(self) -> None:
        """The best of few steps as a limit of so many would find it, where it leaves little more than the best."""
        few = self._allowed(FEW)
        if few and few[0].total <= _NEAR * self._best.total:
            self._refine_few(FEW)
            self._finish(FEW)

    def _at_the_cap(self) -> None:
        """The most steps that are allowed, and one less, where the best of all are more."""
        if self.cap is not None and not (self.found and self._best.steps <= self.cap):
            self._limited(self.cap)

    def _limited(self, most: int) -> None:
        """The best of so many steps at most, where the best of all are more."""
        for k in (most - 1, most):
            if k >= self._least:
                self._try(k, alone=k < most)
        self._refine(most)
        self._finish(most)


def _vertex(low: tuple[int, float], middle: tuple[int, float], high: tuple[int, float]) -> int:
    """Number of steps at the bottom of the parabola through three errors, in logarithms."""
    points = np.array([low, middle, high])
    bend, slope, _ = np.polyfit(points[:, 0] - middle[0], np.log(points[:, 1]), 2)
    return middle[0] if not bend > 0 else round(middle[0] - 0.5 * slope / bend)


def ladder(least: int) -> list[int]:
    """Numbers of steps whose ratio is about the square root of two, every one below 5."""
    sizes = sorted({max(least, round(2 * _LADDER**i)) for i in range(-1, 25)})
    return [k for k in sizes if k <= MOST_STEPS]
