"""GridProbe: what a live denoiser behind a model can measure; a protocol, so that no torch is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..basics.checks import Array
from ..ingredients.fit_rules import FitRules
from ..ingredients.measured_error import MeasuredError
from ..samplers.base import Sampler
from ..samplers.linear_multistep import LinearMultistep

__all__ = ["FittedSteps", "GridProbe", "MeasuredMean"]


class MeasuredMean(Protocol):
    """A mean with its standard error."""

    @property
    def value(self) -> Any: ...

    @property
    def standard_error(self) -> Any: ...


class FittedSteps(Protocol):
    """A sampler that was fitted, with what a plan keeps of the fit."""

    @property
    def solver(self) -> LinearMultistep: ...

    @property
    def record(self) -> dict[str, float]: ...


class GridProbe(Protocol):
    """A live denoiser behind a model: measures what the model would only predict."""

    def affords(self, sigmas: Array) -> bool:
        """Whether the grid is short enough to be measured."""

    def respond(self, sigmas: Array) -> tuple[Array, Array]:
        """(M,) ascending levels and (B, M) responses, measured at the step sizes of this grid."""

    @property
    def affords_response(self) -> bool:
        """Whether measuring the responses once more leaves half as much again for the rest."""

    def after_response(self) -> GridProbe:
        """The probe with what one measurement of responses took gone from its budget."""

    @property
    def objective(self) -> str:
        """What is lowered, compared and said of the errors of draws."""

    def with_objective(self, objective: str) -> GridProbe:
        """The same probe for another one."""

    def error(self, sigmas: Array) -> MeasuredMean:
        """The objective of squared distances of the grid's output to a fine solution, on draws that choose by it."""

    def stated(
        self, grids: Mapping[str, Array], samplers: Mapping[str, Sampler] | None = None
    ) -> dict[str, MeasuredError]:
        """What is said of grids by name, the first of which is a plan's, on draws that chose nothing.

        `samplers` are those of the grids that another sampler than the probe's runs on.
        """

    def fitted(self, sigmas: Array, rules: FitRules) -> FittedSteps:
        """A multistep sampler of as many steps, fitted from this grid on."""

    def descend(self, sigmas: Array, *, free_stop: bool, stops: tuple[float, ...] = ()) -> Array:
        """A grid of as many steps with smaller measured error; `stops` are further stopping points to start from."""

    @property
    def rounding(self) -> float:
        """Relative rounding of the denoiser's answers, some 1e-7 in float32 and .002 in bfloat16."""

    @property
    def calls(self) -> int:
        """Batches that the denoiser was asked for so far."""
