"""The testbed's worlds, the classifier behind the Fréchet distance, and the table of all peers, on small copies."""

import csv
import os
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.comparison.compare import compare
from codesign_opt.comparison.table import read_rows
from codesign_opt.comparison.world import World, calls_of
from codesign_opt.estimate.denoisers.adapters import guided
from codesign_opt.estimate.measurement import Measurement
from codesign_opt.estimate.network_model import network
from codesign_opt.estimate.runs.run import run
from codesign_opt.estimate.steps import grid_descent
from codesign_opt.estimate.steps.grid_descent import descend_grid
from codesign_opt.testbed.data.mixtures import circle8, grid8
from codesign_opt.testbed.metrics import negative_log_likelihood
from codesign_opt.testbed.networks.classifier import Classifier, feature_distance, trained_classifier
from problems.studies.peer_comparison import compare_peers, gaussian_worlds, write_comparison
from problems.studies.worlds import DenoiserWorld, mixture_world

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
QUICK = {"draws": 32, "evaluations": 1500, "levels": 6} | (
    {} if FULL else {"levels": 4, "fine_steps": 16, "evaluations": 1200}
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return mixture_world("circle8", draws=400, plan_options=QUICK, folder=tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def found(world):
    return compare(world, ["edm"], [6], samplers=["euler", "heun"], seeds=[0, 1])


@pytest.mark.slow
def test_a_mixture_is_a_world_with_errors_to_a_fine_solution(world, found):
    assert isinstance(world, World)
    row = found.row("edm", "heun", 6)
    start = 80 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [run(circle8(), co.Heun(), grid, start) for grid in (co.edm_grid(200, 0.002, 80.0), row.sigmas)]
    own = (ends[1] - ends[0]).square().sum(1).numpy()
    assert abs(row.error - own.mean()) < 3 * np.hypot(row.standard_error, own.std() / np.sqrt(own.size))
    likelihood = negative_log_likelihood(circle8(), ends[1])
    value, error = row.others["nll"]
    assert abs(value - likelihood.value) < 3 * np.hypot(error, likelihood.standard_error)


@pytest.mark.slow
def test_the_plan_wins_on_circle8_beyond_three_standard_errors(found):
    for sampler in ("euler", "heun"):
        assert found.row("plan", sampler, 6).rank == 1
        other = found.row("edm", sampler, 6)
        assert other.excess > 3 * other.excess_error


@pytest.mark.slow
def test_plans_and_fine_solutions_are_kept(world, found):
    again = mixture_world("circle8", draws=400, plan_options=QUICK, folder=world.folder)
    sigmas = again.plan(co.Euler(), 6)
    assert again.denoiser.evaluations == 0
    np.testing.assert_array_equal(sigmas, found.row("plan", "euler", 6).sigmas)


def test_a_guided_world_counts_two_evaluations_inside_the_interval():
    mixture = circle8()
    half = type(mixture)(mixture.means[:4], mixture.widths[:4], mixture.weights[:4])
    denoiser = guided(half, mixture, 2.0, interval=(0.3, 3.0))
    data = half.sample(400, dtype=torch.float64)
    world = DenoiserWorld("half of circle8, guided", denoiser, data, draws=200, chunk=200, plan_options=QUICK)
    found = compare(world, ["edm", "log_snr"], [9], samplers=["euler"], plan=False)
    for row in found.rows:
        levels = calls_of(co.Euler(), row.sigmas)
        inside = (levels >= 0.3) & (levels <= 3.0)
        assert row.used == levels.size + inside.sum() <= 9
        assert inside.any()


@pytest.mark.slow
@pytest.mark.usefixtures("unarranged")
def test_gaussian_worlds_are_compared_and_written(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.setattr(
        "problems.studies.peer_comparison.gaussian_worlds", lambda: dict([*gaussian_worlds().items()][2:])
    )
    lines = []
    found = compare_peers(tmp_path, worlds=["gaussian"], samplers=["euler"], evaluations=[5], progress=lines.append)
    assert list(found) == ["spread"]
    paths = write_comparison(found, tmp_path / "figures")
    assert [path.name for path in paths] == [
        "peer_comparison_spread.csv",
        "peer_comparison_spread.png",
        "comparison.md",
    ]
    page = (tmp_path / "comparison.md").read_text()
    assert "best or within one standard error of the best in 1 of 1 cells (100%)" in page
    assert "](figures/peer_comparison_spread.png)" in page
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert {"plan", "edm", "log_snr"} <= {row["peer"] for row in rows}
    assert any("plan level with the best in 100%" in line for line in lines)


@pytest.mark.slow
@pytest.mark.usefixtures("unarranged")
def test_a_table_is_filled_by_several_runs_and_read_back(found, tmp_path):
    parts = [replace(found, rows=tuple(found.cell(*cell))) for cell in found.cells]
    for part in reversed(parts):
        write_comparison({"circle8": part}, tmp_path / "parts")
    write_comparison({"circle8": found}, tmp_path / "whole")
    texts = [(tmp_path / name / "peer_comparison_circle8.csv").read_text() for name in ("parts", "whole")]
    assert texts[0] == texts[1]
    with (tmp_path / "whole" / "peer_comparison_circle8.csv").open() as file:
        rows = read_rows(file)
    assert [(row.peer, row.rank, row.level) for row in rows] == [(row.peer, row.rank, row.level) for row in found.rows]
    for row, known in zip(rows, found.rows, strict=True):
        np.testing.assert_allclose(row.sigmas, known.sigmas, rtol=1e-4)
        assert row.error == pytest.approx(known.error, rel=1e-5)
        assert list(row.others) == list(known.others)
        np.testing.assert_allclose(list(row.others.values()), list(known.others.values()), rtol=1e-5)
    far = replace(found.rows[1], error=3e6 * found.rows[0].error, excess=(3e6 - 1) * found.rows[0].error)
    write_comparison({"grid8": replace(found, rows=(found.rows[0], far))}, tmp_path / "far")
    assert "| 3e+06 ± " in (tmp_path / "comparison.md").read_text()  # six digits of a table keep what is far apart
    with pytest.raises(ValueError, match="lacks the column 'evaluations'"):
        read_rows(["sampler,peer\n"])


@pytest.mark.slow
@pytest.mark.usefixtures("unarranged")
def test_the_page_explains_the_cells_that_the_plan_loses(found, tmp_path):
    swapped = {"plan": "edm", "edm": "plan"}
    rows = tuple(replace(row, peer=swapped[row.peer]) for row in found.rows)
    write_comparison({"turned": replace(found, rows=rows)}, tmp_path / "figures")
    page = (tmp_path / "comparison.md").read_text()
    assert "in 0 of 2 cells (0%)" in page
    assert "- euler, 6 evaluations: edm is ahead by" in page
    assert "| nll | euler 6 | heun 6 |" in page


def images(count, seed):
    """Bright squares in one of two corners, and noise: two classes that a classifier tells apart."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 2, size=count)
    pictures = draws.normal(-0.8, 0.1, size=(count, 1, 28, 28)).astype(np.float32)
    pictures[labels == 0, :, 4:12, 4:12] += 1.6
    pictures[labels == 1, :, 16:24, 16:24] += 1.6
    return pictures, labels


def test_the_classifier_learns_and_a_stopped_training_goes_on_to_the_same_bits(tmp_path):
    data = images(600, 0)
    whole = trained_classifier(folder=tmp_path / "one", iterations=30, data=data)
    trained_classifier(folder=tmp_path / "two", iterations=13, data=data)
    again = trained_classifier(folder=tmp_path / "two", iterations=30, data=data)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    pictures, labels = images(200, 1)
    assert (whole(torch.as_tensor(pictures)).argmax(1).numpy() == labels).mean() > 0.99
    assert trained_classifier(folder=tmp_path / "two", iterations=30, data=None).head.weight.requires_grad is False
    with pytest.raises(ValueError, match="holds 30 iterations"):
        trained_classifier(folder=tmp_path / "two", iterations=20, data=data)


def test_feature_distance_is_zero_on_the_images_and_grows_with_noise():
    torch.manual_seed(0)
    measure = feature_distance(Classifier(), torch.as_tensor(images(400, 2)[0]))
    own = torch.as_tensor(images(400, 2)[0])
    assert float(measure(own).value) == pytest.approx(0, abs=1e-9)
    near, far = (measure(torch.as_tensor(images(400, 3)[0]) + s * torch.randn(400, 1, 28, 28)) for s in (0.0, 0.5))
    assert far.value - near.value > 3 * np.hypot(near.standard_error, far.standard_error)


def test_unknown_worlds_are_named(tmp_path):
    with pytest.raises(ValueError, match="worlds is 'moon'"):
        compare_peers(tmp_path, worlds=["moon"])


@pytest.mark.slow
def test_with_few_steps_several_stopping_points_and_jumps_of_nodes_find_what_one_descent_misses(monkeypatch):
    mixture = grid8()
    data = mixture.sample(400, dtype=torch.float64)
    measurement = Measurement(levels=6, draws=128, chunk=128, evaluations=3000)
    probe = network(mixture, data, sampler=co.DPMpp2M(), measurement=measurement).probe
    start = co.edm_grid(5, 0.002, 80.0)
    jumped = descend_grid(probe.reference, probe.held_out, [start], budget=probe.budget).sigmas
    monkeypatch.setattr(grid_descent, "_JUMPS", 0)
    one = descend_grid(probe.reference, probe.held_out, [start], budget=probe.budget).sigmas
    several = probe.descend(start, free_stop=True, stops=(0.07, 0.2, 0.6))
    for better in (several, jumped):
        ratio = probe.errors(better).ratio(probe.errors(one))  # on draws that neither has seen
        assert ratio.value < 0.6
        assert 1 - ratio.value > 3 * ratio.standard_error
        assert better.size == one.size == 6
