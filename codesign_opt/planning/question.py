"""Study: one question to the planner, declared for any stopping point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..ingredients.prices import Prices
from ..ingredients.training_run import TrainingRun
from ..modeling import Compute, Discretization, GramDiscretization, ScoreError, Steps, Sum, Term, Truncation, named
from ..models.coefficient_batch import CoefficientBatch
from ..models.coefficients import Coefficients
from ..programs.problem import Problem
from ..results.record import Plan
from ..solvers.joint.batch import JointBatch
from ..solvers.joint.program import JointProgram

__all__ = ["Study"]


@dataclass(frozen=True, eq=False)
class Study:
    """One question to the planner, for any stopping point."""

    model: Any
    prices: Prices | None
    budget: float | None
    steps: float | None
    run: TrainingRun | None
    constraints: tuple[Any, ...]
    terms: tuple[Term, ...]
    levels: int
    tolerance: float

    @property
    def trains(self) -> bool:
        """Whether examples are decided; else only the sampler is."""
        return self.budget is not None

    def table(self, stopping_sigma: float) -> Coefficients:
        """The coefficients at one stopping point, without reducible score error where nothing is trained."""
        return self.without_training(self.model.coefficients(stopping_sigma, self.levels))

    def without_training(self, table: Coefficients) -> Coefficients:
        """The same table where examples are decided; else with no reducible score error."""
        if self.trains:
            return table
        return replace(table, score=np.zeros(len(table.levels)), final_score=0.0)

    def spent(self, table: Coefficients) -> Array | None:
        """(L,) examples already spent, or None."""
        return self.run.examples_on(table.levels) if self.run is not None and self.trains else None

    def problem(self, stopping_sigma: float) -> Problem:
        """The declared program at one stopping point."""
        table = self.table(stopping_sigma)
        return self.declare([ScoreError(table), self.discretization(table), Truncation(table)], table)

    def discretization(self, table: Coefficients) -> Term:
        """Magnitudes of bands, or a measured Gram matrix: with its signs where only steps are planned."""
        if not table.measured:
            return Discretization(table)
        steps_matter = bool(np.any(table.score > 0) or np.any(table.floor > 0))
        return GramDiscretization(table, "positive" if steps_matter else "signed")

    def settled_problem(self, table: Coefficients, steps: Array) -> Problem:
        """The declared program for a grid that is given, from its settled coefficients."""
        return self.declare([ScoreError(table), Truncation(table)], table, steps=steps)

    def declare(self, terms: list[Term], table: Coefficients, *, steps: Array | None = None) -> Problem:
        """The user's terms, budgets and constraints around the given terms."""
        leaves = tuple(leaf for term in [*terms, *self.terms] for leaf in term.leaves())
        return Problem(Sum(leaves), [*self.budgets(), *self.constraints], steps=steps, spent=self.spent(table))

    def program(self, table: Coefficients) -> JointProgram | None:
        """The same program for the structured solver; None where it holds parts that solver doesn't know."""
        form = table.coupling.solver_form(table.levels)
        if self.terms or self.constraints or form is None or table.measured:
            return None
        size = len(table.levels)
        examples, steps, limits = [], [], []
        if self.prices is not None and self.budget is not None:
            examples.append(self.prices.example_price(table.levels))
            steps.append(self.prices.evaluation_price(table.levels) * table.evaluations_per_step)
            limits.append(self.budget - table.final_steps * self.prices.final_price(table.stopping_sigma))
        if self.steps is not None:
            examples.append(np.zeros(size))
            steps.append(np.ones(size))
            limits.append(self.steps - table.final_steps)
        if min(limits) <= 0:
            return None
        return JointProgram(
            table.example_error,
            table.floor_error,
            table.kappa,
            table.step_response,
            table.order,
            np.array(examples),
            np.array(steps),
            np.array(limits),
            spent=self.spent(table),
            final_error=table.final_score,
            final_window=table.final_window,
            form=form,
        )

    def tables(self, stops: Array) -> CoefficientBatch | None:
        """The coefficients at many stopping points; None where the model gives them one by one."""
        given = [self.prices.example, self.prices.evaluation] if self.prices is not None else []
        arrays = any(not callable(price) and np.ndim(price) > 0 for price in given)
        if self.terms or self.constraints or arrays or not hasattr(self.model, "coefficient_batch"):
            return None
        table = self.model.coefficient_batch(stops, self.levels)
        if table is None or self.trains:
            return table
        return replace(table, score=np.zeros_like(table.score), final_score=np.zeros_like(table.final_score))

    def batch(self, table: CoefficientBatch) -> JointBatch:
        """The programs at many stopping points, as `program` gives them one by one."""
        levels = table.levels
        examples, steps, limits = [], [], []
        if self.prices is not None and self.budget is not None:
            final = np.array([self.prices.final_price(float(stop)) for stop in levels.stops])
            examples.append(levels.spread(self.prices.example_price(levels.bins)))
            steps.append(levels.spread(self.prices.evaluation_price(levels.bins)) * table.evaluations_per_step)
            limits.append(self.budget - table.final_steps * final)
        if self.steps is not None:
            examples.append(np.zeros(levels.used.shape))
            steps.append(np.ones(levels.used.shape))
            limits.append(np.full(levels.stops.size, self.steps - table.final_steps))
        spent = np.zeros(levels.used.shape)
        if self.run is not None and self.trains:
            for r, used in enumerate(levels.used):
                spent[r, used] = self.run.examples_on(levels.levels(r))
        free = ~levels.used[:, None]
        return JointBatch(
            used=levels.used,
            errors=table.example_error,
            floors=table.floor_error,
            kappa=table.kappa,
            response=table.step_response,
            order=table.order,
            examples_prices=np.where(free, 1.0, np.stack(examples, axis=1)),
            steps_prices=np.where(free, 1.0, np.stack(steps, axis=1)),
            budgets=np.stack(limits, axis=1),
            spent=spent,
            final_error=table.final_score,
            final_window=table.final_window,
            form=table.form,
        )

    def budgets(self) -> list[Any]:
        """The bounds that the question itself states."""
        bounds: list[Any] = []
        if self.prices is not None and self.budget is not None:
            bounds.append(named("budget", Compute(self.prices) <= self.budget))
        if self.steps is not None:
            bounds.append(named("steps", Steps() <= self.steps))
        return bounds

    def solve(self, stopping_sigma: float, start: Plan | None = None) -> Plan:
        """The certified plan at one stopping point, from the declared program."""
        return self.problem(stopping_sigma).solve(tolerance=self.tolerance, start=start)
