"""What a plan says of a denoiser that it was measured on: the number to quote, its error, and the network's own."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..basics import causes
from ..basics.wording import percent, quantity
from ..ingredients.measured_error import OBJECTIVES, MeasuredError
from ..ingredients.network_floor import NetworkFloor
from .cause_words import clip
from .level_table import planned_training

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["error_lines", "measured_headline", "measured_lines"]

_WIDTH = 88
_HEAVY = 0.2  # share of the largest hundredth of the draws from which on their tail is called heavy


def measured_headline(plan: PlanRecord, said: MeasuredError, total: float) -> list[str]:
    """The error to quote, with its standard error and over the data's variance, and what it consists of."""
    kind = "squared distance to a fine solution, same noise"
    whole = abs(total - said.value) <= 1e-12 * abs(total)
    amount = f"{quantity(said.value)} ± {quantity(said.standard_error, 2)}"
    if whole:
        lines = [f"Measured error {amount}: {OBJECTIVES[said.objective]} {kind}"]
    else:
        rest = quantity(total - said.value)
        lines = [f"Error {quantity(total)}: {amount} of the sampler, measured, and {rest} of training, predicted"]
    if plan.trace:
        share, spread = percent(total / plan.trace), percent(said.standard_error / plan.trace)
        root = percent((total / plan.trace) ** 0.5)
        lines.append(f"  = {share} ± {spread} of the data's total variance; RMS {root} of the data's RMS")
    return [line for text in lines for line in _wrapped(text, "  ")]


def error_lines(plan: PlanRecord) -> list[str]:
    """What the number to quote rests on and stands beside: draws, fine solution, prediction, the network's floor."""
    lines = [] if plan.measured is None else _of_error(plan, plan.measured)
    floor = None if plan.estimation is None else plan.estimation.floor
    return lines + ([] if floor is None else _of_floor(floor))


def measured_lines(plan: PlanRecord) -> list[str]:
    """For a model measured on a denoiser: what the discretisation stands for, and what measuring cost."""
    said = plan.estimation
    if said is None:
        return []
    lines = []
    if causes.SIGNED_GRAM in plan.breakdown:
        lines.append("  discretization: Gram matrix of responses to single steps, with its signs")
    if causes.POSITIVE_GRAM in plan.breakdown:
        lines.append("  discretization: upper model, Gram matrix of responses without its negative entries")
    if said.denoiser and said.draws is not None:
        draws, fine = quantity(said.draws), quantity(said.fine_steps)
        lines.append(f"  on {clip(said.denoiser)}: {draws} draws against a fine solution of {fine} steps")
    lines += _of_solver(plan)
    lines += [part for line in said.denoiser_check for part in _wrapped_whole(f"  {line}")]
    if calls := said.model_evaluations:
        more = "" if said.plan_evaluations is None else f" and {said.plan_evaluations:,} for this plan"
        lines.append(f"  batch evaluations of the denoiser: {calls:,} for the model{more}")
    if planned_training(plan) and said.correlation_assumed:
        lines.append("  correlation length of training errors: assumed, not measured")
    if planned_training(plan) and (notes := said.training_notes):
        head = "  learning curves: "
        lines += textwrap.wrap(notes[0], _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), max_lines=2)
        lines += [f"  … and {len(notes) - 1} more in plan.provenance['training_notes']"] if len(notes) > 1 else []
    return ["Measured, not exact", *lines] if lines else []


def _of_solver(plan: PlanRecord) -> list[str]:
    """How many numbers a fitted solver has, what they gained, and what of that is proved."""
    fit = plan.fits.get("solver")
    if fit is None:
        return []
    spread = f" ± {quantity(fit['gain_error'], 1)}" if "gain_error" in fit else ""
    between = f" with {fit['between']:.0f} conditions between those given" if fit.get("between") else ""
    text = (
        f"  solver: {fit['numbers']:.0f} numbers fitted, {fit['history']:.0f} outputs a step; its squared error is "
        f"{quantity(fit['gain'], 3)}{spread} of that of its best start{between}, on draws that chose it; "
        f"{fit['programs']:.0f} quadratic programs, each solved to {max(fit['gap'], 1e-16):.0e} (certified), their "
        f"sequence is local; {fit['evaluations']:,.0f} batch evaluations"
    )
    return _wrapped(text, "    ")


def _of_error(plan: PlanRecord, said: MeasuredError) -> list[str]:
    """Which number to quote, on what it rests, and what was predicted."""
    tail = "heavy tail: " if said.largest_share > _HEAVY else ""
    largest = "the largest one carries" if said.largest == 1 else f"the largest {said.largest} carry"
    fine = percent(said.fine_share)
    texts = [
        f"quote the measured error: its {said.draws:,} draws chose nothing; {tail}{largest} "
        f"{percent(said.largest_share)} of their sum",
        f"at most {fine} of it is the error of its fine solution of {said.fine_steps:,} steps",
    ]
    if said.objective != "mean":
        mean = f"{quantity(said.mean)} ± {quantity(said.mean_standard_error, 2)}"
        texts.append(f"planned and compared by the {OBJECTIVES[said.objective]}; the mean of the same draws is {mean}")
    texts.append(
        f"the program's prediction, to leading order, was {quantity(plan.error)}: where to start, not what to quote"
    )
    return [line for text in texts for line in _wrapped(f"  {text}", "    ")]


def _of_floor(floor: NetworkFloor) -> list[str]:
    """The fine solution's own distance to the data, and what follows from it."""
    amount, energy = (
        f"{quantity(value, 3)} ± {quantity(error, 2)}"
        for value, error in (
            (floor.gaussian, floor.gaussian_standard_error),
            (floor.energy, floor.energy_standard_error),
        )
    )
    text = (
        f"  floor: the fine solution itself is {amount} from the data (Gaussian W2² in {floor.bands} bands; energy "
        f"distance {energy}; {floor.samples:,} samples, {floor.examples:,} examples)"
    )
    follows = (
        ": more steps or a better grid cannot help below this: it is the network's own error"
        if floor.seen
        else ": too little to be told from nothing with so many samples"
    )
    return _wrapped(text + follows, "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent)


def _wrapped_whole(line: str) -> list[str]:
    """A line as it is where it fits, since its columns may be a table's."""
    return [line] if len(line) <= _WIDTH else _wrapped(line, "    ")
