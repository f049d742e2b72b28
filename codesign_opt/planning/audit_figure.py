"""The figure of an audit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from ..basics.checks import Array, Mask
from ..ingredients.levels import Levels
from ..results.style import BLACK, LEGEND, RED, SIGMA, SKY, new_axes, tick

__all__ = ["audit_plot"]


def audit_plot(
    levels: Levels, excess: Array, gap: Mapping[str, float], ax: Axes | None = None, *, untrained: Mask | None = None
) -> Axes:
    """Excess error over the optimum per unit of ln sigma; what each change would remove in the legend.

    Args:
        levels: the L levels.
        excess: (L,) score error above the best density's, level by level; infinite where nothing was trained.
        gap: excess error that each change removes, by name.
        ax: axes to draw on; new ones unless given.
        untrained: (L,) levels without a single example within a correlation length.
    """
    ax = new_axes(ax, "Where today's training loses")
    endless = ~np.isfinite(excess)  # levels without a single example or a prior: the error there has no bound
    never = endless if untrained is None else endless | untrained
    density = np.where(endless, 0.0, excess) / levels.log_width
    more, less = np.maximum(density, 0), np.minimum(density, 0)
    ax.stairs(more, levels.edges, fill=True, color=RED, alpha=0.5, label="more error than the best density")
    if np.any(less < 0):
        label = "less error than the best density"
        ax.stairs(less, levels.edges, fill=True, fc=SKY, ec="white", hatch="///", lw=0, label=label)
    if never.any():
        ax.plot(levels.sigma[never], np.zeros(never.sum()), "x", color=BLACK, ms=5, label="never trained")
    ax.axhline(0, color=BLACK, lw=0.8)
    for name, value in gap.items():
        gain = f"error {tick(-value)}" if value > 0 else "no gain"
        ax.plot([], [], linestyle="none", label=f"better {name}: {gain}")
    ax.set(xscale="log", xlabel=SIGMA, ylabel="excess score error per unit of ln σ (data units²)")
    ax.yaxis.set_major_formatter(tick)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.1 * (len(gap) + 3) * (top - bottom))  # room for the legend
    ax.legend(**LEGEND, loc="upper left", handlelength=1.5)
    return ax
