"""codesign(): the loop over the stopping point, and the grid that is handed out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ._validate import Array, integer, number, vector
from .auditing import TrainingRun
from .certificate import LagrangianBound
from .errors import CodesignError, InfeasibleError, NotCertifiedError
from .gaussian_laws import check_grid
from .grids import steps_on_levels
from .handout import hand_out
from .modeling import Bound, Compute, Discretization, Problem, ScoreError, Steps, Sum, Term, Truncation, named
from .plan import Plan
from .prices import Prices
from .samplers import Sampler

__all__ = ["codesign"]

_BOUND_EVALUATIONS = 800
Progress = bool | Callable[[str], None] | None


@dataclass(frozen=True, eq=False)
class Study:
    """One question to the planner, for any stopping point."""

    model: Any
    prices: Prices | None
    budget: float | None
    steps: float | None
    run: TrainingRun | None
    constraints: tuple[Any, ...]
    terms: tuple[Term, ...]
    levels: int
    tolerance: float

    @property
    def trains(self) -> bool:
        """Whether examples are decided; else only the sampler is."""
        return self.budget is not None

    def problem(self, stopping_sigma: float) -> Problem:
        """The declared program at one stopping point."""
        table = self.model.coefficients(stopping_sigma, self.levels)
        if not self.trains:
            table = replace(table, score=np.zeros(len(table.levels)), final_score=0.0)
        parts: list[Term] = [ScoreError(table), Discretization(table), Truncation(table), *self.terms]
        objective = Sum(tuple(leaf for part in parts for leaf in part.leaves()))
        spent = self.run.examples_on(table.levels) if self.run is not None and self.trains else None
        return Problem(objective, [*self.budgets(), *self.constraints], spent=spent)

    def budgets(self) -> list[Any]:
        """The bounds that the question itself states."""
        bounds: list[Any] = []
        if self.prices is not None and self.budget is not None:
            bounds.append(named("budget", Compute(self.prices) <= self.budget))
        if self.steps is not None:
            bounds.append(named("steps", Steps() <= self.steps))
        return bounds

    def solve(self, stopping_sigma: float, start: Plan | None = None) -> Plan:
        """The certified plan at one stopping point."""
        return self.problem(stopping_sigma).solve(tolerance=self.tolerance, start=start)


def codesign(
    model: Any,
    prices: Prices | None = None,
    budget: float | None = None,
    *,
    steps: int | None = None,
    sigmas: Any = None,
    run: TrainingRun | None = None,
    samplers: Sequence[Sampler] | None = None,
    stopping_sigma: float | None = None,
    search: tuple[float, float] | None = None,
    points: int = 24,
    levels: int = 200,
    constraints: Sequence[Any] = (),
    terms: Sequence[Term] = (),
    polish: bool | None = None,
    tolerance: float = 1e-6,
    outer_tolerance: float = 1e-3,
    progress: Progress = None,
) -> Plan:
    """Where to train, where to step, where to stop, and how to split one budget between them.

    For every stopping point the joint program of docs/theory.md section 7 is solved and certified;
    the loop over stopping points keeps the whole curve and bounds the error between them. The best
    point's step density becomes a grid of whole steps, polished on the exact error where that is
    known, and the examples are solved once more for that grid with the discrete kernel.

    Args:
        model: GaussianModel, or any object with its methods.
        prices, budget: what compute costs and how much there is, in one unit. Without them only the
            sampler is planned.
        steps: number of sampler steps, the last to zero included; with `samplers`, the number of
            evaluations per image that each of them may use.
        sigmas: a sampler grid that is given; then only training is planned.
        run: a training run already made; its examples count and cost nothing.
        samplers: samplers to choose from; each is planned, the smallest error wins.
        stopping_sigma: a stopping point that is given; searched over unless it is.
        search: range of stopping points; from process.sigma_min to the data's standard deviation.
        points: stopping points on the first sweep, >= 3.
        levels: levels over the whole range of sigma.
        constraints, terms: further constraints and terms of the modelling language; functions of the
            design, since the levels change with the stopping point.
        polish: descend the exact error of the grid; by default below 20 steps, and always where the
            leading order is only an upper model (a sampler whose local error changes sign).
        tolerance: certified relative gap at every stopping point.
        outer_tolerance: relative gap to the bound over all stopping points at which "optimal" is said.
        progress: True for a line on stderr per stopping point, or a function of a text.

    Returns:
        Plan; `plan.curve` holds every stopping point tried, `plan.outer` what is known between them.

    Raises:
        ValueError: an argument out of range, or a question without limits.
        InfeasibleError, NotCertifiedError: no stopping point has a certified plan.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Euler())
    >>> plan = codesign(model, steps=10, stopping_sigma=0.01, levels=60)
    >>> plan.sigmas.size, plan.certificate.optimal
    (11, True)
    """
    tell = _teller(progress)
    if samplers is not None:
        return _choose_sampler(model, samplers, steps, locals_without(locals(), "model", "samplers", "steps", "tell"))
    study = _study(model, prices, budget, steps, run, constraints, terms, levels, tolerance)
    if sigmas is not None:
        if steps is not None or stopping_sigma is not None:
            raise ValueError("codesign: sigmas is given, so that steps and stopping_sigma follow from it; leave them out.")
        return _train_only(study, check_grid(sigmas).sigmas)
    if stopping_sigma is not None:
        stop = number(stopping_sigma, "stopping_sigma", positive=True)
        plan = study.solve(stop)
        curve, outer = (_record(stop, plan),), {"status": "given", "points": 1}
    else:
        low, high = _range(model, search)
        plans = _sweep(study, low, high, integer(points, "points", minimum=3), tell)
        plan, curve, outer = _conclude(study, plans, low, high, outer_tolerance)
    plan = replace(plan, curve=curve, outer=outer)
    return hand_out(study, plan, polish=polish)


def locals_without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in names}


def _teller(progress: Progress) -> Callable[[str], None]:
    if callable(progress):
        return progress
    if progress:
        return lambda text: print(text, file=sys.stderr, flush=True)
    return lambda text: None


def _study(
    model: Any,
    prices: Prices | None,
    budget: float | None,
    steps: int | None,
    run: TrainingRun | None,
    constraints: Sequence[Any],
    terms: Sequence[Term],
    levels: int,
    tolerance: float,
) -> Study:
    if not hasattr(model, "coefficients"):
        raise ValueError(f"codesign: model is {model!r}; give a GaussianModel or an object with its methods.")
    if (prices is None) != (budget is None):
        missing = "budget" if budget is None else "prices"
        raise ValueError(f"codesign: {missing} is missing; give prices and budget together, or steps alone.")
    if prices is not None and not isinstance(prices, Prices):
        raise ValueError(f"codesign: prices is {prices!r}; give co.Prices(example=…, evaluation=…, images=…).")
    if prices is None and steps is None:
        raise ValueError("codesign: nothing limits the plan; give prices and budget, or steps.")
    if prices is not None and prices.images == 0 and steps is None:
        raise ValueError("codesign: images is 0, so that steps cost nothing; give steps, or images > 0.")
    if isinstance(constraints, (Bound, str)) or callable(constraints):
        raise TypeError("codesign: constraints must be a list.")
    return Study(
        model,
        prices,
        None if budget is None else number(budget, "budget", positive=True),
        None if steps is None else float(integer(steps, "steps", minimum=2 if model.terminal == "denoise" else 1)),
        run,
        tuple(constraints),
        tuple(terms),
        integer(levels, "levels", minimum=2),
        number(tolerance, "tolerance", positive=True),
    )


def _range(model: Any, search: tuple[float, float] | None) -> tuple[float, float]:
    low, high = model.process.sigma_min, min(model.spectrum.sigma_data, 0.5 * model.process.sigma_max)
    if search is not None:
        pair = vector(search, "search", length=2, positive=True, ascending=True)
        low, high = float(pair[0]), float(pair[1])
    if not low < high < model.process.sigma_max:
        raise ValueError(
            f"search runs from {low:g} to {high:g}; it must be ascending and end below sigma_max = "
            f"{model.process.sigma_max:g}. Give search=(low, high)."
        )
    return low, high


def _choose_sampler(model: Any, samplers: Sequence[Sampler], steps: int | None, options: dict[str, Any]) -> Plan:
    """Plan with each sampler and keep the smallest handed-out error; compared per evaluation."""
    if not samplers:
        raise ValueError("codesign: samplers is empty; leave it out, or list at least one.")
    options = {**options, "samplers": None}
    table: dict[str, dict[str, float]] = {}
    best: Plan | None = None
    for sampler in samplers:
        final = 1 if model.terminal == "denoise" else 0
        allowed = None if steps is None else (steps - final) // sampler.evaluations_per_step + final
        plan = codesign(replace(model, sampler=sampler), steps=allowed, **options)
        error = plan.handed_out.get("total", plan.error)
        used = (plan.number_of_steps - final) * sampler.evaluations_per_step + final
        table[repr(sampler)] = {"error": error, "steps": plan.number_of_steps, "evaluations": used}
        if best is None or error < best.handed_out.get("total", best.error):
            best = plan
    assert best is not None  # noqa: S101 - samplers is not empty
    return replace(best, outer={**best.outer, "samplers": table})


def _train_only(study: Study, sigmas: Array) -> Plan:
    """The sampler is given: one convex program for the examples, with the discrete kernel."""
    if not study.trains:
        raise ValueError("codesign: with sigmas given, prices and budget are needed to plan the training.")
    table = study.model.settled_coefficients(sigmas, study.levels)
    spent = None if study.run is None else study.run.examples_on(table.levels)
    parts: list[Term] = [ScoreError(table), Truncation(table), *study.terms]
    objective = Sum(tuple(leaf for part in parts for leaf in part.leaves()))
    problem = Problem(
        objective, [*study.budgets(), *study.constraints], steps=steps_on_levels(table.levels, sigmas), spent=spent
    )
    plan = problem.solve(tolerance=study.tolerance)
    plan = replace(plan, sigmas=sigmas, outer={"status": "given", "points": 1})
    return hand_out(study, plan, polish=False)


# the loop over stopping points


def _sweep(
    study: Study, low: float, high: float, points: int, tell: Callable[[str], None]
) -> list[tuple[float, Plan | CodesignError]]:
    """Plans on a log grid of stopping points, then a bounded scalar refinement around the best."""
    found: list[tuple[float, Plan | CodesignError]] = []

    def solve(stop: float, start: Plan | None) -> Plan | None:
        try:
            plan = study.solve(stop, start)
        except (InfeasibleError, NotCertifiedError) as error:
            found.append((stop, error))
            tell(f"stopping sigma {stop:.4g}: {type(error).__name__}")
            return start
        found.append((stop, plan))
        tell(f"stopping sigma {stop:.4g}: error {plan.error:.6g}")
        return plan

    previous: Plan | None = None
    for stop in np.geomspace(high, low, points):
        previous = solve(float(stop), previous)
    solved = sorted((s, p) for s, p in found if isinstance(p, Plan))
    if not solved:
        error = found[0][1]
        raise error if isinstance(error, CodesignError) else CodesignError("no plan")
    errors = [p.error for _, p in solved]
    i = int(np.argmin(errors))
    left, right = solved[max(i - 1, 0)][0], solved[min(i + 1, len(solved) - 1)][0]
    start = solved[i][1]

    def refine(log_stop: float) -> float:
        plan = solve(float(np.exp(log_stop)), start)
        return plan.error if plan is not None else np.inf

    if right > left:
        minimize_scalar(
            refine, bounds=(np.log(left), np.log(right)), method="bounded", options={"xatol": 3e-3, "maxiter": 12}
        )
    return found


def _record(stop: float, plan: Plan | CodesignError) -> dict[str, Any]:
    if isinstance(plan, Plan):
        return {
            "stopping_sigma": stop,
            "error": plan.error,
            "lower_bound": plan.certificate.lower_bound,
            "relative_gap": plan.certificate.relative_gap,
            "status": "optimal",
            **plan.breakdown,
        }
    return {"stopping_sigma": stop, "error": None, "status": f"{type(plan).__name__}: {plan}"}


def _conclude(
    study: Study, found: list[tuple[float, Plan | CodesignError]], low: float, high: float, tolerance: float
) -> tuple[Plan, tuple[dict[str, Any], ...], dict[str, Any]]:
    curve = tuple(_record(s, p) for s, p in sorted(found, key=lambda item: item[0]))
    solved = sorted(((s, p) for s, p in found if isinstance(p, Plan)), key=lambda item: item[0])
    stop, plan = min(solved, key=lambda item: item[1].error)
    bound, evaluations = _bound_over_interval(study, solved, plan.error, tolerance)
    gap = (plan.error - bound) / plan.error if np.isfinite(bound) else float("inf")
    width = np.log(high / low)
    outer = {
        "status": "optimal" if gap <= tolerance * (1 + 1e-9) else f"best of {len(solved)}",
        "points": len(solved),
        "lower_bound": bound,
        "relative_gap": gap,
        "tolerance": tolerance,
        "low": low,
        "high": high,
        "at_end": bool(min(np.log(stop / low), np.log(high / stop)) < 0.01 * width),
        "bound_evaluations": evaluations,
    }
    return plan, curve, outer


def _bound_over_interval(
    study: Study, solved: list[tuple[float, Plan]], best: float, tolerance: float
) -> tuple[float, int]:
    """No stopping point between the evaluated ones has a smaller error than this.

    Branch and bound: on an interval of stopping points every coefficient is replaced by its smallest
    value there, and the multipliers of the nearest solved point bound the optimum from below
    (docs/theory.md section 7); intervals that do not reach the target are halved.
    """
    if study.terms or len(solved) < 2 or not hasattr(study.model, "interval_coefficients"):
        return -np.inf, 0
    target = best * (1 - tolerance)
    stops = np.array([s for s, _ in solved])
    open_intervals = [(float(a), float(b)) for a, b in zip(stops[:-1], stops[1:], strict=True)]
    lowest, evaluations = np.inf, 0
    while open_intervals:
        a, b = open_intervals.pop()
        value = _interval_bound(study, a, b, solved, stops)
        evaluations += 1
        if value is None:
            return -np.inf, evaluations
        if value >= target or evaluations >= _BOUND_EVALUATIONS:
            lowest = min(lowest, value)
            continue
        middle = float(np.sqrt(a * b))
        open_intervals += [(a, middle), (middle, b)]
    return float(min(lowest, best)), evaluations


def _interval_bound(study: Study, a: float, b: float, solved: list[tuple[float, Plan]], stops: Array) -> float | None:
    table = study.model.interval_coefficients(a, b, study.levels)
    if table is None or table.coupling.pooling(table.levels) is not None:
        return None
    plan = solved[int(np.argmin(np.abs(np.log(stops) - 0.5 * np.log(a * b))))][1]
    if not study.trains:
        table = replace(table, score=np.zeros(len(table.levels)))
    size = len(table.levels)
    spent = study.run.examples_on(table.levels) if study.run is not None and study.trains else np.zeros(size)
    bound = LagrangianBound(size, spent, fixed_examples=None if study.trains else np.ones(size))
    ScoreError(table).add_to(bound, 1.0, plan_point(plan))
    sums = np.sqrt(np.asarray(plan.tables["bands"]))
    bound.powers.append((float(table.order), 2 * sums @ table.step_response))
    bound.constant += table.truncation + table.initial - float(sums @ sums)
    _add_budgets(bound, study, table, plan)
    return bound.value()


def plan_point(plan: Plan) -> Any:
    from .modeling import Point

    return Point(plan.new_examples, plan.examples - plan.new_examples, plan.steps)


def _add_budgets(bound: LagrangianBound, study: Study, table: Any, plan: Plan) -> None:
    size = len(table.levels)
    if study.prices is not None and study.budget is not None:
        price = -float(plan.shadow_prices["budget"])
        example = study.prices.example_price(table.levels)
        step = study.prices.evaluation_price(table.levels) * table.evaluations_per_step
        final = 0.0
        if table.final_steps and not callable(study.prices.evaluation):
            final = study.prices.final_price(table.stopping_sigma)  # a function of sigma: left out, which is lower
        bound.add_linear(price * (final - study.budget), price * example, price * step)
        bound.examples_box = (bound.examples_box[0], study.budget / example)
        if np.all(step > 0):
            bound.steps_box = (bound.steps_box[0], study.budget / step)
    if study.steps is not None:
        price = -float(plan.shadow_prices["steps"])
        bound.add_linear(price * (table.final_steps - study.steps), np.zeros(size), np.full(size, price))
        bound.steps_box = (bound.steps_box[0], np.minimum(bound.steps_box[1], study.steps))
