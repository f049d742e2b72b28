# %% [markdown]
# # Plan from a spectrum
#
# You are about to train a diffusion model and to draw images from it, and one compute budget pays for both. Four
# questions come before the first iteration:
#
# 1. At which noise levels to train, and how often at each?
# 2. Which noise levels should the sampler visit, and how many?
# 3. Where may it stop?
# 4. How much of the budget goes into training, how much into sampling?
#
# This tutorial answers them from the least that can be known of the data: the variances along their principal
# directions, the *spectrum*. It takes half a minute and needs no data and no network.

# %%
import matplotlib.pyplot as plt
import numpy as np

import codesign_opt as co

# %% [markdown]
# ## What is known of the data
#
# Variances of natural images fall as a power of their rank. `power_law` states that, in squared data units;
# `co.Spectrum.from_samples(images)` measures it on images of your own, and everything below stays as it is.

# %%
spectrum = co.Spectrum.power_law(64, exponent=1.5)
print(f"{spectrum.dimension} directions, total variance {spectrum.trace:.4g}")
print(f"the largest variance is {spectrum.eigenvalues.max():.4g}, the smallest {spectrum.eigenvalues.min():.4g}")
# | 64 directions, total variance 2.363
# | the largest variance is 1, the smallest 0.001953

# %% [markdown]
# ## How the model is trained and sampled
#
# `GaussianModel` joins the spectrum with a process (here EDM's, noise levels from 0.002 to 80), a sampler (Heun's
# method: two evaluations of the network a step) and the way errors of training add up. Each has a default; what it
# assumes is said in its docstring, with the section of docs/theory.md that derives it.

# %%
model = co.GaussianModel(spectrum, process=co.EDM(sigma_min=0.002, sigma_max=80.0), sampler=co.Heun(), start="mean")

# %% [markdown]
# ## What compute costs
#
# Prices are in any one unit. Counted in evaluations of the network, a training example costs three (forward, and twice
# that backward) and an evaluation of the sampler one. How many images will be drawn decides how much sampling matters.

# %%
prices = co.Prices(example=3.0, evaluation=1.0, images=10_000)

# %% [markdown]
# ## The plan
#
# One call states the convex program at every stopping point, solves it, rounds it to whole steps and examples, and
# proves how far from the optimum the answer can be.

# %%
plan = co.codesign(model, prices, budget=1e6)
print(plan)
# | Plan: 37 heun steps, sigma 80 to 0.004222, the last one to zero noise
# | Predicted error 1.228e-04: squared Wasserstein-2 distance of samples to data
# |   = 0.00519 % of the data's total variance; RMS 0.721 % of the data's RMS
# |   1.212e-04 with the whole steps that are handed out
# | Error by cause                                           error      share  whole steps
# |   score            too few training examples         7.576e-05     61.7 %    8.032e-05
# |   discretization   finite sampler steps              4.585e-05     37.4 %
# |   truncation       stopping above zero noise         1.052e-06    0.857 %
# |   last evaluation  denoiser error in the final call  8.150e-08   0.0664 %    5.336e-07
# |   initial          starting from pure noise          6.437e-09  0.00524 %
# |   bias             steps, stop and start, exactly                            4.039e-05
# |   total                                              1.228e-04      100 %    1.212e-04
# |   none from floor
# |   whole steps: final call and earlier levels may add up to 4.839e-06 if correlated
# | Budget        price  share
# |   training  270,000   27 %  90,000 examples at 3 each
# |   sampling  730,000   73 %  37 steps (36.03 before rounding), 73 evaluations per image
# | Proof
# |   proved optimal at this stopping point to 1e-12 (lower bound 1.228e-04), by dual Newton
# |   optimal over stopping points to 0.0944 % (40 tried)
# | Shadow prices      limit       error  changes per    limit +1 %*
# |   budget       1,000,000  -2.621e-10  unit of price      -2.15 %
# |   * change of the part of the error that the design can change
# | Same prices, other schedules      error  error / plan
# |   log_snr                     3.577e-04          2.95
# |   edm                         5.756e-04          4.75
# | Closest standard settings
# |   training density: log-normal, P_mean -0.918, P_std 1.823 (score error +1.38 %)
# |   sampler grid: EDM's formula with rho 33 (bias +446 %)
# | Sigmas  80  28.96  15.88  10.34  7.391  5.607  4.427  3.597  2.984  2.515  …  0.1262
# |         0.1036  0.08424  0.06764  0.05322  0.04041  0.02867  0.0172  0.004222  0

