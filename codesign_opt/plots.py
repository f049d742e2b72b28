"""Plots of plans, frontiers and audits. Imported only by the methods that draw; needs matplotlib.

Every function takes matplotlib Axes (new ones where `ax` is None) and returns them. Colours are those
of Okabe and Ito, told apart by every kind of colour vision; line styles and markers differ as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._text import percent, quantity
from ._validate import Array
from .densities import LogNormal
from .level_report import planned_training
from .plot_page import draw_page

if TYPE_CHECKING:
    from .plan import Plan

__all__ = [
    "audit_plot", "band_contributions", "error_against_stopping", "error_breakdown", "error_by_level",
    "frontier_plot", "marginal_gain", "plan_page", "step_density", "training_density",
]  # fmt: skip

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
SIGMA = "noise level σ (data units)"
# colour, line style, marker and hatch of each cause of error, the same in every plot
_LOOKS = {
    "discretization": (BLUE, "-", "o", ""),
    "score": (ORANGE, "--", "s", "///"),
    "floor": (GREEN, "-.", "^", "..."),
    "last evaluation": (PURPLE, ":", "D", "xxx"),
    "truncation": (RED, (0, (5, 1)), "v", "\\\\\\"),
    "initial": (SKY, (0, (3, 1, 1, 1)), "P", "ooo"),
}
_OTHER = (GREY, (0, (1, 1)), "X", "+++")


def training_density(plan: Plan, ax: Axes | None = None) -> Axes:
    """Training examples per unit of ln sigma: equal areas are equal numbers of examples.

    The log-normal fit is dashed where the plan has one, EDM's default (P_mean -1.2, P_std 1.2) dotted
    where it is among the peers; both cost the same as the plan. Ruled-out values are hatched.
    """
    ax = _axes(ax, "Where to train")
    width = plan.levels.log_width
    _stairs(ax, plan, plan.examples / width, "this plan")
    fit = plan.fits.get("lognormal")
    if fit:
        label = f"log-normal fit ({fit['P_mean']:.2f}, {fit['P_std']:.2f})"
        _lognormal(ax, plan, LogNormal(fit["P_mean"], fit["P_std"]), label, ORANGE, "--")
    if any(name.lower().startswith("edm") for name in plan.peers):
        _lognormal(ax, plan, LogNormal(), "EDM default (-1.2, 1.2)", RED, ":")
    _ruled_out(ax, plan, "examples", width)
    ax.set_ylabel("training examples per unit of ln σ")
    _finish(ax, plan)
    return ax


def step_density(plan: Plan, ax: Axes | None = None) -> Axes:
    """Sampler steps per unit of ln sigma, with the handed-out noise levels as ticks at the bottom.

    EDM's formula with the fitted rho is dashed where the plan has one. Ruled-out values are hatched.
    """
    ax = _axes(ax, "Where to step")
    width = plan.levels.log_width
    _stairs(ax, plan, plan.steps / width, "this plan")
    fit = plan.fits.get("rho")
    if fit:
        curve = _edm_density(plan, float(fit["rho"]))
        ax.plot(
            plan.levels.sigma, curve, color=ORANGE, linestyle="--", label=f"EDM grid, ρ = {fit['rho']:.3g}"
        )
    _ruled_out(ax, plan, "steps", width)
    if plan.sigmas is not None:
        nodes = plan.sigmas[plan.sigmas > 0]
        line = ax.plot(
            nodes, np.full(nodes.size, 0.025), linestyle="none", marker="|", markersize=9, color=BLACK
        )[0]
        line.set_transform(ax.get_xaxis_transform())
        line.set_label("sampler's noise levels")
    ax.set_ylabel("sampler steps per unit of ln σ")
    _finish(ax, plan)
    return ax


def error_breakdown(plan: Plan, ax: Axes | None = None) -> Axes:
    """Error by cause as bars, largest on top; that of the handed-out whole-step grid beside, where known."""
    ax = _axes(ax, "What the error is made of")
    parts = sorted(((k, v) for k, v in plan.breakdown.items() if v), key=lambda item: item[1])
    handed = dict(plan.handed_out)
    beside = any(name in handed for name, _ in parts)
    height, largest = (0.38, 0.0) if beside else (0.62, 0.0)
    for row, (name, value) in enumerate(parts):
        color, _, _, hatch = _LOOKS.get(name, _OTHER)
        ax.barh(
            row + (height / 2 if beside else 0), value, height, color=color, hatch=hatch, edgecolor="white"
        )
        _bar_text(
            ax,
            row + (height / 2 if beside else 0),
            value,
            f"{quantity(value, 3)} ({percent(value / plan.error)})",
        )
        if name in handed:
            ax.barh(row - height / 2, handed[name], height, facecolor="none", edgecolor=color, linewidth=1.2)
            _bar_text(ax, row - height / 2, handed[name], quantity(handed[name], 3))
        largest = max(largest, abs(value), abs(handed.get(name, 0.0)))
    ax.set_yticks(range(len(parts)), [_label(name) for name, _ in parts])
    ax.set_xlim(min(0.0, *(v for _, v in parts), 0.0), 1.55 * (largest or 1.0))
    ax.set_ylim(-0.6, len(parts) - 0.4)
    ax.set_xlabel("error (squared Wasserstein-2 distance, data units²)")
    if plan.sigmas is None:
        ax.set_xlabel("error (squared units of the response)")
    if beside:
        ax.barh([np.nan], [np.nan], color=GREY, label="plan (fractional steps)")
        ax.barh([np.nan], [np.nan], facecolor="none", edgecolor=GREY, label="handed out (whole steps)")
        ax.legend(frameon=False, fontsize="small", loc="lower right")
    ax.grid(axis="x", alpha=0.25)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    return ax


def error_by_level(plan: Plan, ax: Axes | None = None) -> Axes:
    """Error per unit of ln sigma by cause: equal areas of one curve are equal errors."""
    ax = _axes(ax, "Where the error arises")
    for name in ("discretization", "score", "floor"):
        values = plan.tables.get(name)
        if values is not None and np.any(values > 0):
            color, style, _, _ = _LOOKS[name]
            edges = plan.levels.edges
            ax.stairs(
                values / plan.levels.log_width,
                edges,
                color=color,
                linestyle=style,
                label=_label(name),
                lw=1.8,
            )
    ax.set_ylabel("error per unit of ln σ (data units²)")
    _finish(ax, plan)
    return ax


def error_against_stopping(plan: Plan, ax: Axes | None = None) -> Axes:
    """Certified error of the best design against the noise level where sampling stops; the choice is starred."""
    ax = _axes(ax, "Where to stop")
    records = sorted(plan.curve, key=lambda record: record["stopping_sigma"])
    stops = np.array([record["stopping_sigma"] for record in records])
    for name in (*_LOOKS, *(k for k in plan.breakdown if k not in _LOOKS)):
        part = np.array([float(_part(record, name)) for record in records])
        if np.any(part > 0):
            color, style, marker, _ = _LOOKS.get(name, _OTHER)
            part = np.where(part > 0, part, np.nan)
            ax.plot(
                stops, part, color=color, linestyle=style, marker=marker, ms=3.5, lw=1.2, label=_label(name)
            )
    ax.plot(stops, [record["error"] for record in records], color=BLACK, lw=2.4, label="total")
    if all("lower_bound" in record for record in records):
        bound = [record["lower_bound"] for record in records]
        ax.plot(stops, bound, color=GREY, linestyle=(0, (1, 1)), lw=1.4, label="proved lower bound")
    ax.plot([plan.stopping_sigma], [plan.error], "*", ms=14, color=BLACK, mfc="#F0E442", label="chosen")
    ax.set(xscale="log", yscale="log", xlabel="noise level where sampling stops, σ (data units)")
    ax.set_ylabel("error (squared Wasserstein-2, data units²)")
    total = np.array([record["error"] for record in records])
    ax.set_ylim(bottom=float(total.min()) * 1e-4 if ax.get_ylim()[0] < total.min() * 1e-4 else None)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize="small")
    return ax


def marginal_gain(plan: Plan, ax: Axes | None = None) -> Axes:
    """Error removed by the next unit of price spent on examples of a level: flat where training is active.

    Levels that a floor holds up lie below the flat part, levels that a cap holds down above it, and
    levels that are not worth a new example (idle) below.
    """
    ax = _axes(ax, "What one more example is worth")
    sigma, gain = plan.levels.sigma, plan.tables["marginal_gain"]
    ok = np.isfinite(gain) & (gain > 0)
    states = level_states(plan)
    shapes = {"active": ("o", BLUE), "at a floor": ("v", RED), "at a cap": ("^", ORANGE), "idle": ("x", GREY)}
    for state, (marker, color) in shapes.items():
        on = ok & (states == state)
        if on.any():
            ax.plot(sigma[on], gain[on], linestyle="none", marker=marker, ms=4, color=color, label=state)
    price = plan.shadow_prices.get("Compute", plan.shadow_prices.get("Compute(training)"))
    if price is not None and np.ndim(price) == 0 and price < 0:
        ax.axhline(-float(price), color=BLACK, linestyle="--", lw=1, label="shadow price of the budget")
    if ok.any():
        top, low = float(gain[ok].max()), float(gain[ok & (states != "idle")].min(initial=np.inf))
        ax.set_ylim(min(low, top) / 5, top * 5)
    ax.set_yscale("log")
    ax.set_ylabel("error removed per unit of price")
    _finish(ax, plan)
    return ax


def level_states(plan: Plan) -> np.ndarray[Any, np.dtype[np.str_]]:
    """(L,) "active", "at a floor", "at a cap" or "idle" (no new examples worth their price)."""
    low = plan.tables.get("examples_low", np.zeros(len(plan.levels)))
    high = plan.tables.get("examples_high", np.full(len(plan.levels), np.inf))
    near = 1e-6 * np.maximum(plan.examples, 1e-300)
    idle = plan.new_examples <= 1e-6 * plan.new_examples.max()
    floor, cap = (low > 0) & (plan.examples <= low + near), plan.examples >= high - near
    return np.select([floor, cap, idle], ["at a floor", "at a cap", "idle"], "active")


def band_contributions(plan: Plan, ax: Axes | None = None) -> Axes:
    """Discretisation error of each band of the data's spectrum against the band's variance."""
    ax = _axes(ax, "Which directions of the data suffer")
    bands = plan.tables["bands"]
    variance = np.asarray(plan.provenance.get("band_eigenvalues", ()), dtype=np.float64)
    known = variance.size == bands.size
    x = variance if known else np.arange(1.0, bands.size + 1)
    on = (bands > 0) & (x > 0)
    low = float(bands[on].min()) / 3 if on.any() else 1.0
    ax.vlines(x[on], low, bands[on], color=BLUE, lw=1, alpha=0.6)
    ax.plot(x[on], bands[on], linestyle="none", marker="o", ms=4, color=BLUE)
    ax.set(xscale="log", yscale="log", ylabel="discretization error (data units²)")
    ax.set_ylim(bottom=low)
    ax.set_xlabel(
        "data variance of one direction of the band (data units²)"
        if known
        else "band, largest variance first"
    )
    ax.grid(alpha=0.25)
    return ax


def frontier_plot(frontier: Any, ax: Axes | None = None) -> Axes:
    """Error of the best plan against the budget, and the share of it that goes to training."""
    ax = _axes(ax, "What more compute buys")
    budgets = np.asarray(frontier.budgets, dtype=np.float64)
    error = ax.plot(
        budgets, np.asarray(frontier.errors), color=BLUE, marker="o", ms=4, lw=2, label="error (left)"
    )
    ax.set(xscale="log", yscale="log", xlabel="budget (units of price)")
    ax.set_ylabel("error (squared Wasserstein-2, data units²)")
    ax.grid(alpha=0.25)
    share = ax.twinx()
    percents = 100.0 * np.asarray(frontier.training_share)
    line = share.plot(
        budgets, percents, color=RED, linestyle="--", marker="s", ms=4, label="training's share (right)"
    )
    share.set_ylim(0, 100)
    share.set_ylabel("share of the budget spent on training (%)")
    share.spines["top"].set_visible(False)
    lines = [*error, *line]
    ax.legend(lines, [str(item.get_label()) for item in lines], frameon=False, fontsize="small", loc="best")
    return ax


def audit_plot(audit: Any, ax: Axes | None = None) -> Axes:
    """Excess error over the optimum per unit of ln sigma; the gap by cause in the legend."""
    ax = _axes(ax, "Where today's design loses")
    levels, excess = audit.levels, np.asarray(audit.excess_by_level, dtype=np.float64)
    density = excess / levels.log_width
    ax.stairs(
        np.maximum(density, 0),
        levels.edges,
        fill=True,
        color=RED,
        alpha=0.45,
        label="more error than the optimum",
    )
    if np.any(density < 0):
        less = np.minimum(density, 0)
        ax.stairs(less, levels.edges, fill=True, color=SKY, hatch="///", label="less error than the optimum")
    ax.axhline(0, color=BLACK, lw=0.8)
    gap = {name: float(value) for name, value in dict(audit.gap).items() if value}
    for name, value in sorted(gap.items(), key=lambda item: -abs(item[1])):
        ax.plot([], [], linestyle="none", label=f"{_label(name)}: {value:+.3g}")
    ax.set(xscale="log", xlabel=SIGMA)
    ax.set_ylabel("excess error per unit of ln σ (data units²)")
    ax.legend(
        frameon=False, fontsize="small", title="gap to the optimum" if gap else None, title_fontsize="small"
    )
    ax.grid(alpha=0.25)
    return ax


def plan_page(plan: Plan, figure: Figure | None = None) -> Figure:
    """One page that shows the whole plan: where to train, step and stop, the error, and the proof's marks.

    Panels without data are left out; a plan without a sampler gets a shorter page.
    """
    panels: list[tuple[Any, str]] = []
    if planned_training(plan):
        panels.append((training_density, "Equal areas are equal numbers of training images."))
    if plan.sigmas is not None:
        panels.append((step_density, "Ticks: the noise levels to hand to the sampler."))
    panels.append((error_breakdown, "Predicted distance of the samples to the data, by cause."))
    if len(plan.curve) > 1:
        panels.append((error_against_stopping, "Best design for every stopping point."))
    if planned_training(plan):
        panels.append((marginal_gain, "At the optimum all free noise levels are worth the same."))
    if plan.sigmas is not None and len(panels) < 6 and np.any(plan.tables["discretization"] > 0):
        panels.append((error_by_level, "Equal areas under one curve are equal errors."))
    if "bands" in plan.tables and len(panels) < 6:
        panels.append((band_contributions, "One mark per group of directions of equal variance."))
    return draw_page(plan, panels, figure)


def _axes(ax: Axes | None, title: str) -> Axes:
    if ax is None:
        ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")[1]
    ax.set_title(title, loc="left", fontweight="bold")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _finish(ax: Axes, plan: Plan) -> None:
    """The axis all plots over noise levels share."""
    ax.set(xscale="log", xlabel=SIGMA, xlim=(plan.levels.edges[0], plan.levels.edges[-1]))
    ax.grid(alpha=0.25)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small")


def _stairs(ax: Axes, plan: Plan, values: Array, label: str) -> None:
    ax.stairs(values, plan.levels.edges, fill=True, color=SKY, alpha=0.35)
    ax.stairs(values, plan.levels.edges, color=BLUE, lw=1.8, label=label)
    ax.set_ylim(0, 1.25 * float(values.max()) or 1.0)


def _lognormal(ax: Axes, plan: Plan, density: LogNormal, label: str, color: str, style: str) -> None:
    """The log-normal whose examples cost as much as the plan's."""
    mass = density.mass(plan.levels.edges)
    price = plan.tables.get("example_price", np.ones(mass.size))
    total = float(price @ plan.examples) / float(price @ mass)
    curve = total * mass / plan.levels.log_width
    ax.plot(plan.levels.sigma, curve, color=color, linestyle=style, lw=1.6, label=label)
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.1 * float(curve.max())))


