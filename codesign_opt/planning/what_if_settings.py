"""Many settings of one question as one batch of joint programs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..basics.checks import Array, Indices, Mask
from ..models.coefficient_batch import CoefficientBatch
from ..solvers.joint.batch import ENOUGH, BatchSolution, solve_batch
from .question import Study

__all__ = ["Settings", "Solved"]


@dataclass(frozen=True, eq=False)
class Solved:
    """The optima of N settings.

    Args:
        found: examples, steps and proofs, one row a setting.
        table: their coefficients.
        affordable: (N,) whether every limit leaves something beside the last evaluation.
    """

    found: BatchSolution
    table: CoefficientBatch
    affordable: Mask

    @property
    def error(self) -> Array:
        """(N,) errors, of stopping and starting too."""
        return np.asarray(self.found.value + self.table.truncation + self.table.initial + self.table.final_floor)


@dataclass(frozen=True, eq=False)
class Settings:
    """One question with other budgets, most steps and numbers of images, each at a stopping point of its own.

    Args:
        study: the question, its prices for one image and a budget of 1 where it trains.
    """

    study: Study

    @classmethod
    def of(cls, study: Study, levels: int) -> Settings:
        """The same question for any setting, on so many levels at most."""
        fine = min(levels, study.levels)
        if study.prices is None:
            return cls(replace(study, levels=fine, steps=1.0))
        return cls(replace(study, levels=fine, prices=study.prices.with_images(1.0), budget=1.0, steps=1.0))

    def errors(self, asked: Array, stops: Array) -> Array | None:
        """(N,) errors of all settings, inf where there is none; None where the model has no batch."""
        solved = self.solve(asked, stops)
        if solved is None:
            return None
        return np.where(solved.found.relative_gap <= ENOUGH, solved.error, np.inf)

    def solve(self, asked: Array, stops: Array) -> Solved | None:
        """The optima of all settings, one row each; None where the model has no batch.

        Args:
            asked: (N, 3) budget, most steps (inf for no limit) and images.
            stops: (N,) stopping points.
        """
        table = self.study.tables(stops)
        if table is None:
            return None
        batch = self.study.batch(table)
        limited = np.isfinite(asked[:, 1])
        examples, steps, left = batch.examples_prices.copy(), batch.steps_prices.copy(), batch.budgets.copy()
        free = ~table.levels.used
        left[:, -1] = np.where(limited, asked[:, 1] - table.final_steps, 1.0)
        if self.study.trains:
            last = 1.0 - left[:, 0]  # what the last evaluation of one image costs
            steps[:, 0] = np.where(free, 1.0, steps[:, 0] * asked[:, 2:])
            left[:, 0] = asked[:, 0] - last * asked[:, 2]
        found = BatchSolution.empty(replace(batch, budgets=left))
        for rows, kept in ((limited, slice(None)), (~limited, slice(0, 1))):
            at = np.flatnonzero(rows)
            if at.size:
                part = replace(
                    batch, examples_prices=examples[:, kept], steps_prices=steps[:, kept], budgets=left[:, kept]
                ).take(at)
                _keep(found, at, solve_batch(part))
        return Solved(found, table, (left > 0).all(axis=1))


def _keep(whole: BatchSolution, rows: Indices, part: BatchSolution) -> None:
    for name in vars(part):
        if name != "budget_multipliers":
            getattr(whole, name)[rows] = getattr(part, name)
