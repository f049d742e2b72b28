"""Plots of plans, frontiers and audits. Imported only by the methods that draw; needs matplotlib.

Every function takes matplotlib Axes (new ones where `ax` is None) and returns them. Colours are
told apart by every kind of colour vision; line styles, markers and hatches differ as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter

from ..basics import causes
from ..basics.checks import Array
from ..basics.wording import percent
from ..ingredients.densities import LogNormal
from .headline import handed_parts, handed_total
from .level_table import planned_training
from .page import draw_page
from .style import (
    BLACK,
    BLUE,
    CAUSES_IN_ORDER,
    GREY,
    LEGEND,
    ORANGE,
    RED,
    SKY,
    YELLOW,
    density_stairs,
    error_label,
    finish,
    lognormal_curve,
    look,
    new_axes,
    raise_top,
    ruled_out,
    short_name,
    tick,
)

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = [
    "band_panel",
    "breakdown_panel",
    "gain_panel",
    "level_error_panel",
    "level_states",
    "plan_page",
    "step_panel",
    "stopping_panel",
    "training_panel",
]


def training_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Training examples per unit of ln sigma: equal areas are equal numbers of examples.

    The log-normal fit is dashed where the plan has one, EDM's default (P_mean -1.2, P_std 1.2) dotted
    where it is among the peers; both cost the same as the plan. What floors and caps rule out is hatched.
    """
    ax = new_axes(ax, "Where to train")
    density_stairs(ax, plan.levels, plan.examples, "this plan")
    fit = plan.fits.get("lognormal")
    if fit:
        label = f"log-normal fit ({fit['P_mean']:.2f}, {fit['P_std']:.2f})"
        lognormal_curve(ax, plan, LogNormal(fit["P_mean"], fit["P_std"]), label, ORANGE, "--")
    if any(name.lower().startswith("edm") for name in plan.peers):
        lognormal_curve(ax, plan, LogNormal(), "EDM default (-1.2, 1.2)", RED, ":")
    ruled_out(ax, plan, "examples")
    ax.set_ylabel("training examples per unit of ln σ")
    finish(ax, plan.levels)
    return ax


def step_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Sampler steps per unit of ln sigma, with the handed-out noise levels as ticks at the bottom.

    EDM's formula with the fitted rho is dashed where the plan has one. What floors and caps rule
    out is hatched.
    """
    ax = new_axes(ax, "Where to step")
    density_stairs(ax, plan.levels, plan.steps, "this plan")
    fit = plan.fits.get("rho")
    if fit:
        curve = _edm_density(plan, float(fit["rho"]))
        label = f"EDM grid, ρ = {fit['rho']:.3g}"
        ax.plot(plan.levels.sigma, curve, color=ORANGE, linestyle="--", lw=1.6, label=label)
        raise_top(ax, curve)
    ruled_out(ax, plan, "steps")
    if plan.sigmas is not None:
        nodes = plan.sigmas[plan.sigmas > 0]
        marks: dict[str, Any] = {
            "linestyle": "none",
            "marker": "|",
            "ms": 10,
            "mew": 1.1,
            "color": BLACK,
            "clip_on": False,
        }
        line = ax.plot(nodes, np.full(nodes.size, 0.03), label="the sampler's noise levels", **marks)[0]
        line.set_transform(ax.get_xaxis_transform())
    ax.set_ylabel("sampler steps per unit of ln σ")
    finish(ax, plan.levels)
    if plan.sigmas is not None:  # a measured grid may stop below its program's levels
        ax.set_xlim(left=min(plan.levels.edges[0], float(plan.sigmas[plan.sigmas > 0][-1])))
    return ax


def _edm_density(plan: PlanRecord, rho: float) -> Array:
    """Steps per unit of ln sigma of EDM's grid, uniform in sigma^(1/rho), with as many steps as the plan."""
    root = plan.levels.edges ** (1.0 / rho)
    return float(plan.steps.sum()) * np.diff(root) / (root[-1] - root[0]) / plan.levels.log_width


