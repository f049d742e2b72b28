"""Networks at equal total compute: every arm spends the budget, intervals are in pairs, and its published table."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

pytest.importorskip("torch")

import codesign_opt as co
from problems.studies.equal_compute import ARMS, DEFAULT, EDM2, EDM_ARM, PLANS, USUAL, EqualCompute, _Staged
from problems.studies.equal_compute_report import JOINT, _half_width, best_usual, rows_of, said_of_arms

TABLE = Path(__file__).parents[2] / "docs" / "figures" / "equal_compute.csv"


class Told(EqualCompute):
    """Errors that are known, instead of networks."""

    def rows(self, seed):
        rng = np.random.default_rng(seed)
        common = rng.uniform(0.5, 2.0)  # a seed's luck, shared by its arms
        factor = {JOINT: 0.5, "sampling only": 0.9}
        made = []
        for arm in ARMS:
            error = common * factor.get(arm, 1.0) * float(np.exp(0.02 * rng.standard_normal()))
            row = {"arm": arm, "error": error, "frechet": 1.0, "energy": 1.0, "loss": 1.0}
            made.append({**row, "examples": 10.0, "evaluations": 5.0})
        return made

    def planned(self, seed):
        return type("P", (), {"predicted": 0.25})()


def test_ratios_and_intervals_are_in_pairs():
    rows = rows_of(Told("digits", 1e6), range(8))
    assert [row["arm"] for row in rows] == list(ARMS)
    found = {row["arm"]: row for row in rows}
    assert found[EDM_ARM]["to_edm"] == 1
    assert found[JOINT]["to_edm"] == pytest.approx(0.5, rel=0.03)
    assert found[JOINT]["half_width"] < 0.02  # the seeds' luck, a factor of four, is not in it
    assert found[JOINT]["predicted"] == 0.25
    assert best_usual(rows)["arm"] in USUAL
    said = said_of_arms(rows)
    assert "better than EDM's defaults beyond the 95 % interval in 1 of 1, worse beyond it in 0" in said
    worse = [{**row, "to_edm": 1 / row["to_edm"]} for row in rows]
    assert "in 0 of 1, worse beyond it in 1" in said_of_arms(worse)


def test_the_interval_is_that_of_students_test():
    """Half-widths about a ratio of one agree with scipy's paired test of equal means."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = rng.uniform(1.0, 1.1, 5)
        own = other + 0.01 * rng.standard_normal(5)
        shifted = own * other.mean() / own.mean()
        interval = ttest_rel(shifted, other).confidence_interval(0.95)
        assert _half_width(shifted, other) == pytest.approx(interval.high / other.mean(), rel=1e-6)


def test_a_staged_density_changes_after_its_batches():
    staged, u = _Staged(DEFAULT, 2, EDM2), np.array([0.5])
    medians = [float(np.log(staged.quantile(u))[0]) for _ in range(4)]
    assert medians == pytest.approx([-1.2, -1.2, -0.4, -0.4])


@pytest.mark.skipif("CODESIGN_OPT_FULL" not in os.environ, reason="a minute: a pilot, a plan and the arms of one seed")
def test_every_arm_spends_the_budget(tmp_path):
    small = {"reference": 20_000, "draws": 256, "folder": tmp_path}
    cell = EqualCompute("digits", 5e5, **small)
    rows = cell.rows(0)
    measured = cell.planned(0).measured
    assert measured > cell.model(0, co.DPMpp2M())[1].evaluations  # the search is paid for, too
    for row in rows:
        spent = 3 * row["examples"] + row["evaluations"] * cell.images_sampled + measured * (row["arm"] in PLANS)
        assert spent <= cell.budget * (1 + 1e-9), row["arm"]
        assert spent >= cell.budget - 3 * cell.batch, row["arm"]
        assert np.isfinite(row["error"])
        assert row["error"] > 0
    # nothing is trained twice
    again = EqualCompute("digits", 5e5, progress=lambda text: pytest.fail(text), **small)
    assert again.rows(0) == rows


def test_the_published_table_is_whole():
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["data"], row["budget"]) for row in rows}
    assert len(cells) == 9
    assert all([row["arm"] for row in rows if (row["data"], row["budget"]) == cell] == list(ARMS) for cell in cells)
