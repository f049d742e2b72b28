"""Programs of library terms and budgets, solved and proved in numbers: against the same program declared in cvxpy."""

from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.ingredients.coupling import Settled
from codesign_opt.models.gaussian_settled import _stepwise


def settled_problem(seed, final_score, spent=False, second=False):
    rng = np.random.default_rng(seed)
    size = 40
    levels = co.Levels.log_uniform(0.01, 50.0, size)
    score = np.exp(rng.normal(0, 3, size))
    if seed % 3 == 1:
        score[rng.random(size) < 0.3] = 0.0
    table = co.Coefficients(
        levels, score=score, floor=np.exp(rng.normal(-5, 1, size)), response=np.zeros((0, size)),
        coupling=Settled(np.full(size, 1.3)), terminal="denoise", final_score=final_score, truncation=0.1,
    )  # fmt: skip
    prices = co.Prices(example=lambda s: 1 + s, evaluation=1.0, images=10)
    budgets = [co.named("budget", co.Compute(prices) <= 5_000.0)]
    budgets += [co.named("steps", co.Steps() <= 30)] if second else []
    before = np.exp(rng.normal(0, 2, size)) if spent else None
    terms = co.ScoreError(table) + co.Truncation(table)
    return co.Problem(terms, budgets, steps=np.full(size, 0.5), spent=before)


@pytest.mark.cases(8)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("final_score", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("second", [False, True])
def test_a_given_sampler_is_planned_by_water_filling_as_by_the_declared_program(seed, final_score, second):
    problem = settled_problem(seed, final_score, second=second)
    plan, declared = problem.solve(), problem.solve(method="declared", tolerance=1e-7)
    assert plan.attempts[0]["solver"] == "water-filling"
    assert len(plan.attempts) == 1
    assert plan.certificate.relative_gap <= 1e-10
    assert plan.error == pytest.approx(declared.error, rel=1e-7)
    assert plan.shadow_prices["budget"] == pytest.approx(declared.shadow_prices["budget"], rel=1e-4)
    assert plan.costs["training"] + plan.costs["sampling"] == pytest.approx(5_000.0, rel=1e-9)
    np.testing.assert_allclose(plan.examples, declared.examples, rtol=1e-3, atol=1e-5 * plan.examples.max())


@pytest.mark.parametrize("final_score", [0.0, 1e-6, 1.0, 1e6])
def test_spent_examples_are_filled_up_beside_any_last_evaluation(final_score):
    filled = settled_problem(0, final_score, spent=True)
    plan, declared = filled.solve(), filled.solve(method="declared")
    assert [a["solver"] for a in plan.attempts] == ["water-filling"]
    assert plan.certificate.relative_gap <= 1e-10
    assert plan.error == pytest.approx(declared.error, rel=1e-7)


def test_the_certificate_in_numbers_is_the_declared_one_and_sees_a_budget_overrun():
    table = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 60)
    prices = co.Prices(example=3.0, evaluation=1.0, images=1_000)
    problem = co.Problem(
        co.ScoreError(table) + co.Discretization(table), [co.named("budget", co.Compute(prices) <= 1e5)]
    )
    plan, declared = problem.solve(), problem.solve(method="declared")
    assert plan.attempts[0]["solver"] == "dual Newton"
    assert plan.certificate.lower_bound == pytest.approx(declared.certificate.lower_bound, rel=1e-6)
    for name, value in declared.shadow_prices.items():
        assert plan.shadow_prices[name] == pytest.approx(value, rel=1e-4)
    proof = problem.certify(examples=1.01 * plan.examples, steps=1.01 * plan.steps)
    paid = 1.01 * (3.0 * plan.examples.sum() + 2_000 * plan.steps.sum())
    assert proof.infeasibility == pytest.approx((paid + 1_000 - 1e5) / 1e5, rel=1e-9)
    assert not proof.optimal


def test_a_coupling_of_the_users_own_is_checked_for_convexity():
    class Concave(co.Local):
        def product(self, examples, steps, scale):
            return -super().product(examples, steps, scale)

    table = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 20)
    table = replace(table, coupling=Concave(2.0))
    with pytest.raises(co.ConvexityError, match="ScoreError"):
        co.Problem(co.ScoreError(table), [co.Steps() <= 10, co.Compute(co.Prices(1.0, 1.0, 1)) <= 10.0])


def test_a_density_on_steps_is_averaged_over_levels_by_overlap():
    rng = np.random.default_rng(2)
    for steps, size in ((3, 50), (200, 7), (40, 40)):
        positive = np.sort(np.exp(rng.uniform(np.log(0.01), np.log(80.0), steps + 1)))[::-1]
        table = co.Levels.log_uniform(float(positive[-1]), float(positive[0]), size)
        density = rng.random(steps)
        overlap = np.stack([table.overlap(positive[k + 1], positive[k]) for k in range(steps)], axis=1)
        np.testing.assert_allclose(_stepwise(density, positive, table), overlap @ density / table.log_width, rtol=1e-11)
