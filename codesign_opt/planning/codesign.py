"""codesign(): where to train, where to step, where to stop, and how to split one budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..basics.checks import Array, integer, number, vector
from ..basics.errors import CodesignError, InfeasibleError, NotCertifiedError
from ..basics.wording import Progress, teller
from ..ingredients.grids import check_grid, grid_from_steps, steps_on_levels
from ..ingredients.prices import Prices
from ..ingredients.training_run import TrainingRun
from ..modeling import Term
from ..models.estimated import EstimatedModel
from ..results.plan import Plan
from ..samplers.members import Sampler
from .few_steps import exact_stop
from .question import Study
from .stopping_points import Stop, bound_between, from_plan, sweep
from .whole_steps import hand_out

__all__ = ["codesign"]

_TRIES = 4
_ROUNDS, _STILL = 2, 0.1  # measuring responses at the plan's steps: at most so often, or until it moves less
_NARROW, _NARROW_BEFORE = 3e-3, 2e-2  # in log sigma, of the search for the best stopping point


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
        polish: descend the exact error of the grid; by default below 20 steps, and up to 32 where the
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
    tell = teller(progress)
    if samplers is not None:
        options = {
            "prices": prices, "budget": budget, "run": run, "stopping_sigma": stopping_sigma, "search": search,
            "points": points, "levels": levels, "constraints": constraints, "terms": terms, "polish": polish,
            "tolerance": tolerance, "outer_tolerance": outer_tolerance, "progress": progress,
        }  # fmt: skip
        if sigmas is not None:
            raise ValueError("codesign: sigmas and samplers are both given; a given grid belongs to one sampler.")
        return _choose_sampler(model, samplers, steps, options)
    study = _study(model, prices, budget, steps, run, constraints, terms, levels, tolerance)
    if sigmas is not None:
        if steps is not None or stopping_sigma is not None:
            raise ValueError(
                "codesign: sigmas is given, so that steps and stopping_sigma follow from it; leave them out."
            )
        return _train_only(study, check_grid(sigmas).sigmas)
    low, high = _range(model, search)
    points = integer(points, "points", minimum=3)
    outer_tolerance = number(outer_tolerance, "outer_tolerance", positive=True)

    def solve(study: Study, last: bool) -> Plan:
        if stopping_sigma is not None:
            plan = study.solve(number(stopping_sigma, "stopping_sigma", positive=True))
            return replace(plan, curve=(from_plan(plan).record,), outer={"status": "given", "points": 1})
        tried, narrow = (points, _NARROW) if last else (max(3, points // 3), _NARROW_BEFORE)
        return _best_of(study, sweep(study, low, high, tried, tell, narrow=narrow), low, high, outer_tolerance)

    before = _calls(model)
    study, plan = _settled(study, solve, tell)
    plan = hand_out(study, plan, polish=polish)
    if before is not None and plan.estimation is not None:
        plan = replace(plan, estimation=replace(plan.estimation, plan_evaluations=_calls(model) - before))
    if stopping_sigma is not None or polish is False or study.constraints:
        return plan
    if search is None:  # few steps may stop anywhere
        low, high = model.process.sigma_min, 0.5 * model.process.sigma_max
    return exact_stop(study, plan, low, high)


def _settled(study: Study, solve: Callable[[Study, bool], Plan], tell: Callable[[str], None]) -> tuple[Study, Plan]:
    """The plan; for a measured model, of responses measured anew at the plan's own steps until it stops moving.

    Plans on the way only say where to measure: they try fewer stopping points than the last one.
    """
    if getattr(study.model, "probe", None) is None:
        return study, solve(study, True)
    plan, moved = solve(study, False), np.inf
    rounds, grid = 0, _whole(plan)
    while rounds < _ROUNDS and moved > _STILL and (rounds == 0 or study.model.probe.affords_response):
        study = replace(study, model=study.model.at_steps(grid))
        plan, before, rounds = solve(study, rounds + 1 == _ROUNDS), grid, rounds + 1
        grid = _whole(plan)
        moved = _moved(grid, before)
        tell(f"responses measured at the plan's steps, round {rounds}: levels moved by up to {moved:.2g} in log sigma")
    if rounds < _ROUNDS and plan.outer.get("status") != "given":
        plan = solve(study, True)
    said = f"responses measured {rounds} times at the plan's own steps; levels last moved by up to {moved:.2g}"
    return study, replace(plan, notes=(*plan.notes, f"{said} in log sigma"))


def _moved(grid: Array, before: Array) -> float:
    """Largest change of log sigma at equal shares of the steps, which may be other in number."""
    logs = [np.log(g[g > 0]) for g in (grid, before)]
    shares = [np.linspace(0.0, 1.0, log.size) for log in logs]
    at = np.union1d(*shares)
    values = [np.interp(at, share, log) for share, log in zip(shares, logs, strict=True)]
    return float(np.abs(values[0] - values[1]).max())


def _calls(model: Any) -> Any:
    """Batches that a live denoiser was asked for so far; None without one."""
    probe = getattr(model, "probe", None)
    return None if probe is None else probe.calls


def _whole(plan: Plan) -> Array:
    final = 1 if plan.terminal == "denoise" else 0
    count = max(1 + final, round(float(plan.steps.sum())) + final)
    return grid_from_steps(plan.levels, plan.steps, count, terminal=plan.terminal)


def _best_of(study: Study, stops: list[Stop], low: float, high: float, tolerance: float) -> Plan:
    """The declared program's plan at the best stopping point, with the curve and what is proved about it."""
    bound, evaluations = bound_between(study, stops, tolerance)
    best, plan = _declared_best(study, stops)
    gap = (plan.error - bound) / plan.error if np.isfinite(bound) else float("inf")
    width = np.log(high / low)
    solved = sum(stop.failure is None for stop in stops)
    outer = {
        "status": "optimal" if gap <= tolerance * (1 + 1e-9) else f"best of {solved}",
        "points": solved,
        "lower_bound": bound,
        "relative_gap": gap,
        "tolerance": tolerance,
        "low": low,
        "high": high,
        "at_end": bool(min(np.log(best.sigma / low), np.log(high / best.sigma)) < 0.01 * width),
        "bound_evaluations": evaluations,
    }
    return replace(plan, curve=tuple(stop.record for stop in stops), outer=outer)


