"""Prediction: what a grid and a training lead to, by cause, and how each part is known."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..basics.causes import BESIDE_BIAS, BIAS, FLOOR, LAST_EVALUATION, SCORE, TOGETHER
from ..basics.checks import Array
from ..basics.wording import aligned, percent, quantity

__all__ = ["Prediction"]

_FEW, _PER_REGRESSOR = 10, 40  # examples of a node, and per weight of an output, from which the law holds
_WIDTH = 88
_WORDS = {
    BIAS: "steps, stop and start", SCORE: "too few training examples", FLOOR: "training noise that stays",
    LAST_EVALUATION: "denoiser error in the final call", TOGETHER: "errors that these two share",
    BESIDE_BIAS: "what is unlearned, beside steps",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prediction:
    """Expected error of samples, in the model's metric, for a grid and a training that are stated.

    The metric is the squared Wasserstein-2 distance to the data unless the model says otherwise; parts of training are
    of second order about what steps and stop leave (docs/theory.md section 2.5).

    Attributes:
        sigmas: (K+1,) grid.
        parts: error by cause, in squared data units; they sum to `total`.
        exact: which parts are exact; the others are of leading order in one over examples.
        truncation, initial: what stopping and starting alone would leave a perfect sampler, inside the bias.
        examples: (P,) examples that teach each positive node; None where no training was stated.
        regressors: weights of one output of the denoiser.
        prior: whether training starts from the untrained denoiser, whose law holds from no examples on.
        program: the total by the law of the programs, which knows the density at each level alone.
        trace: the data's total variance; in another metric what all its standard deviations count squared.
        speaks_of: whose training it is.
        measure: the error in words where it is no squared Wasserstein distance.
    """

    sigmas: Array
    parts: Mapping[str, float]
    exact: tuple[str, ...]
    truncation: float
    initial: float
    examples: Array | None
    regressors: int
    prior: bool
    program: float
    trace: float
    speaks_of: str = ""
    measure: str = ""

    @property
    def total(self) -> float:
        """All causes together."""
        return float(sum(self.parts.values()))

    @property
    def cancels(self) -> bool:
        """Whether errors of steps and stop cancel: the bias is less than half of what stopping and starting leave."""
        return self.parts[BIAS] < 0.5 * (self.truncation + self.initial)

    @property
    def fewest(self) -> tuple[float, float]:
        """Fewest examples that teach a node, and its noise level; infinite without a training."""
        if self.examples is None:
            return np.inf, float(self.sigmas[0])
        least = int(np.argmin(self.examples))
        return float(self.examples[least]), float(self.sigmas[least])

    @property
    def outside(self) -> tuple[str, ...]:
        """Why the leading order may fail here; empty inside the regime in which it was verified."""
        told, (fewest, where) = [], self.fewest
        needed = _PER_REGRESSOR * self.regressors if self.regressors > 1 else 0 if self.prior else _FEW
        if fewest < needed:
            known = "a full matrix is within a fifth" if self.regressors > 1 else "the leading order was verified"
            told.append(f"{quantity(fewest, 3)} examples teach sigma {quantity(where, 3)}; {known} from {needed:,} on")
        trained = sum(value for name, value in self.parts.items() if name != BIAS)
        if trained > 0.1 * self.trace:
            whole = "of the variance" if not self.measure else "of what no sample at all would"
            told.append(f"training leaves {percent(trained / self.trace)} {whole}, which is no small error")
        return tuple(told)

    def __str__(self) -> str:
        rows = [
            [name, _WORDS[name], quantity(value), "exact" if name in self.exact else "leading order"]
            for name, value in self.parts.items()
            if value or name == BIAS
        ]
        rows.append(["total", "", quantity(self.total), ""])
        share = percent(self.total / self.trace) if self.trace else "?"
        measure = self.measure or f"squared Wasserstein-2 distance, {share} of the variance"
        lines = [
            f"Predicted error {quantity(self.total)}: {measure}",
            *aligned(["Error by cause", "", "error", "known"], rows, left=(0, 1, 3)),
        ]
        return "\n".join(lines + [part for note in self._notes() for part in textwrap.wrap(note, _WIDTH)])

    def _notes(self) -> list[str]:
        notes = list(self.outside)
        if self.cancels:
            notes.append(
                f"stopping alone would leave {quantity(self.truncation)}: errors of steps and stop cancel, for this "
                "spectrum"
            )
        if self.examples is not None and abs(self.program - self.total) > 0.1 * self.total:
            notes.append(
                f"the programs' local law has {quantity(self.program)}: it knows the density at each level, and no "
                "error that nodes share"
            )
        return [f"Note: {note}" for note in notes]
