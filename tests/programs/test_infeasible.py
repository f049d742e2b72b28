"""Infeasible programs name the rows in conflict and the amounts that would help."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.errors import InfeasibleError
from codesign_opt.programs.attempts import first_point
from codesign_opt.programs.conflicts import diagnose
from tests.helpers.declared import named_budget
from tests.helpers.programs import Joint

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

pytestmark = pytest.mark.usefixtures("declared_programs_only")


def conflict(problem, name):
    with pytest.raises(InfeasibleError) as caught:
        problem.solve()
    found = {record["name"]: record for record in caught.value.conflicts}
    assert name in str(caught.value)
    assert name in found, str(caught.value)
    return found


def test_floors_beyond_the_budget_name_both_with_right_amounts():
    truth = Joint.random(12, 3)
    steps = np.full(12, 2.0)
    cheap = replace(truth, evaluation=np.full(12, 1.0))
    floor = 2 * truth.budget / truth.example.sum()

    def problem(budget, low):
        rows = [named_budget(cheap.prices, budget, "training"), co.named("floor", co.Floor(low, "examples"))]
        return co.Problem(co.ScoreError(truth.table), rows, steps=steps)

    found = conflict(problem(truth.budget, floor), "budget")
    assert "floor" in found
    needed = float(truth.example.sum() * floor)
    assert found["budget"]["relaxed"] == pytest.approx(needed, rel=1e-4)
    assert found["budget"]["amount"] == pytest.approx(needed - truth.budget, rel=1e-4)
    problem(found["budget"]["relaxed"] * (1 + 1e-6), floor).solve()
    with pytest.raises(InfeasibleError):
        problem(truth.budget + 0.99 * found["budget"]["amount"], floor).solve()


@pytest.mark.slow
def test_fewer_steps_than_positivity_needs_name_both_with_right_amounts():
    truth = Joint.random(12, 3)
    ratio = 10 ** np.random.default_rng(0).uniform(-1, 0.5, 12)
    table = replace(truth.table, variance_ratio=ratio, positivity=2.0)
    needed = float(2 * ratio @ truth.levels.log_width)

    def problem(count):
        rows = [named_budget(truth.prices, 1e9), co.Steps() <= count, co.StabilityCap(table)]
        return co.Problem(co.ScoreError(table) + co.Discretization(table), rows)

    found = conflict(problem(0.5 * needed), "Steps")
    assert "StabilityCap" in found
    assert found["Steps"]["relaxed"] == pytest.approx(needed, rel=1e-4)
    plan = problem(found["Steps"]["relaxed"] * (1 + 1e-6)).solve()
    assert np.all(plan.steps >= 2 * ratio * truth.levels.log_width * (1 - 1e-6))
    with pytest.raises(InfeasibleError):
        problem(0.5 * needed + 0.99 * found["Steps"]["amount"]).solve()


def test_conflicting_user_constraint_is_named_with_the_right_amount():
    truth = Joint.random(12, 3)
    inside = truth.levels.sigma < 0.2
    cheapest = float(truth.example[inside].min())
    most = (truth.budget) / cheapest

    def problem(count):
        return truth.problem([co.named("low-noise floor", lambda d: cp.sum(d.examples[inside]) >= count)])

    found = conflict(problem(3 * most), "low-noise floor")
    assert found["low-noise floor"]["relaxed"] == pytest.approx(most, rel=1e-3)
    assert found["budget"]["relaxed"] == pytest.approx(3 * truth.budget, rel=1e-3)
    relaxed = 3 * most - 0.99 * found["low-noise floor"]["amount"]
    with pytest.raises(InfeasibleError):
        problem(relaxed).solve()
    assert problem(0.9 * found["low-noise floor"]["relaxed"]).solve().certificate.optimal


def test_two_user_constraints_that_exclude_each_other_are_both_named():
    truth = Joint.random(12, 3)
    rows = [
        co.named("many", lambda d: cp.sum(d.steps) >= 6),
        co.named("few", lambda d: cp.sum(d.steps) <= 4),
    ]
    found = conflict(replace(truth, budget=1e7).problem(rows), "many")
    assert found["many"]["relaxed"] == pytest.approx(4, rel=1e-5)
    assert found["few"]["relaxed"] == pytest.approx(6, rel=1e-5)
    assert "budget" not in found


@pytest.mark.parametrize("seed", [0, 1, 11] if FULL else [11])
def test_a_budget_with_plenty_of_room_is_not_named_beside_a_small_conflict(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.choice([6, 12, 30]))
    truth = Joint.random(size, 3)
    width, over = truth.levels.log_width, 1 + 10 ** rng.uniform(-2.5, -1)
    example, evaluation = np.exp(rng.normal(0, 0.5, size)), 10 ** rng.uniform(-4, 4) * np.ones(size)
    cap = 10 ** rng.uniform(2, 10)
    budget = 1e3 * cap * float(example @ width) * over
    problem = co.Problem(
        co.ScoreError(truth.table) + co.Discretization(truth.table),
        [
            co.named("budget", co.Compute(co.Prices(example, evaluation, 1.0)) <= budget),
            co.named("floor", co.Floor(over * cap)),
            co.named("peak", lambda d: cp.max(d.density) <= cap),
        ],
    )
    found = conflict(problem, "peak")
    assert set(found) == {"floor", "peak"}
    assert found["floor"]["relaxed"] == pytest.approx(cap, rel=1e-6)
    assert found["peak"]["relaxed"] == pytest.approx(over * cap, rel=1e-6)


def test_amounts_are_read_where_the_rows_that_stay_hold():
    """A solver's "solved" may break a row that stays by half a per cent; what it saves there is not the remedy's."""
    rng = np.random.default_rng([110, 7, 5])
    size = int(rng.integers(4, 25))
    levels = co.Levels(np.exp(np.cumsum([np.log(10 ** rng.uniform(-3, -1)), *rng.uniform(0.05, 0.6, size)])))
    unit = 10 ** rng.uniform(-5, 5)
    example = unit * 10 ** rng.uniform(-1.5, 1.5, size)
    evaluation = unit * 10 ** rng.uniform(-1.5, 1.5, size) * 10 ** rng.uniform(-2, 2)
    ratio = 10 ** rng.uniform(-1.5, 1.5, size)
    table = co.Coefficients(
        levels, 10 ** rng.uniform(-1.5, 1.5, size), np.zeros(size), 10 ** rng.uniform(-1.5, 1.5, (2, size)),
        order=1, terminal="rescale", variance_ratio=ratio, positivity=2.0, coupling=co.Local(1.0),
    )  # fmt: skip
    least = 2 * ratio * levels.log_width
    cap = least.max() / (1 + 10 ** rng.uniform(-3, 1))
    budget = co.Compute(co.Prices(example, evaluation, 1)) <= 10 * float(example.sum() * 1e4 + 10 * evaluation @ least)
    problem = co.Problem(
        co.ScoreError(table) + co.Discretization(table), [budget, co.StabilityCap(table), co.Cap(cap, "steps")]
    )
    found = conflict(problem, "StabilityCap")
    assert found["StabilityCap"]["amount"] == pytest.approx(least.max() / cap - 1, rel=1e-6)
    assert found["Cap(steps)"]["amount"] == pytest.approx(least.max() - cap, rel=1e-6)


def test_a_search_for_a_conflict_stays_with_the_first_point_that_needs_nothing():
    """Without a budget all beyond a target is admitted, too: what is returned is no further than one round goes."""
    truth = Joint.random(12, 3)
    error = co.ScoreError(truth.table) + co.Discretization(truth.table)
    program = co.Problem(co.Compute(truth.prices), [co.named("target", error <= 1e3 * truth.budget)]).declaration
    start = first_point(program)
    found = diagnose(program, start)
    assert found is not None
    assert np.all(found.new_examples <= 2e6 * start.new_examples)
    assert np.all(found.steps <= 2e6 * start.steps)


@pytest.mark.parametrize("unit", [1.0, 1e7] if FULL else [1e7])
def test_amounts_of_rows_with_variables_of_their_own(unit):
    """Of L levels at most b each is free, the rest of the examples is x: their sum is at most L b + sum x."""
    table = Joint.random(9, 3).table
    free, paid, total = 1e3 * unit, 1e4 * unit, 5e4 * unit

    def problem(paid, total):
        def beyond(design):
            rest = cp.Variable(9, nonneg=True)
            return [cp.sum(rest) <= paid, rest >= design.examples - free]

        rows = [co.named("own", beyond), co.named("sum", lambda d: cp.sum(d.examples) >= total)]
        sampling = co.Compute(co.Prices(1.0, 1.0, 1), part="sampling") <= 1e3
        return co.Problem(co.ScoreError(table) + co.Discretization(table), [sampling, *rows])

    found = conflict(problem(paid, total), "own")
    assert set(found) == {"own", "sum"}
    assert found["sum"]["relaxed"] == pytest.approx(9 * free + paid, rel=1e-6)
    more = np.array(found["own"]["amounts"])  # of the sum, and of the rest of every level
    assert more @ [1, 9] == pytest.approx(total - 9 * free - paid, rel=1e-6)
    assert problem(paid, 0.999 * found["sum"]["relaxed"]).solve().certificate.optimal
    if FULL:
        conflict(problem(paid, 1.001 * found["sum"]["relaxed"]), "sum")
