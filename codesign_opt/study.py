"""Study: one question to the planner, declared for any stopping point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._validate import Array
from .auditing import TrainingRun
from .coefficients import Coefficients
from .modeling import Compute, Discretization, Problem, ScoreError, Steps, Sum, Term, Truncation, named
from .modeling.structure import coupling_form
from .plan import Plan
from .prices import Prices
from .solvers.joint_program import JointProgram

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
        return self.declare([ScoreError(table), Discretization(table), Truncation(table)], table)

    def settled_problem(self, table: Coefficients, steps: Array) -> Problem:
        """The declared program for a grid that is given, from its settled coefficients."""
        return self.declare([ScoreError(table), Truncation(table)], table, steps=steps)

    def declare(self, terms: list[Term], table: Coefficients, *, steps: Array | None = None) -> Problem:
        """The user's terms, budgets and constraints around the given terms."""
        leaves = tuple(leaf for term in [*terms, *self.terms] for leaf in term.leaves())
        return Problem(Sum(leaves), [*self.budgets(), *self.constraints], steps=steps, spent=self.spent(table))

    def program(self, table: Coefficients) -> JointProgram | None:
        """The same program for the structured solver; None where it holds parts that solver doesn't know."""
        form = coupling_form(table.coupling)
        if self.terms or self.constraints or form is None:
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
