"""The loop of attempts: declare the program relative to a reference, solve it, certify, recentre."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..basics.errors import NotCertifiedError
from ..certificate.verdict import Certificate
from ..modeling.design import Box, Design, Point
from ..solvers.conic.solve import ConicSolution
from . import (  # noqa: F401  they register: the later is asked first
    form_structure,
    given_sampler,
    information_structure,
    joint_structure,
    shared_structure,
)  # isort: skip
from .candidates import badness, bettered, points, repaired, with_nothing
from .compiled import Compiled, Solved, compile_problem
from .conflicts import diagnose, refuse_unreachable
from .conic_form import ConicForm, conic_form
from .conic_proof import conic_bound
from .crossing_shares import refuse_crossing_shares
from .declaration import Declaration
from .floor_prices import with_floor_prices
from .needs import check_open, unreachable
from .proof import certify, raised, relative_gap, valued
from .reference import first_reference
from .sampling_reference import first_of_samplings
from .solver import Solver
from .structure import Structure, structure_of
from .unlimited import refuse_unlimited

__all__ = ["Solver", "first_point", "not_certified", "rated", "solve_declared"]

_MAX_ATTEMPTS = 6
_FEASIBLE = 1e-7  # relative violation up to which a point counts as feasible
_NOTICEABLE = 1e-6  # a point that violates a row by more leaves open whether any is feasible
# of solving a program in conic form: to rounding or not, scaled by all entries or by those that lead
_WAYS = ((False, False), (True, False), (False, False), (False, True), (True, True))
_UNDECIDED = "No feasible point was found, and infeasibility is not proved."
_EARLY, _CLOSE = 2, 1e-3  # the first attempts, of them a structured solver's; a gap that a better scaling closes
_MAX_ROUNDS = 40  # of majorising and minimising, as long as they get nearer to a proof


# users' functions overflow far from the optimum; values that are not finite are looked at wherever they arise
@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def solve_declared(
    program: Declaration,
    *,
    method: str,
    tolerance: float,
    solver: Solver,
    start: Point | None,
    on_attempt: Callable[[dict[str, Any]], None] | None,
) -> tuple[Solved | None, list[dict[str, Any]]]:
    """The first certified candidate, or the best one; every attempt is recorded."""
    check_open(program)
    refuse_crossing_shares(program)
    if least := unreachable(program):
        refuse_unreachable(program, least, first_point(program))
    attempts: list[dict[str, Any]] = []
    structure = None if method == "declared" else structure_of(program)
    reference, best = (None, None) if structure is None else _structured(program, structure, tolerance, attempts)
    if best is not None and best.certificate.optimal:
        return best, attempts
    if start is not None:
        reference = program.recentred(start)
    if reference is None:
        reference = first_point(program)
    majorised = any(leaf.majorised for _, leaf in program.leaves)
    diagnosed, nearest, lower = False, None, -np.inf
    returned = False  # whether the last attempt was made around the nearest point: once more changes nothing
    for index in range(_MAX_ROUNDS):
        compiled, found = _attempt(program, reference, tolerance, solver, attempts)
        unbounded = attempts[-1]["status"].startswith("unbounded")
        lost = found is None or found.certificate.infeasibility > _NOTICEABLE
        if lost and not diagnosed and not unbounded and not solver.out_of_time:
            diagnosed, nearest = True, diagnose(program, reference)
        if found is not None and (best is None or badness(found.certificate) < badness(best.certificate)):
            best = found
        if found is not None and not lost and found.certificate.relative_gap >= 0:
            lower = max(lower, found.certificate.lower_bound)
        best = min((s for s in (_against(best, lower), _against(found, lower)) if s is not None),
                   key=lambda solved: badness(solved.certificate), default=None)  # fmt: skip
        returned = lost and nearest is not None and not unbounded and not returned
        if returned and nearest is not None:
            reference = program.recentred(nearest)  # the solver's word was wrong, or its reference far away
        elif found is not None and (found.certificate.optimal or not _astray(found, reference)):
            reference = program.recentred(found.point)
        else:
            reference = _flattened(reference, compiled.design, index)
        if on_attempt is not None:
            on_attempt(attempts[-1])
        if best is not None and best.certificate.optimal:
            break
        if index == 0 and (best is None or best.certificate.lower_bound == -np.inf):
            _refuse_unlimited(program, best, nearest)  # no attempt would prove anything of what has no least value
        if solver.out_of_time or (index + 1 >= _MAX_ATTEMPTS and not _improving(attempts, majorised)):
            break
    if not solver.out_of_time and (best is None or not best.certificate.optimal):
        _explain(program, best, reference, nearest, diagnosed)
    return best if best is None else with_floor_prices(best, solver), attempts


def _attempt(
    program: Declaration, reference: Point, tolerance: float, solver: Solver, attempts: list[dict[str, Any]]
) -> tuple[Compiled, Solved | None]:
    """The program declared around a reference, and the best candidate of it; a record joins `attempts`."""
    begun = perf_counter()
    compiled = compile_problem(program, reference, program.box)
    built = perf_counter()
    record: dict[str, Any] = {
        "attempt": len(attempts) + 1, "solver": solver.name, "status": "", "build_seconds": built - begun,
    }  # fmt: skip
    attempts.append(record)
    # of what has kinks the conic dual alone proves anything as a rule
    stages = [_by_conic_dual, _by_cvxpy] if compiled.kinked and solver.plain else [_by_cvxpy, _by_conic_dual]
    found = None
    for stage in stages:
        found = stage(compiled, found, tolerance, attempts, solver)
        if (found is not None and (found.certificate.optimal or _promising(found, attempts))) or solver.out_of_time:
            break
    record["solve_seconds"] = perf_counter() - built
    if found is not None:
        record["relative_gap"] = found.certificate.relative_gap
        record["infeasibility"] = found.certificate.infeasibility
    return compiled, found


def _promising(found: Solved, attempts: list[dict[str, Any]]) -> bool:
    """Whether declaring the program anew around an early candidate is worth more than another solver's answer."""
    return len(attempts) <= _EARLY and badness(found.certificate) <= _CLOSE


