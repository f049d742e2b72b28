"""Sweep: the error against the stopping point, and what is proved between the points tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ..basics.causes import DISCRETIZATION, FLOOR, INITIAL, LAST_EVALUATION, SCORE, TRUNCATION
from ..basics.checks import Array
from ..basics.errors import CodesignError, EmptySelectionError, InfeasibleError, NotCertifiedError
from ..basics.progress import Progress, teller
from ..basics.user_code import named
from ..certificate.lagrangian import LagrangianBound, ScorePart
from ..ingredients.levels import Levels
from ..modeling import Discretization, Point, ScoreError
from ..models.coefficients import Coefficients
from ..results.plan import Plan
from ..solvers.joint.batch import ENOUGH, solve_batch
from ..solvers.joint.newton import JointSolution, solve_joint
from .between_stops import interval_bounds
from .budgets import COMPUTE, STEPS
from .form_stops import FormStop, solved_forms
from .question import Study
from .shared_stops import add_shared, shared_terms

__all__ = ["Stop", "bound_between", "bounds_of", "solved_at", "sweep"]

# 32 programs (two spectra, four samplers, two couplings, both terminals) took 57 to 117 bounds and 14 to 43 solves to
# come within 1e-3, some .1 s: these limits end only what does not close, and then prove less, nothing wrong
_BOUND_EVALUATIONS = 800
_BOUND_SOLVES = 100
# in log sigma; an interval that does not close at this width ends the search. At a tolerance of 1e-3 the narrowest
# that was asked for is 1e-3, left by the sweep itself, and it closed; at 1e-4 two of six programs would end here
_NARROW = 1e-3


@dataclass(frozen=True, eq=False)
class Stop:
    """One stopping point: the best error there, its proof, and the multipliers that carry the proof on.

    Attributes:
        sigma: the stopping point.
        error: certified optimal error; inf where there is none.
        record: what the plan's curve keeps.
        prices: multipliers of the study's budgets, in order.
        bands: multipliers p_b of the band sums.
        near_examples: examples within one correlation length, which the last evaluation's error counts.
        plan: the declared program's plan, where that was solved.
        failure: why there is none.
    """

    sigma: float
    error: float
    record: Mapping[str, Any]
    prices: Array
    bands: Array
    near_examples: float = 0.0
    plan: Plan | None = None
    failure: CodesignError | None = None


def sweep(
    study: Study, low: float, high: float, points: int, progress: Progress, *, narrow: float = 3e-3
) -> list[Stop]:
    """Certified optima on a log grid of stopping points, then a bounded refinement to `narrow` in log sigma.

    Raises:
        InfeasibleError, NotCertifiedError: no point has a certified optimum; the first failure.
    """
    tell = teller(progress)
    stops: list[Stop] = []

    def add(stop: Stop) -> Stop:
        stops.append(stop)
        said = f"error {stop.error:.6g}" if stop.failure is None else type(stop.failure).__name__
        counted = (len(stops), points) if len(stops) <= points else ()  # how many refine the best is not known
        tell(f"stopping sigma {stop.sigma:.4g}: {said}", *counted)
        return stop

    _sweep_grid(study, np.geomspace(high, low, points), add)
    solved = sorted((s for s in stops if s.failure is None), key=lambda s: s.sigma)
    if not solved:
        raise next(s.failure for s in stops if s.failure is not None)
    best = int(np.argmin([s.error for s in solved]))
    left, right = solved[max(best - 1, 0)].sigma, solved[min(best + 1, len(solved) - 1)].sigma
    if right > left:
        known, worst = np.log(solved[best].sigma), max(s.error for s in solved)

        def error(logs: float) -> float:
            found = add(_solve(study, float(np.exp(logs)), solved[best]))
            # inf would make the search's parabola NaN; a failure counts as worse than all that is solved, and the
            # more so the farther it lies from the best, so that the search turns back to it
            return found.error if found.failure is None else worst * (1 + abs(logs - known))

        minimize_scalar(
            error,
            bounds=(np.log(left), np.log(right)),
            method="bounded",
            options={"xatol": narrow, "maxiter": 12},
        )
    return sorted(stops, key=lambda s: s.sigma)


def _sweep_grid(study: Study, sigmas: Array, add: Callable[[Stop], Stop]) -> None:
    """All stopping points at once where the batch certifies them; the others in order, one by one."""
    batched = _batched(study, sigmas)
    near: Stop | None = None
    for sigma, found in zip(sigmas, batched, strict=True):
        stop = add(_solve(study, float(sigma), near) if found is None else found)
        near = stop if stop.failure is None else near


def _batched(study: Study, sigmas: Array) -> list[Stop | None]:
    table = study.tables(sigmas)
    if table is None:
        return [None] * sigmas.size
    batch = study.batch(table)
    found = solve_batch(batch)
    disc = (found.bands**2).sum(axis=1)
    score, floor = found.score, found.floor
    if table.given is not None:  # what a run left is a floor to the solver
        score = (table.given * study.model.coupling.factor(table.kappa / np.maximum(found.steps, 1e-300))).sum(axis=1)
        floor = floor - score
    kinds = {
        SCORE: score, FLOOR: floor, LAST_EVALUATION: found.last + table.final_floor,
        DISCRETIZATION: disc, TRUNCATION: table.truncation, INITIAL: table.initial,
    }  # fmt: skip
    parts = np.stack(list(kinds.values()), axis=1).tolist()
    gaps = (found.value - found.lower_bound).tolist()
    near = (batch.final_window * (found.examples + batch.spent)).sum(axis=1) + batch.final_offset
    prices = np.maximum(found.budget_multipliers, 1e-300)
    stops: list[Stop | None] = []
    for r, sigma in enumerate(sigmas.tolist()):
        if not found.relative_gap[r] <= min(study.tolerance, ENOUGH):
            stops.append(None)
            continue
        error = sum(parts[r])
        record = {
            "stopping_sigma": sigma, "error": error, "lower_bound": error - gaps[r],
            "relative_gap": float(found.relative_gap[r]), "status": "solved", "method": "dual Newton",
            **dict(zip(kinds, parts[r], strict=True)),
        }  # fmt: skip
        stops.append(Stop(sigma, error, record, prices[r], found.band_multipliers[r], float(near[r])))
    return stops


def _solve(study: Study, sigma: float, near: Stop | None) -> Stop:
    """By the structured solver where the program is one it knows and it certifies; else as declared."""
    table = study.table(sigma)
    program = study.program(table)
    if program is not None:
        start = None if near is None or near.bands.size != table.response.shape[0] else (near.bands, near.prices)
        found = solve_joint(program, start=start) or solve_joint(program)
        if found is not None and found.relative_gap <= study.tolerance:
            return _from_structure(study, table, found)
    forms = solved_forms(study, table)
    if forms is not None:
        return _from_forms(study, table, forms)
    try:
        plan = study.solve(sigma, None if near is None else near.plan)
    except (InfeasibleError, NotCertifiedError, EmptySelectionError) as error:
        record = {"stopping_sigma": sigma, "error": None, "status": named(error)}
        return Stop(sigma, np.inf, record, np.empty(0), np.empty(0), failure=error)
    return from_plan(plan)


def _from_structure(study: Study, table: Coefficients, found: JointSolution) -> Stop:
    spent = study.spent(table)
    point = Point(found.examples, np.zeros(len(table.levels)) if spent is None else spent, found.steps)
    disc = Discretization(table)
    parts = _errors(table, point, (disc.cause, float((disc.band_sums(point) ** 2).sum())))
    record = _proved(table, parts, (found.value - found.lower_bound, found.relative_gap), "dual Newton")
    # a budget that the structured solver found slack has multiplier 0 and starts no logarithm
    prices = np.maximum(found.budget_multipliers, 1e-300)
    near = float(table.final_window @ point.examples) + table.final_prior
    return Stop(table.stopping_sigma, record["error"], record, prices, found.band_multipliers, near)


def _from_forms(study: Study, table: Coefficients, found: FormStop) -> Stop:
    parts = _errors(table, found.point, (found.cause, found.discretization))
    record = _proved(table, parts, (found.gap, found.relative_gap), found.method)
    return Stop(table.stopping_sigma, record["error"], record, np.maximum(found.prices, 1e-300), np.empty(0))


def _errors(table: Coefficients, point: Point, steps: tuple[str, float]) -> dict[str, float]:
    """By cause; `steps` is what the error of finite steps is called, and how large it is."""
    score = ScoreError(table)
    reducible, floor = score.levels_value(point)
    return {
        SCORE: float(reducible.sum()),
        FLOOR: float(floor.sum()),
        LAST_EVALUATION: sum(score.final_value(point)),
        steps[0]: steps[1],
        TRUNCATION: table.truncation,
        INITIAL: table.initial,
    }


def _proved(table: Coefficients, parts: Mapping[str, float], gaps: tuple[float, float], method: str) -> dict[str, Any]:
    """What is proved at a stopping point, by its gap and relative gap; the plan handed out gets the certificate."""
    error = sum(parts.values())
    return {
        "stopping_sigma": table.stopping_sigma,
        "error": error,
        "lower_bound": error - gaps[0],
        "relative_gap": gaps[1],
        "status": "solved",
        "method": method,
        **parts,
    }


def from_plan(plan: Plan) -> Stop:
    """The declared program's plan as a point of the curve."""
    record = {
        "stopping_sigma": plan.stopping_sigma,
        "error": plan.error,
        "lower_bound": plan.certificate.lower_bound,
        "relative_gap": plan.certificate.relative_gap,
        "status": "optimal",
        "method": "declared program",
        **plan.breakdown,
    }
    prices = [-float(plan.shadow_prices[name]) for name in (COMPUTE, STEPS) if name in plan.shadow_prices]
    bands = 2 * np.sqrt(np.asarray(plan.tables.get("bands", np.empty(0))))
    near = float(np.asarray(plan.tables["final_window"]) @ plan.examples) + plan.final_prior
    return Stop(plan.stopping_sigma, plan.error, record, np.maximum(prices, 1e-300), bands, near, plan)


