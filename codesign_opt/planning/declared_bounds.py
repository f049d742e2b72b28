"""Branch and bound over stopping points by declared programs: for questions with terms or constraints of one's own."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..basics.errors import CodesignError, InfeasibleError, NotCertifiedError
from ..programs.problem import Problem
from ..results.plan import Plan
from .interval_program import interval_program
from .question import Study
from .stopping_points import bounds_of, solved_at

__all__ = ["Between", "declared_bounds"]

_EVALUATIONS = 128
_NARROW = 1e-3  # an interval of stopping points this narrow in log sigma is not halved
_POINT = 1e-7  # of log sigma, as narrow as an interval that stands for one stopping point


@dataclass(frozen=True)
class Between:
    """What is proved between stopping points.

    Attributes:
        bound: no stopping point of the range has a smaller error; -inf where nothing is proved.
        evaluations: programs it took.
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
    near = search.bounded(at, at * (1 + _POINT))
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
    """Bounds of intervals: first without all that the user added, then by the declared program."""

    def __init__(
        self, study: Study, sigmas: list[float], start: Plan | None, wanted: float, plans: Sequence[Plan]
    ) -> None:
        self.study, self.start, self.wanted = study, start, wanted
        self.plans = sorted(plans, key=lambda plan: plan.stopping_sigma)
        self.evaluations = 0
        self.missing: dict[str, None] = {}
        self.plain = replace(study, terms=(), constraints=())
        self.solved = solved_at(self.plain, sigmas)

    def _near(self, low: float) -> Plan | None:
        """The plan with the stopping point nearest below: it has trained every level of the interval."""
        below = [plan for plan in self.plans if plan.stopping_sigma <= low * (1 + _POINT)]
        return below[-1] if below else self.start

    def bounded(self, low: float, high: float) -> float:
        """A lower bound over [low, high]."""
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
        found, reason = _bound(self.study, program.problem, self.start)
        if reason:
            self.missing[f"stopping points {low:.4g} to {high:.4g}: {reason}"] = None
        return max(value, found)


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
