"""Gains shared by all noise levels of a Gaussian model, for any stopping point (docs/theory.md section 6)."""

from __future__ import annotations

import numpy as np

import codesign_opt as co
from codesign_opt.problems.shared_parameters import hats


def shared_gains(levels=60, parameters=8, terminal="rescale", sampler=None, prior=0.0):
    """A model without training noise of single levels, and the term of its shared gains."""
    spectrum = co.Spectrum.power_law(64, exponent=1.5).in_bands(8)
    model = co.GaussianModel(
        spectrum, process=co.EDM(0.002, 80.0), sampler=sampler or co.Heun(), training=co.SharedTraining(),
        terminal=terminal,
    )  # fmt: skip
    bins = model.coefficients(levels=levels).levels
    lam, counts, sigma = spectrum.eigenvalues, spectrum.counts, bins.sigma
    weight = lam[:, None] / (lam[:, None] + sigma**2)
    bands = counts[:, None] * lam[:, None] * weight
    curvature = bands.sum(axis=0)
    residual = (bands * weight * sigma**2).sum(axis=0) / curvature
    shapes = hats(sigma, np.geomspace(0.002, 80, parameters))
    response = np.einsum("bl,pl,l,b->lpb", weight, shapes, bins.log_width, np.sqrt(counts))
    features = (np.sqrt(curvature) * shapes).T[:, None, :]
    power = 0.5 if terminal == "rescale" else -0.5

    def factor(stop):
        return (lam + stop**2) ** power * (1.0 if terminal == "rescale" else lam)

    matrix = prior * np.eye(parameters) if prior else None
    return model, co.SharedParameters(bins, features, response, residual, prior=matrix, factor=factor)