def bound_between(study: Study, stops: list[Stop], tolerance: float) -> tuple[float, int]:
    """No stopping point between the evaluated ones has a smaller error than this; and the bounds it took.

    Branch and bound: on an interval of stopping points every coefficient is replaced by its smallest
    value there, and the multipliers of the nearest solved point bound the optimum from below
    (docs/theory.md section 7); intervals that do not reach best (1 - tolerance) are halved. Where the
    nearest solved point is far, its multipliers do not carry: the middle is solved and joins `stops`.
    """
    solved = [s for s in stops if s.failure is None]
    if len(solved) < 2 or len(solved) < len(stops):
        return -np.inf, 0
    best, solves = min(s.error for s in solved), 0
    todo = [(a.sigma, b.sigma) for a, b in pairwise(solved)]
    lowest, evaluations, hopeless = best, 0, False
    together = True
    while todo:
        taken, todo = (todo, []) if together else (todo[-1:], todo[:-1])
        near = _nearest(solved, taken)
        values = _interval_bounds(study, taken, near) if together else None
        if values is None and together:  # one by one from here on
            together, todo = False, taken
            continue
        if values is None:
            value = _interval_bound(study, *taken[0], near[0])
            if value is None:
                return -np.inf, evaluations
            values = np.array([value])
        evaluations += len(taken)
        low = values < best * (1 - tolerance)
        hopeless |= any(np.log(b / a) < _NARROW for (a, b), found in zip(taken, low, strict=True) if found)
        if hopeless or evaluations >= _BOUND_EVALUATIONS:
            low[:] = False
        lowest = min(lowest, float(values[~low].min(initial=np.inf)))
        halved = [(i, *taken[i], float(np.sqrt(taken[i][0] * taken[i][1]))) for i in np.flatnonzero(low)]
        wanted = halved[: _BOUND_SOLVES - solves]
        solves += len(wanted)
        found = _solve_all(study, np.array([middle for *_, middle in wanted]), [near[i] for i, *_ in wanted])
        solved += [stop for stop in found if stop.failure is None]
        best = min(s.error for s in solved)
        todo += [half for _, a, b, middle in halved for half in ((a, middle), (middle, b))]
    stops[:] = sorted({id(s): s for s in [*stops, *solved]}.values(), key=lambda s: s.sigma)
    return float(min(lowest, best)), evaluations


