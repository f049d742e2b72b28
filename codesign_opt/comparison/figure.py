"""The figure of a Comparison: errors over the plan's, against evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..results.style import BLACK, BLUE, GREEN, GREY, LEGEND, ORANGE, PURPLE, RED, SKY, new_axes

if TYPE_CHECKING:
    from .table import Comparison

__all__ = ["plot_comparison"]

_MOST = 1e6  # larger ratios are drawn at the top: cancellation to rounding would stretch the axis over 30 decades
_LOOKS = [
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (RED, "v", "--"),
    (SKY, "P", "-."),
    (BLACK, "X", ":"),
]


def plot_comparison(found: Comparison, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """One panel per sampler: errors over those of the plan (of the best where there is no plan), log scales.

    The six schedules with the smallest ratios have colours, the others are grey; ratios above a million are drawn at
    the top, and the axis says so.

    Raises:
        ValueError: another number of axes than samplers; a comparison without a schedule.
    """
    if not found.rows:
        raise ValueError(f"the comparison has no schedule to draw: {'; '.join(found.notes) or 'nothing was compared'}.")
    samplers = list(dict.fromkeys(row.sampler for row in found.rows))
    if axes is None:
        figure = plt.figure(figsize=(3.6 * len(samplers) + 1.6, 3.6), layout="constrained")
        axes = list(figure.subplots(1, len(samplers), sharey=True, squeeze=False)[0])
    if len(axes) != len(samplers):
        raise ValueError(f"axes holds {len(axes)} axes; one for each of {len(samplers)} samplers is needed.")
    base = "plan" if "plan" in found.peers else ""
    ratios = {name: [_ratio(found, name, cell, base) for cell in found.cells] for name in found.peers}
    order = sorted((name for name in ratios if name != base), key=lambda name: float(np.nanmean(np.log(ratios[name]))))
    looks = {name: (*look, 2) for name, look in zip(order, _LOOKS, strict=False)} | {base: (BLUE, "o", "-", 3)}
    for ax, sampler in zip(axes, samplers, strict=True):
        new_axes(ax, sampler)
        for name in [*reversed(order), *([base] if base else [])]:
            colour, marker, line, top = looks.get(name, (GREY, ".", "-", 1))
            own = [
                (cell[1], min(ratio, _MOST))
                for cell, ratio in zip(found.cells, ratios[name], strict=True)
                if cell[0] == sampler
            ]
            label = name if name in looks else "_"
            ax.plot(
                *np.array(own).T, color=colour, marker=marker, linestyle=line, zorder=top, label=label, ms=5, lw=1.5
            )
        counts = sorted({cell[1] for cell in found.cells if cell[0] == sampler})
        ax.set(xscale="log", yscale="log", xlabel="evaluations per image")
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
    beyond = "\n(more than a million: at the top)" if np.nanmax([*ratios.values()]) > _MOST else ""
    axes[0].set_ylabel(f"error over that of the {base or 'best'}{beyond}")
    handles, labels = axes[-1].get_legend_handles_labels()
    if len(order) > len(_LOOKS):
        handles, labels = [*handles, plt.Line2D([], [], color=GREY, marker=".")], [*labels, "other schedules"]
    axes[-1].legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.02, 0.5), **LEGEND)
    return list(axes)


def _ratio(found: Comparison, name: str, cell: tuple[str, int], base: str) -> float:
    row, other = found.row(name, *cell), found.row(base, *cell) if base else found.cell(*cell)[0]
    return float("nan") if row is None or other is None or other.error <= 0 else row.error / other.error
