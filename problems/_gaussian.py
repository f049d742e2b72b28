"""What the declared Gaussian problems share: EDM's process, Heun, averaged SGD, one price list."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import codesign_opt as co

__all__ = ["gaussian_problem"]


def gaussian_problem(
    name: str,
    title: str,
    provenance: str,
    spectrum: co.Spectrum,
    *,
    budget: float = 1e6,
    images: float = 10_000,
    sigma_min: float | None = None,
    **options: Any,
) -> co.problems.DeclaredProblem:
    """A spectrum as a planning question, priced in evaluations of the denoiser.

    A training example costs three evaluations (forward, and twice that backward). The lowest noise
    level is, unless given, EDM's 0.002 or a twentieth of the smallest standard deviation where that is
    less: the planner then finds its stopping point inside the range. Sampling starts at the data's
    mean, which costs nothing; a start at zero would dominate the error of images.
    """
    low = min(0.002, spectrum.smallest_positive**0.5 / 20) if sigma_min is None else sigma_min
    model = co.GaussianModel(
        replace(spectrum, provenance=f"{name}: {spectrum.provenance}"),
        process=co.EDM(sigma_min=low, sigma_max=80.0),
        sampler=co.Heun(),
        training=co.AveragedSGD(),
        coupling=co.Local(log_width=2.7),
        terminal="denoise",
        start="mean",
    )
    prices = co.Prices(example=3.0, evaluation=1.0, images=images)
    return co.problems.DeclaredProblem(
        name, title, provenance, model=model, prices=prices, budget=budget, options=options
    )
