"""Diffusers' schedulers under test, by name; without diffusers a test file that asks for them is skipped."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.samplers.members import Sampler

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
CONVERSIONS = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # numpy's, about diffusers' conversions

# numpy's and torch's, about what networks and schedulers of diffusers do themselves
OWN_WARNINGS = (
    "ignore:__array:DeprecationWarning", "ignore::FutureWarning", "ignore:In CPU autocast",
    "ignore:Initializing zero-element",
    "ignore:Mismatch dtype between input",
)  # fmt: skip

GRID = co.edm_grid(8, 0.05, 12.0)
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}

# scheduler, its settings, options of its step
SAME_STEPS = {
    "Euler": ("EulerDiscreteScheduler", {}, {}),
    "Euler, v, Stable Diffusion": ("EulerDiscreteScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "Euler, Karras flag": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, {}),
    "Heun": ("HeunDiscreteScheduler", LINEAR, {}),
    "Heun, v, Stable Diffusion": ("HeunDiscreteScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}, {}),
    "DPM++ 2M, v, Stable Diffusion": ("DPMSolverMultistepScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "DPM++ 2M, data": ("DPMSolverMultistepScheduler", {"prediction_type": "sample"}, {}),
    "DPM++ 1": ("DPMSolverMultistepScheduler", {"solver_order": 1}, {}),
    "DPM++ 1S": ("DPMSolverSinglestepScheduler", {"solver_order": 1, "lower_order_final": True}, {}),
    "TCD": ("TCDScheduler", {"clip_sample": False, **LINEAR}, {"eta": 0.0}),
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {}, {}),
    "flow Euler, shift": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "UniPC flow": ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 3.0, "disable_corrector": list(range(8))}, {}),
    "DPM++ 2M flow": ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 3.0}, {}),
    "DPM++ 1 flow": ("DPMSolverMultistepScheduler", {**FLOW, "solver_order": 1}, {}),
    "DPM++ 1S flow": ("DPMSolverSinglestepScheduler", {**FLOW, "solver_order": 1, "lower_order_final": True}, {}),
    "EDM Euler": ("EDMEulerScheduler", {}, {}),
    "EDM Euler, v": ("EDMEulerScheduler", {"prediction_type": "v_prediction", "sigma_data": 1.4}, {}),
}


def make(name, **settings):
    return getattr(diffusers, name)(**settings)


def states(sigma, count=64, seed=0):
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sigma * noise


def roundings(x, count=2):
    """`count` float32 roundings of the largest entry of the first state."""
    return count * torch.finfo(torch.float32).eps * float(x.abs().max())


def sampler_named(name):
    return Sampler.from_dict({"name": name})


def read_ddpm_levels(scheduler, steps):
    kept = scheduler.alphas_cumprod.double().numpy()[steps]
    return np.sqrt((1 - kept) / kept)
