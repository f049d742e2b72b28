"""From a certified continuous design to what a user runs: whole steps, descended nodes, re-solved examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..basics.causes import TOTAL
from ..basics.checks import Array
from ..basics.errors import CodesignError, InfeasibleError
from ..ingredients.densities import LogNormal, examples_of
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.fit_rules import FitRules
from ..ingredients.grids import family_grids, flow_grid
from ..ingredients.process import FlowMatching
from ..modeling.prediction import predict
from ..models.base import Model
from ..models.coefficients import Coefficients
from ..models.polish import rho_fit
from ..results.plan import Plan
from ..results.planned_density import SPIKE
from .admitted import Admitted
from .grid_fit import ROUNDING, SearchedGrid
from .grid_search import GridSearch
from .grid_starts import MOST_STEPS, GridStarts
from .question import Study
from .real_steps import INSIDE, START
from .settling import Settled, settle
from .shared_errors import error_of, knows_shared, with_shared_errors
from .stated import FULL_RANGE, stated, stated_with_solver
from .step_chain import EVERY_PRICED, StepChain
from .trained_fit import BestExamplesFit, SettledFit, closed
from .trust import trust
from .untrained_fit import UntrainedFit

__all__ = ["Ask", "hand_out"]

Peers = dict[str, tuple[Array, dict[str, float]]]  # by name: the grid, and its error by cause

_POLISH_BELOW = 33  # without residuals the exact gradient takes the square of the number of steps
_POLISH_MEASURED_BELOW = 65
_SETTLED = 40  # so many of the best grids get their examples, where these may decide
_NEAR = 1.1  # times the best, where errors that nodes share may decide between numbers of steps
_BETTER = 1 - 1e-9
_FAR = 1.5  # times the links of a chain: so many steps of the program, and the best is no link
# beside a flow model's plan: equal steps of time, and of time shifted as Stable Diffusion 3's; trained as that is, by
# a logit-normal density of time, which is a log-normal one of sigma, shifted by the same factor
_SHIFTS = {"flow_uniform": 1.0, "flow_shift_3": 3.0}
_ROUNDED = (
    "the error is below 1e-12 of the data's variance, the rounding of samples in float32, so that more steps were "
    "not tried"
)
_READ_AT_THE_START = (
    "no whole steps within the budget obey the constraints at every sigma inside them: each obeys at the level where "
    "it starts, where the sampler evaluates"
)


class Ask(Protocol):
    """Another question, asked the same way, at its best stopping point."""

    def proved(self, study: Study) -> Plan:
        """Its plan."""

    def unproved(self, study: Study) -> Plan:
        """Its plan without a bound between the stopping points."""


def hand_out(
    study: Study,
    plan: Plan,
    *,
    polish: bool | None,
    stops: tuple[float, float] | None = None,
    ask: Ask | None = None,
    fit: FitRules | None = None,
) -> Plan:
    """The plan with its grid of whole steps, its exact error, its peers and its one-number summaries.

    Args:
        study: the question.
        plan: its certified program's plan; with `sigmas` where the grid is given.
        polish: whether grids descend the error; None where the model says how.
        stops: range in which the grid may stop elsewhere than the program; None where the stopping point is given.
        ask: other questions the same way; None where none is asked.
        fit: of a multistep sampler to the denoiser, from that grid on; None where none is.
    """
    given = plan.sigmas if plan.outer.get("status") == "given" and plan.curve == () else None
    notes: list[str] = []
    if given is not None:
        settled = settle(study, given)
        found = [] if settled is None else [settled]
    else:
        found, notes = _found(study, plan, polish, stops, ask)
    found = [with_shared_errors(study, each) for each in found]
    if not found:
        raise InfeasibleError(
            f"Infeasible: no grid of whole steps fits into the budget (the program asks for {plan.steps.sum():.3g} "
            f"steps, and {least_steps(plan.terminal)} is the least); raise the budget, or plan for fewer images."
        )
    handed = _placed(study, plan, min(found, key=lambda each: each.total))
    if given is None:
        handed, peers, beside = _with_peers(study, plan, handed)
        notes += beside
    else:
        peers = _peers(study, handed)
    handed = replace(handed, peers=_compared(handed, peers))
    if plan.steps.sum() > MOST_STEPS:
        notes.append(
            f"the program asks for {plan.steps.sum():,.0f} steps; a grid of {handed.number_of_steps:,} is handed out"
        )
    elif _rounded(study, handed):
        notes.append(_ROUNDED)
    handed = replace(handed, notes=(*handed.notes, *notes, *trust(study, handed)), fits=_fits(study, handed))
    if fit is not None:  # the examples of a plan are those of its own stopping point
        rules = replace(fit, free_stop=stops is not None and not study.taught)
        return stated_with_solver(study.model, handed, {name: grid for name, (grid, _) in peers.items()}, rules)
    if study.model.exact_error is not None:
        return handed
    return stated(study.model, handed, {name: grid for name, (grid, _) in peers.items()}, given=given is not None)


def _rounded(study: Study, plan: Plan) -> bool:
    """Whether fewer steps are handed out than are allowed, since more would not show."""
    fewer = study.steps is not None and plan.number_of_steps < study.steps
    return fewer and not study.taught and 0 < plan.handed_out[TOTAL] <= ROUNDING * study.model.spectrum.trace


def _found(
    study: Study,
    plan: Plan,
    polish: bool | None,
    stops: tuple[float, float] | None,
    ask: Ask | None,
) -> tuple[list[Settled], list[str]]:
    """Grids that may be handed out, settled, and what is to be said of them."""
    limits = study.real_steps(plan.levels)
    if limits is None and polish is not False and _searches(study):
        found, polish = _searched(study, plan, stops, ask), False
        if found:
            return found, []
    for reading in (INSIDE,) if limits is None else (INSIDE, START):
        found = _around(study, plan, Admitted(study, plan, limits, reading), polish, ask)
        if found:
            return found, [_READ_AT_THE_START] if reading == START else []
    return [], []


def _searches(study: Study) -> bool:
    """Whether steps, nodes and stopping point are searched on the exact error, which knows no user's terms."""
    return study.model.exact_residuals is not None and not study.terms and not study.budgets.per_level


