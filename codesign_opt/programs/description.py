"""From a certified candidate to a Plan: breakdown, shadow prices, per-level tables, the grid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..modeling.composition import one_prior
from ..modeling.constraints import Constraint
from ..modeling.samplings import OfSampling
from ..results.deferred import Deferred
from ..results.plan import Plan
from .compiled import Solved
from .constraint_values import constraint_values
from .declaration import Declaration
from .rows import Row
from .sampler_plans import MOST_NODES, sampler_plans, whole_steps
from .sensitivities import sensitivities

__all__ = ["describe"]

_SHARES = ("score", "floor", "discretization", "score_weight", "information_gain")  # of levels: terms add up


def describe(program: Declaration, solved: Solved) -> Plan:
    """Everything a reader of the plan needs, from the candidate and its multipliers."""
    point, table = solved.point, program.table
    decided = program.examples is not None or not solved.compiled.design.fixed_examples
    nothing = np.zeros(len(program.levels))
    shadow, elasticity, by_level = _shadow_prices(program, solved)
    compute = _compute(solved)
    tables = _tables(solved, compute)
    tables.update({f"shadow price of {name}": prices for name, prices in by_level.items()})
    if table is not None and table.band_variances is not None:
        tables["band_variances"] = table.band_variances
    if table is not None and table.output_sensitivity is not None:
        tables["output_sensitivity"] = table.output_sensitivity
    return Plan(
        levels=program.levels,
        examples=point.examples if decided else nothing,
        new_examples=point.new_examples if decided else nothing,
        steps=point.steps if table is not None else nothing,
        sigmas=_grid(program, point.steps),
        terminal="rescale" if table is None else table.terminal,
        stopping_sigma=float(program.levels.edges[0]),
        error=solved.certificate.value,
        breakdown=_breakdown(solved),
        certificate=solved.certificate,
        shadow_prices=shadow,
        elasticities=elasticity,
        costs=_costs(solved, compute),
        tables=tables,
        attempts=tuple(solved.attempts),
        notes=_notes(program, solved),
        constraints=constraint_values(program.constraints, program.budgets, solved.compiled.design, point),
        sensitivities=_sensitivities(solved),
        samplings=sampler_plans(program, solved),
        **_of_the_table(program),
    )


def _sensitivities(solved: Solved) -> Mapping[str, Any]:
    """Worked out when first read, unless variables of cvxpy tell them: those may have other values by then."""
    later = Deferred(partial(sensitivities, solved))
    return later if solved.compiled.in_numbers else dict(later)


def _grid(program: Declaration, steps: Array) -> Array | None:
    """Whole steps at equal increments of the continuous step count."""
    return None if program.table is None else whole_steps(program.levels, steps, program.table)


def _breakdown(solved: Solved) -> dict[str, float]:
    parts: dict[str, float] = {}
    for weight, leaf in solved.compiled.terms:
        for name, value in leaf.parts(solved.compiled.design, solved.point).items():
            parts[name] = parts.get(name, 0.0) + float(weight * value)
    return parts


def _reducible(solved: Solved) -> float:
    constant = sum(w * leaf.constant(solved.compiled.design, solved.point) for w, leaf in solved.compiled.terms)
    return solved.certificate.value - constant


def _shadow_prices(program: Declaration, solved: Solved) -> tuple[dict[str, Any], dict[str, float], dict[str, Array]]:
    """Change of the error per unit of what each author wrote, relative to the reducible error, and level by level."""
    shadow: dict[str, Any] = {}
    elasticity: dict[str, float] = {}
    by_level: dict[str, Array] = {}
    reducible = abs(_reducible(solved))
    told = reducible > 1e-13 * abs(solved.certificate.value)  # below, it is lost in the rounding of the whole error
    stated = {item.name: item.what for item in program.constraints}
    for name in stated:
        pairs = [(r, y) for r, y in zip(solved.compiled.rows, solved.multipliers, strict=True) if r.name == name]
        item = stated[name]
        what = item if isinstance(item, Constraint) else None
        number = None if what is None else what.written_number
        value, levels = _price_of(what, pairs, solved)
        if levels is not None:
            by_level[name] = levels
        shadow[name] = value
        limit = pairs[0][0].limit if number is None and len(pairs) == 1 else None if number is None else number.value
        if limit and np.ndim(value) == 0 and (told or value == 0):
            elasticity[name] = float(value) * limit / reducible if told else 0.0
    return shadow, elasticity, by_level


def _price_of(what: Constraint | None, pairs: list[tuple[Row, Array]], solved: Solved) -> tuple[Any, Array | None]:
    """The price of one constraint's number, or of each entry of its rows; and, for a level bound, of each level."""
    number = None if what is None else what.written_number
    rate = None if what is None else what.price_rate(solved.compiled.design, solved.point)
    if any(row.levels is not None for row, _ in pairs):
        levels = np.zeros(len(solved.compiled.design))
        for row, multiplier in pairs:
            if row.levels is None:
                continue
            of_entry = 1.0 if rate is None else rate[row.levels]
            np.add.at(levels, row.levels, row.price_sign * multiplier * of_entry)
        one = number is not None and number.moves_together
        return (float(levels.sum()) if one else levels), levels
    prices = [row.price_sign * multiplier * (1.0 if rate is None else rate) for row, multiplier in pairs]
    # one number for all entries of a row: its change is that of all of them
    prices = [np.atleast_1d(price.sum() if row.uniform and number is None else price)
              for (row, _), price in zip(pairs, prices, strict=True)]  # fmt: skip
    joined = np.concatenate(prices) if prices else np.zeros(1)
    return (float(joined[0]) if joined.size == 1 else joined), None


