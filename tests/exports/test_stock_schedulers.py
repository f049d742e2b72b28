"""Plans for UniPC, DEIS, 3M and 2S on diffusers' own schedulers, held in them and run: samples equal to ours.

The scheduler is run as a pipeline does it, on its own timesteps and states, on tiny random networks.
"""

import os
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import from_diffusers, run
from codesign_opt.exports import export
from codesign_opt.samplers.members import Sampler
from codesign_opt.testbed import circle8
from codesign_opt.testbed.networks.recipes import RECIPES, cache_folder
from codesign_opt.testbed.scheduler_loop import run_scheduler
from tests.helpers.schedulers import CONVERSIONS, FLOW, SD, diffusers, make, read_ddpm_levels
from tests.helpers.tiny_networks import UNET

pytestmark = CONVERSIONS
UNIPC, DEIS = "UniPCMultistepScheduler", "DEISMultistepScheduler"
MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PAIRS = [
    *[(co.UniPC(order, kind), UNIPC) for order in (2, 3) for kind in ("bh1", "bh2")],
    (co.DEIS(2), DEIS), (co.DEIS(3), DEIS),
    (co.DPMpp3M(), MULTI), (co.DPMpp3M(lower_order_final=False), MULTI),
    (co.DPMpp2S(), SINGLE),
]  # fmt: skip
ABOVE_ZERO = [(co.UniPC(3, "bh1", False), UNIPC), (co.DEIS(3, False), DEIS), (co.DPMpp3M(False), MULTI)]
NETWORKS = {"epsilon": {}, "v": {**SD, "prediction_type": "v_prediction"}, "flow": {**FLOW, "flow_shift": 3.0}}
STEPS = (3, 5, 8, 12, 14, 18) if FULL else (3, 8)


def network(x, timestep, return_dict=False):
    """Anything smooth in both, of a network's shape."""
    t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 1000
    return (torch.tanh(x.roll(1, -1) - 0.3 * x) + 0.2 * torch.sin(3 * t + x),)


def planned(sampler, grid):
    """What of a plan `export` looks at."""
    return SimpleNamespace(number_of_steps=len(grid) - 1, sigmas=grid, sampler=sampler.to_dict())


def first_states(grid, shape=(3, 2, 4, 4)):
    return grid[0] * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ours_and_theirs(sampler, name, settings, grid, ask=network, shape=(3, 2, 4, 4)):
    given = make(name, **settings)
    exported = export(planned(sampler, grid), "diffusers", given)
    scheduler = exported.holding(given)
    scheduler.set_timesteps(exported.num_inference_steps)
    told = Exact(scheduler) if settings.get("use_flow_sigmas") else scheduler.timesteps
    start = first_states(grid, shape)
    x = start / (1 + grid[0] if settings.get("use_flow_sigmas") else np.hypot(1, grid[0]))
    with torch.no_grad():
        for t, network_time in zip(scheduler.timesteps, told, strict=True):
            x = scheduler.step(ask(x, network_time)[0], t, x, return_dict=False)[0]
        taken = Sampler.from_dict({"name": exported.sampler, **exported.sampler_settings})
        ours = run(from_diffusers(ask, given), taken, grid, start)
    end = scheduler.sigmas[-1].double()
    scale = 1 - end if settings.get("use_flow_sigmas") else (1 + end**2) ** -0.5
    return ours, x / scale, exported


class Exact(list):
    """The times of a flow's levels: these schedulers cut theirs to whole ones."""

    def __init__(self, scheduler):
        super().__init__(1000 * scheduler.sigmas[:-1].double())


@pytest.mark.cases(14)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("sampler", "name"), PAIRS, ids=str)
def test_a_plans_steps_are_the_schedulers(sampler, name, kind, steps):
    grid = co.edm_grid(steps, 0.05, 12.0)
    if name == DEIS and steps >= 15:
        with pytest.raises(ValueError, match="takes no step to zero"):
            export(planned(sampler, grid), "diffusers", make(name, **NETWORKS[kind]))
        return
    if name == MULTI and kind != "flow":  # whole timesteps: a grid of them
        table = export(grid, "diffusers", make(name, **NETWORKS[kind])).used
        grid = table
    ours, theirs, exported = ours_and_theirs(sampler, name, NETWORKS[kind], grid)
    euler = run(from_diffusers(network, make(name, **NETWORKS[kind])), co.Euler(), grid, first_states(grid))
    assert float((euler - ours).abs().max()) > 1e-2
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert exported.sampler == sampler.name
    lowers = steps < 15 or not getattr(sampler, "lower_order_final", False) or name == UNIPC
    assert (exported.sampler_settings == vars(sampler)) == lowers
    assert any("From 15 steps on" in note for note in exported.notes) == (not lowers)


@pytest.mark.parametrize("steps", (4, 9, 18) if FULL else (4, 18))
@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize(("sampler", "name"), [*ABOVE_ZERO, (co.DPMpp2S(), SINGLE)], ids=str)
def test_steps_that_end_above_zero_are_the_schedulers(sampler, name, kind, steps):
    lowest = float(read_ddpm_levels(make(name, **NETWORKS[kind]), np.arange(1))[0])
    grid = co.log_snr_grid(steps, lowest if name == MULTI else 0.05, 12.0, terminal="rescale")
    if name == MULTI:
        grid = export(grid, "diffusers", make(name, **NETWORKS[kind])).used
    ours, theirs, exported = ours_and_theirs(sampler, name, NETWORKS[kind], grid)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert exported.sampler_settings == vars(sampler)


