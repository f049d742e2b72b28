"""Panels of the comparison of training densities: each draws the values that it is given (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from codesign_opt.basics.checks import Array
from codesign_opt.results.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LEGEND,
    ORANGE,
    PURPLE,
    RED,
    SIGMA,
    SKY,
    new_axes,
    tick,
)

from .density_pilot import PILOT_DENSITY, RULES

__all__ = ["agreement_panel", "density_panel", "order_panel", "three_panels"]

_RANGE = (0.002, 80.0)
# colour, line style and marker of every rule
_LOOKS = dict(
    zip(
        RULES,
        [
            (ORANGE, "-.", "^"),
            (SKY, "-", "o"),
            (GREEN, "--", "s"),
            (BLUE, "-", "v"),
            (GREY, "--", "h"),
            (BLACK, "-", "x"),
            (BLACK, "--", "P"),
            (PURPLE, ":", "D"),
            (RED, "-", "*"),
        ],
        strict=True,
    )
)


def three_panels() -> tuple[Any, Any]:
    """A figure and its three axes: densities, predicted against realised error, realised errors in order."""
    return plt.subplots(1, 3, figsize=(15.0, 4.8), layout="constrained", width_ratios=(1.0, 1.0, 1.25))


def density_panel(ax: Any, best: tuple[str, Any], planned: Mapping[str, Any]) -> None:
    """The pilot's density, the best of those compared and its name, and the planned ones by rule."""
    new_axes(ax, "Where to train")
    sigma = np.geomspace(*_RANGE, 400)
    ax.plot(sigma, PILOT_DENSITY.per_log_sigma(sigma), color=GREY, lw=5, alpha=0.4, label="pilot (EDM's default)")
    name, density = best
    label = f"best compared: {name}"
    ax.plot(sigma, density.per_log_sigma(sigma), color=BLACK, lw=1.6, alpha=0.5, label=label)
    for rule, density in planned.items():
        color, style, _ = _LOOKS[rule]
        ax.plot(sigma, density.per_log_sigma(sigma), color=color, linestyle=style, lw=1.8, label=f"planned: {rule}")
    ax.set(xscale="log", xlim=_RANGE, xlabel=SIGMA, ylabel="share of the examples per unit of ln σ")
    ax.set_ylim(0, 2.3 * ax.get_ylim()[1])
    ax.legend(**LEGEND, loc="upper left")


def agreement_panel(ax: Any, realised: Array, predicted: Mapping[str, tuple[Array, float]]) -> None:
    """Predicted errors, over that of the best density, against realised ones.

    Args:
        ax: axes.
        realised: (D,) of the compared densities.
        predicted: by rule: (D,) ratios, and their rank correlation with the realised errors.
    """
    new_axes(ax, f"Prediction from one pilot, {realised.size} densities")
    top = 20.0
    for rule, (ratios, correlation) in predicted.items():
        color, _, marker = _LOOKS[rule]
        label = f"{rule}: rank correlation {correlation:.2f}"
        ax.plot(realised, np.minimum(ratios, top), marker, color=color, ms=6, mfc="none", label=label, clip_on=False)
    ax.set(xscale="log", yscale="log", ylim=(0.2, top), xlabel="realised squared distance")
    ax.set_ylabel(f"predicted, over that of the best (more than {top:g}: at the top)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(tick)
        axis.set_minor_formatter(NullFormatter())
    ax.legend(**LEGEND, loc="lower right")


def order_panel(
    ax: Any, names: Sequence[str], mean: Array, standard_error: Array, compared: int, seeds: Sequence[int]
) -> None:
    """Realised errors with their standard errors, the smallest first; the first `compared` names are not planned."""
    new_axes(ax, f"Realised error, seeds {seeds[0]} to {seeds[-1]}")
    order, best = np.argsort(mean), mean[:compared].min()
    top = 1.6 * best
    for place, i in enumerate(order):
        planned = i >= compared
        ax.errorbar(
            min(mean[i], top), place, xerr=standard_error[i] if mean[i] < top else None,
            fmt="o" if planned else "s", color=BLUE if planned else GREY, mfc=BLUE if planned else "none", capsize=3,
        )  # fmt: skip
        if mean[i] >= top:
            ax.annotate(f"{mean[i]:.2f} →", (top, place), xytext=(-8, 0), textcoords="offset points",
                        ha="right", va="center", fontsize="small")  # fmt: skip
    ax.axvspan(0, 1.02 * best, color=BLUE, alpha=0.08, lw=0)
    ax.set_yticks(range(len(order)), [names[i] for i in order], fontsize="small")
    ax.set_xlim(0.97 * mean.min(), 1.03 * top)
    ax.set_xlabel("squared terminal distance (shaded: within 2 %)")
