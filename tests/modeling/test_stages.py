"""Stages of a run: the cheapest split, against programs written in cvxpy itself."""

from __future__ import annotations

import itertools
import os

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
MODEL = co.GaussianModel(
    co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler(), training=co.AveragedSGD(prior=None)
)


def stages(quota_low=3e3, quota_cached=8e3):
    low = co.Stage("low resolution", lambda s: 0.25 + 0 * s, quota_low, worth=lambda s: 0.8 * (s > 1.0))
    cached = co.Stage("cached", 1.0, quota_cached, worth=0.9)
    return co.Stages([low, cached, co.Stage("full", 3.0)], evaluation=1.0, images=50)


def raw(table, budget, quotas, spent=0.0):
    """The same program in cvxpy with examples of every stage on every level."""
    x, n = cp.Variable((3, len(table.levels)), nonneg=True), cp.Variable(len(table.levels), pos=True)
    low = 0.8 * np.array([np.mean(np.geomspace(*pair, 2001) > 1.0) for pair in _pairs(table.levels.edges)])
    price, scale = np.array([0.25, 1.0, 3.0]), 1e3
    worth = np.stack([low, np.full(low.size, 0.9), np.ones(low.size)])
    m = cp.sum(cp.multiply(worth, x), axis=0) + spent / scale
    a, kappa = table.example_error / scale, table.kappa
    # 1/m and kappa/(m n) through exponentials of logarithms of their own
    t = cp.Variable(len(table.levels))
    rows = [t >= -cp.log(m), t >= -cp.log(m) - cp.log(n) + np.log(kappa)]
    near = cp.inv_pos(table.final_window @ m) * (table.final_score / scale)
    bands = cp.sum_squares(table.step_response @ cp.inv_pos(n))
    rows += [scale * (price @ cp.sum(x, axis=1)) + 50 * cp.sum(n) + 50 <= budget]
    rows += [scale * cp.sum(x[i]) <= quota for i, quota in enumerate(quotas)]
    unit = 1e3  # errors are small numbers
    problem = cp.Problem(cp.Minimize(unit * (a @ cp.exp(t) + near + bands)), rows)
    problem.solve(solver=cp.CLARABEL)
    return problem.value / unit + table.truncation + table.initial, x.value * scale


def _pairs(edges):
    return itertools.pairwise(edges)


@pytest.mark.parametrize("budget", [2e4, 1e5] if FULL else [1e5])
def test_stages_are_split_as_the_program_written_out_in_cvxpy(budget):
    table = MODEL.coefficients(0.05, levels=24)
    run = stages()
    terms = co.ScoreError(table) + co.Discretization(table) + co.Truncation(table)
    plan = co.Problem(terms, [run <= budget]).solve()
    value, x = raw(table, budget, [3e3, 8e3])
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(value, rel=1e-5)
    split = run.split(plan.levels, plan.examples)
    np.testing.assert_allclose(split.examples.sum(axis=1), x.sum(axis=1), rtol=0.01, atol=5.0)
    sampling = 50 * (plan.steps.sum() + 1)
    assert split.costs.sum() + sampling == pytest.approx(budget, rel=1e-6)
    assert np.all(split.examples[0, table.levels.edges[1:] <= 1.0] == 0)


def test_stages_teach_beside_what_a_run_has_taught_already():
    table = MODEL.coefficients(0.05, levels=16)
    spent = co.TrainingRun(co.LogNormal(-1.2, 1.2), 40, 100).examples_on(table.levels)
    limit = stages() <= 2e4
    plan = co.Problem(
        co.ScoreError(table) + co.Discretization(table) + co.Truncation(table), [limit], spent=spent
    ).solve()
    error, taken = raw(table, 2e4, (3e3, 8e3), spent)
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(error, rel=1e-5)
    split = stages().split(plan.levels, plan.new_examples).examples
    np.testing.assert_allclose(split.sum(axis=1), taken.sum(axis=1), rtol=0.01, atol=5.0)


