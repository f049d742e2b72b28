"""Infeasible programs: which constraints are in conflict, and by how much each would have to give."""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.errors import InfeasibleError
from .compiled import Compiled
from .rows import Row

__all__ = ["diagnose"]

_NOTICEABLE = 1e-7


def diagnose(compiled: Compiled) -> None:
    """Raise InfeasibleError that names the constraints in conflict with amounts.

    Every row gets a nonnegative slack relative to its size; the smallest sum of slacks shows which
    constraints give or press (a nonzero dual). Each of them is then relaxed alone, the others held,
    to find the right-hand side that would make the problem feasible.

    Returns without raising where the relaxed problem finds a feasible point after all: the solver's
    status was wrong, and the next attempt goes on.
    """
    rows = compiled.rows
    slacks = _relax(rows, set(range(len(rows))))
    if slacks is None or max(slacks.values(), default=0.0) <= _NOTICEABLE:
        return
    names = list(dict.fromkeys(rows[i].name for i in slacks if slacks[i] > _NOTICEABLE or _presses(rows[i])))
    conflicts = [_alone(rows, name) for name in names]
    useful = [c for c in conflicts if c["amount"] is None or c["amount"] > 0]
    raise InfeasibleError(_message(useful), useful)


def _relax(rows: list[Row], soft: set[int]) -> dict[int, float] | None:
    """Least sum of relative slacks over the soft rows; None where no slack suffices."""
    slack = {i: cp.Variable(nonneg=True) for i in soft}
    constraints, elastic = [], {}
    for i, row in enumerate(rows):
        scaled = cp.multiply(1 / row.size, cp.reshape(row.expression, (row.size.size,), order="C"))
        give: Any = slack.get(i, 0.0)
        built = [scaled <= give, -scaled <= give] if row.equality else [scaled <= give]
        elastic[i] = built[0]
        constraints += built + row.auxiliary
    problem = cp.Problem(cp.Minimize(sum(slack.values())), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            problem.solve(solver="CLARABEL")
        except cp.SolverError:
            return None
    if problem.status not in ("optimal", "optimal_inaccurate"):
        return None
    for i, built in elastic.items():
        rows[i].constraint = built  # its dual tells whether the row presses
    return {i: float(np.asarray(variable.value)) for i, variable in slack.items()}


def _presses(row: Row) -> bool:
    dual = row.constraint.dual_value
    return dual is not None and float(np.max(np.abs(dual))) > 1e-5


def _alone(rows: list[Row], name: str) -> dict[str, Any]:
    """How far this constraint alone must give; amount None where no relaxation of it suffices."""
    mine = {i for i, row in enumerate(rows) if row.name == name}
    slacks = _relax(rows, mine)
    if slacks is None:
        return {"name": name, "limit": _limit(rows, mine), "relaxed": None, "amount": None}
    worst = max(mine, key=lambda i: slacks[i])
    row = rows[worst]
    amount = slacks[worst] * float(row.size.max())
    relaxed = None if row.limit is None else row.limit - row.price_sign * amount
    return {"name": name, "limit": row.limit, "relaxed": relaxed, "amount": amount}


def _limit(rows: list[Row], mine: set[int]) -> float | None:
    return next((rows[i].limit for i in mine if rows[i].limit is not None), None)


def _message(conflicts: list[dict[str, Any]]) -> str:
    said = " and ".join(_claim(c) for c in conflicts)
    remedies = [_remedy(c) for c in conflicts if c["amount"] is not None]
    advice = "; ".join(remedies) if remedies else "no single one of them can be relaxed enough; relax several"
    verdict = "cannot hold together" if len(conflicts) > 1 else "cannot be met"
    return f"Infeasible: {said} {verdict}; {advice}."


def _claim(conflict: dict[str, Any]) -> str:
    limit = conflict["limit"]
    return f"'{conflict['name']}'" + ("" if limit is None else f" (limit {_show(limit)})")


def _remedy(conflict: dict[str, Any]) -> str:
    amount, relaxed = conflict["amount"], conflict["relaxed"]
    if relaxed is None:
        return f"relax '{conflict['name']}' by {_show(amount)} (in its own units, where it is violated most)"
    verb = "raise" if relaxed > conflict["limit"] else "lower"
    return f"{verb} the limit of '{conflict['name']}' to {_show(relaxed)} (by {_show(amount)})"


def _show(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
