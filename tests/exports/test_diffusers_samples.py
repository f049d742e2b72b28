"""Exports loaded into diffusers' own schedulers and run: samples equal to ours.

Exact denoiser of a 2-D mixture throughout, and the trained Fashion-MNIST network where its weights are cached.
Diffusers keeps its levels, and most of its schedulers their states, in float32; tolerances are counted in
float32 roundings of the first state, whose size is sigma_max.
"""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import from_diffusers
from codesign_opt.estimate.runs.run import run
from codesign_opt.exports import export
from codesign_opt.testbed import circle8
from codesign_opt.testbed.networks.recipes import RECIPES, cache_folder
from codesign_opt.testbed.scheduler_loop import run_scheduler
from tests.helpers.schedulers import (
    CONVERSIONS,
    FLOW,
    GRID,
    LINEAR,
    SAME_STEPS,
    make,
    read_ddpm_levels,
    roundings,
    sampler_named,
    states,
)

pytestmark = CONVERSIONS


@pytest.mark.parametrize(("name", "settings", "options"), SAME_STEPS.values(), ids=SAME_STEPS)
def test_samples_of_the_real_scheduler_are_ours(name, settings, options):
    scheduler = make(name, **settings)
    given = export(GRID, "diffusers", scheduler)
    assert given.differences(scheduler) == {}
    assert given.apply(scheduler) is scheduler
    x = states(given.used[0])
    theirs = run_scheduler(scheduler, circle8(), x, **options)
    ours = run(circle8(), sampler_named(given.sampler), given.used, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))
    assert float((ours - circle8().sample(64, dtype=torch.float64)).std()) > 0.1  # samples, not one point


@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "solver_order": 1}),
        ("EDMEulerScheduler", {"final_sigmas_type": "sigma_min"}),
    ],
)
def test_grids_that_end_above_zero_end_there(name, settings, steps):
    scheduler = make(name, **settings)
    # the multistep scheduler ends at its table's lowest level, sqrt(1e-4 / (1 - 1e-4)) but for float32
    end = 1e-2 / np.sqrt(1 - 1e-4) if "DPM" in name else 0.02
    grid = co.log_snr_grid(steps, end, 12.0, terminal="rescale")
    given = export(grid, "diffusers", scheduler)
    given.apply(scheduler)
    assert given.used[-1] == pytest.approx(end, rel=2e-4)
    x = states(given.used[0])
    theirs = run_scheduler(scheduler, circle8(), x)
    ours = run(circle8(), sampler_named(given.sampler), given.used, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))


