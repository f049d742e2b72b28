"""The figure of a frontier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from ..results.style import BLUE, ERROR, LEGEND, RED, error_label, new_axes

if TYPE_CHECKING:
    from .frontier import Frontier

__all__ = ["frontier_plot"]


def frontier_plot(frontier: Frontier, ax: Axes | None = None) -> Axes:
    """Error of the best plan against the budget, and the share of it that goes to training."""
    images = getattr(frontier, "axis", "budget") == "images"
    ax = new_axes(ax, "What more images cost" if images else "What more compute buys")
    values = np.asarray(frontier.budgets, dtype=np.float64)
    errors = np.asarray(frontier.errors)
    lines = ax.plot(values, errors, color=BLUE, marker="o", ms=4, lw=2, label="error (left)")
    what = "images that will be drawn" if images else "budget (units of price)"
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=what,
        ylabel=next((error_label(plan) for plan in getattr(frontier, "plans", ()) if plan is not None), ERROR),
    )
    share = ax.twinx()
    percents = 100.0 * np.asarray(frontier.training_share)
    style: dict[str, Any] = {"color": RED, "linestyle": "--", "marker": "s", "ms": 4}
    lines += share.plot(values, percents, label="training's share (right)", **style)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top * (top / bottom) ** 0.2)  # room for the legend
    share.set_ylim(0, 120)
    share.set_yticks(range(0, 101, 20))
    share.set_ylabel("share of the compute spent on training (%)")
    share.spines["top"].set_visible(False)
    names = [str(line.get_label()) for line in lines]
    ax.legend(lines, names, **LEGEND, loc="upper center", ncols=2)
    return ax
