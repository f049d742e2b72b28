"""Proof that a program has no feasible point: multipliers whose Lagrangian of the constraints alone is positive.

docs/theory.md section 8.4. For y >= 0 every feasible x has sum_j y_j h_j(x) <= 0; where a lower bound of that sum over
the bounds of single levels is above zero, there is none. Convex rows enter by tangents, which lie below them, so that
multipliers may come from anywhere: here from a linear program over the tangents, whose word is not trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
from scipy.optimize import linprog

from ..basics.checks import Array, Mask
from ..basics.errors import ConvexityError
from ..modeling.constraints import Constraint
from ..modeling.design import Design, Point
from ..modeling.gradients import all_jacobians
from ..modeling.own_variables import own_variables
from .budget import Budget
from .conic_check import Elastic
from .conic_form import conic_form
from .conic_proof import conic_bound
from .declaration import Declaration
from .elastic import Violation, least_violation, with_slacks
from .needs import Needs
from .proof import lagrangian
from .rows import Row, row_size
from .scaling import rows_of

__all__ = ["Refutation", "Starvation", "refutation", "starvation"]

_ROUNDS = 12  # smooth rows need one or two; a row with kinks needs a tangent for every piece that binds
_RESOLVED = 1e-11  # of the sizes of the rows: a smaller sum of violations is lost in rounding
_PLENTY = 1e200  # examples; their square has no reciprocal
_PRESSING = 1e-5  # of the largest: a multiplier below is what an interior-point method leaves of zero
_NOTHING, _LEFT = 1e-25, 1.0  # examples or steps on a level, and how often that counts as none
_EPS = float(np.finfo(np.float64).eps)
_MARGIN = 1e-9  # slope asked of a level without upper bound, far above rounding and far below what proofs need


@dataclass(frozen=True)
class Refutation:
    """A proof that no point meets all constraints.

    Attributes:
        margin: lower bound of sum_j y_j h_j over the bounds of single levels, less its rounding; > 0.
        names: the constraints that the proof uses.
    """

    margin: float
    names: frozenset[str]


@dataclass(frozen=True)
class Starvation:
    """A proof that the constraints leave nothing where the error is infinite without any.

    Attributes:
        names: the constraints that the proof uses.
        what: "examples at sigma = 0.1".
    """

    names: frozenset[str]
    what: str


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Tangents slopes @ x + offsets <= 0 of the rows, each of size one; x = (examples, steps) / unit."""

    names: tuple[str, ...]
    slopes: Array
    offsets: Array

    def joined(self, other: _Cuts) -> _Cuts:
        """Both collections."""
        return _Cuts(
            self.names + other.names,
            np.vstack([self.slopes, other.slopes]),
            np.concatenate([self.offsets, other.offsets]),
        )


def refutation(program: Declaration, start: Point) -> Refutation | None:
    """A proof that the program has no feasible point, looked for around `start`; None where none was found."""
    design = program.design(program.recentred(start))
    low, high = _box(program, design)
    crossed = _crossed(program, low, high)
    if crossed is not None:
        return crossed
    if program.boxes.issuperset(item.name for item in program.constraints):
        return None
    violation = least_violation(program, start)
    proof = None if violation is None else _separable(violation)
    if proof is None:
        proof = _by_tangents(program, start if violation is None else violation.point)
    if proof is None and violation is not None:
        proof = _by_conic_dual(violation)
    return proof


def _by_conic_dual(violation: Violation) -> Refutation | None:
    """The conic dual of the least sum of violations: for kinks, where one tangent of many proves too little."""
    elastic, firm = with_slacks(violation)
    form = conic_form(elastic)
    if form is None:
        return None
    solution = form.solve()
    if not (np.all(np.isfinite(solution.primal)) and np.all(np.isfinite(solution.dual))):
        return None
    try:
        lower = conic_bound(form, solution, elastic, violation.point, Elastic(firm))
    except (ConvexityError, TypeError, ValueError):
        return None
    if not (np.isfinite(lower) and lower > _RESOLVED):
        return None
    found = form.multipliers(solution.dual, elastic)
    sizes = [float(np.abs(y) @ row.size) for row, y in zip(elastic.rows, found, strict=True)]
    return Refutation(
        lower, frozenset(r.name for r, size in zip(elastic.rows, sizes, strict=True) if size > _PRESSING * max(sizes))
    )


