"""The first line says whose error is told: a spectrum knows a linear denoiser, not a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import codesign_opt as co

PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)
LAWS = [co.AveragedSGD(), co.AveragedSGD(matrix="full"), co.ConstantStepSGD(1e-3, batch=64)]


def planned(training: co.TrainingNoise, **options: object) -> co.Plan:
    model = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5), training=training)
    return co.codesign(model, PRICES, 1e5, steps=6, levels=20, stopping_sigma=0.02, **options)


@pytest.mark.cases(1)
@pytest.mark.parametrize("training", LAWS, ids=lambda law: law.speaks_of)
def test_a_plan_of_examples_names_the_learner_it_speaks_of_and_calls_its_error_predicted(training) -> None:
    plan = planned(training)
    lines = str(plan).splitlines()
    assert lines[0] == f"Plan for {training.speaks_of}:"
    assert lines[1].startswith(f"  {plan.number_of_steps} heun steps, sigma 80 to 0.0")
    assert "estimate.network(" in " ".join(lines[2:4])
    assert next(line for line in lines if " error " in line).startswith("Predicted error")
    assert "counts the whole steps, and first adds errors that the same examples make" in " ".join(str(plan).split())
    assert max(map(len, lines)) <= 88


def test_a_sampler_for_a_trained_denoiser_speaks_of_no_training() -> None:
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
    lines = str(co.codesign(model, steps=8)).splitlines()
    assert lines[0].startswith("Plan: 8 heun steps")
    assert lines[1].startswith("Exact error")


def test_a_saved_plan_still_says_it_and_one_of_before_says_nothing(tmp_path: Path) -> None:
    plan = planned(co.AveragedSGD())
    kept = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert str(kept).splitlines()[:4] == str(plan).splitlines()[:4]
    assert str(replace(kept, speaks_of="")).startswith("Plan: ")


def test_an_audit_and_a_frontier_say_whose_errors_they_hold_against_each_other() -> None:
    model = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5), sampler=co.Euler())
    run = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=100, batch=64)
    report = co.audit(model, PRICES, sigmas=co.edm_grid(4, 0.1, 80.0), run=run, levels=30)
    assert str(report).splitlines()[0] == "Audit for a linear denoiser fitted by least squares:"
    swept = co.frontier(model, PRICES, [1e4, 2e4], steps=4, levels=20, stopping_sigma=0.1)
    assert str(swept).splitlines()[0] == "Frontier for a linear denoiser fitted by least squares"
