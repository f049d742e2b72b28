"""What a pilot's network predicts of the arms at equal compute, against what they were seen to leave."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import codesign_opt as co
from codesign_opt.basics.checks import Array

from .equal_compute import ARMS, DEFAULT, EDM_GRID, USUAL, EqualCompute

__all__ = ["PREDICTED", "predicted_errors", "rank_rows"]

_APART = 1.1  # ratio of errors from which two arms are told apart
PREDICTED = ARMS[:-1]  # training that is planned along the run has no density beforehand


def predicted_errors(experiment: EqualCompute, seed: int) -> dict[str, float]:
    """Squared error of each arm as `predict` states it of the network of one seed's pilot.

    Trained from the start, or on from the pilot, exactly as the arm is; with the sampler that the arm takes.
    """

    def compute() -> dict[str, Any]:
        plan, run = experiment.planned(seed), experiment.run
        heun, two = (experiment.model(seed, sampler)[0] for sampler in (co.Heun(), co.DPMpp2M()))
        errors = [
            (heun if isinstance(sampler, co.Heun) else two).predict(
                grid, experiment.examples(experiment.calls(sampler, grid)), density=density
            )
            for density, sampler, grid in USUAL.values()
        ]
        calls, edm = plan.sigmas.size - 1, experiment.calls(co.Heun(), EDM_GRID)
        many, few = (experiment.examples(each, plan.measured) for each in (calls, edm))
        made = experiment.pilot * experiment.batch
        errors += [
            two.predict(plan.sigmas, many - made, density=plan.density, run=run),
            heun.predict(EDM_GRID, few - made, density=plan.density, run=run),
            two.predict(plan.sigmas, many, density=DEFAULT),
        ]
        return {"errors": np.array([each.total for each in errors])}

    found = experiment.ledger.item(f"predicted/{seed}", compute)["errors"]
    return dict(zip(PREDICTED, found.tolist(), strict=True))


def rank_rows(experiments: Iterable[EqualCompute], seeds: Sequence[int], table: Path) -> Iterator[dict[str, Any]]:
    """A row per data set and budget: rank correlation of predicted with realised errors, and where the best arms lie.

    Args:
        experiments, seeds: the cells, and the pilots whose predictions are averaged.
        table: equal_compute.csv, which holds the realised errors.

    Raises:
        ValueError: the table lacks a cell.
    """
    with table.open(newline="", encoding="utf-8") as file:
        realised = {
            (row["data"], float(row["budget"]), row["arm"]): float(row["error"]) for row in csv.DictReader(file)
        }
    for experiment in experiments:
        cell = (experiment.data, experiment.budget)
        if missing := [arm for arm in PREDICTED if (*cell, arm) not in realised]:
            raise ValueError(f"{table} has no row of {cell}, {missing[0]!r}; run `equal_compute` for it first.")
        told = [predicted_errors(experiment, seed) for seed in seeds]
        predicted = np.array([np.mean([each[arm] for each in told]) for arm in PREDICTED])
        found = np.array([realised[(*cell, arm)] for arm in PREDICTED])
        best, least = int(np.argmin(predicted)), int(np.argmin(found))
        yield {
            "data": experiment.data, "budget": f"{experiment.budget:g}", "arms": len(PREDICTED), "pilots": len(seeds),
            "rank correlation": float(spearmanr(predicted, found).statistic),
            "of one pilot, least": min(_rank(each, found) for each in told),
            "pairs apart": _ordered(predicted, found),
            "best predicted": PREDICTED[best], "best realised": PREDICTED[least],
            "loss": float(found[best] / found[least] - 1),
        }  # fmt: skip


def _rank(told: dict[str, float], found: Any) -> float:
    return float(spearmanr([told[arm] for arm in PREDICTED], found).statistic)


def _ordered(predicted: Array, found: Array) -> float:
    """Share of the pairs of arms whose errors differ by a tenth or more that are predicted in the right order."""
    worse, better = np.nonzero(found[:, None] >= _APART * found)
    return float(np.mean(predicted[worse] > predicted[better]))
