"""kappa1 of one run for `network`: from two of its checkpoints or from its log, by the examples that serve a level.

docs/theory.md sections 5 and 6.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.checks import Array, choice, number
from ...ingredients.coupling import Coupling, Transfer
from ...ingredients.levels import Levels
from ...ingredients.training_run import TrainingRun
from ..draws.statistics import Estimate

__all__ = ["LeftCurve", "as_served", "check_checkpoints", "run_of", "served_per_log_sigma"]

_FINE = 400  # levels on which a density is pooled


@dataclass(frozen=True, eq=False)
class LeftCurve:
    """kappa1 from the error that a run has left, in the form of learning curves.

    Attributes:
        sigma: (M,) noise levels.
        reducible, reducible_error: (M,) kappa1 and its standard error, squared data units times examples within
            one correlation length.
        step_noise: (M,) zeros: one learning rate tells no kappa2.
    """

    sigma: Array
    reducible: Array
    reducible_error: Array
    step_noise: Array

    @classmethod
    def of(
        cls, left: Estimate, sigma: Array, run: TrainingRun, coupling: Coupling, low: float, high: float
    ) -> LeftCurve:
        """kappa1 = error left x examples within one correlation length that served the level.

        Args:
            left: (M,) reducible error at the end of the run.
            sigma: (M,) levels, ascending.
            run, coupling, low, high: see `served_per_log_sigma`.
        """
        within = coupling.lengths_at(sigma, float(sigma[0]), float(sigma[-1]))
        scale = within * served_per_log_sigma(run, coupling, sigma, low, high)
        return cls(sigma, scale * np.maximum(left.value, 0.0), scale * left.standard_error, np.zeros(sigma.size))


def as_served(curves: Any, run: TrainingRun, coupling: Coupling, low: float, high: float) -> Any:
    """Curves whose kappa1 counts the examples that serve a level, where that is more than a level's own.

    A fit to one log counts the examples of each level's own density. Where the log has losses the error is the
    same by both counts, kappa1 / own = kappa1' / served. The curves themselves for couplings without a width.
    """
    if not isinstance(coupling, Transfer) or np.ndim(coupling.transfer):
        return curves
    width = float(getattr(curves, "transfer_width", np.nan))
    counted = Transfer(width) if width > 0 else None  # NaN: fitted with each level for itself
    ratio = served_per_log_sigma(run, coupling, curves.sigma, low, high)
    ratio = ratio / served_per_log_sigma(run, counted, curves.sigma, low, high)
    return replace(curves, reducible=curves.reducible * ratio, reducible_error=curves.reducible_error * ratio)


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


def run_of(training: Any) -> TrainingRun | None:
    """The training run with its density over noise levels, or the histogram of a log; None for fitted curves."""
    if isinstance(training, (str, Path)):
        return TrainingRun(density=None, iterations=1, batch=1, log=training)
    return training if isinstance(training, TrainingRun) else None


def check_checkpoints(training: Any, other: Any, growth: float | None, coupling: Any, data: Any) -> None:
    """Whether two checkpoints can tell what `network` is asked for.

    Raises:
        ValueError: by the option that asks for it.
    """
    wanted = None if growth is None else "growth"
    if isinstance(coupling, str):
        choice(coupling, "network: coupling", ("transfer",))
        wanted = "coupling='transfer'"
    elif coupling is not None and not isinstance(coupling, Coupling):
        raise ValueError(f"network: coupling is {coupling!r}; give a Coupling, such as co.Local(2.7), or 'transfer'.")
    if wanted is None:
        return
    if other is None:
        raise ValueError(f"network: {wanted} compares two checkpoints; give an earlier one as other=.")
    if run_of(training) is None:
        raise ValueError(
            f"network: {wanted} needs the density of the run; give training=co.TrainingRun(density=…, iterations=…, "
            "batch=…)."
        )
    if growth is not None and number(growth, "network: growth", positive=True) <= 1:
        raise ValueError(f"network: growth is {growth:g}; the network must have seen more than `other`: > 1.")
    if hasattr(data, "__next__"):
        raise ValueError(
            f"network: {wanted} reads the data a second time, and an iterator has an end; give a tensor, a Dataset, a "
            "DataLoader or a function that returns an iterator."
        )
