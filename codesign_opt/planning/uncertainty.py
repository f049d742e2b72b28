"""uncertainty(): how far a plan's numbers may lie from those of the true coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from ..basics.checks import number, shown
from ..basics.spelling import spelled
from ..basics.wording import aligned, percent, quantity
from ..ingredients.prices import Prices
from ..ingredients.training_run import TrainingRun
from ..models.base import Model, check_model
from ..models.unknowns import Unknowns
from ..results.plan import Plan
from ..results.text import wrapped
from .plan_quantities import NAMES, RELATIVE, PlanQuantities, quantities
from .question import Study

__all__ = ["Interval", "Uncertainty", "uncertainty"]

_FAR = 0.05  # relative difference between a plan's error and that of the question, from which it is another one's
_LARGEST = 10.0  # relative standard error of a length: more is no knowledge of it


class Interval(NamedTuple):
    """A number, and where it may lie.

    Attributes:
        value: corrected for what the errors of the measured numbers add on average; a number, or an array.
        low, high: the ends.
        standard_error: of the value; relative, of the logarithm, for the error, sigmas and P_std.
    """

    value: Any
    low: Any
    high: Any
    standard_error: Any

    def covers(self, truth: Any) -> Any:
        """Whether numbers lie inside."""
        return (self.low <= truth) & (truth <= self.high)


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Intervals of a plan's numbers (docs/theory.md section 8.5).

    They are of the program: its error, its best stopping point, the log-normal closest to its density and the levels
    of as many steps as the plan has. What is handed out in whole steps has numbers of its own, `handed_out`, whose
    errors are taken from the program's.

    Attributes:
        error: of the program, squared data units. To first order that is also what this very plan leaves.
        stopping_sigma: of the program; None where it was given or lies at an end of the search.
        P_mean, P_std: of the log-normal closest to the density; None where nothing is trained.
        levels: (K,) positive noise levels of the program's density in the plan's number of steps, from its best stop.
        training_share: share of the compute that is spent on training; None where nothing is trained.
        handed_out: P_mean and P_std of the plan's own whole steps, with the program's standard errors.
        confidence: of each interval alone.
        regret: excess error of planning with these numbers instead of the true ones, on average, relative.
        shares: of the variance of the error, by what was measured.
        bias: of the error: what errors of the measured numbers add to it on average, relative; taken off `error`.
        measured: what the intervals come from, as a phrase.
        omitted: what they leave out, as phrases.
    """

    error: Interval
    stopping_sigma: Interval | None
    P_mean: Interval | None
    P_std: Interval | None
    levels: Interval
    training_share: Interval | None
    handed_out: Mapping[str, Interval]
    confidence: float
    regret: float
    shares: Mapping[str, float]
    bias: float
    measured: str
    omitted: tuple[str, ...]

    def __str__(self) -> str:
        return _text(self)


@spelled
def uncertainty(
    plan: Plan,
    model: Model,
    prices: Prices | None = None,
    budget: float | None = None,
    *,
    steps: int | None = None,
    run: TrainingRun | None = None,
    length_error: float = 0.0,
    width_error: float = 0.0,
    confidence: float = 0.95,
    levels: int = 200,
) -> Uncertainty:
    """How far a plan's numbers may lie from those of the true coefficients: the delta method.

    The error's slopes are those of the Lagrangian at the optimum (envelope theorem); density, steps and multipliers
    move as their optimality conditions say, differentiated; the stopping point as its own (docs/theory.md section
    8.5). No program is solved again but at two stopping points beside the plan's.

    Args:
        plan: of `codesign`, from the same question.
        model: a GaussianModel whose spectrum is that of samples, an EstimatedModel, or any model that states its
            `unknowns`.
        prices, budget, steps, run: as they were given to `codesign`.
        length_error, width_error: relative standard errors of the correlation length and of the transfer width.
        confidence: of each interval alone, between 0 and 1.
        levels: levels over the range of noise.

    Raises:
        ValueError: nothing in the model was measured, or the plan is of another question.

    >>> import numpy as np, codesign_opt as co
    >>> draws = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 0.5, 0.25]
    >>> model = co.GaussianModel(co.Spectrum.from_samples(draws), sampler=co.Euler())
    >>> plan = co.codesign(model, steps=12, polish=False, levels=60)
    >>> found = co.uncertainty(plan, model, steps=12, levels=60)
    >>> found.error.low < plan.error < found.error.high, found.measured
    (True, 'spectrum of 500 samples')
    """
    check_model(model, "uncertainty")
    if not isinstance(plan, Plan):
        raise ValueError(f"uncertainty: plan is {shown(plan)}; give the Plan that codesign returned.")
    level = number(confidence, "confidence", positive=True, maximum=1.0)
    if 0.5 + 0.5 * level >= 1.0:
        raise ValueError(f"confidence is {level:g}; it must be < 1: only all numbers hold the value with certainty.")
    errors = {"length_error": length_error, "width_error": width_error}
    known = model.unknowns(**{name: number(value, name, nonnegative=True, maximum=_LARGEST)
                              for name, value in errors.items()})  # fmt: skip
    if known is None:
        raise ValueError(
            "uncertainty: no number of the model is measured: its spectrum is stated, or has fewer samples than "
            "dimensions, and no standard error is given. Use Spectrum.from_samples with more samples than dimensions, "
            "an estimate.network, or length_error=…."
        )
    study = Study(model, prices, budget, steps, run, (), (), levels, 1e-8)
    base = known.moved(np.zeros(len(known.sources)))
    searched = plan.outer.get("status") not in (None, "given") and not plan.outer.get("at_end", False)
    found = quantities(replace(study, model=base), known, _stop(plan), plan.number_of_steps, searched=searched)
    _check_same(plan, model, found)
    return _intervals(plan, found, known, level, _omitted(plan, known, searched, model))