def solved_at(study: Study, sigmas: list[float]) -> list[Stop]:
    """Those of the stopping points that have a certified optimum, solved."""
    found = _solve_all(study, np.array(sigmas), [None] * len(sigmas))
    return [stop for stop in found if stop.failure is None]


def bounds_of(study: Study, intervals: list[tuple[float, float]], solved: list[Stop]) -> Array:
    """(N,) lower bounds over intervals of stopping points by multipliers of the nearest solved; -inf where none."""
    near = _nearest(solved, intervals)
    values = _interval_bounds(study, intervals, near)
    if values is None:
        singles = [_interval_bound(study, *each, stop) for each, stop in zip(intervals, near, strict=True)]
        values = np.array([-np.inf if value is None else value for value in singles])
    return np.where(np.isnan(values), -np.inf, values)


def _nearest(solved: list[Stop], intervals: list[tuple[float, float]]) -> list[Stop]:
    """The solved point nearest to the middle of each interval."""
    known = np.log([s.sigma for s in solved])
    middle = 0.5 * np.log(intervals).sum(axis=1)
    return [solved[i] for i in np.abs(known - middle[:, None]).argmin(axis=1)]


def _solve_all(study: Study, sigmas: Array, near: Sequence[Stop | None]) -> list[Stop]:
    if not sigmas.size:
        return []
    batched = _batched(study, sigmas)
    return [
        _solve(study, float(sigma), start) if found is None else found
        for sigma, start, found in zip(sigmas, near, batched, strict=True)
    ]


