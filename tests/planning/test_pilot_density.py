"""From a pilot to a density: guarded, robust, proved; docs/theory.md section 6.3."""

from __future__ import annotations

import dataclasses
import os

import cvxpy as cp
import numpy as np
import pytest
from scipy.stats import norm

import codesign_opt as co
from codesign_opt.models.pilot import PilotEvidence, widest_shown
from codesign_opt.planning.pilot_density import pilot_density

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
RUN = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=1000, batch=128)
SPECTRUM = co.Spectrum.power_law(16, exponent=1.5)


def evidence(seed=0, width=1.2, noise=0.1):
    """A pilot whose errors wander around the usual shape, as drawn."""
    rng = np.random.default_rng(seed)
    sigma = np.geomspace(0.01, 10.0, 16)
    wander = np.exp(np.cumsum(0.4 * rng.standard_normal(16)))
    left = wander * sigma**2 / (sigma**2 + SPECTRUM.sigma_data**2)
    gain = 1 / (1 + rng.uniform(1, 30) * sigma ** rng.uniform(1, 2))
    return PilotEvidence(sigma, left, noise * left * (1 + sigma), gain, RUN, width, SPECTRUM)


def test_predicted_errors_are_those_of_the_declared_score_term():
    # two codes: the route's own sum for many densities, and ScoreError of an EstimatedModel with Transfer
    pilot, rng = evidence(1), np.random.default_rng(1)
    levels = pilot.levels
    shares = [co.LogNormal(rng.uniform(-2, 0), rng.uniform(0.8, 1.8)).on_levels(levels) for _ in range(4)]
    for width, beyond in ((0.4, 0.0), (1.2, 1.5), (1.7, -1.0)):
        score = co.ScoreError(pilot.model(width, beyond).coefficients(levels=levels))
        for share in shares:
            m = 1e9 * share  # so many that the one example before the first does not count
            point = co.Point(m, np.zeros(len(levels)), 10.0 * levels.log_width)
            declared = float(score.value(None, point))
            assert pilot.errors(m[None], width, beyond)[0] == pytest.approx(declared, rel=1e-6)


@pytest.mark.slow
def test_the_guarded_program_is_solved_as_plain_cvxpy_solves_it():
    pilot = evidence(2)
    found = pilot_density(pilot)
    levels, today = pilot.levels, RUN.density.on_levels(pilot.levels)
    ratio = cp.Variable(len(levels), nonneg=True)  # to the present density
    worst = []
    place, edges = np.log(levels.sigma), np.log(levels.edges)
    for width, beyond in ((1.2 / 1.3, 0.0), (1.2, 0.0), (1.2 * 1.3, 0.0), (1.2, 1.5), (1.2, -1.5)):
        mass = np.diff(norm.cdf((edges[None] - place[:, None]) / width), axis=1)
        served = mass / mass.sum(axis=1, keepdims=True) * (today / levels.log_width)
        served = served / served.sum(axis=1, keepdims=True)
        weight = pilot.left_on(levels.sigma, beyond) * pilot.gain_on_levels * levels.log_width
        worst.append((weight / weight.sum()) @ cp.inv_pos(served @ ratio))
    unit, gaps = today / levels.log_width, np.diff(place)
    slopes = cp.diff(cp.multiply(unit / unit.max(), ratio))
    rough = (
        0.01 * cp.sum(cp.multiply(1 / gaps, cp.square(slopes))) / float(np.sum(np.diff(unit / unit.max()) ** 2 / gaps))
    )
    problem = cp.Problem(cp.Minimize(cp.maximum(*worst) + rough), [today @ ratio <= 1, ratio >= 0.1])
    problem.solve(solver=cp.CLARABEL)
    share = today * ratio.value
    assert found.plan.certificate.optimal
    assert found.plan.error == pytest.approx(problem.value, rel=2e-3)  # one example before the first is in the plan
    assert found.plan.examples / found.plan.examples.sum() == pytest.approx(share, abs=2e-3)


@pytest.mark.slow
def test_no_case_is_predicted_worse_than_the_present_density_whatever_the_pilot_says():
    for seed in range(40 if FULL else 3):
        rng = np.random.default_rng(seed)
        pilot = evidence(seed, width=float(rng.uniform(0.3, 2.6)), noise=float(rng.uniform(0.01, 1.0)))
        found = pilot_density(pilot)
        assert found.gain <= 1 + 1e-12
        assert found.P_std >= 0.6
        assert found.plan.certificate.optimal
        assert found.plan.error <= 1.01 + 1e-6  # the present density is feasible and pays 0.01 for its slopes
        assert np.all(found.plan.examples >= 0.1 * RUN.examples_on(pilot.levels) * (1 - 1e-6))


def test_a_pilot_that_knows_nothing_changes_little_and_one_that_knows_moves():
    known, unknown = (pilot_density(evidence(3, noise=noise)) for noise in (0.01, 3.0))
    assert known.gain < unknown.gain <= 1.0
    text = str(unknown)
    assert "proved optimal" in text
    assert "guard: a floor of 10% of the present density" in text
    assert "guard: roughness costs" in text
    assert "P_std is at least 0.6" in text


def test_widest_width_is_where_the_distance_that_teaches_tells_it_no_longer():
    # d^2 = E |level - example|^2 for levels drawn like the pilot's examples and examples weighed by density x kernel
    spread, accuracy = 1.2, 1.3
    x = np.linspace(-12, 12, 4801)

    def distance(width):
        # of a level at the pilot's middle: the posterior of where its teachers were
        weight = norm.pdf(x, scale=spread) * norm.pdf(x, scale=width)
        return np.sqrt((weight @ x**2) / weight.sum())

    limit = widest_shown(spread, accuracy)
    step = 1e-3
    slope = (np.log(distance(limit * (1 + step))) - np.log(distance(limit * (1 - step)))) / (2 * step)
    assert (accuracy - 1) / slope == pytest.approx(1.0, rel=1e-3)  # an error of 0.3 of d is one of the whole of w
    assert widest_shown(2.4, accuracy) == pytest.approx(2 * limit)


def test_a_spike_from_a_wide_kernel_is_refused_with_its_cause():
    # the recipe that answered P_std = .0071: a wide kernel, no guards
    pilot = evidence(5, width=2.6)
    levels = pilot.levels
    score = co.ScoreError(pilot.model(2.6).coefficients(levels=levels))
    paid = co.Compute(co.Prices(1.0, 1.0, 1), part="training") <= 128_000.0
    plan = co.Problem(score, [paid], steps=10.0 * levels.log_width).solve()
    assert plan.training_density.closest_lognormal().P_std < 0.3
    with pytest.raises(ValueError, match=r"one noise level teaches all others.*pilot_density"):
        plan.training_density.lognormal()
    assert pilot_density(pilot).P_std >= 0.6


def test_bad_arguments_are_refused_by_name():
    pilot = evidence()
    with pytest.raises(ValueError, match="floor is 1"):
        pilot_density(pilot, floor=1.0)
    with pytest.raises(ValueError, match=r"PilotEvidence\.left is 0 at every level"):
        dataclasses.replace(pilot, left=np.zeros(16))
    with pytest.raises(ValueError, match=r"PilotEvidence\.width"):
        dataclasses.replace(pilot, width=-1.0)
