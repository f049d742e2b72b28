# %% [markdown]
# # A run that plans itself
#
# No pilot, no second run: the losses of the training under way say which noise levels still have error to lose, and
# the rest of its budget is planned again a few times. Three minutes to read; half a minute to run; needs torch.

# %%
import matplotlib.pyplot as plt
import torch

import codesign_opt as co

data = co.testbed.grid8().sample(4096, seed=0).float()  # (N, d), any images of yours
spectrum = co.Spectrum.from_samples(data.double().numpy())
torch.manual_seed(0)
network = co.testbed.MLP(2, sigma_data=spectrum.sigma_data, width=32, layers=1)
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
steps, batch = 300, 64

# %% [markdown]
# ## Two lines before the loop, two in it
#
# The sampler draws noise levels (stratified, with seeds of its own for every process) from the density that the
# replanner holds; `record` tells it the losses |D(x; sigma) - x0|^2 of the batch. The loss that is minimised is yours:
# here EDM's, whose weight stays as it is while the density moves.

# %%
replanner = co.training.Replanner(spectrum, examples=steps * batch)
sampler = co.training.SigmaSampler(replanner, seed=0)
draws = torch.Generator().manual_seed(0)
for _ in range(steps):
    clean = data[torch.randint(len(data), (batch,), generator=draws)]
    sigma, weight, _ = sampler(batch)
    noisy = clean + sigma[:, None] * torch.randn(clean.shape, generator=draws)
    squares = (network(noisy, sigma) - clean).square().sum(1)
    s = network.sigma_data
    loss = (weight * (sigma**2 + s**2) / (sigma * s) ** 2 * squares).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    replanner.record(sigma, squares.detach())

# %% [markdown]
# ## What it did
#
# At each plan: where it stood, what the law of the run's own learning curves predicts for the density in use and for
# the one that follows, how far that one moved (in nats; a trust region), and whether its program was proved.

# %%
plans = [each for each in replanner.plans if not each.note]
print(f"{len(replanner.plans)} times to plan, {len(plans)} plans, all proved: {all(each.optimal for each in plans)}")
print(f"none moved farther than {max(each.moved for each in plans):.2f} nats")
never_worse = all(each.planned <= each.kept for each in plans)
print(f"each is predicted to leave no more than the density it replaced: {never_worse}")
# | 5 times to plan, 4 plans, all proved: True
# | none moved farther than 0.06 nats
# | each is predicted to leave no more than the density it replaced: True

# %% [markdown]
# So short a run has few losses at each noise level, and its densities follow their noise: the peaks. What that can do
# is bounded by the trust region; `ReplanRules` has it, the floor, and how many levels are told apart.

# %%
levels = replanner.levels
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.semilogx(levels.sigma, replanner.start / levels.log_width, label="EDM's default, at the start")
for each in plans:
    axes.semilogx(levels.sigma, each.share / levels.log_width, label=f"from {each.examples:,} examples on")
axes.set(xlabel="sigma", ylabel="share per unit log sigma")
axes.legend()
figure.savefig("densities.png", dpi=100)
plt.close("all")

# %% [markdown]
# ## Does it pay?
#
# `print(replanner.report({"EDM's default": co.LogNormal(-1.2, 1.2)}))` says what the run's own numbers say of it.
# Measured on small networks against the default and the best of fifteen log-normals, with where it does not pay:
# docs/replanning.md.
#
# ## Change this for your case
#
# `gives="time"` and `record_flow` for flow matching; `ranks=` and `gather=co.training.gathered` under several
# processes; `state_dict()` of both go into your checkpoint. A plan that cannot be made leaves the density as it is.
