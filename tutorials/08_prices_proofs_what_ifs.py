# %% [markdown]
# # Reading prices, proofs and what-ifs
#
# A plan says more than its settings: how sure its optimum is, what each limit costs, and what other budgets would
# leave. Two minutes to read; no data needed.

# %%
import matplotlib.pyplot as plt

import codesign_opt as co

model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), sampler=co.Heun(), start="mean")
plan = co.codesign(model, co.Prices(example=3.0, evaluation=1.0, images=10_000), budget=1e6, levels=100, points=8)
print(f"{plan.number_of_steps} steps, {plan.new_examples.sum():,.0f} examples")
# | 32 steps, 123,333 examples

# %% [markdown]
# ## Two errors
#
# `plan.error` is the convex program's, to leading order in the steps: that is what is proved. What samples of the
# whole steps leave is `plan.handed_out["total"]`, exact for Gaussian data. The first may lie on either side of the
# second.

# %%
print(f"program {plan.error:.3e}, whole steps {plan.handed_out['total']:.3e}")
# | program 1.220e-04, whole steps 6.974e-05

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
# | no plan that stops there leaves less than 1.219802e-04; this one leaves 1.219802e-04
# | over all stopping points: at most 0.10% better

# %% [markdown]
# ## The price of a limit
#
# One more unit of budget changes the error by the shadow price. Hold it against a plan of a per cent more:

# %%
price = plan.shadow_prices["budget"]
found = co.what_if(plan, budget=[1.00e6, 1.01e6])
print(f"shadow price {price:.2e}; one per cent more: {(found.error[1, 0, 0] - found.error[0, 0, 0]) / 1e4:.2e}")
# | shadow price -2.60e-10; one per cent more: -2.55e-10

# %% [markdown]
# ## What if?
#
# Hundreds of other settings are one batch of programs, each with a proof of its own: budgets, the most steps a
# sampler may take, numbers of images.

# %%
print(co.what_if(plan, budget=[5e5, 1e6, 2e6, 4e6], steps=[12, 24, None]))
# | What if: 12 settings, the program's least error (leading order) for each
# |      budget  most steps  images      error  over the plan's  training   examples  steps  stop sigma
# |     500,000          12  10,000   0.004268               35      54 %     90,000     12      0.0172
# |     500,000          24  10,000  6.496e-04             5.32    15.4 %     25,588   21.7     0.00733
# |     500,000         any  10,000  6.496e-04             5.32    15.4 %     25,588   21.7     0.00733
# |   1,000,000          12  10,000    0.00422             34.6      77 %    256,667     12      0.0172
# |   1,000,000          24  10,000  2.869e-04             2.35      53 %    176,667     24     0.00594
# |   1,000,000         any  10,000  1.220e-04                1    28.8 %     95,994   36.1      0.0039
# |   2,000,000          12  10,000   0.004205             34.5    88.5 %    590,000     12      0.0172
# |   2,000,000          24  10,000  2.604e-04             2.13    76.5 %    510,000     24      0.0057
# |   2,000,000         any  10,000  3.261e-05            0.267    44.4 %    296,219   56.1     0.00245
# |   4,000,000          12  10,000   0.004199             34.4    94.2 %  1,256,667     12      0.0172
# |   4,000,000          24  10,000  2.524e-04             2.07    88.2 %  1,176,667     24     0.00563
# |   4,000,000         any  10,000  1.106e-05           0.0906    59.1 %    787,753   82.3       0.002
# | the plan's whole steps leave 0.572 times its program's error

# %%
budgets = [10 ** (5.5 + k / 8) for k in range(13)]
answers = co.what_if(plan, budget=budgets, steps=[12, 24, 48, None])
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for k, most in enumerate(["12", "24", "48", "any number of"]):
    axes.loglog(budgets, answers.error[:, k, 0], label=f"{most} steps")
axes.set(xlabel="budget", ylabel="program's error")
axes.legend()
figure.savefig("what_if.png", dpi=100)
plt.close("all")

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
# | plan.html: 0.5 MB

# %% [markdown]
# ## Change this for your case
#
# `co.Plan.load("plan.json")` answers the same questions of a plan that a colleague solved: a plan keeps what was
# asked, if its parts are plain values. Of prices that are functions of sigma, give `model=` and `prices=` to
# `what_if`.
