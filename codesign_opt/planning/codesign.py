"""codesign(): where to train, where to step, where to stop, and how to split one budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.causes import BIAS, INITIAL, TOTAL, TRUNCATION
from ..basics.checks import Array, choice, integer, noise_level, number, shown, vector
from ..basics.errors import CodesignError, InfeasibleError, NotCertifiedError
from ..basics.progress import Progress, Teller, teller
from ..basics.spelling import spelled
from ..ingredients.evaluations import MOST_STEPS, evaluations, final_steps, least_steps, steps_within
from ..ingredients.fit_rules import FitRules
from ..ingredients.grids import check_grid, grid_from_steps, steps_on_levels
from ..ingredients.prices import Prices
from ..ingredients.training_run import TrainingRun
from ..modeling import InformationError, Term
from ..models.base import Model, check_model
from ..results.plan import Plan
from ..samplers.members import Sampler
from .asked import question_of
from .declared_bounds import Between, declared_bounds
from .question import Study
from .real_steps import START
from .shared_stops import only_shared
from .stopping_points import Stop, bound_between, from_plan, sweep
from .whole_steps import hand_out

__all__ = ["codesign"]

_TRIES = 4
_MOST_POINTS = 10_000  # stopping points of the search, each of which is a program
_ROUNDS, _STILL = 2, 0.3  # measuring responses at the plan's steps: at most so often, or until it moves less
_NARROW, _NARROW_BEFORE = 3e-3, 2e-2  # in log sigma, of the search for the best stopping point


@spelled
def codesign(
    model: Model,
    prices: Prices | None = None,
    budget: float | None = None,
    *,
    steps: int | None = None,
    sigmas: Any = None,
    run: TrainingRun | None = None,
    samplers: Sequence[Sampler | str] | None = None,
    stopping_sigma: float | None = None,
    search: tuple[float, float] | None = None,
    points: int = 24,
    levels: int = 200,
    constraints: Sequence[Any] = (),
    terms: Sequence[Term] = (),
    polish: bool | None = None,
    objective: str | None = None,
    solver: str | None = None,
    history: int | str = 3,
    tolerance: float = 1e-6,
    outer_tolerance: float = 1e-3,
    progress: Progress = None,
) -> Plan:
    """Where to train, where to step, where to stop, and how to split one budget between them.

    For every stopping point the joint program of docs/theory.md section 7 is solved and certified;
    the loop over stopping points keeps the whole curve and bounds the error between them. The best
    point's step density becomes a grid of whole steps: their number, nodes and stopping point descend the
    exact error where that is known, and the examples are solved once more for the grid with the discrete
    kernel, or with errors that windows of a correlation length share, whichever leaves less. The proof is of the
    program's leading-order error at its own best stopping point (`error`, `program_stopping_sigma`); `handed_out` is
    what `model.predict` tells of the whole steps and their examples: exact without training (section 6.6).

    Args:
        model: GaussianModel, EstimatedModel, or a Model of your own.
        prices, budget: what compute costs and how much there is, in one unit. Without them only the
            sampler is planned: of a perfect denoiser, or with the error that a `run` leaves.
        steps: the most sampler steps, the last to zero included; with `samplers`, the number of
            evaluations per image that each of them may use. Where nothing is trained, up to 200 never leave more
            than fewer, by construction (docs/theory.md section 7.8); beside training that is tested, not proved.
        sigmas: a sampler grid that is given; then only training is planned.
        run: a training run already made; its examples count and cost nothing. Without prices nothing is trained after
            it: the sampler is planned for the denoiser that it leaves.
        samplers: samplers to choose from, or their names; each is planned, the smallest error wins.
        stopping_sigma: a stopping point that is given; searched over unless it is.
        search: range of stopping points; from process.sigma_min to the data's standard deviation,
            or, where that lies below, to the geometric middle of the process's range.
        points: stopping points on the first sweep, >= 3.
        levels: levels over the whole range of sigma.
        constraints, terms: further constraints and terms of the modelling language; functions of the
            design, since the levels change with the stopping point.
        polish: descend the exact error of the grid; by default wherever the model knows it. False keeps the
            program's density and stopping point.
        objective: of a measured model, what grids are descended, compared and quoted by: the "mean" of the errors of
            draws, the mean "trimmed" of the largest tenth, or their "geometric" mean, that of a typical draw; the
            model's own unless given. The program that is proved is of the mean.
        solver: "fit": of a measured model, a multistep sampler whose coefficients and inner levels are fitted to the
            denoiser, from the plan's grid on (docs/theory.md section 7.11): `plan.solver`. One evaluation a step.
        history: outputs of the denoiser that a step of it takes; "all": three, then, as a last polish that is kept
            where held-out draws gain, every one before it.
        tolerance: certified relative gap at every stopping point.
        outer_tolerance: relative gap to the bound over all stopping points at which "optimal" is said.
        progress: after each stopping point: True, False, None (in a terminal or notebook, after 2 s), or a function of
            (done, total, text).

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
    model = check_model(model, "codesign")
    model = model if objective is None else model.with_objective(objective)
    least = 1 if samplers is not None else least_steps(model.terminal)
    steps = None if steps is None else integer(steps, "steps", minimum=least, maximum=MOST_STEPS)
    fit = _rules(solver, history, (sigmas, samplers, constraints))
    study = Study(model, prices, budget, steps, run, constraints, terms, levels, tolerance)
    if sigmas is None:
        with teller(progress) as tell:
            how = Search(stopping_sigma, search, points, outer_tolerance, polish, tell, fit)
            return _plan(study, how) if samplers is None else _choose_sampler(study, samplers, how)
    if samplers is not None:
        raise ValueError("codesign: sigmas and samplers are both given; a given grid belongs to one sampler.")
    if steps is not None or stopping_sigma is not None:
        raise ValueError("codesign: sigmas is given, so that steps and stopping_sigma follow from it; leave them out.")
    return _train_only(study, check_grid(sigmas).sigmas)


