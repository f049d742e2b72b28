"""The clean data that each scheduler of diffusers makes of a network's answer, by its own step."""

import sys
import types

import torch

from tests.helpers.schedulers import diffusers

PLAIN, HALF_WAY = {"clip_sample": False}, 0.6
TABLE, FLOW = ("epsilon", "v_prediction", "sample"), ("flow_prediction", "epsilon", "sample")


def by_output(scheduler, out, t, x):
    """step(...).pred_original_sample, or the second entry of the tuple."""
    return scheduler.step(out, t, x, return_dict=True).pred_original_sample


def by_conversion(scheduler, out, t, x):
    """What a multistep scheduler makes of the network's answer before its step."""
    scheduler._init_step_index(t)
    return scheduler.convert_model_output(out, sample=x)


def by_deis(scheduler, out, t, x):
    """DEIS goes on with the noise: x0 = (x - sigma_t eps) / alpha_t."""
    scheduler._init_step_index(t)
    alpha, level = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index])
    return (x - level * scheduler.convert_model_output(out, sample=x)) / alpha


def by_last_step(scheduler, out, t, x):
    """The step to zero noise, or of a consistency model to its lowest level, is the clean data."""
    return scheduler.step(out, t, x, generator=torch.Generator().manual_seed(0)).prev_sample


def by_helios(scheduler, out, t, x):
    wide = (..., None, None, None)  # it works on videos
    given = out[wide], x[wide], t.reshape(1), scheduler.sigmas, scheduler.timesteps
    return scheduler.convert_flow_pred_to_x0(*given)[..., 0, 0, 0]


def by_velocity(scheduler, out, t, x):
    """A step from sigma to sigma' is linear in the velocity; to zero noise it ends at the clean data."""
    scheduler._init_step_index(t)
    i = scheduler.step_index
    there = scheduler.step(out, t, x).prev_sample
    here, back = scheduler.sigmas[i], scheduler.sigmas[i + 1]
    end = 1.0 if getattr(scheduler.config, "invert_sigmas", False) else 0.0
    return x + (there - x) * (end - here) / (back - here)


def by_denoised(scheduler, out, t, x):
    return scheduler.step(out, t, x).denoised


def by_pndm(scheduler, out, t, x):
    return scheduler._get_prev_sample(x, int(t), -1, out)  # before the first timestep: alpha is 1


def by_tcd(scheduler, out, t, x):
    """Its noised sample at the last timestep is a0 x0 + b0 eps, and x = a x0 + b eps."""
    noised = scheduler.step(out, t, x, eta=0.0).pred_noised_sample
    kept = scheduler.alphas_cumprod.double()
    step = scheduler.timesteps.tolist()
    before = kept[step[step.index(int(t)) + 1]]
    (a, b), (a0, b0) = ((k.sqrt(), (1 - k).sqrt()) for k in (kept[int(t)], before))
    return ((noised - b0 / b * x) / (a0 - b0 / b * a)).float()


def by_repaint(scheduler, out, t, x):
    return scheduler.step(out, t, x, torch.zeros_like(x), torch.zeros_like(x)).pred_original_sample


def by_cogvideo(scheduler, out, t, x):
    return scheduler.step(out, None, t, None, x, return_dict=False)[1]


def by_wuerstchen(scheduler, out, t, x):
    """Its mean at time 0 is c0 x0 + c x, the posterior mean of DDPM, with the noise levels that it uses itself."""
    one = torch.as_tensor(t).reshape(1)
    scheduler.timesteps = torch.cat([one, torch.zeros(1)])
    mean = scheduler.step(out, one, x).prev_sample
    here, there = (float(scheduler._alpha_cumprod(v, "cpu")) for v in (one, torch.zeros(1)))
    kept = here / there
    return (mean - kept**0.5 * (1 - there) / (1 - here) * x) * (1 - here) / (there**0.5 * (1 - kept))


def by_score(scheduler, out, t, x):
    """Its mean at the next level is x + (sigma^2 - sigma'^2) score, and x0 = x + sigma^2 score."""
    mean = scheduler.step_pred(out, t, x, generator=torch.Generator().manual_seed(0)).prev_sample_mean
    level = scheduler.discrete_sigmas[(t * (len(scheduler.timesteps) - 1)).long()]
    before = scheduler.get_adjacent_sigma((t * (len(scheduler.timesteps) - 1)).long()[None], t[None])[0]
    return x + (mean - x) * level**2 / (level**2 - before**2)


def by_ipndm(scheduler, out, t, x):
    """Its first step is exact in (x0, eps): next_alpha x0 + next_beta eps, with x = alpha x0 + beta eps."""
    scheduler._init_step_index(t)
    i = scheduler.step_index
    there = scheduler.step(out, t, x).prev_sample
    (a, b), (a1, b1) = ((scheduler.alphas[k], scheduler.betas[k]) for k in (i, i + 1))
    return (there - b1 / b * x) / (a1 - b1 / b * a)


