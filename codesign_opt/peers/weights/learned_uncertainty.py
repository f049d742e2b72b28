"""EDM2's learned uncertainty u(ln sigma), fitted to a loss log instead of trained beside the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

from ...basics.checks import AT_ONCE, Array, integer, noise_level, number, vector
from ...basics.errors import CodesignError
from ...ingredients.training_run import read_log

__all__ = ["LearnedUncertainty"]

_DEGREE = 3
_ROUNDS, _TOLERANCE = 100, 1e-12


@dataclass(frozen=True, eq=False)
class LearnedUncertainty:
    """u(ln sigma): logarithm of the expected loss on EDM's F per dimension, a cubic spline.

    EDM2 (Karras et al. 2024, continuous multi-task loss) minimises weight e^-u |D - y|^2 + u over network and u
    together; for a given network the best u is ln E[loss], and the weight e^-u then equalises the loss over levels.

    Args:
        knots: (K+4,) knots of the cubic B-spline in ln sigma.
        coefficients: (K,) of the spline.
        sigma_data: of EDM's weight.

    >>> sigma = np.geomspace(0.01, 10.0, 200)
    >>> f_loss = 0.3 * sigma**0.2  # the expected loss on F, in closed form
    >>> log = {"sigma": sigma, "loss": f_loss * (0.5 * sigma) ** 2 / (sigma**2 + 0.25)}
    >>> fit = LearnedUncertainty.fit(log, sigma_data=0.5)
    >>> np.exp(fit(np.array([1.0]))).round(6).tolist()
    [0.3]
    """

    knots: Array
    coefficients: Array
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        s = noise_level(self.sigma_data, "LearnedUncertainty.sigma_data")
        values = vector(self.coefficients, "LearnedUncertainty.coefficients", minimum_length=_DEGREE + 1)
        knots = vector(self.knots, "LearnedUncertainty.knots", minimum_length=0)
        if knots.shape != (values.size + _DEGREE + 1,):
            raise ValueError(
                f"LearnedUncertainty.knots has {knots.size} entries; {values.size + _DEGREE + 1} are needed."
            )
        for name, value in (("sigma_data", s), ("coefficients", values), ("knots", knots)):
            object.__setattr__(self, name, value)

    def __call__(self, sigma: Array) -> Array:
        """u at noise levels; beyond the log's range the end value stays."""
        at = np.clip(np.log(sigma), self.knots[0], self.knots[-1])
        return np.asarray(BSpline(self.knots, self.coefficients, _DEGREE)(at))

    @classmethod
    def fit(
        cls,
        log: str | Path | Mapping[str, Any],
        *,
        sigma_data: float,
        dimension: int = 1,
        pieces: int = 8,
        smoothness: float = 1e-6,
        last: float = 1.0,
    ) -> LearnedUncertainty:
        """Minimise the mean of loss e^-u + u over the rows of a loss log, by Newton's method (convex in u).

        The loss is EDM's weight times the log's |D - x0|^2 over the dimension, |F - target|^2 per dimension. The fit's
        residual loss e^-u - 1 is orthogonal to every spline, so that the reweighted loss is 1 on average
        wherever the spline is fine enough.

        Args:
            log: path, or columns `sigma` and `loss` = |D - x0|^2 summed over dimensions (`read_log`).
            sigma_data: of EDM's weight.
            dimension: d of the data, so that u is per dimension as in EDM2; it only shifts u.
            pieces: pieces of the spline, between quantiles of the log's levels.
            smoothness: penalty on second differences of the coefficients, per row; for logs with gaps.
            last: fraction of the rows, at the end of the log, that are used: the present network's losses.

        Raises:
            ValueError: an option out of range, fewer rows than coefficients, a loss that is not positive.
            CodesignError: Newton's method does not end, as under a smoothness that leaves floats no digits.
        """
        table = read_log(log, "LearnedUncertainty.log") if isinstance(log, (str, Path)) else log
        if not isinstance(table, Mapping) or not {"sigma", "loss"} <= set(table):
            raise ValueError("LearnedUncertainty.log must be a path, or a dict with the columns sigma and loss.")
        sigma = vector(table["sigma"], "LearnedUncertainty.log: sigma", positive=True)
        loss = vector(table["loss"], "LearnedUncertainty.log: loss", length=sigma.size, positive=True)
        s = noise_level(sigma_data, "LearnedUncertainty.sigma_data")
        d = integer(dimension, "LearnedUncertainty.dimension", minimum=1)
        count = integer(pieces, "LearnedUncertainty.pieces", minimum=1, maximum=AT_ONCE)
        penalty = number(smoothness, "LearnedUncertainty.smoothness", nonnegative=True)
        share = number(last, "LearnedUncertainty.last", positive=True, maximum=1.0)
        start = sigma.size - int(np.ceil(share * sigma.size))
        sigma, loss = sigma[start:], loss[start:]
        if sigma.size < count + _DEGREE:
            raise ValueError(
                f"LearnedUncertainty.log has {sigma.size} rows for {count + _DEGREE} coefficients; lower pieces."
            )
        logs = np.log(sigma)
        inner = np.unique(np.quantile(logs, np.linspace(0, 1, count + 1)))
        if inner.size < 2:
            raise ValueError("LearnedUncertainty.log has one noise level; losses at several are needed.")
        knots = np.concatenate([[inner[0]] * _DEGREE, inner, [inner[-1]] * _DEGREE])
        design = BSpline.design_matrix(logs, knots, _DEGREE).toarray()
        scaled = loss * (sigma**2 + s**2) / (sigma * s) ** 2 / d
        return cls(knots, _newton(design, scaled, penalty), s)


def _newton(design: Array, loss: Array, penalty: float) -> Array:
    """argmin over c of mean(loss e^-u + u) + penalty |second differences of c|^2 / 2, u = design c."""
    rows, size = design.shape
    second = np.diff(np.eye(size), n=2, axis=0)
    rough = penalty * second.T @ second
    c = np.full(size, np.log(loss.mean()))

    def value(at: Array) -> float:
        u = design @ at
        with np.errstate(over="ignore"):  # of a step too far, which is halved
            return float(np.mean(loss * np.exp(-u) + u) + 0.5 * at @ rough @ at)

    for _ in range(_ROUNDS):
        left = loss * np.exp(-design @ c)
        gradient = design.T @ (1 - left) / rows + rough @ c
        curvature = (design * left[:, None]).T @ design / rows + rough
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        decrement, size_of_step, here = float(gradient @ step), 1.0, value(c)
        if decrement < _TOLERANCE:
            return c - step
        while value(c - size_of_step * step) > here - 0.25 * size_of_step * decrement and size_of_step > 1e-8:
            size_of_step *= 0.5
        c = c - size_of_step * step
    raise CodesignError(
        f"LearnedUncertainty.fit: Newton's method is not done after {_ROUNDS} steps (decrement {decrement:.2g}); "
        "give another smoothness, or fewer pieces."
    )