def starvation(program: Declaration, needs: Needs, start: Point) -> Starvation | None:
    """A proof that the constraints leave nothing on a level that needs some; None where none was found.

    The multipliers' Lagrangian of the rows is at least sum_l w_l x_l over the bounds of single levels, w >= 0 with sum
    one on levels that need some: then every feasible x has sum_l w_l x_l <= 0. Where rows are curved, as a norm is, at
    most the rounding of their tangents: these are taken where there is next to nothing, which leaves less.
    """
    little = Point(_NOTHING * start.new_examples / max(float(start.new_examples.max()), 1.0), start.spent,
                   _NOTHING * start.steps / max(float(start.steps.max()), 1.0))  # fmt: skip
    return _starvation(program, needs, start, 0.0) or _starvation(program, needs, little, _LEFT)


def _starvation(program: Declaration, needs: Needs, start: Point, left: float) -> Starvation | None:
    """The proof from tangents at `start`, up to this share of what is there."""
    design = program.design(program.recentred(start))
    unit = _units(design)
    low, high = (bound / unit for bound in _box(program, design))
    high = np.maximum(low, np.minimum(high, _implied(program, design) / unit))
    needed = np.zeros(low.size, dtype=bool)
    needed[: 2 * len(design)] = np.concatenate([
        needs.examples & (program.spent <= 0) & program.decides_examples, needs.steps & program.decides_steps
    ])  # fmt: skip
    rows = [row for item in program.constraints if item.name not in program.boxes
            for row in rows_of(item, design, program.budgets.get(item.name))]  # fmt: skip
    cuts = _tangents(rows, design, design.reference, unit) if rows and needed.any() else None
    if cuts is None:
        return None
    found = _starving(cuts, low, high, needed)
    if found is None:
        return None
    multipliers, weights = found
    proof = _checked(program, cuts, multipliers, low, high, weights, left)
    starved = int(np.argmax(weights)) if left else int(np.flatnonzero(weights > 1e-9)[0])
    return None if proof is None else Starvation(proof.names, _quantity_at(starved, design))


def _starving(cuts: _Cuts, low: Array, high: Array, needed: Mask) -> tuple[Array, Array] | None:
    """Multipliers and weights whose Lagrangian of the rows less sum_l w_l x_l is largest, from a linear program."""
    count, size = cuts.slopes.shape
    at = np.flatnonzero(needed)
    pick = np.zeros((size, at.size))
    pick[at, np.arange(at.size)] = 1.0
    top = np.where(np.isinf(high), 0.0, high)
    # an offset of a rounding is none, and multipliers that gain by it would grow without end
    offsets = np.where(np.abs(cuts.offsets) <= 1e-13, -1e-6, cuts.offsets)
    cost = -np.concatenate([offsets, np.zeros(at.size), low, -top])
    balance = np.hstack([cuts.slopes.T, -pick, -np.eye(size), np.eye(size)])
    whole = np.concatenate([np.zeros(count), np.ones(at.size), np.zeros(2 * size)])[None, :]
    falls = [(0.0, 0.0 if np.isinf(h) else None) for h in high]
    bounds = [(0.0, 1e6)] * count + [(0.0, None)] * at.size + [(0.0, None)] * size + falls
    equal = np.concatenate([np.zeros(size), np.ones(1)])
    found = linprog(cost, A_eq=np.vstack([balance, whole]), b_eq=equal, bounds=bounds, method="highs")
    if found.x is None:
        return None
    weights = np.zeros(size)
    # a little less than the program says, so that rounding leaves every slope on the right side
    weights[at] = 0.999 * np.maximum(found.x[count : count + at.size], 0.0)
    return np.maximum(found.x[:count], 0.0), weights


def _quantity_at(index: int, design: Design) -> str:
    quantity = "examples" if index < len(design) else "steps"
    return f"{quantity} at sigma = {design.sigma[index % len(design)]:.3g}"


