"""TrainingHistory: what is known of how a denoiser was trained, as `network` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..basics.checks import choice, integer, number, shown
from ..curves.error_law import ErrorLaw, TrainingErrors
from ..curves.estimation import learning_curves
from ..ingredients.coupling import Coupling
from ..ingredients.training_run import TrainingRun

__all__ = ["TrainingHistory"]

_SOURCES = "a co.TrainingRun, the path of a log, learning curves, gradient noise, replicated runs or an ErrorLaw"


@dataclass(frozen=True, eq=False)
class TrainingHistory:
    """What is known of how a denoiser was trained: errors that fall with examples, and another denoiser beside it.

    Args:
        source: TrainingRun with a log, or its path, read by `learning_curves`; or the result of any route of
            docs/theory.md section 5 (`LearningCurves`, `GradientNoise`, `ReplicatedRuns`, `ErrorLaw`, a
            `TrainingErrors` of one's own). None where the errors' size is not known: then only the sampler is planned.
        other: a second denoiser (an earlier checkpoint, or the last iterate beside its average): the
            difference is taken for the direction of the errors, and their correlation length is measured on it.
        growth: examples of the denoiser over those of `other`, an earlier checkpoint of the run `source`: kappa1 is
            what the loss gained between the two on common images and noise (section 6.3), less noisy than a fit to
            the log, which is not needed then.
        learning_rate, batch: of the training, where the log does not hold them: they turn kappa2 into a floor.

    Raises:
        ValueError: fields that do not go together, or a source of another kind, by name.

    >>> TrainingHistory(TrainingRun(lambda sigma: 1 / sigma, 10, 10), other=lambda x, sigma: x, growth=2.0).growth
    2.0
    """

    source: Any = None
    other: Any = None
    growth: float | None = None
    learning_rate: float | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.source is not None and not isinstance(self.source, (TrainingRun, TrainingErrors, str, Path)):
            raise ValueError(f"TrainingHistory.source is {shown(self.source)}; give {_SOURCES}.")
        if (self.learning_rate is None) != (self.batch is None) or (self.batch is not None and self.source is None):
            raise ValueError(
                "TrainingHistory: learning_rate and batch go together, and with a source: they scale its floor."
            )
        if self.batch is not None:
            rate = number(self.learning_rate, "TrainingHistory.learning_rate", positive=True)
            object.__setattr__(self, "learning_rate", rate)
            object.__setattr__(self, "batch", integer(self.batch, "TrainingHistory.batch", minimum=1))
        if self.growth is not None:
            self._check_pair("TrainingHistory.growth")
            if number(self.growth, "TrainingHistory.growth", positive=True) <= 1:
                raise ValueError(
                    f"TrainingHistory.growth is {self.growth:g}; the network must have seen more than `other`: > 1."
                )

    @classmethod
    def of(cls, training: Any) -> TrainingHistory:
        """A history as it is, or one of a source alone."""
        return training if isinstance(training, TrainingHistory) else cls(training)

    @property
    def trains(self) -> bool:
        """Whether examples can be planned."""
        return self.source is not None

    @property
    def rate(self) -> float:
        """Learning rate over batch, 0 where they are not given."""
        return 0.0 if self.learning_rate is None or self.batch is None else self.learning_rate / self.batch

    @property
    def run(self) -> TrainingRun | None:
        """The training run with its density over noise levels, or the histogram of a log; None for fitted curves."""
        if isinstance(self.source, (str, Path)):
            return TrainingRun(density=None, iterations=1, batch=1, log=self.source)
        return self.source.law().run if isinstance(self.source, TrainingErrors) else self.source

    def law(self) -> ErrorLaw | None:
        """The errors of the source, a log read; None without a source, or where the checkpoints tell them.

        Raises:
            ValueError: nowhere do the errors fall with the examples.
        """
        if self.source is None or self.growth is not None:
            return None
        logged = not isinstance(self.source, TrainingErrors)
        law = (learning_curves(self.source) if logged else self.source).law()
        if not law.falls:
            raise ValueError(
                "network: training: at no noise level do the losses fall with the examples beyond their scatter, so "
                "that nothing can be said about training; "
                f"{'log from its beginning, with more rows' if logged else law.remedy}, or plan for steps alone."
            )
        return law

    def check(self, coupling: Any, data: Any) -> None:
        """Whether it can tell what `network` is asked for.

        Raises:
            ValueError: by the option that asks for it.
        """
        wanted = None if self.growth is None else "growth"
        if isinstance(coupling, str):
            choice(coupling, "network: coupling", ("transfer",))
            wanted = "coupling='transfer'"
            self._check_pair(f"network: {wanted}")
        elif coupling is not None and not isinstance(coupling, Coupling):
            raise ValueError(
                f"network: coupling is {shown(coupling)}; give a Coupling, such as co.Local(2.7), or 'transfer'."
            )
        if wanted is not None and hasattr(data, "__next__"):
            raise ValueError(
                f"network: {wanted} reads the data a second time, and an iterator has an end; give a tensor, a "
                "Dataset, a DataLoader or a function that returns an iterator."
            )

    def _check_pair(self, wanted: str) -> None:
        if self.other is None:
            raise ValueError(f"{wanted} compares two checkpoints; give an earlier one as TrainingHistory(other=…).")
        if self.run is None:
            raise ValueError(
                f"{wanted} needs the density of the run; give TrainingHistory(co.TrainingRun(density=…, iterations=…, "
                "batch=…))."
            )
