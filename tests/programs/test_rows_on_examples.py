"""Constraints that ask for examples where no term needs any: the examples are decided, bought and told."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

ZERO = np.zeros(20)
TABLE = co.Coefficients(co.Levels.log_uniform(0.01, 10, 20), ZERO, ZERO, np.ones((1, 20)), terminal="rescale")
ERROR, RANGE = co.Discretization(TABLE), np.log(1000)
BUDGET = co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6


def error_of(steps):
    """Equal steps N of one band with response 1: (R^2 / N)^2 with R = log(10 / 0.01)."""
    return float((RANGE**2 / steps) ** 2)


@pytest.mark.parametrize(
    "asked",
    [
        lambda d: cp.sum(d.examples) >= 5e5,
        lambda d: cp.norm1(d.examples - 25_000) <= 1e-6,
        lambda d: cp.sum(d.steps) <= 1e-2 * cp.sum(d.examples),
        co.Floor(5e5 / RANGE),
        co.Floor(25_000.0, "examples"),
    ],
    ids=["sum", "distance", "steps by examples", "floor", "floor on examples"],
)
def test_examples_that_a_constraint_asks_for_are_bought(asked):
    plan = co.Problem(ERROR, [BUDGET, asked]).solve()
    assert plan.certificate.optimal
    assert plan.examples.sum() == pytest.approx(5e5, rel=1e-5)
    assert plan.error == pytest.approx(error_of(5_000.0), rel=1e-5)


def test_spent_examples_that_meet_a_floor_buy_nothing():
    plan = co.Problem(ERROR, [BUDGET, co.Floor(100.0, "examples")], spent=np.full(20, 100.0)).solve()
    assert plan.error == pytest.approx(error_of(10_000.0), rel=1e-6)
    assert not plan.new_examples.any()


def test_caps_and_budgets_alone_leave_a_sampler_program_what_it_was():
    plan = co.Problem(ERROR, [BUDGET, co.Cap(10.0)]).solve()
    assert plan.error == pytest.approx(error_of(10_000.0), rel=1e-6)
    assert not plan.examples.any()


def test_more_than_the_budget_allows_is_still_infeasible():
    with pytest.raises(co.InfeasibleError, match="more"):
        co.Problem(ERROR, [BUDGET, co.named("more", lambda d: cp.sum(d.examples) >= 2e6)]).solve()


SCORE = co.ScoreError(
    co.Coefficients(co.Levels.log_uniform(0.01, 10, 20), np.ones(20), ZERO, np.ones((1, 20)), terminal="rescale")
)


def test_given_examples_count_those_already_spent_and_only_new_ones_are_paid():
    """As in `certify` and in a plan: all examples. The same examples with and without a past have the same error."""
    rng = np.random.default_rng(0)
    every = rng.uniform(1e3, 1e4, 20)
    spent = every * rng.uniform(0, 1, 20)
    room = 1e3
    plan = co.Problem(
        SCORE + ERROR,
        [co.Compute(co.Prices(1.0, 1.0, 1)) <= float((every - spent).sum()) + room],
        examples=every,
        spent=spent,
    ).solve()
    fresh = co.Problem(SCORE + ERROR, [co.Steps() <= room], examples=every).solve()
    assert plan.error == pytest.approx(fresh.error, rel=1e-6)
    np.testing.assert_allclose(plan.examples, every, rtol=1e-12)
    np.testing.assert_allclose(plan.new_examples, every - spent, rtol=1e-9)
    problem = co.Problem(SCORE + ERROR, [co.Steps() <= room], examples=every, spent=spent)
    assert problem.certify(steps=fresh.steps).optimal
    assert problem.certify(examples=every, steps=fresh.steps).optimal


def test_fewer_given_examples_than_are_spent_are_refused_by_name():
    with pytest.raises(ValueError, match=r"Problem\.examples .* index 3 .* already spent"):
        co.Problem(
            SCORE + ERROR, [co.Steps() <= 10], examples=np.full(20, 5.0), spent=np.where(np.arange(20) == 3, 6.0, 1.0)
        )
