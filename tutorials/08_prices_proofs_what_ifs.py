# %% [markdown]
# # Reading prices, proofs and what-ifs
#
# A plan says more than its settings: how sure its optimum is, what each limit costs, and what other budgets would
# leave. Two minutes to read; no data needed.

# %%
import codesign_opt as co

model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), sampler=co.Heun(), start="mean")
plan = co.codesign(model, co.Prices(example=3.0, evaluation=1.0, images=10_000), budget=1e6, levels=100, points=8)
print(f"{plan.number_of_steps} steps, {plan.new_examples.sum():,.0f} examples")

# %% [markdown]
# ## Two errors
#
# `plan.error` is the convex program's, to leading order in the steps: that is what is proved. What samples of the
# whole steps leave is `plan.handed_out["total"]`, exact for Gaussian data. The first may lie on either side of the
# second.

# %%
print(f"program {plan.error:.3e}, whole steps {plan.handed_out['total']:.3e}")

# %% [markdown]
# ## The proof
#
# The certificate does not trust the solver: it computes a lower bound from multipliers and checks feasibility anew,
# with code that shares no formula with the solver. The second gap is over all stopping points, the third part of the
# answer.

# %%
proof = plan.certificate
print(f"no plan that stops there leaves less than {proof.lower_bound:.6e}; this one leaves {proof.value:.6e}")
print(f"over all stopping points: at most {plan.outer['relative_gap']:.2%} better")

# %% [markdown]
# ## The price of a limit
#
# One more unit of budget changes the error by the shadow price. Hold it against a plan of a per cent more:

# %%
price = plan.shadow_prices["budget"]
found = co.what_if(plan, budget=[1.00e6, 1.01e6])
print(f"shadow price {price:.2e}; one per cent more: {(found.error[1, 0, 0] - found.error[0, 0, 0]) / 1e4:.2e}")

# %% [markdown]
# ## What if?
#
# Hundreds of other settings are one batch of programs, each with a proof of its own: budgets, the most steps a
# sampler may take, numbers of images.

# %%
print(co.what_if(plan, budget=[5e5, 1e6, 2e6, 4e6], steps=[12, 24, None]))

# %% [markdown]
# Twelve steps leave the same at every budget from some point on: training can't mend what finite steps break.
#
# ## One page for others
#
# `plan.report("plan.html")` writes all of this as one file, with the sliders worked out in advance; it opens without
# the package and without a network. So does `codesign-opt report plan.json`.

# %%
page = plan.report("plan.html", what_if=found)
print(f"{page.name}: {page.stat().st_size // 100_000 / 10} MB")

# %% [markdown]
# ## Change this for your case
#
# `co.Plan.load("plan.json")` answers the same questions of a plan that a colleague solved: a plan keeps what was
# asked, if its parts are plain values. Of prices that are functions of sigma, give `model=` and `prices=` to
# `what_if`.
