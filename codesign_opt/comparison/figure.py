"""The figure of a comparison: errors over the plan's, against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..results.style import BLACK, BLUE, GREEN, GREY, LEGEND, ORANGE, PURPLE, RED, SKY, new_axes

__all__ = ["plot_ratios"]

_MOST = 1e6  # larger ratios are drawn at the top: cancellation to rounding would stretch the axis over 30 decades
_LOOKS = [
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (RED, "v", "--"),
    (SKY, "P", "-."),
    (BLACK, "X", ":"),
]


def plot_ratios(
    cells: Sequence[tuple[str, int]],
    ratios: Mapping[str, Sequence[float]],
    base: str = "plan",
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """One panel per sampler: errors over those of `base` against evaluations, log scales.

    The six schedules with the smallest ratios have colours, the others are grey; ratios above a million are drawn at
    the top, and the axis says so.

    Args:
        cells: (sampler, evaluations) of each cell.
        ratios: by schedule, its error over that of `base` in each cell; nan where it could not be made.
        base: the schedule that errors are held against, drawn on top; "" for the best of each cell.
        axes: one for each sampler; new ones unless given.

    Raises:
        ValueError: another number of axes than samplers.
    """
    samplers = list(dict.fromkeys(sampler for sampler, _ in cells))
    if axes is None:
        figure = plt.figure(figsize=(3.6 * len(samplers) + 1.6, 3.6), layout="constrained")
        axes = list(figure.subplots(1, len(samplers), sharey=True, squeeze=False)[0])
    if len(axes) != len(samplers):
        raise ValueError(f"axes holds {len(axes)} axes; one for each of {len(samplers)} samplers is needed.")
    order = sorted((name for name in ratios if name != base), key=lambda name: float(np.nanmean(np.log(ratios[name]))))
    looks = {name: (*look, 2) for name, look in zip(order, _LOOKS, strict=False)} | {base: (BLUE, "o", "-", 3)}
    for ax, sampler in zip(axes, samplers, strict=True):
        new_axes(ax, sampler)
        for name in [*reversed(order), *([base] if base else [])]:
            colour, marker, line, top = looks.get(name, (GREY, ".", "-", 1))
            own = [(cell[1], min(r, _MOST)) for cell, r in zip(cells, ratios[name], strict=True) if cell[0] == sampler]
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "ms": 5, "lw": 1.5}
            ax.plot(*np.array(own).T, zorder=top, label=name if name in looks else "_", **style)
        counts = sorted({cell[1] for cell in cells if cell[0] == sampler})
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
