"""Limits at the end of what there is: nothing left to buy, targets that nothing reaches, rows that leave nothing."""

from __future__ import annotations

import os

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling import Bound

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LEVELS = co.Levels.log_uniform(0.01, 10.0, 12)
RNG = np.random.default_rng(5)
TABLE = co.Coefficients(
    LEVELS, score=np.exp(RNG.normal(size=12)), floor=0.1 * np.exp(RNG.normal(size=12)),
    response=np.exp(RNG.normal(size=(1, 12))), order=2, terminal="rescale",
)  # fmt: skip
S, D = co.ScoreError(TABLE), co.Discretization(TABLE)
PRICES = co.Prices(2.0, 1.0, 100)
TRAINING = co.named("training", co.Compute(PRICES, part="training") <= 0.0)
SPENT = 1e3 * np.exp(RNG.normal(size=12))
STEPS = np.full(12, 0.7)
PARTS = np.maximum(1.0, TABLE.kappa / STEPS)  # the local coupling, form "max"


def least_discretization(steps):
    """Hoelder: min (sum R n^-q)^2 under sum n = N is (sum R^(1/(q+1)))^(2(q+1)) / N^(2q)."""
    rate = TABLE.step_response[0]
    return float(np.sum(rate ** (1 / 3)) ** 6 / steps**4)