def _compute(solved: Solved) -> tuple[Any, Array, Array, float] | None:
    """The first price of compute, with what all of it charges for an example, a step and the last step; or None."""
    leaves = [leaf for row in solved.compiled.rows if row.bound is not None for _, leaf in row.bound.term.leaves()]
    leaves += [leaf for _, leaf in solved.compiled.terms]
    found = next((leaf.as_compute for leaf in leaves if leaf.as_compute is not None), None)
    return None if found is None else (found, *found.both.linear_prices(solved.compiled.design))


def _costs(solved: Solved, compute: tuple[Any, Array, Array, float] | None) -> dict[str, float]:
    costs: dict[str, float] = {}
    point, design = solved.point, solved.compiled.design
    if not design.fixed_examples:
        costs["new examples"] = float(point.new_examples.sum())
    costs["steps"] = float(point.steps.sum()) + design.final_steps
    for row in solved.compiled.rows:
        leaves = [] if row.bound is None else [leaf for _, leaf in row.bound.term.leaves()]
        own = [leaf for leaf in leaves if isinstance(leaf, OfSampling) and leaf.inner.linear_prices(design) is not None]
        costs |= {f"sampling of {leaf.sampling.name}": leaf.value(design, point)
                  for leaf in own if leaf.inner.as_compute is not None}  # fmt: skip
        if row.bound is None or (row.budget is None and not own):
            continue
        costs[f"{row.name}: limit"] = row.bound.limit
        costs[f"{row.name}: used"] = row.bound.term.value(design, point)
    if compute is not None:
        term, example, step, final = compute
        if not design.fixed_examples:
            costs["training"] = float(example @ point.new_examples)
        if term.part != "training" and not design.samplings:
            costs["sampling"] = float(step @ point.steps + final)
    return costs


def _tables(solved: Solved, compute: tuple[Any, Array, Array, float] | None) -> dict[str, Array]:
    size, point, box = solved.point.steps.size, solved.point, solved.compiled.box
    zero = np.zeros(size)
    tables: dict[str, Array] = {
        "score": zero, "floor": zero, "discretization": zero, "score_weight": zero, "final_window": zero,
        "information_gain": zero, "prior_examples": zero,
    }  # fmt: skip
    told = [(weight, leaf.level_parts(point)) for weight, leaf in solved.compiled.terms]
    gain = zero
    for weight, parts in told:
        for name in _SHARES:
            if name in parts:
                tables[name] = tables[name] + weight * parts[name]
        for name in ("final_window", "prior_examples"):
            if name in parts:
                tables[name] = parts[name]
        if "bands" in parts:
            tables["bands"] = weight * parts["bands"]
        if "gain" in parts:
            gain = gain + weight * parts["gain"]
    priors = [parts["prior_examples"] for _, parts in told if "prior_examples" in parts]
    if any(np.any(prior != priors[0]) for prior in priors):
        tables["prior_examples"] = one_prior(tables["score_weight"], tables["score"], point.examples)
    if any("pooling" in parts for _, parts in told):  # the reducible error itself, sum w / (T m)
        served = [(weight, parts) for weight, parts in told if "served_weight" in parts]
        tables["served_weight"] = np.concatenate([weight * parts["served_weight"] for weight, parts in served])
        tables["served_prior"] = np.concatenate(
            [parts.get("served_prior", parts.get("prior_examples", zero)) for _, parts in served]
        )
        tables["pooling"] = np.vstack([parts.get("pooling", np.eye(size)) for _, parts in served])
    tables["example_price"], tables["step_price"] = (np.ones(size), zero) if compute is None else compute[1:3]
    tables["examples_low"], tables["examples_high"] = box.examples_low, box.examples_high
    tables["steps_low"], tables["steps_high"] = box.steps_low, box.steps_high
    # decrease of the error per unit of price spent on examples of a level: flat where training is active
    tables["marginal_gain"] = (gain + tables["information_gain"]) / tables["example_price"]
    return tables


def _notes(program: Declaration, solved: Solved) -> tuple[str, ...]:
    notes, point = [], solved.point
    if point.steps.sum() > MOST_NODES and program.table is not None:
        notes.append(f"no grid is written for {point.steps.sum():.3g} steps (more than {MOST_NODES:,})")
    terms = [(weight, leaf.as_information) for weight, leaf in solved.compiled.terms]
    shared = [(weight, leaf) for weight, leaf in terms if leaf is not None]
    if shared:
        unit = sum(weight * leaf.sandwich_error(point.examples) for weight, leaf in shared)
        notes.append(f"with unit loss weights instead of 1/residual variance the error is {unit:.6g} (sandwich)")
    for _, leaf in solved.compiled.terms:
        notes += leaf.remarks(solved.compiled.design, point)
    return tuple(notes)


def _of_the_table(program: Declaration) -> dict[str, Any]:
    """What the plan keeps of the coefficients beside its numbers."""
    table = program.table
    if table is None:
        return {}
    return {
        "final_score": table.final_score,
        "final_prior": table.final_prior,
        "sampler": table.sampler,
        "evaluations_per_step": table.evaluations_per_step,
        "trace": table.trace,
        "estimation": table.estimation,
        "speaks_of": table.speaks_of,
        "measure": table.measure,
        "provenance": {**table.provenance, "order": table.order, "coupling": table.coupling.to_dict()},
    }
