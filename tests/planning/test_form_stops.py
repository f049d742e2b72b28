"""Stopping points of measured models and pooled examples: in arrays, and as the declared program by cvxpy says."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.form_stops import solved_forms
from codesign_opt.planning.question import Study

PRICES = co.Prices(3, 1, 1000)
RUN = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=100, batch=64)


def measured(seed=0, nodes=25, *, trained=True, floor=False, **options):
    """Smooth responses of some directions, training errors that rise with the noise."""
    rng, sigma = np.random.default_rng(seed), np.geomspace(0.002, 80, nodes)
    logs = np.log(sigma)
    bumps = np.stack([np.exp(-0.5 * (logs - centre) ** 2) for centre in np.linspace(-4, 3, 5)])
    responses = rng.standard_normal((20, 5)) @ bumps * np.exp(-0.5 * ((logs + 1) / 1.2) ** 2) * 0.05
    share = sigma**4 / (4 * 0.02)
    if trained:
        options |= {"error_variance": 16 * sigma**2 / (0.25 + sigma**2), "sensitivity": np.full(nodes, 0.8)}
    if floor:
        options["error_floor"] = np.full(nodes, 1e-3)
    return co.EstimatedModel(
        sigma, responses=responses, truncation=np.minimum(16.0, share / (1 + share / 16)), sampler=co.Heun(),
        spectrum=co.Spectrum.power_law(64, exponent=1.3), **options,
    )  # fmt: skip


QUESTIONS = {
    "sampler alone": (measured(trained=False), None, None, 9, None),
    "trained, sampler alone": (measured(1), None, None, 18, None),
    "floors, sampler alone": (measured(2, floor=True), None, None, 12, None),
    "budget": (measured(3), PRICES, 1e5, None, None),
    "budget, steps and a run": (measured(4, floor=True), PRICES, 1e5, 12, RUN),
    "a run, sampler alone": (measured(7, floor=True), None, None, 12, RUN),
    "pooled, a run, sampler alone": (measured(8, coupling=co.Transfer(0.6)), None, None, 12, RUN),
    "pooled": (measured(5, coupling=co.Transfer(0.6)), PRICES, 1e5, None, None),
    "pooled, p4, run": (measured(6, coupling=co.Transfer(1.2, form="p4")), PRICES, 2e5, None, RUN),
    "pooled, Gaussian": (
        co.GaussianModel(co.Spectrum.power_law(16, exponent=1.3), coupling=co.Transfer(0.5)), PRICES, 1e5, None, None,
    ),
}  # fmt: skip


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_stop_in_arrays_is_the_optimum_of_the_program_that_cvxpy_declares(name):
    model, prices, budget, steps, run = QUESTIONS[name]
    study = Study(model, prices, budget, steps, run, (), (), 14, 1e-6)
    for sigma in (0.01, 0.08):
        found = solved_forms(study, study.table(sigma))
        assert found is not None
        assert found.relative_gap <= 1e-6
        declared = study.problem(sigma).solve(method="declared")
        constant = study.table(sigma).truncation + study.table(sigma).initial + study.table(sigma).final_floor
        value = declared.error - constant  # certified to 1e-6, from above and from below
        error = found.gap / found.relative_gap
        np.testing.assert_allclose(error, value, rtol=3e-6)
        assert error - found.gap <= value * (1 + 1e-9)


@pytest.mark.parametrize("name", ["trained, sampler alone", "pooled"])
def test_every_stop_of_a_sweep_is_proved_without_a_declared_program(name):
    model, prices, budget, steps, _ = QUESTIONS[name]
    plan = co.codesign(model, prices, budget, steps=steps, levels=40, points=6, polish=False)
    assert len(plan.curve) >= 6
    for record in plan.curve:
        assert record["method"] in ("interior point", "Newton")
        assert record["relative_gap"] <= 1e-6
        parts = [value for name, value in record.items() if name not in _PROOF]
        assert record["error"] == pytest.approx(sum(parts))
    best = min(plan.curve, key=lambda record: record["error"])
    assert plan.error == pytest.approx(best["error"], rel=1e-6)
    assert plan.certificate.optimal


_PROOF = ("stopping_sigma", "error", "lower_bound", "relative_gap", "status", "method")
