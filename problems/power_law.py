"""Gaussian data whose variances fall as a power of their rank, as those of natural images do."""

from __future__ import annotations

import codesign_opt as co

from ._gaussian import gaussian_problem

TITLE = "Power-law spectrum, exponent 1.5, {dimension} dimensions"
PROVENANCE = "Stated, no data: eigenvalues i^-exponent, i = 1, ..., d."
VARIANTS = {"dimension": (64, 256, 1024)}
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {
    64: {"error": 1.219770e-4, "rtol": 1e-3},
    256: {"error": 1.619382e-4, "rtol": 1e-3},
    1024: {"error": 2.025788e-4, "rtol": 1e-3},
}


def build(
    *, dimension: int = 64, exponent: float = 1.5, budget: float = 1e6, images: float = 10_000
) -> co.problems.DeclaredProblem:
    """Plan everything for lambda_i = i^-exponent."""
    spectrum = co.Spectrum.power_law(dimension, exponent=exponent)
    title = TITLE.format(dimension=dimension).replace("1.5", f"{exponent:g}")
    return gaussian_problem(f"power_law_{dimension}", title, PROVENANCE, spectrum, budget=budget, images=images)
