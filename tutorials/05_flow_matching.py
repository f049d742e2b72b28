# %% [markdown]
# # Flow matching: plan in t
#
# A flow model moves along x_t = (1 - t) x + t noise. At every t that is a noisy image of level sigma = t / (1 - t),
# scaled by 1 - t: the same denoiser, the same errors, other names. So a plan in sigma is a plan in t, and this page
# says which number goes where. Two minutes to read; needs scikit-learn for the data.

# %%
import numpy as np
from sklearn.datasets import load_digits

import codesign_opt as co

images = load_digits().data / 16 * 2 - 1
spectrum = co.Spectrum.from_samples(images)
model = co.GaussianModel(spectrum, process=co.FlowMatching(), sampler=co.Euler(), start="mean")
plan = co.codesign(model, co.Prices(3.0, 1.0, images=10_000), budget=1e6, levels=100, points=8)
print(f"{plan.number_of_steps} steps from t = {plan.times[0]:.4g} to t = {plan.stopping_time:.3g}, then to 0")
# | 88 steps from t = 0.988 to t = 0.00764, then to 0

# %% [markdown]
# Its figures are over sigma: where to train, where to step, what the error is made of, where to stop.

# %%
plan.plot().savefig("plan.png", dpi=100)

# %% [markdown]
# ## The sampler's times
#
# `plan.times` are those to hand to the sampler, noise at 1. `plan.export("comfyui", flow=True)` writes the same
# numbers as flow samplers call them sigmas.

# %%
print(np.array2string(plan.times[:6], precision=4), "…", np.array2string(plan.times[-4:], precision=4))
print([round(sigma, 4) for sigma in plan.export("comfyui", flow=True)[:3]])
# | [0.988  0.9712 0.9558 0.941  0.9265 0.9124] … [0.025  0.016  0.0076 0.    ]
# | [0.988, 0.9712, 0.9558]

# %% [markdown]
# ## Even times, and shifted ones
#
# Most flow samplers take even times; large images shift them towards noise, t -> s t / (1 + (s - 1) t). In sigma a
# shift is a factor s: here is what each leaves with as many steps as the plan, over what the plan leaves.

# %%
first = plan.times[0]  # the sampler starts here, below t = 1
for shift in (1.0, 2.0, 3.0):
    even = first / (shift - (shift - 1) * first) * np.linspace(1.0, 0.0, plan.number_of_steps + 1)
    t = shift * even / (1 + (shift - 1) * even)
    sigmas = t / (1 - t)
    print(
        f"shift {shift:.0f}: {model.bias(sigmas) / model.bias(plan.sigmas):.1f} times the plan's error of finite steps"
    )
# | shift 1: 1.0 times the plan's error of finite steps
# | shift 2: 1.7 times the plan's error of finite steps
# | shift 3: 2.8 times the plan's error of finite steps

# %% [markdown]
# ## The training density
#
# Logit-normal times are log-normal sigmas, logit t = ln sigma: the plan's fit is one line. Trainers that count from
# noise to data take the mean with the other sign; `plan.export_training` writes each in its own words.

# %%
fit = plan.logit_normal()
print(f"logit_mean {fit.logit_mean:.2f}, logit_std {fit.logit_std:.2f}: {fit.loss:.1%} more score error than the plan")
print(plan.export_training("diffusers").text)
# | logit_mean -0.09, logit_std 1.81: 0.2% more score error than the plan
# | --weighting_scheme logit_normal --logit_mean 0.0965454 --logit_std 1.76702

# %% [markdown]
# ## Change this for your case
#
# `images` are what the network sees: latents for a latent model, one row per sample. A shift that your model fixes
# goes into the export (`mu=`), not into the plan.