def _against(found: Solved | None, lower: float) -> Solved | None:
    """A candidate against the best bound of any attempt: all are about one program."""
    if (
        found is None
        or found.certificate.optimal
        or not found.certificate.lower_bound < lower <= found.certificate.value
    ):
        return found
    return replace(found, certificate=raised(found.certificate, found.compiled, found.point, lower))


def _astray(found: Solved, reference: Point) -> bool:
    """Whether a candidate is so much worse than a feasible reference that declaring around it leads nowhere."""
    compiled = found.compiled
    compiled.set(reference)
    if compiled.infeasibility(reference) > _NOTICEABLE >= found.certificate.infeasibility:
        return False  # a target is met at its price, whatever less would cost
    before = sum(leaf.weight * compiled.value(leaf.term, reference) for leaf in compiled.leaves)
    return bool(np.isfinite(before)) and not found.certificate.value <= 1e3 * abs(before)


def _explain(
    program: Declaration, best: Solved | None, reference: Point, nearest: Point | None, diagnosed: bool
) -> None:
    """Raise what can be proved of a program without a certified candidate: it has no feasible point, or no minimum."""
    if not diagnosed and not (best is not None and best.certificate.infeasibility <= _FEASIBLE):
        nearest = diagnose(program, reference)
    _refuse_unlimited(program, best, nearest)


def _refuse_unlimited(program: Declaration, best: Solved | None, nearest: Point | None) -> None:
    """Name what nothing limits, as far as the points known show it: the first guess, and what meets the rows."""
    if best is not None and best.certificate.infeasibility <= _FEASIBLE:
        nearest = best.point
    for point in (first_point(program), nearest):
        refuse_unlimited(program, point)