@pytest.mark.parametrize(("sampler", "name"), [PAIRS[3], PAIRS[5], PAIRS[6], PAIRS[8]], ids=str)
def test_steps_on_a_random_unet_are_the_schedulers(sampler, name):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        in_channels=3, out_channels=3, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), **UNET,
    ).eval().double()  # fmt: skip
    settings, grid = {"prediction_type": "sample"}, co.edm_grid(6, 0.05, 12.0)
    if name == MULTI:
        grid = export(grid, "diffusers", make(name, **settings)).used

    def ask(x, timestep, return_dict=False):
        return unet(x, timestep, return_dict=False)

    ours, theirs, _ = ours_and_theirs(sampler, name, settings, grid, ask, (2, 3, 8, 8))
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_a_scheduler_of_other_settings_is_told_which_ones_are_needed():
    grid, given = co.edm_grid(6, 0.05, 12.0), make(UNIPC, solver_order=2, solver_type="bh2")
    exported = export(planned(co.UniPC(3, "bh1"), grid), "diffusers", given)
    assert exported.changes == {"solver_order": 3, "solver_type": "bh1"}
    assert "steps of unipc(solver_order=3, solver_type='bh1', lower_order_final=True)" in str(exported)
    assert "not a number" in str(exported)
    with pytest.raises(ValueError, match="takes these levels only with solver_order=3"):
        exported.apply(given)
    scheduler = exported.apply(exported.configured(given))
    np.testing.assert_allclose(scheduler.sigmas[:-1], grid[:-1], rtol=1e-6)
    assert 0 < float(scheduler.sigmas[-1]) < 1e-7
    middles = export(planned(co.DPMpp2S(), grid), "diffusers", make(SINGLE))
    assert middles.num_inference_steps == 11
    np.testing.assert_allclose(middles.sigmas[1], np.sqrt(grid[0] * grid[1]), rtol=1e-12)
    elsewhere = export(planned(co.UniPC(), grid), "diffusers", make("EulerDiscreteScheduler"))
    assert "made for unipc steps; this scheduler takes euler" in str(elsewhere)
    assert "UniPCMultistepScheduler" in str(elsewhere)


def loop_ipndm(model, x, sigmas):
    """ComfyUI's ipndm (k_diffusion/sampling.py: sample_ipndm), fourth order as more slopes are known."""
    weights = {1: (1,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
    slopes, ones = [], x.new_ones(len(x))
    for high, low in pairwise(sigmas):
        clean = model(x, high * ones)
        slopes = [(x - clean) / high, *slopes[:3]]
        moved = sum(w * d for w, d in zip(weights[len(slopes)], slopes, strict=True))
        x = clean if low == 0 else x + (low - high) * moved
    return x


def test_ipndm_is_comfyuis():
    grid, x = co.edm_grid(9, 0.05, 12.0), 12 * torch.randn(8, 2, dtype=torch.float64)
    ours = run(circle8(), co.IPNDM(4), grid, x)
    torch.testing.assert_close(loop_ipndm(circle8(), x, torch.tensor(grid)), ours, rtol=1e-10, atol=1e-10)


def test_ipndm_is_diffusers_on_levels_that_are_written_into_it():
    """Its slopes are the noise of networks that answer with v and are told angles; it has no step to zero as ours."""
    grid, scheduler = co.log_snr_grid(9, 0.05, 12.0, terminal="rescale"), make("IPNDMScheduler")
    levels = torch.tensor(grid)
    scheduler.set_timesteps(9)
    scheduler.alphas, scheduler.betas = (1 + levels**2) ** -0.5, levels * (1 + levels**2) ** -0.5
    scheduler.timesteps = torch.atan2(scheduler.betas, scheduler.alphas)[:-1] / np.pi * 2
    start = 12 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = start * scheduler.alphas[0]
    for k, t in enumerate(scheduler.timesteps):
        alpha, beta = scheduler.alphas[k], scheduler.betas[k]
        clean = circle8()(x / alpha, levels[k].expand(8))
        x = scheduler.step((alpha * x - clean) / beta, t, x, return_dict=False)[0]
    ours = run(circle8(), co.IPNDM(4), grid, start)
    torch.testing.assert_close(x / scheduler.alphas[-1], ours, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("sampler", "name"), [(co.UniPC(lower_order_final=False), UNIPC), (co.DEIS(lower_order_final=False), DEIS)]
)
def test_steps_to_zero_that_no_setting_makes_are_refused(sampler, name):
    with pytest.raises(ValueError, match=r"no step to zero.*lower_order_final=True"):
        export(planned(sampler, co.edm_grid(6, 0.05, 12.0)), "diffusers", make(name))


def trained(name):
    recipe, home = RECIPES[name], cache_folder() / "testbed" / name
    found = recipe.finished(home)
    if found is None:
        pytest.skip(f"no trained network in {home}; python -m codesign_opt.testbed {name} trains it")
    return found


@pytest.mark.skipif(not FULL, reason="a minute: CODESIGN_OPT_FULL=1")
@pytest.mark.parametrize("of", ["digits", "photo_patches", "fashion_mnist"])
@pytest.mark.parametrize("steps", [5, 8, 12])
@pytest.mark.parametrize(("sampler", "name"), PAIRS, ids=str)
def test_steps_on_a_trained_network_are_the_schedulers(sampler, name, steps, of):
    known, given, grid = trained(of), make(name), co.edm_grid(steps, 0.03, 14.0)

    def denoiser(x, sigma):
        return known(x.float(), sigma.float()).double()

    exported = export(planned(sampler, grid), "diffusers", given)
    scheduler = exported.holding(given)
    scheduler.set_timesteps(exported.num_inference_steps)
    shape = (4, 1, 28, 28) if of == "fashion_mnist" else (4, 64)
    x = grid[0] * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        theirs = run_scheduler(scheduler, denoiser, x)
        ours = run(denoiser, sampler, exported.used if name == MULTI else grid, x)
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