def by_preconditioning(scheduler, out, t, x):
    scheduler._init_step_index(t)
    return scheduler.precondition_outputs(x, out, scheduler.sigmas[scheduler.step_index])


def by_minimax(scheduler, out, t, x):
    return x + (1 - t) * out  # its step's own `denoised`; the velocity is x0 - z


# class: (settings, predictions, state that its steps work on, its clean data)
KEPT, PLAIN_X, STRAIGHT = "x / sqrt(1 + sigma^2)", "x", "x / (1 + sigma)"
ROWS = {
    "DDIMScheduler": (PLAIN, TABLE, KEPT, by_output),
    "DDIMParallelScheduler": (PLAIN, TABLE, KEPT, by_output),
    "DDPMScheduler": (PLAIN, TABLE, KEPT, by_output),
    "DDPMParallelScheduler": (PLAIN, TABLE, KEPT, by_output),
    "PNDMScheduler": ({"set_alpha_to_one": True}, TABLE[:2], KEPT, by_pndm),
    "TCDScheduler": ({}, TABLE, KEPT, by_tcd),
    "LCMScheduler": ({}, TABLE, KEPT, by_denoised),
    "UnCLIPScheduler": (PLAIN, ("epsilon", "sample"), KEPT, by_output),
    "RePaintScheduler": (PLAIN, (None,), KEPT, by_repaint),
    "CogVideoXDDIMScheduler": (PLAIN, TABLE, KEPT, by_output),
    "CogVideoXDPMScheduler": (PLAIN, TABLE, KEPT, by_cogvideo),
    "DEISMultistepScheduler": ({}, TABLE, KEPT, by_deis),
    "DPMSolverMultistepScheduler": ({}, TABLE, KEPT, by_conversion),
    "DPMSolverSinglestepScheduler": ({}, TABLE, KEPT, by_conversion),
    "SASolverScheduler": ({}, TABLE, KEPT, by_conversion),
    "UniPCMultistepScheduler": ({}, TABLE, KEPT, by_conversion),
    "EulerDiscreteScheduler": ({}, ("epsilon", "v_prediction", "original_sample"), PLAIN_X, by_output),
    "EulerAncestralDiscreteScheduler": ({}, TABLE[:2], PLAIN_X, by_output),
    "HeunDiscreteScheduler": ({}, TABLE, PLAIN_X, by_output),
    "KDPM2DiscreteScheduler": ({}, TABLE[:2], PLAIN_X, by_output),
    "KDPM2AncestralDiscreteScheduler": ({}, TABLE[:2], PLAIN_X, by_output),
    "LMSDiscreteScheduler": ({}, TABLE, PLAIN_X, by_output),
    "DPMSolverSDEScheduler": ({}, TABLE[:2], PLAIN_X, by_output),
    "FlowMatchEulerDiscreteScheduler": ({}, (None,), STRAIGHT, by_velocity),
    "FlowMatchHeunDiscreteScheduler": ({}, (None,), STRAIGHT, by_velocity),
    "FlowMatchLCMScheduler": ({}, (None,), STRAIGHT, by_last_step),
    "FlowMapEulerDiscreteScheduler": ({}, (None,), STRAIGHT, by_velocity),
    "LTXEulerAncestralRFScheduler": ({"eta": 0.0}, (None,), STRAIGHT, by_velocity),
    "HeliosScheduler": ({"stages": 1, "stage_range": [0, 1]}, FLOW, STRAIGHT, by_conversion),
    "HeliosDMDScheduler": ({"stages": 1, "stage_range": [0, 1]}, (None,), STRAIGHT, by_helios),
    "MiniMaxH3Scheduler": ({}, (None,), STRAIGHT, by_minimax),
    "EDMEulerScheduler": ({}, ("epsilon", "v_prediction"), PLAIN_X, by_output),
    "EDMDPMSolverMultistepScheduler": ({}, ("epsilon", "v_prediction"), PLAIN_X, by_preconditioning),
    "CosineDPMSolverMultistepScheduler": ({}, ("epsilon", "v_prediction"), PLAIN_X, by_preconditioning),
    "CMStochasticIterativeScheduler": ({"clip_denoised": False}, (None,), PLAIN_X, by_last_step),
    "ScoreSdeVeScheduler": ({}, (None,), PLAIN_X, by_score),
    "IPNDMScheduler": ({}, (None,), KEPT, by_ipndm),
    "DDPMWuerstchenScheduler": ({}, (None,), KEPT, by_wuerstchen),
}

