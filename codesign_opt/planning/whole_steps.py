"""From a certified continuous design to what a user runs: whole steps, polished nodes, re-solved examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..basics.causes import BIAS, INITIAL, TOTAL, TRUNCATION
from ..basics.checks import Array
from ..basics.errors import CodesignError, InfeasibleError, NotCertifiedError
from ..ingredients.densities import LogNormal, examples_of
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.grids import edm_grid, grid_from_steps, log_snr_grid, steps_on_levels
from ..models.base import Model
from ..models.polish import rho_fit
from ..results.plan import Plan
from .prediction import predict
from .question import Study
from .real_steps import INSIDE, START, RealSteps

__all__ = ["hand_out", "leading_order_from"]

_POLISH_BELOW = 20
_POLISH_SIGNED_BELOW = 33  # the exact gradient takes the square of the number of steps
_POLISH_MEASURED_BELOW = 65
_SETTLED_GAP = 1e-3
_READ_AT_THE_START = (
    "no whole steps within the budget obey the constraints at every sigma inside them: each obeys at the level where "
    "it starts, where the sampler evaluates"
)
_MOST_STEPS = 10_000  # no grid is longer: beyond, steps change nothing and the exact law takes minutes


def hand_out(study: Study, plan: Plan, *, polish: bool | None) -> Plan:
    """The plan with its grid of whole steps, its exact error, its peers and its one-number summaries."""
    best = _best(study, plan, polish)
    if best is None:
        raise InfeasibleError(
            f"Infeasible: no grid of whole steps fits into the budget (the program asks for {plan.steps.sum():.3g} "
            f"steps, and {least_steps(plan.terminal)} is the least); raise the budget, or plan for fewer images."
        )
    exact = study.model.exact_error is not None
    if exact and study.model.sampler.signed and best.number_of_steps < _POLISH_SIGNED_BELOW and polish is not False:
        note = (
            f"{study.model.sampler.name}: errors of opposite sign cancel along the path, and a polished grid uses "
            "that; its exact error holds for Gaussian data with this spectrum and is the best case for others"
        )
        best = replace(best, notes=(*best.notes, note))
    if best.steps.sum() > _MOST_STEPS:
        note = f"the program asks for {best.steps.sum():,.0f} steps; a grid of {best.number_of_steps:,} is handed out"
        best = replace(best, notes=(*best.notes, note))
    best = replace(best, peers=_peers(study, best), fits=_fits(study, best))
    return best if exact else _measured(study.model, best)


def _best(study: Study, plan: Plan, polish: bool | None) -> Plan | None:
    """The settled plan with the smallest error among the grids to try; None where no grid fits."""
    given = plan.sigmas if plan.outer.get("status") == "given" and plan.curve == () else None
    real = study.real_steps(plan.levels) if given is None else None
    for reading in (INSIDE, START) if real is not None else (INSIDE,):
        if given is not None:
            grids = [given]
        else:
            grids = _grids(study, plan, polish) if real is None else _obeying(study, plan, polish, real, reading)
        handed = [_settle(study, plan, grid) for grid in grids]
        best = min((h for h in handed if h is not None), key=lambda h: h.handed_out[TOTAL], default=None)
        if best is not None:
            return replace(best, notes=(*best.notes, _READ_AT_THE_START)) if reading == START else best
    return None


def _measured(model: Model, plan: Plan) -> Plan:
    """Whether the bias of a grid that has no exact law was measured or predicted, and what stands in the way."""
    if plan.sigmas is None:
        return plan
    measured, notes = model.measures(plan.sigmas), []
    fine = model.fine_accuracy
    if measured and plan.handed_out[BIAS] < fine:
        notes.append(
            f"the grid is as near the fine solution ({plan.handed_out[BIAS]:.2g}) as that is to one of half its "
            f"steps ({fine:.2g}): errors this small tell nothing; measure again with more fine_steps"
        )
    if not measured and model.probe is not None:
        notes.append(f"a grid of {plan.number_of_steps:,} steps is too long to measure: its error is predicted")
    return replace(plan, bias="measured" if measured else "predicted", notes=(*notes, *plan.notes))


def _grids(study: Study, plan: Plan, polish: bool | None) -> list[Array]:
    """Grids of whole steps around the continuous step count, as they come and polished."""
    count = min(float(plan.steps.sum()) + final_steps(plan.terminal), float(_MOST_STEPS))
    least = least_steps(plan.terminal)
    whole = {max(least, int(np.floor(count + 1e-6))), max(least, int(np.ceil(count - 1e-6)))}
    if study.trains and min(whole) < _POLISH_BELOW:  # a whole step less may leave much more for training
        whole.add(max(least, min(whole) - 1))
    if study.steps is not None:
        whole = {k for k in whole if k <= study.steps + 1e-9} or {int(study.steps)}
    grids = []
    for k in sorted(whole):
        grid = grid_from_steps(plan.levels, plan.steps, k, terminal=plan.terminal)
        grids.append(grid)
        wanted = polish if polish is not None else k < leading_order_from(study.model)
        if wanted and not study.constraints:
            free = not study.trains and plan.outer.get("status") != "given"
            polished = study.model.polish(grid, free_stop=free)
            if polished is not grid:
                grids.append(polished)
    return grids


def _obeying(study: Study, plan: Plan, polish: bool | None, real: RealSteps, reading: str) -> list[Array]:
    """Grids whose real steps obey the study's limits, around the continuous step count and the least possible."""
    final = final_steps(plan.terminal)
    count = min(float(plan.steps.sum()) + final, float(_MOST_STEPS))
    fewest = real.least_steps(reading)
    if not fewest:
        return []
    least, top = fewest + final, int(np.ceil(count - 1e-6))
    whole = {least, *(max(least, top + more) for more in (-1, 0, 1, 2))}
    if study.steps is not None:
        whole = {k for k in whole if k <= study.steps + 1e-9}
    grids = []
    for k in sorted(whole):
        plain = grid_from_steps(plan.levels, plan.steps, k, terminal=plan.terminal)
        grid = plain if real.admits(plain, reading) else real.place(plan.steps, k, plan.terminal, reading)
        if grid is None:
            continue
        grids.append(grid)
        wanted = polish if polish is not None else k < leading_order_from(study.model)
        polished = study.model.polish(grid) if wanted else grid
        if polished is not grid and real.admits(polished, reading):
            grids.append(polished)
    return grids


