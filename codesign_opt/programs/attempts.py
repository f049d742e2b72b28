"""The loop of attempts: declare the program relative to a reference, solve it, certify, recentre."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..basics.errors import InfeasibleError, NotCertifiedError
from ..certificate.verdict import Certificate
from ..modeling.algebra import Bound
from ..modeling.constraints import BoxConstraint
from ..modeling.design import Box, Design, Point
from .budget import Budget
from .compiled import Compiled, Solved, compile_problem
from .conflicts import diagnose
from .given_sampler import SettledStructure
from .information_structure import InformationStructure
from .joint_structure import JointStructure
from .proof import certify
from .reference import check_open, first_reference
from .structure import Structure

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["solve_declared"]

_TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
_MAX_ATTEMPTS = 6
_MAX_ROUNDS = 40  # of majorising and minimising, as long as they get nearer to a proof


def solve_declared(
    problem: Problem,
    *,
    method: str,
    tolerance: float,
    solver: str,
    verbose: bool,
    start: Point | None,
    on_attempt: Callable[[dict[str, Any]], None] | None,
    options: dict[str, Any],
) -> tuple[Solved | None, list[dict[str, Any]]]:
    """The first certified candidate, or the best one; every attempt is recorded."""
    reference, box, structure = starting_point(problem)
    attempts: list[dict[str, Any]] = []
    best: Solved | None = None
    if structure is not None and method != "declared":
        reference, best = _structured(problem, structure, reference, box, tolerance, attempts)
        if best is not None and best.certificate.optimal:
            return best, attempts
    if start is not None:
        reference = problem.recentred(start)
    majorised = any(leaf.majorised for _, leaf in problem.objective.leaves())
    for index in range(_MAX_ROUNDS if majorised else _MAX_ATTEMPTS):
        begun = perf_counter()
        compiled = compile_problem(problem, reference, box)
        built = perf_counter()
        status = _run(compiled.declared, solver, verbose, options)
        record: dict[str, Any] = {
            "attempt": len(attempts) + 1,
            "solver": solver,
            "status": status,
            "build_seconds": built - begun,
            "solve_seconds": perf_counter() - built,
        }
        attempts.append(record)
        if status.startswith("infeasible"):
            diagnose(compiled)
        if status.startswith("optimal") and _has_values(compiled.design):
            found = _candidate(compiled, tolerance, attempts)
            record["relative_gap"] = found.certificate.relative_gap
            record["infeasibility"] = found.certificate.infeasibility
            if best is None or _badness(found.certificate) < _badness(best.certificate):
                best = found
            reference = problem.recentred(found.point)
        else:
            reference = _flattened(reference, compiled.design, index)
        if on_attempt is not None:
            on_attempt(record)
        if best is not None and best.certificate.optimal:
            break
        if index >= _MAX_ATTEMPTS and not _improving(attempts):
            break
    return best, attempts


def _improving(attempts: list[dict[str, Any]]) -> bool:
    """Whether the last rounds got nearer to a proof than those before them."""
    gaps = [abs(a.get("relative_gap", np.inf)) for a in attempts]
    return min(gaps[-_MAX_ATTEMPTS:]) < 0.9 * min(gaps[:-_MAX_ATTEMPTS], default=np.inf)


def _structured(
    problem: Problem,
    structure: Structure,
    reference: Point,
    box: Box,
    tolerance: float,
    attempts: list[dict[str, Any]],
) -> tuple[Point, Solved | None]:
    """A structured solver: the answer where the structure is the whole problem, else a reference."""
    begun = perf_counter()
    answer = structure.solve()
    record: dict[str, Any] = {
        "attempt": 1,
        "solver": structure.method if structure.whole else f"{structure.method} (reference only)",
        "status": "no point" if answer is None else "solved",
        "build_seconds": 0.0,
        "solve_seconds": perf_counter() - begun,
    }
    attempts.append(record)
    if answer is None:
        return reference, None
    centre = problem.recentred(answer.point)
    if not structure.whole:
        return centre, None
    begun = perf_counter()
    compiled = compile_problem(problem, centre, box, declare=False)
    multipliers = answer.multipliers(compiled.rows, compiled.design)
    given = (compiled.leaves, compiled.rows, multipliers, box, compiled.design, answer.point, tolerance)
    proof = certify(*given, tangent=answer.tangent)
    record["build_seconds"] = perf_counter() - begun
    record["relative_gap"], record["infeasibility"] = proof.relative_gap, proof.infeasibility
    return centre, Solved(answer.point, compiled, multipliers, proof, attempts)


def rated(problem: Problem, point: Point, optimum: Certificate, tolerance: float) -> Certificate:
    """Any point against the lower bound of the problem's certified optimum."""
    compiled = compile_problem(problem, problem.recentred(point), Box.empty(len(problem.levels)), declare=False)
    compiled.design.set(point)
    infeasibility = max((row.violation() for row in compiled.rows), default=0.0)
    value = sum(leaf.weight * leaf.term.value(compiled.design, point) for leaf in compiled.leaves)
    constant = sum(leaf.weight * leaf.term.constant(compiled.design, point) for leaf in compiled.leaves)
    scale = max(abs(value - constant), 1e-8 * abs(value), 1e-300)
    gap = (value - optimum.lower_bound) / scale
    return Certificate(value, optimum.lower_bound, float(gap), infeasibility, tolerance, optimum.method)