def _separable(violation: Violation) -> Refutation | None:
    """The Lagrangian of the rows alone at the solver's multipliers: the library's terms as they are, by levels."""
    rows, multipliers = violation.compiled.rows, violation.multipliers
    violation.compiled.design.set(violation.point)
    # at the point itself: that is where the tangents are taken, and what their rounding is relative to
    flat = [cp.reshape(row.expression, (row.size.size,), order="C") for row in rows]
    sizes = [float(np.abs(y) @ row_size(e, 0.0)) for e, y in zip(flat, multipliers, strict=True)]
    whole = sum(size for row, size in zip(rows, sizes, strict=True) if not row.box)
    found = _bounded(violation, violation.point)
    if found == -np.inf and _only_errors_need_examples(violation):
        plenty = np.full(violation.point.spent.size, _PLENTY)
        found = _bounded(violation, replace(violation.point, new_examples=plenty))
    margin = found - _RESOLVED * whole
    if not (np.isfinite(margin) and margin > 0):
        return None
    return Refutation(
        margin, frozenset(row.name for row, size in zip(rows, sizes, strict=True) if size > _PRESSING * max(sizes))
    )


def _bounded(violation: Violation, tangent: Point) -> float:
    """The lower bound of the rows' Lagrangian; -inf where a gradient or a term's own expression is missing."""
    try:
        with np.errstate(all="ignore"):
            found = lagrangian(violation.compiled, violation.multipliers, tangent).value()
    except (ConvexityError, TypeError, ValueError):
        return -np.inf
    return found if np.isfinite(found) else -np.inf


def _only_errors_need_examples(violation: Violation) -> bool:
    """Whether nothing limits the examples, so that tangents may be taken where there are infinitely many.

    The last evaluation's error, A / m, is then bounded by 0: any other tangent asks to buy without end.
    """
    design = violation.compiled.design
    if design.fixed_examples or np.any(np.isfinite(violation.compiled.box.examples_high)):
        return False
    for row in violation.compiled.rows:
        for _, leaf in () if row.bound is None else row.bound.term.leaves():
            prices = leaf.linear_prices(design)
            if not (leaf.monotone if prices is None else not np.any(prices[0])):
                return False
    return all(row.bound is not None or row.box for row in violation.compiled.rows)


def _by_tangents(program: Declaration, start: Point) -> Refutation | None:
    """A linear program over tangents of all rows, more of them wherever its own point is cut off."""
    design = program.design(program.recentred(start))
    unit = _units(design)
    low, high = (bound / unit for bound in _box(program, design))
    high = np.maximum(low, np.minimum(high, _implied(program, design) / unit))  # below floors is for the multipliers
    rows = [row for item in program.constraints if item.name not in program.boxes
            for row in rows_of(item, design, program.budgets.get(item.name))]  # fmt: skip
    point, cuts = design.reference, None
    for _ in range(_ROUNDS):
        fresh = _tangents(rows, design, point, unit)
        if fresh is None:
            return None
        cuts = fresh if cuts is None else cuts.joined(fresh)
        multipliers, shares = _elastic(cuts, low, high)
        for y in (multipliers, *_moved(cuts, low, high, multipliers)):
            found = _checked(program, cuts, y, low, high)
            if found is not None:
                return found
        if shares is None:
            return None
        # halfway: the program's own point may lie where a function ends, and one of them is violated in between too
        point = _as_point(0.5 * (shares * unit + _values(point, design)), design, point)
    return None


def _box(program: Declaration, design: Design) -> tuple[Array, Array]:
    """(2L,) bounds of new examples and steps, in the user's units; a given quantity is its own bound."""
    box, spent, reference = program.box, program.spent, design.reference
    examples = (np.maximum(box.examples_low - spent, 0.0), box.examples_high - spent)
    steps = (box.steps_low, box.steps_high)
    if design.fixed_examples:
        examples = (reference.new_examples, reference.new_examples)
    if design.fixed_steps:
        steps = (reference.steps, reference.steps)
    free = len(design.samplings) * len(design)
    low = np.concatenate([examples[0], steps[0], np.zeros(free)])
    return low, np.concatenate([examples[1], steps[1], np.full(free, np.inf)])