def leading_order_from(model: Model) -> int:
    """Number of steps from which on the leading order is trusted; a measured error always knows better."""
    if model.probe is not None:
        return _POLISH_MEASURED_BELOW
    return _POLISH_SIGNED_BELOW if model.sampler.signed else _POLISH_BELOW


def _settle(study: Study, plan: Plan, grid: Array) -> Plan | None:
    """The examples solved once more for this grid, with the discrete kernel; None where it does not fit."""
    if not study.trains:
        handed = predict(study.model, grid, None, study.levels)
        stop = float(grid[grid > 0][-1])
        if abs(np.log(stop / plan.stopping_sigma)) < 1e-6:
            return replace(plan, sigmas=grid, handed_out=handed)
        note = f"the measured error is smaller when stopping at sigma = {stop:.4g} than at the program's "
        note += f"{plan.stopping_sigma:.4g}"
        notes, program = (*plan.notes, note), plan.stopping_sigma
        return replace(
            plan, sigmas=grid, stopping_sigma=stop, handed_out=handed, notes=notes, program_stopping_sigma=program
        )
    table, even = study.model.settled_pair(grid, study.levels)
    problem = study.settled_problem(table, steps_on_levels(table.levels, grid), obeying=study.admits(grid, START))
    try:
        settled = problem.solve(tolerance=study.tolerance)
    except NotCertifiedError as error:
        # the examples fit the budget and their error is evaluated below; `examples_gap` says how near they are
        if error.plan is None or not error.plan.certificate.relative_gap <= _SETTLED_GAP:
            return None
        settled = error.plan
    except CodesignError:
        return None
    handed = predict(study.model, grid, settled.examples, study.levels, table=even)
    gap = settled.certificate.relative_gap
    unproved = () if gap <= study.tolerance else (f"examples for the whole steps: certified only to {gap:.1g}",)
    for name in [name for name in settled.breakdown if name not in (*handed, TRUNCATION, INITIAL)]:  # the user's terms
        handed[name] = settled.breakdown[name]
        handed[TOTAL] += handed[name]
    tables = dict(plan.tables)
    tables["continuous_examples"] = plan.examples
    for name in ("score_weight", "served_weight", "pooling", "final_window", "marginal_gain"):
        if name in settled.tables:
            tables[name] = settled.tables[name]
    costs = {**plan.costs, **{k: settled.costs[k] for k in ("training", "sampling", "new examples")}}
    return replace(
        plan,
        sigmas=grid,
        examples=settled.examples,
        new_examples=settled.new_examples,
        tables=tables,
        costs=costs,
        handed_out=handed,
        attempts=(*plan.attempts, *settled.attempts),
        notes=(*plan.notes, *unproved, *study.model.warnings(table, settled.examples)),
        final_score=table.final_score,
        examples_gap=gap,
    )


def _peers(study: Study, plan: Plan) -> dict[str, dict[str, float]]:
    """Named schedules with the same steps, range and training price."""
    if plan.sigmas is None or study.terms:  # a peer has no value of the user's terms to compare
        return {}
    positive = plan.sigmas[plan.sigmas > 0]
    low, high, steps = float(positive[-1]), float(positive[0]), plan.sigmas.size - 1
    grids = {
        "edm": edm_grid(steps, low, high, terminal=plan.terminal),
        "log_snr": log_snr_grid(steps, low, high, terminal=plan.terminal),
    }
    densities: dict[str, Any] = {"edm": LogNormal(-1.2, 1.2), "log_snr": plan.levels.log_width}
    spent = plan.examples - plan.new_examples
    price = np.asarray(plan.tables["example_price"])
    result = {}
    for name, grid in grids.items():
        examples = None
        if study.trains:
            share = examples_of(densities[name], plan.levels, 1.0)
            bought = float(price @ plan.new_examples) / float(price @ share)
            examples = spent + bought * share
        parts = predict(study.model, grid, examples, study.levels)
        result[name] = {**parts, "ratio": parts[TOTAL] / plan.handed_out[TOTAL]}
    return result


def _fits(study: Study, plan: Plan) -> dict[str, dict[str, float]]:
    fits: dict[str, dict[str, float]] = {}
    error = study.model.exact_error
    if error is not None and plan.sigmas is not None and plan.sigmas.size > 3:
        found = rho_fit(error, plan.sigmas)
        fits["rho"] = {"rho": found.rho, "error": found.error, "loss": found.loss}
    if study.trains and np.any(plan.tables["score_weight"] > 0):
        normal = plan.training_density.lognormal()
        fits["lognormal"] = normal._asdict()
    return fits
