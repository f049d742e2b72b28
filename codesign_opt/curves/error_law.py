"""What training leaves in the denoiser's output, by noise level: the form that every route of measuring it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, entries, instance, number, vector
from ..ingredients.training_run import TrainingRun

__all__ = ["ErrorLaw", "TrainingErrors"]


class TrainingErrors(ABC):
    """Errors of training by any route of docs/theory.md section 5: fits to logs, gradients, repeated runs.

    To add a route, write a subclass that says its `law`; `estimate.network(training=...)` then plans with it.
    """

    @abstractmethod
    def law(self) -> ErrorLaw:
        """The errors as kappa1 / m + kappa2 tau / beta.

        Raises:
            ValueError: what was measured does not say them, by what is missing.
        """


@dataclass(frozen=True, eq=False)
class ErrorLaw(TrainingErrors):
    """E|D - D*|^2 = kappa1 / m + kappa2 tau / beta on M noise levels, after m examples (docs/theory.md section 5).

    Args:
        sigma: (M,) ascending noise levels, data units.
        reducible: (M,) kappa1, squared data units times examples.
        reducible_error: (M,) its standard error; 0 unless given.
        step_noise: (M,) kappa2, squared data units per learning rate over batch; 0 unless given.
        bayes_floor: (M,) loss L that no training removes, where a fit told it: beside it a smaller kappa1 is rounding.
        log_width: m counts the examples within this length in log sigma; None: those on the level itself.
        run: whose examples m counts, at its own density; None where each level is trained alone, or it is not known.
        transfer_width: width in log sigma of the kernel by which m counts neighbouring levels; 0: each for itself.
        notes: what was left out or assumed.
        remedy: what to do about a kappa1 of 0.

    Raises:
        ValueError: arrays of different length, or out of range, by name.

    >>> ErrorLaw([0.5, 2.0], [10.0, 20.0]).step_noise.tolist()
    [0.0, 0.0]
    """

    sigma: Array
    reducible: Array
    reducible_error: Any = None
    step_noise: Any = None
    bayes_floor: Any = None
    log_width: float | None = None
    run: TrainingRun | None = None
    transfer_width: float = 0.0
    notes: tuple[str, ...] = ()
    remedy: str = "measure it with more data"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sigma", vector(self.sigma, "ErrorLaw.sigma", positive=True, ascending=True))
        for name in ("reducible", "reducible_error", "step_noise", "bayes_floor"):
            given = getattr(self, name)
            value = np.zeros(self.sigma.size) if given is None else given
            put(self, name, vector(value, f"ErrorLaw.{name}", length=self.sigma.size, nonnegative=True))
        if self.log_width is not None:
            put(self, "log_width", number(self.log_width, "ErrorLaw.log_width", positive=True))
        put(self, "transfer_width", number(self.transfer_width, "ErrorLaw.transfer_width", nonnegative=True))
        put(self, "notes", entries(self.notes, "ErrorLaw.notes"))
        instance(self.remedy, str, "ErrorLaw.remedy")
        if self.run is not None:
            instance(self.run, TrainingRun, "ErrorLaw.run")

    def law(self) -> ErrorLaw:
        """Itself."""
        return self

    @property
    def falls(self) -> bool:
        """Whether at any level the errors fall with the examples beyond their scatter and the rounding of the floor."""
        return bool(np.any((self.reducible > 2 * self.reducible_error) & (self.reducible > 1e-9 * self.bayes_floor)))
