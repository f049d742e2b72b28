"""Lower bound of shared parameters over an interval of stopping points, from the nearest plan's own Y.

docs/theory.md section 7.7. With Y and the multipliers of a plan nearby, 2 t <G, Y> - t^2 <Y, M Y> is below the error at
every stopping point whose response G is known to lie above; more levels only add to M, so that those of the interval
are all allowed, at examples that cost more than they are worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..certificate.lagrangian import LagrangianBound
from ..ingredients.levels import Levels
from ..modeling import Design, Point, Term
from ..modeling.shared_parameters import SharedParameters
from ..results.plan import Plan
from .question import Study

__all__ = ["SharedBelow", "add_shared", "only_shared", "shared_below", "shared_terms"]

_SAMPLES = 129  # of a price that is a function of sigma, whose least is taken


def shared_terms(study: Study) -> Iterator[tuple[float, SharedParameters]]:
    """(weight, term) of the study's own terms that are shared parameters, and exactly that."""
    for term in study.terms:
        for weight, leaf in term.leaves():
            if type(leaf) is SharedParameters:
                yield weight, leaf


def only_shared(study: Study) -> bool:
    """Whether the study has no terms but shared parameters: one of these, trained under a budget; or none at all."""
    count = sum(1 for term in study.terms for _ in term.leaves())
    return count == 0 or (count == len(list(shared_terms(study))) == 1 and study.trains)


def add_shared(
    bound: LagrangianBound,
    study: Study,
    weighted: tuple[float, SharedParameters],
    interval: tuple[float, float],
    near: Plan | None,
    price: float,
) -> None:
    """Add the term from below at every stopping point of an interval to a bound on the levels above the interval.

    Args:
        bound: with the budgets' prices added; an example must not be worth more than its price on any level.
        study: the question.
        weighted: weight of the term, and the term.
        interval: its ends.
        near: the plan of the nearest stopping point; without one nothing is added, which is right as well.
        price: multiplier of the budget.
    """
    weight, term = weighted
    if near is None or study.prices is None:
        return
    low, high = interval
    solution = _solution(term, near)
    whole = study.model.coefficients(low, study.levels).levels
    above = study.model.coefficients(high, study.levels).levels
    gains = weight * _gains(term, whole, solution)
    upper = weight * _gains(term, above, solution)
    overlap = weight * _least_overlap(term, low, high, solution)
    prior = 0.0 if term.prior is None else weight * float(np.sum(solution * (term.prior @ solution)))
    prior += 0.0 if study.run is None else float(gains @ study.run.examples_on(whole))
    if not overlap > 0:
        return
    # an example on a level of the interval pays nothing else: there t must make none worth more than its price
    own = price * _least_prices(study, whole, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        largest = float(np.min(np.where(gains > 0, own / gains, np.inf)))
        largest = min(largest, float(np.min(np.where(upper > 0, bound.examples_price / upper, np.inf))))
    t = min(np.sqrt(largest), overlap / prior if prior > 0 else np.inf, 1e150)
    bound.add_linear(2 * t * overlap - t**2 * prior, -(t**2) * upper, np.zeros(upper.size))


@dataclass(frozen=True, eq=False)
class SharedBelow(Term):
    """A shared-parameter error from below over an interval of stopping points: constant - gains . examples."""

    constant_part: float
    gains: Array

    @property
    def name(self) -> str:
        return "SharedParameters"

    def linear_prices(self, design: Design) -> tuple[Array, Array, float]:
        spent = float(self.gains @ design.reference.spent)
        return -self.gains, np.zeros(self.gains.size), self.constant_part - spent

    def expression(self, design: Design) -> cp.Expression:
        _, _, constant = self.linear_prices(design)
        return constant - (self.gains * design.reference.new_examples) @ design.new_variable

    def value(self, design: Design, point: Point) -> float:
        return self.constant_part - float(self.gains @ point.examples)


def shared_below(term: SharedParameters, near: Plan, interval: tuple[float, float], levels: Levels) -> SharedBelow:
    """The term from below on levels of which the lowest hold the interval, from the Y of a plan nearby."""
    solution = _solution(term, near)
    prior = 0.0 if term.prior is None else float(np.sum(solution * (term.prior @ solution)))
    each = _gains(term, term.levels, solution)
    edges = term.levels.edges
    touched = [
        (edges[:-1] < high) & (edges[1:] > low) for low, high in zip(levels.edges, levels.edges[1:], strict=False)
    ]
    gains = np.array([each[on].max(initial=0.0) for on in touched])
    return SharedBelow(2 * _least_overlap(term, *interval, solution) - prior, gains)


def _solution(term: SharedParameters, near: Plan) -> Array:
    """(P, r) Y of a plan, column by column of the stated response."""
    here, stop = term.at_levels(near.levels), near.stopping_sigma
    return here.inverse_times(near.examples, term.response_from(stop) * term.factors(stop))


def _least_prices(study: Study, whole: Levels, high: float) -> Array:
    """(L,) least price of an example on these levels at any stopping point up to `high`, which may cut them."""
    assert study.prices is not None
    prices = study.prices.example_price(whole)
    cut = whole.edges[:-1] < high
    if callable(study.prices.example) and cut.any():
        top = float(whole.edges[1:][cut][-1])
        prices[cut] = study.prices.example_price(Levels(np.geomspace(whole.edges[0], top, _SAMPLES))).min()
    return np.asarray(prices)


def _gains(term: SharedParameters, levels: Levels, solution: Array) -> Array:
    """(L,) |A_l Y|^2 of an example on each of these levels."""
    seen = (np.einsum("lkp,pr->lkr", term.features, solution) ** 2).sum(axis=(1, 2))
    return np.asarray((seen / term.residual_variance)[term.places(levels)])


def _least_overlap(term: SharedParameters, low: float, high: float, solution: Array) -> float:
    """At most <G(r), Y> at every stopping point r in [low, high].

    Column by column a factor, which lies between its values at the ends, times a function that is linear in log r
    between the stated edges.
    """
    edges = term.levels.edges
    corners = [low, *edges[(edges > low) & (edges < high)], high]
    linear = np.stack([np.sum(term.response_from(float(r)) * solution, axis=0) for r in corners])
    factors = np.stack([term.factors(low), term.factors(high)])
    products = [
        f * v for f in (factors.min(axis=0), factors.max(axis=0)) for v in (linear.min(axis=0), linear.max(axis=0))
    ]
    return float(np.min(products, axis=0).sum())
