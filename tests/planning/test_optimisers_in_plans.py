"""Optimisers as they are, in everything that a plan goes through: audit, export, frontier."""

import os

import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

PRICES = co.Prices(3.0, 1.0, 1_000)
FAST = {"levels": 32, "points": 3, "polish": False}
RUNS = [
    co.SGD(co.LearningRate(0.02, "cosine", 20), 64, 400, 0.9),
    co.Adam(0.02, 64, 400, average=co.WeightAverage.power(0.1)),
]


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1 plans for some seconds")
@pytest.mark.parametrize("training", RUNS, ids=lambda run: run.name)
def test_plans_of_optimisers_are_audited_exported_and_form_frontiers(training):
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler(), training=training)
    plan = co.codesign(model, PRICES, 1e5, **FAST)
    assert plan.certificate.optimal
    fit = plan.training_density.lognormal(clipped=False)
    found = plan.export_training("edm")
    assert (found.density.mean, found.density.std) == pytest.approx((fit.P_mean, fit.P_std), abs=5e-3)
    assert found.loss == pytest.approx(fit.loss, abs=1e-3)
    grid = co.edm_grid(plan.number_of_steps, plan.stopping_sigma, 80.0, terminal="denoise")
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 400, 64)
    audited = co.audit(model, PRICES, sigmas=grid, run=run, **FAST)
    assert audited.ratio >= 1 - 1e-6
    best = audited.current["total"] / audited.ratio
    assert sum(audited.gap.values()) == pytest.approx(audited.current["total"] - best, rel=1e-9)
    errors = [each.error for each in co.frontier(model, PRICES, [5e4, 1e5], **FAST).plans]
    assert errors[1] < errors[0]
