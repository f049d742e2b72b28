"""Trainings that survive being killed, and the cache of trained networks."""

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.curves.recording import LevelStatistics
from codesign_opt.testbed import MLP, Optimisation, Records, circle8, train
from codesign_opt.testbed.__main__ import main
from codesign_opt.testbed.networks import training
from codesign_opt.testbed.networks.recipes import RECIPES, Recipe, cache_folder, trained
from codesign_opt.testbed.networks.training import draw_levels, finished

# --------------------------------------------------------------------------------------- training


def tiny():
    torch.manual_seed(0)
    return MLP(2, sigma_data=1.4, width=16, layers=2)


def points():
    return circle8().sample(500)


def same(one, two):
    for a, b in zip((one.model, one.last), (two.model, two.last), strict=True):
        for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(p, q)
    assert one.log.rows() == two.log.rows()


HOW, RECORDS = Optimisation(batch=8, ema=0.9), Records(every=7, tell=5)
OPTIONS = {"optimisation": HOW, "records": RECORDS, "seed": 4}
KEEPING = {**OPTIONS, "records": replace(RECORDS, keep=6)}


FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


@pytest.mark.cases(1)
@pytest.mark.parametrize("stop", [1, 6, 7, 13, 20, 29] if FULL else [1, 7, 13])
def test_a_training_interrupted_anywhere_ends_in_the_same_bits(tmp_path, monkeypatch, stop):
    whole = train(tiny(), points(), iterations=30, **OPTIONS)
    left = [stop]

    def draw(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return draw_levels(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "draw_levels", draw)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), points(), iterations=30, folder=tmp_path, **OPTIONS)
    same(train(tiny(), points(), iterations=30, folder=tmp_path, **OPTIONS), whole)


@pytest.mark.slow
def test_a_training_killed_by_the_system_ends_in_the_same_bits(tmp_path):
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from tests.testbed.test_trained_networks import OPTIONS, points, tiny, train\n"
        "train(tiny(), points(), iterations=100_000, folder=sys.argv[1], **OPTIONS)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2])
    while not (tmp_path / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0.0, 0.2))  # any moment, in the middle of a file included
    process.kill()
    process.wait()
    reached = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"]
    resumed = train(tiny(), points(), iterations=reached + 9, folder=tmp_path, **OPTIONS)
    same(resumed, train(tiny(), points(), iterations=reached + 9, **OPTIONS))


def test_a_finished_training_goes_on_to_what_a_longer_one_gives(tmp_path):
    first = train(tiny(), points(), iterations=12, folder=tmp_path, **KEEPING)
    longer = train(tiny(), points(), iterations=30, folder=tmp_path, **KEEPING)
    same(longer, train(tiny(), points(), iterations=30, **OPTIONS))
    assert list(longer.snapshots()) == [6, 12, 18, 24, 30]
    for a, b in zip(longer.at(12).parameters(), first.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="no weights were kept at iteration 13"):
        longer.at(13)
    with pytest.raises(ValueError, match="holds 30 iterations, more than iterations = 20"):
        train(tiny(), points(), iterations=20, folder=tmp_path, **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 5}, "seed"),
        ({"batch": 9}, "batch"),
        ({"ema": 0.8}, "ema"),
        ({"learning_rate": 2e-3}, "learning_rate"),
        ({"density": co.LogNormal(0.0, 1.0)}, "density"),
        ({"weight": torch.ones_like}, "weight"),
    ],
)
def test_a_folder_of_another_training_is_refused_by_the_differing_option(tmp_path, changes, name):
    train(tiny(), points(), iterations=3, folder=tmp_path, **OPTIONS)
    how = replace(HOW, **{key: value for key, value in changes.items() if key != "seed"})
    seed = changes.get("seed", 4)
    with pytest.raises(ValueError, match=f"belongs to another training: its {name} is"):
        train(tiny(), points(), iterations=5, folder=tmp_path, optimisation=how, records=RECORDS, seed=seed)
    with pytest.raises(ValueError, match="its data is"):
        train(tiny(), points() + 1, iterations=5, folder=tmp_path, **OPTIONS)


def test_the_average_is_the_weighted_mean_of_the_iterates():
    iterates, decays = [], [min(0.9, n / (n + 9.0)) for n in range(1, 9)]
    iterates.append(parameters(tiny()))
    iterates += [parameters(train(tiny(), points(), iterations=n, **OPTIONS).last) for n in range(1, 9)]
    mean = iterates[0]
    for decay, last in zip(decays, iterates[1:], strict=True):
        mean = decay * mean + (1 - decay) * last
    np.testing.assert_allclose(parameters(train(tiny(), points(), iterations=8, **OPTIONS).model), mean, atol=1e-6)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy()


