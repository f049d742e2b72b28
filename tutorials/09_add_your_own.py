# %% [markdown]
# # A sampler, a schedule and an export of your own
#
# What the library does not have is one class or one function away: it is planned with, compared and exported like the
# rest. Three minutes to read; no data needed.

# %%
import json
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

import codesign_opt as co

spectrum = co.Spectrum.power_law(16, exponent=1.5)
process = co.EDM(0.002, 80.0)

# %% [markdown]
# ## A sampler
#
# Ralston's method takes its second evaluation two thirds down the step. Three things make it a sampler: how many
# evaluations a step takes, what a step does to Gaussian data (a factor per direction; `weights` are the exact
# denoiser's), and the leading error of short steps, per unit of (length in sigma)^order.


# %%
@dataclass(frozen=True)
class Ralston(co.Sampler):
    name, order, evaluations_per_step = "ralston_method", 2, 2

    def leading_error(self, lam, sigma):
        return -lam * sigma / (6 * (lam + sigma**2) ** 3)

    def affine_steps(self, sigma, weights):
        high, step = sigma[..., :-1, :], -np.diff(sigma, axis=-2)
        there = 1 - 2 * step / 3 * (1 - weights[..., :-1, :]) / high
        slope = (1 - self.weights_at(high - 2 * step / 3, sigma, weights)) / (high - 2 * step / 3) * there
        return co.AffineSteps(1 - step * ((1 - weights[..., :-1, :]) / high + 3 * slope) / 4)


for sampler in (co.Heun(), Ralston()):
    model = co.GaussianModel(spectrum, process=process, sampler=sampler, start="mean")
    plan = co.codesign(model, steps=10, levels=60, points=6)
    usual = float(model.bias(co.edm_grid(10, 0.002, 80.0)))
    print(f"{sampler.name}: EDM's ten steps {usual:.2e}, the plan's {plan.handed_out['total']:.2e}")
# | heun: EDM's ten steps 1.02e-01, the plan's 2.00e-03
# | ralston_method: EDM's ten steps 1.64e-03, the plan's 2.64e-06

# %% [markdown]
# Such errors are exact, and of Gaussian data: with the mean and variances alone, errors of single steps cancel as they
# do on no image. Is the order right? Half the steps must make four times the error (its root mean square), until the
# noise that is left at the end is all there is.

# %%
exact = co.GaussianModel(spectrum, process=process, sampler=Ralston(), start="marginal", terminal="rescale")
bias = [np.sqrt(float(exact.bias(np.geomspace(80.0, 0.002, n + 1)))) for n in (50, 100)]
print(f"half the steps: {bias[0] / bias[1]:.2f} times the error")
# | half the steps: 3.73 times the error

# %% [markdown]
# With `step(denoiser, x, levels, memory, noise)` besides it runs networks, too; docs/architecture.md has a row for
# every kind of addition: model, process, coupling, term, constraint, schedule, export.
#
# ## A schedule to compare with
#
# Any descending noise levels are one. A function of the number of steps stands beside the named ones:


# %%
def cubic(steps):
    """Cubes that are even, from 80 to .002, then zero."""
    return np.append(np.linspace(80.0 ** (1 / 3), 0.002 ** (1 / 3), steps) ** 3, 0.0)


model = co.GaussianModel(spectrum, process=process, sampler=co.Heun(), start="mean")
plan = co.codesign(model, steps=10, levels=60, points=6)
for name, grid in {"cubic": cubic(10), "EDM": co.edm_grid(10, 0.002, 80.0)}.items():
    print(f"{name}: {float(model.bias(grid)) / plan.handed_out['total']:.3g} times the plan's error")
# | cubic: 155 times the plan's error
# | EDM: 51.2 times the plan's error

# %%
figure, axes = plt.subplots(figsize=(7, 2.5), layout="constrained")
grids = {"plan": plan.sigmas, "cubic": cubic(10), "EDM": co.edm_grid(10, 0.002, 80.0)}
for row, grid in enumerate(grids.values()):
    axes.semilogx(grid[:-1], np.full(10, row), "o-")
axes.set(xlabel="sigma (the last step goes to zero)", yticks=range(3), yticklabels=grids)
figure.savefig("grids.png", dpi=100)
plt.close("all")

# %% [markdown]
# ## An export
#
# A plan's numbers are arrays: `sigmas`, `times`, `examples` on `levels`. Whatever your program reads is a few lines.

# %%
print(json.dumps({"sigmas": [round(float(s), 4) for s in plan.sigmas], "solver": plan.sampler["name"]}))
# | {"sigmas": [80.0, 16.6374, 6.8021, 3.6805, 2.2762, 1.4969, 0.9976, 0.6454, 0.3839, 0.1057, 0.0], "solver": "heun"}

# %% [markdown]
# ## Change this for your case
#
# Replace `Ralston` by your method: `co.codesign` refuses what it can't use by the name of what is missing. A method
# that remembers outputs states `multistep` and how many it holds; see `docs/architecture.md` and the samplers of the
# package, each a page.
