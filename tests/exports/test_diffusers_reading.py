"""Schedules read from diffusers' schedulers: the same samples, and exported again as themselves."""

import warnings

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.runs.run import run
from codesign_opt.exports import export, read_schedule
from codesign_opt.testbed import circle8
from codesign_opt.testbed.scheduler_loop import run_scheduler
from tests.helpers.schedulers import (
    CONVERSIONS,
    FLOW,
    GRID,
    SAME_STEPS,
    make,
    read_ddpm_levels,
    roundings,
    sampler_named,
    states,
)

pytestmark = CONVERSIONS


def native(name, steps=9, settings=None, **options):
    scheduler = make(name, **(settings or {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps, **options)
    return scheduler


READ = {
    "Euler": ("EulerDiscreteScheduler", {}, "euler", {}),
    "Euler, Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "euler", {}),
    "Heun": ("HeunDiscreteScheduler", {"beta_end": 0.02}, "heun", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}, "dpmpp_2m", {}),
    "DPM++ 2M, Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpmpp_2m", {}),
    "DPM++ 2M, above zero": (
        "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False}, "dpmpp_2m", {}
    ),
    "DDIM, leading": ("DDIMScheduler", {"clip_sample": False}, "euler", {}),
    "DDIM, last alpha of the table": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False,
                                                        "steps_offset": 1}, "euler", {}),
    "DDIM, trailing": ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, "euler", {}),
    "UniPC": ("UniPCMultistepScheduler", {"disable_corrector": list(range(20))}, "dpmpp_2m", {}),
    "EDM Euler": ("EDMEulerScheduler", {}, "euler", {}),
    "EDM DPM++ 2M": ("EDMDPMSolverMultistepScheduler", {}, "dpmpp_2m", {}),
    "EDM DPM++ 2M, exponential": ("EDMDPMSolverMultistepScheduler", {"sigma_schedule": "exponential"}, "dpmpp_2m", {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler", {"sigmas": np.linspace(0.98, 0.1, 10)}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "sampler", "options"), READ.values(), ids=READ)
def test_a_native_schedule_that_is_read_makes_the_same_samples(name, settings, sampler, options):
    scheduler = native(name, 10, settings, **options)
    grid = read_schedule(scheduler)
    assert grid.size == 11 if "above zero" not in name else grid.size in (10, 11)
    x = states(grid[0])
    theirs = run_scheduler(scheduler, circle8(), x)
    ours = run(circle8(), sampler_named(sampler), grid, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))


def test_known_schedules_are_read_as_published():
    np.testing.assert_allclose(read_schedule(native("EDMEulerScheduler")), co.edm_grid(9, 0.002, 80.0), rtol=1e-6)
    np.testing.assert_allclose(
        read_schedule(native("EDMDPMSolverMultistepScheduler")), co.edm_grid(9, 0.002, 80.0), rtol=1e-6
    )
    timesteps = np.linspace(999, 0, 9)
    table = read_ddpm_levels(make("EulerDiscreteScheduler"), np.arange(1000))
    linear = np.append(np.interp(timesteps, np.arange(1000), table), 0.0)
    for name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"):
        np.testing.assert_allclose(read_schedule(native(name)), linear, rtol=1e-6)
    found = read_schedule(native("DDPMScheduler", settings={"timestep_spacing": "linspace"}))
    np.testing.assert_allclose(found, np.append(table[np.round(timesteps).astype(int)], 0.0), rtol=1e-6)
    # a scheduler that evaluates in the middle of a step has its end points read
    assert read_schedule(native("KDPM2DiscreteScheduler")).size == 10
    # pure noise has no finite sigma: the default flow schedule starts there
    flow = native("FlowMatchEulerDiscreteScheduler", 4)
    with pytest.raises(ValueError, match="starts from pure noise"):
        read_schedule(flow)
    times = np.linspace(1.0, 0.001, 4)[1:]
    np.testing.assert_allclose(read_schedule(flow, sigma_max=500.0), [500.0, *(times / (1 - times)), 0.0], rtol=1e-4)
    unipc = native("UniPCMultistepScheduler", 5, FLOW)
    assert read_schedule(unipc, sigma_max=500.0).size == 6


@pytest.mark.parametrize(("name", "settings", "options"), SAME_STEPS.values(), ids=SAME_STEPS)
def test_every_export_is_read_back_and_exported_again_as_itself(name, settings, options):
    scheduler = make(name, **settings)
    first = export(GRID, "diffusers", scheduler)
    first.apply(scheduler)
    grid = read_schedule(scheduler)
    np.testing.assert_array_equal(grid, first.used)
    if name == "TCDScheduler":
        return  # it ends above zero, where a grid to zero was wanted
    again = export(grid, "diffusers", make(name, **settings))
    assert again.used.size == grid.size
    np.testing.assert_allclose(again.used, grid, rtol=1e-5)
    if "timesteps" in first.arguments and name != "HeunDiscreteScheduler":
        assert again.arguments == first.arguments


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
             "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"]
)  # fmt: skip
def test_a_scheduler_without_set_timesteps_is_told_to_call_it(name):
    with pytest.raises(ValueError, match="call its set_timesteps first"):
        read_schedule(make(name))