def test_levels_follow_any_density_of_the_library():
    levels = co.Levels.log_uniform(0.01, 10.0, 30)
    examples = np.where(levels.sigma < 1.0, 3.0, 1.0) * levels.log_width
    planned = co.TrainingDensity(levels, examples, np.ones(30), 0.0, np.zeros(30), np.ones(30))
    for density in (co.LogNormal(-1.2, 1.2), planned):
        sigma, weight = draw_levels(density, 4_000, torch.Generator().manual_seed(0))
        edges = np.array([0.02, 0.1, 0.5, 1.0, 5.0])
        found = np.histogram(sigma.numpy(), edges)[0] / 4_000
        np.testing.assert_allclose(found, density.mass(edges), atol=1e-3)  # stratified: off by < 2 / 4,000
        assert float((weight - 1).abs().max()) == 0
        assert float(np.corrcoef(sigma.numpy()[1:], sigma.numpy()[:-1])[0, 1]) < 0.1  # shuffled
    sigma, weight = draw_levels(lambda n, g: (torch.ones(n), torch.full((n,), 2.0)), 3, torch.Generator())
    assert weight.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(ValueError, match=r"levels of shape \(2,\); \(3,\) levels > 0"):
        draw_levels(lambda n, g: torch.ones(2), 3, torch.Generator())


@pytest.mark.slow
def test_training_brings_the_denoiser_near_the_exact_one():
    """Excess of |D - x0|^2 over the exact denoiser of the mixture, on fresh points, at three levels."""
    torch.manual_seed(0)
    model = MLP(2, sigma_data=1.43, width=64)
    how = Optimisation(batch=256, learning_rate=3e-3, ema=0.98)
    result = train(model, circle8().sample(20_000), iterations=250, optimisation=how)
    clean = circle8().sample(4_000, seed=9)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    for sigma in (0.1, 0.4, 1.0):
        x, at = clean + sigma * noise, torch.full((4_000,), sigma)
        own = (result(x, at) - clean).square().sum(1).mean()
        bayes = (circle8()(x, at) - clean).square().sum(1).mean()
        start = (model(x, at) - clean).square().sum(1).mean()
        assert own - bayes < 0.25 * (start - bayes), (sigma, float(own), float(bayes), float(start))


