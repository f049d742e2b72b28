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

# %% [markdown]
# Read the third table from the top: it removes the excess change by change, so that the first row with a large share
# is the one to make. `audit.report("audit.html")` writes the same as a page with the new settings to copy.
#
# ## A scheduler of diffusers
#
# Its levels are those that the scheduler itself makes; here the ones of `DPMSolverMultistepScheduler` with
# `use_karras_sigmas`, as a file or as numbers.

# %%
karras = co.edm_grid(20, 0.0292, 14.61)
solver = co.GaussianModel(co.Spectrum.from_samples(images), sampler=co.DPMpp2M(), start="mean")
audit = co.audit(solver, prices, sigmas=karras, run=run, levels=100, points=8)
for name, excess in audit.gap.items():
    print(f"{name}: {excess:.3g}")

# %% [markdown]
# ## Flow matching
#
# Times t = sigma / (1 + sigma) that are even, as most flow samplers take them, and a logit-normal training density:
# in sigma that is a log-normal.

# %%
times = [1 - k / 20 for k in range(1, 20)]
grid = [*(t / (1 - t) for t in times), 0.0]
flow = co.GaussianModel(co.Spectrum.from_samples(images), sampler=co.Euler(), start="mean")
audit = co.audit(
    flow, prices, sigmas=grid, run=co.TrainingRun(co.LogNormal(0.0, 1.0), 1_000, 256), levels=100, points=8
)
print(f"{audit.ratio:.3g} times the error that this compute allows")

# %% [markdown]
# ## Change this for your case
#
# Your own data in `images` (one row per sample), your sampler, the levels that your program logs, and the density and
# the length of your run; `co.read_schedule(file)` and `co.read_training(file)` read them from other programs' files,
# and `codesign-opt audit` does all of it on the command line.
