"""Training densities compared, as a table and a figure: realised against predicted, planned against the best."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from .._text import aligned
from .._validate import Array, integer
from ..plan import Plan
from .density_experiment import LOGNORMALS, DensityExperiment
from .density_pilot import RULES, PilotMeasurement, measure_pilot

__all__ = ["DensityReport", "compare_densities"]


@dataclass(frozen=True, eq=False)
class DensityReport:
    """Realised and predicted errors of named densities and of the planned ones.

    Attributes:
        densities: name -> density; those compared first, then one planned by each rule.
        compared: how many of them are compared; the rest are planned.
        realised: (D, S) mean squared terminal distance, by seed.
        predicted: rule -> (D,) prediction, on the pilot's scale.
        pilot, plans: the measurement, and rule -> plan.
        examples: of every run.
    """

    densities: dict[str, Any]
    compared: int
    realised: Array
    predicted: dict[str, Array]
    pilot: PilotMeasurement
    plans: dict[str, Plan]
    examples: int

    @property
    def mean(self) -> Array:
        """(D,) mean over the seeds."""
        return self.realised.mean(axis=1)

    @property
    def standard_error(self) -> Array:
        """(D,) of the mean, from the scatter of the seeds; NaN for one."""
        count = self.realised.shape[1]
        return self.realised.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(self.realised), np.nan)

    @property
    def best(self) -> int:
        """Index of the best compared density."""
        return int(np.argmin(self.mean[: self.compared]))

    def correlation(self, rule: str) -> float:
        """Spearman's rank correlation of predicted with realised errors over the compared densities."""
        part = slice(0, self.compared)
        return float(spearmanr(self.predicted[rule][part], self.mean[part]).statistic)

    def log_correlation(self, rule: str) -> float:
        """Pearson's correlation of the logarithms over the compared densities."""
        part = slice(0, self.compared)
        return float(np.corrcoef(np.log(self.predicted[rule][part]), np.log(self.mean[part]))[0, 1])

    def ratio(self, rule: str) -> tuple[float, float]:
        """Realised error of the rule's plan over that of the best compared density, and its standard error in pairs."""
        planned = self.realised[self.compared + list(self.plans).index(rule)]
        best = self.realised[self.best]
        rest = planned - planned.mean() / best.mean() * best
        count = rest.size
        spread = rest.std(ddof=1) / np.sqrt(count) / best.mean() if count > 1 else np.nan
        return float(planned.mean() / best.mean()), float(spread)

    def rows(self) -> list[dict[str, Any]]:
        """One record per density: the table of the CSV file."""
        ranks = {name: _ranks(values[: self.compared]) for name, values in self.predicted.items()}
        realised = _ranks(self.mean[: self.compared])
        logs = [_moments(density) for density in self.densities.values()]
        rows = []
        for i, name in enumerate(self.densities):
            row = {"density": name, "mean_log_sigma": logs[i][0], "std_log_sigma": logs[i][1]}
            row |= {"realised": self.mean[i], "standard_error": self.standard_error[i]}
            row |= {"to_best": self.mean[i] / self.mean[self.best]}
            row |= {"rank": int(realised[i]) if i < self.compared else ""}
            for rule, values in self.predicted.items():
                row[f"predicted_{rule}"] = values[i]
                row[f"rank_{rule}"] = int(ranks[rule][i]) if i < self.compared else ""
            rows.append({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        return rows

    def save(self, folder: str | Path, name: str = "density_experiment") -> list[Path]:
        """The table as NAME.csv and the figure as NAME.png in a folder."""
        from .density_figure import density_figure

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        table, picture = place / f"{name}.csv", place / f"{name}.png"
        rows = self.rows()
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        density_figure(self).savefig(picture, dpi=120)
        return [table, picture]

    def __str__(self) -> str:
        seeds = self.realised.shape[1]
        lines = [f"Training densities: {self.examples:,} examples, {seeds} seeds, squared terminal distance"]
        title = ("density", "", "realised", "+-", "to best", *self.predicted)
        rows = [
            [row["density"], "", row["realised"], row["standard_error"], row["to_best"]]
            + [f"{float(row[f'predicted_{rule}']):.3g}" for rule in self.predicted]
            for row in self.rows()
        ]
        lines += aligned(title, rows)
        for rule in self.plans:
            ratio, error = self.ratio(rule)
            lines.append(
                f"{rule}: planned density {ratio:.4f} +- {error:.4f} of the best; predicted with realised: rank "
                f"correlation {self.correlation(rule):.3f}, of logarithms {self.log_correlation(rule):.3f}"
            )
        return "\n".join(lines)


def compare_densities(
    experiment: DensityExperiment, *, seeds: int = 3, densities: dict[str, Any] | None = None
) -> DensityReport:
    """Plan densities from one pilot, train at them and at those compared, and set realised beside predicted.

    Plans and predictions are made before anything is compared; they see the pilot alone.

    Args:
        experiment: networks, examples and folder.
        seeds: runs of every density, >= 1.
        densities: name -> density to compare with; the 15 lognormals unless given.
    """
    count = integer(seeds, "compare_densities.seeds", minimum=1)
    compared = densities or {f"lognormal {d.mean:g} {d.std:g}": d for d in LOGNORMALS}
    pilot = measure_pilot(experiment)
    plans = {name: pilot.plan(rule) for name, rule in RULES.items()}
    every = compared | {f"planned: {name}": plan.training_density for name, plan in plans.items()}
    predicted = {name: pilot.predicted(rule, list(every.values())) for name, rule in RULES.items()}
    realised = experiment.errors(every, count)
    return DensityReport(every, len(compared), realised, predicted, pilot, plans, experiment.examples)


def _ranks(values: Array) -> Any:
    return np.argsort(np.argsort(values)) + 1


def _moments(density: Any) -> tuple[float, float]:
    """Mean and standard deviation of log sigma."""
    logs = np.log(density.quantile((np.arange(4_000) + 0.5) / 4_000))
    return float(logs.mean()), float(logs.std())
