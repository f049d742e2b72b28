"""Fitted solvers inside pipelines of diffusers: the same samples as our own loop, saved and loaded."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import from_diffusers, run
from codesign_opt.exports import export, read_schedule
from tests.helpers.pipelines import load, seeded
from tests.helpers.schedulers import CONVERSIONS, FLOW, OWN_WARNINGS, SD, diffusers, make
from tests.helpers.tiny_networks import CROSS, TINY, UNET

pytestmark = [CONVERSIONS, *(pytest.mark.filterwarnings(said) for said in OWN_WARNINGS)]

GRID = co.edm_grid(6, 0.05, 12.0)


def solver(grid=GRID, history=3, seed=0, consistent=True, mean=0.0):
    """A solver as a fit leaves it: Euler's rows, moved at random, whose weights sum to one."""
    draws = np.random.default_rng(seed)
    steps = len(grid) - 1
    a = grid[1:] / grid[:-1] * (1 + 0.1 * draws.normal(size=steps))
    c = np.tril(0.1 * draws.normal(size=(steps, history)))
    c[:, 0] += 1 - a - c.sum(1) if consistent else 1 - a
    return co.LinearMultistep(grid, a, c, mean)


NETWORKS = {
    "epsilon": ("DDPMScheduler", {}, {}),
    "sample": ("DDIMScheduler", {"prediction_type": "sample"}, {}),
    "v": ("DPMSolverMultistepScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "epsilon, interpolated in sigma": ("EulerDiscreteScheduler", SD, {}),
    "v, continuous": ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "flow, UniPC": ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 3.0}, {}),
    "EDM": ("EDMEulerScheduler", {}, {}),
    "EDM, v": ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction", "sigma_data": 1.4}, {}),
}


def network(x, timestep, return_dict=False):
    """Anything smooth in both, of a network's shape."""
    t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 1000
    return (torch.tanh(x.roll(1, -1) - 0.3 * x) + 0.2 * torch.sin(3 * t + x),)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("end", ["to zero", "above zero"])
@pytest.mark.parametrize(("name", "settings", "options"), NETWORKS.values(), ids=NETWORKS)
def test_a_pipelines_loop_makes_our_samples(name, settings, options, end, dtype):
    ours = solver(GRID if end == "to zero" else GRID[:-1], consistent=False, mean=0.3)
    given = make(name, **settings)
    scheduler = export(ours, "diffusers", given, **options)
    noise = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    scheduler.set_timesteps(ours.a.size)
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        out = network(scheduler.scale_model_input(latents, t), t)[0]
        latents = scheduler.step(out, t, latents, return_dict=False)[0]
    assert latents.dtype == dtype
    expected = run(from_diffusers(network, given), ours, GRID[: ours.levels.size], GRID[0] * noise)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(read_schedule(scheduler), ours.levels, rtol=2e-5)
