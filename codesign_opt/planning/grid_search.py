"""Grids of whole steps on the exact error: how many steps, where they lie, where they stop (docs/theory.md section 7.8).

The program's density, the usual families and grids of fewer steps are starts; each descends the exact error, the
stopping point with it. What the examples leave is followed along as a function of the stopping point and of the money
that is left, so that steps, stop and training are weighed together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.grids import edm_grid, grid_from_steps, log_snr_grid, steps_on_levels
from ..ingredients.levels import Levels
from ..models.grid_descent import EndCost, descend_nodes
from ..results.plan import Plan
from .question import Study
from .settling import Settled, settle

__all__ = ["MOST_STEPS", "GridSearch", "SearchedGrid", "family_grids"]

MOST_STEPS = 10_000  # no grid is longer: beyond, steps change nothing and the exact law takes minutes
_DESCENDED = 400  # steps from which on a grid takes the shape of one of so many
_LADDER = 2**0.5  # ratio of the numbers of steps on the way to the one asked for
_FEW = 16  # steps up to which stopping points far from the program's are starts too
_STOPS = 5
_REACH = np.log(6.0)  # the stopping point may move so far from where its training was last worked out
_TRIED_FEW, _TRIED = 8, 2  # starts that descend, for few steps and for many
_MOVES, _MORE_MOVES = 25, 100  # of every start, and of the best of them
_ENOUGH, _ENOUGH_TRAINED = 1e-8, 1e-6
_SETTLINGS, _EXPECTED, _NEAR = 3, 0.01, 1.05
_MOVED = 0.1  # in log sigma, from which on the training is worked out anew where the grid stops


@dataclass(frozen=True, eq=False)
class SearchedGrid:
    """A grid, its exact bias, and the whole error with the best examples for it.

    Args:
        sigmas: (K+1,) grid.
        bias: its exact error with a perfect denoiser.
        total: with what the examples leave, as settled where they are and else as expected.
        settled: the grid with its examples; None while they are not worked out.
    """

    sigmas: Array
    bias: float
    total: float
    settled: Settled | None = None

    @property
    def steps(self) -> int:
        """K."""
        return self.sigmas.size - 1


@dataclass(frozen=True, eq=False)
class _Training:
    """What the examples leave: exp of a quadratic in log sigma of the stopping point, over the money left.

    Args:
        powers: coefficients of the quadratic, the highest first.
        centre: log sigma where it is expanded.
    """

    powers: Array
    centre: float

    def end(self, low: float, high: float, money: float) -> EndCost:
        """The cost of the stopping point where so much money trains, near the centre."""
        slope, bend = np.polyder(self.powers), np.polyder(self.powers, 2)

        def cost(log_sigma: float) -> tuple[float, float, float]:
            at = log_sigma - self.centre
            value = float(np.exp(np.polyval(self.powers, at))) / money
            rate = float(np.polyval(slope, at))
            return value, value * rate, value * (rate**2 + float(np.polyval(bend, at)))

        return EndCost(max(low, self.centre - _REACH), min(high, self.centre + _REACH), cost)

    def at(self, stop: float, money: float) -> float:
        """What the examples leave."""
        return float(np.exp(np.polyval(self.powers, np.log(stop) - self.centre))) / money

    def through(self, settled: Settled, money: float) -> _Training:
        """The same dependence on the stopping point, through what a settled grid leaves."""
        ratio = settled.reducible / max(self.at(settled.stopping_sigma, money), 1e-300)
        powers = self.powers.copy()
        powers[-1] += np.log(max(ratio, 1e-300))
        return _Training(powers, self.centre)


def family_grids(steps: int, stop: float, top: float, terminal: str) -> dict[str, Array]:
    """The usual families, by the names that a plan prints as peers."""
    return {
        "edm": edm_grid(steps, stop, top, terminal=terminal),
        "log_snr": log_snr_grid(steps, stop, top, terminal=terminal),
    }


@dataclass(frozen=True, eq=False)
class GridSearch:
    """Grids of whole steps for a certified plan, best first, by the exact error of the model.

    Args:
        study: the question; its model knows the exact error and its residuals, and there are no user's terms.
        plan: the certified program's plan.
        stops: range of the stopping point; None where it is given.
    """

    study: Study
    plan: Plan
    stops: tuple[float, float] | None
    _found: dict[int, SearchedGrid] = field(default_factory=dict)

    def grids(self) -> list[SearchedGrid]:
        """The best grid of every number of steps that was tried, the least error first."""
        if not self.study.trains:
            self._all_sizes()
        elif (training := self._training(self.plan.stopping_sigma)) is not None:
            self._sizes(training)
            if self.stops is not None and abs(np.log(_stop(self._best.sigmas)) - training.centre) > _MOVED:
                # worked out anew where the best grid now stops
                again = self._training(_stop(self._best.sigmas)) or training
                self._improve(self._best, again)
                self._neighbours(again)
        return sorted(self._found.values(), key=lambda found: found.total)

    @property
    def _best(self) -> SearchedGrid:
        return min(self._found.values(), key=lambda found: found.total)

    # numbers of steps

    def _all_sizes(self) -> None:
        """Up to the steps that are allowed: each refines the one before, which is a plan of fewer steps itself."""
        wanted = min(self._most, round(float(self.plan.steps.sum())) + final_steps(self.plan.terminal))
        sizes = [k for k in _ladder(self._least) if k < wanted]
        for k in [*sizes, max(self._least, wanted)]:
            self._fit(k, None)

    def _sizes(self, training: _Training) -> None:
        """Fit the numbers of steps that may be the best."""
        count = float(self.plan.steps.sum()) + final_steps(self.plan.terminal)
        wanted = max(self._least, min(self._most, round(count)))
        ladder = _ladder(self._least)
        self._fit(wanted, training)
        for k in reversed([k for k in ladder if k < wanted]):
            found = self._fit(k, training)
            if found is None or found.bias > self._best.total:  # fewer steps still leave more
                break
        for k in [k for k in [*ladder, self._most] if wanted < k <= self._most]:
            found = self._fit(k, training)
            if found is None or found.total > self._best.total:
                break
        self._neighbours(training)

    def _neighbours(self, training: _Training) -> None:
        """Numbers of steps between those tried, halving the distance, until both neighbours of the best are known."""
        for _ in range(40):
            best = self._best.steps
            below = max([k for k in self._found if k < best], default=self._least - 1)
            above = min([k for k in self._found if k > best], default=min(self._most, 2 * best) + 1)
            wanted = [k for k in ((below + best) // 2, (best + above + 1) // 2) if below < k < above and k != best]
            if not wanted or (best >= _DESCENDED and above - below < 0.1 * best):
                return
            for k in wanted:
                self._fit(k, training, alone=True)

    @property
    def _least(self) -> int:
        return least_steps(self.plan.terminal)

    @property
    def _most(self) -> int:
        return int(min(self.study.steps or MOST_STEPS, self._affordable(), MOST_STEPS))

    def _affordable(self) -> float:
        """The most steps that leave something for training."""
        if not self.study.trains:
            return np.inf
        price = self._price(log_snr_grid(64, self.plan.stopping_sigma, self._top, terminal=self.plan.terminal)) / 64
        assert self.study.budget is not None
        return np.inf if price <= 0 else max(0.98 * self.study.budget / price, least_steps(self.plan.terminal))

    # one number of steps

    def _fit(self, steps: int, training: _Training | None, *, alone: bool = False) -> SearchedGrid | None:
        """The best descended grid of so many steps, kept; from the nearest one found alone where that says enough."""
        if steps in self._found:
            return self._found[steps]
        near = self._near(steps)
        starts = [grid for grid in (near if alone and near else [*near, *self._starts(steps)]) if self._admits(grid)]
        money = self._money(starts[0]) if starts else 0.0
        if money <= 0:
            return None
        ranked = sorted((self._score(grid, training, money) for grid in starts), key=lambda found: found.total)
        kept = [] if steps > _DESCENDED else ranked[: _TRIED_FEW if steps <= _FEW else _TRIED]
        if near and steps <= _DESCENDED and not any(found.sigmas is near[0] for found in kept):
            kept.append(next(found for found in ranked if found.sigmas is near[0]))
        found = [self._descended(start, training, money, _MOVES) for start in kept]
        best = min([*found, ranked[0]], key=lambda found: found.total)
        if steps <= _DESCENDED:
            best = self._descended(best, training, money, _MORE_MOVES)
        self._found[steps] = best
        if training is not None:
            self._settle(best, training, money)
        return self._found[steps]

    def _settle(self, found: SearchedGrid, training: _Training, money: float) -> None:
        """Work out the examples of a grid that may be the best, and descend again where they leave another amount."""
        for _ in range(_SETTLINGS):
            if found.total > _NEAR * min((f.total for f in self._found.values() if f.settled), default=np.inf):
                return
            settled = settle(self.study, found.sigmas)
            if settled is None:
                self._found.pop(found.steps, None)
                return
            expected = found.total
            found = SearchedGrid(found.sigmas, found.bias, settled.total, settled)
            known = self._found.get(found.steps)
            if known is None or known.settled is None or found.total < known.total:
                self._found[found.steps] = found
            if abs(found.total / expected - 1) < _EXPECTED or found.steps > _DESCENDED:
                return
            training = training.through(settled, money)
            found = self._descended(self._score(found.sigmas, training, money), training, money, _MOVES)

    def _improve(self, found: SearchedGrid, training: _Training) -> None:
        """Descend a settled grid further with what the examples leave worked out anew."""
        money = self._money(found.sigmas)
        start = self._score(found.sigmas, training, money)
        if found.steps <= _DESCENDED:
            self._settle(self._descended(start, training, money, _MORE_MOVES), training, money)

    def _descended(
        self, start: SearchedGrid, training: _Training | None, money: float, moves: int
    ) -> SearchedGrid:
        residuals = self.study.model.exact_residuals
        assert residuals is not None
        enough = _ENOUGH if training is None else _ENOUGH_TRAINED
        found = descend_nodes(residuals, start.sigmas, self._end(training, money), moves=moves, enough=enough).sigmas
        return self._score(self._admissible(start.sigmas, found), training, money)

    def _near(self, steps: int) -> list[Array]:
        """The grid found for the nearest number of steps, with as many as wanted."""
        if not self._found:
            return []
        nearest = min(self._found, key=lambda k: (abs(np.log(k / steps)), k))
        return [_resized(self._found[nearest].sigmas, steps)]

    def _starts(self, steps: int) -> list[Array]:
        """The program's density, the usual families, and for few steps families that stop elsewhere."""
        terminal, top = self.plan.terminal, self._top
        stop = self.plan.stopping_sigma
        starts = [
            grid_from_steps(self.plan.levels, self.plan.steps, steps, terminal=terminal),
            *family_grids(steps, stop, top, terminal).values(),
        ]
        if self.stops is not None and steps <= _FEW:
            starts += [log_snr_grid(steps, s, top, terminal=terminal) for s in np.geomspace(*self.stops, _STOPS)]
        return starts

    def _score(self, sigmas: Array, training: _Training | None, money: float) -> SearchedGrid:
        error = self.study.model.exact_error
        assert error is not None
        bias = float(np.real(error(sigmas)))
        return SearchedGrid(sigmas, bias, bias + (0.0 if training is None else training.at(_stop(sigmas), money)))

    def _end(self, training: _Training | None, money: float) -> EndCost | None:
        if self.stops is None:
            return None
        low, high = np.log(self.stops[0]), np.log(self.stops[1])
        return EndCost(low, high) if training is None else training.end(low, high, money)

    def _admits(self, sigmas: Array) -> bool:
        return self.study.admits(sigmas) is not False

    def _admissible(self, start: Array, found: Array) -> Array:
        """The descended grid, or as much of the way to it as the constraints admit."""
        if self._admits(found):
            return found
        share, width, best = 0.0, 1.0, start
        positive = start > 0
        for _ in range(12):
            width *= 0.5
            trial = start.copy()
            trial[positive] = start[positive] ** (1 - share - width) * found[positive] ** (share + width)
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
        return self.study.budget - self._price(sigmas)

    def _training(self, stop: float) -> _Training | None:
        """What the examples leave, from grids of the program's density at three stopping points; None where none fits."""
        if not self.study.trains:
            return None
        stops = [stop]
        if self.stops is not None:
            stops += [s for s in (stop / 3, stop * 3) if self.stops[0] < s < self.stops[1]]
        known = self._best.sigmas if self._found else self._program_grid()
        logs, values = [], []
        for s in stops:
            grid = _to_stop(known, s)
            settled, money = settle(self.study, grid), self._money(grid)
            if settled is not None and money > 0:
                logs.append(np.log(s / stop))
                values.append(np.log(max(settled.reducible * money, 1e-300)))
        if not logs:
            return None
        return _Training(np.polyfit(logs, values, len(logs) - 1), float(np.log(stop)))

    def _program_grid(self) -> Array:
        """As many steps as the program's, or fewer where the budget then leaves nothing."""
        least = least_steps(self.plan.terminal)
        count = max(least, int(float(self.plan.steps.sum()) + final_steps(self.plan.terminal) + 1e-6))
        if self.study.steps is not None:
            count = min(count, int(self.study.steps))
        count = min(count, MOST_STEPS)
        return grid_from_steps(self.plan.levels, self.plan.steps, count, terminal=self.plan.terminal)


