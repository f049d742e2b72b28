"""GridProbe: what a live denoiser behind a model can measure; a protocol, so that no torch is in it."""

from __future__ import annotations

from typing import Any, Protocol

from ..basics.checks import Array

__all__ = ["GridProbe", "MeasuredMean"]


class MeasuredMean(Protocol):
    """A mean with its standard error."""

    @property
    def value(self) -> Any: ...

    @property
    def standard_error(self) -> Any: ...


class GridProbe(Protocol):
    """A live denoiser behind a model: measures what the model would only predict."""

    def affords(self, sigmas: Array) -> bool:
        """Whether the grid is short enough to be measured."""

    def respond(self, sigmas: Array) -> tuple[Array, Array]:
        """(M,) ascending levels and (B, M) responses, measured at the step sizes of this grid."""

    @property
    def affords_response(self) -> bool:
        """Whether measuring the responses once more leaves more than that for a descent."""

    def after_response(self) -> GridProbe:
        """The probe with what one measurement of responses took gone from its budget."""

    def error(self, sigmas: Array) -> MeasuredMean:
        """Squared distance of the grid's output to a fine solution under the same noise, draws held out."""

    def descend(self, sigmas: Array, *, free_stop: bool, stops: tuple[float, ...] = ()) -> Array:
        """A grid of as many steps with smaller measured error; `stops` are further stopping points to start from."""

    @property
    def calls(self) -> int:
        """Batches that the denoiser was asked for so far."""