# %% [markdown]
# Read it from the top: what is handed out, what error to expect and what it is made of, where the budget goes, and the
# proof. The shadow price says what one more unit of budget is worth: it is the slope of the error.
#
# ## Figure: one plan on one page
#
# Where to train, where to step, what the error is made of, and where to stop.

# %%
plan.plot().savefig("plan.png", dpi=100)
plt.close("all")

# %% [markdown]
# ## What to type into a training config
#
# Most training codes draw noise levels from a log-normal density with two numbers, EDM's `P_mean` and `P_std`. This is
# the one that wastes the least of the plan, and `loss` is the part of the score error that it costs:

# %%
fit = plan.training_density.lognormal()
print(f"P_mean = {fit.P_mean:.2f}, P_std = {fit.P_std:.2f}, score error {fit.loss:+.1%}")
# | P_mean = -0.92, P_std = 1.82, score error +1.4%

# %% [markdown]
# A training loop of your own can follow the plan itself: noise levels for a batch, stratified, and the weight of each.

# %%
sigma, weight = plan.sample_sigmas(256, np.random.default_rng(0))
print(f"256 noise levels from {sigma.min():.3g} to {sigma.max():.3g}, median {np.median(sigma):.3g}")
# | 256 noise levels from 0.00466 to 41.9, median 0.445

# %% [markdown]
# ## What to give the sampler
#
# Its noise levels, from the highest to the lowest and then 0; `plan.export("diffusers", scheduler)` and other targets
# write them as that program wants them.

# %%
first, last = ([f"{level:.3g}" for level in part] for part in (plan.sigmas[:6], plan.sigmas[-6:]))
print(f"{plan.number_of_steps} steps: {', '.join(first)}, …, {', '.join(last)}")
# | 37 steps: 80, 29, 15.9, 10.3, 7.39, 5.61, …, 0.0532, 0.0404, 0.0287, 0.0172, 0.00422, 0

# %% [markdown]
# ## What happens with another budget?
#
# Twice the compute makes the error almost four times smaller. The plan steps more often and stops at less noise, but
# most of what is added goes into training: errors of training fall as one over the number of examples, those of Heun's
# steps as one over the fourth power of their number. The best density hardly moves.

# %%
larger = co.codesign(model, prices, budget=2e6)
for found in (plan, larger):
    spent = found.costs["training"] + found.costs["sampling"]
    print(f"budget {spent:,.0f}, {found.costs['training'] / spent:.0%} of it for training: error {found.error:.3g}")
    print(f"  {found.number_of_steps} steps to sigma {found.stopping_sigma:.3g}")
    print(f"  P_mean = {found.training_density.lognormal().P_mean:.2f}")
# | budget 1,000,000, 27% of it for training: error 0.000123
# |   37 steps to sigma 0.00422
# |   P_mean = -0.92
# | budget 2,000,000, 44% of it for training: error 3.27e-05
# |   56 steps to sigma 0.0026
# |   P_mean = -0.93

# %% [markdown]
# ## Is that worth it?
#
# EDM's grid of 18 steps and its training density, 400 iterations of 256 examples, held against the best that the same
# compute could buy:

# %%
run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=400, batch=256)
report = co.audit(model, prices, sigmas=co.edm_grid(18, 0.002, 80.0), run=run)
print(f"today's schedule makes {report.ratio:.3g} times the error that its compute allows")
# | today's schedule makes 27.7 times the error that its compute allows

# %% [markdown]
# Keep the plan: `plan.save("plan.json")`, `co.Plan.load("plan.json")`, `codesign-opt show plan.json`.

# %%
plan.save("plan.json")
print(co.Plan.load("plan.json").error == plan.error)
# | True
