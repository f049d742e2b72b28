"""A split of the budget that is stated, and a number of steps that is: said with prices, limits and rows."""

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.3))
PRICES, FREE, BUDGET = co.Prices(3.0, 1.0, images=100), co.Prices(3.0, 1.0, images=0), 2e4
ASKED = {"stopping_sigma": 0.05, "levels": 20, "polish": False}


def exactly(steps):
    return co.named("exactly", lambda design: cp.sum(design.steps) + design.final_steps == steps)


def test_a_stated_split_is_the_program_of_two_budgets_and_never_less_than_the_best():
    table = MODEL.coefficients(0.05, 20)
    error = co.ScoreError(table) + co.Discretization(table) + co.Truncation(table)
    best = co.Problem(error, [co.Compute(PRICES) <= BUDGET]).solve()

    def costs(steps):
        training = BUDGET - PRICES.images * (2 * (steps - 1) + 1)
        limits = {"training": co.Compute(PRICES, part="training") <= training, "steps": co.Steps() <= steps}
        two = co.Problem(error, [co.named(name, limit) for name, limit in limits.items()]).solve().error
        plan = co.codesign(MODEL, FREE, training, steps=round(steps), **ASKED)
        assert plan.costs["training"] == pytest.approx(training)
        assert plan.steps.sum() == pytest.approx(round(steps) - 1)
        if steps == round(steps):
            assert plan.error == pytest.approx(two, rel=2e-6)
        return two / best.error - 1

    own = best.steps.sum() + 1
    assert costs(own) == pytest.approx(0, abs=1e-5)
    assert min(costs(round(0.6 * own)), costs(round(1.6 * own))) > 0.01


@pytest.mark.parametrize("run", [None, co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=100, batch=64)])
def test_exactly_so_many_steps_are_handed_out_where_fewer_are_allowed(run):
    plan = co.codesign(MODEL, steps=6, run=run, constraints=[exactly(5)], **ASKED)
    assert plan.number_of_steps == 5
    assert plan.steps.sum() == pytest.approx(4, rel=1e-9)
    assert plan.error == pytest.approx(co.codesign(MODEL, steps=5, run=run, **ASKED).error, rel=1e-6)


def test_exactly_so_many_steps_beside_a_budget_are_the_split_that_pays_for_them():
    few = BUDGET * 0.2
    best = co.codesign(MODEL, PRICES, few, **ASKED)
    steps = best.number_of_steps + 4
    plan = co.codesign(MODEL, PRICES, few, steps=steps, constraints=[exactly(steps)], **ASKED)
    assert plan.number_of_steps == steps
    split = co.codesign(MODEL, FREE, few - PRICES.images * (2 * steps - 1), steps=steps, **ASKED)
    assert plan.error == pytest.approx(split.error, rel=3e-6)
    assert plan.error > best.error
    np.testing.assert_allclose(plan.costs["training"], split.costs["training"], rtol=1e-6)


def test_a_lower_bound_of_steps_is_answered_with_the_row_that_says_it():
    with pytest.raises(TypeError, match=r"Steps >= 9 is not convex unless the term is linear; .*cp.sum"):
        _ = co.Steps() >= 9


@pytest.mark.parametrize(
    ("spectrum", "money", "steps"),
    [
        (co.Spectrum.power_law(256, exponent=2.0), 2.7e5, 28),
        (co.Spectrum.power_law(30, exponent=1.2), 1e5, 24),
    ],
)
def test_exactly_so_many_steps_leave_little_more_than_fewer_where_errors_cancel(spectrum, money, steps):
    model = co.GaussianModel(spectrum, sampler=co.DPMpp2M(), start="mean")
    fewer = co.codesign(model, FREE, money, steps=steps, levels=24, points=5)
    plan = co.codesign(model, FREE, money, steps=steps, constraints=[exactly(steps)], levels=24, points=5)
    assert plan.number_of_steps == steps
    assert plan.handed_out["total"] < 1.1 * fewer.handed_out["total"]