def _improving(attempts: list[dict[str, Any]], majorised: bool) -> bool:
    """Whether the last rounds got so much nearer to a proof that more of them are worth their time.

    Rounds of majorising gain little each. Others gain where the reference was far from the optimum, and then a lot.
    """
    # a small gap of a point that is not feasible is no progress
    gaps = [
        abs(a.get("relative_gap", np.inf)) if a.get("infeasibility", 0.0) <= _FEASIBLE else np.inf for a in attempts
    ]
    last, enough = (_MAX_ATTEMPTS, 0.9) if majorised else (2, 0.5)
    if not majorised and min(gaps) < _FEASIBLE:
        return False  # nearer than that a solver does not get by more rounds
    return min(gaps[-last:]) < enough * min(gaps[:-last], default=np.inf)


def _structured(
    program: Declaration, structure: Structure, tolerance: float, attempts: list[dict[str, Any]]
) -> tuple[Point | None, Solved | None]:
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
        return None, None
    centre = program.recentred(answer.point)
    if not structure.whole:
        return centre, None
    begun = perf_counter()
    compiled = compile_problem(program, centre, program.box, declare=False)
    multipliers = answer.multipliers(compiled.rows, compiled.design)
    proof = certify(compiled, multipliers, answer.point, tolerance, tangent=answer.tangent)
    record["build_seconds"] = perf_counter() - begun
    record["relative_gap"], record["infeasibility"] = proof.relative_gap, proof.infeasibility
    return centre, Solved(answer.point, compiled, multipliers, proof, attempts)


def rated(program: Declaration, point: Point, optimum: Certificate, tolerance: float) -> Certificate:
    """Any point against the lower bound of the problem's certified optimum."""
    compiled = compile_problem(program, program.recentred(point), Box.empty(len(program.levels)), declare=False)
    compiled.set(point)
    infeasibility = compiled.infeasibility(point)
    value = valued(compiled, point)
    gap = relative_gap(value.total, optimum.lower_bound, value.scale, tolerance=tolerance)
    return Certificate(value.total, optimum.lower_bound, gap, infeasibility, tolerance, optimum.method)