def _searched(study: Study, plan: Plan, stops: tuple[float, float] | None, ask: Ask | None) -> list[Settled]:
    """The best grids of the search with their examples."""
    cap = None if study.steps is None else int(study.steps)
    if not study.trains:
        chain = StepChain(UntrainedFit(GridStarts(study, plan, stops)))
        if cap is not None and study.constraints:  # what else limits steps limits those of the program
            cap = min(cap, _asked(plan) + 1)
        return _settled(study, chain.up_to(min(MOST_STEPS, _asked(plan) if cap is None else cap)))
    costly = study.prices is not None and study.prices.images > 0
    links: dict[int, SearchedGrid] = {}
    closed_form = closed(study, plan.levels)
    beyond = costly and cap is None and _asked(plan) > _FAR * EVERY_PRICED  # the chain would end before the best
    if closed_form and not study.model.sampler.signed and not beyond:
        chain = StepChain(BestExamplesFit(GridStarts(study, plan, stops)), priced=costly)
        most = min(MOST_STEPS, _asked(plan) if not costly else MOST_STEPS, MOST_STEPS if cap is None else cap)
        found = chain.up_to(most)
        if not costly or chain.ended or most < EVERY_PRICED:
            return _settled(study, found)
        links = {grid.steps: grid for grid in reversed(found)}
    asked, program = _without_the_cap(study, plan, ask) if costly else (study, plan)
    known = {} if closed_form else _without_constraints(asked, program, stops, cap)
    starts = GridStarts(asked, program, stops, known)
    fit = BestExamplesFit(starts) if closed_form else SettledFit(starts)
    return _settled(study, GridSearch(fit, cap, costly, links).grids())


def _without_constraints(
    study: Study, plan: Plan, stops: tuple[float, float] | None, cap: int | None
) -> dict[int, Array]:
    """Grids by their number of steps for the same question without constraints, where its examples have a closed form.

    Errors of both signs cancel in narrow valleys, which descents with examples of another grid seldom find.
    """
    free = replace(study, constraints=())
    if not study.constraints or not study.model.sampler.signed or not closed(free, plan.levels):
        return {}
    costly = free.prices is not None and free.prices.images > 0
    found = GridSearch(BestExamplesFit(GridStarts(free, plan, stops)), cap, costly).grids()
    return {grid.steps: grid.sigmas for grid in found}


