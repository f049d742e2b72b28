"""Training densities compared, as a table and a figure: realised against predicted, planned against the best."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from codesign_opt.basics.checks import Array, choice, integer
from codesign_opt.basics.wording import aligned

from .density_experiment import LOGNORMALS, DensityExperiment
from .density_pilot import PILOT_SEED, RULES, PilotMeasurement, measure_pilot

__all__ = ["DensityReport", "compare_densities", "lognormals"]


@dataclass(frozen=True, eq=False)
class DensityReport:
    """Realised and predicted errors of named densities and of the planned ones.

    Attributes:
        densities: name -> density; those compared first, then one planned by each rule.
        compared: how many of them are compared; the rest are planned.
        realised: (D, S) mean squared terminal distance, by seed.
        predicted: rule -> (D,) prediction, on the pilot's scale.
        pilot: the measurement.
        planned: rule -> density.
        examples: of every run.
        seeds: (S,) of the runs.
        fixed: name of the compared density that earlier seeds found best, or None.
    """

    densities: dict[str, Any]
    compared: int
    realised: Array
    predicted: dict[str, Array]
    pilot: PilotMeasurement
    planned: dict[str, Any]
    examples: int
    seeds: tuple[int, ...]
    fixed: str | None = None

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

    def ratio(self, rule: str, best: str | None = None) -> tuple[float, float]:
        """Realised error of the rule's plan over that of the best compared density, and its standard error in pairs.

        The best of many densities by the mean over a few seeds looks better than it is, which raises the ratio; the
        best by other seeds does not.

        Args:
            rule: one of `planned`.
            best: name of a compared density; the best of these seeds unless given.
        """
        planned = self.realised[self.compared + list(self.planned).index(rule)]
        against = self.realised[self.best if best is None else list(self.densities).index(best)]
        rest = planned - planned.mean() / against.mean() * against
        count = rest.size
        spread = rest.std(ddof=1) / np.sqrt(count) / against.mean() if count > 1 else np.nan
        return float(planned.mean() / against.mean()), float(spread)

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

    def figure(self) -> Any:
        """Three panels: the densities, predicted against realised error, and the realised errors in order."""
        from .density_figure import agreement_panel, density_panel, order_panel, three_panels

        figure, axes = three_panels()
        names, part = list(self.densities), slice(0, self.compared)
        density_panel(axes[0], (names[self.best], self.densities[names[self.best]]), self.planned)
        ratios = {rule: values[part] / values[self.best] for rule, values in self.predicted.items()}
        agreement = {rule: (ratios[rule], self.correlation(rule)) for rule in self.planned}
        agreement_panel(axes[1], self.mean[part], agreement)
        order_panel(axes[2], names, self.mean, self.standard_error, self.compared, self.seeds)
        return figure

    def save(self, folder: str | Path, name: str = "density_experiment") -> list[Path]:
        """The table as NAME.csv and the figure as NAME.png in a folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        table, picture = place / f"{name}.csv", place / f"{name}.png"
        rows = self.rows()
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.figure().savefig(picture, dpi=120)
        return [table, picture]

    def __str__(self) -> str:
        seeds = f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        lines = [f"Training densities: {self.examples:,} examples, {seeds}, squared terminal distance"]
        title = ("density", "", "realised", "+-", "to best", *self.predicted)
        rows = [
            [row["density"], "", row["realised"], row["standard_error"], row["to_best"]]
            + [f"{float(row[f'predicted_{rule}']):.3g}" for rule in self.predicted]
            for row in self.rows()
        ]
        lines += aligned(title, rows)
        for rule in self.planned:
            ratio, error = self.ratio(rule)
            said = f"{rule}: planned density {ratio:.4f} +- {error:.4f} of the best"
            if self.fixed is not None:
                ratio, error = self.ratio(rule, self.fixed)
                said += f", {ratio:.4f} +- {error:.4f} of {self.fixed}, the best of earlier seeds"
            if self.compared > 2:
                said += f"; predicted with realised: rank correlation {self.correlation(rule):.3f}, of logarithms "
                said += f"{self.log_correlation(rule):.3f}"
            lines.append(said)
        return "\n".join(lines)


def compare_densities(
    experiment: DensityExperiment,
    *,
    seeds: int = 3,
    first_seed: int = 0,
    pilot_seed: int = PILOT_SEED,
    densities: dict[str, Any] | None = None,
    fixed: str | None = None,
    rules: Iterable[str] = tuple(RULES),
) -> DensityReport:
    """Plan densities from one pilot run, train at them and at those compared, and set realised beside predicted.

    Plans and predictions are made before anything is compared; they see the pilot alone.

    Args:
        experiment: networks, examples and folder.
        seeds: runs of every density, >= 1.
        first_seed: of these runs; the others count on from it.
        pilot_seed: of the pilot, not one of the runs'.
        densities: name -> density to compare with; the 15 lognormals unless given.
        fixed: name of one of them, the best of other seeds: plans are compared with it, too.
        rules: names in `RULES`.

    Raises:
        ValueError: no seed, a pilot that is one of the runs compared, an unknown density or rule.
    """
    first = integer(first_seed, "compare_densities.first_seed", minimum=0)
    runs = tuple(range(first, first + integer(seeds, "compare_densities.seeds", minimum=1)))
    if pilot_seed in runs:
        raise ValueError(
            f"compare_densities.pilot_seed is {pilot_seed}, one of the seeds {runs[0]} to {runs[-1]} of the runs; "
            "the pilot would be compared with itself."
        )
    compared = densities or lognormals()
    if fixed is not None:
        choice(fixed, "compare_densities.fixed", compared)
    pilot = measure_pilot(experiment, pilot_seed)
    asked = {name: RULES[choice(name, "compare_densities.rules", RULES)] for name in rules}
    planned = {name: pilot.planned(rule) for name, rule in asked.items()}
    every = compared | {f"planned: {name}": density for name, density in planned.items()}
    predicted = {name: pilot.predicted(rule, list(every.values())) for name, rule in asked.items()}
    realised = experiment.errors(every, runs)
    return DensityReport(every, len(compared), realised, predicted, pilot, planned, experiment.examples, runs, fixed)


def lognormals(names: Iterable[str] | None = None) -> dict[str, Any]:
    """The compared log-normal densities by name, such as "lognormal -0.2 1.2": all of them, or those that are named.

    Raises:
        ValueError: an unknown name.
    """
    every = {f"lognormal {d.mean:g} {d.std:g}": d for d in LOGNORMALS}
    return every if names is None else {name: every[choice(name, "lognormals: name", every)] for name in names}


def _ranks(values: Array) -> Any:
    return np.argsort(np.argsort(values)) + 1


def _moments(density: Any) -> tuple[float, float]:
    """Mean and standard deviation of log sigma."""
    logs = np.log(density.quantile((np.arange(4_000) + 0.5) / 4_000))
    return float(logs.mean()), float(logs.std())
