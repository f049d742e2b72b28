"""Real data that come with a package: 1,797 handwritten digits of 8 x 8 pixels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

import codesign_opt as co

from ._gaussian import gaussian_problem

TITLE = "Handwritten digits, 8 x 8 pixels"
PROVENANCE = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998, "
    "CC BY 4.0: the 1,797 test images, shipped with scikit-learn (sklearn.datasets.load_digits). Grey values "
    "0 to 16 scaled to [-1, 1]."
)
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {"error": 7.910849e-4, "rtol": 1e-3}


def build(*, pooled: bool = False, budget: float = 1e6, images: float = 10_000) -> co.problems.DeclaredProblem:
    """Plan everything for the covariance of the digits; `pooled`: within the ten classes."""
    images_given, classes = _digits()
    spectrum = co.Spectrum.from_samples(images_given / 16.0 * 2.0 - 1.0, classes if pooled else None)
    return gaussian_problem("digits", TITLE, PROVENANCE, spectrum, budget=budget, images=images, sigma_min=0.002)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 64) grey values and (1797,) classes: load_digits() where its file is not where it was for ten years.

    The file is read without its package, whose import takes as long as the plan.
    """
    spec = find_spec("sklearn")
    for home in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(home, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(int)
    found = co.problems.needs("sklearn.datasets", "scikit-learn", "digits").load_digits()
    return found.data, found.target
