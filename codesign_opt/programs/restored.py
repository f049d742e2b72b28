"""A candidate brought back to rows that it misses by little: the least relative change, by Newton's method.

docs/theory.md section 8.1. A solver meets rows to some 1e-8 of their pieces. Relative to the limits that their authors
wrote that may be more than is allowed, and where hardly anything is left beside a row it may be worth a lot.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy import sparse

from ..basics.checks import Array, Mask
from ..basics.errors import ConvexityError
from ..modeling.design import Point
from ..modeling.gradients import all_jacobians
from ..modeling.own_variables import own_variables
from .compiled import Compiled
from .proof import lagrangian
from .rows import Row

__all__ = ["restored", "with_worth"]

_ROUNDS = 5
_MOST, _LEAST = 1e-2, 1e-14  # relative violations: more is no rounding, less is met
_WITHIN = 1e4  # rows with more room than this many times the violation are out of reach
_KEPT = 0.9  # of an amount that a step may take away at most
_CHANGES = 60  # of the set of rows that a step meets exactly
_ROUNDING = 1e-10
_PRICED = 1e-6  # of the dearest row: multipliers below are rounding


def restored(compiled: Compiled, point: Point, binding: Collection[str] = ()) -> Point | None:
    """The design nearest to `point` that meets the rows, as far as tangents lead; None where none does it better.

    Of the `binding` rows, by name, no room is left either. Rows with variables of their own, or known by their value
    alone, are not moved to.
    """
    if compiled.in_numbers:
        return None
    before = least = _off(compiled, point, binding)
    best = None
    for _ in range(_ROUNDS):
        if not _LEAST < least <= _MOST:
            break
        step = _step(compiled, point if best is None else best, least, binding)
        if step is None:
            break
        now = _off(compiled, step, binding)
        if not now < 0.5 * least:
            best, least = (step, now) if now < least else (best, least)
            break
        best, least = step, now
    return best if least < before else None


def with_worth(compiled: Compiled, multipliers: Sequence[Array], point: Point) -> Point | None:
    """The design whose examples are worth their price on every level, the rows with a price met exactly.

    Where examples must be some and hardly matter, a solver leaves whatever is lost in its digits of the error, and what
    they cost is missing elsewhere. The separable Lagrangian at its multipliers says how many are worth it. None where
    it does not, or not alone.
    """
    if compiled.in_numbers or compiled.design.fixed_examples or compiled.design.samplings:
        return None
    try:
        bound = lagrangian(compiled, multipliers, point)
    except ConvexityError:
        return None
    if bound.information or bound.has_logs or any(part.price is not None for part in bound.parts):
        return None
    before = [part.before(len(compiled.design)) for part in bound.parts]
    if any(np.any(prior != before[0]) for prior in before):
        return None
    with np.errstate(all="ignore"):
        gains = [part.example_error * part.coupling.factor(part.kappa / point.steps) for part in bound.parts]
        wanted = np.sqrt(np.sum([np.zeros(len(compiled.design)), *gains], axis=0) / bound.examples_price) - point.spent
        wanted = wanted - (before[0] if before else 0.0)
    examples = np.where(np.isfinite(wanted) & (wanted > 0), np.clip(wanted, *bound.examples_box), point.new_examples)
    sizes = [float(np.max(np.abs(y) * row.size)) for row, y in zip(compiled.rows, multipliers, strict=True)]
    binding = {
        row.name
        for row, size in zip(compiled.rows, sizes, strict=True)
        if row.size.size == 1 and size > _PRICED * max(sizes)
    }
    changed = Point(examples, point.spent, point.steps)
    return restored(compiled, changed, binding)


def _off(compiled: Compiled, point: Point, binding: Collection[str]) -> float:
    """The largest violation of a row, or room in one that is to bind."""
    compiled.set(point)
    room = 0.0
    for row in compiled.rows:
        if row.name in binding and row.at is None:
            left = -np.ravel(np.asarray(row.stated.value, dtype=np.float64)) / row.measure(point)
            room = max(room, float(np.max(left)))
    return max(compiled.infeasibility(point), room)


def _step(compiled: Compiled, point: Point, violation: float, binding: Collection[str]) -> Point | None:
    """The least relative change that meets the tangents of the rows at `point`."""
    design = compiled.design
    amounts = [
        np.zeros(len(design)) if design.fixed_examples else point.new_examples,
        np.zeros(len(design)) if design.fixed_steps else point.steps,
        *(point.of(name).steps for name in design.samplings),
    ]
    unit = np.concatenate(amounts)
    matrices, rights, equal = [-np.eye(unit.size)], [np.full(unit.size, _KEPT / violation)], [np.zeros(unit.size, bool)]
    for row in compiled.rows:
        found = _tangents(compiled, row, point)
        if found is None:
            if row.violation(point) > _LEAST:
                return None
            continue
        matrix, room, equality = found
        near = room < _WITHIN * violation
        matrices.append(matrix[near] * unit)
        rights.append(room[near] / violation)
        equal.append(np.full(int(near.sum()), equality or row.name in binding))
    change = _least_norm(np.concatenate(matrices), np.concatenate(rights), np.concatenate(equal))
    if change is None:
        return None
    moved = np.split(np.maximum(unit * (1 + violation * change), 0.0), len(amounts))
    return Point(
        point.new_examples if design.fixed_examples else moved[0],
        point.spent,
        point.steps if design.fixed_steps else moved[1],
        dict(zip(design.samplings, moved[2:], strict=True)),
    )


def _tangents(compiled: Compiled, row: Row, point: Point) -> tuple[Array, Array, bool] | None:
    """In a row's measure: slopes by every amount, the room that each entry leaves, and whether that must be 0."""
    if row.at is not None or own_variables([row.stated, *row.auxiliary], compiled.design):
        return None
    try:
        slopes = all_jacobians(row.stated, compiled.design)
    except ConvexityError:
        return None
    dense = [part.toarray() if sparse.issparse(part) else part for part in slopes]
    measure = row.measure(point)
    value = np.ravel(np.asarray(row.stated.value, dtype=np.float64))
    matrix = np.concatenate(dense).T / measure[:, None]
    if not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(value))):
        return None
    return matrix, -value / measure, row.equality


def _least_norm(matrix: Array, right: Array, equal: Mask) -> Array | None:
    """The least w with matrix w <= right, and == where `equal`; None where rows that are met leave none.

    By the set of rows that are met exactly: of a few, beside many that are far.
    """
    active = equal | (right < 0)
    for _ in range(_CHANGES):
        chosen = np.flatnonzero(active)
        step = np.linalg.lstsq(matrix[chosen], right[chosen], rcond=None)[0]
        pull = np.linalg.lstsq(matrix[chosen].T, -step, rcond=None)[0]  # the multipliers: w = -matrix' pull
        needless = np.where(equal[chosen], 0.0, pull) < -_ROUNDING * np.max(np.abs(pull), initial=0.0)
        if needless.any():
            active[chosen[np.argmin(np.where(equal[chosen], 0.0, pull))]] = False
            continue
        over = matrix @ step - right
        allowed = _ROUNDING * (np.abs(matrix) @ np.abs(step) + np.abs(right))
        if not np.any(over[chosen] > allowed[chosen]) and not np.any(over > allowed):
            return np.asarray(step, dtype=np.float64)
        outside = np.where(active, -np.inf, over - allowed)
        if not np.max(outside) > 0:
            return None
        active[int(np.argmax(outside))] = True
    return None
