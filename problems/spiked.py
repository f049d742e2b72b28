"""Gaussian data with four strong directions over weak noise in all others: the spiked covariance model."""

from __future__ import annotations

from collections.abc import Sequence

import codesign_opt as co

from ._gaussian import gaussian_problem

TITLE = "Spiked covariance, four spikes over noise, {dimension} dimensions"
PROVENANCE = "Stated, no data: eigenvalues 4, 2, 1, 0.5 and 0.01 in all other directions."
VARIANTS = {"dimension": (64, 256, 1024)}
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {
    64: {"error": 3.974927e-4, "rtol": 1e-3},
    256: {"error": 6.034854e-4, "rtol": 1e-3},
    1024: {"error": 1.119597e-3, "rtol": 1e-3},
}


def build(
    *,
    dimension: int = 64,
    spikes: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
    noise: float = 0.01,
    budget: float = 1e6,
    images: float = 10_000,
) -> co.problems.DeclaredProblem:
    """Plan everything for a few large eigenvalues above equal small ones."""
    spectrum = co.Spectrum.spiked(dimension, list(spikes), noise)
    title = TITLE.format(dimension=dimension)
    return gaussian_problem(f"spiked_{dimension}", title, PROVENANCE, spectrum, budget=budget, images=images)
