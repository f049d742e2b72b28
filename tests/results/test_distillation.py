"""Weights of distillation: against a Gaussian computed by hand, and against errors put into a sampler's own steps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import codesign_opt as co

DEFAULT = co.LogNormal(-1.2, 1.2)


def plan_of(lam, sampler, terminal="rescale", **options):
    model = co.GaussianModel(
        co.Spectrum.from_eigenvalues(lam),
        process=co.EDM(0.02, 20.0),
        sampler=sampler,
        terminal=terminal,
        start="marginal",
    )
    return co.codesign(model, steps=40, stopping_sigma=0.05, levels=60, polish=False, **options)


def test_one_direction_by_hand():
    # P = 1 + .05^2, v = 1 + sigma^2: a step of gamma adds (gamma / sigma)^2 P / v, sigma / gamma of them in log sigma
    plan = plan_of([1.0], co.Euler())
    weights = plan.distillation_weights(DEFAULT)
    sigma, width = plan.levels.sigma, plan.levels.log_width
    share = width * (width / plan.steps) * (1 + 0.05**2) / (1 + sigma**2)
    share /= share.sum()
    assert weights.share == pytest.approx(share, rel=1e-9)
    assert weights.importance == pytest.approx(share / DEFAULT.on_levels(plan.levels), rel=1e-9)
    assert DEFAULT.on_levels(plan.levels) @ weights.importance == pytest.approx(1.0)
    assert weights(sigma) == pytest.approx(weights.importance)
    assert weights(np.array([0.01, 30.0])).tolist() == [0.0, 0.0]
    assert weights.last == 0.0


@pytest.mark.cases(1)
@pytest.mark.parametrize("terminal", ["rescale", "denoise"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_weights_are_what_errors_of_single_steps_do(terminal, eta):
    # Euler(-Maruyama) of two directions written out; the denoiser's slope at one step is off in each direction in turn
    lam, n = np.array([1.0, 0.04]), np.ones(2)
    sampler = co.EulerMaruyama(eta) if eta else co.Euler()
    plan = plan_of(lam, sampler, terminal)
    nodes = np.geomspace(20.0, 0.05, 1601)

    def variance(off=None, at=None):
        v = lam + nodes[0] ** 2
        for k, (high, low) in enumerate(pairwise(nodes)):
            slope = lam / (lam + high**2) + (off if k == at else 0.0)
            move = (high - low) / high
            v = v * (1 - (1 + eta**2) * (1 - slope) * move) ** 2 + eta**2 * 2 * high * (high - low)
        return v * (lam / (lam + 0.05**2)) ** 2 if terminal == "denoise" else v

    end, gains = np.sqrt(variance()), np.log(plan.tables["output_sensitivity"])
    ratio = []
    for k in (200, 500, 800, 1100, 1400):
        high, low = nodes[k], nodes[k + 1]
        share = n * lam * high**2 / (lam + high**2)
        share /= share.sum()
        slope = np.sqrt(1e-8 * share / (n * (lam + high**2)))  # squared error 1e-8 of the output
        cost = float(((np.sqrt(variance(slope, k)) - end) ** 2).sum()) / 1e-8 / ((high - low) / high) ** 2
        ratio.append(cost / np.exp(np.interp(np.log(high), np.log(plan.levels.sigma), gains)))
    assert ratio == pytest.approx(np.ones(5), rel=0.03)  # leading order: steps of .004 in log sigma


def test_the_last_evaluation_enters_as_it_is_on_the_step_above_the_stopping_point():
    plan = plan_of([1.0, 0.04], co.Heun(), "denoise")
    weights = plan.distillation_weights(DEFAULT)
    width = plan.levels.log_width
    path = width * (width / plan.steps) * plan.tables["output_sensitivity"]
    assert weights.last == pytest.approx(1 / (1 + path.sum()))
    first = width[0] / plan.steps[0]  # one step in log sigma
    near = plan.levels.edges[:-1] < 0.05 * np.exp(first) * (1 - 1e-9)
    rest = weights.share - path / (1 + path.sum())
    assert rest[near].sum() == pytest.approx(weights.last)
    assert np.abs(rest[~near]).max() < 1e-12
    assert weights.share.sum() == pytest.approx(1.0)


def test_given_grids_several_samplers_and_training_loops_have_weights_and_what_has_none_says_so():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.02, 20.0))
    grid = co.edm_grid(12, 0.02, 20.0, terminal="denoise")
    given = co.codesign(model, co.Prices(1.0, 1.0, 1), 1e5, sigmas=grid, levels=40)
    weights = given.distillation_weights(given.training_density.with_floor(0.1, 0.01, 40.0))
    assert weights.share.sum() == pytest.approx(1.0)
    # where the grid's steps are long in log sigma an error costs more
    steps = co.steps_on_levels(given.levels, grid)
    expected = given.levels.log_width**2 / steps * given.tables["output_sensitivity"]
    inner = slice(10, None)
    assert weights.share[inner] / weights.share[inner].sum() == pytest.approx(
        expected[inner] / expected[inner].sum(), rel=1e-6
    )
    for sampler in (co.Heun(), co.DPMpp2M(), co.EulerMaruyama(1.0)):
        found = plan_of([1.0, 0.04], sampler).distillation_weights(DEFAULT)
        assert np.all(found.importance >= 0)
        assert DEFAULT.on_levels(found.levels) @ found.importance == pytest.approx(1.0)
    narrow = co.LogNormal(-1.2, 1.2).between(0.1, 1.0)
    with pytest.raises(ValueError, match="base has no mass at sigma"):
        given.distillation_weights(narrow)
    table = co.Coefficients(given.levels, np.ones(len(given.levels)), np.zeros(len(given.levels)),
                            np.zeros((0, len(given.levels))), terminal="rescale")  # fmt: skip
    bare = co.Problem(co.ScoreError(table), [co.Compute(co.Prices(1.0, 1.0, 1), part="training") <= 1e3],
                      steps=np.ones(len(given.levels))).solve()  # fmt: skip
    with pytest.raises(ValueError, match="does not hold what an error of the output does"):
        bare.distillation_weights(DEFAULT)


@pytest.mark.parametrize("terminal", ["rescale", "denoise"])
def test_a_plan_whose_examples_lie_on_levels_of_its_whole_steps_weighs_those_levels(terminal):
    model = co.GaussianModel(co.Spectrum([1.0, 0.04], [1, 1]), sampler=co.Heun(), terminal=terminal)
    plan = co.codesign(model, co.Prices(3.0, 1.0, 1000), 1e4, stopping_sigma=0.05, levels=60, points=3, polish=False)
    assert len(plan.levels) != plan.tables["program_sigma"].size  # else the test shows nothing
    lam, sigma = np.array([[1.0], [0.04]]), plan.levels.sigma
    end = lam + 0.05**2
    left = end if terminal == "rescale" else lam**2 / end
    # an error of the output moves the sample's standard deviation by what is left of it, direction by direction
    by_hand = (left * (lam * sigma**2 / (lam + sigma**2) ** 2)).sum(0) / (lam * sigma**2 / (lam + sigma**2)).sum(0)
    assert plan.tables["output_sensitivity"] == pytest.approx(by_hand, rel=0.02)
    weights = plan.distillation_weights(DEFAULT)
    assert DEFAULT.on_levels(plan.levels) @ weights.importance == pytest.approx(1.0)
