"""RowRuns: a solver's states and outputs on draws, from any step on, and how many calls of the denoiser they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...basics.ledger import Ledger
from ..draws.statistics import squares
from ..draws.streams import my_share, sum_over_processes
from ..runs.fine_solution import Draws, FinePath, Reference, gathered
from .rows import Rows

__all__ = ["Path", "RowRuns", "summed"]


@dataclass(frozen=True, eq=False)
class Path:
    """States x_0 … x_K and outputs D_0 … D_{K-1} of a chunk along a solver, float64."""

    states: list[torch.Tensor]
    outputs: list[torch.Tensor]


@dataclass(eq=False)
class RowRuns:
    """Runs of `Rows` on the draws of a fine solution.

    Args:
        reference: the fine solution and its draws.
        visited: noise levels at which the fine solution's states are asked for.
        ledger: where the fine solution is kept.
        batches: calls of the denoiser so far, of all processes; those of the fine solution from the beginning.
    """

    reference: Reference
    visited: Array
    ledger: Ledger
    batches: int = field(default=0, init=False)
    _fine: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.batches = self.draws.chunks * self._path.calls()

    def doubled(self) -> RowRuns:
        """The same on twice the draws, those of now among them: what was spent is kept, and fine solutions added."""
        draws = self.draws
        more = replace(self, reference=self.reference.with_draws(replace(draws, count=2 * draws.count)))
        known = draws.count // draws.chunk  # whole batches
        more.batches = self.batches + (more.draws.chunks - known) * self._path.calls()
        return more

    @cached_property
    def _path(self) -> FinePath:
        return self.reference.path(self.visited)

    @property
    def draws(self) -> Draws:
        """The draws that solvers are run on."""
        return self.reference.draws

    def output(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """D(x, sigma) of float64 states, asked in the dtype of the draws."""
        return self.reference.denoiser(x.to(self.draws.like.dtype), sigma).double()

    @torch.no_grad()
    def path(self, rows: Rows, chunk: int, *, first: int = 0, before: Path | None = None) -> Path:
        """The solver's path; from step `first` on where that of the same steps before it is known."""
        states = [self.draws.start(chunk).double()] if before is None else before.states[: first + 1]
        outputs = [] if before is None else before.outputs[:first]
        states, outputs = list(states), list(outputs)
        for k in range(first, rows.steps):
            outputs.append(self.output(states[k], float(rows.levels[k])))
            states.append(_step(rows, k, states[k], outputs))
        return Path(states, outputs)

    @torch.no_grad()
    def after(self, rows: Rows, step: int, path: Path, chunk: int) -> torch.Tensor:
        """The terminal states where row `step` is another than on a known path: its own output stays as it was."""
        states = [*path.states[: step + 1], _step(rows, step, path.states[step], path.outputs)]
        if step + 1 == rows.steps:
            return states[-1]
        return self.path(rows, chunk, first=step + 1, before=Path(states, path.outputs)).states[-1]

    def fine(self, chunk: int) -> tuple[Any, torch.Tensor]:
        """The fine solution's states at the visited levels, as a list in their order, and its terminal states."""
        if chunk not in self._fine:
            found = self.ledger.item(self._named(chunk), lambda: self._solved(chunk))
            states, end = (torch.as_tensor(found[name], device=self.draws.like.device) for name in ("states", "end"))
            self._fine[chunk] = (states, end)
        return self._fine[chunk]

    def _named(self, chunk: int) -> str:
        """A batch that later draws fill up is another."""
        part = self.draws.rows(chunk)
        size = part.stop - part.start
        return f"fine/{self.draws.name}{chunk}" + (f" of {size}" if size < self.draws.chunk else "")

    def _solved(self, chunk: int) -> dict[str, Array]:
        states, end = self._path.states(chunk)
        kept = torch.stack(states) if states else torch.zeros(0)
        return {"states": kept.double().cpu().numpy(), "end": end.double().cpu().numpy()}

    def end(self, chunk: int) -> torch.Tensor:
        """The fine solution's terminal states."""
        return self.fine(chunk)[1]

    def targets(self, levels: Array, chunk: int) -> list[torch.Tensor]:
        """The fine solution's states at the levels after the first, its terminal states in the last place."""
        states, end = self.fine(chunk)
        return [*(states[self._path.index(float(sigma))] for sigma in levels[1:-1]), end]

    def errors(self, rows: Rows) -> Array:
        """(N,) squared distances of the terminal states to the fine solution's."""
        self.batches += self.draws.chunks * rows.steps  # of all processes, so that all stop alike
        parts = {
            chunk: squares(self.path(rows, chunk).states[-1] - self.end(chunk)) for chunk in my_share(self.draws.chunks)
        }
        return gathered(self.draws, parts)


def _step(rows: Rows, k: int, x: torch.Tensor, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    now = outputs[k]
    moved = now + float(rows.a[k]) * (x - now)
    for j in range(1, 1 + rows.reach(k)):
        if rows.c[k, j] != 0:
            moved = moved + float(rows.c[k, j]) * (outputs[k - j] - now)
    return moved


def summed(parts: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """A sum over the chunks of all processes."""
    total = torch.zeros(shape, dtype=torch.float64)
    for part in parts:
        total += torch.as_tensor(np.asarray(part))
    return sum_over_processes(total).numpy()
