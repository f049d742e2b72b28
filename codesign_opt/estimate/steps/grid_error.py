"""Measured error of a grid: distance of its outputs to the fine solution, draw by draw, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import Array, choice, instance, integer, takes, vector
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
    of the mean count what no draw has shown (section 3.5).

    >>> errors = GridErrors(np.array([1.0, 4.0]))
    >>> float(errors.mean.value), round(float(errors.geometric_mean.value), 12)
    (2.5, 2.0)
    """

    errors: Array

    def __post_init__(self) -> None:
        errors = vector(self.errors, "GridErrors.errors", nonnegative=True, infinite=True)
        object.__setattr__(self, "errors", self.errors if isinstance(self.errors, np.ndarray) else errors)

    @property
    def mean(self) -> Estimate:
        """Arithmetic mean over draws."""
        return self.of("mean")

    @property
    def geometric_mean(self) -> Estimate:
        """exp of the mean logarithm; its standard error to first order."""
        return self.of("geometric")

    def of(self, objective: str) -> Estimate:
        """The statistic of that name, see `objective_of`, with its standard error."""
        with np.errstate(over="ignore", invalid="ignore"):  # of errors without end it is inf or NaN
            value, count = objective_of(objective)(self.errors)[0], self.errors.size
            spread = mean_of_draws(self._influence(objective)).standard_error
            if objective == "mean":
                spread = np.hypot(spread, (self._beyond() - value) / count)
        return Estimate(np.asarray(value), spread, count)

    def difference(self, other: GridErrors, objective: str = "mean") -> Estimate:
        """Statistic less that of other errors of the same draws, with the standard error of paired draws."""
        self._paired(other, "difference")
        with np.errstate(over="ignore", invalid="ignore"):
            value = objective_of(objective)(self.errors)[0] - objective_of(objective)(other.errors)[0]
            rest = self._influence(objective) - other._influence(objective)
        return Estimate(np.asarray(value), mean_of_draws(rest).standard_error, rest.size)

    def ratio(self, other: GridErrors, objective: str = "mean") -> Estimate:
        """Statistic over that of another grid's errors on the same draws, with the standard error of paired draws."""
        self._paired(other, "ratio")
        with np.errstate(over="ignore", invalid="ignore"):
            own, theirs = (objective_of(objective)(each.errors)[0] for each in (self, other))
            if theirs == 0:
                raise ValueError("GridErrors.ratio: other has errors of zero alone; nothing is a ratio to them.")
            rest = self._influence(objective) - (ratio := own / theirs) * other._influence(objective)
        return Estimate(np.asarray(ratio), mean_of_draws(rest).standard_error / theirs, rest.size)

    def _paired(self, other: GridErrors, what: str) -> None:
        size = instance(other, GridErrors, f"GridErrors.{what}: other").errors.size
        if size != self.errors.size:
            raise ValueError(
                f"GridErrors.{what}: other has {size} errors; those of the same {self.errors.size} draws are needed."
            )

    def _influence(self, objective: str) -> Array:
        """What each draw adds to the statistic times their number, to first order."""
        if objective == "geometric":
            value = objective_of(objective)(self.errors)[0]
            return value * np.log(np.maximum(self.errors, 1e-300))
        if objective == "trimmed":  # the largest count as the smallest of them: Winsorised
            return np.minimum(self.errors, np.quantile(self.errors, 1 - _TRIMMED)) / (1 - _TRIMMED)
        return self.errors

    def _beyond(self) -> float:
        """Mean of what is larger than every draw, by the power of their tail (Hill 1975), of a finite variance."""
        top = np.sort(self.errors)[-int(self.errors.size**0.5) - 1 :]
        if top.size < 2 or not top[0] > 0:
            return float(self.errors.max(initial=0.0))
        power = max(1 / max(float(np.log(top[1:] / top[0]).mean()), 1e-9), 2.0)
        return float(top[-1]) * power / (power - 1)

    def share_of_largest(self, count: int) -> float:
        """What share of the sum the largest so many draws carry."""
        largest = integer(count, "GridErrors.share_of_largest: count", minimum=1)
        total = float(self.errors.sum())
        return float(np.sort(self.errors)[-largest:].sum()) / total if total > 0 else 0.0

    def __repr__(self) -> str:
        return f"GridErrors(mean {self.mean!r}, geometric mean {self.geometric_mean!r}, {self.errors.size} draws)"


@takes(reference=Reference)
def measured_error(reference: Reference, sigmas: ArrayLike, *, folder: str | Path | None = None) -> GridErrors:
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