def _interval_bounds(study: Study, intervals: list[tuple[float, float]], near: list[Stop]) -> Array | None:
    """Bounds of all intervals at once, those that the batch leaves out one by one; None where there is no batch."""
    shapes = {(stop.prices.size, stop.bands.size) for stop in near}
    if len(shapes) > 1 or study.terms:
        return None
    lows, highs = np.array(intervals).T
    prices, bands = np.stack([stop.prices for stop in near]), np.stack([stop.bands for stop in near])
    values = interval_bounds(study, lows, highs, prices, bands, np.array([stop.near_examples for stop in near]))
    if values is None:
        return None
    for i in np.flatnonzero(np.isnan(values)):
        value = _interval_bound(study, float(lows[i]), float(highs[i]), near[i])
        values[i] = -np.inf if value is None else value
    return values


def _interval_bound(study: Study, a: float, b: float, near: Stop) -> float | None:
    table = study.model.interval_coefficients(a, b, study.levels)
    if table is None or table.pooling is not None:
        return None
    table = study.without_training(table)
    size, spent, given = len(table.levels), study.most_spent(table.levels, a), None
    if not study.trains:  # those of a run alone, or any number: nothing depends on them
        given = np.zeros(size) if study.taught else np.ones(size)
    bound = LagrangianBound(size, np.zeros(size) if spent is None else spent, fixed_examples=given)
    errors = (table.example_error, table.floor_error)
    bound.parts.append(ScorePart(*errors, table.coupling, table.kappa, prior=table.prior_examples))
    bound.powers.append((float(table.order), near.bands @ table.step_response))
    bound.constant += table.truncation + table.initial + table.final_floor - float(near.bands @ near.bands) / 4
    _add_budgets(bound, study, table, near)
    _add_last_evaluation(bound, study, table, a, near)
    for weight, term in shared_terms(study):
        add_shared(bound, study, (weight, term), (a, b), near.plan, float(near.prices[0]))
    return bound.value()


def _add_last_evaluation(bound: LagrangianBound, study: Study, table: Coefficients, a: float, near: Stop) -> None:
    """The last evaluation's A / m_r by its tangent: at least 2 A / N - A m_r / N^2 for every N > 0.

    A rises with the stopping point: taken at `a`. m_r is what the untrained denoiser is worth and examples from `a` to
    one correlation length above the interval; those below the table's levels are left out, which is lower as long as
    an example there costs more than the tangent gives for it.
    """
    length = table.coupling.constant_length
    if not study.trains or near.near_examples <= 0 or length is None or study.prices is None:
        if study.taught and not study.trains and length is not None:
            _add_given_evaluation(bound, study, table, (a, table.stopping_sigma * float(np.exp(length))))
        return
    whole = study.table(a)
    cheapest = float(near.prices[0] * study.prices.example_price(whole.levels).min())
    if whole.final_score <= 0:
        return
    size = max(near.near_examples, float(np.sqrt(whole.final_score / cheapest)))
    rate = whole.final_score / size**2
    top = table.stopping_sigma * float(np.exp(length))

    def window(levels: Levels) -> Array:
        return levels.overlap(a, top) / levels.log_width

    spent = study.spent(whole)
    worth = replace(whole, final_untrained=table.final_untrained).final_prior
    bound.constant += 2 * whole.final_score / size - rate * worth
    bound.constant -= 0.0 if spent is None else rate * float(window(whole.levels) @ spent)
    bound.add_linear(0.0, -rate * window(table.levels), np.zeros(len(table.levels)))


def _add_given_evaluation(
    bound: LagrangianBound, study: Study, table: Coefficients, reach: tuple[float, float]
) -> None:
    """The same after a run: A / m_r with A the least of the interval, and all that serve it anywhere there."""
    low, top = reach
    whole = study.table(low)
    spent = study.spent(whole)
    if whole.final_score > 0 and spent is not None:
        near = float((whole.levels.overlap(low, top) / whole.levels.log_width) @ spent)
        near += replace(whole, final_untrained=table.final_untrained).final_prior
        bound.constant += whole.final_score / near if near > 0 else 0.0


def _add_budgets(bound: LagrangianBound, study: Study, table: Coefficients, near: Stop) -> None:
    limits = study.budgets.of(table, interval=True)
    for price, left, example, step in zip(
        near.prices.tolist(), limits.left.tolist(), limits.example_prices, limits.step_prices, strict=True
    ):
        bound.add_linear(-price * left, price * example, price * step)
    bound.examples_box = (bound.examples_box[0], limits.most_examples)
    bound.steps_box = (bound.steps_box[0], limits.most_steps)
