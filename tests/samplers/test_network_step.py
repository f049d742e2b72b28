"""Samplers written by a user: their sensitivity, memory, noise, and what is said where a step is missing."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import (
    BrownianPath,
    Draws,
    Reference,
    Starts,
    StepRule,
    error_gram,
    network,
    run,
    step_responses,
)
from codesign_opt.estimate.draws.streams import normal
from codesign_opt.estimate.runs.run import asked_levels
from codesign_opt.samplers.affine_steps import prepare

LAM = np.array([2.0, 0.5, 0.03, 0.0])
GRIDS = [co.edm_grid(7, 0.05, 20.0), co.log_snr_grid(9, 0.1, 10.0, terminal="rescale")]
DOUBLE = torch.zeros((), dtype=torch.float64)


def linear(x, sigma):
    lam = torch.as_tensor(LAM)
    return x * lam / (lam + sigma[:, None] ** 2)


@dataclass(frozen=True)
class OnlyGaussian(co.Sampler):
    """Euler's method without a step on networks."""

    name = "only_gaussian"

    def leading_error(self, lam, sigma):
        return lam / (2 * (lam + sigma**2) ** 2)

    def affine_steps(self, sigma, weights):
        ratio = sigma[..., 1:, :] / sigma[..., :-1, :]
        return co.AffineSteps(ratio + (1 - ratio) * weights[..., :-1, :])


@dataclass(frozen=True)
class ThreeSlopes(OnlyGaussian):
    """Adams-Bashforth of order 3 on equal steps: it remembers two outputs. Its law is written as a loop in the test."""

    name, order, memory = "three_slopes", 3, 2

    def step(self, denoiser, x, levels, memory, noise):
        clean = denoiser(x, levels.high)
        used = [clean, *(past.output for past in reversed(memory))]
        share = {1: (1.0,), 2: (1.5, -0.5), 3: (23 / 12, -16 / 12, 5 / 12)}[len(used)]
        clean = sum(s * output for s, output in zip(share, used, strict=True))
        return clean + levels.low / levels.high * (x - clean)


@dataclass(frozen=True)
class Churned(OnlyGaussian):
    """Euler's method from a level raised by fresh noise, as EDM's stochastic sampler: noise, and no eta."""

    name, stochastic, churn = "churned", True, 0.3

    def affine_steps(self, sigma, weights):
        high, low = sigma[..., :-1, :], sigma[..., 1:, :]
        raised = (1 + self.churn) * high
        kept = low / raised + (1 - low / raised) * self.weights_at(raised, sigma, weights)
        return co.AffineSteps(kept, noise=kept**2 * (raised**2 - high**2))

    def step(self, denoiser, x, levels, memory, noise):
        raised = (1 + self.churn) * levels.high
        x = x + (raised**2 - levels.high**2).sqrt() * noise.draw(levels.high, levels.low, x)
        clean = denoiser(x, raised)
        return clean + levels.low / raised * (x - clean)


@dataclass(frozen=True)
class Midpoint(OnlyGaussian):
    """Two evaluations a step, the second between the nodes: the last node of a grid is never asked for."""

    name, evaluations_per_step = "midpoint", 2

    def step(self, denoiser, x, levels, memory, noise):
        middle = (levels.high + levels.low) / 2
        there = x + (middle - levels.high) * (x - denoiser(x, levels.high)) / levels.high
        return x + (levels.low - levels.high) * (there - denoiser(there, middle)) / middle


LIBRARY = [co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(0.7), co.EulerMaruyama(0.5)]


@pytest.mark.parametrize("grid", [*GRIDS, np.array([3.0, 0.0])], ids=["denoise", "rescale", "last step alone"])
@pytest.mark.parametrize("sampler", LIBRARY, ids=repr)
def test_sensitivity_of_any_sampler_is_the_one_of_the_librarys_own_recursions(sampler, grid):
    given = prepare(grid, LAM[:3], None, None)
    general = co.Sampler._sensitivity(sampler, given)
    np.testing.assert_allclose(general, sampler.weight_sensitivity(grid, LAM[:3]), rtol=1e-11, atol=1e-14)


def test_sensitivity_of_a_users_sampler_takes_no_complex_grid_and_says_so():
    np.testing.assert_allclose(
        OnlyGaussian().weight_sensitivity(GRIDS[0], LAM), co.Euler().weight_sensitivity(GRIDS[0], LAM), rtol=1e-12
    )
    with pytest.raises(ValueError, match="complex input"):
        OnlyGaussian().weight_sensitivity(GRIDS[0] + 1e-30j, LAM)


def test_a_sampler_without_a_step_is_refused_by_the_method_to_write():
    for call in (
        lambda: run(linear, OnlyGaussian(), GRIDS[0], torch.ones(1, 4, dtype=torch.float64)),
        lambda: Reference(linear, OnlyGaussian(), Draws((4,), 2, 20.0), 0.05),
        lambda: network(lambda x, s: 1 / 0, torch.ones(9, 4), sampler=OnlyGaussian()),
        lambda: OnlyGaussian().step(linear, torch.ones(1, 4), None, (), None),
    ):
        with pytest.raises(ValueError, match=r"no step on a network: write OnlyGaussian\.step\(self, denoiser, x"):
            call()
    assert co.codesign(co.GaussianModel(co.Spectrum.power_law(4, exponent=1.0), sampler=OnlyGaussian()), steps=9).error