class Draws:
    """Normal draws of a seeded generator, in the order in which a scheduler takes them."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, high, low, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def test_ddpm_takes_our_ancestral_steps_with_the_same_noise():
    scheduler = make("DDPMScheduler", clip_sample=False)
    given = export(GRID, "diffusers", scheduler)
    given.apply(scheduler)
    x = states(given.used[0])
    theirs = run_scheduler(scheduler, circle8(), x, generator=torch.Generator().manual_seed(7))
    ours = run(circle8(), co.Ancestral(eta=1.0), given.used, x, noise=Draws(7))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))


class Network:
    """What a pipeline holds: the exact denoiser as a network that is told the timestep alone."""

    def __init__(self, scheduler):
        kept = getattr(scheduler, "alphas_cumprod", None)
        self.levels = None if kept is None else ((1 - kept.double()) / kept.double()).sqrt().log().numpy()

    def __call__(self, x_t, timestep):
        t = torch.as_tensor(timestep, dtype=torch.float64).expand(x_t.shape[0])
        if self.levels is None:
            sigma = (t / 1000) / (1 - t / 1000)
            scale = 1 / (1 + sigma)
        else:
            sigma = torch.tensor(np.exp(np.interp(t.numpy(), np.arange(1000), self.levels)))
            scale = (1 + sigma**2) ** -0.5
        x = x_t / scale[:, None]
        clean = circle8()(x, sigma)
        noise = (x - clean) / sigma[:, None]
        return (noise - clean if self.levels is None else noise,)


@pytest.mark.parametrize(
    "key", ["Euler", "Euler, Karras flag", "DPM++ 2M", "DPM++ 1S", "flow Euler", "flow Euler, shift"]
)
def test_a_pipelines_loop_with_the_exported_arguments_makes_our_samples(key):
    name, settings, _ = SAME_STEPS[key]
    scheduler = make(name, **settings)
    given = export(GRID, "diffusers", scheduler)
    network = Network(scheduler)
    scheduler.set_timesteps(**given.arguments)  # as retrieve_timesteps does
    noise = states(1.0)
    first = float(given.used[0])
    latents = noise * (getattr(scheduler, "init_noise_sigma", 1.0) if "Euler" in key else 1.0)
    if name.startswith("DPM"):
        latents = noise * first / (1 + first**2) ** 0.5
    elif name.startswith("Flow"):
        latents = noise * first / (1 + first)
    for t in scheduler.timesteps:
        entered = scheduler.scale_model_input(latents, t) if hasattr(scheduler, "scale_model_input") else latents
        latents = scheduler.step(network(entered, t)[0], t, latents, return_dict=False)[0]
    ours = run(from_diffusers(network, scheduler), sampler_named(given.sampler), given.used, first * noise)
    torch.testing.assert_close(latents, ours, rtol=0, atol=roundings(first * noise, 4))


def test_the_network_is_told_the_level_that_the_steps_use():
    for key in ("Euler", "DPM++ 2M", "TCD", "Heun, v, Stable Diffusion"):
        name, settings, _ = SAME_STEPS[key]
        scheduler = make(name, **settings)
        given = export(GRID, "diffusers", scheduler)
        given.apply(scheduler)
        table = np.log(read_ddpm_levels(scheduler, np.arange(1000)))
        told = np.exp(np.interp(np.unique(scheduler.timesteps.numpy())[::-1], np.arange(1000), table))
        slack = 2e-5 if "Heun" not in key else 2e-2
        np.testing.assert_allclose(told, given.used[:-1], rtol=slack)
        assert ("interpolated linearly" in str(given)) == (np.abs(np.log(told / given.used[:-1])).max() > 1e-3)
    scheduler = make("EDMEulerScheduler")
    export(GRID, "diffusers", scheduler).apply(scheduler)
    np.testing.assert_allclose(scheduler.timesteps.numpy(), 0.25 * np.log(GRID[:-1]), atol=1e-6)
    scheduler = make("UniPCMultistepScheduler", **FLOW)
    given = export(GRID, "diffusers", scheduler)
    given.apply(scheduler)
    behind = 1000 * GRID[:-1] / (1 + GRID[:-1]) - scheduler.timesteps.numpy()
    assert np.all((behind > 0) & (behind < 1))
    assert f"cut off by up to {behind.max():.2g} of 1000" in str(given)


def test_without_the_stated_settings_samples_differ():
    grid = co.edm_grid(6, 0.05, 12.0)
    for name, settings in [
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
        ("UniPCMultistepScheduler", FLOW),
        ("HeunDiscreteScheduler", {**LINEAR, "clip_sample": True}),
    ]:
        scheduler = make(name, **settings)
        given = export(grid, "diffusers", scheduler)
        assert given.differences(scheduler)
        given.apply(scheduler)
        x = states(given.used[0])
        theirs = run_scheduler(scheduler, circle8(), x)
        ours = run(circle8(), sampler_named(given.sampler), given.used, x)
        assert float((theirs - ours).abs().max()) > 1e-3


@pytest.fixture(scope="module")
def clothes():
    recipe = RECIPES["fashion_mnist"]
    home = cache_folder() / "testbed" / "fashion_mnist"
    found = recipe.finished(home)
    if found is None:
        pytest.skip(f"no trained network in {home}; python -m codesign_opt.testbed fashion_mnist trains it")
    return found


@pytest.mark.cases(5)
@pytest.mark.parametrize(("name", "settings", "options"), SAME_STEPS.values(), ids=SAME_STEPS)
def test_samples_of_the_trained_network_are_ours(clothes, name, settings, options):
    scheduler = make(name, **settings)
    given = export(co.edm_grid(8, 0.03, 14.0), "diffusers", scheduler)
    given.apply(scheduler)
    x = given.used[0] * torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = run_scheduler(scheduler, clothes, x, **options)
        ours = run(clothes, sampler_named(given.sampler), given.used, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x, 2))
    assert float(ours.std()) > 0.2
