"""The figure of a frontier."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from ..basics.checks import Array
from ..results.style import BLUE, ERROR, LEGEND, RED, new_axes

__all__ = ["frontier_plot"]


def frontier_plot(
    axis: str, values: Array, errors: Array, share: Array, ax: Axes | None = None, *, label: str = ERROR
) -> Axes:
    """Error of the best plan against the budget, and the share of it that goes to training.

    Args:
        axis: "budget" or "images".
        values: (N,) budgets or numbers of images.
        errors: (N,) error of the best plan; nan where there is none.
        share: (N,) part of the compute that goes into training.
        ax: axes to draw on; new ones unless given.
        label: of the error's axis.
    """
    images = axis == "images"
    ax = new_axes(ax, "What more images cost" if images else "What more compute buys")
    lines = ax.plot(values, errors, color=BLUE, marker="o", ms=4, lw=2, label="error (left)")
    what = "images that will be drawn" if images else "budget (units of price)"
    ax.set(xscale="log", yscale="log", xlabel=what, ylabel=label)
    right = ax.twinx()
    style: dict[str, Any] = {"color": RED, "linestyle": "--", "marker": "s", "ms": 4}
    lines += right.plot(values, 100.0 * share, label="training's share (right)", **style)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top * (top / bottom) ** 0.2)  # room for the legend
    right.set_ylim(0, 120)
    right.set_yticks(range(0, 101, 20))
    right.set_ylabel("share of the compute spent on training (%)")
    right.spines["top"].set_visible(False)
    names = [str(line.get_label()) for line in lines]
    ax.legend(lines, names, **LEGEND, loc="upper center", ncols=2)
    return ax
