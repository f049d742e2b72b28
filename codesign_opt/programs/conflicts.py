"""Infeasible programs: a proof, which constraints are in conflict, and by how much each would have to give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.errors import InfeasibleError
from ..basics.wording import quantity
from ..modeling.algebra import Bound
from ..modeling.constraints import Named
from ..modeling.design import Box, Point
from .compiled import compile_problem
from .declaration import Declaration
from .elastic import least_relaxation
from .gives import Give
from .needs import Needs, needs_of, plentiful
from .refutation import Refutation, Starvation, refutation, starvation
from .scaling import rows_of

__all__ = ["diagnose", "refuse_unreachable"]

_NOTICEABLE = 1e-9  # relative amounts below are rounding


def diagnose(program: Declaration, start: Point) -> Point | None:
    """Raise InfeasibleError that names the constraints in conflict with amounts, where a proof says that there are.

    All constraints give way at first, as little as they can: that shows a point that violates them least, around which
    the proof is looked for (docs/theory.md section 8.4). Without one nothing is announced. Then each constraint of the
    conflict gives way alone, the others held.

    Returns:
        The point with the least violations, a feasible one where the search found one; None where it failed.
    """
    names = [item.name for item in program.constraints]
    together = least_relaxation(program, start, names)
    point = start if together is None else together.point
    proof: Refutation | Starvation | None = refutation(program, point)
    needs, starved = None, ""
    if proof is None:
        needs = needs_of(program)
        hungry = starvation(program, needs, start)
        if hungry is None:
            return None if together is None else together.point
        proof, starved = hungry, hungry.what
        together = least_relaxation(program, start, names, needs)
    gives = {} if together is None else together.gives
    giving = [name for name in names if name in gives and gives[name].relative > _NOTICEABLE]
    named = [name for name in names if name in proof.names or name in giving]
    alone = {name: _alone(program, start if starved else point, name, needs) for name in named}
    if not starved:
        needless = _needless(program, point, named, [n for n in named if alone[n] is None and n not in giving])
        named = [name for name in named if name not in needless]
    if all(give is None for give in alone.values()):
        named = list(dict.fromkeys([*giving, *named]))
    conflicts = [_record(name, alone[name], gives.get(name)) for name in named if _matters(alone[name])]
    raise InfeasibleError(_message(conflicts, starved), conflicts)


def _needless(program: Declaration, point: Point, named: list[str], idle: list[str]) -> set[str]:
    """Of the `idle` constraints, which no relaxation of helps, those without which the others named are refuted too.

    A solver's multiplier of a row that does not bind is a rounding, and beside a small conflict that looks large.
    """
    kept = set(named)
    for name in idle:
        if name in program.boxes:
            continue
        left = kept - {name}
        without = replace(
            program,
            constraints=tuple(item for item in program.constraints if item.name in left),
            budgets={key: budget for key, budget in program.budgets.items() if key in left},
        )
        proof = refutation(without, point) if without.constraints else None
        if proof is not None and proof.names <= left:
            kept = left
    return set(named) - kept


def refuse_unreachable(program: Declaration, least: dict[str, float], start: Point) -> None:
    """Raise InfeasibleError for bounds on terms below their `least` value, each of which is its own proof.

    No other constraint can help. Amounts are counted from what unlimited examples and steps leave: a limit of minus one
    is far from anything, and its distance has no digits of an error of 1e-6.
    """
    limits = {i.name: i.what.limit for i in program.constraints if i.name in least and isinstance(i.what, Bound)}
    raised = replace(program, constraints=tuple(_limited(item, least) for item in program.constraints))
    found = None if _leave_plenty(raised, least) else least_relaxation(raised, start, list(least))
    conflicts, remedies = [], []
    for name, bottom in least.items():
        relaxed = bottom if found is None else bottom + found.gives[name].amounts[0]
        amount = relaxed - limits[name]
        conflicts.append({
            "name": name, "limit": limits[name], "relaxed": relaxed, "amount": amount, "amounts": (amount,),
            "together": (amount,),
        })  # fmt: skip
        remedies.append(f"raise the limit of '{name}' {'above' if found is None else 'to'} {quantity(relaxed)}")
    said = " and ".join(_claim(conflict) for conflict in conflicts)
    raise InfeasibleError(
        f"Infeasible: {said} cannot be met by any number of examples and steps; {' and '.join(remedies)}.", conflicts
    )


def _limited(item: Named, limits: dict[str, float]) -> Named:
    if item.name not in limits or not isinstance(item.what, Bound):
        return item
    return Named(item.name, Bound(item.what.term, limits[item.name]))


def _leave_plenty(program: Declaration, unreached: dict[str, float]) -> bool:
    """Whether all other constraints hold with as many examples and steps as can be computed with."""
    others = replace(program, constraints=tuple(i for i in program.constraints if i.name not in unreached))
    point = plentiful(program, 1e25)
    compiled = compile_problem(others, program.neutral, Box.empty(len(program.levels)), declare=False)
    compiled.set(point)
    return compiled.infeasibility(point) <= _NOTICEABLE


def _alone(program: Declaration, point: Point, name: str, needs: Needs | None) -> Give | None:
    """How far this constraint alone must give; None where no relaxation of it suffices."""
    ways = [(program, point)]
    if needs is None:  # with what rows only charge for, and without: either may have more digits
        without = _without_idle(program, point, name)
        ways += [] if without is None else [without]
    found = [each.gives[name] for way in ways if (each := least_relaxation(*way, [name], needs)) is not None]
    return min(found, key=lambda give: give.against(found[0]), default=None)


def _without_idle(program: Declaration, point: Point, soft: str) -> tuple[Declaration, Point] | None:
    """The same, and the same point, with none of what rows only charge for, if there is any: that leaves most room.

    A solver that may choose it chooses anything, up to a size beside which the rest has no digits.
    """
    design, box = program.design(program.neutral), program.box
    touched = {"examples": False, "steps": False}
    for item in program.constraints:
        if item.name in program.budgets or (item.name in program.boxes and item.name != soft):
            continue
        rows = rows_of(item, design)
        used = {v.id for row in rows for e in (row.stated, *row.auxiliary) for v in e.variables()}
        for what, variable in (("examples", design.new_variable), ("steps", design.step_variable)):
            touched[what] |= isinstance(variable, cp.Variable) and variable.id in used
    decided = {"examples": program.decides_examples, "steps": program.decides_steps}
    idle = [what for what in decided if decided[what] and not touched[what]]
    prices = [price for budget in program.budgets.values() for price in (budget.example, budget.step)]
    if not idle or len(idle) == sum(decided.values()) or any(np.any(price < 0) for price in prices):
        return None  # prices alone decide between them, or pay for some
    if "examples" in idle:
        least = np.maximum(box.examples_low, program.spent)
        program, point = replace(program, examples=least), Point(least - program.spent, program.spent, point.steps)
    if "steps" in idle:
        program = replace(program, steps=box.steps_low)
        point = Point(point.new_examples, program.spent, box.steps_low)
    return program, point


def _matters(give: Give | None) -> bool:
    return give is None or give.relative > _NOTICEABLE


def _record(name: str, alone: Give | None, together: Give | None) -> dict[str, Any]:
    """What `InfeasibleError.conflicts` says of one constraint."""
    told = alone if alone is not None else together
    shown = 0 if told is None else _worst(told)
    limit = None if told is None else told.limits[shown]
    amount = None if alone is None else alone.amounts[shown]
    return {
        "name": name,
        "limit": limit,
        "relaxed": None if limit is None or amount is None or told is None else limit + told.directions[shown] * amount,
        "amount": amount,
        "amounts": None if alone is None else alone.amounts,
        "together": None if together is None else together.amounts,
        "give": alone,
        "shared": together,
    }


def _worst(give: Give) -> int:
    return max(range(len(give.amounts)), key=lambda i: give.amounts[i] / give.sizes[i])


def _message(conflicts: list[dict[str, Any]], starved: str) -> str:
    said = " and ".join(_claim(c) for c in conflicts)
    verdict = "cannot hold together" if len(conflicts) > 1 else "cannot be met"
    if starved:
        verdict = f"leave{'s' if len(conflicts) == 1 else ''} no {starved}, where the error is infinite without any"
    single = [_remedy(c["give"]) for c in conflicts if c["give"] is not None]
    shared = [_remedy(c["shared"]) for c in conflicts if c["shared"] is not None and _matters(c["shared"])]
    if single:
        advice = " or ".join(single)
    elif shared:
        advice = "none of them can be relaxed enough alone; together, " + " and ".join(shared)
    else:
        advice = "none of them can be relaxed enough alone; relax several, or leave one out"
    for conflict in conflicts:
        del conflict["give"], conflict["shared"]
    return f"Infeasible: {said} {verdict}; {advice}."


def _claim(conflict: dict[str, Any]) -> str:
    limit = conflict["limit"]
    return f"'{conflict['name']}'" + ("" if limit is None else f" (limit {quantity(limit)})")


def _remedy(give: Give) -> str:
    noticed = [i for i in range(len(give.amounts)) if give.amounts[i] > _NOTICEABLE * give.sizes[i]]
    moved = noticed or [_worst(give)]
    parts = [_one_remedy(give, i, len(give.amounts) > 1) for i in moved]
    return " and ".join(parts)


def _one_remedy(give: Give, index: int, several: bool) -> str:
    amount, limit, direction = give.amounts[index], give.limits[index], give.directions[index]
    verb = "raise" if direction > 0 else "lower"
    unit = "" if give.number is None else f" {give.number.unit}"
    what = f"'{give.name}'" + (f", row {index + 1}," if several else "")
    if limit is None and give.number is None:
        return f"relax {what} by {quantity(amount)} (in its own units)"
    field = "the limit" if give.number is None else give.number.name
    if limit is None:
        return f"{verb} {field} of {what} by {quantity(amount)}{unit}"
    return f"{verb} {field} of {what} to {quantity(limit + direction * amount)}{unit} (by {quantity(amount)})"
