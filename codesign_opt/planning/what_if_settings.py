"""Many settings of one question as batches of joint programs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..basics.checks import Array, Mask
from ..models.coefficient_batch import CoefficientBatch
from ..solvers.joint.batch import ENOUGH, BatchSolution, JointBatch, solve_batch
from ..solvers.joint.newton import solve_joint
from ..solvers.joint.program import JointProgram
from .question import Study

__all__ = ["Settings", "Solved"]

_FREE = 0.01  # price of all steps over that of the training, where steps are to cost next to nothing


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
        """(N,) errors, of stopping and starting too; inf where the batch proved none."""
        sums = self.found.value + self.table.truncation + self.table.initial + self.table.final_floor
        return np.asarray(np.where(self.found.relative_gap <= ENOUGH, sums, np.inf))


@dataclass(frozen=True, eq=False)
class Settings:
    """One question with other budgets, most steps and numbers of images, each at a stopping point of its own.

    Where prices do not depend on sigma, the most steps either bind or change nothing, and what binds is told by two
    numbers: budget and images without the limit, the budget left for training and the steps with it. The best stopping
    point is smooth in each pair.

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

    def unlimited(self, pairs: Array, stops: Array) -> Solved | None:
        """Optima of (N, 2) budgets and images without a limit on steps; None where the model has no batch."""
        return self._solve(np.insert(pairs, 1, np.inf, axis=1), stops)

    def limited(self, asked: Array, stops: Array) -> Solved | None:
        """Optima of (N, 3) budgets, most steps and images."""
        return self._solve(asked, stops)

    def unlimited_errors(self, pairs: Array, stops: Array) -> Array | None:
        """(N,) errors of `unlimited`, inf where none is proved."""
        solved = self.unlimited(pairs, stops)
        return None if solved is None else solved.error

    def bound_errors(self, pairs: Array, stops: Array) -> Array | None:
        """(N,) errors of (N, 2) budgets for training alone and numbers of steps that all are taken."""
        asked = np.insert(pairs, 2, 1.0, axis=1)
        if self.study.prices is not None:  # steps at next to no price, which the limit on them certainly holds back
            each = self.study.prices.final_price(float(stops.min())) * self.study.model.sampler.evaluations_per_step
            asked[:, 2] = _FREE * asked[:, 0] / (each * asked[:, 1])
            asked[:, 0] *= 1.0 + _FREE
        solved = self._solve(asked, stops)
        return None if solved is None else solved.error

    def bound_pairs(self, asked: Array, stop: float) -> Array:
        """(N, 2) what is left for training when all steps are taken, and those steps, of (N, 3) settings."""
        if self.study.prices is None:
            return np.stack([np.ones(len(asked)), asked[:, 1]], axis=1)
        each = self.study.prices.final_price(stop) * self.study.model.sampler.evaluations_per_step
        left = asked[:, 0] - each * asked[:, 1] * asked[:, 2]
        return np.stack([np.maximum(left, 1e-3 * asked[:, 0]), asked[:, 1]], axis=1)

    def _solve(self, asked: Array, stops: Array) -> Solved | None:
        table = self.study.tables(stops)
        if table is None:
            return None
        batch, trains = self.study.batch(table), self.study.trains
        limited = bool(np.isfinite(asked[:, 1]).all())
        steps, left = batch.steps_prices.copy(), batch.budgets.copy()
        if limited:
            left[:, -1] = asked[:, 1] - table.final_steps
        if trains:
            last = 1.0 - left[:, 0]  # what the last evaluation of one image costs
            steps[:, 0] = np.where(table.levels.used, steps[:, 0] * asked[:, 2:], 1.0)
            left[:, 0] = asked[:, 0] - last * asked[:, 2]
        kept = slice(None) if limited else slice(0, 1)
        part = replace(
            batch, examples_prices=batch.examples_prices[:, kept], steps_prices=steps[:, kept], budgets=left[:, kept]
        )
        found, affordable = solve_batch(part), np.asarray((part.budgets > 0).all(axis=1))
        for row in np.flatnonzero(affordable & ~(found.relative_gap <= ENOUGH)):
            _one_by_one(part, found, int(row))
        return Solved(found, table, affordable)


def _one_by_one(batch: JointBatch, found: BatchSolution, row: int) -> None:
    """What the batch left out, by the solver that takes one program with care."""
    on = batch.used[row]
    offset = 0.0 if batch.final_offset is None else float(batch.final_offset[row])
    program = JointProgram(
        batch.errors[row, on],
        batch.floors[row, on],
        batch.kappa[row, on],
        batch.response[row][:, on],
        batch.order,
        batch.examples_prices[row][:, on],
        batch.steps_prices[row][:, on],
        batch.budgets[row],
        spent=batch.spent[row, on],
        final_error=float(batch.final_error[row]),
        final_window=batch.final_window[row, on],
        form=batch.form,
        final_offset=offset,
    )
    solved = solve_joint(program)
    if solved is not None and solved.relative_gap < found.relative_gap[row]:
        found.examples[row, on], found.steps[row, on] = solved.examples, solved.steps
        found.value[row], found.lower_bound[row] = solved.value, solved.lower_bound
        found.relative_gap[row] = solved.relative_gap
