"""The stock samplers against their implementations in diffusers, on a curved denoiser in float32."""

import math

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import run
from codesign_opt.ingredients.grids import edm_grid
from tests.helpers.schedulers import CONVERSIONS, diffusers

pytestmark = CONVERSIONS

MIXED = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 0.4
START = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)) * 20
GRIDS = {
    "edm": edm_grid(8, 0.02, 20.0),
    "log": co.log_snr_grid(9, 0.1, 20.0, terminal="rescale"),
    "uneven": np.array([20.0, 15.0, 7.0, 5.0, 1.5, 1.0, 0.2, 0.11, 0.05]),
    "long": edm_grid(20, 0.05, 20.0, terminal="rescale"),
}


def network(x, sigma):
    sigma = sigma.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x @ MIXED.to(x.dtype) / (1 + sigma**2).sqrt()) + 0.3 * torch.sin(x / (1 + sigma))


def reference(name, grid, x, **config):
    """The scheduler's own loop on sigmas that are put into it, states as it keeps them (times 1/sqrt(1 + sigma^2))."""
    scheduler = getattr(diffusers, name)(prediction_type="sample", **config)
    scheduler.set_timesteps(len(grid) - 1)
    # in float64 where the scheduler lets it: its own logarithms in float32 lose more than is compared here
    scheduler.sigmas = torch.as_tensor(grid)
    scheduler._step_index = 0
    x = x.double() / math.sqrt(1 + grid[0] ** 2)
    for k, time in enumerate(scheduler.timesteps):
        scale = math.sqrt(1 + grid[k] ** 2)
        out = network(x * scale, scheduler.sigmas[k].expand(len(x)))
        x = scheduler.step(out, time, x, return_dict=False)[0]
    return x * math.sqrt(1 + grid[-1] ** 2)


UNIPC, DEIS, DPM = "UniPCMultistepScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler"
CASES = [
    *[(co.UniPC(p, kind), UNIPC, {"solver_order": p, "solver_type": kind}) for p in (2, 3) for kind in ("bh1", "bh2")],
    (co.UniPC(3, "bh2", False), UNIPC, {"solver_order": 3, "lower_order_final": False}),
    (co.DPMpp3M(), DPM, {"solver_order": 3}),
    (co.DPMpp3M(False), DPM, {"solver_order": 3, "lower_order_final": False}),
    (co.DEIS(2), DEIS, {"solver_order": 2}),
    (co.DEIS(3), DEIS, {"solver_order": 3}),
    (co.DEIS(3, False), DEIS, {"solver_order": 3, "lower_order_final": False}),
]


def is_a_number(scheduler, config, name):
    """Whether diffusers' own step to zero is: not DEIS's, nor UniPC's where B(h) or a matrix is infinite there."""
    infinite = config.get("solver_type") == "bh1" or not config.get("lower_order_final", True)
    return GRIDS[name][-1] > 0 or scheduler == DPM or (scheduler == UNIPC and not infinite)


PAIRS = [(*case, name) for case in CASES for name in GRIDS if is_a_number(*case[1:], name)]


@pytest.mark.cases(9)
@pytest.mark.parametrize(("sampler", "scheduler", "config", "name"), PAIRS)
def test_multistep_samplers_are_diffusers_schedulers(sampler, scheduler, config, name):
    grid = GRIDS[name]
    if scheduler == DPM:  # the others go by the sigmas that they hold
        config = {**config, "final_sigmas_type": "zero" if grid[-1] == 0 else "sigma_min"}
    if scheduler != UNIPC and name == "long":  # from 15 steps on these two lower no order
        sampler = type(sampler)(**{**vars(sampler), "lower_order_final": False})
    ours = run(network, sampler, grid, START)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours, reference(scheduler, grid, START, **config), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_two_s_is_the_single_step_scheduler_on_a_grid_with_its_middles(terminal):
    grid = co.log_snr_grid(7, 0.1, 20.0, terminal=terminal)
    positive = grid[grid > 0]
    middles = np.sqrt(positive[1:] * positive[:-1])
    inside = np.stack([positive[:-1], middles], axis=1).ravel()
    whole = np.concatenate([inside, positive[-1:], grid[grid == 0]])
    kind = "zero" if terminal == "denoise" else "sigma_min"
    options = {"solver_order": 2, "final_sigmas_type": kind, "lower_order_final": terminal == "denoise"}
    expected = reference("DPMSolverSinglestepScheduler", whole, START, **options)
    np.testing.assert_allclose(run(network, co.DPMpp2S(), grid, START), expected, rtol=1e-5, atol=1e-5)


class Draws:
    """The draws of a generator, in order."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, high, low, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def test_churn_is_the_euler_schedulers_and_the_second_call_is_at_its_next_state():
    """EulerDiscreteScheduler has EDM's churn: the state that Heun's method asks for second, one step at a time."""
    grid, asked = edm_grid(8, 0.02, 20.0), []
    churn = {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 15.0, "s_noise": 1.01}

    def seen(x, sigma):
        asked.append((float(sigma[0]), x))
        return network(x, sigma)

    out = run(seen, co.HeunChurn(**churn), grid, START, Draws(3))
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(sigmas=list(grid))
    scheduler.is_scale_input_called = True
    x, own, theirs = START, Draws(3), torch.Generator().manual_seed(3)
    for k in range(7):
        (level, raised), (after, there) = asked[2 * k], asked[2 * k + 1]
        inside = 0.1 <= grid[k] <= 15.0
        high = grid[k] * (1 + 3.0 / 8) if inside else grid[k]
        noise = own.draw(None, None, x) if inside else 0.0
        assert (level, after) == pytest.approx((high, grid[k + 1]))
        np.testing.assert_allclose(raised, x + noise * 1.01 * (high**2 - grid[k] ** 2) ** 0.5, rtol=1e-5, atol=1e-5)
        scheduler._step_index = k
        clean = network(raised, torch.full((len(x),), high))
        moved = scheduler.step(clean, scheduler.timesteps[k], x, **churn, generator=theirs, return_dict=False)[0]
        np.testing.assert_allclose(there, moved, rtol=1e-5, atol=1e-5)
        x = run(network, co.Heun(), [high, grid[k + 1]], raised)
    np.testing.assert_allclose(out, network(x, torch.full((len(x),), grid[7])), rtol=1e-5, atol=1e-5)