def not_certified(
    problem: Problem, best: Solved | None, attempts: list[dict[str, Any]], plan: Any
) -> NotCertifiedError:
    """The refusal: what was tried, how far it got, and which term to restate."""
    own = [leaf.name for _, leaf in problem.objective.leaves() if not leaf.scales_itself]
    blame = f" If {own[0]} is not homogeneous, divide its argument by its size near the optimum." if own else ""
    blame += _kinks(best) + "".join(f" {leaf.advice}" for _, leaf in problem.objective.leaves() if leaf.advice)
    if best is None:
        found = "; ".join(str(a["status"]) for a in attempts)
        return NotCertifiedError(f"No point in {len(attempts)} attempts ({found}).{blame}", attempts)
    proof = best.certificate
    return NotCertifiedError(
        f"Not certified: the best of {len(attempts)} attempts has a relative gap of {proof.relative_gap:.2g} "
        f"(tolerance {proof.tolerance:g}) and infeasibility {proof.infeasibility:.2g} (1e-07).{blame}",
        attempts,
        plan=plan,
    )


def _kinks(best: Solved | None) -> str:
    """Advice where a row or term of the user's has a kink, which one tangent cannot prove."""
    if best is None:
        return ""
    rows = [row.name for row in best.compiled.rows if row.bound is None and not row.expression.is_affine()]
    rows += [leaf.term.name for leaf in best.compiled.leaves if not leaf.term.scales_itself]
    if not rows:
        return ""
    return (
        f" If '{rows[0]}' has a kink (max, abs, pos) at the optimum, one tangent cannot prove it: state a row for "
        "every entry instead, as in density <= limit."
    )


_STRUCTURES: tuple[type[Structure], ...] = (InformationStructure, JointStructure, SettledStructure)


def _structure_of(problem: Problem, budgets: Sequence[tuple[str, Budget]], box: Box) -> Structure | None:
    """The first structure that reads the problem; None where no structured solver applies."""
    if not budgets or any(budget.room <= 0 for _, budget in budgets) or problem.examples is not None:
        return None
    found = (kind.read(problem, budgets, box) for kind in _STRUCTURES)
    return next((structure for structure in found if structure is not None), None)


def starting_point(problem: Problem) -> tuple[Point, Box, Structure | None]:
    """First reference, the box of all level bounds, and the part that the structured solver can take."""
    size = len(problem.levels)
    neutral = Point(np.ones(size), problem.spent_examples, np.ones(size))
    design = problem.design(neutral)
    box = Box.empty(size)
    budgets: list[tuple[str, Budget]] = []
    for item in problem.constraints:
        if isinstance(item.what, Bound):
            budget = Budget.read(item.what, design)
            if budget is not None:
                _refuse_empty(item.name, item.what, budget)
                budgets.append((item.name, budget))
        elif isinstance(item.what, BoxConstraint):
            box = box & item.what.box(design)
    check_open(box, problem.table, problem.spent_examples)
    none = np.zeros(size)  # a quantity that nothing depends on costs nothing
    examples = problem.examples if problem.examples is not None else (none if design.fixed_examples else None)
    steps = problem.steps if problem.steps is not None else (none if design.fixed_steps else None)
    reference = first_reference(
        problem.levels,
        problem.table,
        [budget for _, budget in budgets],
        box,
        spent=problem.spent_examples,
        fixed_examples=examples,
        fixed_steps=steps,
    )
    reference = Point(
        reference.new_examples if examples is None else examples,
        problem.spent_examples,
        reference.steps if steps is None else steps,
    )
    structure = _structure_of(problem, budgets, box)
    return reference, box, structure


