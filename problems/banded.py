"""Gaussian data in four bands of equal variance, a decade apart, the weaker the larger."""

from __future__ import annotations

import codesign_opt as co

from ._gaussian import gaussian_problem

TITLE = "Four bands a decade apart, {dimension} dimensions"
PROVENANCE = "Stated, no data: eigenvalues 1, 0.1, 0.01, 0.001 in 1/16, 3/16, 4/16 and 8/16 of the directions."
VARIANTS = {"dimension": (64, 256, 1024)}
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {
    64: {"error": 2.534234e-4, "rtol": 1e-3},
    256: {"error": 1.013694e-3, "rtol": 1e-3},
    1024: {"error": 4.054774e-3, "rtol": 1e-3},
}
_EIGENVALUES = (1.0, 0.1, 0.01, 0.001)
_SIXTEENTHS = (1, 3, 4, 8)


def build(*, dimension: int = 64, budget: float = 1e6, images: float = 10_000) -> co.problems.DeclaredProblem:
    """Plan everything for four eigenvalues of high multiplicity; `dimension` is a multiple of 16."""
    if dimension < 16 or dimension % 16:
        raise ValueError(f"banded.dimension is {dimension}; a multiple of 16 is needed.")
    spectrum = co.Spectrum.from_bands(_EIGENVALUES, [n * dimension // 16 for n in _SIXTEENTHS])
    title = TITLE.format(dimension=dimension)
    return gaussian_problem(f"banded_{dimension}", title, PROVENANCE, spectrum, budget=budget, images=images)