def not_certified(
    program: Declaration, best: Solved | None, attempts: list[dict[str, Any]], plan: Any, *, late: str = ""
) -> NotCertifiedError:
    """The refusal: what was tried, how far it got, and which term to restate."""
    own = [leaf.name for _, leaf in program.leaves if not leaf.scales_itself]
    blame = f" If {own[0]} is not homogeneous, divide its argument by its size near the optimum." if own else ""
    blame += _kinks(best) + "".join(f" {leaf.advice}" for _, leaf in program.leaves if leaf.advice)
    if best is None:
        found = "; ".join(str(a["status"]) for a in attempts)
        said = f"{_UNDECIDED} No point in {len(attempts)} attempts ({found})."
        return NotCertifiedError(f"{late}{said}{blame}", attempts)
    proof = best.certificate
    late += f"{_UNDECIDED} " if proof.infeasibility > _FEASIBLE else ""
    return NotCertifiedError(
        f"{late}Not certified: the best of {len(attempts)} attempts has a relative gap of {proof.relative_gap:.2g} "
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


def first_point(program: Declaration) -> Point:
    """Where the first attempt is declared; a quantity that nothing depends on costs nothing."""
    if program.samplings:
        return first_of_samplings(program)
    none = np.zeros(len(program.levels))
    examples = program.new_examples
    if examples is None and not program.decides_examples:
        examples = none
    steps = program.steps if program.steps is not None else (None if program.decides_steps else none)
    found = first_reference(
        program.levels,
        program.table,
        list(program.budgets.values()),
        program.box,
        spent=program.spent,
        fixed_examples=examples,
        fixed_steps=steps,
    )
    return Point(
        found.new_examples if examples is None else examples, program.spent, found.steps if steps is None else steps
    )


def _has_values(design: Design) -> bool:
    return all(v.value is not None and np.all(np.isfinite(v.value)) for v in design.variables)


def _candidate(compiled: Compiled, tolerance: float, attempts: list[dict[str, Any]]) -> Solved:
    multipliers = [row.multipliers(compiled.unit) for row in compiled.rows]
    found: list[Solved] = []
    for point in points(compiled):
        proof = certify(compiled, multipliers, point, tolerance)
        found.append(Solved(point, compiled, multipliers, proof, attempts))
        if proof.optimal:
            break
    return bettered(min(found, key=lambda solved: badness(solved.certificate)), tolerance)


def _by_cvxpy(
    compiled: Compiled, found: Solved | None, tolerance: float, attempts: list[dict[str, Any]], solver: Solver
) -> Solved | None:
    """The better of `found` and the candidates of the program as cvxpy solves it, by the separable Lagrangian."""
    attempts[-1]["status"] = status = solver.run(compiled.declared)
    if not (status.startswith("optimal") and _has_values(compiled.design)):
        return found
    candidate = _candidate(compiled, tolerance, attempts)
    return candidate if found is None else min(found, candidate, key=lambda solved: badness(solved.certificate))


def _by_conic_dual(
    compiled: Compiled, found: Solved | None, tolerance: float, attempts: list[dict[str, Any]], solver: Solver
) -> Solved | None:
    """The better of `found` and the candidates of the program in conic form, against the bounds of their duals."""
    form = conic_form(compiled)
    if form is None:
        return found
    solution = None
    # scaled by the entries, then by the sizes that the columns turned out to have, to rounding, or as well as can be
    said: list[str] = []
    for sharp, leading in _WAYS:
        if leading and solution is not None and solution.converged:
            break
        if len(said) == 2 and solution is not None and not solution.has_point:
            if said == ["PrimalInfeasible"] * 2:
                break  # rightly or not: the next reference is the point that violates the rows least
            said.append("")  # the first way again
            continue
        answer = form.solve(solution, sharp=sharp, leading=leading, verbose=solver.verbose, time_limit=solver.left)
        said.append(answer.status)
        attempts[-1]["status"] = attempts[-1]["status"] or ("optimal" if answer.converged else answer.status)
        if answer.has_point:
            found = _better_by(form, answer, compiled, found, tolerance, attempts)
        done = (found is not None and found.certificate.optimal) or solver.out_of_time
        if done or (sharp and answer.status == "Solved"):
            break
        solution = solution if sharp else answer
    return found


def _better_by(
    form: ConicForm,
    solution: ConicSolution,
    compiled: Compiled,
    found: Solved | None,
    tolerance: float,
    attempts: list[dict[str, Any]],
) -> Solved:
    design = compiled.design
    own = ((design.samplings[name].step_variable, columns) for name, columns in form.samplings.items())
    for variable, columns in ((design.new_variable, form.examples), (design.step_variable, form.steps), *own):
        if isinstance(variable, cp.Variable):
            # a quantity that nothing declared depends on has no columns
            variable.value = np.maximum(solution.primal[columns], 0.0) if columns.size else np.ones(variable.size)
    point = repaired(compiled)
    lower = conic_bound(form, solution, compiled, point)
    if found is not None:  # of the same program: the better bound stays, whichever candidate goes with it
        lower = max(lower, found.certificate.lower_bound)
    multipliers = form.multipliers(solution.dual, compiled)
    tried = [
        Solved(each, compiled, multipliers, certify(compiled, multipliers, each, tolerance, conic=lower), attempts)
        for each in (point, *with_nothing(compiled, point))
    ]
    if found is not None:
        again = certify(compiled, found.multipliers, found.point, tolerance, conic=lower)
        tried += [found, Solved(found.point, compiled, found.multipliers, again, attempts)]
    return bettered(min(tried, key=lambda solved: badness(solved.certificate)), tolerance)


def _flattened(reference: Point, design: Design, index: int) -> Point:
    """Another reference after a failed attempt: flatter shares of the same totals."""
    weight = 0.5 ** (index + 1)

    def flat(values: Array, fixed: bool) -> Array:
        return values if fixed else weight * values + (1 - weight) * values.mean()

    return Point(
        flat(reference.new_examples, design.fixed_examples),
        reference.spent,
        flat(reference.steps, design.fixed_steps),
        {name: flat(steps, False) for name, steps in reference.samplings.items()},
    )