def test_memory_and_noise_together_have_no_law_here():
    with pytest.raises(ValueError, match="earlier and noise"):
        co.AffineSteps(np.ones((2, 1)), [np.ones((2, 1))], np.ones((2, 1)))


@pytest.mark.parametrize("grid", GRIDS, ids=["denoise", "rescale"])
def test_a_sampler_that_remembers_two_outputs_runs_as_its_literal_loop_and_goes_on_from_the_middle(grid):
    x = np.full(4, 5.0)
    states, outputs = [x], []
    for high, low in pairwise(grid):
        outputs.append(LAM / (LAM + high**2) * x)
        if len(outputs) == 1 or low == 0:
            clean = outputs[-1]
        elif len(outputs) == 2:
            clean = 1.5 * outputs[-1] - 0.5 * outputs[-2]
        else:
            clean = (23 * outputs[-1] - 16 * outputs[-2] + 5 * outputs[-3]) / 12
        x = clean + low / high * (x - clean)
        states.append(x)
    out = run(linear, ThreeSlopes(), grid, torch.full((1, 4), 5.0, dtype=torch.float64))
    np.testing.assert_allclose(out[0], states[-1], rtol=1e-12, atol=1e-14)
    before = [(grid[k], *(torch.as_tensor(part[k])[None] for part in (states, outputs))) for k in (1, 2, 3)]
    tail = run(linear, ThreeSlopes(), grid[4:], torch.as_tensor(states[4])[None], before=before)
    np.testing.assert_allclose(tail[0], states[-1], rtol=1e-12, atol=1e-14)
    forgetful = run(linear, ThreeSlopes(), grid[4:], torch.as_tensor(states[4])[None])
    assert not np.allclose(forgetful[0][:3], states[-1][:3], rtol=1e-6)


@pytest.mark.slow
def test_responses_of_a_sampler_that_remembers_two_outputs_ask_for_both():
    reference = Reference(linear, ThreeSlopes(), Draws((4,), 4, 20.0, like=DOUBLE), 0.02, steps=2000)
    asked = []
    rule = StepRule.relative(0.2)
    counted = StepRule(rule.next, lambda sigma, start: asked.append(sigma) or rule.previous(sigma, start))
    found = step_responses(reference, [1.0], counted)
    assert asked == pytest.approx([1.0, 1.25])
    first = 20.0 * normal(0, "draws", "start", 0, shape=(4, 4), like=DOUBLE).numpy()
    exact = {s: first * np.sqrt((LAM + s**2) / (LAM + 400.0)) for s in (1.5625, 1.25, 1.0)}
    clean = [LAM / (LAM + s**2) * x for s, x in exact.items()]
    used = (23 * clean[2] - 16 * clean[1] + 5 * clean[0]) / 12
    end = (used + 0.8 * (exact[1.0] - used)) / np.sqrt(LAM + 0.64) - exact[1.0] / np.sqrt(LAM + 1)
    end *= LAM / np.sqrt(LAM + 0.02**2) / 0.2**4  # on to 0.02 and through the last call, per step to the fourth
    gram = np.square(end).sum(axis=1).mean()
    assert float(found.gram.value[0, 0]) == pytest.approx(gram, rel=0.01)


def test_noise_without_eta_is_drawn_and_has_the_law_that_was_written():
    grid, count = co.edm_grid(6, 0.05, 20.0), 40_000
    law = Churned().terminal_law(grid, LAM, initial_variance=np.full(4, 400.0))
    x = 20.0 * normal(1, "start", shape=(count, 4), like=DOUBLE)
    out = run(linear, Churned(), grid, x, BrownianPath(1, ("noise",), 20.0, 0.05)).numpy()
    error = (out**2).mean(axis=0) - np.asarray(law.variance)
    assert np.all(np.abs(error[:3]) <= 3 * np.sqrt(2 / count) * np.asarray(law.variance)[:3])
    with pytest.raises(ValueError, match="injects noise"):
        run(linear, Churned(), grid, x)
    assert Reference(linear, Churned(), Draws((4,), 2, 20.0), 0.05).fine == Churned()


def test_levels_asked_for_are_the_samplers_own_between_nodes_too():
    grid = [4.0, 1.0, 0.5]
    assert asked_levels(co.DPMpp2M(), grid) == [4.0, 1.0]
    assert asked_levels(co.Heun(), grid) == [4.0, 1.0, 1.0, 0.5]
    assert asked_levels(Churned(), grid) == pytest.approx([5.2, 1.3])
    assert asked_levels(Midpoint(), grid) == [4.0, 2.5, 1.0, 0.75]


def test_the_gram_matrix_of_errors_has_a_block_for_every_node_that_is_asked_for():
    found = error_gram(lambda x, s: 0.5 * x, lambda x, s: 0.6 * x, Midpoint(), [4.0, 1.0, 0.5], Starts((3,), draws=8))
    np.testing.assert_allclose(found.levels.sigma, [1.0, 4.0])
    np.testing.assert_allclose(found.correlation, np.ones((2, 2)), rtol=1e-5)  # both errors stretch the sample
