"""Rival: a method of the literature that fits levels or coefficients to a denoiser, and what it found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ...basics.checks import AT_ONCE, Array, entries, integer, shown, takes
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...samplers.base import Sampler
from ...samplers.fitted_sampler import FittedSampler
from ..draws.statistics import squares
from ..runs.fine_solution import Draws, Reference
from ..runs.run import run
from ..steps.grid_error import GridErrors, batches_of_run, starting_at

__all__ = ["FittedRival", "Ground", "Rival"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FittedRival(FittedSampler):
    """What a rival found: a sampler and the noise levels it runs on.

    Attributes:
        sampler, sigmas: run it with `run(denoiser, sampler, sigmas, x)`.
        fitting: calls of the denoiser with one batch of draws, the fine solution's included; a backward pass through a
            call counts as two.
        name: of the rival.
        held_out: errors on the held-out draws, which chose among what it met: report those of other draws.
        iterations: of its optimiser; 0 where it has none.
        reason: why it stopped.
    """

    name: str
    held_out: GridErrors
    iterations: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        holds(self, name=str, held_out=GridErrors, iterations=int, reason=str)

    def __repr__(self) -> str:
        return (
            f"FittedRival({self.name}, {self.sigmas.size - 1} steps, held-out error {self.held_out.mean.value:.4g}, "
            f"{self.fitting:g} batches, {self.reason})"
        )


class Rival(ABC):
    """A method that fits a sampler to the fine solution of a denoiser, within a budget of calls.

    To add one, write a frozen dataclass with a `name` and the method `_fitted`; `Ground` has what it may ask.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""

    @takes(reference=Reference, held_out=Draws)
    def fit(
        self,
        reference: Reference,
        held_out: Draws,
        starts: Iterable[Any],
        *,
        budget: int = 5000,
        folder: str | Path | None = None,
    ) -> FittedRival:
        """The best on the held-out draws of what it met, its start included where it has one.

        Args:
            reference: the fine solution, whose draws are fitted, and the sampler that its grids are for.
            held_out: independent draws.
            starts: grids of one length and terminal map, the same that `fit_solver` takes.
            budget: calls of the denoiser, the fine solutions included.
            folder: where finished parts are kept, so that a killed fit goes on.

        Raises:
            ValueError: a malformed argument, a stochastic sampler, held-out draws that are the fitted ones, a denoiser
                without gradients for a method that needs them, or a budget that does not cover the starts.
        """
        budget = integer(budget, "budget", minimum=1, maximum=AT_ONCE)
        if reference.sampler.stochastic:
            raise ValueError(
                f"reference.sampler is {shown(reference.sampler)}, which draws noise; give Euler() or DPMpp2M()."
            )
        if (held_out.seed, held_out.name) == (reference.draws.seed, reference.draws.name):
            raise ValueError("held_out has the seed and name of the fitted draws; give it another name.")
        grids = [starting_at(grid, reference) for grid in entries(starts, "starts")]
        if not grids or len({(grid.size, bool(grid[-1] == 0)) for grid in grids}) != 1:
            raise ValueError("starts must hold at least one grid, all of one number of steps and one terminal map.")
        question = {"what": "rival", "rival": repr(self), "held_out": held_out.describe(), "budget": budget}
        question |= {"starts": [grid.tolist() for grid in grids]}
        ledger = reference.items_in(folder, question)
        ground = Ground(reference, held_out, grids, budget, ledger)
        return self._fitted(ground)

    @abstractmethod
    def _fitted(self, ground: Ground) -> FittedRival:
        """The fit itself."""


@dataclass(eq=False)
class Ground:
    """What every rival is given: the same draws, fine solutions, starts and budget.

    Attributes:
        batches: calls of the denoiser so far; those of the fine solutions from the beginning.
    """

    reference: Reference
    held_out: Draws
    starts: list[Array]
    budget: int
    ledger: Ledger
    batches: int = field(default=0, init=False)
    _ends: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.batches = (self.draws.chunks + self.held_out.chunks) * self.reference.path().calls()
        self.check(len(self.starts) * self.run_cost(self.reference.sampler, self.starts[0]))

    def check(self, more: int) -> None:
        """Refuse a budget that does not cover so many calls more."""
        if self.batches + more > self.budget:
            raise ValueError(
                f"budget is {self.budget} batches; the fine solution and the starts alone take {self.batches + more}."
            )

    @property
    def draws(self) -> Draws:
        """The draws that are fitted."""
        return self.reference.draws

    @property
    def steps(self) -> int:
        """Number of steps K."""
        return self.starts[0].size - 1

    def run_cost(self, sampler: Sampler, grid: Array) -> int:
        """Calls of one run on the held-out draws."""
        return self.held_out.chunks * batches_of_run(sampler, grid.size - 1, self.reference.terminal)

    def start(self, chunk: int) -> torch.Tensor:
        """The fitted draws' states at sigma_max, float64."""
        return self.draws.start(chunk).double()

    def end(self, draws: Draws, chunk: int) -> torch.Tensor:
        """Terminal states of the fine solution, float64."""
        name = f"fine/{draws.name}{chunk}"
        if name not in self._ends:
            solution = self.reference.with_draws(draws)
            with torch.no_grad():
                kept = self.ledger.item(name, lambda: {"end": solution.terminal_states(chunk).double().cpu().numpy()})
            self._ends[name] = torch.as_tensor(kept["end"]).to(draws.like.device)
        return self._ends[name]

    def output(self, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """D(x, sigma) of float64 states, asked in the dtype of the draws; differentiable."""
        return self.reference.denoiser(x.to(self.draws.like.dtype), sigma).double()

    @torch.no_grad()
    def held_out_errors(self, sampler: Sampler, sigmas: Array) -> GridErrors:
        """Squared distances of a run to the fine solution, on the held-out draws."""
        self.batches += self.run_cost(sampler, sigmas)
        found = []
        for chunk in range(self.held_out.chunks):
            states = run(self.output, sampler, sigmas, self.held_out.start(chunk).double())
            found.append(squares(states - self.end(self.held_out, chunk)).cpu().numpy())
        return GridErrors(np.concatenate(found))

    def result(
        self, name: str, sampler: Sampler, sigmas: Array, held_out: GridErrors, *, iterations: int = 0, reason: str
    ) -> FittedRival:
        """What was found, with the calls so far."""
        return FittedRival(
            sampler, sigmas, self.batches, name=name, held_out=held_out, iterations=iterations, reason=reason
        )

    def best_start(self, sampler: Sampler) -> tuple[Array, GridErrors]:
        """The start with the smallest held-out error under a sampler."""
        tried = [(grid, self.held_out_errors(sampler, grid)) for grid in self.starts]
        return min(tried, key=lambda pair: float(pair[1].mean.value))
