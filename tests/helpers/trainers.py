"""What trainers draw by their own law, written from their documentation and source, apart from the library's formulas.

Each takes settings as they are typed and gives noise levels sigma = t / (1 - t) or of a table. Sources: NVlabs/edm
training/loss.py; k-diffusion k_diffusion/utils.py; sd-scripts library/flux_train_utils.py, sd3_train_utils.py and
train_util.py; musubi-tuner training/trainer_base.py; diffusion-pipe models/flux.py; SimpleTuner
helpers/models/common.py; OneTrainer modelSetup/mixin; diffusers training_utils.py and its examples.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def of_time(t):
    with np.errstate(divide="ignore"):
        return t / (1 - t)


def shifted(t, shift):
    return t * shift / (1 + (shift - 1) * t)


def stable_diffusion():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    return ((1 - kept) / kept) ** 0.5


def edm(said, count, rng):
    return np.exp(rng.standard_normal(count) * said["P_std"] + said["P_mean"])


def k_diffusion(said, count, rng):
    law = said["model"]["sigma_sample_density"]
    if law["type"] == "lognormal":
        return np.exp(rng.normal(law["mean"], law["std"], count))
    n, u = np.abs(rng.standard_normal(count)), rng.random(count)
    ratio = law["std_1"] / (law["std_1"] + law["std_2"])
    return np.exp(np.where(u < ratio, n * -law["std_1"] + law["mean"], n * law["std_2"] + law["mean"]))


def kohya(said, count, rng):
    if said["timestep_sampling"] == "logsnr":
        return of_time(sigmoid(-rng.normal(said["logit_mean"], said["logit_std"], count) / 2))
    t = sigmoid(rng.standard_normal(count) * said["sigmoid_scale"])
    return of_time(shifted(t, said["discrete_flow_shift"]))


def sd3_of_kohya(said, count, rng):
    u = shifted(sigmoid(rng.normal(said["logit_mean"], said["logit_std"], count)), said["training_shift"])
    return of_time((u * 1000).astype(int) / 1000)


def sdxl_of_kohya(said, count, rng):
    return stable_diffusion()[rng.integers(said["min_timestep"], said["max_timestep"], count)]


def diffusion_pipe(said, count, rng):
    return of_time(shifted(sigmoid(rng.standard_normal(count) * said["sigmoid_scale"]), said["shift"]))


def simple_tuner(said, count, rng):
    if "flow_custom_timesteps" in said:
        times = np.array([float(word) for word in said["flow_custom_timesteps"].split(",")])
        return of_time(times[rng.integers(0, times.size, count)])
    t = sigmoid(said["flow_sigmoid_scale"] * rng.standard_normal(count))
    return of_time(shifted(t, said["flow_schedule_shift"]))


def one_trainer(said, count, rng):
    u = sigmoid(rng.normal(said["noising_bias"], said["noising_weight"] + 1, count))
    step, shift = u * 1000, said["timestep_shift"]
    step = 1000 * shift * step / ((shift - 1) * step + 1000)
    return of_time((step.astype(int) + 1) / 1000)


def diffusers(said, count, rng, shift=3.0):
    schedule = np.linspace(1, 1000, 1000)[::-1] / 1000  # FlowMatchEulerDiscreteScheduler: from noise to data
    schedule = shifted(schedule, shift)
    u = sigmoid(rng.normal(said["logit_mean"], said["logit_std"], count))
    return of_time(schedule[np.minimum((u * 1000).astype(int), 999)])


def diffusers_sdxl(said, count, rng):
    weights = np.ones(1000)
    weights[said["timestep_bias_begin"] : said["timestep_bias_end"]] *= said["timestep_bias_multiplier"]
    return stable_diffusion()[rng.choice(1000, count, p=weights / weights.sum())]


def timesteps(said, count, rng):
    share = np.array(said["probability"])
    return stable_diffusion()[rng.choice(1000, count, p=share / share.sum())]


def quantiles(said, count, rng):
    sigma = np.array(said["sigma"])
    return sigma[rng.integers(0, sigma.size, count)]


# target, its options, the law, what reading back needs to know
TRAINERS = {
    "edm": ("edm", {}, edm, {}),
    "edm2": ("edm2", {}, edm, {"target": "edm2"}),
    "k-diffusion, log-normal": ("k-diffusion", {"form": "lognormal"}, k_diffusion, {}),
    "k-diffusion, split": ("k-diffusion", {}, k_diffusion, {}),
    "sd-scripts": ("sd-scripts", {}, kohya, {}),
    "sd-scripts, SD3": ("sd-scripts", {"model": "sd3"}, sd3_of_kohya, {}),
    "sd-scripts, SDXL": ("sd-scripts", {"model": "sdxl"}, sdxl_of_kohya, {}),
    "musubi-tuner": ("musubi-tuner", {}, kohya, {"target": "musubi-tuner"}),
    "musubi-tuner, log-SNR": ("musubi-tuner", {"sampling": "logsnr"}, kohya, {}),
    "diffusion-pipe": ("diffusion-pipe", {}, diffusion_pipe, {}),
    "SimpleTuner": ("simpletuner", {}, simple_tuner, {}),
    "SimpleTuner, exact": ("simpletuner", {"exact": True}, simple_tuner, {}),
    "OneTrainer": ("onetrainer", {}, one_trainer, {}),
    "diffusers": ("diffusers", {"shift": 3.0}, diffusers, {"shift": 3.0}),
    "diffusers, SDXL": ("diffusers-sdxl", {}, diffusers_sdxl, {}),
    "timesteps": ("timesteps", {}, timesteps, {}),
    "json": ("json", {}, quantiles, {}),
    "csv": ("csv", {}, quantiles, {}),
}
