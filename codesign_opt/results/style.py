"""What the plots share: colours, axes, tick labels, densities drawn over the noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..basics import causes
from ..basics.checks import Array
from ..ingredients.densities import LogNormal

if TYPE_CHECKING:
    from ..ingredients.levels import Levels
    from .record import PlanRecord

__all__ = [
    "density_stairs",
    "error_label",
    "finish",
    "lognormal_curve",
    "look",
    "new_axes",
    "ruled_out",
    "short_name",
    "tick",
]

# Okabe and Ito's palette, told apart by every kind of colour vision
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#CC79A7", "#F0E442", "#8A8A8A"
SIGMA = "noise level σ (data units)"
LEGEND: dict[str, Any] = {"fontsize": "small", "edgecolor": "none", "framealpha": 0.85, "borderpad": 0.2}
ERROR = "error (squared Wasserstein-2, data units²)"

# colour, line style, marker and hatch of each cause of error, the same in every plot
_LOOKS: dict[str, tuple[str, Any, str, str]] = {
    causes.DISCRETIZATION: (BLUE, "-", "o", ""),
    causes.SCORE: (ORANGE, "--", "s", "///"),
    causes.FLOOR: (GREEN, "-.", "^", "..."),
    causes.LAST_EVALUATION: (PURPLE, ":", "D", "xxx"),
    causes.TRUNCATION: (RED, (0, (5, 1)), "v", "\\\\\\"),
    causes.INITIAL: (SKY, (0, (3, 1, 1, 1)), "P", "ooo"),
    causes.SIGNED_GRAM: (BLUE, "-", "o", ""),
    causes.POSITIVE_GRAM: (BLUE, "-", "o", ""),
    causes.COHERENT_SCORE: (ORANGE, "--", "s", "///"),
    causes.BIAS: (BLUE, "-", "o", ""),
}
CAUSES_IN_ORDER = tuple(name for name in _LOOKS if name != causes.BIAS)
_NAMES = {
    causes.DISCRETIZATION: "finite steps",
    causes.SCORE: "few examples",
    causes.FLOOR: "noise floor",
    causes.LAST_EVALUATION: "final call",
    causes.TRUNCATION: "stopping early",
    causes.INITIAL: "noise start",
    causes.SIGNED_GRAM: "finite steps",
    causes.POSITIVE_GRAM: "finite steps, upper",
    causes.COHERENT_SCORE: "few examples",
    causes.BIAS: "steps + stopping,\nexact",
    causes.INFORMATION: "few examples",
    causes.TOGETHER: "shared, final call",
    causes.BESIDE_BIAS: "shared, steps",
}


def look(cause: str) -> tuple[str, Any, str, str]:
    """Colour, line style, marker and hatch of a cause of error."""
    return _LOOKS.get(cause, (GREY, (0, (1, 1)), "X", ""))


def error_label(plan: PlanRecord) -> str:
    """Axis of a plan's error: what is measured on a denoiser is no Wasserstein distance."""
    if plan.sigmas is None:
        return "error (squared units of the response)"
    if plan.measure and plan.estimation is None:
        return f"error ({plan.measure})"
    return ERROR if plan.estimation is None else "error (squared distance, same noise, data units²)"


def short_name(cause: str) -> str:
    """A cause of error in few words; a user's own term by its name."""
    return _NAMES.get(cause, cause)


def new_axes(ax: Axes | None, title: str) -> Axes:
    """The axes given, or new ones, titled and without the frame's upper and right sides."""
    if ax is None:
        ax = plt.subplots(figsize=(5.6, 4.2), layout="constrained")[1]
    ax.set_title(title, loc="left", fontweight="bold")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(alpha=0.25)
    return ax


def finish(ax: Axes, levels: Levels) -> None:
    """The axis that all plots over noise levels share, and a legend above the data."""
    ax.set(xscale="log", xlabel=SIGMA, xlim=(levels.edges[0], levels.edges[-1]))
    labels = ax.get_legend_handles_labels()[1]
    if ax.get_yscale() == "linear":
        ax.set_ylim(0, ax.get_ylim()[1] * (1.1 + 0.1 * len(labels)))
        ax.yaxis.set_major_formatter(tick)
    if labels:
        ax.legend(**LEGEND, loc="upper left")


def tick(value: float, position: float = 0.0) -> str:
    """Tick labels that need no offset text, which would collide with captions."""
    if 0 < abs(value) < 1e-2 or abs(value) >= 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def density_stairs(ax: Axes, levels: Levels, amounts: Array, label: str) -> None:
    """Amounts per level as a filled density per unit of ln sigma."""
    values = amounts / levels.log_width
    ax.stairs(values, levels.edges, fill=True, color=SKY, alpha=0.35)
    ax.stairs(values, levels.edges, color=BLUE, lw=1.8, label=label)
    raise_top(ax, values, start=True)


def raise_top(ax: Axes, values: Array, *, start: bool = False) -> None:
    """Keep the upper end of the y axis just above everything drawn."""
    top = 1.05 * float(np.max(values)) or 1.0
    ax.set_ylim(0, top if start else max(ax.get_ylim()[1], top))


def lognormal_curve(ax: Axes, plan: PlanRecord, density: LogNormal, label: str, color: str, style: str) -> None:
    """A log-normal density whose examples cost as much as the plan's."""
    mass = density.mass(plan.levels.edges)
    price = plan.tables.get("example_price", np.ones(mass.size))
    curve = float(price @ plan.examples) / float(price @ mass) * mass / plan.levels.log_width
    ax.plot(plan.levels.sigma, curve, color=color, linestyle=style, lw=1.6, label=label)
    raise_top(ax, curve)


def ruled_out(ax: Axes, plan: PlanRecord, name: str) -> None:
    """Hatch what floors and caps on `name`, "examples" or "steps", exclude."""
    width, edges = plan.levels.log_width, plan.levels.edges
    low = plan.tables.get(f"{name}_low", np.zeros(width.size)) / width
    high = plan.tables.get(f"{name}_high", np.full(width.size, np.inf)) / width
    top = 9.0 * ax.get_ylim()[1]  # beyond the axes' end, which still moves for the legend
    style: Mapping[str, Any] = {"fill": True, "fc": "none", "ec": GREY, "hatch": "////", "lw": 0}
    label = "ruled out by a constraint"
    if np.any(low > 0):
        ax.stairs(np.minimum(low, top), edges, label=label, **style)
        label = "_" + label
    if np.any(high < top):
        ceiling = np.where(high < top, top, np.nan)
        ax.stairs(ceiling, edges, baseline=np.minimum(high, top), label=label, **style)
