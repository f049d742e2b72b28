"""Densities planned from pilots, trained and sampled, beside fifteen log-normals: a table."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.basics.wording import aligned

from .pilot_experiment import DEFAULT, KINDS, PilotExperiment

__all__ = ["SOURCES", "PilotReport", "compare_pilots", "plan_of"]

SOURCES = ("log", "checkpoints")  # the log alone; the log with an earlier checkpoint
PILOTS = (100, 101, 102, 103, 104)


@dataclass(frozen=True, eq=False)
class PilotReport:
    """One row per data set, kind of weights, source and pilot.

    Attributes:
        rows: records of the table: `to_default` and `to_best` are realised errors of the planned density over those of
            EDM's default and of the best of the fifteen, means over the seeds, with the standard error of the former.
        seeds: of the runs.
    """

    rows: list[dict[str, Any]]
    seeds: tuple[int, ...]

    def column(self, name: str, **where: str) -> Array:
        """Numbers of the rows where `where` holds."""
        kept = [row for row in self.rows if all(row[key] == value for key, value in where.items())]
        return np.array([float(row[name]) for row in kept])

    @property
    def worst(self) -> float:
        """Largest error over that of EDM's default."""
        return float(self.column("to_default").max())

    def save(self, folder: str | Path, name: str = "pilot_densities") -> Path:
        """The table as NAME.csv in a folder."""
        path = Path(folder) / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
        return path

    def __str__(self) -> str:
        title = ("data", "weights", "from", "P_mean, P_std", "error / default", "", "error / best of 15")
        lines = []
        for data in dict.fromkeys(row["data"] for row in self.rows):
            for kind in KINDS:
                for source in SOURCES:
                    where = {"data": data, "weights": kind, "source": source}
                    means, stds = self.column("P_mean", **where), self.column("P_std", **where)
                    default, best = self.column("to_default", **where), self.column("to_best", **where)
                    lines.append([
                        data, kind, source, f"{np.median(means):.1f}, {np.median(stds):.1f}",
                        f"{np.median(default):.3f}", f"{default.min():.3f} to {default.max():.3f}",
                        f"{np.median(best):.3f}",
                    ])  # fmt: skip
        seeds = f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        median = float(np.median(self.column("to_best")))
        whole = f"all: worst over the default {self.worst:.3f}, median over the best {median:.3f}"
        return "\n".join([f"Densities planned from pilots, {seeds}: median and range", *aligned(title, lines), whole])


def compare_pilots(
    experiments: Sequence[PilotExperiment], *, seeds: Iterable[int] = range(3), pilots: Iterable[int] = PILOTS
) -> PilotReport:
    """Plan from every pilot by every recipe, train and sample every density that is planned, and compare.

    Averaged weights are sampled, whichever the pilot was measured on: last iterates at a constant rate differ from seed
    to seed by more than densities do.
    """
    used, rows = tuple(seeds), []
    for experiment in experiments:
        plans = {
            (kind, source, pilot): plan_of(experiment, pilot, kind, source)
            for pilot in pilots for kind in KINDS for source in SOURCES
        }  # fmt: skip
        chosen = {(d.mean, d.std): d for d in (plan.lognormal for plan in plans.values())}
        realised = [experiment.errors([*experiment.compared(), *chosen.values()], seed) for seed in used]
        count = len(experiment.compared())
        default = experiment.compared().index(DEFAULT)
        place = {key: count + i for i, key in enumerate(chosen)}
        for (kind, source, pilot), plan in plans.items():
            table = np.array([errors["ema"] for errors in realised])
            own, now = table[:, place[plan.lognormal.mean, plan.lognormal.std]], table[:, default]
            best = table[:, int(np.argmin(table[:, :count].mean(0)))]
            rows.append({
                "data": experiment.data, "weights": kind, "source": source, "pilot": pilot, "P_mean": plan.P_mean,
                "P_std": plan.P_std, "predicted": plan.gain, "width": plan.evidence.width,
                "to_default": float(own.mean() / now.mean()), "standard_error": _spread(own, now),
                "to_best": float(own.mean() / best.mean()),
            })  # fmt: skip
    return PilotReport(rows, used)


def plan_of(experiment: PilotExperiment, pilot: int, kind: str, source: str) -> co.PilotDensity:
    """The safe route from one pilot; P_mean and P_std are kept with the experiment's runs."""
    run = experiment.pilot(pilot)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "loss.csv"
        log.write_text(run.log, encoding="utf-8")
        history: Any = co.TrainingRun(DEFAULT, experiment.iterations, experiment.batch, log=log)
        if source == "checkpoints":
            history = co.estimate.TrainingHistory(history, other=run.half[kind], growth=2.0)
        evidence = co.estimate.pilot(run.final[kind], experiment.images, history, weights=kind, seed=pilot)
        found = co.pilot_density(evidence)
    experiment.tell(f"{experiment.data}, pilot {pilot}, {kind}, {source}: {found.lognormal}")
    return found


def _spread(own: Array, now: Array) -> float:
    """Standard error of the ratio of means over seeds, in pairs."""
    if own.size < 2:
        return float("nan")
    rest = own - own.mean() / now.mean() * now
    return float(rest.std(ddof=1) / np.sqrt(own.size) / now.mean())