def breakdown_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Error by cause as bars, largest on top; outlined beside, that of the handed-out whole-step grid."""
    ax = new_axes(ax, "What the error is made of")
    ax.grid(visible=False, axis="y")
    handed = handed_parts(plan)
    both = {name: (plan.breakdown.get(name, 0.0), handed.get(name, 0.0)) for name in {**plan.breakdown, **handed}}
    parts = sorted((name, values[0]) for name, values in both.items() if any(values))
    parts = sorted(parts, key=lambda item: max(both[item[0]]))
    height, shift = (0.36, 0.19) if handed else (0.6, 0.0)
    for row, (name, value) in enumerate(parts):
        color, _, _, hatch = look(name)
        if value:
            ax.barh(row + shift, value, height, color=color, hatch=hatch, edgecolor="white", label="_plan")
            share = f" ({percent(value / plan.error)})" if plan.error else ""
            _bar_text(ax, row + shift, value, tick(value) + share)
        if name in handed:
            ax.barh(row - shift, handed[name], height, fc="none", ec=color, lw=1.3, label="_handed out")
            _bar_text(ax, row - shift, handed[name], tick(handed[name]))
    bias = short_name(causes.BIAS).replace("exact", plan.bias)  # a bias that was measured or predicted says so
    names = [bias if name == causes.BIAS else short_name(name) for name, _ in parts]
    ax.set_yticks(range(len(parts)), names)
    values = [v for _, v in parts] + [handed.get(k, 0.0) for k, _ in parts]
    ax.set_xlim(min([0.0, *values]), 1.6 * max([0.0, *values]) or 1.0)
    spare = max(3 - len(parts), 0) / 2
    ax.set_ylim(-0.6 - spare - (0.9 if handed else 0.0), len(parts) - 0.4 + spare)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(tick)
    ax.set_xlabel(error_label(plan))
    if handed:
        kinds = [Patch(color=GREY, label="plan"), Patch(fc="none", ec=GREY, label="handed out, whole steps")]
        ax.legend(handles=kinds, **LEGEND, loc="lower right", ncols=2)
    return ax


def _bar_text(ax: Axes, row: float, value: float, text: str) -> None:
    place: dict[str, Any] = {
        "xytext": (4, 0),
        "textcoords": "offset points",
        "va": "center",
        "fontsize": "small",
    }
    ax.annotate(text, (max(value, 0.0), row), **place)


def level_error_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Error per unit of ln sigma by cause: equal areas under one curve are equal errors."""
    ax = new_axes(ax, "Where the error arises")
    first = True
    for name in (causes.DISCRETIZATION, causes.SCORE, causes.FLOOR):
        values = plan.tables.get(name)
        if values is not None and np.any(values > 0):
            color, line, _, _ = look(name)
            density = values / plan.levels.log_width
            style: dict[str, Any] = {"color": color, "linestyle": line, "lw": 1.8}
            ax.stairs(density, plan.levels.edges, label=short_name(name), **style)
            raise_top(ax, density, start=first)
            first = False
    ax.set_ylabel("error per unit of ln σ (data units²)")
    finish(ax, plan.levels)
    return ax


def stopping_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Error of the best design for every stopping point tried, by cause; what is handed out is starred.

    Where the whole steps stop elsewhere than the program, a ring marks the program's best stopping point.

    Stopping points without a certified plan are left out, and so are causes always below a
    thousandth of the smallest error.
    """
    ax = new_axes(ax, "Where to stop")
    solved = [record for record in plan.curve if record.get("error") is not None]
    records = sorted(solved, key=lambda record: record["stopping_sigma"])
    stops = np.array([record["stopping_sigma"] for record in records])
    total = np.array([record["error"] for record in records])
    for name in (*CAUSES_IN_ORDER, *(k for k in plan.breakdown if k not in CAUSES_IN_ORDER)):
        part = np.array([float(record.get(name, 0.0)) for record in records])
        if np.any(part > 1e-3 * total.min()):
            color, line, marker, _ = look(name)
            style: dict[str, Any] = {"color": color, "linestyle": line, "marker": marker, "ms": 3.5, "lw": 1.2}
            ax.plot(stops, np.where(part > 0, part, np.nan), label=short_name(name), **style)
    ax.plot(stops, total, color=BLACK, lw=2.4, label="total")
    if all("lower_bound" in record for record in records):
        bound = [record["lower_bound"] for record in records]
        ax.plot(stops, bound, color=SKY, linestyle=(0, (2, 2)), lw=1.4, label="proved lower bound")
    place = (plan.stopping_sigma, plan.error)
    if plan.program_stopping_sigma is not None:  # the star is where the page's title says, the program's best beside it
        program, total_error = (plan.program_stopping_sigma, plan.error), handed_total(plan)
        place = program if total_error is None else (plan.stopping_sigma, total_error)
        ax.plot(*program, "o", ms=6, mec=BLACK, mfc="white", ls="none", label="program")
    ax.plot(*place, "*", ms=14, mec=BLACK, mfc=YELLOW, ls="none", label="chosen")
    ax.set(xscale="log", yscale="log", ylabel=error_label(plan))
    ax.set_xlabel("noise level where sampling stops, σ (data units)")
    low, high = float(total.min()) * 1e-3, float(total.max())
    ax.set_ylim(low, high * (high / low) ** 0.55)  # room for the legend
    ax.legend(**LEGEND, ncols=2, loc="upper left")
    return ax


def gain_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Error removed by the next unit of price spent on examples of a level: flat where training is active.

    Levels that a floor holds up lie below the flat part, levels that a cap holds down above it;
    idle levels, which get no new example, lie below.
    """
    ax = new_axes(ax, "What one more example is worth")
    sigma, gain = plan.levels.sigma, plan.tables["marginal_gain"]
    ok = np.isfinite(gain) & (gain > 0)
    states = level_states(plan)
    shapes = {"active": ("o", BLUE), "at a floor": ("v", RED), "at a cap": ("^", ORANGE), "idle": ("x", GREY)}
    for state, (marker, color) in shapes.items():
        on = ok & (states == state)
        if on.any():
            ax.plot(sigma[on], gain[on], linestyle="none", marker=marker, ms=4, color=color, label=state)
    price = _budget_price(plan)
    if price is not None:
        ax.axhline(price, color=BLACK, linestyle="--", lw=1, label="shadow price of the budget")
    ax.set_yscale("log")
    if ok.any():
        top, low = float(gain[ok].max()), float(gain[ok].min())
        ax.set_ylim(max(low, top * 1e-4) / 10, top * 30)
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("error removed per unit of price")
    finish(ax, plan.levels)
    return ax


