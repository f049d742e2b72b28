"""Runs that were planned again beside fixed densities: a table, and a figure of where they trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import codesign_opt as co
from codesign_opt.basics.wording import aligned

from .network_plans import write_rows
from .pilot_experiment import DEFAULT
from .replan_experiment import PLANNED, ReplanExperiment, rows_of

__all__ = ["compare_replans", "over_fixed", "said_of_replans"]

_PILOT = "pilot"  # the density that one pilot's plan comes to


def compare_replans(experiments: Sequence[ReplanExperiment], seeds: Sequence[int], out: Path) -> list[dict[str, Any]]:
    """Train what is missing, and write replanning.csv after every data set and replanning.png at the end."""
    rows: list[dict[str, Any]] = []
    for experiment in experiments:
        rows += rows_of(experiment, seeds)
        write_rows(rows, out / "replanning.csv")
    write_rows(over_fixed(rows), out / "replanning_over.csv")
    _figure(experiments, seeds, rows, out / "replanning.png")
    return rows


def over_fixed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Errors over those of fixed densities, a row per data set, with standard errors."""
    told = []
    for data in dict.fromkeys(row["data"] for row in rows):
        found = {row["density"]: row for row in rows if row["data"] == data}
        asked = {
            "error over EDM's default": (PLANNED, "to_default"),
            "over the best of 15 log-normals": (PLANNED, "to_best"),
            "started from the spectrum's density, over the default": (f"{PLANNED}, from the spectrum", "to_default"),
            "one pilot's density, over the default": (_PILOT, "to_default"),
        }
        ratios = {
            name: f"{float(found[density][over]):.3f} ± {float(found[density][f'{over}_error']):.3f}"
            for name, (density, over) in asked.items()
        }
        told.append({"data": data.replace("_", " "), **ratios})
    return told


def said_of_replans(rows: Sequence[dict[str, Any]], unet_step: float, overhead: float) -> str:
    """The table as text, and what planning costs beside a thousand training steps of a U-Net."""
    title = ("data", "density", "error", "over default", "+-", "over best of 15", "+-")
    told = [
        [row["data"], row["density"] + (" (best)" if row["best"] else ""), f"{row['error']:.4f}",
         *(f"{row[name]:.3f}" for name in ("to_default", "to_default_error", "to_best", "to_best_error"))]
        for row in rows
    ]  # fmt: skip
    seconds = max(float(row["plan_seconds"]) for row in rows if row["density"] == PLANNED)
    lines = aligned(title, told)
    lines += [
        f"a plan takes {seconds:.2f} s of processor time, a training step of a U-Net (64 images of 28 x 28) "
        f"{unet_step:.2f} s: five plans, drawing and recording take {overhead:.1f} s, "
        f"{overhead / (1000 * unet_step):.2%} of 1,000 such steps"
    ]
    return "\n".join(lines)


def _figure(
    experiments: Sequence[ReplanExperiment], seeds: Sequence[int], rows: list[dict[str, Any]], path: Path
) -> None:
    import matplotlib.pyplot as plt

    from codesign_opt.results.style import BLACK, BLUE, GREY, LEGEND, ORANGE, SIGMA, SKY, new_axes

    figure, axes = plt.subplots(1, len(experiments), figsize=(4.6 * len(experiments), 3.8), squeeze=False)
    for ax, experiment in zip(axes[0], experiments, strict=True):
        run, data = experiment.replanner(), experiment.base.data
        found = {row["density"]: row for row in rows if row["data"] == data}
        new_axes(ax, f"{data.replace('_', ' ')}: {found[PLANNED]['to_default']:.2f} of the default")
        sigma, width = run.levels.sigma, run.levels.log_width
        runs = experiment.runs(seeds)
        best = next(name for name, row in found.items() if row["best"])
        fixed = co.LogNormal(*map(float, best.split()[1:]))
        ax.plot(sigma, DEFAULT.per_log_sigma(sigma), color=GREY, ls="--", label="EDM's default")
        ax.plot(
            sigma, fixed.per_log_sigma(sigma), color=BLACK, ls=":", label=f"best of 15: {fixed.mean:g}, {fixed.std:g}"
        )
        ax.plot(sigma, run.start / width, color=SKY, label="first")
        for i, one in enumerate(runs):
            ax.plot(
                sigma, one.shares[-1] / width, color=ORANGE, lw=0.8, label="last plan, each seed" if i == 0 else None
            )
        drawn = np.mean([_drawn(one.shares, one.examples, experiment.base.examples) for one in runs], axis=0)
        ax.plot(sigma, drawn / width, color=BLUE, lw=2, label="drawn in all")
        ax.set_xscale("log")
        ax.set_xlabel(SIGMA)
        ax.set_ylabel("examples per unit log sigma")
        ax.legend(**LEGEND)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _drawn(shares: Any, examples: Any, total: int) -> Any:
    """(L,) share of all examples of a run, from its densities and when they changed."""
    parts = np.diff(np.concatenate([[0.0], examples, [float(total)]]))
    return parts @ shares / total