# settings that change what time means, or only the choice of levels
FLOW_SIGMAS = {"use_flow_sigmas": True, "flow_shift": 3.0}
V, ZERO = {"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLAGS = [
    *((name, {**FLOW_SIGMAS, "prediction_type": kind}, STRAIGHT)
      for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
                   "SASolverScheduler", "DPMSolverSinglestepScheduler") for kind in FLOW),
    *((name, {**V, **ZERO, **PLAIN}, KEPT) for name in ("DDIMScheduler", "DDPMScheduler", "CogVideoXDDIMScheduler")),
    *((name, {**V, **ZERO}, KEPT) for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")),
    *((name, {"use_karras_sigmas": True}, state) for name, state in (
        ("EulerDiscreteScheduler", PLAIN_X), ("HeunDiscreteScheduler", PLAIN_X), ("LMSDiscreteScheduler", PLAIN_X),
        ("DPMSolverMultistepScheduler", KEPT), ("UniPCMultistepScheduler", KEPT), ("DEISMultistepScheduler", KEPT))),
    ("EulerDiscreteScheduler", {**V, **ZERO}, PLAIN_X),
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear", "use_karras_sigmas": True}, PLAIN_X),
    ("EulerDiscreteScheduler", {**V, "timestep_type": "continuous", "use_karras_sigmas": True, "sigma_min": 0.002,
                                "sigma_max": 700.0}, PLAIN_X),
    ("EulerDiscreteScheduler", {"beta_schedule": "scaled_linear", "beta_end": 0.012}, PLAIN_X),
    ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1}, STRAIGHT),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_karras_sigmas": True}, STRAIGHT),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, STRAIGHT),
    ("DDPMWuerstchenScheduler", {"scaler": 1.6}, KEPT),
    ("DDPMWuerstchenScheduler", {"scaler": 0.7}, KEPT),
    ("LCMScheduler", {"timestep_scaling": 3.0}, KEPT),
    ("EDMEulerScheduler", {"sigma_data": 1.3}, PLAIN_X),
    ("DDIMScheduler", {"num_train_timesteps": 250, **PLAIN}, KEPT),
]  # fmt: skip


def cases():
    """Label and (class, settings, state, clean data) of every scheduler, prediction and setting."""
    for name, (settings, predictions, state, own) in ROWS.items():
        for kind in predictions:
            told = settings if kind is None else {**settings, "prediction_type": kind}
            yield f"{name}-{kind or 'own'}", (name, told, state, own)
    for name, settings, state in FLAGS:
        told = ROWS[name][0] | settings
        words = "-".join(f"{k}={v}" for k, v in settings.items())
        yield f"{name}-{words}", (name, told, state, ROWS[name][3])


def installed(name, monkeypatch):
    """The class; those that need torchsde for their noise alone are loaded with an empty one."""
    found = getattr(diffusers, name)
    if found.__module__ != "diffusers.utils.dummy_torch_and_torchsde_objects":
        return found
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    files = {"CosineDPMSolverMultistepScheduler": "scheduling_cosine_dpmsolver_multistep",
             "DPMSolverSDEScheduler": "scheduling_dpmsolver_sde"}  # fmt: skip
    return getattr(__import__(f"diffusers.schedulers.{files[name]}", fromlist=[name]), name)


def prepared(name, settings, monkeypatch):
    """The scheduler with its steps set, and one of its times well inside."""
    scheduler = installed(name, monkeypatch)(**settings)
    if name == "FlowMatchLCMScheduler":
        scheduler.set_timesteps(sigmas=[HALF_WAY])
    elif settings.get("num_train_timesteps") == 1:
        scheduler.set_timesteps(sigmas=[0.9, HALF_WAY, 0.3])
    elif name == "CMStochasticIterativeScheduler":
        scheduler.set_timesteps(timesteps=[20])
    elif name == "LTXEulerAncestralRFScheduler":
        scheduler.set_timesteps(timesteps=[0.9, HALF_WAY, 0.3, 0.0])
    elif name == "ScoreSdeVeScheduler":
        scheduler.set_timesteps(2000)
        scheduler.set_sigmas(2000)
        return scheduler, 1200
    else:
        scheduler.set_timesteps(10)
    if name == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = lambda *times: 0.0
    i = len(scheduler.timesteps) // 2
    return scheduler, i - (name in ("KDPM2DiscreteScheduler", "DPMSolverSDEScheduler"))  # no second stage


def level(scheduler, i, t, state):
    """sigma at one of its times, from the scheduler's own tables."""
    name = type(scheduler).__name__
    if name == "DDPMWuerstchenScheduler":
        kept = scheduler._alpha_cumprod(t, "cpu").double().item()
        return ((1 - kept) / kept) ** 0.5
    if name == "IPNDMScheduler":
        return (scheduler.betas[i].double() / scheduler.alphas[i].double()).item()
    if name == "ScoreSdeVeScheduler":
        return scheduler.discrete_sigmas[(t * (len(scheduler.timesteps) - 1)).long()].item()
    listed = getattr(scheduler, "sigmas", None)
    if listed is None:
        kept = scheduler.alphas_cumprod[int(t)].double().item()
        return ((1 - kept) / kept) ** 0.5
    found = float(listed[i].double())
    if state is STRAIGHT:
        found = 1 - found if getattr(scheduler.config, "invert_sigmas", False) else found
        return found / (1 - found)
    return found
