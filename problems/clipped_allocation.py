"""Training alone, for a sampler that is given: one convex program whose answer has a closed form.

The error is a sum of s_l / m_l (no prior: the floor keeps every level far from none), the budget is
linear, and the density has a floor and a cap: the examples are clip(sqrt(s / (price multiplier)),
floor, cap) (docs/theory.md section 7, P1), which `co.waterfill` finds by selection among breakpoints.
The declared program must agree with it.
"""

from __future__ import annotations

import math

import codesign_opt as co

TITLE = "Training density between a floor and a cap, EDM's sampler grid"
PROVENANCE = "Stated, no data: power-law spectrum of exponent 1.5 in 64 dimensions."
# the closed form, co.waterfill, at 200 levels
REFERENCE = {"error": 2.438786735650e-5, "rtol": 1e-6}


def build(
    *,
    budget: float = 1e6,
    steps: int = 18,
    floor: float = 5_000.0,
    cap: float = 60_000.0,
    levels: int = 200,
) -> co.problems.DeclaredProblem:
    """Where to train for EDM's grid of `steps`, with `floor` to `cap` examples per unit log sigma."""
    if not 0 < budget < math.inf:
        raise ValueError(f"clipped_allocation.budget is {budget:g}; it must be finite and > 0.")
    training = co.AveragedSGD(prior=None)
    model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), training=training, terminal="rescale")
    grid = co.edm_grid(steps, 0.002, 80.0, terminal="rescale")
    table = model.settled(grid, levels)
    prices = co.Prices(example=3.0, evaluation=1.0, images=0)
    problem = co.Problem(
        co.ScoreError(table),
        [
            co.named("budget", co.Compute(prices, part="training") <= budget),
            co.Floor(floor, "density"),
            co.Cap(cap, "density"),
        ],
        steps=co.steps_on_levels(table.levels, grid),
    )
    return co.problems.DeclaredProblem("clipped_allocation", TITLE, PROVENANCE, problem=problem)
