"""Candidates of one attempt: the solver's point, and points near it that rows, spent examples or prices suggest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.checks import Array
from ..certificate.verdict import Certificate
from ..modeling.design import Point
from ..modeling.own_variables import own_variables
from .compiled import Compiled, Solved
from .proof import certify
from .restored import restored, with_worth

__all__ = ["badness", "bettered", "points", "repaired", "with_nothing"]

_ROUNDING = 1e-6  # of examples: fewer may stand for none


def badness(certificate: Certificate) -> float:
    """How far a candidate is from a certified optimum: the larger of its gap and its violations."""
    gap = abs(certificate.relative_gap)
    return max(gap if np.isfinite(gap) else 1e300, certificate.infeasibility)


def points(compiled: Compiled) -> list[Point]:
    """The solver's point, and the one that the terms' auxiliary variables show where that is another."""
    first = point = repaired(compiled)
    bounded = [(t, own) for row in compiled.rows if row.bound is not None
               for (_, t), own in zip(row.bound.term.leaves(), row.own, strict=False)]  # fmt: skip
    for term, auxiliary in [*((leaf.term, leaf.auxiliary) for leaf in compiled.leaves), *bounded]:
        point = term.recovered(compiled.design, point, auxiliary)
    found = [first] if np.allclose(point.steps, first.steps, rtol=1e-12, atol=0.0) else [first, point]
    return found + with_nothing(compiled, first)


def with_nothing(compiled: Compiled, point: Point) -> list[Point]:
    """The same without new examples, or without those of a rounding, where spent ones are enough or none are needed.

    A solver keeps away from zero, and relative to rows through zero next to nothing is as much as anything.
    """
    new, spent, design = point.new_examples, point.spent, compiled.design
    known = spent + _prior(compiled)
    if design.fixed_examples or not np.any(new > 0):
        return []
    least = np.maximum(compiled.box.examples_low - spent, 0.0)
    if not np.any((new > 0) & (known > 0)):
        nothing = Point(least, spent, point.steps, point.samplings)
        theirs = [leaf.expression for leaf in compiled.leaves if not leaf.term.scales_itself]
        if not theirs or own_variables(theirs, design):  # a value that is a program of its own takes its time
            return []
        return [nothing] if _objective_at(compiled, nothing) <= _objective_at(compiled, point) else []
    few = (known > 0) & (new < _ROUNDING * np.maximum(new.max(), known))
    rounded = [np.where(some, least, new) for some in (known > 0, few)]
    return [Point(examples, spent, point.steps, point.samplings) for examples in rounded if np.any(examples != new)]


def _prior(compiled: Compiled) -> Array:
    """(L,) examples that the untrained denoiser is worth on each level to all score errors, 0 where to none."""
    terms = [part for leaf in compiled.leaves for part in (leaf.term, *leaf.term.components())]
    tables = [table for term in terms if (table := term.coefficients) is not None and table.score.any()]
    return np.min([table.prior_examples for table in tables], axis=0) if tables else np.zeros(len(compiled.design))


def _objective_at(compiled: Compiled, point: Point) -> float:
    """The objective, built-in terms first: infinite without anything where one of them is."""
    total = 0.0
    for leaf in sorted(compiled.leaves, key=lambda leaf: not leaf.term.scales_itself):
        total += leaf.weight * compiled.value(leaf.term, point)
        if not np.isfinite(total):
            return np.inf
    return total


def repaired(compiled: Compiled) -> Point:
    """The solver's point, clipped into the box and brought back into budgets that it exceeds by rounding."""
    design, box = compiled.design, compiled.box
    point = design.point()
    examples, steps = point.new_examples, point.steps
    least, fewest = examples, steps  # what is given stays
    if not design.fixed_examples:
        least, most = np.maximum(box.examples_low - point.spent, 0.0), np.maximum(box.examples_high - point.spent, 0.0)
        examples = np.minimum(np.maximum(examples, least), most)
    if not design.fixed_steps:
        fewest = box.steps_low
        steps = np.minimum(np.maximum(steps, fewest), box.steps_high)
    for row in compiled.rows:
        budget = row.budget
        if budget is None:
            continue
        over, free = -budget.left(examples, steps), budget.left(least, fewest)
        if 0 < over <= 1e-6 * abs(budget.room) and free > 0:
            share = free / (free + over)  # of what lies above the floors
            examples, steps = least + share * (examples - least), fewest + share * (steps - fewest)
    return Point(examples, point.spent, steps, point.samplings)


def bettered(found: Solved, tolerance: float) -> Solved:
    """The candidate, or where that is better the nearest one that meets the rows or has what examples are worth."""
    proof = found.certificate
    if proof.optimal:
        return found
    met = None
    if proof.infeasibility > 0:
        met = _moved(found, restored(found.compiled, found.point), tolerance)
    if met is not None and proof.relative_gap < -tolerance:
        found = met  # violations that are small for their rows and worth more than the tolerance
    tried = [found, met]
    if not (found.compiled.kinked or (met is not None and met.certificate.optimal)):
        tried.append(_moved(found, with_worth(found.compiled, found.multipliers, found.point), tolerance))
    return min((each for each in tried if each is not None), key=lambda solved: badness(solved.certificate))


def _moved(found: Solved, point: Point | None, tolerance: float) -> Solved | None:
    """Another candidate with the same multipliers, against the better of the two bounds."""
    if point is None:
        return None
    before = found.certificate
    proof = certify(found.compiled, found.multipliers, point, tolerance, conic=before.lower_bound)
    if proof.lower_bound == before.lower_bound:
        proof = replace(proof, method=before.method)
    return replace(found, point=point, certificate=proof)
