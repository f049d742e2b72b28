"""The best grid of one number of whole steps, by the exact error of the model (docs/theory.md section 7.8).

The program's density, the usual families and grids of fewer steps are starts; each descends the exact error, the
stopping point with it. What the examples leave is followed along as a function of the stopping point and of the money
that is left, so that steps, stop and training are weighed together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..basics.causes import BIAS
from ..basics.checks import Array
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.grids import ended, family_grids, grid_from_steps, log_snr_grid, steps_on_levels
from ..ingredients.levels import Levels
from ..models.grid_descent import Cost, Descent, descend_nodes
from ..results.plan import Plan
from .examples_cost import BestExamples, ExamplesCost, along
from .node_moves import Errors, between, moved_nodes, resized, with_steps
from .question import Study
from .settling import Settled, settle

__all__ = ["FEW", "FLOAT32", "MOST_STEPS", "GridFit", "SearchedGrid"]

MOST_STEPS = 10_000  # no grid is longer: beyond, steps change nothing and the exact law takes minutes
FLOAT32 = 1e-15  # squared relative rounding error of a float32 number, on average over numbers
FEW = 16  # steps up to which stopping points far from the program's are starts too
_DESCENDED = 400  # steps from which on a grid takes the shape of one of so many
_STOPS = 5
_REACH = np.log(6.0)  # the stopping point may move so far from where its training was last worked out
_FIRST_MOVES, _MOVES, _REFINING = 8, 25, 60  # of every start, of those that go on, and of the best sizes
_NOTHING = 1e-9  # of the budget: what is left is rounding
_LAST_MOVES = 400  # of the best grid where nothing is trained: no examples hide what they win
_LONG = 3  # starts that descend so long
_SINGLE_MOVES = 100  # where errors do not cancel
_LAST_WORK = 20_000  # steps times moves: of many steps a move takes as much longer
_REARRANGED, _WON = 12, 1e-3  # times that a node changes its place, until it wins less
_BIASED, _WEIGHED = 0.02, 10  # share of its own error in what a grid leaves that tells of others; others weighed
_ADDED = 6  # nodes that are added or taken away one by one; without training twice as many
_SCATTERED, _SPREAD = 8, 0.7  # starts of random lengths, whose logarithms spread so
_ALIKE = 10.0  # as much worse a start that goes on may be after few moves
_ENOUGH, _ENOUGH_TRAINED = 1e-8, 1e-6
_TURNS, _MORE_TURNS, _LAST_TURNS = (1, 1e-2), (3, 2e-3), (12, 1e-7)  # of settling and descending; until they win less
_SHARES = (1.0, 0.3, 0.1)  # of the way of a descent, until it is better with the best examples
_NEAR, _NEAR_FEW = 1.02, 1.3  # examples are settled for grids so near to the best
_ROUNDS, _STILL = 4, 1e-4  # of descents along a slope of what the examples leave, while they win so much

Examples = BestExamples | ExamplesCost


class _Effort(NamedTuple):
    """Starts that descend, those of them that go on after a few moves, and moves of the best in the end."""

    starts: int
    kept: int
    last: int


_EFFORTS = {  # few steps; trained, where moves are dear and training hides what the last of them win
    (True, False): _Effort(8, 4, 300),
    (True, True): _Effort(3, 2, 0),
    (False, False): _Effort(2, 2, 0),
    (False, True): _Effort(2, 2, 0),
}


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


@dataclass(frozen=True, eq=False)
class GridFit:
    """Finds the best grid of one number of steps, and the examples for it.

    Args:
        study: the question; its model knows the exact error and its residuals, and there are no user's terms.
        plan: the certified program's plan.
        stops: range of the stopping point; None where it is given.
    """

    study: Study
    plan: Plan
    stops: tuple[float, float] | None

    @property
    def rounding(self) -> float:
        """The squared error of samples that are rounded to float32."""
        return FLOAT32 * self.study.model.spectrum.trace

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
        starts = [grid for grid in (near if alone and near else [*near, *self._starts(steps)]) if self._admits(grid)]
        money = self._money(starts[0]) if starts else 0.0
        if money <= 0:
            return None
        cost = self._cost(starts[0], money, settled)
        if self.study.trains and cost is None:
            return None
        ranked = sorted((self._score(grid, cost) for grid in starts), key=lambda found: found.total)
        effort, descends = _EFFORTS[steps <= FEW, self.study.trains], steps <= _DESCENDED
        told = {id(grid) for grid in near}  # these go on however many other starts are better before a descent
        kept = [found for found in ranked if descends and id(found.sigmas) in told]
        kept += [found for found in ranked if descends and id(found.sigmas) not in told][: effort.starts - 1]
        scattered = [] if alone else self._scattered(steps)
        kept += [self._score(grid, cost) for grid in scattered]
        if (self.closed or scattered) and len(kept) > 1:  # a few moves show which start leads down
            kept = sorted((self._descended(each, cost, _FIRST_MOVES) for each in kept), key=lambda f: f.total)
            if kept[0].total > hopeless:
                return kept[0]
            kept = [each for each in kept[: effort.kept] if each.total <= _ALIKE * kept[0].total]
        best = min([*(self._descended(each, cost, _MOVES) for each in kept), ranked[0]], key=lambda f: f.total)
        if descends and effort.last:
            best = self._descended(best, cost, effort.last)
        if self.study.trains and not self.closed:
            least = min((each.total for each in settled), default=np.inf)
            return self._settled(best, least, *_TURNS)
        return best

    def rough(self, steps: int) -> float:
        """What the best of the usual grids leaves before any descent; infinite where nothing is left for training."""
        starts = [grid for grid in self._usual(steps) if self._admits(grid)]
        money = self._money(starts[0]) if starts else 0.0
        cost = self._cost(starts[0], money, self._first) if money > 0 else None
        return np.inf if cost is None else min(self._score(grid, cost).total for grid in starts)

    def near(self, found: SearchedGrid, steps: int, *, climbing: bool = True) -> list[Array]:
        """Starts of so many steps from a grid of another number: of its density, and with its nodes where they are.

        On the way from few steps to many the second start pays where errors cancel, or nothing is trained.
        """
        starts = [resized(found.sigmas, steps)]
        cheap = (self.closed and (climbing or self.signed)) or not self.study.trains
        most = _ADDED if self.study.trains else 2 * _ADDED
        if cheap and found.steps <= _DESCENDED and abs(steps - found.steps) <= most:
            starts.append(with_steps(found.sigmas, steps, self._totals(found, self._cost_of(found))))
        return starts

    def _totals(self, found: SearchedGrid, cost: Examples | None) -> Errors:
        """What grids near one leave; with examples to be bought for those alone that are worth a try, infinite else."""
        error = self.study.model.exact_error
        assert error is not None

        def totals(grids: Array) -> Array:
            left = np.real(np.asarray(error(grids)))
            if cost is None:
                return left
            if found.bias > _BIASED * found.total:
                tried = np.argsort(left)[:_WEIGHED]
            else:  # its own error is too little to tell
                tried = np.unique(np.linspace(0, len(grids) - 1, _WEIGHED).astype(int))
            whole = np.full(len(grids), np.inf)
            whole[tried] = [left[k] + cost.value(grids[k]) for k in tried]
            return whole

        return totals

    def _cost_of(self, found: SearchedGrid) -> Examples | None:
        return self._cost(found.sigmas, self._money(found.sigmas), [found.settled] if found.settled else [])

    def refined(self, found: SearchedGrid) -> SearchedGrid | None:
        """The grid after many more moves, or turns of settling and descending; None where no examples fit it."""
        if not self.study.trains:
            return replace(self._best_of_long(found), refined=True)
        if not self.closed:
            settled = self._settled(found, np.inf, *_MORE_TURNS)
            return None if settled is None else replace(settled, refined=True)
        if found.steps > _DESCENDED:
            return found
        return replace(self._descended(found, self._cost_of(found), _REFINING), refined=True)

    def rearranged(self, found: SearchedGrid) -> SearchedGrid:
        """The grid, or a better one that nodes of it elsewhere lead to."""
        if not self.closed or found.steps > _DESCENDED:
            return found
        return self._rearranged(found, self._cost_of(found), _MOVES)

    def _best_of_long(self, found: SearchedGrid) -> SearchedGrid:
        """The best after long descents from the grid and from the usual ones: few moves do not tell which leads on."""
        if found.steps > _DESCENDED:
            return found
        cost, stop = self._cost_of(found), _stop(found.sigmas)
        if not self.signed:  # one valley, nearly: a few moves more find its bottom
            return self._descended(self._rearranged(found, cost, _MOVES), cost, _SINGLE_MOVES)
        moves = min(_LAST_MOVES, _LAST_WORK // found.steps)
        usual = [*self._usual(found.steps), log_snr_grid(found.steps, stop, self._top, terminal=self.plan.terminal)]
        starts = [found, *(self._score(grid, cost) for grid in usual if self._admits(grid))]
        tried = sorted((self._descended(start, cost, _REFINING) for start in starts), key=lambda f: f.total)
        best = min((self._descended(each, cost, moves) for each in tried[:_LONG]), key=lambda f: f.total)
        return self._descended(self._rearranged(best, cost, _MOVES), cost, moves)

    def _rearranged(self, found: SearchedGrid, cost: Examples | None, moves: int) -> SearchedGrid:
        """The grid after nodes were taken away and added elsewhere, while a descent from there wins."""
        best = found
        for _ in range(_REARRANGED):
            moved = moved_nodes(best.sigmas, self._totals(best, cost))
            starts = [self._score(grid, cost) for grid in moved if self._admits(grid)]
            tried = [self._descended(start, cost, _FIRST_MOVES) for start in starts]
            if not tried:
                return best
            before, after = best, self._descended(min(tried, key=lambda f: f.total), cost, moves)
            best = min(before, after, key=lambda f: f.total)
            if best.total > before.total * (1 - _WON):
                return best
        return best

    def finished(self, found: SearchedGrid) -> SearchedGrid | None:
        """The grid after many turns of settling and descending, where its best examples have no closed form."""
        return found if self.closed or not self.study.trains else self._settled(found, np.inf, *_LAST_TURNS)

    @property
    def affordable(self) -> float:
        """The most steps that leave something for training."""
        if not self.study.trains:
            return np.inf
        price = self._price(log_snr_grid(64, self.plan.stopping_sigma, self._top, terminal=self.plan.terminal)) / 64
        assert self.study.budget is not None
        return np.inf if price <= 0 else max(0.98 * self.study.budget / price, least_steps(self.plan.terminal))

    def _settled(self, found: SearchedGrid, least: float, turns: int, worth: float) -> SearchedGrid | None:
        """Work out the examples of a grid that may be the best, and descend with them, in turn, while it pays."""
        settled = found.settled
        if settled is None:
            if found.total > (_NEAR_FEW if found.steps <= FEW else _NEAR) * least:
                return found
            settled = settle(self.study, found.sigmas, even=True)
            if settled is None:
                return None
        best = SearchedGrid(found.sigmas, found.bias, settled.total, settled)
        for _ in range(turns if found.steps <= _DESCENDED else 0):
            assert best.settled is not None
            cost = self._held(best.settled, 1.0)
            moved = self._descended(self._score(best.sigmas, cost), cost, _MOVES)
            before = best.total
            for share in _SHARES:  # far from where they are held, examples say little
                trial = self._admissible(best.sigmas, between(best.sigmas, moved.sigmas, share))
                settled = settle(self.study, trial, even=True)
                if settled is not None and settled.total < before:
                    best = SearchedGrid(trial, settled.handed_out[BIAS], settled.total, settled)
                    break
            if best.total > before * (1 - worth):
                break
        return best

    @cached_property
    def closed(self) -> bool:
        """Whether the best examples of a grid have a closed form: constant prices, and nothing but a budget."""
        study, prices = self.study, self.study.prices
        plain = study.trains and not study.constraints and study.run is None
        if not plain or prices is None or callable(prices.example) or callable(prices.evaluation):
            return False
        return study.model.coupling.pooling(self.plan.levels) is None

    def _descended(self, start: SearchedGrid, cost: Examples | None, moves: int) -> SearchedGrid:
        """The grid after a descent, with what the examples leave."""
        # what the examples leave hardly turns for many steps: its slope serves all moves of a descent
        # (not where errors cancel: then its own error is none of the sum, and the examples alone move the nodes)
        linear = cost is not None and start.steps > FEW and not (self.closed and self.signed)
        if not linear:
            return self._descended_once(start, cost, moves, linear)
        best = start
        for _ in range(_ROUNDS if self.closed and moves > _FIRST_MOVES else 1):
            before, moved = best, self._descended_once(best, cost, moves, linear)
            for share in _SHARES:  # far from where it was taken, a slope says little
                if moved.total >= before.total and share < 1:
                    part = between(before.sigmas, moved.sigmas, share)
                    moved = self._score(self._admissible(before.sigmas, part), cost)
            best = min(before, moved, key=lambda f: f.total)
            if best.total > before.total * (1 - _STILL):
                break
        return best

    def _descended_once(self, start: SearchedGrid, cost: Examples | None, moves: int, linear: bool) -> SearchedGrid:
        residuals = self.study.model.exact_residuals
        assert residuals is not None
        stops = None
        if self.stops is not None:
            stops = (float(np.log(self.stops[0])), float(np.log(self.stops[1])))
            known = None if cost is None else cost.stopping_sigma(start.sigmas, linear)
            if known is not None:  # not far from where the examples were worked out
                stops = (max(stops[0], np.log(known) - _REACH), min(stops[1], np.log(known) + _REACH))
        enough = _ENOUGH if cost is None else _ENOUGH_TRAINED
        held: Cost | None = None
        if cost is not None:
            held = cost.held(start.sigmas)
            held = along(held, start.sigmas) if linear else held
        found = descend_nodes(start.sigmas, Descent(residuals, held, stops, moves, enough)).sigmas
        return self._score(self._admissible(start.sigmas, found), cost)

    def _cost(self, sigmas: Array, money: float, known: list[Settled]) -> Examples | None:
        """What a grid leaves besides its own error: with the best examples or those of a near grid, or the floor."""
        if self.closed:
            return BestExamples(self.study, money)
        if not self.study.trains:
            floor = self.study.model.node_errors(sigmas).floor
            return ExamplesCost(self.study) if floor.any() else None
        if known:
            count = sigmas.size - 1
            nearest = min(known, key=lambda s: (abs(np.log((s.sigmas.size - 1) / count)), s.sigmas.size))
        elif self._first:
            nearest = self._first[0]
        else:
            return None
        assert nearest.examples is not None
        return self._held(nearest, money / nearest.examples.costs["training"])

    @cached_property
    def _first(self) -> list[Settled]:
        """The program's own grid with its examples, for grids that no other examples are known for."""
        first = None if self.closed else settle(self.study, self._program_grid(), even=True)
        return [] if first is None else [first]

    @property
    def signed(self) -> bool:
        """Whether errors of the sampler's steps may cancel."""
        return self.study.model.sampler.signed

    def _held(self, settled: Settled, scale: float) -> ExamplesCost:
        """The examples of a settled grid, for other money."""
        assert settled.examples is not None
        money = settled.examples.costs["training"]
        return ExamplesCost(self.study, settled.examples, scale, settled.reducible / (money * scale**2))

    def _usual(self, steps: int) -> list[Array]:
        """The program's density and the usual families, stopping where the program does."""
        plan = self.plan
        own = grid_from_steps(plan.levels, plan.steps, steps, terminal=plan.terminal)
        return [own, *family_grids(steps, plan.stopping_sigma, self._top, plan.terminal).values()]

    def _starts(self, steps: int) -> list[Array]:
        """The usual grids, and for few steps families that stop elsewhere."""
        terminal, top = self.plan.terminal, self._top
        starts = self._usual(steps)
        if self.stops is not None and steps <= FEW:
            starts += [log_snr_grid(steps, s, top, terminal=terminal) for s in np.geomspace(*self.stops, _STOPS)]
        return starts

    def _scattered(self, steps: int) -> list[Array]:
        """Grids of random step lengths, for few steps whose errors may cancel: such have many minima."""
        if self.study.trains or not self.signed or steps > FEW or steps - final_steps(self.plan.terminal) < 2:
            return []
        rng = np.random.default_rng(steps)
        lengths = np.exp(_SPREAD * rng.normal(size=(_SCATTERED, steps - final_steps(self.plan.terminal))))
        low, high = self.stops or (self.plan.stopping_sigma, self.plan.stopping_sigma)
        spans = np.log(self._top / (low * (high / low) ** rng.uniform(size=_SCATTERED)))
        shares = np.cumsum(lengths, axis=1) / lengths.sum(axis=1, keepdims=True)
        nodes = self._top * np.exp(-np.insert(shares, 0, 0.0, axis=1) * spans[:, None])
        nodes[:, -1] = self.plan.stopping_sigma if self.stops is None else nodes[:, -1]
        grids = [ended(each, self.plan.terminal) for each in nodes]
        return [grid for grid in grids if self._admits(grid)]

    def _score(self, sigmas: Array, cost: Examples | None) -> SearchedGrid:
        error = self.study.model.exact_error
        assert error is not None
        bias = float(np.real(error(sigmas)))
        return SearchedGrid(sigmas, bias, bias + (0.0 if cost is None else cost.value(sigmas)))

    def _admits(self, sigmas: Array) -> bool:
        return self.study.admits(sigmas)

    def _admissible(self, start: Array, found: Array) -> Array:
        """The descended grid, or as much of the way to it as the constraints admit."""
        if self._admits(found):
            return found
        share, width, best = 0.0, 1.0, start
        for _ in range(12):
            width *= 0.5
            trial = between(start, found, share + width)
            if self._admits(trial):
                share, best = share + width, trial
        return best

    # money and what it leaves

    @property
    def _top(self) -> float:
        return float(self.plan.levels.edges[-1])

    def _price(self, sigmas: Array) -> float:
        """Price of sampling with a grid."""
        prices, model = self.study.prices, self.study.model
        assert prices is not None
        levels = Levels.log_uniform(_stop(sigmas), float(sigmas[0]), 100)
        steps = steps_on_levels(levels, sigmas)
        each = prices.evaluation_price(levels) * model.sampler.evaluations_per_step
        last = final_steps(model.terminal) * prices.final_price(_stop(sigmas))
        return float(each @ steps) + last

    def _money(self, sigmas: Array) -> float:
        """What the grid leaves for training; 1 where nothing is trained."""
        if not self.study.trains:
            return 1.0
        assert self.study.budget is not None
        left = self.study.budget - self._price(sigmas)
        return left if left > _NOTHING * self.study.budget else 0.0

    def _program_grid(self) -> Array:
        """As many steps as the program's, or fewer where the budget then leaves nothing."""
        least = least_steps(self.plan.terminal)
        count = max(least, int(float(self.plan.steps.sum()) + final_steps(self.plan.terminal) + 1e-6))
        if self.study.steps is not None:
            count = min(count, int(self.study.steps))
        count = min(count, MOST_STEPS)
        return grid_from_steps(self.plan.levels, self.plan.steps, count, terminal=self.plan.terminal)


def _stop(sigmas: Array) -> float:
    return float(sigmas[sigmas > 0][-1])
