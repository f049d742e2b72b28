"""Budgets: one statement for declared programs, structured solvers and bounds, worked out by hand."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.comparison.world import calls_of
from codesign_opt.ingredients.evaluations import evaluations, least_steps, steps_within
from codesign_opt.planning.budgets import Budgets

GUIDED = co.Prices(
    lambda s: 3.0 + np.log1p(s), lambda s: 1.0 + ((s > 0.03) & (s < 5.0)), 100
)  # twice in an interval that holds the stopping point 0.05
FLAT = co.Prices(3.0, 1.0, 100)
SAMPLERS = [co.Euler(), co.Heun(), co.DPMpp2M()]


def model(terminal="denoise", sampler=None):
    return co.GaussianModel(co.Spectrum.power_law(8, 1.5), co.EDM(0.01, 20.0), sampler or co.Heun(), terminal=terminal)


def test_limits_are_prices_of_a_step_and_what_the_last_step_leaves():
    limits = Budgets(GUIDED, 1e4, 12.0).of(model().coefficients(0.05, 40))
    levels = model().coefficients(0.05, 40).levels
    np.testing.assert_allclose(limits.example_prices, [GUIDED.example_price(levels), np.zeros(len(levels))])
    # two evaluations for each of 100 images, once or twice as dear
    np.testing.assert_allclose(
        limits.step_prices, [200 * levels.average(GUIDED.evaluation, points=16), np.ones(len(levels))]
    )
    np.testing.assert_allclose(limits.left, [1e4 - 200, 11])  # the last call, guided at 0.05, for 100 images
    np.testing.assert_allclose(limits.most_examples, 1e4 / limits.example_prices[0])
    np.testing.assert_allclose(limits.most_steps, np.minimum(1e4 / limits.step_prices[0], 12))


def test_without_a_last_step_nothing_is_taken_off():
    table = model("rescale").coefficients(0.05, 40)
    np.testing.assert_allclose(Budgets(GUIDED, 1e4, 12.0).of(table).left, [1e4, 12])
    np.testing.assert_allclose(Budgets(None, None, 12.0).of(table).left, [12])


@pytest.mark.parametrize("prices", [FLAT, GUIDED])
@pytest.mark.parametrize("steps", [None, 9.0])
def test_limits_of_a_batch_are_those_of_each_stopping_point(prices, steps):
    stops, budgets = np.array([0.01, 0.03, 0.4]), Budgets(prices, 1e4, steps)
    batch = model().coefficient_batch(stops, 40)
    together = budgets.of_batch(batch)
    for r, stop in enumerate(stops):
        alone, used = budgets.of(model().coefficients(stop, 40)), batch.levels.used[r]
        np.testing.assert_allclose(together.example_prices[r][:, used], alone.example_prices, rtol=1e-12)
        np.testing.assert_allclose(together.step_prices[r][:, used], alone.step_prices, rtol=1e-12)
        np.testing.assert_allclose(together.left[r], alone.left, rtol=1e-12)


@pytest.mark.parametrize(("prices", "taken"), [(FLAT, 100.0), (GUIDED, 0.0)])
def test_over_an_interval_a_last_step_whose_price_depends_on_sigma_costs_nothing(prices, taken):
    budgets, table = Budgets(prices, 1e4, None), model().coefficients(0.05, 40)
    assert budgets.of(table, interval=True).left.tolist() == [1e4 - taken]
    assert budgets.of_batch(model().coefficient_batch(np.array([0.05]), 40), interval=True).left.tolist() == [
        [1e4 - taken]
    ]


def test_declared_bounds_hold_a_plan_to_the_same_amounts():
    table, budgets = model().coefficients(0.05, 40), Budgets(GUIDED, 1e4, 12.0)
    plan = co.Problem(
        co.ScoreError(table) + co.Discretization(table) + co.Truncation(table), budgets.declared()
    ).solve()
    limits = budgets.of(table)
    spent = limits.example_prices @ plan.examples + limits.step_prices @ plan.steps
    np.testing.assert_allclose(spent, limits.left, rtol=1e-6)


def test_a_price_that_is_an_array_belongs_to_one_table():
    assert Budgets(co.Prices(np.full(7, 3.0), 1.0, 10), 1e4, None).per_level
    assert not Budgets(GUIDED, 1e4, None).per_level
    assert not Budgets(None, None, 4.0).per_level


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_evaluations_are_the_calls_of_a_run_and_steps_within_them_the_most_that_fit(sampler, terminal):
    least = least_steps(terminal)
    calls = {
        steps: calls_of(sampler, co.log_snr_grid(steps, 0.01, 20.0, terminal=terminal)).size
        for steps in range(least, 12)
    }
    for steps, count in calls.items():
        assert evaluations(steps, sampler.evaluations_per_step, terminal) == count
    for allowed in range(calls[least], max(calls.values())):
        most = max(steps for steps, count in calls.items() if count <= allowed)
        assert steps_within(allowed, sampler.evaluations_per_step, terminal) == most
    assert steps_within(calls[least] - 1, sampler.evaluations_per_step, terminal) < least