def _crossed(program: Declaration, low: Array, high: Array) -> Refutation | None:
    """Bounds of one level that exclude each other: the proof is the pair of numbers."""
    gap = low - high - 1e-12 * np.abs(low)  # the same number by two ways of rounding is no contradiction
    worst = int(np.argmax(gap))
    if not gap[worst] > 0:
        return None
    return Refutation(float(gap[worst]), _holders(program, {worst}, {worst}))


def _holders(program: Declaration, floors: set[int], caps: set[int]) -> frozenset[str]:
    """The level bounds that are tightest from below at `floors` and from above at `caps`, in (examples, steps)."""
    design, whole, names = program.design(program.neutral), program.box, set()
    all_low = np.concatenate([whole.examples_low, whole.steps_low])
    all_high = np.concatenate([whole.examples_high, whole.steps_high])
    floors, caps = ({i for i in side if i < all_low.size} for side in (floors, caps))  # samplers' own steps have none
    for item in program.constraints:
        if item.name not in program.boxes or not isinstance(item.what, Constraint):
            continue
        box = item.what.level_bounds(design)
        assert box is not None
        low = np.concatenate([box.examples_low, box.steps_low])
        high = np.concatenate([box.examples_high, box.steps_high])
        if any(low[i] > 0 and low[i] >= all_low[i] for i in floors):
            names.add(item.name)
        if any(np.isfinite(high[i]) and high[i] <= all_high[i] for i in caps):
            names.add(item.name)
    return frozenset(names)


def _implied(program: Declaration, design: Design) -> Array:
    """(2L,) what each budget alone leaves to one level: m <= room / c, n <= room / k."""
    most = np.full((2 + len(design.samplings)) * len(design), np.inf)
    free = np.zeros(most.size - 2 * len(design))
    for budget in program.budgets.values():
        prices, room = np.concatenate([budget.example, budget.step, free]), _room(budget, design)
        with np.errstate(divide="ignore", invalid="ignore"):
            most = np.minimum(most, np.where(prices > 0, max(room, 0.0) / prices, np.inf) * (1 + 1e-12))
    return most


def _room(budget: Budget, design: Design) -> float:
    unit = design.reference
    return budget.left(unit.new_examples if design.fixed_examples else None, unit.steps if design.fixed_steps else None)


def _tangents(rows: Sequence[Row], design: Design, point: Point, unit: Array) -> _Cuts | None:
    """Every entry of every row by its tangent at `point`; equalities from both sides. None without gradients.

    Rows with variables of their own are left out: they hold for some choice of those, not for the one at hand.
    """
    names: list[str] = []
    slopes, offsets = [], []
    x = _values(point, design)
    for row in rows:
        if own_variables([row.stated], design):
            continue
        design.set(point)
        try:
            slope = np.hstack([np.asarray(part.toarray() if hasattr(part, "toarray") else part).T
                               for part in all_jacobians(row.stated, design)])  # fmt: skip
        except ConvexityError:
            return None
        constant = _constant(row, design)
        design.set(point)
        value = np.ravel(np.asarray(row.stated.value, dtype=np.float64))
        if not (np.all(np.isfinite(slope)) and np.all(np.isfinite(value))):
            return None
        offset = value - slope @ x if constant is None else constant
        scale = np.maximum(np.abs(slope) @ np.maximum(x, unit) + np.abs(offset), 1e-300)
        for sign in (1.0, -1.0) if row.equality else (1.0,):
            names += [row.name] * value.size
            slopes.append(sign * slope * unit / scale[:, None])
            offsets.append(sign * offset / scale)
    return _Cuts(tuple(names), np.vstack(slopes), np.concatenate(offsets)) if slopes else None


def _constant(row: Row, design: Design) -> Array | None:
    """(N,) a linear row where there is nothing: its constant without the rounding of a difference; None for others."""
    if not row.stated.is_affine():
        return None
    for variable in design.variables:
        variable.value = np.zeros(len(design))
    return np.ravel(np.asarray(row.stated.value, dtype=np.float64))