def _stop(plan: Plan) -> float:
    return plan.stopping_sigma if plan.program_stopping_sigma is None else plan.program_stopping_sigma


def _check_same(plan: Plan, model: Model, found: PlanQuantities) -> None:
    error = float(found.values["error"])
    if model.probe is None and abs(error / plan.error - 1) > _FAR:
        raise ValueError(
            f"uncertainty: the plan's error is {quantity(plan.error)} and that of this question {quantity(error)}; "
            "give the model, prices, budget, steps and run that the plan was made with (terms, constraints and given "
            "grids are not differentiated)."
        )


def _omitted(plan: Plan, known: Unknowns, searched: bool, model: Model) -> tuple[str, ...]:
    said = [*known.omitted]
    if np.isinf(known.degrees):
        said.append("correlations between the errors of measured numbers")
    if not searched:
        said.append("the stopping point, which is held")
    if plan.number_of_steps:
        said.append("the whole number of steps")
    if model.probe is not None:
        said.append("responses measured again at the plan's steps")
    return tuple(said)


def _intervals(
    plan: Plan, found: PlanQuantities, known: Unknowns, confidence: float, omitted: tuple[str, ...]
) -> Uncertainty:
    reach = float(student.ppf(0.5 + 0.5 * confidence, known.degrees))

    def interval(name: str, of: Any) -> Interval:
        gradient = found.gradients[name]
        spread = np.sqrt(known.variance(gradient))
        off = -known.bias(gradient) if known.bias is not None else 0.0
        moves = (off, off - reach * spread, off + reach * spread)
        middle, low, high = (_told(of * np.exp(move) if name in RELATIVE else of + move) for move in moves)
        return Interval(middle, low, high, _told(spread))

    told = {name: interval(name, found.values[name]) if name in found.values else None for name in NAMES}
    own: dict[str, Interval] = {}
    if "P_mean" in found.values:
        fit = plan.training_density.closest_lognormal()
        own = {"P_mean": interval("P_mean", np.float64(fit.P_mean)), "P_std": interval("P_std", np.float64(fit.P_std))}
    slope = found.gradients["error"]
    levels, error = told.pop("levels"), told.pop("error")
    assert levels is not None
    assert error is not None
    return Uncertainty(
        error=error,
        levels=levels,
        handed_out=own,
        confidence=confidence,
        regret=max(found.regret / float(found.values["error"]), 0.0),
        shares=known.shares(slope),
        bias=float(known.bias(slope)) if known.bias is not None else 0.0,
        measured=known.said,
        omitted=omitted,
        **told,
    )


def _told(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _text(found: Uncertainty) -> str:
    rows = []
    for name in NAMES:
        own: Interval | None = getattr(found, name)
        if own is None or name == "levels":
            continue
        relative = name in RELATIVE
        said = percent(own.standard_error) if relative else quantity(own.standard_error, 3)
        rows.append([name.replace("_", " ") if name[0] != "P" else name, quantity(own.value),
                     f"{quantity(own.low)} to {quantity(own.high)}", said])  # fmt: skip
    spread = found.levels.standard_error
    worst = int(np.argmax(spread))
    rows.append(
        [
            "levels",
            f"{spread.size}",
            f"widest at sigma {quantity(found.levels.value[worst], 3)}",
            percent(spread[worst]),
        ]
    )
    title = [f"{100 * found.confidence:g} % intervals of the program", "value", "interval", "standard error"]
    rows[-1:-1] = [
        [f"{name}, this plan's", quantity(own.value), f"{quantity(own.low)} to {quantity(own.high)}", ""]
        for name, own in found.handed_out.items()
    ]
    shares = ", ".join(f"{name} {percent(share)}" for name, share in found.shares.items())
    lines = [
        *aligned(title, rows, left=(0,)),
        *wrapped("", f"Measured: {found.measured}; of the error's variance: {shares}"),
        *wrapped("", f"Planning with these numbers costs {percent(found.regret)} of the error on average"),
    ]
    if found.bias:
        more = "more" if found.bias > 0 else "less"
        lines += wrapped(
            "", f"On average they say {percent(abs(found.bias))} {more} error than there is, which is taken off above"
        )
    return "\n".join(lines + (wrapped("", f"Left out: {'; '.join(found.omitted)}") if found.omitted else []))