def _budget_price(plan: PlanRecord) -> float | None:
    """Error removed by one unit of the budget; None where the examples are another program's."""
    if plan.examples_gap is not None:
        return None
    for name in ("budget", "Compute", "Compute(training)"):
        value = plan.shadow_prices.get(name)
        if value is not None and np.ndim(value) == 0 and value < 0:
            return -float(value)
    return None


def level_states(plan: PlanRecord) -> npt.NDArray[np.str_]:
    """(L,) "active", "at a floor", "at a cap" or "idle" (no new example is worth its price there)."""
    low = plan.tables.get("examples_low", np.zeros(len(plan.levels)))
    high = plan.tables.get("examples_high", np.full(len(plan.levels), np.inf))
    near = 1e-6 * plan.examples
    idle = plan.new_examples <= 1e-6 * plan.new_examples.max()
    floor, cap = (low > 0) & (plan.examples <= low + near), plan.examples >= high - near
    return np.select([floor, cap, idle], ["at a floor", "at a cap", "idle"], "active")


def band_panel(plan: PlanRecord, ax: Axes | None = None) -> Axes:
    """Discretization error of each band of the data's spectrum against the band's variance."""
    ax = new_axes(ax, "Which directions of the data suffer")
    bands = plan.tables["bands"]
    variance = plan.tables.get("band_variances", np.zeros(0))
    known = variance.size == bands.size
    x = variance if known else np.arange(1.0, bands.size + 1)
    on = (bands > 0) & (x > 0)
    low = float(bands[on].min()) / 3 if on.any() else 1.0
    ax.vlines(x[on], low, bands[on], color=BLUE, lw=1, alpha=0.6)
    ax.plot(x[on], bands[on], linestyle="none", marker="o", ms=4, color=BLUE)
    label = "data variance λ along a direction (data units²)" if known else "band, largest variance first"
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="discretization error (data units²)")
    ax.set_ylim(bottom=low)
    return ax


def plan_page(plan: PlanRecord, figure: Figure | None = None) -> Figure:
    """One page that shows the whole plan: where to train, step and stop, the error, and the proof.

    Panels without data are left out; a plan without a sampler gets a shorter page.
    """
    panels: list[tuple[Any, str]] = []
    if planned_training(plan):
        panels.append((training_panel, "Equal areas are equal numbers of examples."))
    if plan.sigmas is not None:
        panels.append((step_panel, "Ticks: the noise levels to hand to the sampler."))
    panels.append((breakdown_panel, "Predicted by cause."))
    if sum(record.get("error") is not None for record in plan.curve) > 1:
        panels.append((stopping_panel, "Best design for every stopping point."))
    if planned_training(plan):
        panels.append((gain_panel, "At the optimum the same at all active levels."))
    if plan.sigmas is not None and len(panels) < 6 and np.any(plan.tables[causes.DISCRETIZATION] > 0):
        panels.append((level_error_panel, "Equal areas under one curve are equal errors."))
    if "bands" in plan.tables and len(panels) < 6:
        panels.append((band_panel, "One mark per group of equal directions."))
    return draw_page(plan, panels, figure)