def _declared_best(study: Study, stops: list[Stop]) -> tuple[Stop, Plan]:
    """The best stopping point whose declared program is certified too."""
    failure: NotCertifiedError | None = None
    for stop in sorted(stops, key=lambda stop: stop.error)[:_TRIES]:
        if stop.failure is not None:
            break
        if stop.plan is not None:
            return stop, stop.plan
        try:
            return stop, study.solve(stop.sigma)
        except NotCertifiedError as error:
            failure = error
    assert failure is not None
    raise failure


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
    if prices is not None and not getattr(model, "trained", True):
        raise ValueError(
            "codesign: the model was estimated without training, so that only the sampler can be planned; give steps "
            "instead of prices and budget, or estimate with training=co.TrainingRun(…)."
        )
    if prices is not None and prices.images == 0 and steps is None:
        raise ValueError("codesign: images is 0, so that steps cost nothing; give steps, or images > 0.")
    if not isinstance(constraints, (list, tuple)):
        raise TypeError("codesign: constraints must be a list.")
    if not isinstance(terms, (list, tuple)) or not all(isinstance(term, Term) for term in terms):
        raise TypeError("codesign: terms must be a list of terms.")
    if run is not None and prices is None:
        raise ValueError("codesign: run counts examples, but without prices none are planned; give prices and budget.")
    if run is not None and not isinstance(run, TrainingRun):
        raise ValueError(f"codesign: run is {run!r}; give co.TrainingRun(density=…, iterations=…, batch=…).")
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
    if not isinstance(samplers, (list, tuple)) or not samplers:
        raise ValueError(f"codesign: samplers is {samplers!r}; leave it out, or list at least one sampler.")
    for sampler in samplers:
        if not isinstance(sampler, Sampler):
            raise ValueError(f"codesign: samplers holds {sampler!r}; a Sampler is needed, such as co.Heun().")
        if isinstance(model, EstimatedModel) and sampler.to_dict() != model.sampler.to_dict():
            raise ValueError(
                f"codesign: samplers holds {sampler!r}, but the model's responses were measured with "
                f"{model.sampler!r}; estimate.network once for each sampler, plan with each, and compare."
            )
    table: dict[str, dict[str, Any]] = {}
    best: Plan | None = None
    failure: Exception | None = None
    for sampler in samplers:
        final = 1 if model.terminal == "denoise" else 0
        allowed = None if steps is None else (steps - final) // sampler.evaluations_per_step + final
        if allowed is not None and allowed < 1 + final:
            table[repr(sampler)] = {"failure": f"{steps} evaluations are too few for one step"}
            continue
        try:
            plan = codesign(replace(model, sampler=sampler), steps=allowed, **options)
        except CodesignError as problem:
            failure = problem
            table[repr(sampler)] = {"failure": str(problem)}
            continue
        error = plan.handed_out.get("total", plan.error)
        used = (plan.number_of_steps - final) * sampler.evaluations_per_step + final
        table[repr(sampler)] = {"error": error, "steps": plan.number_of_steps, "evaluations": used}
        if best is None or error < best.handed_out.get("total", best.error):
            best = plan
    if best is None:
        said = "; ".join(f"{name}: {record['failure']}" for name, record in table.items())
        raise InfeasibleError(f"No sampler could be planned. {said}") from failure
    return replace(best, outer={**best.outer, "samplers": table})


def _train_only(study: Study, sigmas: Array) -> Plan:
    """The sampler is given: one convex program for the examples, with the discrete kernel."""
    if not study.trains:
        raise ValueError("codesign: with sigmas given, prices and budget are needed to plan the training.")
    table = study.model.settled_coefficients(sigmas, study.levels)
    plan = study.settled_problem(table, steps_on_levels(table.levels, sigmas)).solve(tolerance=study.tolerance)
    parts = dict(plan.breakdown)
    bias = parts.pop("truncation", 0.0) + parts.pop("initial", 0.0)  # of a given grid: steps, stopping and start
    plan = replace(plan, sigmas=sigmas, breakdown={"bias": bias, **parts}, outer={"status": "given", "points": 1})
    return hand_out(study, plan, polish=False)