def test_bad_options_data_and_losses_are_named():
    for make, message in (
        (lambda: train(tiny(), points(), iterations=0), "iterations is 0"),
        (lambda: Optimisation(ema=1.0), r"Optimisation\.ema is 1; it must be < 1"),
        (lambda: Optimisation(learning_rate=-1.0), r"Optimisation\.learning_rate is -1"),
        (lambda: Optimisation(batch=2.5), r"Optimisation\.batch is 2.5"),
        (lambda: Records(every=0), r"Records\.every is 0"),
        (lambda: Records(keep=0), r"Records\.keep is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="data has entries that are not finite"):
        train(tiny(), torch.full((4, 2), float("nan")), iterations=3)
    with pytest.raises(ValueError, match=r"the loss is inf at iteration 0; lower learning_rate"):
        train(tiny(), torch.full((4, 2), 1e30), iterations=3)


def test_the_log_is_the_mean_loss_of_each_level_and_learning_curves_read_it(tmp_path, monkeypatch):
    """Against the levels and errors of every batch, caught where the network is called."""
    seen, levels = [], co.Levels.log_uniform(0.01, 10.0, 6)

    def draw(*arguments):
        seen.append(draw_levels(*arguments))
        return seen[-1]

    monkeypatch.setattr(training, "draw_levels", draw)
    options = {**OPTIONS, "records": replace(RECORDS, levels=levels)}
    run = train(tiny(), points(), iterations=200, folder=tmp_path, **options)
    log = co.TrainingRun(None, 200, 8, log=tmp_path / "loss.csv").read_log()
    sigma = torch.cat([part[0] for part in seen]).float().numpy()
    assert log["examples"].sum() == 1_600
    inside = np.histogram(sigma, levels.edges)[0]
    found = [log["examples"][log["level"] == level].sum() for level in range(6)]
    np.testing.assert_array_equal(found, inside)
    whole = log["level"] == 3
    mean = np.average(np.log(log["sigma"][whole]), weights=log["examples"][whole])
    held = sigma[(sigma >= levels.edges[3]) & (sigma < levels.edges[4])]
    assert mean == pytest.approx(np.log(held).mean(), rel=1e-6)
    assert (log["learning_rate"] == 1e-3).all()
    assert (log["batch"] == 8).all()
    assert co.learning_curves(tmp_path / "loss.csv", levels=levels, transfer=0.0).sigma.size > 3
    assert [row["loss"] for row in run.log.rows()] == log["loss"].tolist()
    with pytest.raises(ValueError, match=r"a log with other levels: 6 from 0\.01 to 10; give these as Records\.levels"):
        train(tiny(), points(), iterations=300, folder=tmp_path, **OPTIONS)


def first_version(folder, every=5, bins_per_decade=5):
    """Makes a folder of today what version 0.1.0 would have left: its log and its question."""
    path = folder / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    known, last = LevelStatistics.from_state(content["log"]).rows(), content["iteration"] * HOW.batch
    done = [row for row in known if row["end"] < last]  # the last window is in progress
    rows = [[0.5 * (row["start"] + row["end"]), row["sigma"], row["loss"]] for row in done]
    pending = {3: [2, 2 * math.log(5.0), 2 * 0.7], 4: [6, 6 * math.log(8.0), 6 * 0.9]}
    content["log"] = {
        "options": [every, bins_per_decade], "rows": rows, "pending": pending, "position": [1, done[-1]["end"], last],
    }  # fmt: skip
    content["question"]["log_every"] = every
    torch.save(content, path)
    (folder / "loss.csv").write_text(
        "examples,sigma,loss\n" + "".join(f"{e:.1f},{s:.6g},{x:.8g}\n" for e, s, x in rows)
    )
    return rows


def test_folders_of_version_0_1_0_are_read_and_go_on_to_the_same_bits(tmp_path):
    options = {**OPTIONS, "records": replace(RECORDS, levels=training.LOG_LEVELS)}
    whole = train(tiny(), points(), iterations=30, **options)
    train(tiny(), points(), iterations=20, folder=tmp_path, **options)
    rows = first_version(tmp_path)
    log = co.TrainingRun(None, 20, 8, log=tmp_path / "loss.csv").read_log()
    np.testing.assert_allclose(log["loss"], [row[2] for row in rows], rtol=1e-7)
    stored = finished(tiny(), tmp_path, iterations=20, optimisation=HOW, seed=4)
    kept = stored.log.rows()
    for (middle, group), (_, again) in zip(
        groupby(rows, key=lambda row: row[0]), groupby(kept, key=lambda row: row["start"]), strict=False
    ):
        window = list(again)
        assert 0.5 * (window[0]["start"] + window[0]["end"]) == middle
        np.testing.assert_allclose([r["loss"] for r in window], [r[2] for r in group], rtol=1e-9)
        assert all(row["variance"] is None for row in window)
    assert [(row["examples"], round(row["sigma"], 9), round(row["loss"], 9)) for row in kept[-2:]] == [
        (2, 5.0, 0.7),
        (6, 8.0, 0.9),
    ]
    longer = train(tiny(), points(), iterations=30, folder=tmp_path, **options)
    for a, b in zip(longer.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)
    after = co.TrainingRun(None, 30, 8, log=tmp_path / "loss.csv").read_log()
    assert after["end"].max() == 240
    assert after["start"].min() == 0


# ----------------------------------------------------------------------------------------- cache


def test_networks_are_trained_once_and_then_loaded_without_their_data(tmp_path, monkeypatch):
    recipe = Recipe(
        "tiny", points, lambda: MLP(2, sigma_data=1.4, width=8), 20, Optimisation(batch=8), Records(keep=10)
    )
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    monkeypatch.setenv("CODESIGN_OPT_CACHE", str(tmp_path))
    state = torch.get_rng_state()
    first = trained("tiny")
    assert torch.equal(state, torch.get_rng_state())
    monkeypatch.setitem(RECIPES, "tiny", replace(recipe, data=absent))
    same(first, trained("tiny"))
    assert list(first.snapshots()) == [10, 20]
    assert (tmp_path / "testbed" / "tiny" / "loss.csv").exists()
    with pytest.raises(FileNotFoundError):
        trained("tiny", folder=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="name is 'fashion'; it must be one of"):
        trained("fashion")
    assert finished(recipe.initial(), tmp_path / "nowhere", iterations=1) is None


def absent():
    raise FileNotFoundError("no data")


def test_the_cache_is_the_argument_then_the_variable_then_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("CODESIGN_OPT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder("there") == Path("there")
    monkeypatch.delenv("CODESIGN_OPT_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "codesign_opt")


def test_the_command_trains_and_says_where(tmp_path, monkeypatch, capsys):
    recipe = Recipe("tiny", points, lambda: MLP(2, sigma_data=1.4, width=8), 50, Optimisation(batch=8))
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    threads = torch.get_num_threads()
    try:
        assert main(["tiny", "--cache", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr()
    assert f"tiny: 50 iterations of 8, in {tmp_path}" in printed.out
    assert "50 of 50" in printed.err


def test_every_recipe_builds_the_same_network_each_time():
    for recipe in RECIPES.values():
        one, two = (recipe.initial().state_dict() for _ in range(2))
        assert all(torch.equal(one[name], two[name]) for name in one)