def _asked(plan: Plan) -> int:
    """Whole steps of the program."""
    return max(least_steps(plan.terminal), round(float(plan.steps.sum())) + final_steps(plan.terminal))


def _settled(study: Study, ranked: list[SearchedGrid]) -> list[Settled]:
    """The first of the grids with their examples, as long as they may be the best."""
    settled: list[Settled] = []
    near = _NEAR if knows_shared(study) else 1.0
    for grid in ranked:
        # a density for each level leaves no less than one for each step, which ranks the grids: the rest are worse
        if settled and (grid.total > near * min(each.total for each in settled) or len(settled) == _SETTLED):
            break
        if near > 1 and any(each.sigmas.size == grid.sigmas.size for each in settled):
            continue
        found = grid.settled or settle(study, grid.sigmas, even=True)
        settled += [] if found is None else [found]
    return settled


def _without_the_cap(study: Study, plan: Plan, ask: Ask | None) -> tuple[Study, Plan]:
    """The question and its program without the most steps: what is found must not depend on these."""
    if ask is None or study.steps is None:
        return study, plan
    free = replace(study, steps=None)
    try:
        return free, ask.unproved(free)
    except CodesignError:
        return study, plan


def _around(study: Study, plan: Plan, admitted: Admitted, polish: bool | None, ask: Ask | None) -> list[Settled]:
    """Grids of the program's density with whole steps around its count, settled, and what they descend to."""
    grids = admitted.grids()
    found = [settled for grid in grids if (settled := settle(study, grid)) is not None]
    if not found:
        return []
    free_stop = plan.outer.get("status") != "given"
    if study.taught and study.model.probe is not None and ask is not None and not (study.terms or study.constraints):
        # what is measured is the sampler's error: its grids are those that the sampler alone would have
        asked = study.alone(min(found, key=lambda each: each.total).sigmas.size - 1)
        grids = Admitted(asked, ask.proved(asked), None).grids()
        found += [settled for grid in grids if (settled := settle(study, grid)) is not None]
    elif study.taught:
        free_stop = False
    if admitted.limits is not None:  # descents take seconds and seldom keep every limit: the best alone is descended
        grids, free_stop = [min(found, key=lambda each: each.total).sigmas], False
    for grid in grids:
        wanted = polish if polish is not None else grid.size - 1 < _descended_below(study.model)
        polished = study.model.polish(grid, free_stop=free_stop) if wanted else grid
        if polished is not grid and admitted.admits(polished):
            settled = settle(study, polished)
            found += [] if settled is None else [settled]
    return found


def _descended_below(model: Model) -> int:
    """Number of steps from which on a descent costs more than it brings; a measured error always knows better."""
    return _POLISH_BELOW if model.probe is None else _POLISH_MEASURED_BELOW


def _placed(study: Study, plan: Plan, best: Settled) -> Plan:
    """The settled grid in the plan: levels and amounts of its own stopping point, the proof of the program's."""
    stop = best.stopping_sigma
    if abs(np.log(stop / plan.stopping_sigma)) < 1e-6:
        return best.put_into(study, plan)
    there = study.solve(stop)
    proved = {name: table for name, table in plan.tables.items() if name.startswith("shadow price of ")}
    moved = replace(
        plan,
        levels=there.levels,
        examples=there.examples,
        new_examples=there.new_examples,
        steps=there.steps,
        stopping_sigma=stop,
        program_stopping_sigma=plan.stopping_sigma,
        costs=there.costs,
        tables={**there.tables, **proved, "program_sigma": plan.levels.sigma},
        final_score=there.final_score,
        final_prior=there.final_prior,
        provenance=there.provenance,
    )
    return best.put_into(study, moved)


