"""NetworkProbe: the live denoiser behind an EstimatedModel, which measures grids instead of predicting them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._validate import Array
from ..grids import edm_grid, log_snr_grid
from .grid_descent import descend_grid
from .grid_error import GridErrors, batches_of_run, residual
from .local_error import step_responses
from .reference import Draws, Reference, gathered
from .sensitivity import squares
from .step_rule import StepRule
from .streams import my_share

__all__ = ["NetworkProbe"]


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    """Measures responses and errors of grids on a denoiser, and descends the error of a grid.

    Three sets of draws: one is descended, a second stops the descent, a third measures what is said.

    Args:
        reference: the fine solution, with the draws that responses and descents are measured on.
        rest: the same with fewer steps, for the fine runs behind coarse steps.
        nodes: (M,) noise levels of the responses, ascending.
        held_out: draws that stop a descent.
        report: draws that errors are measured on.
        budget: batch evaluations of one descent.
        folder: where finished items are kept; None for memory.
        tell: what to do with a line of progress.
    """

    reference: Reference
    rest: Reference
    nodes: Array
    held_out: Draws
    report: Draws
    budget: int = 2000
    folder: Path | None = None
    tell: Callable[[str], None] = print
    _known: dict[bytes, Any] = field(default_factory=dict, repr=False)

    def respond(self, sigmas: Array) -> tuple[Array, Array]:
        """(M,) ascending levels and (B, M) rows, measured at the step sizes of this grid."""
        found = step_responses(self.rest, self.nodes, StepRule.of_grid(sigmas), folder=self._place("responses", sigmas))
        self.tell(f"responses at the steps of a grid of {sigmas.size - 1}: {found.calls} batch evaluations")
        return found.sigma, found.scaled_response

    def errors(self, sigmas: Array) -> GridErrors:
        """Squared distances of the grid's outputs to the fine solution, on the draws kept for reports."""
        key = np.asarray(sigmas).tobytes()
        if key not in self._known:
            solution = self.reference.with_draws(self.report)
            ends = self._known.setdefault(b"ends", {})
            parts = {}
            for chunk in my_share(self.report.chunks):
                if chunk not in ends:
                    with torch.no_grad():
                        ends[chunk] = solution.terminal_states(chunk)
                parts[chunk] = squares(residual(solution, sigmas, chunk, ends[chunk]))
            self._known[key] = GridErrors(gathered(self.report, parts))
        return self._known[key]

    def error(self, sigmas: Array) -> Any:
        """Mean squared distance to the fine solution, with its standard error."""
        return self.errors(sigmas).mean

    @property
    def calls(self) -> int:
        """Batches that the denoiser was asked for so far."""
        return self.reference.denoiser.calls

    def descend(self, sigmas: Array, *, free_stop: bool) -> Array:
        """The best grid met in a descent of the measured error from this grid and the usual families."""
        positive = sigmas[sigmas > 0]
        steps, low, high = sigmas.size - 1, float(positive[-1]), float(positive[0])
        terminal = self.reference.terminal
        starts = [sigmas]
        for stop in {low, self.reference.stopping_sigma} if free_stop else {low}:
            starts += [family(steps, stop, high, terminal=terminal) for family in (edm_grid, log_snr_grid)]
        starts = starts[: self._affordable(steps)]
        if not starts:
            self.tell(f"descent of {steps} steps: {self.budget} batch evaluations do not cover one run; left as it is")
            return sigmas
        place = self._place("descent-free" if free_stop else "descent", sigmas)
        found = descend_grid(
            self.reference, self.held_out, starts, budget=self.budget, free_stop=free_stop, folder=place
        )
        self.tell(f"descent of {steps} steps: {found!r}")
        return found.sigmas

    def _affordable(self, steps: int) -> int:
        """How many starts half the budget can run, behind the fine solutions."""
        zero, chunks = self.reference.terminal == "denoise", self.reference.draws.chunks + self.held_out.chunks
        fine = batches_of_run(self.reference.fine, self.reference.steps + zero, to_zero=zero)
        one = batches_of_run(self.reference.sampler, steps, to_zero=zero)
        return max(0, (self.budget // 2 - chunks * fine) // (chunks * one))

    def _place(self, what: str, sigmas: Array) -> Path | None:
        if self.folder is None:
            return None
        name = np.array2string(np.log(np.maximum(sigmas, 1e-12)), precision=6, threshold=10_000)
        return self.folder / what / f"{sigmas.size - 1}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
