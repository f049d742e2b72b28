"""Rivals' study: what it says of its cells, and that a small cell is whole and goes on where it was."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from problems.studies.__main__ import main
from problems.studies.rivals import rival_rows, said_of
from problems.studies.solver_study import GRIDS, PLAIN, RIVALS

DOCS = Path(__file__).parents[2] / "docs" / "figures"


def test_cells_that_are_lost_are_named_and_plan_and_fine_solution_are_no_rivals():
    errors = {"fine": 0.0, "plan": 0.1, "fitted": 1.0, "s4s": 2.0, "ld3": 3.0}
    rows = [{"world": "digits", "steps": 5, "method": name, "error": error} for name, error in errors.items()]
    lost = [{**row, "steps": 8, "error": 0.5 if row["method"] == "ld3" else row["error"]} for row in rows]
    said = said_of([*rows, *lost])
    assert "no worse than the best rival in 1 of 2 cells" in said
    assert "digits 8: ld3 has 0.5 of the fitted solver's error" in said
    assert "digits 5" not in said


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="methods"):
        next(rival_rows(methods=["nobody"]))


def test_every_rival_goes_by_its_name():
    assert [rival.name for rival in RIVALS.values()] == list(RIVALS)
    assert {"dmn", "entropic"} <= {grid.name for grid in GRIDS.values()}


@pytest.mark.skipif("CODESIGN_OPT_FULL" not in os.environ, reason="a minute: plans, fits and rivals of one cell")
def test_a_cell_is_a_command_that_goes_on(tmp_path, capsys):
    words = ["rivals", "--networks", "", "--mixtures", "circle8", "--steps", "4", "--budgets", "1500,1500"]
    words += ["--draws", "512", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path)]
    assert main(words) == 0
    with (tmp_path / "rivals.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["fine", "plan", "fitted", *RIVALS, *GRIDS, *PLAIN]
    assert all(float(row["fitting"]) <= 1500 for row in rows if row["method"] in RIVALS)
    assert float(rows[1]["ratio"]) == 1
    assert all(np.isfinite(float(row["sliced_w2"])) for row in rows)
    capsys.readouterr()
    assert main(words) == 0
    with (tmp_path / "rivals.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows


def test_committed_table_has_equal_budgets_and_the_fitted_solver_ahead():
    with (DOCS / "rivals.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        cells.setdefault((row["world"], row["steps"]), {})[row["method"]] = row
    ahead = 0
    for found in cells.values():
        own = set(found) & {*RIVALS, "fitted"}
        assert {*RIVALS, "fitted"} - own <= {"pas"}  # measured later, not in all cells
        assert {"dmn", "entropic", "plan", "fine"} <= set(found)
        assert all(float(found[name]["fitting"]) <= float(found["plan"]["budget"]) for name in own)
        best = min(float(row["error"]) for name, row in found.items() if name not in ("fine", "plan", "fitted"))
        ahead += float(found["fitted"]["error"]) <= best
        # the fine solution's samples are the floor: the fitted solver's are no further than the plan's beyond 2 s.e.
        for measure in ("sliced_w2",):
            excess = float(found["fitted"][measure]) - float(found["plan"][measure])
            assert excess < 2 * float(found["fitted"][f"{measure}_se"])
    assert ahead >= 0.9 * len(cells)
    assert sum("pas" in found for found in cells.values()) >= 12
