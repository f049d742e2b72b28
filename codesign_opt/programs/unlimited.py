"""Programs without a minimum: a quantity that nothing limits and more of which always helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.checks import Array, Mask
from ..basics.errors import UnboundedError
from ..basics.wording import quantity as shown
from ..modeling.design import Box, Design, Point
from .compiled import Compiled, compile_problem
from .declaration import Declaration
from .rays import along, is_affine, mixed_rays

__all__ = ["refuse_unlimited"]

# along a ray: a convex function that falls up to there has met no limit of the user's; a candidate may have next to
# nothing, so that a ray starts at a step, or at a thousand examples, at least
_MORE = (1.0, 1e5, 1e10, 1e15)
_LEAST = {"examples": 1e3, "steps": 1.0}
_FEASIBLE = 1e-7


def refuse_unlimited(program: Declaration, point: Point | None) -> None:
    """Raise UnboundedError where the objective falls along a ray that no constraint ends, from a feasible point.

    Nothing else is claimed: where no such ray is found among more examples, more steps, more of either on some levels
    and mixes that the tangents of the rows admit, the function returns.
    """
    if point is None:
        return
    compiled = compile_problem(program, program.recentred(point), Box.empty(len(program.levels)), declare=False)
    for name, decided in (("examples", program.decides_examples), ("steps", program.decides_steps)):
        if not decided:
            continue
        every = np.ones(len(program.levels), dtype=bool)
        if _falls(program, compiled, point, name, every) is not None:
            raise _unlimited(program, compiled, point, name, every)
        alone = np.array([_limitless(program, compiled, point, name, level) for level in range(every.size)])
        if alone.any() and _falls(program, compiled, point, name, alone) is not None:
            raise _unlimited(program, compiled, point, name, alone)
    _refuse_mixes(program, compiled, point)


def _refuse_mixes(program: Declaration, compiled: Compiled, point: Point) -> None:
    """Raise UnboundedError where a mix of quantities and levels falls without end that none of them does alone."""
    if program.samplings:
        return
    size = len(program.levels)
    units = np.concatenate(
        [np.maximum(point.new_examples, _LEAST["examples"]), np.maximum(point.steps, _LEAST["steps"])]
    )
    decided = np.repeat([program.decides_examples, program.decides_steps], size)
    for found in mixed_rays(compiled, point, units, decided):
        start, ray = _from_the_beginning(point, found)
        values = np.array([
            _rated(compiled, start), *(_rated(compiled, along(start, ray, far), curved=True) for far in _MORE[1:])
        ])  # fmt: skip
        if not _falling(values):
            continue
        shares = (("examples", ray[:size]), ("steps", ray[size:]))
        parts = [_ranged(name, share > 0, program.levels.sigma) for name, share in shares if share.any()]
        raise UnboundedError(
            f"Unbounded: nothing limits {' with '.join(parts)} together, and more of them always help: {_MORE[-1]:.0e} "
            f"times as far the objective has fallen from {shown(values[0])} to {shown(values[-1])}. Bound "
            "Compute(prices) with a price for them, or add a Cap."
        )


def _from_the_beginning(point: Point, ray: Array) -> tuple[Point, Array]:
    """The point moved back along the ray to next to nothing, and the ray from there in amounts of order one.

    A solver that may go on without end ends where more changes nothing that could be told.
    """
    least = np.repeat([_LEAST["examples"], _LEAST["steps"]], ray.size // 2)
    on = ray > 0
    back = np.min((np.concatenate([point.new_examples, point.steps]) - least)[on] / ray[on])
    return along(point, ray, -max(float(back), 0.0)), ray / np.max(ray / least)


def _ranged(name: str, on: Mask, sigma: Array) -> str:
    """The quantity and the noise levels: "the examples at sigma 0.1 to 2"."""
    if on.all():
        return f"the {name}"
    return f"the {name} at sigma {sigma[on][0]:.3g}" + (f" to {sigma[on][-1]:.3g}" if on.sum() > 1 else "")


def _falling(values: Array) -> bool:
    """Whether numbers only fall, and by more than rounding."""
    with np.errstate(invalid="ignore"):
        falling = np.all(np.diff(values) <= 0) and values[-1] < values[0] - 1e-9 * abs(values[0])
    return bool(np.all(np.isfinite(values)) and falling)


def _moved(point: Point, name: str, levels: Mask, factor: float) -> Point:
    values = point.new_examples if name == "examples" else point.steps
    base = np.maximum(values, _LEAST[name])
    moved = np.where(levels, factor * base, values) if factor > 1 else values
    return replace(point, new_examples=moved) if name == "examples" else replace(point, steps=moved)


def _limitless(program: Declaration, compiled: Compiled, point: Point, name: str, level: int) -> bool:
    only = np.zeros(len(program.levels), dtype=bool)
    only[level] = True
    return _falls(program, compiled, point, name, only) is not None


def _falls(program: Declaration, compiled: Compiled, point: Point, name: str, levels: Mask) -> Array | None:
    """The objective along the ray where it only falls and every constraint holds; else None."""
    high = program.box.examples_high if name == "examples" else program.box.steps_high
    if np.all(np.isfinite(high[levels])):
        return None
    prices = (budget.example if name == "examples" else budget.step for budget in program.budgets.values())
    growth = np.where(levels, np.maximum(point.new_examples if name == "examples" else point.steps, _LEAST[name]), 0.0)
    if any(float(price @ growth) > 0 for price in prices):
        return None  # a budget ends the ray, however far away
    values = np.array([_rated(compiled, _moved(point, name, levels, factor)) for factor in _MORE])
    return values if _falling(values) else None


def _rated(compiled: Compiled, point: Point, *, curved: bool = False) -> float:
    """The objective; inf at a point that violates a constraint, or a `curved` one where it is known of the others."""
    compiled.set(point)
    rows = [row for row in compiled.rows if not (curved and is_affine(row))]
    if not all(row.holds(point, _FEASIBLE) for row in rows):
        return np.inf
    with np.errstate(all="ignore"):
        return float(sum(leaf.weight * leaf.term.value(compiled.design, point) for leaf in compiled.leaves))


def _unlimited(program: Declaration, compiled: Compiled, point: Point, name: str, levels: Mask) -> UnboundedError:
    values = _falls(program, compiled, point, name, levels)
    assert values is not None
    where, blame = _ranged(name, levels, program.levels.sigma), _blamed(program, point, name, levels)
    return UnboundedError(
        f"Unbounded: nothing limits {where}, and more of them always help: at {_MORE[-1]:.0e} times as many "
        f"the objective has fallen from {shown(values[0])} to {shown(values[-1])}{blame}. Bound Compute(prices) with a "
        "price for them, or add a Cap."
    )


def _blamed(program: Declaration, point: Point, name: str, levels: Mask) -> str:
    """The term that falls without end, where one falls below any fixed size."""
    design: Design = program.design(program.recentred(point))
    ends = [_moved(point, name, levels, factor) for factor in (_MORE[0], _MORE[-1])]
    for weight, term in program.leaves:
        first, last = (weight * term.value(design, end) for end in ends)
        if last < -abs(first) - 1e3 * abs(last - first) * 1e-9 and last < 0:
            return f", {term.name} without end"
    return ""
