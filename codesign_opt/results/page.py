"""The page of a plan: a title that answers, and panels with captions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..basics.wording import percent, quantity
from .headline import evaluations_per_image, handed_total, relative_error
from .style import tick
from .text import certificate_line, outer_line

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["draw_page", "page_title"]

Panel = tuple[Callable[..., Axes], str]


def draw_page(plan: PlanRecord, panels: Sequence[Panel], figure: Figure | None) -> Figure:
    """Draw `panels`, pairs of a plotting function and a caption, at most three to a row, under the plan's answer."""
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    if figure is None:
        figure = plt.figure(figsize=(max(4.7 * columns, 7.0), 3.7 * rows + 1.0))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    answer, proof = page_title(plan)
    if len(answer) > 34 * columns:
        answer = answer.replace(": error", ":\nerror")
    proof = textwrap.fill(proof, 58 * columns)
    figure.suptitle(answer, x=0.012, ha="left", fontsize=15, fontweight="bold")
    figure.supxlabel(proof, x=0.012, ha="left", fontsize=9.5, color="#404040")
    for place, (draw, caption) in enumerate(panels):
        ax = draw(plan, figure.add_subplot(rows, columns, place + 1))
        title = ax.get_title(loc="left")
        ax.set_title(title, loc="left", fontweight="bold", fontsize=12, pad=20)
        ax.text(0.0, 1.02, caption, transform=ax.transAxes, fontsize=9, color="#404040", va="bottom")
    return figure


def page_title(plan: PlanRecord) -> tuple[str, str]:
    """The answer in a sentence, and the proof in another."""
    total = handed_total(plan)
    total = plan.error if total is None else total
    relative = relative_error(plan, total)
    error = f"error {tick(total)}"
    if plan.measured is not None:
        error += f" ± {tick(plan.measured.standard_error)}, measured"
    if relative is not None:
        error += f" ({percent(relative)} of the data's variance)"
    spending = plan.costs.get("training", 0.0) + plan.costs.get("sampling", 0.0)
    proof = certificate_line(plan)
    outer = outer_line(plan)
    proof = f"Proof: {proof}." + (f" Over stopping points: {outer}." if outer else "")
    if plan.sigmas is None:
        count = f"{quantity(plan.new_examples.sum(), 3)} examples"
        return f"Train on {count} over {len(plan.levels)} noise levels: {error}", proof
    stop = f"stop at σ = {quantity(plan.stopping_sigma, 3)}"
    steps = f"sample in {plan.number_of_steps:,} steps"
    calls = evaluations_per_image(plan)
    if calls is not None and calls != plan.number_of_steps:
        steps += f" ({calls:,} evaluations)"
    if spending and plan.costs.get("training", 0.0) > 0:
        share = percent(plan.costs["training"] / spending)
        return f"Spend {share} of the compute on training, {steps}, {stop}: {error}", proof
    return f"{steps[0].upper()}{steps[1:]}, {stop}: {error}", proof