def _ladder(least: int) -> list[int]:
    """Numbers of steps whose ratio is about the square root of two, every one below 5."""
    sizes = sorted({max(least, round(2 * _LADDER**i)) for i in range(-1, 25)})
    return [k for k in sizes if k <= MOST_STEPS]


def _stop(sigmas: Array) -> float:
    return float(sigmas[sigmas > 0][-1])


def _to_stop(sigmas: Array, stop: float) -> Array:
    """The grid stretched in log sigma to another stopping point."""
    positive = sigmas[sigmas > 0]
    share = np.log(positive / positive[0]) / np.log(positive[-1] / positive[0])
    moved = positive[0] * (stop / positive[0]) ** share
    moved[0], moved[-1] = positive[0], stop
    return np.concatenate([moved, sigmas[sigmas == 0]])


def _resized(sigmas: Array, steps: int) -> Array:
    """A grid of another number of steps with the same density of nodes."""
    positive = sigmas[sigmas > 0]
    tail = sigmas.size - positive.size
    at = np.linspace(0.0, positive.size - 1.0, steps + 1 - tail)
    logs = np.interp(at, np.arange(positive.size), np.log(positive))
    nodes = np.exp(logs)
    nodes[0], nodes[-1] = positive[0], positive[-1]
    return np.append(nodes, 0.0) if tail else nodes
