"""Constraints of one's own: a floor at low noise written in one line, a share, and a number of steps."""

from __future__ import annotations

from typing import Any

import codesign_opt as co

TITLE = "A floor at low noise, a share of the examples, and 18 steps"
PROVENANCE = "Stated, no data: power-law spectrum of exponent 1.5 in 64 dimensions."
# found with 400 levels; 200 must agree
REFERENCE = {"error": 8.502202e-4, "rtol": 1e-3}


def build(
    *,
    floor: float = 80_000.0,
    share: float = 0.2,
    steps: int = 18,
    budget: float = 1e6,
    images: float = 10_000,
    **options: Any,
) -> co.problems.DeclaredProblem:
    """Plan everything with at least `floor` examples below sigma = 0.1 and at most `share` of all in [0.3, 3]."""

    def low_noise(design: co.Design) -> Any:
        # the part of each level below 0.1, so that the number of levels changes nothing
        below = design.levels.overlap(1e-12, 0.1) / design.log_width
        return below @ design.examples >= floor

    model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun())
    constraints = (co.named("low-noise floor", low_noise), co.Share(at_most=share, low=0.3, high=3.0))
    return co.problems.DeclaredProblem(
        "custom_constraint",
        TITLE,
        PROVENANCE,
        model=model,
        prices=co.Prices(example=3.0, evaluation=1.0, images=images),
        budget=budget,
        options={"steps": steps, "stopping_sigma": 0.01, "constraints": constraints, **options},
    )
