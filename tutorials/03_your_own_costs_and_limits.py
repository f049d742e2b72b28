# %% [markdown]
# # Your own costs, limits and worst case
#
# Guidance doubles the price of some evaluations, the trainer cannot go below some noise level, two data sets have to
# be served by one schedule: each is a line. Three minutes to read; no data needed.

# %%
import matplotlib.pyplot as plt
import numpy as np

import codesign_opt as co

model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), sampler=co.Euler(), start="mean")
quick = {"levels": 80, "points": 6, "polish": False}

# %% [markdown]
# ## Prices that depend on sigma
#
# Guidance on an interval makes an evaluation cost two there: a price is a number or a function of sigma.

# %%
plain = co.Prices(example=3.0, evaluation=1.0, images=10_000)
guided = co.Prices(
    example=3.0, evaluation=lambda sigma: np.where((sigma > 0.3) & (sigma < 5.0), 2.0, 1.0), images=10_000
)
for name, prices in (("plain", plain), ("guided", guided)):
    plan = co.codesign(model, prices, budget=1e6, **quick)
    inside = ((plan.sigmas > 0.3) & (plan.sigmas < 5.0)).sum()
    print(f"{name}: {plan.number_of_steps} steps, {inside} between 0.3 and 5; error {plan.handed_out['total']:.3g}")
# | plain: 89 steps, 46 between 0.3 and 5; error 0.00107
# | guided: 64 steps, 29 between 0.3 and 5; error 0.00196

# %% [markdown]
# ## A limit of your own
#
# Constraints of the library are values, such as a floor that keeps some training everywhere; one of your own is a
# function of the design that returns constraints of cvxpy. Both get a shadow price.


# %%
def few_examples_below(sigma, share):
    """At most so large a share of the examples below a noise level."""

    def constraint(design):
        low = (design.levels.sigma < sigma).astype(float)
        return [low @ design.examples <= share * sum(design.examples)]

    return co.named("low levels", constraint)


limited = co.codesign(
    model, plain, budget=1e6, constraints=[few_examples_below(0.1, 0.01)], stopping_sigma=0.02, **quick
)
below = limited.levels.sigma < 0.1
print(f"{limited.examples[below].sum() / limited.examples.sum():.2%} of the examples below sigma 0.1")
print(f"price of the limit: {float(np.abs(limited.shadow_prices['low levels']).max()):.2e} in error")
# | 1.00% of the examples below sigma 0.1
# | price of the limit: 4.62e-07 in error

# %% [markdown]
# ## The worst of several data sets
#
# One schedule for two data sets: what either loses against a schedule of its own is a ratio of errors, and the worst
# of both ratios is a term like any other. `coefficients` are what a model says of one stopping point; the program is
# declared from terms and limits and proved as a whole.

# %%
other = co.GaussianModel(co.Spectrum.power_law(64, exponent=0.3), sampler=co.Euler(), start="mean")
tables = [each.coefficients(0.02, levels=80) for each in (model, other)]
errors = [co.ScoreError(table) + co.Discretization(table) for table in tables]
budget = [co.Compute(plain) <= 1e6]
own = [co.Problem(error, budget).solve() for error in errors]
ratios = [error / plan.error for error, plan in zip(errors, own, strict=True)]
shared = co.Problem(co.WorstCase(ratios), budget).solve()
print(f"at most {shared.error:.3f} times the error of a schedule of its own")
print(f"proved to {shared.certificate.relative_gap:.0e}")
# | at most 1.051 times the error of a schedule of its own
# | proved to 3e-09

# %% [markdown]
# Its density lies between those of both.

# %%
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for name, found in (("the first alone", own[0]), ("the second alone", own[1]), ("worst case of both", shared)):
    axes.semilogx(found.levels.sigma, found.examples / found.levels.log_width, label=name)
axes.set(xlabel="sigma", ylabel="examples per unit log sigma")
axes.legend()
figure.savefig("densities.png", dpi=100)
plt.close("all")

# %% [markdown]
# ## Change this for your case
#
# Everything that is convex in examples and steps can be stated so; what is not is refused with the reason. The average
# over data sets is a sum of terms, the worst tenth of many `co.CVaR`; docs/language.md has the whole language.
