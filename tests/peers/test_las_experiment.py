"""What loss-adaptive schedules win on two mixtures, and the sampler of that experiment."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.runs.run import BrownianPath, run
from codesign_opt.testbed.data.mixtures import circle8, grid8
from problems.studies.__main__ import main
from problems.studies.las_experiment import las_experiment
from problems.studies.sde_dpmpp_2m import sde_dpmpp_2m

TABLE = Path(co.__file__).parent.parent / "docs" / "figures" / "las_experiment.csv"


# ------------------------------------------------------------------------------------------------ samplers


def test_sde_dpmpp_2m_is_its_variance_preserving_form():
    mixture, sigmas = grid8(), np.array([20.0, 4.0, 1.0, 0.5, 0.1, 0.0])
    path, x = BrownianPath(0, ("t",), 20.0, 0.1), 20.0 * mixture.sample(50, 3, dtype=torch.float64)
    found = sde_dpmpp_2m(mixture, sigmas, x, path)
    alpha = 1 / np.sqrt(1 + sigmas**2)
    noise, state, before, last = alpha * sigmas, alpha[0] * x, None, None
    for k in range(4):
        h = np.log(alpha[k + 1] / noise[k + 1]) - np.log(alpha[k] / noise[k])
        clean = mixture(state / alpha[k], torch.tensor(sigmas[k]))
        d = clean if before is None else clean + (clean - before) / (2 * last / h)
        z = path.draw(torch.tensor(sigmas[k]), torch.tensor(sigmas[k + 1]), x)
        state = noise[k + 1] / noise[k] * np.exp(-h) * state + alpha[k + 1] * (1 - np.exp(-2 * h)) * d
        state = state + noise[k + 1] * np.sqrt(1 - np.exp(-2 * h)) * z
        before, last = clean, h
    end = mixture(state / alpha[4], torch.tensor(sigmas[4]))
    torch.testing.assert_close(found, end, rtol=1e-9, atol=1e-9)


def test_first_step_of_sde_dpmpp_2m_is_ddim_with_eta_1():
    mixture, path = circle8(), BrownianPath(0, ("t",), 5.0, 0.5)
    x = 5.0 * mixture.sample(50, 3, dtype=torch.float64)
    for sigmas in ([5.0, 0.5], [5.0, 0.5, 0.0]):
        torch.testing.assert_close(
            sde_dpmpp_2m(mixture, sigmas, x, path), run(mixture, co.Ancestral(eta=1.0), sigmas, x, path)
        )


# ---------------------------------------------------------------------------------------------- experiment


def assert_las_wins(rows, sampler):
    cells = {}
    for row in rows:
        if row["sampler"] == sampler:
            cells.setdefault((row["world"], int(row["evaluations"])), {})[row["schedule"]] = row
    assert len(cells) == 6
    for cell, grids in cells.items():
        las = grids["las"]
        for other in ("time_uniform", "edm"):
            gap = float(grids[other]["nll"]) - float(las["nll"])
            error = np.hypot(float(grids[other]["nll_se"]), float(las["nll_se"]))
            assert gap > 3 * error, (cell, other, gap, error)


@pytest.mark.slow
def test_loss_adaptive_grid_wins_every_ddim_cell_beyond_three_standard_errors():
    assert_las_wins(las_experiment(samples=2000, samplers=["ddim"]), "ddim")


@pytest.mark.parametrize("sampler", ["ddim", "sde_dpmpp_2m"])
def test_committed_table_of_20_000_samples_says_the_same(sampler):
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert min(int(row["samples"]) for row in rows) >= 20_000
    assert_las_wins(rows, sampler)
    for row in rows:  # no cell is won by samples that are too narrow
        assert row["schedule"] != "las" or float(row["nll"]) > float(row["entropy"])


def test_last_level_straight_to_zero_saves_an_evaluation_and_wins_one_cell_of_twelve():
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["world"], row["sampler"], int(row["evaluations"]), row["schedule"]): row for row in rows}
    lost = []
    for world, sampler, count, schedule in cells:
        if schedule == "time_uniform":
            straight = cells[world, sampler, count, "time_uniform_to_zero"]
            assert float(straight["nll"]) < float(cells[world, sampler, count, schedule]["nll"])
            assert len(straight["sigmas"].split()) == count + 1
            if float(straight["nll"]) < float(cells[world, sampler, count, "las"]["nll"]):
                lost.append((world, sampler, count))
    assert lost == [("circle8", "sde_dpmpp_2m", 10)]
    assert float(cells[(*lost[0], "time_uniform_to_zero")]["nll"]) == pytest.approx(1.64, abs=0.03)


def test_experiment_takes_other_mixtures():
    rows = las_experiment(samples=100, worlds={"wide": circle8(4.0)}, samplers=["ddim"], evaluations=[4])
    assert {row["world"] for row in rows} == {"wide"}
    grids = {row["schedule"]: row["sigmas"] for row in rows}
    usual = las_experiment(samples=100, worlds=["circle8"], samplers=["ddim"], evaluations=[4])
    assert grids["edm"] == {row["schedule"]: row["sigmas"] for row in usual}["edm"]
    assert grids["las"] != usual[0]["sigmas"]


@pytest.mark.slow
def test_experiment_is_a_command(tmp_path, capsys):
    assert main(["las", "--samples", "20", "--out", str(tmp_path)]) == 0
    assert "las_experiment.csv" in capsys.readouterr().out
    with (tmp_path / "las_experiment.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 3 * 7
