"""One set of parameters for all noise levels: twelve gains, hat functions in log sigma.

The denoiser of band b is W_b(sigma) (1 + sum_p theta_p hat_p(log sigma)) x with W = lambda / v the
exact weight. Every level's examples inform the gains around it, and each gain moves the output of
every band: the error is <G G^T, (sum_l m_l F_l)^-1> (docs/theory.md sections 6 and 7, P4).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

import codesign_opt as co

Array = NDArray[np.float64]

TITLE = "Twelve gains shared by all noise levels"
PROVENANCE = "Stated, no data: power-law spectrum of exponent 1.5 in 64 dimensions, eight bands."
# multiplicative design algorithm with the equivalence theorem's bound, at 200 levels
REFERENCE = {"error": 5.122793e-6, "rtol": 1e-5}
_PARAMETERS = 12


def hats(sigma: Array, knots: Array) -> Array:
    """(P, L) hat functions: piecewise linear in log sigma, one at its own knot and zero at the others."""
    return np.stack([np.interp(np.log(sigma), np.log(knots), unit) for unit in np.eye(knots.size)])


def information(spectrum: co.Spectrum, levels: co.Levels, knots: Array) -> tuple[Array, Array, Array]:
    """Features (L, 1, P), response (P, B) and residual variance (L,) of the shared gains.

    Curvature of the loss by the gains at a level is sum_b n_b W_b^2 v_b times hat hat^T; its gradient
    noise has the residual variance W_b sigma^2 of each band besides. A gain changes the standard
    deviation of band b by sqrt(P_b) times the integral of W_b hat over log sigma.
    """
    lam, n = spectrum.eigenvalues[:, None], spectrum.counts[:, None]

    def weight(sigma: Array) -> Array:
        return lam / (lam + sigma**2)

    sigma = levels.sigma
    per_band = n * lam * weight(sigma)
    curvature = per_band.sum(axis=0)
    residual = (per_band * weight(sigma) * sigma**2).sum(axis=0) / curvature
    features = np.sqrt(curvature) * hats(sigma, knots)
    integrals = levels.average(lambda s: weight(s)[None] * hats(s, knots)[:, None]) @ levels.log_width
    response = integrals * np.sqrt(spectrum.counts * (spectrum.eigenvalues + levels.edges[0] ** 2))
    return features.T[:, None, :], response, residual


def build(*, budget: float = 1e6, levels: int = 200) -> co.problems.DeclaredProblem:
    """Where to train shared parameters, at three units of compute per example."""
    if not 0 < budget < math.inf:
        raise ValueError(f"shared_parameters.budget is {budget:g}; it must be finite and > 0.")
    spectrum = co.Spectrum.power_law(64, exponent=1.5).in_bands(8)
    bins = co.Levels.log_uniform(0.002, 80.0, levels)
    knots = np.geomspace(bins.edges[0], bins.edges[-1], _PARAMETERS)
    features, response, residual = information(spectrum, bins, knots)
    term = co.InformationError(features, response, sigma=bins.sigma, residual_variance=residual)
    prices = co.Prices(example=3.0, evaluation=1.0, images=0)
    budgets = [co.named("budget", co.Compute(prices, part="training") <= budget)]
    return co.problems.DeclaredProblem("shared_parameters", TITLE, PROVENANCE, problem=co.Problem(term, budgets))
