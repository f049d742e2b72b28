"""What read_schedule gives is what the scheduler runs: levels derived from its own states, or a refusal by name.

A network whose clean data are 0 everywhere moves every deterministic scheduler along x / s proportional to sigma,
whatever its order: so the states tell the levels, without a look at its lists.
"""

import warnings

import numpy as np
import pytest
import torch

import codesign_opt as co
from tests.helpers.schedulers import OWN_WARNINGS, diffusers, make

pytestmark = [pytest.mark.filterwarnings(words) for words in OWN_WARNINGS]
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SDXL = {**SD, "timestep_spacing": "leading"}
ZERO = {**SD, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
PLAIN = {"clip_sample": False, "set_alpha_to_one": False}
COG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
       "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
       "snr_shift_scale": 3.0, "set_alpha_to_one": True}  # fmt: skip
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
KARRAS = {**SD, "use_karras_sigmas": True}

# the settings of public pipelines: class, settings, steps
REAL = {
    "SD 1.5, PNDM": ("PNDMScheduler", {**SD, "skip_prk_steps": True, "set_alpha_to_one": False}, 50),
    "SD 1.5, DDIM": ("DDIMScheduler", {**SD, **PLAIN}, 50),
    "SD 1.5, DDIM, 30": ("DDIMScheduler", {**SD, **PLAIN}, 30),
    "SD 2.1, DDIM v": ("DDIMScheduler", {**SD, **PLAIN, "prediction_type": "v_prediction"}, 25),
    "DDIM, trailing": ("DDIMScheduler", {**SD, **PLAIN, "timestep_spacing": "trailing"}, 20),
    "SDXL, Euler": ("EulerDiscreteScheduler", SDXL, 30),
    "SDXL Turbo, Euler": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}, 4),
    "SD 1.5, LMS": ("LMSDiscreteScheduler", SD, 20),
    "SDXL, Heun": ("HeunDiscreteScheduler", SDXL, 12),
    "Heun, Karras": ("HeunDiscreteScheduler", KARRAS, 12),
    "SD 1.5, DPM++ 2M Karras": ("DPMSolverMultistepScheduler", KARRAS, 25),
    "SD 2.1, DPM++ 2M": ("DPMSolverMultistepScheduler", {**SD, "prediction_type": "v_prediction"}, 20),
    "DeepFloyd IF, DPM++": ("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2"}, 25),
    "PixArt, DPM++": ("DPMSolverMultistepScheduler", {"beta_start": 1e-4, "beta_end": 0.02}, 20),
    "SVD, Euler": ("EulerDiscreteScheduler", {**SD, "prediction_type": "v_prediction", "timestep_type": "continuous",
                   "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0,
                   "interpolation_type": "linear"}, 25),
    "SD 1.5, DEIS": ("DEISMultistepScheduler", SD, 20),
    "SD 1.5, UniPC": ("UniPCMultistepScheduler", SD, 20),
    "Wan, UniPC flow": ("UniPCMultistepScheduler", FLOW, 20),
    "Sana, DPM++ flow": ("DPMSolverMultistepScheduler", FLOW, 20),
    "SD3, flow Euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 28),
    "Wan, flow Euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 5.0}, 40),
    "flow Euler, Karras": ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}, 10),
    "Mochi, inverted flow": ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, 20),
    "flow Heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, 10),
    "AnyFlow": ("FlowMapEulerDiscreteScheduler", {"shift": 5.0}, 8),
    "Helios": ("HeliosScheduler", {"stages": 1, "stage_range": [0, 1], "scheduler_type": "euler"}, 10),
    "MiniMax H3": ("MiniMaxH3Scheduler", {}, 12),
    "Playground, EDM Euler": ("EDMEulerScheduler", {}, 18),
    "Cosmos, EDM Euler": ("EDMEulerScheduler", {"sigma_max": 80.0, "sigma_min": 0.0002, "sigma_data": 0.5}, 35),
    "EDM DPM++": ("EDMDPMSolverMultistepScheduler", {}, 20),
    "CogVideoX, DDIM": ("CogVideoXDDIMScheduler", {**COG, "rescale_betas_zero_snr": False}, 50),
    "TCD": ("TCDScheduler", {**SD, "clip_sample": False, "set_alpha_to_one": True}, 4),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {"beta_start": 1e-4, "beta_end": 0.02}, 20),
    "Euler, exponential": ("EulerDiscreteScheduler", {**SD, "use_exponential_sigmas": True}, 15),
    "Euler, beta": ("EulerDiscreteScheduler", {**SD, "use_beta_sigmas": True}, 15),
    "UniPC, Karras": ("UniPCMultistepScheduler", KARRAS, 15),
    "DPM++ 2M, Lu": ("DPMSolverMultistepScheduler", {**SD, "use_lu_lambdas": True}, 15),
    "DPM++ 2M, above zero": ("DPMSolverMultistepScheduler", {**SD, "final_sigmas_type": "sigma_min"}, 15),
    "LTX, stretched flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "shift_terminal": 0.1}, 20),
    "Stable Audio 3, N = 1": ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1}, [0.9, 0.5, 0.2]),
    "zero SNR, DDIM": ("DDIMScheduler", {**ZERO, **PLAIN}, 20),
    "zero SNR, Euler": ("EulerDiscreteScheduler", ZERO, 20),
    "zero SNR, DPM++": ("DPMSolverMultistepScheduler", ZERO, 20),
    "CogVideoX, zero SNR": ("CogVideoXDDIMScheduler", COG, 50),
}  # fmt: skip


