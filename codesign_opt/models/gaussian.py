"""GaussianModel: data known by their spectrum. Exact laws of any grid, and the optimizer's coefficients."""

from __future__ import annotations

from dataclasses import dataclass

from .gaussian_batch import GaussianBatch
from .gaussian_settled import GaussianSettled

__all__ = ["GaussianModel"]


@dataclass(frozen=True, eq=False)
class GaussianModel(GaussianBatch, GaussianSettled):
    """Everything the planner asks of data that are known by their covariance (docs/theory.md sections 2 to 6).

    Args:
        spectrum: eigenvalues of the data covariance, with the mean where it matters.
        process: forward process; only its range of sigma enters the plan.
        sampler: how one step acts.
        training: what training leaves in the score.
        coupling: over which stretch of log sigma one error of the denoiser persists.
        terminal: "denoise" (the last step goes to zero noise, as real samplers do) or "rescale".
        start: "noise" begins at N(0, sigma_max^2 I), as real samplers do; "mean" shifts that to the data's
            mean, which is free and often worth much (section 1); "marginal" begins at the exact law.
        metric: what errors are counted in: co.Wasserstein(), co.Features(weights) or co.KL(direction), for diagonal
            training alone but the first.

    Raises:
        ValueError: a field of the wrong type or an unknown name.

    >>> import codesign_opt as co
    >>> import numpy as np
    >>> model = GaussianModel(co.Spectrum.power_law(8, exponent=1.5), terminal="rescale", start="marginal")
    >>> root = np.sqrt(model.spectrum.eigenvalues)
    >>> round(model.truncation(0.1), 6) == round(float(np.sum((np.sqrt(root**2 + 0.01) - root) ** 2)), 6)
    True
    """
