"""Ranks of arms at equal compute, of what is predicted with what the table says; and exponents in the budget."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import codesign_opt as co
from problems.studies.arm_ranks import PREDICTED, rank_rows
from problems.studies.budgets import exponents

FIGURES = Path(__file__).parents[2] / "docs" / "figures"


class Told:
    """A cell whose predictions are known."""

    def __init__(self, errors):
        self.data, self.budget, self.ledger = "digits", 1e6, co.estimate.Ledger(None, {})
        for seed, each in enumerate(errors):
            self.ledger.put(f"predicted/{seed}", errors=np.asarray(each))


def realised(path, errors, arms=PREDICTED):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "budget", "arm", "error"])
        writer.writerows(["digits", "1e+06", arm, error] for arm, error in zip(arms, errors, strict=True))
    return path


def test_ranks_are_those_of_the_mean_prediction(tmp_path):
    count = len(PREDICTED)
    truth = np.arange(1.0, count + 1)
    turned = truth.copy()
    turned[[0, 1]] = turned[[1, 0]]  # d = (1, -1): 1 - 6 sum d^2 / (n (n^2 - 1))
    table = realised(tmp_path / "t.csv", truth)
    (row,) = rank_rows([Told([10 * turned, 0.1 * truth])], range(2), table)
    assert row["rank correlation"] == pytest.approx(1 - 12 / (count * (count**2 - 1)))
    assert row["of one pilot, least"] == row["rank correlation"]
    assert (row["best predicted"], row["best realised"]) == PREDICTED[1::-1]
    assert row["loss"] == pytest.approx(1.0)
    pairs = sum(j >= 1.1 * i for i in truth for j in truth)
    assert row["pairs apart"] == pytest.approx(1 - 1 / pairs)  # one of them is told the wrong way round
    with pytest.raises(
        ValueError, match=r"has no row of \('digits', 1000000\.0\), 'training only'; run `equal_compute`"
    ):
        list(rank_rows([Told([truth])], range(1), realised(tmp_path / "u.csv", truth[:11], PREDICTED[:11])))


def test_the_published_ranks_are_of_every_cell():
    with (FIGURES / "arm_ranks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["data"], row["budget"]) for row in rows}) == len(rows) == 9
    assert {row["arms"] for row in rows} == {str(len(PREDICTED))}


def test_steps_grow_with_examples_as_derived():
    for row in exponents():
        assert row["steps in examples"] == pytest.approx(row["derived"], rel=2e-3), row