STATES = {"x": ("Euler", "Heun", "LMS", "EDM"), "flow": ("Flow", "Helios", "MiniMax")}


def kind_of(scheduler):
    """What its steps work on: x itself, a flow's state, or x / sqrt(1 + sigma^2)."""
    if getattr(scheduler.config, "use_flow_sigmas", False):
        return "flow"
    name = type(scheduler).__name__
    return next((kind for kind, starts in STATES.items() if name.startswith(starts)), "kept")


def answer(scheduler, given, t):
    """What a network answers whose clean data are 0, from what it is given and told alone."""
    name, t = type(scheduler).__name__, float(t)
    said = getattr(scheduler.config, "prediction_type", None)
    if name.startswith(STATES["flow"]) and said in (None, "flow_prediction"):
        top = float(getattr(scheduler.config, "num_train_timesteps", 1.0))
        if name == "MiniMaxH3Scheduler" or getattr(scheduler.config, "invert_sigmas", False):
            return -given / (1 - t / top)
        return given / (t / top)
    if name.startswith("EDM"):  # D = c_skip x + c_out F, told log(sigma) / 4
        return -given * scheduler.config.sigma_data / np.exp(4 * t)
    if getattr(scheduler.config, "timestep_type", "") == "continuous":
        return given / np.exp(4 * t)  # v = s z, given s x
    if said == "epsilon":
        return given / float(1 - scheduler.alphas_cumprod[int(t)]) ** 0.5
    return torch.zeros_like(given)  # the clean data themselves


def ready(name, settings, steps):
    """The scheduler for a network that predicts the clean data, where it takes one: its levels are the same."""
    kinds = {"EulerDiscreteScheduler": "original_sample", "PNDMScheduler": "epsilon"}
    told = dict(settings)
    takes = name.startswith(("DDIM", "CogVideo", "TCD", "DPM", "DEIS", "UniPC", "LMS", "Heun", *kinds))
    if takes and settings.get("timestep_type") != "continuous":
        told["prediction_type"] = kinds.get(name, "sample")
    scheduler = make(name, **told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(**({"sigmas": steps} if isinstance(steps, list) else {"num_inference_steps": steps}))
    return scheduler


def shares(sigma, kind):
    """What a state of unit noise is at these levels, in what the scheduler's steps work on."""
    with np.errstate(invalid="ignore"):
        found = {"x": sigma, "flow": sigma / (1 + sigma), "kept": sigma / np.sqrt(1 + sigma**2)}[kind]
    return np.where(np.isinf(sigma), 4096.0 if kind == "x" else 1.0, found)  # pure noise


def states_run(scheduler, first):
    """States of its own steps after the first level."""
    kind, begin = kind_of(scheduler), getattr(scheduler, "begin_index", None) or 0
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64) * shares(np.array([first]), kind)[0]
    found, step = [], {"eta": 0.0} if type(scheduler).__name__ == "TCDScheduler" else {}
    for t in scheduler.timesteps[begin:]:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(answer(scheduler, given, t), t, x, **step).prev_sample
        found.append(float(x))
    found = np.array(found)
    return found[np.append(True, np.abs(np.diff(found)) > 3e-5 * np.abs(found[:-1]))]  # without second stages


@pytest.mark.cases(11)
@pytest.mark.parametrize(("name", "settings", "steps"), REAL.values(), ids=REAL)
def test_levels_that_are_read_are_those_that_its_own_states_pass(name, settings, steps):
    scheduler = ready(name, settings, steps)
    read = co.read_schedule(scheduler, sigma_max=1e9)  # infinite where it begins with pure noise
    first = np.inf if read[0] == 1e9 else read[0]
    expected = shares(read[1:], kind_of(scheduler))
    np.testing.assert_allclose(states_run(scheduler, first), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "steps", "begin"),
    [("EulerDiscreteScheduler", {}, 30, 12), ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 20, 5),
     ("DPMSolverMultistepScheduler", KARRAS, 20, 8), ("HeunDiscreteScheduler", SD, 10, 6)],
)  # fmt: skip
def test_image_to_image_begins_where_it_is_told(name, settings, steps, begin):
    scheduler = ready(name, settings, steps)
    whole = co.read_schedule(scheduler, sigma_max=1e9)
    scheduler.set_begin_index(begin)
    read = co.read_schedule(scheduler)
    np.testing.assert_array_equal(read, whole[-read.size :])
    assert read.size < whole.size
    expected = shares(read[1:], kind_of(scheduler))
    np.testing.assert_allclose(states_run(scheduler, read[0]), expected, rtol=2e-5, atol=1e-6)


