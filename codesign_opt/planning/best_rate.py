"""The learning rate, and the length of the average of the weights, that are best for a plan's examples and steps.

Both are one-dimensional: what is left of the start falls with the rate, what the noise leaves rises. Where both are
known to be monotone, a search over intervals proves the best rate; elsewhere it is the best of a grid, refined
(docs/theory.md section 5.9).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

from ..basics.checks import choice, number, scale_of, takes
from ..modeling.design import Point
from ..modeling.terms import ScoreError
from ..models.gaussian import GaussianModel
from ..results.plan import Plan
from ..training.optimiser_runs import OptimiserRun
from ..training.rates import WeightAverage

__all__ = ["BestRate", "best_average", "best_learning_rate"]

_GRID = 17
_DECADES = 6.0  # below the largest rate
_ADAM_LARGEST = 1.0
_MOST = 400  # evaluations of a proof
_LENGTHS = 9
_FAR = 1e-3  # in log rate and log length


@dataclass(frozen=True, eq=False)
class BestRate:
    """The best learning rate for a plan.

    Attributes:
        training: the run at that rate and average: give it to a model and plan again.
        error: score error with it: levels and last evaluation, squared data units.
        noise, start: its parts, by the gradients' noise and by what is left of the start.
        lower_bound: what no rate of the range goes below; -inf where nothing is proved.
        low, high: the range of rates.
        evaluations: rates tried.
    """

    training: OptimiserRun
    error: float
    noise: float
    start: float
    lower_bound: float
    low: float
    high: float
    evaluations: int

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        return self.training.learning_rate.peak

    @property
    def relative_gap(self) -> float:
        """(error - lower bound) / error; infinite where nothing is proved."""
        return (self.error - self.lower_bound) / self.error if np.isfinite(self.lower_bound) else np.inf

    def __str__(self) -> str:
        proved = f"within {self.relative_gap:.2%} of the best rate" if np.isfinite(self.relative_gap) else "not proved"
        return (
            f"learning rate {self.learning_rate:.4g}: score error {self.error:.4g} ({self.noise:.4g} of noise, "
            f"{self.start:.4g} left of the start), best of {self.evaluations} rates from {self.low:.3g} to "
            f"{self.high:.3g}, {proved}"
        )


@takes(model=GaussianModel, plan=Plan)
def best_learning_rate(
    model: GaussianModel,
    plan: Plan,
    *,
    low: float | None = None,
    high: float | None = None,
    tolerance: float = 0.01,
) -> BestRate:
    """The peak learning rate of least score error for a plan's grid and examples.

    Args:
        model: whose training is a run of an optimiser, `SGD` or `Adam`.
        plan: of that model, at any rate.
        low, high: range of rates; up to half the largest stable one where a proof is possible, else up to that (Adam:
            1), and from a millionth of it.
        tolerance: relative gap at which a proof ends.

    Returns:
        BestRate, with a lower bound over the range for plain SGD at a constant rate, with the average of all weights or
        none.

    Raises:
        ValueError: another training, or an empty range.

    >>> import codesign_opt as co
    >>> run = co.SGD(0.1, 64, 1000, average=co.WeightAverage.uniform())
    >>> model = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.0), sampler=co.Euler(), training=run)
    >>> plan = co.codesign(model, co.Prices(1.0, 1.0, 100), 1e6, stopping_sigma=0.1, levels=20, polish=False)
    >>> best = best_learning_rate(model, plan)
    >>> best.relative_gap <= 0.01
    True
    """
    return _best(_Errors.of(model, plan), low, high, number(tolerance, "tolerance", positive=True))


@takes(model=GaussianModel, plan=Plan)
def best_average(model: GaussianModel, plan: Plan, *, kind: str = "power") -> BestRate:
    """The length of the average of least score error for a plan's examples, with the best rate of every length.

    Args:
        model, plan: as in `best_learning_rate`.
        kind: "power" (EDM2's; up to the average of all weights) or "exponential".

    Returns:
        BestRate without a lower bound: a grid of lengths, refined about the best.
    """
    errors = _Errors.of(model, plan)
    choice(kind, "kind", ("power", "exponential"))
    uniform = WeightAverage.uniform().length
    longest = uniform if kind == "power" else errors.run.iterations
    lengths = np.geomspace(0.01 * uniform if kind == "power" else 1.0, longest, _LENGTHS)
    found: list[BestRate] = []

    def tried(log_length: float) -> float:
        average = WeightAverage(kind, float(min(np.exp(log_length), longest)))
        found.append(_best(replace(errors, run=errors.run.with_average(average)), None, None, None))
        return found[-1].error

    _refined(tried, np.log(lengths))
    best = min(found, key=lambda each: each.error)
    return replace(best, lower_bound=-np.inf, evaluations=sum(each.evaluations for each in found))


@dataclass(frozen=True, eq=False)
class _Errors:
    """Score error of a plan's grid and examples at any rate, in its two parts."""

    model: GaussianModel
    plan: Plan
    run: OptimiserRun

    @classmethod
    def of(cls, model: GaussianModel, plan: Plan) -> _Errors:
        run = model.training
        if not isinstance(run, OptimiserRun):
            raise ValueError(
                f"the model's training is {run.name}, whose law has no burn-in for a rate to shorten; give the model "
                "training=co.SGD(...) or co.Adam(...)."
            )
        return cls(model, plan, run)

    def at(self, rate: float) -> tuple[float, float]:
        """What the gradients' noise leaves, and what is left of the start."""
        model = replace(self.model, training=self.run.with_rate(rate))
        table = model.settled(self.plan.sigmas, self.plan.levels)
        size = len(table.levels)
        term = ScoreError(table)
        point = Point(self.plan.examples, np.zeros(size), np.ones(size))
        reducible, floor = term.levels_value(point)
        last, last_floor = term.final_value(point)
        return float(reducible.sum()) + last, float(floor.sum()) + last_floor


def _best(errors: _Errors, low: float | None, high: float | None, tolerance: float | None) -> BestRate:
    bands, run = errors.model.bands.eigenvalues, errors.run
    grid = errors.plan.sigmas
    nodes = np.zeros(0) if grid is None else grid[grid > 0]
    sigma = np.concatenate([nodes, errors.plan.levels.sigma, errors.plan.levels.edges])
    stable = run.largest_rate(bands, sigma) * (1 - 1e-6)
    monotone = run.monotone_in_rate
    # beyond half of the largest stable step, 1 / (1 + 2 / batch), a step shakes its own start more than it shortens it
    most = _ADAM_LARGEST if np.isinf(stable) else stable / 2 if monotone else stable
    high = most if high is None else min(scale_of(high, "high"), stable)
    low = high * 10**-_DECADES if low is None else scale_of(low, "low")
    if not low < high:
        raise ValueError(f"low is {low:g} and the largest rate {high:g}; a lower one is needed.")
    tried: dict[float, tuple[float, float]] = {}

    def error(log_rate: float) -> float:
        rate = float(np.clip(np.exp(log_rate), low, high))
        tried[rate] = errors.at(rate)
        return sum(tried[rate])

    _refined(error, np.linspace(np.log(low), np.log(high), _GRID))
    bound = -np.inf
    if tolerance is not None and monotone and high <= most:
        bound = _bound(error, tried, tolerance)
    rate = min(tried, key=lambda each: sum(tried[each]))
    return BestRate(run.with_rate(rate), sum(tried[rate]), *tried[rate], bound, low, high, len(tried))


def _refined(error: Callable[[float], float], grid: np.ndarray) -> None:
    """Evaluate on a grid, and by a bounded search between the neighbours of its best point."""
    values = [error(float(at)) for at in grid]
    best = int(np.argmin(values))
    around = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, grid.size - 1)])
    minimize_scalar(error, bounds=around, method="bounded", options={"xatol": _FAR})


def _bound(error: Callable[[float], float], tried: dict[float, tuple[float, float]], tolerance: float) -> float:
    """Lower bound over the rates tried: on an interval, the noise of its lower end and the start of its upper one."""
    while True:
        rates = sorted(tried)
        bounds = [tried[a][0] + tried[b][1] for a, b in itertools.pairwise(rates)]
        worst = int(np.argmin(bounds))
        best = min(sum(parts) for parts in tried.values())
        if not np.isfinite(best):  # a level without examples errs without end at any rate
            return -np.inf
        if bounds[worst] >= best * (1 - tolerance) or len(tried) >= _MOST:
            return min(bounds[worst], best)
        known = len(tried)
        error((np.log(rates[worst]) + np.log(rates[worst + 1])) / 2)
        if len(tried) == known:  # no float lies between
            return min(bounds[worst], best)
