"""Measured error of a grid: distance of its outputs to the fine solution, draw by draw, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array, choice
from ...ingredients.evaluations import evaluations
from ...ingredients.grids import check_grid
from ...ingredients.measured_error import OBJECTIVES
from ...samplers.base import Sampler
from ..draws.statistics import Estimate, squares
from ..draws.streams import my_share
from ..runs.fine_solution import Reference, gathered, mean_of_draws
from ..runs.run import run

__all__ = ["GridErrors", "batches_of_run", "measured_error", "objective_of"]

_TRIMMED = 0.1


@dataclass(frozen=True, eq=False)
class GridErrors:
    """Squared terminal distances of one grid to the fine solution under the same noise, summed over dimensions.

    They are heavy tailed (docs/theory.md section 3): the geometric mean stands beside the mean, and standard errors
    of the mean count what no draw has shown yet (section 3.5).

    >>> errors = GridErrors(np.array([1.0, 4.0]))
    >>> float(errors.mean.value), round(float(errors.geometric_mean.value), 12)
    (2.5, 2.0)
    """

    errors: Array

    @property
    def mean(self) -> Estimate:
        """Arithmetic mean over draws; its standard error with that of the unseen tail, 2 max / n less mean / n."""
        found, count = mean_of_draws(self.errors), self.errors.size
        unseen = (2 * self.errors.max(initial=0.0) - found.value) / count
        return Estimate(found.value, np.hypot(found.standard_error, unseen), count)

    @property
    def trimmed_mean(self) -> Estimate:
        """Mean without the largest tenth; its standard error that of the draws with these cut down (Winsorised)."""
        cut = np.quantile(self.errors, 1 - _TRIMMED)
        spread = mean_of_draws(np.minimum(self.errors, cut)).standard_error / (1 - _TRIMMED)
        return Estimate(np.asarray(objective_of("trimmed")(self.errors)[0]), spread, self.errors.size)

    def of(self, objective: str) -> Estimate:
        """The statistic of that name, see `objective_of`."""
        if objective == "mean":
            return self.mean
        return self.trimmed_mean if objective == "trimmed" else self.geometric_mean

    def share_of_largest(self, count: int) -> float:
        """What share of the sum the largest so many draws carry."""
        total = float(self.errors.sum())
        return float(np.sort(self.errors)[-count:].sum()) / total if total > 0 else 0.0

    @property
    def geometric_mean(self) -> Estimate:
        """exp of the mean logarithm; its standard error to first order."""
        logs = mean_of_draws(np.log(np.maximum(self.errors, 1e-300)))
        return Estimate(np.exp(logs.value), np.exp(logs.value) * logs.standard_error, logs.count)

    def ratio(self, other: GridErrors, objective: str = "mean") -> Estimate:
        """Statistic of the errors over that of another grid's on the same draws, with the error of paired draws."""
        (own, mine), (theirs, other_s) = (objective_of(objective)(each.errors) for each in (self, other))
        ratio = own / theirs
        rest = self.errors * mine / theirs - ratio * other.errors * other_s / theirs  # to first order in the errors
        return Estimate(np.asarray(ratio), mean_of_draws(rest * rest.size).standard_error, rest.size)

    def __repr__(self) -> str:
        return f"GridErrors(mean {self.mean!r}, geometric mean {self.geometric_mean!r}, {self.errors.size} draws)"


def measured_error(reference: Reference, sigmas: Any, *, folder: str | Path | None = None) -> GridErrors:
    """|run(grid) - fine solution|^2 of every draw.

    Args:
        reference: the fine solution; its draws are the ones measured on.
        sigmas: (K+1,) grid that starts at their sigma_max.
        folder: where finished batches are kept.

    Raises:
        ValueError: a malformed grid, or one that starts elsewhere.

    >>> from codesign_opt import Euler
    >>> from codesign_opt.estimate.runs.fine_solution import Draws
    >>> reference = Reference(lambda x, sigma: 0 * x, Euler(), Draws((2,), 3, 10.0), 0.1)
    >>> float(measured_error(reference, [10.0, 1.0, 0.0]).mean.value)
    0.0
    """
    grid = starting_at(sigmas, reference)
    ledger = reference.items_in(folder, {"what": "grid error", "sigmas": grid.tolist()})

    def compute(chunk: int) -> dict[str, Array]:
        return {"errors": squares(residual(reference, grid, chunk, reference.terminal_states(chunk))).numpy()}

    parts = {
        chunk: torch.as_tensor(ledger.item(f"chunk{chunk}", partial(compute, chunk))["errors"])
        for chunk in my_share(reference.draws.chunks)
    }
    return GridErrors(gathered(reference.draws, parts))


@torch.no_grad()
def residual(reference: Reference, grid: Array, chunk: int, end: torch.Tensor) -> torch.Tensor:
    """(n, *shape) output of a grid minus the fine one."""
    draws = reference.draws
    noise = draws.noise(chunk, reference.stopping_sigma)
    return run(reference.denoiser, reference.sampler, grid, draws.start(chunk), noise) - end


def starting_at(sigmas: Any, reference: Reference) -> Array:
    """The checked grid, which starts where the draws do."""
    grid = np.array(check_grid(sigmas).sigmas)  # writable, as torch wants
    if abs(np.log(grid[0] / reference.draws.sigma_max)) > 1e-9:
        raise ValueError(f"sigmas starts at {grid[0]:g}, the draws at {reference.draws.sigma_max:g}; use one start.")
    return grid


def batches_of_run(sampler: Sampler, steps: int, terminal: str) -> int:
    """Calls of the denoiser that a run of some steps makes, the last one to zero counted in under "denoise".

    >>> from codesign_opt import Heun
    >>> batches_of_run(Heun(), 18, "denoise")
    35
    """
    return evaluations(steps, sampler.evaluations_per_step, terminal)


def objective_of(name: str) -> Callable[[Array], tuple[float, Array]]:
    """The value of a statistic of squared errors, and its derivative by each of them.

    "mean"; "geometric", the geometric mean; "trimmed", the mean without the largest tenth.

    >>> value, slope = objective_of("geometric")(np.array([1.0, 4.0]))
    >>> round(value, 12), slope.round(12).tolist()
    (2.0, [1.0, 0.25])
    """
    choice(name, "objective", OBJECTIVES)

    def mean(errors: Array) -> tuple[float, Array]:
        return float(errors.mean()), np.full(errors.size, 1 / errors.size)

    def geometric(errors: Array) -> tuple[float, Array]:
        safe = np.maximum(errors, 1e-12 * errors.max(initial=1e-300))
        value = float(np.exp(np.log(safe).mean()))
        return value, value / (errors.size * safe)

    def trimmed(errors: Array) -> tuple[float, Array]:
        kept = errors <= np.quantile(errors, 1 - _TRIMMED)
        return float(errors[kept].mean()), kept / kept.sum()

    return {"mean": mean, "geometric": geometric, "trimmed": trimmed}[name]
