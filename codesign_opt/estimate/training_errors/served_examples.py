"""kappa1 of one run for `network`: from two of its checkpoints or from its log, by the examples that serve a level.

docs/theory.md sections 5 and 6.3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...basics.checks import Array
from ...curves.error_law import ErrorLaw
from ...ingredients.coupling import Coupling, Transfer
from ...ingredients.levels import Levels
from ...ingredients.training_run import TrainingRun
from ..draws.statistics import Estimate

__all__ = ["as_served", "law_of_left", "served_per_log_sigma"]

_FINE = 400  # levels on which a density is pooled


def law_of_left(
    left: Estimate, sigma: Array, run: TrainingRun, coupling: Coupling, low: float, high: float
) -> ErrorLaw:
    """kappa1 = error left x examples within one correlation length that served the level; no kappa2.

    Args:
        left: (M,) reducible error at the end of the run.
        sigma: (M,) levels, ascending.
        run, coupling, low, high: see `served_per_log_sigma`.
    """
    within = coupling.lengths_at(sigma, float(sigma[0]), float(sigma[-1]))
    scale = within * served_per_log_sigma(run, coupling, sigma, low, high)
    return ErrorLaw(
        sigma,
        scale * np.maximum(left.value, 0.0),
        scale * left.standard_error,
        remedy="the loss did not fall there between the checkpoints: give more images",
    )


def as_served(law: ErrorLaw, run: TrainingRun, coupling: Coupling, low: float, high: float) -> ErrorLaw:
    """A law whose kappa1 counts the examples that serve a level, where that is more than a level's own.

    A fit to one log counts the examples of each level's own density. Where the log has losses the error is the
    same by both counts, kappa1 / own = kappa1' / served. The law itself for couplings without a width.
    """
    if not isinstance(coupling, Transfer) or np.ndim(coupling.transfer):
        return law
    counted = Transfer(law.transfer_width) if law.transfer_width > 0 else None
    ratio = served_per_log_sigma(run, coupling, law.sigma, low, high)
    ratio = ratio / served_per_log_sigma(run, counted, law.sigma, low, high)
    return replace(law, reducible=law.reducible * ratio, reducible_error=law.reducible_error * ratio)


def served_per_log_sigma(run: TrainingRun, coupling: Coupling | None, sigma: Array, low: float, high: float) -> Array:
    """(M,) examples of a run per unit log sigma that serve each level: its own, or T times the run's density.

    Args:
        run: its density a function or a LogNormal; a histogram of the log is taken on the levels themselves.
        coupling: whose pooling matrix T is taken; None for the run's own density.
        sigma: (M,) levels, ascending, between `low` and `high`, the range of the process.

    >>> from codesign_opt import LogNormal
    >>> run = TrainingRun(LogNormal(0.0, 1.0), iterations=10, batch=100)
    >>> served_per_log_sigma(run, Transfer(1.0), np.array([0.5, 1.0, 2.0]), 1e-3, 1e3).round().tolist()
    [250.0, 282.0, 250.0]
    """
    levels = Levels.around(sigma) if run.density is None else Levels.log_uniform(low, high, _FINE)
    own = run.examples_on(levels)
    pooling = None if coupling is None else coupling.pooling(levels)
    served = (own if pooling is None else pooling @ own) / levels.log_width
    logs = np.log(np.maximum(served, 1e-300))
    return np.asarray(np.exp(np.interp(np.log(sigma), np.log(levels.sigma), logs)))
