"""Shared parameters for any stopping point: what an information error is on the levels above it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Indices, function, matrix, noise_level, number, shown, takes, vector
from ..basics.user_code import told_in
from ..ingredients.levels import Levels
from .algebra import Term
from .design import Design
from .information import InformationError

__all__ = ["SharedParameters"]

_SAME = 1e-9  # relative distance below which a noise level is an edge


@dataclass(frozen=True, eq=False, repr=False)
class SharedParameters(Term):
    """Terminal error of parameters shared by all levels, wherever sampling stops: an InformationError for each stop.

    F_l = phi_l^T phi_l / s_l of the levels above the stopping point, and the response G = sum_l G_l of those levels,
    column by column times what the terminal map makes of it (docs/theory.md sections 6.4 and 7.7). Features and
    responses are constant on each level as it is stated, so that a level that the stopping point cuts keeps its
    information and counts with the part of it that is sampled.

    Args:
        levels: L levels over the whole range that a stopping point is searched in, `model.coefficients(...).levels`.
        features: (L, k, P) derivative of the denoiser's k outputs by the P parameters.
        response: (L, P, r) derivative of the r terminal outputs by the parameters through each level alone.
        residual_variance: s_l, variance of the training target per output; a number or (L,).
        prior: (P, P) positive semidefinite information already there, or None.
        factor: what multiplies each of the r outputs at a stopping point, a function of sigma that returns (r,), each
            of one sign and rising or falling all along; None for 1. Root of `P_b` for a band of a Gaussian model.

    Raises:
        ValueError: shapes that do not fit.

    >>> import numpy as np
    >>> from codesign_opt import Levels
    >>> levels = Levels.log_uniform(0.01, 10.0, 6)
    >>> term = SharedParameters(levels, np.ones((6, 1, 1)), np.ones((6, 1, 1)))
    >>> half = Levels.log_uniform(0.01, 10.0, 6, stopping_sigma=levels.sigma[2])
    >>> term.at_levels(half).response.round(6).tolist()
    [[3.5]]
    """

    levels: Levels
    features: Array
    response: Array
    residual_variance: float | Array = 1.0
    prior: Array | None = None
    factor: Callable[[float], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.levels, Levels):
            raise ValueError(f"SharedParameters.levels is {shown(self.levels)}; a Levels object is needed.")
        count, put = len(self.levels), object.__setattr__
        put(self, "features", matrix(self.features, "SharedParameters.features", shape=(count, None, None)))
        size = self.features.shape[2]
        put(self, "response", matrix(self.response, "SharedParameters.response", shape=(count, size, None)))
        variance = self.residual_variance
        name = "SharedParameters.residual_variance"
        variance = variance if np.iterable(variance) else np.full(count, number(variance, name, positive=True))
        put(self, "residual_variance", vector(variance, name, length=count, positive=True))
        if self.factor is not None:
            function(self.factor, "SharedParameters.factor")
            self.factors(float(self.levels.edges[0]))
        self.at_levels(self.levels)  # says what is wrong with the rest

    def factors(self, stopping_sigma: float) -> Array:
        """(r,) what multiplies each output at a stopping point."""
        outputs = self.response.shape[2]
        if self.factor is None:
            return np.ones(outputs)
        with told_in("SharedParameters.factor(sigma)"):
            found = self.factor(stopping_sigma)
        return vector(found, "SharedParameters.factor(sigma)", length=outputs)

    @takes(levels=Levels)
    def places(self, levels: Levels) -> Indices:
        """(L',) index of the stated level that each of these lies in.

        Raises:
            ValueError: levels beyond the stated ones.
        """
        edges = self.levels.edges
        if levels.edges[0] < edges[0] * (1 - _SAME) or levels.edges[-1] > edges[-1] * (1 + _SAME):
            raise ValueError(
                f"SharedParameters.levels runs from sigma = {edges[0]:.6g} to {edges[-1]:.6g}, but levels from "
                f"{levels.edges[0]:.6g} to {levels.edges[-1]:.6g} are planned; state them over the whole range."
            )
        return np.clip(np.searchsorted(edges, levels.sigma, side="right") - 1, 0, len(self.levels) - 1)

    def response_from(self, stopping_sigma: float) -> Array:
        """(P, r) response through all levels above a stopping point, the factor left out."""
        logs = np.log(self.levels.edges)
        part = np.clip((logs[1:] - np.log(noise_level(stopping_sigma, "stopping_sigma"))) / np.diff(logs), 0.0, 1.0)
        return np.asarray(np.einsum("l,lpr->pr", part, self.response))

    @takes(levels=Levels)
    def at_levels(self, levels: Levels) -> InformationError:
        """The information error of a program on these levels, whose lowest edge is the stopping point.

        Raises:
            ValueError: levels beyond the stated ones, or that do not determine the response.
        """
        at, stop = self.places(levels), float(levels.edges[0])
        return InformationError(
            self.features[at],
            self.response_from(stop) * self.factors(stop),
            sigma=levels.sigma,
            prior=self.prior,
            residual_variance=np.asarray(self.residual_variance)[at],
        )

    def expression(self, design: Design) -> cp.Expression:
        return self.at_levels(design.levels).expression(design)

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        return self.at_levels(design.levels).formulation(design)

    def __repr__(self) -> str:
        count, outputs, parameters = self.features.shape
        return f"SharedParameters({count} levels, {outputs} outputs, {parameters} parameters)"
