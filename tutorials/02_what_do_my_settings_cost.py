# %% [markdown]
# # What do my settings cost?
#
# You train and sample with settings that came from somewhere: EDM's defaults, a scheduler of diffusers, a
# flow-matching script. An audit holds them against the best use of the same compute and says what to change first.
# Two minutes to read; needs scikit-learn for the data.

# %%
from sklearn.datasets import load_digits

import codesign_opt as co

images = load_digits().data / 16 * 2 - 1
prices = co.Prices(example=3.0, evaluation=1.0, images=10_000)

# %% [markdown]
# ## EDM's defaults
#
# 18 steps of Heun on EDM's levels, trained on 256,000 examples with P_mean -1.2 and P_std 1.2.

# %%
model = co.GaussianModel(co.Spectrum.from_samples(images), sampler=co.Heun(), start="mean")
run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=1_000, batch=256)
audit = co.audit(model, prices, sigmas=co.edm_grid(18, 0.002, 80.0), run=run, levels=100, points=8)
print(audit)
# | Audit for a linear denoiser fitted by least squares:
# | today's schedule makes 71.1 times the error that its compute allows
# |   18 steps to sigma 0.002, 255,996 examples, compute 1,118,000
# |   best: 37 steps to sigma 0.01681, 129,333 examples
# | Error by cause                                            today        best
# |   bias              steps, stop and start, exactly      0.04137   1.926e-04
# |   score             too few training examples         4.780e-04   3.629e-04
# |   last evaluation   denoiser error in the final call  7.527e-07   4.706e-06
# |   last with steps   errors that these two share       4.294e-06   2.502e-05
# |   shared with bias  what is unlearned, beside steps   -0.001297  -1.449e-05
# |   total                                                 0.04056   5.707e-04
# | Excess removed by changing, in turn     error   share
# |   training density                          0     0 %
# |   grid                                0.03429  85.8 %
# |   stopping point and split           0.005692  14.2 %
# |   on today's grid what is unlearned offsets errors of the steps: a better density alone
# |   wins nothing
# | Proof of the best
# |   proved optimal at the program's stop to 1e-12 (lower bound 6.323e-04), by dual Newton
# |   this bound is of the program, whose discretisation error is to leading order;
# |   5.707e-04 is the exact error of whole steps, whose errors partly cancel, and may lie
# |   below it
# |   the program's best stopping point is sigma 0.004819, optimal over stopping points to
# |   0.0988 % (35 tried); the exact error of the whole steps is smaller at this one

# %% [markdown]
# Read the third table from the top: it removes the excess change by change, so that the first row with a large share
# is the one to make. `audit.report("audit.html")` writes the same as a page with the new settings to copy. The figure
# says at which noise levels the run trained too little: there the error is that more examples would have removed.

# %%
audit.plot().figure.savefig("audit.png", dpi=100)

# %% [markdown]
# ## A scheduler of diffusers
#
# Its levels are those that the scheduler itself makes, as numbers (`scheduler.sigmas`); here the ones of
# `DPMSolverMultistepScheduler` with `use_karras_sigmas` over Stable Diffusion's range. `gap` is what each change
# saves of the error.

# %%
karras = co.edm_grid(20, 0.0292, 14.61)
solver = co.GaussianModel(co.Spectrum.from_samples(images), sampler=co.DPMpp2M(), start="mean")
audit = co.audit(solver, prices, sigmas=karras, run=run, levels=100, points=8)
for name, excess in audit.gap.items():
    print(f"{name}: {excess:.3g}")
# | training density: 0.000106
# | grid: 0.00138
# | stopping point and split: 0.000554

# %% [markdown]
# ## Flow matching
#
# Times t = sigma / (1 + sigma) that are even, as most flow samplers take them, and a logit-normal training density:
# in sigma that is a log-normal.

# %%
times = [1 - k / 20 for k in range(1, 20)]
grid = [*(t / (1 - t) for t in times), 0.0]
flow = co.GaussianModel(co.Spectrum.from_samples(images), process=co.FlowMatching(), sampler=co.Euler(), start="mean")
audit = co.audit(
    flow, prices, sigmas=grid, run=co.TrainingRun(co.LogNormal(0.0, 1.0), 1_000, 256), levels=100, points=8
)
print(f"{audit.ratio:.3g} times the error that this compute allows")
# | 13 times the error that this compute allows

# %% [markdown]
# ## Change this for your case
#
# Your own data in `images` (one row per sample), your sampler, the levels that your program logs, and the density and
# the length of your run; `co.read_schedule(file)` and `co.read_training(file)` read them from other programs' files,
# and `codesign-opt audit` does all of it on the command line.
