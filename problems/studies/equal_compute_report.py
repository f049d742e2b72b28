"""Networks at equal total compute: a table of every arm, and a figure of the error against the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from codesign_opt.basics.checks import Array
from codesign_opt.basics.wording import aligned

from .equal_compute import ARMS, EDM_ARM, USUAL, EqualCompute
from .network_plans import write_rows
from .replan_experiment import standard_error

__all__ = ["best_usual", "compare_at_equal_compute", "rows_of", "said_of_arms"]

MEASURES = ("error", "frechet", "energy", "loss", "examples", "evaluations")
JOINT = "joint plan"


def compare_at_equal_compute(
    experiments: Sequence[EqualCompute], seeds: Sequence[int], out: Path
) -> list[dict[str, Any]]:
    """Train what is missing, and write equal_compute.csv after every data set and budget, and the figure at the end."""
    rows: list[dict[str, Any]] = []
    for experiment in experiments:
        rows += rows_of(experiment, seeds)
        write_rows(rows, out / "equal_compute.csv")
    _figure(rows, out / "equal_compute.png")
    return rows


def rows_of(experiment: EqualCompute, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row per arm: means over the seeds, and its error over EDM's with the half-width of a 95 % interval."""
    told = [experiment.rows(seed) for seed in seeds]
    table = {name: np.array([[row[name] for row in rows] for rows in told]) for name in MEASURES}  # (S, A)
    default = table["error"][:, ARMS.index(EDM_ARM)]
    predicted = float(np.mean([experiment.planned(seed).predicted for seed in seeds]))
    rows = []
    for i, arm in enumerate(ARMS):
        own = table["error"][:, i]
        row = {"data": experiment.data, "budget": f"{experiment.budget:g}", "arm": arm, "seeds": len(seeds)}
        row |= {name: float(table[name][:, i].mean()) for name in MEASURES}
        row |= {"to_edm": float(own.mean() / default.mean()), "half_width": _half_width(own, default)}
        rows.append(row | {"predicted": predicted if arm == JOINT else ""})
    return rows


def best_usual(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the rows of a data set and budget, the usual recipe with the least error, picked after the fact."""
    return min((row for row in rows if row["arm"] in USUAL), key=lambda row: float(row["error"]))


def said_of_arms(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text, and where the joint plan is better or worse than EDM's defaults beyond the interval."""
    lines, better, worse = [], 0, 0
    for cell in _cells(rows):
        found = {row["arm"]: row for row in cell}
        joint, usual = found[JOINT], best_usual(cell)
        better += joint["to_edm"] + joint["half_width"] < 1
        worse += joint["to_edm"] - joint["half_width"] > 1
        plans = (f"{found[arm]['to_edm']:.2f} ± {found[arm]['half_width']:.2f}" for arm in ARMS[len(USUAL) :])
        lines.append([cell[0]["data"], cell[0]["budget"], f"{found[EDM_ARM]['error']:.4g}", *plans,
                      f"{usual['to_edm']:.2f}", usual["arm"]])  # fmt: skip
    title = ("data", "budget", "EDM's error", *(f"{arm} / EDM" for arm in ARMS[len(USUAL) :]), "best usual / EDM", "")
    last = f"the joint plan is better than EDM's defaults beyond the 95 % interval in {better} of {len(lines)}, "
    return "\n".join([*aligned(title, lines), last + f"worse beyond it in {worse}"])


def _cells(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    keys = dict.fromkeys((row["data"], row["budget"]) for row in rows)
    return [[row for row in rows if (row["data"], row["budget"]) == key] for key in keys]


def _half_width(own: Array, other: Array) -> float:
    """Half of a 95 % interval of the ratio of means over seeds, in pairs."""
    if own.size < 2:
        return float("inf")
    return float(student.ppf(0.975, own.size - 1)) * standard_error(own, other)


def _figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    from codesign_opt.results.style import BLACK, BLUE, GREY, LEGEND, ORANGE, SKY, new_axes

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.6), squeeze=False)
    looks = {
        EDM_ARM: (GREY, "--", "o", "EDM's defaults"), "training only": (SKY, "-", "v", "training planned"),
        "sampling only": (ORANGE, "-", "^", "sampling planned"), JOINT: (BLUE, "-", "s", "joint plan"),
        "planned along the run": (BLACK, ":", "D", "planned along the run"),
    }  # fmt: skip
    for ax, name in zip(axes[0], names, strict=True):
        own = [row for row in rows if row["data"] == name]
        budgets = list(dict.fromkeys(row["budget"] for row in own))
        new_axes(ax, name.replace("_", " "))
        for arm, (color, line, marker, label) in looks.items():
            errors = [row["error"] for row in own if row["arm"] == arm]
            ax.plot([float(b) for b in budgets], errors, color=color, ls=line, marker=marker, ms=4, label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("budget, evaluations of the network")
        ax.set_xticks([float(b) for b in budgets], [f"{float(b) / 1e6:g} M" for b in budgets])
        ax.minorticks_off()
        ax.set_ylabel("squared distance to the reference")
    axes[0][0].legend(**LEGEND)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