def _elastic(cuts: _Cuts, low: Array, high: Array) -> tuple[Array, Array | None]:
    """Multipliers of the least sum of violations of the tangents, and the point that has it."""
    count, size = cuts.slopes.shape
    matrix = np.hstack([cuts.slopes, -np.eye(count)])
    cost = np.concatenate([np.zeros(size), np.ones(count)])
    bounds = np.column_stack([np.concatenate([low, np.zeros(count)]), np.concatenate([high, np.full(count, np.inf)])])
    found = linprog(cost, A_ub=matrix, b_ub=-cuts.offsets, bounds=bounds, method="highs")
    if found.x is None:
        return np.zeros(count), None
    return np.maximum(-found.ineqlin.marginals, 0.0), np.clip(found.x[:size], low, high)


def _moved(cuts: _Cuts, low: Array, high: Array, multipliers: Array) -> list[Array]:
    """Multipliers whose slope is positive by more than rounding on every level without upper bound."""
    free = np.isinf(high)
    if not free.any() or not multipliers.any():
        return []
    # maximise y.b + sum_i low_i u_i - high_i v_i with slopes = u - v, v = 0 where nothing bounds the level
    count, size = cuts.slopes.shape
    top = np.where(free, 0.0, high)
    cost = -np.concatenate([cuts.offsets, low, -top])
    matrix = np.hstack([cuts.slopes.T, -np.eye(size), np.eye(size)])
    limits = [(0.0, 1.0)] * count + [(_MARGIN if f else 0.0, None) for f in free] + [
        (0.0, 0.0 if f else None) for f in free
    ]  # fmt: skip
    found = linprog(cost, A_eq=matrix, b_eq=np.zeros(size), bounds=limits, method="highs")
    return [] if found.x is None else [np.maximum(found.x[:count], 0.0)]


def _checked(
    program: Declaration,
    cuts: _Cuts,
    y: Array,
    low: Array,
    high: Array,
    weights: Array | None = None,
    left: float = 0.0,
) -> Refutation | None:
    """The lower bound of y @ (slopes x + offsets) over low <= x <= high, its rounding taken off; a proof above zero.

    With `weights`, of the same less weights @ x: a proof at `-left` or above, exact where every product is zero.
    """
    slopes, size = y @ cuts.slopes, y @ np.abs(cuts.slopes)
    if weights is not None:
        slopes = slopes - weights
    rounding = 4 * (y.size + slopes.size) * _EPS
    # a slope within its rounding is zero for coefficients that are rounded themselves
    slopes = np.where(np.abs(slopes) <= rounding * size, 0.0, slopes)
    with np.errstate(invalid="ignore"):
        least = np.where(slopes > 0, slopes * low, np.where(slopes < 0, slopes * high, 0.0))
    total = float(y @ cuts.offsets + least.sum())
    # every tangent is of size one where it was taken; through zero go those alone that have no offset at all
    offset = float(y.sum()) if np.any(cuts.offsets[y > 0]) else 0.0
    margin = total - rounding * (offset + float(np.abs(least).sum()))
    if not (np.isfinite(margin) and (margin > 0 or (weights is not None and margin >= -left))):
        return None
    used = {name for name, part in zip(cuts.names, y, strict=True) if part > 1e-7 * y.max()}
    held = np.flatnonzero(np.abs(least) > 1e-7 * np.abs(least).max(initial=0.0))
    floors, caps = ({int(i) for i in held if sign * slopes[i] > 0} for sign in (1.0, -1.0))
    return Refutation(margin, frozenset(used) | _holders(program, floors, caps))


def _units(design: Design) -> Array:
    """(2L,) the reference, 1 where it is 0."""
    values = _values(design.reference, design)
    return np.where(values > 0, values, 1.0)


def _values(point: Point, design: Design) -> Array:
    return np.concatenate([point.new_examples, point.steps, *(point.of(name).steps for name in design.samplings)])


def _as_point(x: Array, design: Design, last: Point) -> Point:
    size = len(design)
    return Point(
        last.new_examples if design.fixed_examples else x[:size],
        last.spent,
        last.steps if design.fixed_steps else x[size : 2 * size],
        dict(zip(design.samplings, x[2 * size :].reshape(-1, size), strict=True)),
    )
