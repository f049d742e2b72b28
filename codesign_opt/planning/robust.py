"""robust(): the plan whose worst error is least, where coefficients are known to lie in a box or an ellipsoid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.checks import number, shown
from ..basics.errors import NotCertifiedError
from ..basics.spelling import spelled
from ..basics.wording import aligned, percent, quantity
from ..ingredients.prices import Prices
from ..ingredients.training_run import TrainingRun
from ..modeling import Point, ScoreError, Truncation
from ..models.base import Model, check_model
from ..models.coefficients import Coefficients
from ..results.plan import Plan
from ..results.text import wrapped
from .codesign import codesign
from .coefficient_sets import CoefficientSet, LocalSet, WeightedModel, Weights
from .optimum_change import error_of
from .question import Study

__all__ = ["RobustPlan", "robust"]

_ROUNDS = 4  # of weights found at one stopping point and the stopping point found for these weights
_MOVES = 40  # of the weights at one stopping point
_SAME = 1e-3  # in log sigma: a stopping point that moves less has stayed


@dataclass(frozen=True, eq=False)
class RobustPlan:
    """The least worst case over a set of coefficients (docs/theory.md section 8.6).

    Errors are those of the program at the stopping points of the two plans.

    Attributes:
        plan: what to run.
        nominal: the best plan at the coefficients as they are.
        worst, nominal_worst: the worst errors of the two over the set.
        error, nominal_error: their errors at the coefficients as they are.
        lower_bound: certified: no design at the robust plan's stopping point has a smaller worst case.
        within: the set.
    """

    plan: Plan
    nominal: Plan
    worst: float
    nominal_worst: float
    error: float
    nominal_error: float
    lower_bound: float
    within: CoefficientSet

    @property
    def relative_gap(self) -> float:
        """(worst - lower_bound) / worst: what is not proved at this stopping point."""
        return (self.worst - self.lower_bound) / self.worst

    @property
    def price(self) -> float:
        """Price of robustness: relative excess error where the coefficients are what they were thought to be."""
        return self.error / self.nominal_error - 1.0

    @property
    def gain(self) -> float:
        """Relative excess of the nominal plan's worst case over this one's."""
        return self.nominal_worst / self.worst - 1.0

    def __str__(self) -> str:
        rows = [
            ["as measured", quantity(self.nominal_error), quantity(self.error)],
            ["at worst", quantity(self.nominal_worst), quantity(self.worst)],
        ]
        said = (
            f"Robust against {self.within!r}: costs {percent(self.price)} of the error where the coefficients are as "
            f"measured, saves {percent(self.gain)} of the worst case"
        )
        proof = f"No design at this stopping point has a smaller worst case, proved to {quantity(self.relative_gap, 2)}"
        return "\n".join(
            [*aligned(["Error of the program", "nominal", "robust"], rows, left=(0,)), *wrapped("", said), proof]
        )


@spelled
def robust(
    model: Model,
    prices: Prices | None = None,
    budget: float | None = None,
    *,
    within: CoefficientSet,
    steps: int | None = None,
    run: TrainingRun | None = None,
    stopping_sigma: float | None = None,
    levels: int = 200,
    tolerance: float = 1e-6,
) -> RobustPlan:
    """The plan whose worst error over a box or an ellipsoid of coefficients is least.

    The error is linear in the score error's coefficients, which multiply convex functions of the design, and so its
    largest value over a convex set is convex (docs/theory.md section 8.6). Over a box the worst is a corner. Over an
    ellipsoid it is the error plus a norm; least worst and worst best agree there, and a certified optimum at any
    coefficients of the set is a lower bound.

    Args:
        model, prices, budget, steps, run, stopping_sigma, levels: as for `codesign`; grids keep the program's density.
        within: a co.Box of stated relative widths, or the co.Ellipsoid of the measured numbers.
        tolerance: certified relative gap between the worst case and its bound.

    Raises:
        ValueError: an argument out of range, or an ellipsoid so wide that a coefficient may be negative.
        NotCertifiedError: the gap did not close.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> box = co.Box(score=lambda sigma: 0.5 * (sigma > 1.0))
    >>> found = co.robust(model, co.Prices(1.0, 1.0, 100), 1e5, within=box, stopping_sigma=0.02, levels=40)
    >>> found.worst <= found.nominal_worst, found.price >= 0
    (True, True)
    """
    check_model(model, "robust")
    if not isinstance(within, CoefficientSet):
        raise ValueError(f"robust: within is {shown(within)}; give a co.Box or a co.Ellipsoid.")
    tolerance = number(tolerance, "tolerance", positive=True)
    study = Study(model, prices, budget, steps, run, (), (), levels, min(tolerance / 10, 1e-7))

    def planned(who: Model, stop: float | None) -> Plan:
        return codesign(who, prices, budget, steps=steps, run=run, stopping_sigma=stop, levels=levels, polish=False)

    nominal = planned(model, stopping_sigma)
    base = _Saddle.at(study, within, _stop(nominal), tolerance)
    best, stop = base, _stop(nominal)
    for _ in range(0 if stopping_sigma is not None else _ROUNDS):
        moved = _stop(planned(WeightedModel.of(model, best.weights), None))
        if abs(np.log(moved / stop)) < _SAME:
            break
        stop = moved
        found = _Saddle.at(study, within, stop, tolerance)
        if found.worst >= best.worst:
            break
        best = found
    plan = planned(WeightedModel.of(model, best.weights), best.stop)
    nominal_point = _point(study.solve(base.stop))
    return RobustPlan(
        plan, nominal, best.worst, base.worst_of(nominal_point), best.error_of(best.point),
        base.error_of(nominal_point), best.lower_bound, within,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Saddle:
    """The least worst case at one stopping point, and the coefficients that it is best for."""

    study: Study
    table: Coefficients
    near: LocalSet
    stop: float
    point: Point
    weights: Weights
    worst: float
    lower_bound: float

    @classmethod
    def at(cls, study: Study, within: CoefficientSet, stop: float, tolerance: float) -> _Saddle:
        """Weights and design in turn, each the best answer to the other's, halfway where that does not gain.

        Raises:
            NotCertifiedError: worst case and bound do not meet.
        """
        table = study.table(stop)
        near = within.at(study.model, table)
        plan = study.solve(stop)
        weights = near.worst(table, _point(plan))
        best: tuple[float, Point] = (np.inf, _point(plan))
        bound, at = -np.inf, weights
        share = 1.0
        for _ in range(_MOVES):
            found = _solved(study, weights.of(table))
            if found.certificate.lower_bound > bound:
                bound, at = found.certificate.lower_bound, weights
            else:
                share *= 0.5
            own = cls(study, table, near, stop, _point(found), weights, 0.0, 0.0)
            value = own.worst_of(own.point)
            if value < best[0]:
                best = value, own.point
            if best[0] - bound <= tolerance * best[0]:
                return cls(study, table, near, stop, best[1], at, best[0], bound)
            weights = _between(at, near.worst(table, own.point), share)
        raise NotCertifiedError(
            f"robust: the worst case {quantity(best[0])} and its bound {quantity(bound)} at sigma {quantity(stop)} "
            "do not meet; raise tolerance, or lower reach."
        )

    def worst_of(self, point: Point) -> float:
        """The worst error of a design over the set."""
        return error_of(self.study, self.near.worst(self.table, point).of(self.table), point)

    def error_of(self, point: Point) -> float:
        """Its error at the coefficients as they are."""
        return error_of(self.study, self.table, point)


def _between(one: Weights, other: Weights, share: float) -> Weights:
    """A share of the way from one to the other: still in the set, which is convex."""

    def mixed(name: str) -> Any:
        ends = getattr(one, name), getattr(other, name)
        return ends[1] if ends[0] is None else (1 - share) * ends[0] + share * ends[1]

    names = ("score", "floor", "final_score", "final_floor", "response", "truncation")
    return replace(other, **{name: mixed(name) for name in names})


def _solved(study: Study, table: Coefficients) -> Plan:
    problem = study.declare([ScoreError(table), study.discretization(table), Truncation(table)], table)
    return problem.solve(tolerance=study.tolerance)


def _point(plan: Plan) -> Point:
    return Point(plan.new_examples, plan.examples - plan.new_examples, plan.steps)


def _stop(plan: Plan) -> float:
    return plan.stopping_sigma if plan.program_stopping_sigma is None else plan.program_stopping_sigma