def _edm_density(plan: Plan, rho: float) -> Array:
    """Steps per unit of ln sigma of EDM's grid, uniform in sigma^(1/rho), with as many steps as the plan."""
    root = plan.levels.edges ** (1.0 / rho)
    return float(plan.steps.sum()) * np.diff(root) / (root[-1] - root[0]) / plan.levels.log_width


def _ruled_out(ax: Axes, plan: Plan, quantity_name: str, width: Array) -> None:
    """Hatch what floors and caps exclude."""
    zero = np.zeros(width.size)
    low = plan.tables.get(f"{quantity_name}_low", zero) / width
    high = plan.tables.get(f"{quantity_name}_high", zero + np.inf) / width
    top = ax.get_ylim()[1]
    look: Mapping[str, Any] = {"fill": True, "facecolor": "none", "edgecolor": GREY, "hatch": "////", "lw": 0}
    label = "ruled out by a constraint"
    if np.any(low > 0):
        ax.stairs(np.minimum(low, top), plan.levels.edges, label=label, **look)
        label = "_" + label
    if np.any(high < top):
        ax.stairs(
            np.where(high < top, top, np.nan),
            plan.levels.edges,
            baseline=np.minimum(high, top),
            label=label,
            **look,
        )


def _part(record: Mapping[str, Any], name: str) -> Any:
    """One part of a record of the curve, whether the parts are keys of their own or in a "breakdown"."""
    return record.get(name, record.get("breakdown", {}).get(name, 0.0))


def _label(name: str) -> str:
    names = {"discretization": "finite steps", "score": "too few examples", "floor": "training-noise floor",
             "last evaluation": "last denoiser call", "truncation": "stopping early", "initial": "pure-noise start",
             "InformationError": "shared parameters"}  # fmt: skip
    return names.get(name, name)


def _bar_text(ax: Axes, row: float, value: float, text: str) -> None:
    ax.annotate(
        text, (max(value, 0.0), row), xytext=(4, 0), textcoords="offset points", va="center", fontsize="small"
    )
