"""Real data from a Debian package: 60,000 images of clothes, 28 x 28 pixels."""

from __future__ import annotations

import os

import codesign_opt as co

from ._gaussian import gaussian_problem

TITLE = "Fashion-MNIST, 28 x 28 pixels"
PROVENANCE = (
    "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, MIT licence: the 60,000 training images of "
    "Debian's package dataset-fashion-mnist (apt-get install dataset-fashion-mnist). Grey values 0 to 255 scaled to "
    "[-1, 1]; exact covariance of all images."
)
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {"error": 2.009862e-2, "rtol": 1e-3}


def build(
    *,
    folder: str | os.PathLike[str] | None = None,
    pooled: bool = False,
    bands: int | None = None,
    budget: float = 1e6,
    images: float = 10_000,
) -> co.problems.DeclaredProblem:
    """Plan everything for the covariance of the images; `pooled`: within the ten classes.

    `folder` holds the files of the data set where they are not Debian's; `bands` merges eigenvalues.
    """
    samples, labels = co.testbed.fashion_mnist("train", folder=folder)
    spectrum = co.Spectrum.from_samples(samples, labels if pooled else None, bands=bands)
    return gaussian_problem("fashion_mnist", TITLE, PROVENANCE, spectrum, budget=budget, images=images, sigma_min=0.002)
