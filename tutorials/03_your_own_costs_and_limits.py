# %% [markdown]
# # Your own costs, limits and worst case
#
# Guidance doubles the price of some evaluations, the trainer cannot go below some noise level, two data sets have to
# be served by one schedule: each is a line. Three minutes to read; no data needed.

# %%
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

# %% [markdown]
# ## Change this for your case
#
# Everything that is convex in examples and steps can be stated so; what is not is refused with the reason. The worst
# case over data sets is `co.WorstCase`, an average over them a sum of terms, the worst tenth `co.CVaR`: `codesign-opt
# list` names problems that use them, and `problems/` has each in a page.