def test_stages_of_a_measured_model_without_quotas_are_the_cheapest_alone():
    sigma = np.geomspace(0.01, 20.0, 12)
    model = co.EstimatedModel(
        sigma, 0.1 / (1 + sigma)[None], 1e-4 * sigma**2, co.Spectrum.power_law(8, exponent=1.5),
        process=co.EDM(0.01, 20.0), sensitivity=1 / (1 + sigma**2), error_variance=5 * sigma**2 / (1 + sigma**2),
    )  # fmt: skip
    table = model.coefficients(0.05, levels=16)
    terms = co.ScoreError(table) + co.GramDiscretization(table, "positive")
    run = co.Stages([co.Stage("dear", 3.0), co.Stage("cheap", 2.0)], images=50)
    plan, alone = (
        co.Problem(terms, [limit]).solve() for limit in (run <= 1e4, co.Compute(co.Prices(2.0, 1.0, 50)) <= 1e4)
    )
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(alone.error, rel=1e-6)


def test_exchangeable_stages_without_quotas_are_the_cheapest_alone():
    table = MODEL.coefficients(0.05, levels=24)
    terms = co.ScoreError(table) + co.Discretization(table)
    run = co.Stages([co.Stage("dear", 3.0), co.Stage("cheap", 2.0)], images=50)
    prices = co.Prices(2.0, 1.0, 50)
    plan, alone = (co.Problem(terms, [limit]).solve() for limit in (run <= 1e4, co.Compute(prices) <= 1e4))
    assert plan.error == pytest.approx(alone.error, rel=1e-6)
    split = run.split(plan.levels, plan.examples)
    assert split.examples[0].sum() <= 1e-6 * split.examples.sum()
    assert run.lowest_prices.example_price(plan.levels) == pytest.approx(2.0)


def test_what_stages_cannot_teach_and_what_is_no_stage_is_named():
    table = MODEL.coefficients(0.05, levels=8)
    run = co.Stages([co.Stage("small", 1.0, quota=10.0)])
    with pytest.raises(co.InfeasibleError, match="do not teach 60 examples"):
        run.split(table.levels, np.full(len(table.levels), 10.0))
    for make, name in (
        (lambda: co.Stage("", 1.0), "Stage.name"),
        (lambda: co.Stage("a", 0.0), "Stage.example"),
        (lambda: co.Stage("a", 1.0, quota=0.0), "Stage.quota"),
        (lambda: co.Stages([]), "Stages.stages"),
        (lambda: co.Stages([co.Stage("a", 1.0), co.Stage("a", 2.0)]), "twice"),
        (lambda: co.Stage("a", lambda s: -s).prices(table.levels), r"Stage.example of 'a'"),
    ):
        with pytest.raises(ValueError, match=name):
            make()


def test_the_price_is_that_of_the_cheapest_split_and_infinite_beyond_the_quotas():
    table = MODEL.coefficients(0.05, levels=12)
    quotas = [co.Stage("a", 1.0, quota=3e3), co.Stage("b", 2.0, quota=1e3)]
    run = co.Stages(quotas, evaluation=1.0, images=50)
    size = len(table.levels)
    zeros, steps = np.zeros(size), np.full(size, 2.0)
    design = co.Problem(co.ScoreError(table), [run <= 1e9]).design(co.Point(np.ones(size), zeros, steps))

    def price(examples):
        return run.value(design, co.Point(np.full(size, examples / size), zeros, steps))

    sampling = 50 * (2.0 * size + 1)
    assert price(2e3) == pytest.approx(2e3 + sampling, rel=1e-9)
    assert price(3.5e3) == pytest.approx(3e3 + 2 * 500 + sampling, rel=1e-9)
    assert price(4e3 * (1 + 5e-8)) == pytest.approx(5e3 + sampling, rel=1e-6)  # a solver's rounding
    assert price(4.001e3) == np.inf


@pytest.mark.parametrize("first", [1e4, 4e4])
def test_rows_with_variables_and_parameters_of_their_own_follow_the_parameters(first):
    table = MODEL.coefficients(0.05, levels=12)
    limit = cp.Parameter(nonneg=True, value=first)

    def row(design):
        extra = cp.Variable(nonneg=True)
        return [cp.sum(design.examples) <= limit + extra, extra <= 0.1 * limit]

    terms, prices = co.ScoreError(table) + co.Discretization(table), co.Prices(1.0, 1.0, 50)
    problem = co.Problem(terms, [co.Compute(prices) <= 1e6, row])
    for value in (first, 2e4):
        limit.value = value
        plan = problem.solve()
        assert plan.certificate.optimal
        assert plan.examples.sum() == pytest.approx(1.1 * value, rel=1e-4)
