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

_CELL = (4.0, 3.5)  # inches of the figure for each panel, from which on labels have the room that they need
# inches: a line of the title, a letter of a tick's label, and what lies around each panel
_LINE, _LETTER, _BELOW, _ABOVE, _BESIDE = 0.27, 0.074, 0.5, 0.65, 0.15
Panel = tuple[Callable[..., Axes], str]


def draw_page(plan: PlanRecord, panels: Sequence[Panel], figure: Figure | None) -> Figure:
    """Draw `panels`, pairs of a plotting function and a caption, at most three to a row, under the plan's answer."""
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    if figure is None:
        figure = plt.figure(figsize=(max(4.7 * columns, 7.0), 3.7 * rows + 1.0))
    answer, proof = page_title(plan)
    if len(answer) > 34 * columns:
        answer = answer.replace(": error", ":\nerror")
    proof = textwrap.fill(proof, 58 * columns)
    figure.suptitle(answer, x=0.012, ha="left", fontsize=15, fontweight="bold")
    figure.supxlabel(proof, x=0.012, ha="left", fontsize=9.5, color="#404040")
    edges = (0.35 + _LINE * answer.count("\n"), 0.45 + 0.6 * _LINE * proof.count("\n"))
    made = []
    for place, (draw, caption) in enumerate(panels):
        ax = draw(plan, figure.add_subplot(rows, columns, place + 1))
        title = ax.get_title(loc="left")
        ax.set_title(title, loc="left", fontweight="bold", fontsize=12, pad=20)
        ax.text(0.0, 1.02, caption, transform=ax.transAxes, fontsize=9, color="#404040", va="bottom")
        made.append(ax)
    _arrange(figure, made, columns, edges)
    return figure


def _arrange(figure: Figure, made: Sequence[Axes], columns: int, edges: tuple[float, float]) -> None:
    """Axes in rows and columns with room for their labels; `edges` are inches above and below all of them.

    The layout engines of matplotlib measure every text twice for this, which takes as long as all the rest of a page.
    """
    width, height = figure.get_size_inches()
    rows = -(-len(made) // columns)
    # in a small figure of the user's all is closer
    small = min(1.0, width / columns / _CELL[0], height / rows / _CELL[1])
    over, under = (small * edge for edge in edges)
    wide, high = width / columns, (height - over - under) / rows
    lefts = [small * max(_room(ax) for ax in made[column::columns]) for column in range(columns)]
    for place, ax in enumerate(made):
        row, column = divmod(place, columns)
        corner = column * wide + lefts[column], under + (rows - 1 - row) * high + small * _BELOW
        size = wide - lefts[column] - small * _BESIDE, high - small * (_BELOW + _ABOVE)
        ax.set_position((corner[0] / width, corner[1] / height, size[0] / width, size[1] / height))


def _room(ax: Axes) -> float:
    """Inches that the labels left of some axes take."""
    texts = [label.get_text() for label in ax.get_yticklabels()]
    longest = max((5 if text.startswith("$") else len(line) for text in texts for line in text.split("\n")), default=0)
    return 0.15 + _LETTER * longest + (0.3 if ax.get_ylabel() else 0.0)


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
