# %% [markdown]
# # Shared parameters as experimental design
#
# A network has one set of parameters for all noise levels: an example at one level teaches its neighbours. Then the
# error is no sum of 1/m over levels. It is <H, (sum of m F)^-1>, with F what one example tells of the parameters and H
# how much the samples depend on them: a problem of optimal experimental design, still convex, still proved. Three
# minutes to read; no data needed.

# %%
import matplotlib.pyplot as plt
import numpy as np

import codesign_opt as co

spectrum = co.Spectrum.power_law(64, exponent=1.5).in_bands(8)
levels = co.Levels.log_uniform(0.002, 80.0, 120)
knots = np.geomspace(0.002, 80.0, 12)

# %% [markdown]
# ## What an example tells, and what samples ask
#
# The denoiser here is exact but for twelve gains, one at each knot, linear in log sigma between them. Two arrays are
# all that the program wants:
#
# * features (L, q, P): an example at level l tells q combinations of the P parameters, with the residual variance as
#   noise;
# * response (P, B): how far each of B outputs of the sampler moves with a parameter.
#
# Of a network they are Jacobians: of its output by its parameters, and of samples by them.

# %%
lam, count = spectrum.eigenvalues[:, None], spectrum.counts[:, None]
hats = np.stack([np.interp(np.log(levels.sigma), np.log(knots), unit) for unit in np.eye(knots.size)])  # (P, L)
weight = lam / (lam + levels.sigma**2)  # (B, L) the exact denoiser's, by band
curvature = (count * lam * weight).sum(axis=0)
residual = (count * lam * weight**2 * levels.sigma**2).sum(axis=0) / curvature
features = (np.sqrt(curvature) * hats).T[:, None]
moved = np.einsum("bl,pl,l->pb", weight, hats, levels.log_width)
response = moved * np.sqrt(spectrum.counts * (spectrum.eigenvalues + 0.002**2))
error = co.InformationError(features, response, sigma=levels.sigma, residual_variance=residual)

# %% [markdown]
# ## Where to train
#
# A design for twelve gains sits on about as many levels.

# %%
budget = co.Compute(co.Prices(3.0, 1.0, images=0), part="training") <= 1e6
plan = co.Problem(error, [budget]).solve()
used = plan.examples > 1e-4 * plan.examples.max()
print(f"{used.sum()} of {len(levels)} levels are trained, proved to {max(plan.certificate.relative_gap, 1e-12):.0e}")
print(f"error {plan.error:.3e}")
# | 14 of 120 levels are trained, proved to 1e-12
# | error 5.124e-06

# %% [markdown]
# ## Against a usual density, and with a floor
#
# The same examples at EDM's density, by the formula itself, and the plan's own by the same formula. A few bare levels
# are no training set for a real network: a floor on the density keeps every level alive, and here is what it costs.


# %%
def left(examples):
    """<H, (sum of m F)^-1> of any examples on the levels."""
    information = np.einsum("l,lqp,lqr->pr", examples / residual, features, features)
    return np.trace(response.T @ np.linalg.solve(information, response))


default = co.LogNormal(-1.2, 1.2).mass(levels.edges) * plan.examples.sum()
print(f"the plan's by the formula: {left(plan.examples):.3e}; EDM's density: {left(default) / plan.error:.2f} times")
floor = co.Problem(error, [budget, co.Floor(2e4, "density")]).solve()
print(f"with a floor: {floor.error / plan.error:.2f} times")
# | the plan's by the formula: 5.124e-06; EDM's density: 7.98 times
# | with a floor: 1.31 times

# %%
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for name, found in (("the design", plan), ("with a floor", floor)):
    axes.loglog(levels.sigma, found.examples / levels.log_width, ".-", label=name)
axes.set(xlabel="sigma", ylabel="examples per unit log sigma", ylim=(1e3, None))
axes.vlines(knots, 1e3, 3e3, color="black", linewidth=1, label="knots of the gains")
axes.legend()
figure.savefig("designs.png", dpi=100)
plt.close("all")

# %% [markdown]
# ## Change this for your case
#
# `co.estimate.shared_features` measures features and responses of a network; parameters may be any group whose
# Jacobians you can afford: gains of layers, the embedding of the noise level, a last layer. With a sampler to plan as
# well, add `co.Discretization(table)` and a price for steps: the program stays jointly convex.