def _rules(solver: str | None, history: int | str, others: tuple[Any, Any, Any]) -> FitRules | None:
    """How a solver is fitted; None where none is asked for."""
    rules = FitRules(history)
    if solver is None:
        return None
    choice(solver, "solver", ("fit",))
    for name, other in zip(("sigmas", "samplers", "constraints"), others, strict=True):
        if other is not None and len(other):
            raise ValueError(
                f"codesign: solver='fit' chooses levels and coefficients itself, and {name} is given too; leave it out."
            )
    return rules


@dataclass(frozen=True)
class Search:
    """How the stopping point is found, and what becomes of the best one.

    Args:
        stopping_sigma: a stopping point that is given, or None.
        between: range to search; None for that of the model.
        points, tolerance: points of the first sweep; relative gap over all stopping points that counts as optimal.
        polish: whether to descend the exact error of the grid; None where few steps decide.
        tell: takes what is done, stopping point by stopping point.
        fit: of a multistep sampler to the denoiser; None where the grid's own sampler stays.
    """

    stopping_sigma: float | None
    between: tuple[float, float] | None
    points: int
    tolerance: float
    polish: bool | None
    tell: Teller
    fit: FitRules | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "points", integer(self.points, "points", minimum=3, maximum=_MOST_POINTS))
        put(self, "tolerance", number(self.tolerance, "outer_tolerance", positive=True))
        if self.stopping_sigma is not None:
            put(self, "stopping_sigma", noise_level(self.stopping_sigma, "stopping_sigma"))
        if self.between is not None:
            low, high = vector(self.between, "search", length=2, positive=True, ascending=True)
            put(self, "between", (float(low), float(high)))

    def range(self, model: Model) -> tuple[float, float]:
        """Stopping points to search; from process.sigma_min to the data's standard deviation unless given."""
        top = model.process.sigma_max
        least = model.process.sigma_min
        if self.between is None:  # the whole range where it starts above the data's standard deviation
            spread = min(model.spectrum.sigma_data, 0.5 * top)
            return least, spread if spread > least else float(np.sqrt(least * top))
        low, high = self.between
        if not low < high < top:
            raise ValueError(
                f"search runs from {low:g} to {high:g}; it must be ascending and end below sigma_max = {top:g}. "
                "Give search=(low, high)."
            )
        return low, high

    def solve(self, study: Study, last: bool) -> Plan:
        """The certified plan at the best stopping point; with fewer points and coarser unless it is the last."""
        if self.stopping_sigma is not None:
            plan = study.solve(self.stopping_sigma)
            return replace(plan, curve=(from_plan(plan).record,), outer={"status": "given", "points": 1})
        tried, narrow = (self.points, _NARROW) if last else (max(3, self.points // 3), _NARROW_BEFORE)
        low, high = self.range(study.model)
        return _best_of(study, sweep(study, low, high, tried, self.tell, narrow=narrow), low, high, self.tolerance)

    def proved(self, study: Study) -> Plan:
        """The plan that a question of its own has, before it is handed out."""
        return self.solve(study, True)

    def unproved(self, study: Study) -> Plan:
        """The plan that `solve` finds, without a bound between the stopping points: where grids may start."""
        if self.stopping_sigma is not None:
            return study.solve(self.stopping_sigma)
        low, high = self.range(study.model)
        return _declared_best(study, sweep(study, low, high, self.points, self.tell, narrow=_NARROW))[1]


def _refuse_one_stop(study: Study) -> None:
    """A term of shared parameters on the levels of one stopping point has no value at another."""
    for leaf in (leaf for term in study.terms for _, leaf in term.leaves()):
        found = next((part for part in (leaf, *leaf.components()) if isinstance(part, InformationError)), None)
        if found is not None:
            raise ValueError(
                f"codesign: {leaf.name} is on the levels of one stopping point and the search tries many; give "
                "co.SharedParameters(levels, features, response), which is an InformationError at each of them, or "
                "the stopping_sigma that its levels start at."
            )


def _plan(study: Study, how: Search) -> Plan:
    """The best plan of a study: certified, handed out in whole steps, its few steps stopping where they should."""
    low, high = how.range(study.model)
    if how.stopping_sigma is None:
        _refuse_one_stop(study)
    probe = study.model.probe
    before = 0 if probe is None else probe.calls
    study, plan = _settled(study, how)
    if how.between is None:  # whole steps may stop anywhere
        low, high = study.model.process.sigma_min, max(high, 0.5 * study.model.process.sigma_max)
    stops = None if how.stopping_sigma is not None else (low, high)
    how.tell("grids of whole steps: " + ("searched" if probe is None else "their errors are measured and descended"))
    plan = hand_out(study, plan, polish=how.polish, stops=stops, ask=how, fit=how.fit)
    if probe is not None and plan.estimation is not None:
        plan = replace(plan, estimation=replace(plan.estimation, plan_evaluations=probe.calls - before))
    return replace(plan, question=question_of(study, how.stopping_sigma, how.between))


def _settled(study: Study, how: Search) -> tuple[Study, Plan]:
    """The plan; for a measured model, of responses measured anew at the plan's own steps until it stops moving.

    Plans on the way only say where to measure: they try fewer stopping points than the last one.
    """
    probe = study.model.probe
    if probe is None:
        return study, how.solve(study, True)
    plan, moved = how.solve(study, False), np.inf
    rounds, grid = 0, _sampled(study, how, plan)
    while rounds < _ROUNDS and moved > _STILL and (rounds == 0 or probe.affords_response):
        study = replace(study, model=study.model.at_steps(grid))
        probe = study.model.probe or probe
        plan, before, rounds = how.solve(study, rounds + 1 == _ROUNDS), grid, rounds + 1
        grid = _sampled(study, how, plan)
        moved = _moved(grid, before)
        how.tell(
            f"responses measured at the plan's steps, round {rounds}: levels moved by up to {moved:.2g} in log sigma"
        )
    if rounds < _ROUNDS and plan.outer.get("status") != "given":
        plan = how.solve(study, True)
    said = f"responses measured {rounds} times at the plan's own steps; levels last moved by up to {moved:.2g}"
    return study, replace(plan, notes=(*plan.notes, f"{said} in log sigma"))


def _sampled(study: Study, how: Search, plan: Plan) -> Array:
    """The grid whose steps are measured: that of the sampler alone, so that a budget beside it changes nothing."""
    if not study.taught or study.terms or study.constraints:
        return _whole(plan)
    return _whole(how.solve(study.alone(_whole(plan).size - 1), False))


def _moved(grid: Array, before: Array) -> float:
    """Largest change of log sigma at equal shares of the steps, which may be other in number."""
    logs = [np.log(g[g > 0]) for g in (grid, before)]
    shares = [np.linspace(0.0, 1.0, log.size) for log in logs]
    at = np.union1d(*shares)
    values = [np.interp(at, share, log) for share, log in zip(shares, logs, strict=True)]
    return float(np.abs(values[0] - values[1]).max())


def _whole(plan: Plan) -> Array:
    final = final_steps(plan.terminal)
    count = max(1 + final, round(float(plan.steps.sum())) + final)
    return grid_from_steps(plan.levels, plan.steps, count, terminal=plan.terminal)


def _best_of(study: Study, stops: list[Stop], low: float, high: float, tolerance: float) -> Plan:
    """The declared program's plan at the best stopping point, with the curve and what is proved about it."""
    between = _between(study, stops, tolerance)
    bound, evaluations = between.bound, between.evaluations
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
    notes = plan.notes
    if between.intervals:
        outer["intervals"] = [
            dict(zip(("low", "high", "lower_bound"), each, strict=True)) for each in between.intervals
        ]
    if between.missing and outer["status"] != "optimal":
        notes = (*notes, "missing from the bound between stopping points: " + "; ".join(between.missing))
    return replace(plan, curve=tuple(stop.record for stop in stops), outer=outer, notes=notes)


def _between(study: Study, stops: list[Stop], tolerance: float) -> Between:
    """What is proved between the stopping points tried: by declared programs where the user added anything."""
    if only_shared(study) and not study.constraints:
        bound, evaluations = bound_between(study, stops, tolerance)
        return Between(bound, evaluations, (), ())
    best = min(stops, key=lambda stop: stop.error)
    sigmas = sorted(stop.sigma for stop in stops)
    plans = [stop.plan for stop in stops if stop.plan is not None]
    return declared_bounds(study, sigmas, best.error, best.sigma, best.plan, tolerance, plans)


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


def _choose_sampler(study: Study, samplers: Sequence[Sampler | str], how: Search) -> Plan:
    """Plan with each sampler and keep the smallest handed-out error; the study's steps count evaluations here."""
    if not isinstance(samplers, (list, tuple)) or not samplers:
        raise ValueError(f"codesign: samplers is {shown(samplers)}; leave it out, or list at least one sampler.")
    named = [Sampler.named(sampler, f"codesign: samplers[{k}]") for k, sampler in enumerate(samplers)]
    models = [study.model.with_sampler(sampler) for sampler in named]
    table: dict[str, dict[str, Any]] = {}
    plans: list[Plan] = []
    failure: CodesignError | None = None
    for model in models:
        name = repr(model.sampler)
        try:
            plan = _plan(replace(study, model=model, steps=_steps_allowed(study.steps, model)), how)
        except CodesignError as problem:
            failure, table[name] = problem, {"failure": str(problem)}
            continue
        used = evaluations(plan.number_of_steps, model.sampler.evaluations_per_step, model.terminal)
        table[name] = {"error": _handed_error(plan), "steps": plan.number_of_steps, "evaluations": used}
        plans.append(plan)
    if not plans:
        said = "; ".join(f"{name}: {record['failure']}" for name, record in table.items())
        raise InfeasibleError(f"No sampler could be planned. {said}") from failure
    best = min(plans, key=_handed_error)
    return replace(best, outer={**best.outer, "samplers": table})


def _steps_allowed(allowed: float | None, model: Model) -> int | None:
    """Steps whose evaluations are allowed.

    Raises:
        InfeasibleError: too few for one step.
    """
    if allowed is None:
        return None
    steps = steps_within(int(allowed), model.sampler.evaluations_per_step, model.terminal)
    if steps < least_steps(model.terminal):
        raise InfeasibleError(f"{allowed:.0f} evaluations are too few for one step")
    return steps


def _handed_error(plan: Plan) -> float:
    return float(plan.handed_out.get(TOTAL, plan.error))


def _train_only(study: Study, sigmas: Array) -> Plan:
    """The sampler is given: one convex program for the examples, with the discrete kernel."""
    if not study.trains:
        raise ValueError(
            "codesign: with sigmas given, prices and budget are needed to plan the training; what a grid leaves with a "
            "training that is given is model.predict(sigmas, run=…)."
        )
    table = study.model.settled(sigmas, study.levels_of(sigmas))
    obeying = study.admits(sigmas, START)
    problem = study.settled_problem(table, steps_on_levels(table.levels, sigmas), obeying=obeying)
    plan = problem.solve(tolerance=study.tolerance)
    parts = dict(plan.breakdown)
    bias = parts.pop(TRUNCATION, 0.0) + parts.pop(INITIAL, 0.0)  # of a given grid: steps, stopping and start
    plan = replace(plan, sigmas=sigmas, breakdown={BIAS: bias, **parts}, outer={"status": "given", "points": 1})
    return hand_out(study, plan, polish=False)
