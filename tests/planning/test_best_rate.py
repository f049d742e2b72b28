"""The best learning rate and average of a plan, against every rate of a fine grid."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def planned(run):
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.3), sampler=co.Euler(), training=run)
    prices = co.Prices(1.0, 1.0, 100)
    return model, co.codesign(model, prices, 1e6, stopping_sigma=0.1, levels=20, polish=False)


def error_of(model, plan, run):
    """Score error of the handed-out grid and examples with another run, from the plan's own audit of it."""
    table = replace(model, training=run).settled(plan.sigmas, plan.levels)
    examples = plan.examples
    levels = table.coupling.factor(table.kappa) * (table.example_error / examples + table.floor_error)
    return levels.sum() + table.final_score / (table.final_window @ examples) + table.final_floor


@pytest.mark.parametrize("average", [co.WeightAverage(), co.WeightAverage.uniform()])
def test_the_proved_rate_is_the_best_of_a_fine_grid(average):
    run = co.SGD(0.05, 64, 200, average=average)
    model, plan = planned(run)
    best = co.best_learning_rate(model, plan)
    others = [error_of(model, plan, run.with_rate(rate)) for rate in np.geomspace(best.low, best.high, 120)]
    assert best.relative_gap <= 0.01
    assert best.lower_bound <= min(others)
    assert best.error <= min(others) * (1 + 1e-6)
    assert best.error == pytest.approx(error_of(model, plan, best.training), rel=1e-9)
    assert best.error < error_of(model, plan, run)


@pytest.mark.slow
def test_averages_have_a_best_length_and_other_optimisers_no_proof():
    run = co.SGD(co.LearningRate(0.02, warmup=10), 64, 100, 0.9)
    model, plan = planned(run)
    rate = co.best_learning_rate(model, plan)
    assert not np.isfinite(rate.lower_bound)
    assert "not proved" in str(rate)
    best = co.best_average(model, plan)
    assert best.error < rate.error
    if FULL:
        other = replace(run, average=co.WeightAverage.power(0.25))
        assert best.error <= co.best_learning_rate(replace(model, training=other), plan).error * (1 + 1e-3)
    with pytest.raises(ValueError, match=r"training=co.SGD"):
        co.best_learning_rate(replace(model, training=co.AveragedSGD()), plan)
