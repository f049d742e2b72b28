"""Constraints that give way: by how much each must, in the units that its author wrote it in."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..modeling.algebra import Term
from ..modeling.constraints import Constraint, Named
from ..modeling.design import Design, Point
from ..modeling.standard_form import standard_form
from ..solvers.conic.solve import solve_conic
from .compiled import Compiled, Leaf
from .declaration import Declaration
from .gives import EXACT, Give, Relaxation, read_gives, sizes_of
from .needs import Needs
from .rows import Row, row_size
from .scaling import rows_of

__all__ = ["Violation", "least_relaxation", "least_violation", "with_slacks"]

_TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
_ROUNDS = 8  # until the point lies near its own reference; a share converges like Newton's method
_NEAR = 1e3  # a reference within this factor of the point keeps eight digits of it
_FAR = (1e6, 1e3, 30.0)  # times the reference, beyond which nothing is looked for in one round: less where that fails
_HELD = 1e-7  # relative violation up to which a row that does not give counts as held
_LEAST, _TRIES = 1e-12, 14  # share of the way from an answer to one inside all rows; found to a half per cent
_PLAUSIBLE, _NOTICEABLE = 0.1, 1e-3  # of the amounts: broken by no more, an answer with so much less of them is nearer
_MARGIN = 2.0  # times what an answer breaks rows by, kept from them in the next round
_SETTLED = 1e-7  # relative change of the amounts at which rounds stop


def least_relaxation(
    program: Declaration, start: Point, soft: Collection[str], needs: Needs | None = None
) -> Relaxation | None:
    """Least sum of relative amounts by which the `soft` constraints give, the others held; None where none suffices.

    What levels need in `needs` is a millionth of what they have at `start`.

    Solved around a reference that moves with the point, until both agree: amounts far from the first reference, or
    far from the size of the limits, would have few digits. What is returned is read off the point itself.
    """
    reference, beyond = program.recentred(start), dict.fromkeys(soft, 0.0)
    sizes = sizes_of(program, program.design(reference), soft)
    least = None if needs is None else _least(program, needs, reference)
    found: Relaxation | None = None
    best: Relaxation | None = None
    nearer: Relaxation | None = None
    for _ in range(_ROUNDS):
        answers = _solved(program, reference, beyond, sizes, least, best, nearer)
        if not answers:
            break
        read = [read_gives(program, *each, soft, sizes) for each in answers]
        last, found = found, _least_of(read)
        best = found if best is None else _least_of([best, found])
        if found.exact and all(give.relative <= 0 for give in found.gives.values()):
            return found  # nothing is less; more rounds would only lead ever further into the room
        nearer = _nearer(read, best)
        settled = last is not None and found.against(last) >= last.against(last) * (1 - _SETTLED)
        if settled and nearer is None and _close(found.point, reference):
            break
        found = found if nearer is None else nearer
        beyond = {name: _beyond(found.gives[name]) for name in soft}
        reference = program.recentred(found.point)
    return best


def _least_of(found: list[Relaxation]) -> Relaxation:
    """The one that gives least of those whose other rows hold; where none does the one that breaks them least.

    What is given at a point that breaks no other row is enough, so that the least of several is nearest to the truth.
    Sizes of rows are those at the point: far out a row is large, and what it gives is little of that. All are held
    against the least.
    """
    exact = [relaxation for relaxation in found if relaxation.exact]
    if not exact:
        return min(found, key=lambda relaxation: relaxation.broken)
    return min(exact, key=lambda relaxation: max(relaxation.against(other) for other in exact))


def _nearer(found: list[Relaxation], best: Relaxation) -> Relaxation | None:
    """The answer that breaks rows by next to nothing of what it gives, and gives noticeably less than the best known.

    The next round begins there and keeps a margin from these rows: it finds what holds as near to the truth.
    """
    if not best.exact:
        return best if best.broken > 0 else None
    given = best.against(best)
    some = [each for each in found if not each.exact and each.broken <= _PLAUSIBLE * each.against(best)]
    near = min(some, key=lambda each: each.against(best), default=best)
    return near if near.against(best) < (1 - _NOTICEABLE) * given else None


def _beyond(give: Give) -> float:
    return give.amounts[0] if give.number is not None else 0.0


def _close(point: Point, reference: Point) -> bool:
    pairs = ((point.new_examples, reference.new_examples), (point.steps, reference.steps))
    return all(np.all(value <= _NEAR * unit) for value, unit in pairs)


def _least(program: Declaration, needs: Needs, start: Point) -> Point:
    """A millionth of the start on levels that need some, and no more than half of what caps leave there."""
    examples = np.where(needs.examples & (program.spent <= 0), 1e-6 * start.new_examples, 0.0)
    steps = np.where(needs.steps, 1e-6 * start.steps, 0.0)
    high = program.box
    return Point(
        np.minimum(examples, 0.5 * high.examples_high), program.spent, np.minimum(steps, 0.5 * high.steps_high)
    )


def _solved(
    program: Declaration,
    reference: Point,
    beyond: dict[str, float],
    sizes: dict[str, float],
    least: Point | None,
    best: Relaxation | None,
    nearer: Relaxation | None,
) -> list[tuple[Point, float]]:
    """Points with the least sum of slacks, as one or two solvers find it, and how far they break the other rows.

    Rows that do not give keep a margin of what the one that is `nearer` breaks them by. Answers that break any, that
    one among them, are moved towards others that do not, the `best` among them, until all rows hold.
    """
    design = program.design(reference)
    slacks: list[cp.Variable] = []
    constraints: list[cp.Constraint] = []
    held: list[Row] = []
    if least is not None:
        for variable, floor, unit in (
            (design.new_variable, least.new_examples, reference.new_examples),
            (design.step_variable, least.steps, reference.steps),
        ):
            if isinstance(variable, cp.Variable):
                constraints.append(variable >= floor / unit)
    for item in program.constraints:
        if item.name in beyond:
            added, given = (
                _moved(item.what, design, sizes[item.name], beyond[item.name])
                if isinstance(item.what, Constraint) and item.name in sizes
                else _row_by_row(item, design, program)
            )
            slacks += added
            constraints += given
        else:
            held += rows_of(item, design, program.budgets.get(item.name))
    margin = 0.0 if nearer is None else _MARGIN * nearer.broken
    constraints += [part for row in held for part in (_with_margin(row, margin, reference), *row.auxiliary)]
    rows, found, solved = Compiled(design, program.box, [], held, 1.0, None), [], False
    for status in _minimised_in_balance(slacks, constraints, design) if slacks else ():
        point, broken = _held_at(rows, design.point())
        if status == "Solved" or broken <= _HELD:  # a solver's "almost" may be anywhere
            found.append((point, broken))
        solved |= status == "Solved"
    if not solved and _minimised(slacks, constraints, design):
        found.append(_held_at(rows, design.point()))
    within = [point for point, broken in found if broken <= EXACT]
    within += [best.point] if best is not None and best.exact else []
    outside = [point for point, broken in found if broken > EXACT]
    outside += [] if nearer is None else [nearer.point]
    return [*found, *(_moved_inside(point, to, rows) for point in outside for to in within)]


def _with_margin(row: Row, margin: float, reference: Point) -> cp.Constraint:
    if row.equality or not margin or not row.expression.variables():
        return row.constraint
    scaled = cp.multiply(1 / row.size, cp.reshape(row.expression, (row.size.size,), order="C"))
    return scaled <= -margin * row.measure(reference) / row.size


def _moved_inside(point: Point, inside: Point, rows: Compiled) -> tuple[Point, float]:
    """The point moved as little towards another, inside the rows, as makes them hold.

    Rows are convex: what holds at some share of the way holds beyond. Amounts are, too: they rise by that share at most
    of what they differ by.
    """

    def at(share: float) -> tuple[Point, float]:
        examples = (1 - share) * point.new_examples + share * inside.new_examples
        return _held_at(rows, Point(examples, point.spent, (1 - share) * point.steps + share * inside.steps))

    breaks, holds = _LEAST, 1.0
    for _ in range(_TRIES):
        middle = float(np.sqrt(breaks * holds))
        breaks, holds = (breaks, middle) if at(middle)[1] <= EXACT else (middle, holds)
    return at(holds)


def _held_at(rows: Compiled, point: Point) -> tuple[Point, float]:
    """The point, and the largest violation there of the rows that do not give."""
    rows.set(point)
    return point, rows.infeasibility(point)


def _minimised_in_balance(slacks: list[cp.Variable], constraints: list[cp.Constraint], design: Design) -> Iterator[str]:
    """Least sum of slacks of the rows in conic form, scaled: the status of each answer, to which the variables are set.

    What stands inside a cone is in the user's units however the row is divided: a solver that is handed the norm of
    counts of a billion is done far from the least. Scaled by its entries, or where that fails by the leading ones, then
    by the sizes that it was found to have, which is nearer as a rule; not where many of them are roundings.
    """
    near = [variable <= _FAR[0] for variable in design.variables]
    form = standard_form(cp.Problem(cp.Minimize(cp.sum(cp.hstack(slacks))), constraints + near))
    program, solution = form.program, None
    for leading, sharp in ((False, False), (True, False), (False, True)):
        if (leading and solution is not None) or (sharp and solution is None):
            continue
        sizes = None if solution is None else np.abs(solution.primal)
        found = solve_conic(
            program.cost, program.matrix, program.right, program.cones, near=sizes, leading=leading, sharp=sharp
        )
        if not found.converged:
            continue
        solution = found
        for variable in design.variables:
            columns = form.columns([variable])
            variable.value = np.maximum(found.primal[columns], 0.0) if columns.size else np.ones(variable.size)
        yield found.status


def _minimised(slacks: list[cp.Variable], constraints: list[cp.Constraint], design: Design) -> bool:
    """Least sum of slacks, looked for ever nearer to the reference where the solver fails; whether it found one."""
    for far, settings in ((far, settings) for far in _FAR for settings in (_TIGHT, {})):
        near = [variable <= far for variable in design.variables]
        problem = cp.Problem(cp.Minimize(cp.sum(cp.hstack(slacks)) if slacks else 0), constraints + near)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # amounts are read off the point, and proofs trust no status
            try:
                problem.solve(solver="CLARABEL", **settings)
            except cp.SolverError:
                continue
        if problem.status in ("optimal", "optimal_inaccurate") and all(v.value is not None for v in design.variables):
            return True
    return False


@dataclass(frozen=True, eq=False)
class Violation:
    """The least sum of relative violations, where it was found and what the solver's duals say of the rows.

    Attributes:
        compiled: the rows around their reference, without an objective.
        point: where the sum is least.
        multipliers: per unit of each row, as the user wrote it.
    """

    compiled: Compiled
    point: Point
    multipliers: list[Array]


def least_violation(program: Declaration, start: Point) -> Violation | None:
    """Least sum of relative violations of all rows but level bounds, which hold.

    None where the solver fails, or where the level bounds exclude each other.
    """
    reference, found = program.recentred(start), None
    for _ in range(_ROUNDS):
        design = replace(program.design(reference), steps_low=program.box.steps_low)
        rows = [row for item in program.constraints for row in rows_of(item, design, program.budgets.get(item.name))]
        slacks = [cp.Variable(nonneg=not row.box) for row in rows]
        sides = [_with_slack(row, 0.0 if row.box else slack) for row, slack in zip(rows, slacks, strict=True)]
        soft = [slack for row, slack in zip(rows, slacks, strict=True) if not row.box]
        own = [constraint for row in rows for constraint in row.auxiliary]
        if not _minimised(soft, [side for pair in sides for side in pair] + own, design):
            break
        point = design.point()
        compiled = Compiled(design, program.box, [], rows, 1.0, None)
        found = Violation(compiled, point, [_dual(row, pair) for row, pair in zip(rows, sides, strict=True)])
        # of what holds with room to spare nothing can be refuted, and rounds would only lead ever further into the room
        if _close(point, reference) or all(row.violation(point) <= 0 for row in rows):
            break
        reference = program.recentred(point)
    return found


def _with_slack(row: Row, slack: cp.Variable | float) -> list[cp.Constraint]:
    scaled = cp.multiply(1 / row.size, cp.reshape(row.expression, (row.size.size,), order="C"))
    return [scaled <= slack, -scaled <= slack] if row.equality else [scaled <= slack]


def _dual(row: Row, sides: list[cp.Constraint]) -> Array:
    values = [np.zeros(row.size.size) if side.dual_value is None else np.ravel(side.dual_value) for side in sides]
    signed = np.maximum(values[0], 0.0) - (np.maximum(values[1], 0.0) if row.equality else 0.0)
    return np.asarray(signed / row.size, dtype=np.float64)


def _moved(
    what: Constraint, design: Design, size: float, beyond: float
) -> tuple[list[cp.Variable], list[cp.Constraint]]:
    """A constraint whose number moves by `beyond` and a slack of order one."""
    slack = cp.Variable()
    slack.value = 1.0
    design.set_to_reference()
    given = what.relaxed(design, size * slack, beyond)
    assert given is not None
    return [slack], [*(_scaled(constraint) for constraint in given), slack >= -beyond / size]


def _row_by_row(item: Named, design: Design, program: Declaration) -> tuple[list[cp.Variable], list[cp.Constraint]]:
    """A constraint with a slack of order one for each of its rows."""
    slacks, built = [], []
    for row in rows_of(item, design, program.budgets.get(item.name)):
        slack = cp.Variable(nonneg=True)
        size = np.maximum(row.size, 1e-6 * row.size.max())  # entries far below the largest ask for no more than it
        scaled = cp.multiply(1 / size, cp.reshape(row.expression, (row.size.size,), order="C"))
        give = (float(row.size.max()) / size) * slack
        built += [scaled <= give, -scaled <= give] if row.equality else [scaled <= give]
        built += row.auxiliary
        slacks.append(slack)
    return slacks, built


def _scaled(constraint: cp.Constraint) -> cp.Constraint:
    left, right = constraint.args
    expression = left - right
    flat = cp.reshape(expression, (expression.size,), order="C")
    size = row_size(flat, 0.0)
    return cp.multiply(1 / np.maximum(size, 1e-9 * size.max()), flat) <= 0


@dataclass(frozen=True, eq=False)
class _Slacks(Term):
    """Sum of the slacks of an elastic program: an objective for what knows only terms."""

    slacks: tuple[cp.Variable, ...]

    def expression(self, design: Design) -> cp.Expression:
        return cp.sum(cp.hstack(self.slacks))


def with_slacks(violation: Violation) -> tuple[Compiled, Compiled]:
    """The elastic program as a program like any other, and the same where nothing gives way.

    The sum of slacks, under rows that give way by theirs. Without slacks and objective it is what multipliers y with
    y H <= 1 have as their Lagrangian: slacks that cost more than they save are 0.
    """
    compiled = violation.compiled
    soft: list[Row] = []
    firm: list[Row] = []
    slacks: list[cp.Variable] = []
    for row in compiled.rows:
        if row.box:
            soft.append(row)
            firm.append(row)
            continue
        slack = cp.Variable(nonneg=True, name=f"slack {len(slacks)}")
        slacks.append(slack)
        flat = cp.reshape(row.stated, (row.size.size,), order="C")
        for sign in (1.0, -1.0) if row.equality else (1.0,):
            side = replace(row, expression=sign * flat, exact=None, equality=False, bound=None, at=None)
            firm.append(side)
            soft.append(replace(side, expression=sign * flat - cp.multiply(row.size, slack)))
    terms = _Slacks(tuple(slacks))
    elastic = replace(compiled, rows=soft, leaves=[Leaf(1.0, terms, terms.expression(compiled.design))])
    return elastic, replace(compiled, rows=firm)
