"""How an optimum moves with the numbers of its program: implicit differentiation of its conditions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..basics.checks import Array, Mask
from ..ingredients.levels import Levels
from ..modeling import GramDiscretization, Point, ScoreError, Truncation
from ..models.base import Model
from ..models.coefficients import Coefficients
from .question import Study

__all__ = ["Optimum", "OptimumChange", "error_of"]

_KINK = 1e-4  # in log steps: nearer to where M bends a level is held at the bend
_NOTHING = 1e-7  # of the examples of an even density: less is none
_BEND = 1e-5  # in log x, of the derivative of x M'(x)


@dataclass(frozen=True, eq=False)
class OptimumChange:
    """Derivatives of an optimum by P numbers, and what the numbers' errors cost it.

    Attributes:
        examples, steps: (P, L) derivatives of the new examples and of the steps on every level.
        curvature: (P, P) second derivative of the Lagrangian along these.
        bends: (P, K) derivatives of log steps of the levels that are held where M bends.
        jumps: (K,) by how much the error's slope in log steps jumps there.
    """

    examples: Array
    steps: Array
    curvature: Array
    bends: Array
    jumps: Array

    def cost(self, factor: Array) -> float:
        """What planning with numbers of covariance factor @ factor.T costs beside planning with the true ones, mean.

        Half the trace of the curvature; at a bend, where the cost is linear, half the jump times the mean size of the
        move (docs/theory.md section 8.5).
        """
        smooth = 0.5 * float(np.einsum("pk,pq,qk->", factor, self.curvature, factor))
        sizes = np.sqrt(((self.bends.T @ factor) ** 2).sum(axis=1))
        return smooth + float(self.jumps @ sizes) * np.sqrt(0.5 / np.pi)


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best design at one stopping point, on levels that move with it (docs/theory.md section 8.5).

    Args:
        study: the question: a program of the library's own terms and budgets.
        table: its coefficients there.
        new, spent: (L,) examples planned and already spent.
        steps: (L,) steps.
        value: the certified error.

    """

    study: Study
    table: Coefficients
    new: Array
    spent: Array
    steps: Array
    value: float

    @classmethod
    def at(cls, study: Study, stop: float, count: int) -> Optimum:
        """The certified optimum at a stopping point, on `count` levels of equal log width above it."""
        levels = Levels.log_uniform(stop, study.model.process.sigma_max, count)
        table = study.without_training(study.model.coefficients(stop, levels))
        plan = study.declare([ScoreError(table), study.discretization(table), Truncation(table)], table).solve(
            tolerance=study.tolerance
        )
        return cls(study, table, plan.new_examples, plan.examples - plan.new_examples, plan.steps, plan.error)

    def moved_table(self, model: Model) -> Coefficients:
        """The table of another model on the same levels."""
        return self.study.without_training(model.coefficients(self.table.stopping_sigma, self.table.levels))

    def error(self, table: Coefficients) -> float:
        """Error of this very design where a table is true: by the envelope theorem its slope is the optimum's."""
        return error_of(self.study, table, Point(self.new, self.spent, self.steps))

    def change(self, tables: list[tuple[Coefficients, Coefficients]], step: float) -> OptimumChange:
        """Derivatives by numbers that were moved up and down by `step` each, to (up, down) tables."""
        size, free, kinked = self.steps.size, self._free, self._kinked
        hessian, rows = self._hessian, self._rows
        slopes = np.array([(self._gradient(up) - self._gradient(down)) / (2 * step) for up, down in tables]).T
        held = np.zeros((2 * size, len(tables)))  # a level at the bend of M goes with its correlation length, M = 1
        bends = np.array([np.log(up.kappa / down.kappa) / (2 * step) for up, down in tables]).T
        held[size:][kinked] = bends[kinked]
        count = int(free.sum())
        system = np.zeros((count + len(rows), count + len(rows)))
        system[:count, :count] = hessian[np.ix_(free, free)]
        system[:count, count:], system[count:, :count] = rows[:, free].T, rows[:, free]
        right = np.vstack([slopes[free], rows @ held])
        # shares of the error and of the budget: rows of the two kinds are decades apart otherwise
        unit = 1 / np.sqrt(np.maximum(np.abs(np.diag(system)), 1e-300))
        unit[count:] = 1 / np.maximum(np.linalg.norm(system[count:, :count] * unit[:count], axis=1), 1e-300)
        solved, *_ = np.linalg.lstsq(unit[:, None] * system * unit, -unit[:, None] * right, rcond=1e-13)
        moved = held
        moved[free] = (unit[:, None] * solved)[:count]
        change = moved.T * np.concatenate([self.new, self.steps])
        error = _over(self.table.example_error, self._served(self.table)[1]) + self.table.floor_error
        curvature = moved.T @ hessian @ moved
        return OptimumChange(change[:, :size], change[:, size:], curvature, bends[kinked].T, error[kinked])

    # conditions of the optimum, in logarithms of new examples and steps

    @cached_property
    def _kinked(self) -> Mask:
        if self.table.coupling.known_form != "max":
            return np.zeros(self.steps.size, dtype=bool)
        return np.abs(np.log(self.table.kappa / np.maximum(self.steps, 1e-300))) < _KINK

    @cached_property
    def _free(self) -> Mask:
        """(2 L,) which logarithms move."""
        least = _NOTHING * self.new.sum() * self.table.log_width / self.table.log_width.sum()
        trained = (self.new > least) if self.study.trains else np.zeros(self.new.size, dtype=bool)
        return np.concatenate([trained, (self.steps > 0) & ~self._kinked])

    def _parts(self, table: Coefficients) -> tuple[Array, Array, Array, Array]:
        """n, x = kappa / n, M(x) and x M'(x); where M bends n goes with kappa, and M stays 1."""
        steps = np.where(self._kinked, table.kappa, self.steps)
        x = table.kappa / steps
        return steps, x, table.coupling.factor(x), np.where(self._kinked, 0.0, x * table.coupling.slope(x))

    def _served(self, table: Coefficients) -> tuple[Array, Array, float]:
        """(L, L) derivatives of what serves each level by log new examples, what serves it, and the last evaluation."""
        pooling, examples = table.pooling, self.new + self.spent
        by_new = np.diag(self.new) if pooling is None else pooling * self.new
        served = (examples if pooling is None else pooling @ examples) + table.prior_examples
        return by_new, served, float(table.final_window @ examples) + table.final_prior

    def _gram(self, table: Coefficients) -> Array:
        term = self.study.discretization(table)
        if isinstance(term, GramDiscretization):
            return term.gram
        return np.asarray(table.step_response.T @ table.step_response)

    def _gradient(self, table: Coefficients) -> Array:
        """(2 L,) derivatives of the error by the logarithms, this design held."""
        q, (own, _, factor, bend), (by_new, served, near) = table.order, self._parts(table), self._served(table)
        error = _over(table.example_error, served)
        inverse = own ** -float(q)
        steps = -(error + table.floor_error) * bend - 2 * q * inverse * (self._gram(table) @ inverse)
        examples = -by_new.T @ (_over(error, served) * factor)
        if table.final_score > 0 and near > 0:
            examples = examples - table.final_score / near**2 * table.final_window * self.new
        return np.concatenate([examples, steps])

    @cached_property
    def _hessian(self) -> Array:
        """(2 L, 2 L) second derivatives of the Lagrangian by the logarithms."""
        table, size = self.table, self.steps.size
        q, (own, x, factor, bend), (by_new, served, near) = table.order, self._parts(table), self._served(table)
        error = _over(table.example_error, served)
        first, second = _over(error, served), _over(_over(error, served), served)
        result = np.zeros((2 * size, 2 * size))
        result[:size, :size] = by_new.T * (2 * second * factor) @ by_new - np.diag(by_new.T @ (first * factor))
        if table.final_score > 0 and near > 0:
            window = table.final_window * self.new
            result[:size, :size] += 2 * table.final_score / near**3 * np.outer(window, window)
            result[:size, :size] -= np.diag(table.final_score / near**2 * window)
        result[:size, size:] = by_new.T * (first * bend)
        result[size:, :size] = result[:size, size:].T
        ahead, behind = x * np.exp(_BEND), x * np.exp(-_BEND)
        slope = table.coupling.slope
        curve = np.where(self._kinked, 0.0, (ahead * slope(ahead) - behind * slope(behind)) / (2 * _BEND))
        inverse, gram = own ** -float(q), self._gram(table)
        result[size:, size:] = 2 * q**2 * inverse[:, None] * gram * inverse
        result[size:, size:] += np.diag((error + table.floor_error) * curve + 2 * q**2 * inverse * (gram @ inverse))
        rows = self._rows
        return result + np.diag(self._multipliers @ rows)

    @cached_property
    def _all_rows(self) -> Array:
        """(J, 2 L) derivatives of the budgets by the logarithms: what each level uses of them."""
        limits = self.study.budgets.of(self.table)
        return np.hstack([limits.example_prices * self.new, limits.step_prices * self.steps])

    @cached_property
    def _rows(self) -> Array:
        """(A, 2 L) those of the budgets that bind."""
        left = self.study.budgets.of(self.table).left
        return np.asarray(self._all_rows[self._all_rows.sum(axis=1) > left * (1 - 1e-6)])

    @cached_property
    def _multipliers(self) -> Array:
        """(A,) of the budgets that bind: the worth of each, from the conditions of the free logarithms."""
        free, gradient = self._free, self._gradient(self.table)
        size = np.abs(self._rows[:, free]).sum(axis=1)
        if not size.size:
            return size
        found, *_ = np.linalg.lstsq((self._rows[:, free] / size[:, None]).T, -gradient[free], rcond=None)
        return np.maximum(found / size, 0.0)


def error_of(study: Study, table: Coefficients, point: Point) -> float:
    """Error of a design in the library's own program."""
    design: Any = None  # the values of these terms ask nothing of it
    whole = ScoreError(table).value(design, point) + study.discretization(table).value(design, point)
    return float(whole + Truncation(table).value(design, point))


def _over(value: Array, by: Array) -> Array:
    return np.divide(value, by, out=np.zeros_like(value), where=by > 0)