NOTHING = {
    "a budget of zero": TRAINING,
    "a sum": co.named("no more", lambda d: cp.sum(d.new_examples) <= 0),
    "a norm": co.named("no more", lambda d: cp.norm(d.new_examples) <= 0),
    "levels": co.named("no more", lambda d: d.new_examples <= 0),
    "an equality": co.named("no more", lambda d: cp.sum(d.new_examples) == 0),
    "caps": co.Cap(SPENT, "examples"),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("kind", NOTHING)
def test_where_everything_is_spent_already_what_is_left_to_decide_is_solved(kind):
    """With the sampler given nothing is left: the error is the sum over levels. Else the steps are, as if given."""
    score = float((TABLE.example_error / SPENT + TABLE.floor_error) @ PARTS)
    plan = co.Problem(S, [NOTHING[kind]], steps=STEPS, spent=SPENT).solve()
    assert plan.certificate.optimal
    assert np.all(plan.new_examples <= 1e-9 * SPENT)
    assert plan.error == pytest.approx(score, rel=1e-9)
    plan = co.Problem(S + D, [NOTHING[kind], co.Steps() <= 40], spent=SPENT).solve()
    given = co.Problem(S + D, [co.Steps() <= 40], examples=SPENT).solve()
    assert plan.error == pytest.approx(given.error, rel=2e-6)


def test_the_price_of_a_budget_of_zero_is_what_the_first_examples_gain():
    plan = co.Problem(S, [TRAINING], steps=STEPS, spent=SPENT).solve()
    gain = np.max(TABLE.example_error * PARTS / SPENT**2 / 2.0)
    assert plan.shadow_prices["training"] == pytest.approx(-gain, rel=0.1)  # steepest at zero


def test_the_cheapest_plan_for_a_target_that_is_reached_already_buys_nothing():
    rows = [co.named("target", S <= 1e3), co.Steps() <= 40]
    plan = co.Problem(co.Compute(PRICES, part="training"), rows, spent=SPENT).solve()
    assert (plan.error, plan.new_examples.max()) == (0.0, 0.0)


@pytest.mark.cases(1)
@pytest.mark.parametrize("limit", [0.0, -1e-9, -1.0, -1e9])
def test_a_target_that_no_examples_and_steps_reach_is_named_alone_with_what_the_others_leave(limit):
    count = 15.0
    target = co.named("target", Bound(D, limit))
    with pytest.raises(co.InfeasibleError, match=r"'target'.* cannot be met by any number") as caught:
        co.Problem(S, [target, co.Compute(PRICES) <= 1e6, co.named("steps", co.Steps() <= count)]).solve()
    (conflict,) = caught.value.conflicts
    assert conflict["relaxed"] == pytest.approx(least_discretization(count), rel=1e-4)
    assert conflict["amount"] == pytest.approx(conflict["relaxed"] - limit)
    remedy = co.named("target", Bound(D, 1.01 * conflict["relaxed"]))
    rows = [remedy, co.Compute(PRICES) <= 1e6, co.named("steps", co.Steps() <= count)]
    assert co.Problem(S, rows).solve().certificate.optimal


def test_a_target_below_the_floor_of_a_score_error_needs_no_solver():
    """More examples and steps leave the floor: below it is nothing, and what lies above it is reached."""
    floor = float(TABLE.floor_error.sum())
    for share, ends in ((0.0, "cannot"), (0.999, "cannot"), (1.001, None)):
        problem = co.Problem(co.Compute(PRICES), [co.named("target", Bound(S + D, share * floor))])
        if ends is None:
            assert problem.solve().certificate.optimal
            continue
        with pytest.raises(co.InfeasibleError, match="cannot be met by any number") as caught:
            problem.solve()
        assert caught.value.conflicts[0]["relaxed"] == pytest.approx(floor, rel=1e-9)


@pytest.mark.parametrize(
    ("row", "quantity"),
    [
        pytest.param(lambda d: cp.norm(d.steps[:4]) <= 0, "steps", marks=pytest.mark.slow),
        (lambda d: cp.max(d.examples[3:]) <= 0, "examples"),
        pytest.param(lambda d: cp.sum_squares(d.examples) <= 0, "examples", marks=pytest.mark.slow),
    ],
)
def test_rows_through_zero_that_leave_nothing_are_proved_to(row, quantity):
    rows = [co.Compute(PRICES) <= 1e6, co.named("none", row)]
    with pytest.raises(co.InfeasibleError, match=f"'none'.*leaves no {quantity} at sigma"):
        co.Problem(S + D, rows).solve()


@pytest.mark.parametrize("limit", [1e-6, 1.0])
def test_a_little_is_not_nothing(limit):
    rows = [co.Steps() <= 40, co.named("few", lambda d: cp.norm(d.new_examples) <= limit)]
    plan = co.Problem(S + D, rows).solve()
    assert plan.certificate.optimal
    assert np.linalg.norm(plan.examples) == pytest.approx(limit, rel=1e-5)


@pytest.mark.parametrize("spent", [None, SPENT])
def test_negative_budgets_are_named_with_what_they_would_have_to_be(spent):
    for row, relaxed in (
        (co.Compute(PRICES, part="training") <= -5.0, 0.0),
        (co.Steps() <= -2.0, 0.0),
        (co.Compute(PRICES) <= -1.0, 0.0),
    ):
        with pytest.raises(co.InfeasibleError) as caught:
            co.Problem(S + D, [row, co.Compute(PRICES) <= 1e6], spent=spent).solve()
        assert caught.value.conflicts[0]["relaxed"] == pytest.approx(relaxed)


@pytest.mark.parametrize("seed", range(4 if FULL else 2))
def test_amounts_on_steps_do_not_depend_on_examples_that_only_the_budget_charges(seed):
    """Steps <= K against a cap on their size: sum of width / size is what is needed, whatever examples cost."""
    rng = np.random.default_rng([26, seed])
    levels = co.Levels(np.exp(np.linspace(np.log(0.02), np.log(0.02) + rng.uniform(3, 9), 13)))
    table = co.Coefficients(
        levels, np.exp(rng.normal(size=12)), np.zeros(12), np.exp(rng.normal(size=(2, 12))), order=2, terminal="rescale"
    )
    size, over = float(np.median(levels.width)) * rng.uniform(0.1, 0.5), 1 + 10 ** rng.uniform(-2, 1)
    needed = float((levels.width / size).sum())
    paid = co.Prices(10 ** rng.uniform(-4, 4), 10 ** rng.uniform(-4, 4), 1.0)
    limits = [co.named("steps", co.Steps() <= needed / over), co.named("size", co.Cap(size, "step_size"))]
    budget = co.Compute(paid) <= 1e4 * (paid.example * 10 ** rng.uniform(2, 11) + paid.evaluation * needed)
    with pytest.raises(co.InfeasibleError) as caught:
        co.Problem(co.ScoreError(table) + co.Discretization(table), [budget, *limits]).solve()
    told = {conflict["name"]: conflict["relaxed"] for conflict in caught.value.conflicts}
    assert told == {"steps": pytest.approx(needed, rel=1e-3), "size": pytest.approx(size * over, rel=1e-3)}
