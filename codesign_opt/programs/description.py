"""From a certified candidate to a Plan: breakdown, shadow prices, per-level tables, the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.checks import Array
from ..ingredients.grids import grid_from_steps
from ..modeling.coherent import CoherentScore
from ..modeling.discretization import Discretization, SeparableDiscretization
from ..modeling.gram import GramDiscretization
from ..modeling.information import InformationError
from ..modeling.terms import Compute, ScoreError, Truncation
from ..results.plan import Plan
from .budget import Budget

if TYPE_CHECKING:
    from .compiled import Solved
    from .problem import Problem

__all__ = ["describe"]

_MOST_NODES = 1_000_000


def describe(problem: Problem, solved: Solved) -> Plan:
    """Everything a reader of the plan needs, from the candidate and its multipliers."""
    point, table = solved.point, problem.table
    decided = problem.examples is not None or not solved.compiled.design.fixed_examples
    nothing = np.zeros(len(problem.levels))
    shadow, elasticity = _shadow_prices(solved)
    terminal = "rescale" if table is None else table.terminal
    return Plan(
        levels=problem.levels,
        examples=point.examples if decided else nothing,
        new_examples=point.new_examples if decided else nothing,
        steps=point.steps if table is not None else np.zeros(len(problem.levels)),
        sigmas=_grid(problem, point.steps),
        terminal=terminal,
        stopping_sigma=float(problem.levels.edges[0]),
        error=solved.certificate.value,
        breakdown=_breakdown(solved),
        certificate=solved.certificate,
        shadow_prices=shadow,
        elasticities=elasticity,
        costs=_costs(solved),
        tables=_tables(problem, solved),
        attempts=tuple(solved.attempts),
        notes=_notes(problem, solved),
        **_of_the_table(problem),
    )


def _grid(problem: Problem, steps: Array) -> Array | None:
    """Whole steps at equal increments of the continuous step count."""
    table = problem.table
    if table is None or not (problem.decides_steps or problem.steps is not None) or not np.any(steps > 0):
        return None
    if steps.sum() > _MOST_NODES:
        return None  # nobody samples so, and the nodes would fill the memory; _notes says so
    minimum = 1 + table.final_steps
    count = max(minimum, int(np.floor(steps.sum() + table.final_steps + 1e-6)))
    return grid_from_steps(problem.levels, steps, count, terminal=table.terminal)


def _breakdown(solved: Solved) -> dict[str, float]:
    parts: dict[str, float] = {}

    def put(name: str, value: float) -> None:
        parts[name] = parts.get(name, 0.0) + float(value)

    for weight, leaf in solved.compiled.terms:
        if isinstance(leaf, Truncation):
            put("truncation", weight * leaf.table.truncation)
            put("initial", weight * leaf.table.initial)
        elif isinstance(leaf, ScoreError):
            reducible, floor = leaf.levels_value(solved.point)
            last, last_floor = leaf.final_value(solved.point)
            put("score", weight * reducible.sum())
            put("floor", weight * floor.sum())
            put("last evaluation", weight * (last + last_floor))
        elif isinstance(leaf, (Discretization, SeparableDiscretization)):
            put("discretization", weight * leaf.value(solved.compiled.design, solved.point))
        elif isinstance(leaf, CoherentScore):
            put("score (coherent)", weight * leaf.value(solved.compiled.design, solved.point))
        elif isinstance(leaf, GramDiscretization):
            put(f"discretization ({leaf.model} Gram)", weight * leaf.value(solved.compiled.design, solved.point))
        else:
            put(leaf.name, weight * leaf.value(solved.compiled.design, solved.point))
    return parts


def _reducible(solved: Solved) -> float:
    constant = sum(w * leaf.constant(solved.compiled.design, solved.point) for w, leaf in solved.compiled.terms)
    return solved.certificate.value - constant


def _shadow_prices(solved: Solved) -> tuple[dict[str, Any], dict[str, float]]:
    """Change of the error per unit of each right-hand side, and relative to the reducible error."""
    shadow: dict[str, Any] = {}
    elasticity: dict[str, float] = {}
    reducible = abs(_reducible(solved))
    told = reducible > 1e-13 * abs(solved.certificate.value)  # below, it is lost in the rounding of the whole error
    for row, multiplier in zip(solved.compiled.rows, solved.multipliers, strict=True):
        price = row.price_sign * multiplier * (1.0 if row.rate is None else row.rate)
        value: Any = float(price[0]) if price.size == 1 else price
        if row.name in shadow:  # a constraint made of several rows: one list after the other
            value = np.concatenate([np.atleast_1d(shadow[row.name]), np.atleast_1d(value)])
        shadow[row.name] = value
        if row.limit and row.size.size == 1 and not row.box and (told or not np.any(price)):
            elasticity[row.name] = float(price[0]) * row.limit / reducible if told else 0.0
    return shadow, elasticity


def _costs(solved: Solved) -> dict[str, float]:
    costs: dict[str, float] = {}
    point, design = solved.point, solved.compiled.design
    if not design.fixed_examples:
        costs["new examples"] = float(point.new_examples.sum())
    costs["steps"] = float(point.steps.sum()) + design.final_steps
    for row in solved.compiled.rows:
        if row.bound is None or Budget.read(row.bound, design) is None:
            continue
        costs[f"{row.name}: limit"] = row.bound.limit
        costs[f"{row.name}: used"] = row.bound.term.value(design, point)
    compute = _compute(solved)
    if compute is not None:
        example, step, final = Compute(compute.prices).table(design)
        if not design.fixed_examples:
            costs["training"] = float(example @ point.new_examples)
        if compute.part != "training":
            costs["sampling"] = float(step @ point.steps + final)
    return costs


def _compute(solved: Solved) -> Compute | None:
    leaves = [leaf for row in solved.compiled.rows if row.bound is not None for _, leaf in row.bound.term.leaves()]
    leaves += [leaf for _, leaf in solved.compiled.terms]
    return next((leaf for leaf in leaves if isinstance(leaf, Compute)), None)


def _tables(problem: Problem, solved: Solved) -> dict[str, Array]:
    size, point, design = len(problem.levels), solved.point, solved.compiled.design
    zero = np.zeros(size)
    tables: dict[str, Array] = {
        "score": zero, "floor": zero, "discretization": zero, "score_weight": zero, "final_window": zero,
        "information_gain": zero,
    }  # fmt: skip
    for weight, leaf in solved.compiled.terms:
        if isinstance(leaf, ScoreError):
            reducible, floor = leaf.levels_value(point)
            tables["score"] = tables["score"] + weight * reducible
            tables["floor"] = tables["floor"] + weight * floor
            # sum of score_weight / m: the error itself, or its separable upper bound where examples are pooled
            part = np.where(point.examples > 0, leaf.gains(point), 0.0) * point.examples**2
            tables["score_weight"] = tables["score_weight"] + weight * part
            tables["final_window"] = leaf.table.final_window
        elif isinstance(leaf, Discretization):
            tables["discretization"] = tables["discretization"] + weight * leaf.levels_value(point)
            tables["bands"] = weight * leaf.band_sums(point) ** 2
        elif isinstance(leaf, CoherentScore):
            shares = weight * leaf.levels_value(point)
            tables["score"] = tables["score"] + shares
            tables["score_weight"] = tables["score_weight"] + shares * point.examples
        elif isinstance(leaf, GramDiscretization):
            tables["discretization"] = tables["discretization"] + weight * leaf.levels_value(point)
        elif isinstance(leaf, InformationError):
            gains = leaf.gains(leaf.solution(point.examples))
            tables["information_gain"] = tables["information_gain"] + weight * gains
    tables |= _pooled(solved)
    example, step = np.ones(size), zero
    compute = _compute(solved)
    if compute is not None:
        example, step, _ = Compute(compute.prices).table(design)
    tables["example_price"], tables["step_price"] = example, step
    tables["examples_low"], tables["examples_high"] = (
        solved.compiled.box.examples_low,
        solved.compiled.box.examples_high,
    )
    tables["steps_low"], tables["steps_high"] = solved.compiled.box.steps_low, solved.compiled.box.steps_high
    tables["marginal_gain"] = _marginal_gain(problem, solved, tables)
    if problem.table is not None and problem.table.band_variances is not None:
        tables["band_variances"] = problem.table.band_variances
    return tables


def _pooled(solved: Solved) -> dict[str, Array]:
    """Weights and matrix of the reducible error sum w / (T m) itself; nothing where no examples are pooled."""
    point, weights, matrices, any_pooled = solved.point, [], [], False
    for weight, leaf in solved.compiled.terms:
        if not isinstance(leaf, (ScoreError, CoherentScore)):
            continue
        pooling = leaf.table.coupling.pooling(leaf.table.levels) if isinstance(leaf, ScoreError) else None
        any_pooled = any_pooled or pooling is not None
        served = point.examples if pooling is None else pooling @ point.examples
        error = leaf.levels_value(point)[0] if isinstance(leaf, ScoreError) else leaf.levels_value(point)
        weights.append(np.where(error > 0, weight * error * served, 0.0))
        matrices.append(np.eye(served.size) if pooling is None else pooling)
    return {"served_weight": np.concatenate(weights), "pooling": np.vstack(matrices)} if any_pooled else {}


def _marginal_gain(problem: Problem, solved: Solved, tables: dict[str, Array]) -> Array:
    """(L,) decrease of the error per unit of price spent on examples of a level: flat where training is active."""
    examples = solved.point.examples
    gain = np.zeros(examples.size)
    for weight, leaf in solved.compiled.terms:
        if isinstance(leaf, ScoreError):
            gain = gain + weight * leaf.gains(solved.point)
        elif isinstance(leaf, CoherentScore):
            share = leaf.levels_value(solved.point)
            gain = gain + weight * np.divide(share, examples, out=np.zeros_like(share), where=share > 0)
        if isinstance(leaf, ScoreError) and leaf.table.final_score > 0:
            near = float(leaf.table.final_window @ examples)
            gain = gain + weight * leaf.table.final_score / near**2 * leaf.table.final_window
    return (gain + tables["information_gain"]) / tables["example_price"]


def _notes(problem: Problem, solved: Solved) -> tuple[str, ...]:
    notes = []
    if solved.point.steps.sum() > _MOST_NODES and problem.table is not None:
        notes.append(f"no grid is written for {solved.point.steps.sum():.3g} steps (more than {_MOST_NODES:,})")
    shared = [(weight, leaf) for weight, leaf in solved.compiled.terms if isinstance(leaf, InformationError)]
    if shared:
        unit = sum(weight * leaf.sandwich_error(solved.point.examples) for weight, leaf in shared)
        notes.append(f"with unit loss weights instead of 1/residual variance the error is {unit:.6g} (sandwich)")
    for _, leaf in solved.compiled.terms:
        if isinstance(leaf, GramDiscretization) and problem.decides_steps:
            notes += leaf.notes(solved.compiled.design, solved.point)
    return tuple(notes)


def _of_the_table(problem: Problem) -> dict[str, Any]:
    """What the plan keeps of the coefficients beside its numbers."""
    table = problem.table
    if table is None:
        return {}
    return {
        "final_score": table.final_score,
        "sampler": table.sampler,
        "evaluations_per_step": table.evaluations_per_step,
        "trace": table.trace,
        "estimation": table.estimation,
        "provenance": {**table.provenance, "order": table.order, "coupling": table.coupling.to_dict()},
    }
