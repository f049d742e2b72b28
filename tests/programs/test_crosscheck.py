"""Structured answers and the declared cvxpy programs hold each other; benchmarks/test_fuzz.py has hundreds more."""

from __future__ import annotations

import os

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.certificate.lagrangian import LagrangianBound
from codesign_opt.modeling.design import Point
from tests.helpers.crosscheck import KINDS, compare

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"  # hundreds in benchmarks/test_fuzz.py


@pytest.mark.cases(1)
@pytest.mark.parametrize(("kind", "count"), [("joint", 24 if FULL else 7), ("water-filling", 4), ("information", 5),
                                             ("information, blocks", 7)])  # fmt: skip
def test_random_problems_equal_the_declared_programs_where_cvxpy_certifies(kind, count):
    """Every form, order, budget and bound, up to 16 decades: values within 1e-7, no bound above a feasible value."""
    found = [compare(*KINDS[kind](seed)) for seed in range(count)]
    assert [(seed, each.wrong) for seed, each in enumerate(found) if each.wrong is not None] == []
    assert all(each.structured for each in found)
    assert sum(each.declared <= 1e-7 for each in found) >= 0.5 * count


@pytest.mark.parametrize("seed", [198, 388, 521, 616])
def test_a_dominant_last_evaluation_costs_the_certificate_no_digits(seed):
    """The tangent of A / near^2 at the candidate lost half of them, and a faint trace of error the rest."""
    plan = KINDS["joint"](seed)[0].solve()
    assert len(plan.attempts) == 1
    assert abs(plan.certificate.relative_gap) < 1e-8


def test_a_problem_with_nothing_to_reduce_is_certified():
    zero = np.zeros(5)
    table = co.Coefficients(co.Levels.log_uniform(0.1, 10, 5), score=zero, floor=zero, response=np.zeros((0, 5)))
    plan = co.Problem(co.ScoreError(table), [co.Compute(co.Prices(1.0, 1.0, 1)) <= 10.0]).solve()
    assert plan.certificate.optimal
    assert plan.error == 0


def test_a_candidate_without_examples_near_the_stopping_point_has_a_bound():
    """The last evaluation's error is infinite there; its tangent does not exist, and 0 is still below it."""
    zero = np.zeros(4)
    table = co.Coefficients(
        co.Levels.log_uniform(0.1, 10, 4), score=np.ones(4), floor=zero, response=np.zeros((0, 4)),
        coupling=co.Local(0.5), final_score=1.0,
    )  # fmt: skip
    problem = co.Problem(
        co.ScoreError(table), [co.Compute(co.Prices(1.0, 1.0, 1), part="training") <= 4.0], steps=np.ones(4)
    )
    proof = problem.certify(examples=np.array([0.0, 1.0, 1.0, 1.0]))
    assert proof.value == np.inf
    assert not proof.optimal
    bound = LagrangianBound(4, zero)
    assert co.ScoreError(table).add_to(bound, 1.0, Point(np.array([0.0, 1.0, 1.0, 1.0]), zero, np.ones(4)))
    assert bound.constant == 0


def test_a_candidate_without_steps_has_a_bound():
    table = co.Coefficients(
        co.Levels.log_uniform(0.1, 10, 3), score=np.ones(3), floor=np.zeros(3), response=[[1.0, 0.0, 2.0]]
    )
    bound, point = LagrangianBound(3, np.zeros(3)), Point(np.ones(3), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    assert co.Discretization(table).add_to(bound, 1.0, point)
    assert co.Discretization(table).levels_value(point).tolist() == [np.inf, 0.0, np.inf]
    assert bound.constant == 0
    assert not bound.powers[0][1].any()


@pytest.mark.slow
def test_floors_that_leave_a_hundred_thousandth_of_the_budget_are_solved():
    """The first guess spread the whole budget, and the climb never came back from there."""
    plan = KINDS["joint"](1208)[0].solve()
    assert [attempt["solver"] for attempt in plan.attempts] == ["dual Newton"]
    assert plan.certificate.relative_gap < 1e-8
