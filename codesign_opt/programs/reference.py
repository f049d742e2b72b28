"""A first guess of the optimum: the point that the variables are measured against."""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..ingredients.levels import Levels
from ..modeling.design import Box, Point
from ..models.coefficients import Coefficients
from .budget import Budget

__all__ = ["first_reference", "positive", "recentred", "step_shape"]

_DEFAULT_STEPS = 20.0
_OF_BEFORE = 1e-2


def first_reference(
    levels: Levels,
    table: Coefficients | None,
    budgets: list[Budget],
    box: Box,
    *,
    spent: Array,
    fixed_examples: Array | None,
    fixed_steps: Array | None,
) -> Point:
    """Square-root rule for examples, step density of the discretisation error, half the budget each."""
    size = len(levels)
    example_price = _firstpositive([b.example for b in budgets], size)
    step_price = _firstpositive([b.step for b in budgets], size)
    error = np.ones(size) if table is None else table.example_error
    examples = fixed_examples if fixed_examples is not None else _shape(np.sqrt(error / example_price))
    steps = fixed_steps if fixed_steps is not None else _shape(step_shape(table, size) / step_price**0.5)
    if fixed_steps is None:
        steps = steps * _amount(steps, [(b.step, _room(b, fixed_examples)) for b in budgets], _DEFAULT_STEPS)
        steps = np.clip(steps, np.minimum(box.steps_low, 1e300), box.steps_high)
    if fixed_examples is None:
        rooms = [(b.example, b.left(steps=steps) if np.any(b.example > 0) else b.room) for b in budgets]
        rooms = [(e, room if room > 0 else 0.5 * b.room) for (e, room), b in zip(rooms, budgets, strict=True)]
        examples = examples * _amount(examples, rooms, max(1e6, float(spent.sum())))
        examples = np.clip(examples + spent, box.examples_low, box.examples_high) - spent
    return Point(positive(examples), spent, positive(steps))


def recentred(
    point: Point, *, prior: Array | None = None, fixed_examples: bool = False, fixed_steps: bool = False
) -> Point:
    """The same point as a reference: levels at zero get a small positive unit; what is fixed stays.

    Beside those spent and what the untrained denoiser is worth (L,) examples change something in amounts of their size.
    """
    examples, before = point.new_examples, point.spent if prior is None else point.spent + prior
    if not fixed_examples:
        most = float(np.max(examples)) or np.inf
        examples = np.maximum(examples, _OF_BEFORE * np.minimum(before, most))
    return Point(
        point.new_examples if fixed_examples else positive(examples),
        point.spent,
        point.steps if fixed_steps else positive(point.steps),
        {name: positive(steps) for name, steps in point.samplings.items()},
    )


def _room(budget: Budget, fixed_examples: Array | None) -> float:
    left = budget.left(fixed_examples)
    shared = 0.5 if fixed_examples is None and np.any(budget.example > 0) else 1.0
    return max(left, 1e-3 * abs(budget.room)) * shared


def step_shape(table: Coefficients | None, size: int) -> Array:
    if table is None:
        return np.ones(size)
    response = (table.step_response**2).sum(axis=0) ** (0.5 / (table.order + 1))
    shape = response / max(response.max(), 1e-300) if response.any() else np.zeros(size)
    floor = np.sqrt(table.floor_error * table.kappa)
    if not response.any() and floor.any():
        shape = floor / floor.max()
    return np.maximum(shape, 1e-3 * table.log_width / table.log_width.max())


def _shape(values: Array) -> Array:
    top = float(np.max(values))
    return np.maximum(values / top, 1e-15) if top > 0 else np.ones_like(values)


def _amount(shape: Array, rows: list[tuple[Array, float]], default: float) -> float:
    """The largest multiple of `shape` that every budget row allows."""
    allowed = [room / float(price @ shape) for price, room in rows if np.any(price > 0) and room > 0]
    return min(allowed) if allowed else default / float(shape.sum())


def _firstpositive(rows: list[Array], size: int) -> Array:
    for row in rows:
        if np.all(row > 0):
            return row
    return np.ones(size)


def positive(values: Array) -> Array:
    top = float(np.max(values))
    return np.maximum(values, 1e-12 * top if top > 0 else 1.0)