def test_zero_terminal_snr_starts_from_pure_noise():
    scheduler = make("DDPMScheduler", **ZERO)
    scheduler.set_timesteps(10)
    np.testing.assert_allclose(co.read_schedule(scheduler, sigma_max=100.0)[:3], [100.0, 18.13, 7.41], rtol=1e-3)
    with pytest.raises(ValueError, match=r"starts from pure noise .*sigma_max"):
        co.read_schedule(scheduler)
    highest = float(scheduler.alphas_cumprod[-2])  # what an export may use is the last finite level
    with pytest.raises(ValueError, match=f"to {((1 - highest) / highest) ** 0.5:.4g} that the network"):
        co.export([1e4, 10.0, 1.0, 0.0], "diffusers", scheduler)
    given = co.export([1e4, 10.0, 1.0, 0.0], "diffusers", scheduler, clip=True)
    assert given.arguments["timesteps"][0] == 998


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "DDIMScheduler",
            {"timestep_spacing": "linspace"},
            "steps down by 100 timesteps, but lists timesteps up to 111 apart",
        ),
        ("PNDMScheduler", {}, "begins with Runge-Kutta steps"),
        ("DDIMInverseScheduler", {}, "goes from data to noise"),
        ("DPMSolverMultistepInverseScheduler", {}, "goes from data to noise"),
        ("RePaintScheduler", {}, "goes up and down between its levels"),
        ("ScoreSdeVeScheduler", {}, "takes Langevin steps"),
        ("PiflowScheduler", {}, "moves along a policy"),
    ],
)
def test_schedulers_that_do_not_run_their_lists_are_refused_by_name(name, settings, said):
    scheduler = getattr(diffusers, name)(**settings)
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match=f"{name} {said}"):
        co.read_schedule(scheduler)


def test_a_flow_that_stops_short_of_one_starts_from_pure_noise():
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    scheduler.set_timesteps(sigmas=[1 - 1e-6, 0.75, 0.5])
    assert co.read_schedule(scheduler, sigma_max=80.0).tolist() == pytest.approx([80.0, 3.0, 1.0, 0.0])


def test_published_digits_are_in_range_and_levels_beyond_it_are_kept_when_said_so():
    ays = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029, 0.0]
    scheduler = make("EulerDiscreteScheduler", **SD)  # its table ends at 0.02917
    np.testing.assert_allclose(co.export(ays, "diffusers", scheduler).used, ays, rtol=1e-6)
    assert co.export(ays, "diffusers", make("DPMSolverMultistepScheduler", **SD)).arguments["timesteps"][-1] == 0
    beyond = [29.2, 5.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r"sigma 29\.2 lies outside .*outside=True to keep them"):
        co.export(beyond, "diffusers", scheduler)
    np.testing.assert_allclose(co.export(beyond, "diffusers", scheduler, outside=True).used, beyond, rtol=1e-6)


def test_levels_that_are_told_the_same_timestep_are_named():
    scheduler = make("DPMSolverMultistepScheduler", beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    scheduler.set_timesteps(50)
    with pytest.warns(
        UserWarning, match=r"same timestep at several levels: 998 at 22 levels from 2.029e\+04 to 730.5; 997"
    ):
        read = co.read_schedule(scheduler)
    assert (scheduler.timesteps == 998).sum() == 22
    np.testing.assert_allclose(read[:22], scheduler.sigmas[:22], rtol=1e-6)


def test_denoisers_and_their_checks_name_levels_that_are_told_alike():
    fresh = make("DPMSolverMultistepScheduler", beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    assert co.estimate.from_diffusers(lambda x, t: (0 * x,), fresh).notes == []
    fresh.set_timesteps(50)
    denoiser = co.estimate.from_diffusers(lambda x, t: (0 * x,), fresh)
    assert "998 at 22 levels from 2.029e+04 to 730.5" in denoiser.notes[0]
    data = 2.0 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = co.estimate.check_denoiser(denoiser, data)
    assert "note: DPMSolverMultistepScheduler tells the network the same timestep at several levels" in str(found)
    assert type(found).from_record(found.record()).note == found.note


def test_edms_ramp_is_not_taken_for_levels():
    scheduler = make("EDMEulerScheduler")
    scheduler.set_timesteps(sigmas=torch.tensor([80.0, 10.0, 1.0]))  # meant as levels
    with pytest.raises(ValueError, match=r"lists the noise level -2\.63e\+14; .* positions on a ramp from 0"):
        co.read_schedule(scheduler)
    scheduler.set_timesteps(sigmas=torch.tensor([-0.1, 0.3, 0.9]))
    with pytest.warns(UserWarning, match=r"runs 1 of 3 levels outside sigma_min 0\.002 to sigma_max 80 .*\(135\.3\)"):
        co.read_schedule(scheduler)


def test_cosmos_2_lists_noise_levels_where_others_list_flow_times():
    scheduler = make("FlowMatchEulerDiscreteScheduler", use_karras_sigmas=True)
    scheduler.register_to_config(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0)  # as its pipelines do
    scheduler.set_timesteps(sigmas=torch.linspace(0, 1, 10, dtype=torch.float64))
    np.testing.assert_allclose(co.read_schedule(scheduler), co.edm_grid(10, 0.002, 80.0), rtol=1e-5)