def _with_peers(study: Study, plan: Plan, handed: Plan) -> tuple[Plan, Peers, list[str]]:
    """The plan, its peers and notes; a peer that is better is taken, with the best examples for its grid."""
    notes = []
    peers, sigmas = _peers(study, handed), handed.sigmas
    reading = INSIDE if sigmas is None or study.admits(sigmas) else START  # a peer has to obey as the plan does
    for name, (grid, parts) in list(peers.items()):
        if parts[TOTAL] >= handed.handed_out[TOTAL] * _BETTER:
            continue
        if name == FULL_RANGE and plan.outer.get("status") == "given":
            continue  # it stops elsewhere than was asked for
        tried = [settle(study, grid, even=even) for even in (False, True)] if study.admits(grid, reading) else []
        told = [with_shared_errors(study, each) for each in tried if each is not None]
        better = min(told, key=lambda f: f.total, default=None)
        if better is not None and better.total < handed.handed_out[TOTAL]:
            handed = _placed(study, plan, better)
        if parts[TOTAL] < handed.handed_out[TOTAL] * _BETTER:
            # its grid, with the best examples that the constraints allow, leaves more: it breaks them
            notes.append(f"{name} would leave {parts[TOTAL]:.3g}, but does not meet the constraints")
            del peers[name]
    return handed, peers, notes


def _compared(plan: Plan, peers: Peers) -> dict[str, dict[str, float]]:
    """The peers' errors with their ratio to the plan's."""
    own = plan.handed_out[TOTAL]
    return {name: {**p, "ratio": p[TOTAL] / own if own > 0 else np.inf} for name, (_, p) in peers.items()}


def _peers(study: Study, plan: Plan) -> Peers:
    """Named schedules with the same steps, range and training price; on a measured model EDM's own range, too."""
    # a peer has no value of the user's terms to compare, and none of a sampler that runs on its own levels alone
    if plan.sigmas is None or study.terms or study.model.sampler.own_levels is not None:
        return {}
    positive = plan.sigmas[plan.sigmas > 0]
    low, high, steps = float(positive[-1]), float(positive[0]), plan.sigmas.size - 1
    grids, bottom = family_grids(steps, low, high, plan.terminal), study.model.process.sigma_min
    if isinstance(study.model.process, FlowMatching):
        for name, shift in _SHIFTS.items():
            grids[name] = flow_grid(steps, low, high, shift=shift, terminal=plan.terminal)
    if study.model.probe is not None and bottom < low * (1 - 1e-6):
        grids[FULL_RANGE] = family_grids(steps, bottom, high, plan.terminal)["edm"]
    result = {}
    for name, grid in grids.items():
        table = study.model.settled(grid, study.levels_of(grid))
        examples = _peer_examples(study, plan, name, table) if study.trains else study.spent(table)
        if examples is not None and knows_shared(study):
            result[name] = (grid, error_of(study.model, grid, examples, table.levels))
        else:
            result[name] = (grid, predict(study.model, grid, examples, table=table))
    return result


def _peer_examples(study: Study, plan: Plan, name: str, table: Coefficients) -> Array:
    """(L,) examples of a peer's usual density on its own levels, at the price of the plan's."""
    assert study.prices is not None
    densities: dict[str, Any] = {"edm": LogNormal(-1.2, 1.2), "log_snr": table.log_width}
    densities |= {flow: LogNormal(float(np.log(shift)), 1.0) for flow, shift in _SHIFTS.items()}
    share = examples_of(densities["edm" if name == FULL_RANGE else name], table.levels, 1.0)
    spent, price = study.spent(table), study.prices.example_price(table.levels)
    bought = float(np.asarray(plan.tables["example_price"]) @ plan.new_examples) / float(price @ share)
    return bought * share if spent is None else spent + bought * share


def _fits(study: Study, plan: Plan) -> dict[str, dict[str, float]]:
    fits: dict[str, dict[str, float]] = {}
    error = study.model.exact_error if study.model.sampler.own_levels is None else None
    if error is not None and plan.sigmas is not None and plan.sigmas.size > 3:
        found = rho_fit(error, plan.sigmas)
        fits["rho"] = {"rho": found.rho, "error": found.error, "loss": found.loss}
    if study.trains and np.any(plan.tables["score_weight"] > 0):
        density = plan.training_density
        normal = density.closest_lognormal()
        if density.pooling is None or normal.P_std >= SPIKE:  # `lognormal` says why it refuses a spike
            fits["lognormal"] = normal._asdict()
    return fits
