"""Measurement: how finely `network` measures a denoiser, what that may cost, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..basics.checks import integer, number
from ..basics.devices import device_of
from ..basics.progress import Progress
from ..basics.spelling import spelled

__all__ = ["Measurement"]

_LEAST = {
    "levels": 4, "images": 32, "draws": 2, "fine_steps": 4, "rest_steps": 4, "evaluations": 1,
    "fit_evaluations": 1, "chunk": 1,
}  # fmt: skip


@spelled
@dataclass(frozen=True, eq=False)
class Measurement:
    """How finely a denoiser is measured, and at what cost.

    Args:
        levels: noise levels M of the measurement.
        examples: how many examples of the data their spectrum is measured on; None: all, or of data without a length
            (iterators, callables: they may be endless) the first 262,144, which is said.
        images: examples, drawn evenly from the data, on which checkpoints are compared and to which the distance of
            the fine solution is measured.
        draws: starts of the sampler whose errors a grid descends; as many again stop the descent, as many choose
            among grids, four times as many measure what is said of the chosen one, and half serve for responses and
            sensitivities. Where few draws decide, a descent and what is said take up to four times as many, as the
            budget allows.
        fine_steps: of the fine solution that errors are measured against, four calls each (Runge-Kutta of order 4);
            for what is said of a plan they are doubled until at most 3 % of it is their own error.
        rest_steps: of the fine run behind a coarse step, where only a difference of two such runs counts.
        evaluations: batch evaluations (calls of the denoiser with up to `chunk` states) of the measurement and one
            plan for a number of steps: up to two more measurements of the responses, the choice among grids and
            what is said of them, and a descent, which gets what the rest leaves.
        fit_evaluations: batch evaluations of one fit of a solver (`codesign(..., solver="fit")`), beside those.
        seconds: instead, a time: one call is timed, and `evaluations` follows.
        chunk: states in one call of the denoiser; more where states are small.
        device: of the states; the data's unless given.
        progress: True, False, None (in a terminal or notebook, after 2 s), or a function of (done, total, text).

    Raises:
        ValueError: a number out of range, by name.

    >>> Measurement(levels=8).draws
    64
    """

    levels: int = 12
    images: int = 2048
    draws: int = 64
    fine_steps: int = 32
    rest_steps: int = 8
    evaluations: int = 6000
    fit_evaluations: int = 5000
    seconds: float | None = None
    chunk: int = 64
    device: Any = None
    progress: Progress = None
    examples: int | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, least in _LEAST.items():
            put(self, name, integer(getattr(self, name), f"Measurement.{name}", minimum=least))
        put(self, "device", device_of(self.device, "Measurement.device"))
        if self.examples is not None:
            put(self, "examples", integer(self.examples, "Measurement.examples", minimum=2))
        if self.seconds is not None:
            put(self, "seconds", number(self.seconds, "Measurement.seconds", positive=True))
