"""The first lines of a plan's text: what is handed out, and its one headline error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..basics import causes
from ..basics.wording import percent, quantity
from ..ingredients.evaluations import evaluations
from .cause_words import CAUSES, cause_of
from .level_table import planned_training
from .measured_text import measured_headline

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["evaluations_per_image", "handed_parts", "handed_total", "headline", "learner", "relative_error"]

# A spectrum tells how a linear denoiser learns; what a plan for another learner takes, in two lines of 88 columns.
_OTHER_LEARNERS = (
    "how another learner's errors fall is not known here: measure yours with",
    "estimate.network(denoiser, data, training=log), or give its law, training=co.Measured",
)


def handed_total(plan: PlanRecord) -> float | None:
    """Error of the handed-out grid of whole steps; None where it was not computed."""
    total = plan.handed_out.get(causes.TOTAL, plan.handed_out.get("error"))
    return None if total is None else float(total)


def handed_parts(plan: PlanRecord) -> dict[str, float]:
    """The handed-out grid's error by cause, without totals and without bounds on what is left out."""
    return {name: float(value) for name, value in plan.handed_out.items() if name not in causes.NOT_CAUSES}


def evaluations_per_image(plan: PlanRecord) -> int | None:
    """Calls of the denoiser for one image with the handed-out grid; None where the sampler is unknown."""
    if plan.sigmas is None or plan.evaluations_per_step is None:
        return None
    return evaluations(plan.number_of_steps, plan.evaluations_per_step, plan.terminal)


def relative_error(plan: PlanRecord, error: float) -> float | None:
    """An error relative to the data's total variance, where that is known."""
    return error / plan.trace if plan.trace else None


def headline(plan: PlanRecord) -> list[str]:
    """Whose error is told, what is handed out, and the error."""
    whose = learner(plan)
    if not whose:
        return [f"Plan: {_handed_out(plan)}", *_error(plan)]
    return [
        f"Plan for {whose}:",
        f"  {_handed_out(plan)}",
        f"  {_OTHER_LEARNERS[0]}",
        f"  {_OTHER_LEARNERS[1]}",
        *_error(plan, predicted=True),
    ]


def learner(plan: PlanRecord) -> str:
    """Whose training a planned one is, as a phrase; empty where none is planned, or where it was measured."""
    return plan.speaks_of if planned_training(plan) and plan.estimation is None else ""


def _handed_out(plan: PlanRecord) -> str:
    if plan.sigmas is None:
        low, high = plan.levels.edges[0], plan.levels.edges[-1]
        planned = f"training on {len(plan.levels)} noise levels, sigma {quantity(low)} to {quantity(high)}"
        return f"{planned}; " + (f"{len(plan.samplings)} samplers" if plan.samplings else "no sampler planned")
    last = ", the last one to zero noise" if plan.terminal == "denoise" else ""
    return (
        f"{plan.number_of_steps:,} {_sampler_name(plan)}steps, sigma {quantity(plan.sigmas[0])} to "
        f"{quantity(plan.stopping_sigma)}{last}"
    )


def _error(plan: PlanRecord, *, predicted: bool = False) -> list[str]:
    kind = "squared Wasserstein-2 distance of samples to data" if plan.estimation is None else plan.estimation.error
    if plan.measure and plan.estimation is None:
        kind = plan.measure
    if plan.sigmas is None:
        kind = "mean squared error of the outputs of interest"
    if plan.samplings:
        kind = "weighted squared distances of the samplers"
    own = [name for name in plan.breakdown if cause_of(name, plan) not in CAUSES]
    if own:
        return [f"Objective {quantity(plan.error)}, which counts {', '.join(own)} too"]
    total = handed_total(plan)
    if plan.measured is not None and total is not None:
        return measured_headline(plan, plan.measured, total)
    said = plan.error if total is None else total
    how = "Predicted" if predicted or total is None or plan.bias == "predicted" else plan.bias.capitalize()
    lines = [f"{how} error {quantity(said)}: {kind}"]
    relative = relative_error(plan, said)
    if relative is not None:
        root = percent(abs(relative) ** 0.5)
        lines.append(f"  = {percent(relative)} of the data's total variance; RMS {root} of the data's RMS")
    return lines


def _sampler_name(plan: PlanRecord) -> str:
    """The sampler as words before "steps", with a space."""
    if plan.solver is not None:
        return "fitted multistep "
    return f"{plan.sampler.get('name', 'sampler')} "
