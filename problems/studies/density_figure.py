"""Figure of the comparison of training densities; needs matplotlib, which is loaded when it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from codesign_opt.basics.checks import Array

from .density_pilot import PILOT_DENSITY, RULES

if TYPE_CHECKING:
    from .density_report import DensityReport

__all__ = ["density_figure"]

_RANGE = (0.002, 80.0)


def density_figure(report: DensityReport) -> Any:
    """Three panels: the densities, predicted against realised error, and the realised errors in order."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15.0, 4.8), layout="constrained", width_ratios=(1.0, 1.0, 1.25))
    _densities(report, axes[0])
    _agreement(report, axes[1])
    _order(report, axes[2])
    return figure


def _looks() -> dict[str, tuple[str, str, str]]:
    """Colour, line style and marker of every rule."""
    from codesign_opt.results.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

    table = [
        (ORANGE, "-.", "^"),
        (SKY, "-", "o"),
        (GREEN, "--", "s"),
        (BLUE, "-", "v"),
        (GREY, "--", "h"),
        (BLACK, "-", "x"),
        (BLACK, "--", "P"),
        (PURPLE, ":", "D"),
        (RED, "-", "*"),
    ]
    return dict(zip(RULES, table, strict=True))


def _densities(report: DensityReport, ax: Any) -> None:
    from codesign_opt.results.style import BLACK, GREY, LEGEND, SIGMA, new_axes

    new_axes(ax, "Where to train")
    sigma = np.geomspace(*_RANGE, 400)
    names = list(report.densities)
    ax.plot(sigma, PILOT_DENSITY.per_log_sigma(sigma), color=GREY, lw=5, alpha=0.4, label="pilot (EDM's default)")
    best = names[report.best]
    ax.plot(
        sigma,
        report.densities[best].per_log_sigma(sigma),
        color=BLACK,
        lw=1.6,
        alpha=0.5,
        label=f"best compared: {best}",
    )
    for name, density in report.planned.items():
        color, style, _ = _looks()[name]
        ax.plot(sigma, _per_log(density, sigma), color=color, linestyle=style, lw=1.8, label=f"planned: {name}")
    ax.set(xscale="log", xlim=_RANGE, xlabel=SIGMA, ylabel="share of the examples per unit of ln σ")
    ax.set_ylim(0, 2.3 * ax.get_ylim()[1])
    ax.legend(**LEGEND, loc="upper left")


def _per_log(density: Any, sigma: Array) -> Array:
    """Share of the examples per unit of log sigma."""
    if hasattr(density, "per_log_sigma"):
        return np.asarray(density.per_log_sigma(sigma))
    return np.asarray(density(sigma) * sigma / density.total)


def _agreement(report: DensityReport, ax: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    from codesign_opt.results.style import LEGEND, new_axes, tick

    new_axes(ax, f"Prediction from one pilot, {report.compared} densities")
    part, top = slice(0, report.compared), 20.0
    for name in report.planned:
        color, _, marker = _looks()[name]
        values = np.minimum(report.predicted[name][part] / report.predicted[name][report.best], top)
        label = f"{name}: rank correlation {report.correlation(name):.2f}"
        ax.plot(report.mean[part], values, marker, color=color, ms=6, mfc="none", label=label, clip_on=False)
    ax.set(xscale="log", yscale="log", ylim=(0.2, top), xlabel="realised squared distance")
    ax.set_ylabel(f"predicted, over that of the best (more than {top:g}: at the top)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(tick)
        axis.set_minor_formatter(NullFormatter())
    ax.legend(**LEGEND, loc="lower right")


def _order(report: DensityReport, ax: Any) -> None:
    from codesign_opt.results.style import BLUE, GREY, new_axes

    new_axes(ax, f"Realised error, seeds {report.seeds[0]} to {report.seeds[-1]}")
    names, order = list(report.densities), np.argsort(report.mean)
    top = 1.6 * report.mean[report.best]
    for place, i in enumerate(order):
        planned = i >= report.compared
        ax.errorbar(
            min(report.mean[i], top), place, xerr=report.standard_error[i] if report.mean[i] < top else None,
            fmt="o" if planned else "s", color=BLUE if planned else GREY, mfc=BLUE if planned else "none", capsize=3,
        )  # fmt: skip
        if report.mean[i] >= top:
            ax.annotate(f"{report.mean[i]:.2f} →", (top, place), xytext=(-8, 0), textcoords="offset points",
                        ha="right", va="center", fontsize="small")  # fmt: skip
    ax.axvspan(0, 1.02 * report.mean[report.best], color=BLUE, alpha=0.08, lw=0)
    ax.set_yticks(range(len(order)), [names[i] for i in order], fontsize="small")
    ax.set_xlim(0.97 * report.mean.min(), 1.03 * top)
    ax.set_xlabel("squared terminal distance (shaded: within 2 %)")