def _refuse_empty(name: str, bound: Bound, budget: Budget) -> None:
    """A budget that leaves nothing is infeasible before any solver is asked."""
    if budget.room <= 0 and (np.any(budget.example > 0) or np.any(budget.step > 0)):
        needed = bound.limit - budget.room
        raise InfeasibleError(
            f"Infeasible: '{name}' (limit {bound.limit:,.6g}) leaves nothing to decide, since the last step alone "
            f"needs {needed:,.6g}; raise it above that.",
            [{"name": name, "limit": bound.limit, "relaxed": needed, "amount": -budget.room}],
        )


def _run(declared: cp.Problem | None, solver: str, verbose: bool, options: dict[str, Any]) -> str:
    assert declared is not None
    settings = dict(_TIGHT) if solver == "CLARABEL" else {}
    settings.update(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy warns of inaccuracy; the certificate is the judge
        try:
            declared.solve(solver=solver, verbose=verbose, **settings)
        except cp.SolverError as error:
            return f"solver error: {error}"
    return str(declared.status)


def _has_values(design: Design) -> bool:
    return all(v.value is not None and np.all(np.isfinite(v.value)) for v in design.variables)


def _candidate(compiled: Compiled, tolerance: float, attempts: list[dict[str, Any]]) -> Solved:
    multipliers = [row.multipliers(compiled.unit) for row in compiled.rows]
    found: list[Solved] = []
    for point in _points(compiled):
        proof = certify(compiled.leaves, compiled.rows, multipliers, compiled.box, compiled.design, point, tolerance)
        found.append(Solved(point, compiled, multipliers, proof, attempts))
    return min(found, key=lambda solved: _badness(solved.certificate))


def _points(compiled: Compiled) -> list[Point]:
    """The solver's point, and the one that the terms' auxiliary variables show where that is another."""
    first = point = _repaired(compiled)
    for leaf in compiled.leaves:
        point = leaf.term.recovered(compiled.design, point, leaf.auxiliary)
    return [first] if np.allclose(point.steps, first.steps, rtol=1e-12, atol=0.0) else [first, point]


def _repaired(compiled: Compiled) -> Point:
    """The solver's point, clipped into the box and scaled back into budgets it exceeds by rounding."""
    design, box = compiled.design, compiled.box
    point = design.point()
    examples, steps = point.new_examples, point.steps
    if not design.fixed_examples:
        low, high = np.maximum(box.examples_low - point.spent, 0.0), np.maximum(box.examples_high - point.spent, 0.0)
        examples = np.minimum(np.maximum(examples, low), high)
    if not design.fixed_steps:
        steps = np.minimum(np.maximum(steps, box.steps_low), box.steps_high)
    for row in compiled.rows:
        budget = Budget.read(row.bound, design) if row.bound is not None else None
        if budget is None:
            continue
        cost = float(budget.example @ examples + budget.step @ steps)
        if budget.room < cost <= budget.room * (1 + 1e-6):
            shrink = budget.room / cost
            examples = examples if design.fixed_examples else examples * shrink
            steps = steps if design.fixed_steps else steps * shrink
    return Point(examples, point.spent, steps)


def _badness(certificate: Certificate) -> float:
    gap = abs(certificate.relative_gap)
    return max(gap if np.isfinite(gap) else 1e300, certificate.infeasibility)


def _flattened(reference: Point, design: Design, index: int) -> Point:
    """Another reference after a failed attempt: flatter shares of the same totals."""
    weight = 0.5 ** (index + 1)

    def flat(values: Array, fixed: bool) -> Array:
        return values if fixed else weight * values + (1 - weight) * values.mean()

    return Point(
        flat(reference.new_examples, design.fixed_examples), reference.spent, flat(reference.steps, design.fixed_steps)
    )
