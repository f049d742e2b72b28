"""Which constraints of a question speak of steps alone: as limits of real steps, and what is left without them.

Bounds on single levels are read off library constraints, and found in a user's cvxpy rows: an entry that depends on
the steps of one level alone and is monotone in them bounds that level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Indices, Mask
from ..basics.errors import ConvexityError
from ..modeling import Bound, Constraint, Design, Named, named
from ..modeling.constraints import as_named
from ..modeling.design import Box, Point
from ..modeling.stated_rows import stated_rows
from ..modeling.step_limits import StepLimits
from ..programs.rows import jacobians

__all__ = ["StepConstraints", "step_constraints"]

_BISECTIONS = 120  # of log steps over 24 decades: to the last digit
_PROBES = (0.7, 1.9)  # numbers of steps at which entries of rows are told apart


@dataclass(frozen=True, eq=False)
class StepConstraints:
    """What of a question's constraints speaks of steps.

    Attributes:
        limits: of real steps; None where no constraint limits single steps.
        rest: the constraints without those that `limits` tells, for programs in which the steps are given.
    """

    limits: StepLimits | None
    rest: tuple[Any, ...]


def step_constraints(constraints: Sequence[Any], design: Design) -> StepConstraints:
    """Limits of real steps that `constraints` state, on a design that decides examples and steps."""
    found: list[StepLimits] = []
    rest: list[Any] = []
    for index, stated in enumerate(constraints):
        item = as_named(stated, index)
        if isinstance(item.what, Bound):
            rest.append(stated)
            continue
        if isinstance(item.what, Constraint):
            limits = item.what.step_limits(design)
            if limits is not None:
                found.append(limits)
                continue
        told, left = _of_rows(item, design)
        found += told
        if left is not None:
            rest.append(left)
    limits = None
    for each in found:
        limits = each if limits is None else limits & each
    return StepConstraints(limits, tuple(rest))


def _of_rows(item: Named, design: Design) -> tuple[list[StepLimits], Any]:
    """Limits behind the rows of a constraint in cvxpy, and the constraint without those rows; None for nothing."""
    told: list[StepLimits] = []
    known: set[int] = set()
    rows = stated_rows(item, design)
    for index, row in enumerate(rows):
        box = _level_box(row, design)
        limits = None if box is None else _limits(box, row, design)
        if limits is not None:
            told.append(limits)
            known.add(index)
    if not known:
        return [], item
    if len(known) == len(rows):
        return told, None

    def left(other: Design) -> list[cp.Constraint]:
        return [row for index, row in enumerate(stated_rows(item, other)) if index not in known]

    return told, named(item.name, left)


def _limits(box: Box, row: Any, design: Design) -> StepLimits | None:
    """The limits as their author speaks of them: of densities, affine in the steps, or of lengths, which are not."""
    if row.expr.is_affine():
        return StepLimits.of_box(box, design.levels)
    return StepLimits.of_lengths(box.steps_low, design.levels)


def _level_box(row: Any, design: Design) -> Box | None:
    """The bounds of single levels' steps that an inequality in cvxpy is; None for anything else."""
    if not isinstance(row, cp.constraints.Inequality) or not isinstance(design.step_variable, cp.Variable):
        return None
    expression = row.expr
    if not isinstance(expression, cp.Expression) or expression.size == 0:
        return None
    patterns = []
    for probe in _PROBES:
        _set(design, np.full(len(design), probe))
        try:
            examples, steps = jacobians(expression, design)
        except ConvexityError:
            return None
        slopes = np.asarray(steps.todense() if hasattr(steps, "todense") else steps)  # (L, N)
        if np.any(np.asarray(examples.todense() if hasattr(examples, "todense") else examples) != 0):
            return None
        patterns.append(np.sign(slopes))
    on = patterns[0] != 0
    level = on.argmax(axis=0)
    single = np.all(on.sum(axis=0) == 1) and np.array_equal(*patterns) and np.unique(level).size == level.size
    if not single:
        return None
    falls = patterns[0][level, np.arange(level.size)] < 0
    return _bisected(expression, design, level, falls)


def _bisected(expression: cp.Expression, design: Design, level: Indices, falls: Mask) -> Box:
    """Where each entry, monotone in the steps of its own level, changes sign."""
    low, high = np.full(level.size, -12.0), np.full(level.size, 12.0)  # of log10 steps
    excess = _excess(expression, design, level)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        violated = excess(10.0**middle) > 0
        upward = violated == falls  # the root lies above
        low, high = np.where(upward, middle, low), np.where(upward, high, middle)
    root = 10.0 ** (0.5 * (low + high))
    box = Box.empty(len(design))
    box.steps_low[level[falls]] = np.where(root[falls] > 1e-11, root[falls], 0.0)
    box.steps_high[level[~falls]] = np.where(root[~falls] < 1e11, root[~falls], np.inf)
    return box


def _excess(expression: cp.Expression, design: Design, level: Indices) -> Callable[[Array], Array]:
    def at(values: Array) -> Array:
        steps = np.ones(len(design))
        steps[level] = values
        _set(design, steps)
        return np.ravel(np.asarray(expression.value, dtype=np.float64), order="F")

    return at


def _set(design: Design, steps: Array) -> None:
    design.set(Point(np.ones(len(design)), design.reference.spent, steps))
