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
# | Plan for a linear denoiser fitted by least squares:
# |   32 heun steps, sigma 80 to 0.02506, the last one to zero noise
# |   how another learner's errors fall is not known here: measure yours with
# |   estimate.network(denoiser, data, training=log), or give its law, training=co.Measured
# | Predicted error 6.974e-05: squared Wasserstein-2 distance of samples to data
# |   = 0.00295 % of the data's total variance; RMS 0.543 % of the data's RMS
# | Error by cause                                            error      share  whole steps
# |   score             too few training examples         7.530e-05     61.7 %    4.220e-05
# |   discretization    finite sampler steps              4.555e-05     37.3 %
# |   truncation        stopping above zero noise         1.043e-06    0.855 %
# |   last evaluation   denoiser error in the final call  8.094e-08   0.0664 %    3.883e-06
# |   initial           starting from pure noise          6.437e-09  0.00528 %
# |   bias              steps, stop and start, exactly                            1.629e-05
# |   last with steps   errors that these two share                               1.012e-05
# |   shared with bias  what is unlearned, beside steps                          -2.750e-06
# |   total                                               1.220e-04      100 %    6.974e-05
# |   none from floor
# |   error and share: the program, which stops at sigma 0.004213
# | Budget        price  share
# |   training  370,000   37 %  123,333 examples at 3 each
# |   sampling  630,000   63 %  32 steps, 63 evaluations per image
# | Proof
# |   proved optimal at the program's stop to 1e-12 (lower bound 1.220e-04), by dual Newton
# |   the program's best stopping point is sigma 0.004213, optimal over stopping points to
# |   0.0921 % (41 tried); the exact error of the whole steps is smaller at this one
# |   this is of the program's leading-order error, 1.220e-04; the error above counts the
# |   whole steps, and first adds errors that the same examples make
# | Shadow prices      limit       error  changes per    limit +1 %*
# |   budget       1,000,000  -2.599e-10  unit of price      -2.15 %
# |   * change of the part of the error that the design can change
# | Same prices, other schedules      error  error / plan
# |   edm                         7.538e-04          10.8
# |   log_snr                     9.524e-04          13.7
# | Closest standard settings
# |   training density: log-normal, P_mean -0.702, P_std 1.580 (score error +1.67 %)
# |   sampler grid: EDM's formula with rho 4.63 (bias +3,922 %)
# | Sigmas  80  37.72  21.27  13.87  9.867  7.436  5.836  4.718  3.901  3.282  …  0.4698
# |         0.3946  0.3268  0.2655  0.2103  0.1619  0.1213  0.0877  0.02506  0
# | Note: the score error is least squares'; averaged SGD leaves 1.8 times as much at best
# |       (burn-in; 20.4 at sigma 0.0257): training=co.SGD(...) plans it
# | Note: stopping here alone leaves 0.001, errors of steps cancel it to 1.63e-05: for this
# |       spectrum; where all variances are 10% smaller or larger, 1.63e-05 and 1.77e-05
# | Note: not known: if the correlation length (2.7) is half or 1.5 times that, this error
# |       moves by +5.9 % or -4.5 %; if the training noise (kappa) is, by -38 % or +39 %

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
# | P_mean = -0.70, P_std = 1.58, score error +1.7%

# %% [markdown]
# A training loop of your own can follow the plan itself: noise levels for a batch, stratified, and the weight of each.

# %%
sigma, weight = plan.sample_sigmas(256, np.random.default_rng(0))
print(f"256 noise levels from {sigma.min():.3g} to {sigma.max():.3g}, median {np.median(sigma):.3g}")
# | 256 noise levels from 0.0259 to 29.2, median 0.54

# %% [markdown]
# ## What to give the sampler
#
# Its noise levels, from the highest to the lowest and then 0; `plan.export("diffusers", scheduler)` and other targets
# write them as that program wants them.

# %%
first, last = ([f"{level:.3g}" for level in part] for part in (plan.sigmas[:6], plan.sigmas[-6:]))
print(f"{plan.number_of_steps} steps: {', '.join(first)}, …, {', '.join(last)}")
# | 32 steps: 80, 37.7, 21.3, 13.9, 9.87, 7.44, …, 0.21, 0.162, 0.121, 0.0877, 0.0251, 0

# %% [markdown]
# ## What happens with another budget?
#
# Twice the compute makes the error more than three times smaller. The plan steps more often and stops at less noise,
# but most of what is added goes into training: errors of training fall as one over the number of examples, those of
# Heun's steps as one over the fourth power of their number. The best density hardly moves.

# %%
larger = co.codesign(model, prices, budget=2e6)
for found in (plan, larger):
    spent = found.costs["training"] + found.costs["sampling"]
    error, share = found.handed_out["total"], found.costs["training"] / spent
    print(f"budget {spent:,.0f}, {share:.0%} of it for training: error {error:.3g}")
    print(f"  {found.number_of_steps} steps to sigma {found.stopping_sigma:.3g}")
    print(f"  P_mean = {found.training_density.lognormal().P_mean:.2f}")
# | budget 1,000,000, 37% of it for training: error 6.97e-05
# |   32 steps to sigma 0.0251
# |   P_mean = -0.70
# | budget 2,000,000, 56% of it for training: error 2.08e-05
# |   44 steps to sigma 0.0224
# |   P_mean = -0.89

# %% [markdown]
# ## Is that worth it?
#
# EDM's grid of 18 steps and its training density, 400 iterations of 256 examples, held against the best that the same
# compute could buy:

# %%
run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=400, batch=256)
report = co.audit(model, prices, sigmas=co.edm_grid(18, 0.002, 80.0), run=run)
print(f"today's schedule makes {report.ratio:.3g} times the error that its compute allows")
# | today's schedule makes 49.6 times the error that its compute allows

# %% [markdown]
# Keep the plan: `plan.save("plan.json")`, `co.Plan.load("plan.json")`, `codesign-opt show plan.json`.

# %%
plan.save("plan.json")
print(co.Plan.load("plan.json").error == plan.error)
# | True
