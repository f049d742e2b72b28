"""Branch and bound over stopping points by declared programs: for questions with terms or constraints of one's own."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..basics.errors import CodesignError, InfeasibleError, NotCertifiedError
from ..programs.priced_bound import bound_by_prices
from ..programs.problem import Problem
from ..results.plan import Plan
from .interval_program import interval_program
from .question import Study
from .stopping_points import bounds_of, solved_at

__all__ = ["Between", "declared_bounds"]

_EVALUATIONS = 128
_NARROW = 1e-3  # an interval of stopping points this narrow in log sigma is not halved
_NEARLY = 0.1  # of the tolerance: where prices bound the best point so closely, or as closely as a solved program
_AS_GOOD = 1e-5  # but for this, relative, they bound what lies about it
_SHORT = 0.02  # of log sigma, intervals of which are solved where prices say too little: none may be feasible
_POINT = 1e-7  # of log sigma, as narrow as an interval that stands for one stopping point


@dataclass(frozen=True)
class Between:
    """What is proved between stopping points.

    Attributes:
        bound: no stopping point of the range has a smaller error; -inf where nothing is proved.
        evaluations: programs that were bounded.
        intervals: (low, high, bound) of each interval.
        missing: what was left out, and what stands in the way, each once.
    """

    bound: float
    evaluations: int
    intervals: tuple[tuple[float, float, float], ...]
    missing: tuple[str, ...]


def declared_bounds(
    study: Study,
    sigmas: list[float],
    best: float,
    at: float,
    start: Plan | None,
    tolerance: float,
    plans: Sequence[Plan] = (),
) -> Between:
    """Lower bounds over the intervals between stopping points, the weakest halved while that can help.

    Args:
        sigmas: stopping points tried, ascending.
        best, at: the smallest certified error, and its stopping point.
        start: that point's plan.
        plans: of the stopping points tried: what is proved of shared parameters starts from the nearest below.
        tolerance: intervals within it of the best are not halved.
    """
    search = _Search(study, sigmas, start, best * (1 - tolerance), plans)
    near = search.bounded(at, at * (1 + _POINT), best * (1 - _NEARLY * tolerance))
    heap = [(search.bounded(low, high), low, high) for low, high in pairwise(sigmas)]
    heapq.heapify(heap)
    # where even the best point alone is not bounded closely, something is missing that no halving brings back
    while near >= search.wanted and search.evaluations + 2 <= _EVALUATIONS:
        value, low, high = heap[0]
        if value >= search.wanted or np.log(high / low) < _NARROW:
            break
        middle = float(np.sqrt(low * high))
        heapq.heapreplace(heap, (max(search.bounded(low, middle), value), low, middle))
        heapq.heappush(heap, (max(search.bounded(middle, high), value), middle, high))
    lowest = min((value for value, *_ in heap), default=-np.inf)
    intervals = sorted((low, high, value) for value, low, high in heap)
    return Between(float(min(lowest, best)), search.evaluations, tuple(intervals), tuple(search.missing))


class _Search:
    """Bounds of intervals: without all that the user added, by the prices of a plan nearby, by the declared program.

    At the best stopping point, which comes first, both are asked: where prices say as much there, no interval is solved
    but short ones that they leave open, and else every one is.
    """

    def __init__(
        self, study: Study, sigmas: list[float], start: Plan | None, wanted: float, plans: Sequence[Plan]
    ) -> None:
        self.study, self.start, self.wanted = study, start, wanted
        self.plans = sorted(plans, key=lambda plan: plan.stopping_sigma)
        self.evaluations, self.by_prices = 0, True
        self.missing: dict[str, None] = {}
        self.plain = replace(study, terms=(), constraints=())
        self.solved = solved_at(self.plain, sigmas)

    def _near(self, low: float) -> Plan | None:
        """The plan with the stopping point nearest below: it has trained every level of the interval."""
        below = [plan for plan in self.plans if plan.stopping_sigma <= low * (1 + _POINT)]
        return below[-1] if below else self.start

    def bounded(self, low: float, high: float, nearly: float | None = None) -> float:
        """A lower bound over [low, high]; at the best point what is `nearly` its error."""
        program = interval_program(self.study, low, high, self._near(low))
        self.missing.update(dict.fromkeys(program.missing))
        if program.problem is None:
            return -np.inf
        value = -np.inf
        if program.nonnegative and self.solved:
            value = float(bounds_of(self.plain, [(low, high)], self.solved)[0])
        if program.plain or value >= self.wanted:
            return value
        self.evaluations += 1
        priced = self._by_prices(program.problem, float(np.sqrt(low * high))) if self.by_prices else -np.inf
        long = nearly is None and np.log(high / low) > _SHORT
        if self.by_prices and (long or priced >= (self.wanted if nearly is None else nearly)):
            return max(value, priced)
        found, reason = _bound(self.study, program.problem, self.start)
        if reason:
            self.missing[f"stopping points {low:.4g} to {high:.4g}: {reason}"] = None
        if nearly is not None:
            self.by_prices = priced >= found - _AS_GOOD * abs(found)
        return max(value, priced, found)

    def _by_prices(self, problem: Problem, middle: float) -> float:
        """The bound of a program by the prices of the plan that stops nearest."""
        nearest = min(self.plans, key=lambda plan: abs(np.log(plan.stopping_sigma / middle)), default=self.start)
        if nearest is None:
            return -np.inf
        try:
            return bound_by_prices(problem, nearest)
        except CodesignError:
            return -np.inf


def _bound(study: Study, problem: Problem, start: Plan | None) -> tuple[float, str]:
    """The certified lower bound of a program, and what stands in its way."""
    try:
        return problem.solve(tolerance=study.tolerance, start=start).certificate.lower_bound, ""
    except InfeasibleError:
        return np.inf, ""  # so is every program above it
    except NotCertifiedError as error:
        return (-np.inf if error.plan is None else error.plan.certificate.lower_bound), _first(error)
    except CodesignError as error:
        return -np.inf, _first(error)


def _first(error: CodesignError) -> str:
    return str(error).split(". ")[0][:200]
