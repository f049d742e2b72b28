"""What a run's log says of its errors, beside what the spectrum of its data says: docs/theory.md section 7.13."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, vector
from ..curves.errors_left import smooth_shape
from ..curves.estimation import learning_curves
from ..curves.recording import LevelStatistics
from ..ingredients.levels import Levels
from ..models.gaussian import GaussianModel
from ..training.measured import Measured, bayes_loss
from .rules import ReplanRules

__all__ = ["RunLaw"]

_UNKNOWN = 10.0  # times the largest kappa1: where the log tells nothing


@dataclass(frozen=True, eq=False)
class RunLaw:
    """Squared error of the denoiser p(sigma) L(sigma) / m, L the Bayes loss of the data: p from the log.

    Of p nothing is known but that it wanders slowly over log sigma: kappa1 = p L of the learning curves, level by
    level with its standard error, is smoothed about the spectrum's L. A level of which the log says nothing has the p
    of its neighbours, and without a log p = 1 everywhere: least squares, whose density does not depend on p.

    Args:
        sigma: (M,) ascending noise levels.
        parameters: (M,) p > 0.
        spread: (M,) standard deviation of log p; inf: not measured.

    Raises:
        ValueError: arrays of different length or out of range.
    """

    sigma: Array
    parameters: Array
    spread: Array

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "RunLaw"
        put(self, "sigma", vector(self.sigma, f"{name}.sigma", positive=True, ascending=True))
        size = self.sigma.size
        put(self, "parameters", vector(self.parameters, f"{name}.parameters", length=size, positive=True))
        put(self, "spread", np.array(self.spread, dtype=np.float64))

    @classmethod
    def of_spectrum(cls, levels: Levels) -> RunLaw:
        """Before anything is logged.

        >>> RunLaw.of_spectrum(Levels.log_uniform(0.1, 10.0, 4)).parameters.tolist()
        [1.0, 1.0, 1.0, 1.0]
        """
        return cls(levels.sigma, np.ones(len(levels)), np.full(len(levels), np.inf))

    @classmethod
    def of_log(cls, log: LevelStatistics, model: GaussianModel, rules: ReplanRules) -> RunLaw:
        """From the learning curves of a run's log, its own density's examples counted as they came.

        Curves are fitted on the levels that densities are even on: inside a wider bin the examples would move when the
        density does, and the loss, which is steep in sigma, with them.

        Raises:
            ValueError: at no level has the loss fallen beyond its scatter.
        """
        levels = log.levels
        curves = learning_curves(log, levels=levels, log_width=rules.log_width, transfer=rules.transfer)
        if not curves.law().falls:
            raise ValueError("at no noise level has the loss fallen beyond its scatter yet.")
        at = np.searchsorted(levels.edges, curves.sigma, side="right") - 1
        known = (at >= 0) & (at < len(levels)) & (curves.reducible_error > 0)
        value = np.zeros(len(levels))
        error = np.full(len(levels), _UNKNOWN * max(float(curves.reducible.max()), 1e-300))
        value[at[known]], error[at[known]] = curves.reducible[known], curves.reducible_error[known]
        loss = bayes_loss(model.spectrum.eigenvalues, model.spectrum.counts, levels.sigma)
        kappa1, spread = smooth_shape(levels.sigma, value, error, loss)
        return cls(levels.sigma, kappa1 / loss, spread)

    def training(self, model: GaussianModel, rules: ReplanRules) -> Measured:
        """The law as training noise."""
        return Measured(
            self.sigma, self.parameters, log_width=rules.log_width, parameterization="edm",
            sigma_data=float(model.spectrum.sigma_data), source="this run",
        )  # fmt: skip

    def model(self, model: GaussianModel, rules: ReplanRules) -> GaussianModel:
        """A model of the data whose training is this run's."""
        return replace(model, training=self.training(model, rules), coupling=rules.coupling)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name).tolist() for name in ("sigma", "parameters", "spread")}
