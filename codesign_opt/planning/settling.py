"""Settling: the examples solved once more for a grid of whole steps, with the discrete kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..basics.causes import BIAS, FLOOR, INITIAL, TOTAL, TRUNCATION
from ..basics.checks import Array
from ..basics.errors import CodesignError, NotCertifiedError
from ..ingredients.grids import check_grid, steps_on_levels
from ..ingredients.levels import Levels
from ..modeling.prediction import predict
from ..models.coefficients import Coefficients
from ..results.plan import Plan
from .question import Study
from .real_steps import START

__all__ = ["Settled", "settle", "settle_on"]

_SETTLED_GAP = 1e-3
_OF_EXAMPLES = (  # tables that are those of the settled examples, and of the program's steps
    "score_weight", "served_weight", "pooling", "final_window", "marginal_gain", "prior_examples", "served_prior",
    "example_price", "examples_low", "examples_high", "output_sensitivity",
)  # fmt: skip
_SUMMED = ("score", "floor", "discretization")
_OF_STEPS = ("information_gain", "step_price", "steps_low", "steps_high", "output_sensitivity")


@dataclass(frozen=True, eq=False)
class Settled:
    """A grid of whole steps and its examples on levels of its own, with their error by cause.

    Args:
        sigmas: (K+1,) grid.
        handed_out: error by cause, exact bias and discrete kernel; the user's terms too.
        examples: the certified plan of the examples for this grid; None where none are decided.
        table: the coefficients they were solved with, or those of the grid.
    """

    sigmas: Array
    handed_out: dict[str, float]
    examples: Plan | None = None
    table: Coefficients | None = None

    @property
    def total(self) -> float:
        """What the grid and its examples leave, all causes together."""
        return self.handed_out[TOTAL]

    @property
    def stopping_sigma(self) -> float:
        """The last positive node."""
        return float(self.sigmas[self.sigmas > 0][-1])

    @property
    def reducible(self) -> float:
        """The part that more examples reduce."""
        return self.total - self.handed_out[BIAS] - self.handed_out[FLOOR]

    def put_into(self, study: Study, plan: Plan) -> Plan:
        """The program's plan with this grid and its examples; both of the same stopping point."""
        found, table = self.examples, self.table
        if found is None or table is None:
            return replace(plan, sigmas=self.sigmas, handed_out=self.handed_out)
        plan = _on(found.levels, plan)
        gap = found.certificate.relative_gap
        unproved = () if gap <= study.tolerance else (f"examples for the whole steps: certified only to {gap:.1g}",)
        tables = {**plan.tables, "continuous_examples": plan.examples}
        tables |= {name: found.tables[name] for name in _OF_EXAMPLES if name in found.tables}
        return replace(
            plan,
            sigmas=self.sigmas,
            examples=found.examples,
            new_examples=found.new_examples,
            tables=tables,
            costs={**plan.costs, **{k: found.costs[k] for k in ("training", "sampling", "new examples")}},
            handed_out=self.handed_out,
            attempts=(*plan.attempts, *found.attempts),
            notes=(*plan.notes, *unproved, *study.model.warnings(table, found.examples)),
            final_score=table.final_score,
            final_prior=table.final_prior,
            examples_gap=gap,
        )


def _on(levels: Levels, plan: Plan) -> Plan:
    """A plan's steps and tables on other levels of the same range: sums by overlap, and else the nearest level's."""
    before, edges = plan.levels, np.log(plan.levels.edges)
    if np.array_equal(levels.edges, before.edges):
        return plan
    nearest = np.clip(np.searchsorted(before.edges, levels.sigma, side="right") - 1, 0, len(before) - 1)

    def shared(values: Array) -> Array:
        below = np.concatenate([[0.0], np.cumsum(values)])
        return np.diff(np.interp(np.log(levels.edges), edges, below))

    tables = dict(plan.tables)
    for name, values in plan.tables.items():
        if name in _SUMMED or name in _OF_STEPS:
            tables[name] = shared(values) if name in _SUMMED else values[nearest]
    tables.setdefault("program_sigma", before.sigma)
    return replace(
        plan,
        levels=levels,
        examples=shared(plan.examples),
        new_examples=shared(plan.new_examples),
        steps=shared(plan.steps),
        tables=tables,
    )


def settle(study: Study, sigmas: Array, *, even: bool = False) -> Settled | None:
    """The best examples for a grid; None where the grid does not fit into the budgets and constraints.

    Args:
        study: the question.
        sigmas: (K+1,) grid.
        even: solve with the error of a node spread evenly over its step, as it is counted, instead of
            interpolated between the steps' centres: slightly less error, and a training density with stairs.
    """
    grid = check_grid(sigmas).sigmas
    if not study.trains:
        return _untrained(study, grid)
    smooth, counted = study.model.settled_pair(grid, study.levels_of(grid))
    return settle_on(study, grid, counted if even else smooth, counted)


def settle_on(study: Study, grid: Array, table: Coefficients, counted: Coefficients) -> Settled | None:
    """The best examples of a grid by a table of it, and what they leave by the one that counts; None as `settle`."""
    steps = steps_on_levels(table.levels, grid)
    try:  # a constraint may select nothing above the grid's stopping point
        problem = study.settled_problem(table, steps, obeying=study.admits(grid, START))
        found = problem.solve(tolerance=study.tolerance)
    except NotCertifiedError as error:
        # the examples fit the budget and their error is evaluated below; `examples_gap` says how near they are
        if error.plan is None or not error.plan.certificate.relative_gap <= _SETTLED_GAP:
            return None
        found = error.plan
    except CodesignError:
        return None
    handed = predict(study.model, grid, found.examples, table=counted)
    for name in [name for name in found.breakdown if name not in (*handed, TRUNCATION, INITIAL)]:  # the user's terms
        handed[name] = found.breakdown[name]
        handed[TOTAL] += handed[name]
    return Settled(grid, handed, found, table)


def _untrained(study: Study, grid: Array) -> Settled | None:
    """A grid as it is, with what a given run leaves; None where that has no bound, or constraints are broken."""
    levels = study.levels_of(grid) if study.taught else study.levels
    table = study.without_training(study.model.settled(grid, levels))
    spent = study.spent(table)
    if spent is not None and table.untaught(spent).any():
        return None
    if study.constraints:
        steps, obeying = steps_on_levels(table.levels, grid), study.admits(grid, START)
        try:
            study.settled_problem(table, steps, obeying=obeying).solve(tolerance=study.tolerance)
        except CodesignError:
            return None
    return Settled(grid, predict(study.model, grid, spent, levels, table=table), table=table)
