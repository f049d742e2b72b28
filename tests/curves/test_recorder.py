"""The recorder: counts, means and variances of every window and level, resumed to the same bits."""

import json
import time

import numpy as np
import pytest

import codesign_opt as co
from tests.helpers.recorded import LEVELS


def batches(seed, number, size=64):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        sigma = np.exp(rng.normal(-0.5, 1.5, size))
        yield sigma, rng.chisquare(3, size) * sigma


def test_the_recorder_counts_means_and_variances_of_every_window_and_level(tmp_path):
    stats = co.LevelStatistics(LEVELS)
    sigmas, losses = [], []
    for sigma, loss in batches(0, 100):
        stats.record(sigma, loss)
        sigmas.append(sigma)
        losses.append(loss)
    sigma, loss = np.concatenate(sigmas), np.concatenate(losses)
    rows = stats.rows()
    assert sum(row["examples"] for row in rows) == sigma.size
    for row in rows:
        mine = slice(row["start"], row["end"])
        edges = np.concatenate([[0], LEVELS.edges, [np.inf]])
        inside = (sigma[mine] >= edges[row["level"] + 1]) & (sigma[mine] < edges[row["level"] + 2])
        assert row["examples"] == inside.sum()
        assert row["loss"] == pytest.approx(loss[mine][inside].mean(), rel=1e-12)
        if row["examples"] > 1:
            assert row["variance"] == pytest.approx(loss[mine][inside].var(ddof=1), rel=1e-9)
    assert len({row["start"] for row in rows}) < 20


def same_row(a, b):
    return all(x == y or x == pytest.approx(y, rel=1e-9) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("stop", [1, 31, 32, 33, 70])
def test_a_recorder_goes_on_from_its_state_to_the_same_bits(stop):
    whole = co.LevelStatistics(LEVELS, run="a", learning_rate=0.1)
    stopped = co.LevelStatistics(LEVELS, run="a", learning_rate=0.1)
    for i, (sigma, loss) in enumerate(batches(0, 90)):
        if i == stop:
            stopped = co.LevelStatistics.from_state(json.loads(json.dumps(stopped.state())))
        whole.record(sigma, loss, learning_rate=0.1 if i < 40 else 0.05)
        stopped.record(sigma, loss, learning_rate=0.1 if i < 40 else 0.05)
    assert stopped.rows() == whole.rows()
    assert stopped.examples == whole.examples


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_a_resumed_recorder_writes_the_same_log(tmp_path, name):
    whole, path = co.LevelStatistics(LEVELS, run="01", learning_rate=0.1), tmp_path / name
    for sigma, loss in batches(0, 90):
        whole.record(sigma, loss)
    for part in range(3):
        stats = co.LevelStatistics.resume(path, LEVELS, run="01", learning_rate=0.1)
        for i, (sigma, loss) in enumerate(batches(0, 90)):
            if i // 30 == part:
                stats.record(sigma, loss)
        stats.save(path)
        other = co.LevelStatistics(LEVELS, run="1")
        other.record(1.0, 2.0)
        other.save(path)
    log = co.LevelStatistics.resume(path, LEVELS, run="01").rows()
    for a, b in zip(log, whole.rows(), strict=True):
        assert same_row(a, b)
    assert len(co.LevelStatistics.resume(path, LEVELS, run="1").rows()) == 1
    assert [path.suffix for path in tmp_path.glob(".*")] == [".lock"]
    with pytest.raises(ValueError, match="give the edges that the log was begun with"):
        co.LevelStatistics.resume(path, [0.1, 0.2, 0.3, 0.4, 0.5], run="01")


def test_a_recorded_log_is_a_training_run_and_gives_curves(tmp_path):
    stats = co.LevelStatistics(LEVELS, learning_rate=0.1)
    for sigma, loss in batches(0, 200):
        stats.record(sigma, loss)
    stats.save(tmp_path / "log.csv")
    run = co.TrainingRun(None, iterations=200, batch=64, log=tmp_path / "log.csv")
    known = co.TrainingRun(co.LogNormal(-0.5, 1.5), iterations=200, batch=64)
    share = known.examples_on(LEVELS)
    np.testing.assert_allclose(run.examples_on(LEVELS), share, atol=5 * np.sqrt(share.max()))
    assert co.learning_curves(run, levels=LEVELS).sigma.size == 4


def test_curves_of_a_recorder_are_those_of_its_file(tmp_path):
    stats = co.LevelStatistics(LEVELS)
    for i, (sigma, loss) in enumerate(batches(1, 60)):
        stats.record(sigma, loss * (1 + 5 / (i + 1)))
    stats.save(tmp_path / "log.jsonl")
    own, read = (co.learning_curves(source, levels=LEVELS) for source in (stats, tmp_path / "log.jsonl"))
    for name in ("sigma", "bayes_floor", "reducible", "reducible_error"):
        np.testing.assert_allclose(getattr(own, name), getattr(read, name), rtol=1e-9)
    with pytest.raises(ValueError, match="nothing was recorded yet"):
        co.learning_curves(co.LevelStatistics(LEVELS))


def test_tensors_and_arrays_are_recorded_alike():
    torch = pytest.importorskip("torch")
    arrays, tensors, pixels = (co.LevelStatistics(LEVELS) for _ in range(3))
    for sigma, loss in batches(0, 70):
        arrays.record(sigma, loss)
        s, l = torch.tensor(sigma).view(-1, 1, 1, 1), torch.tensor(loss, requires_grad=True)
        tensors.record(s, l * 1)
        pixels.record(s, (l / 4).view(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    for a, b, c in zip(arrays.rows(), tensors.rows(), pixels.rows(), strict=True):
        assert same_row(a, b)
        assert same_row(a, c)


def test_losses_that_are_not_finite_are_left_out_with_a_warning():
    stats = co.LevelStatistics(LEVELS)
    stats.record(np.array([1.0, 2.0]), np.array([np.nan, 1.0]))
    with pytest.warns(UserWarning, match="1 noise levels or losses are not finite, the first at sigma = 1"):
        rows = stats.rows()
    assert [row["examples"] for row in rows] == [1]
    assert stats.rejected == 1


def test_bad_batches_are_refused_and_cost_no_other(tmp_path):
    stats = co.LevelStatistics(LEVELS)
    stats.record(1.0, 2.0)
    with pytest.raises(ValueError, match="3 noise levels but 1 losses"):
        stats.record(np.ones(3), 2.0)
    stats.record(-1.0, 2.0)
    with pytest.raises(ValueError, match="sigma is -1"):
        stats.rows()
    assert len(stats.rows()) == 1
    (tmp_path / "mine.csv").write_text("examples,sigma,loss\n1,1,1\n")
    with pytest.raises(ValueError, match="no column 'run'"):
        stats.save(tmp_path / "mine.csv")


def test_a_new_learning_rate_begins_a_new_window():
    stats = co.LevelStatistics(LEVELS, windows_per_doubling=1)
    for i in range(1000):
        stats.record(1.0, 1.0, learning_rate=0.1 if i < 600 else 0.01)
    starts = {row["start"]: row["learning_rate"] for row in stats.rows()}
    assert starts[600] == 0.01
    assert starts[511] == 0.1


def test_recording_costs_less_than_two_percent_of_a_step():
    """Ratio to one step of a small network on the same machine; a U-Net's step is a hundred times longer."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.SiLU(), torch.nn.Linear(512, 784))
    optimiser, clean = torch.optim.SGD(net.parameters(), 1e-4), torch.randn(128, 784)
    stats = co.LevelStatistics(co.Levels.log_uniform(0.002, 80.0, 40))
    spent = {"step": [], "record": []}
    for _ in range(160):
        before = time.perf_counter()
        sigma = torch.exp(torch.randn(128) - 1.2)
        loss = (net(clean + sigma[:, None] * torch.randn(128, 784)) - clean).square().sum(1)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        middle = time.perf_counter()
        stats.record(sigma, loss)
        spent["step"].append(middle - before)
        spent["record"].append(time.perf_counter() - middle)
    # blocks hold one transfer each; the quietest block is free of what else the machine does
    block = {name: np.reshape(values, (-1, 32)).sum(axis=1) for name, values in spent.items()}
    ratio = float(np.min(block["record"]) / np.median(block["step"]))
    print(f"recording: {1e6 * np.min(block['record']) / 32:.0f} us a step, {100 * ratio:.2f} % of the training step")
    assert ratio < 0.02


def test_curves_are_told_at_the_noise_levels_of_the_log(tmp_path):
    rows = [f"1000,{sigma},{1 + 1 / (row + 1)}" for row in range(30) for sigma in (0.01, 0.1, 1.0, 30.0)]
    (tmp_path / "loss.csv").write_text("\n".join(["examples,sigma,loss", *rows]))
    np.testing.assert_allclose(co.learning_curves(tmp_path / "loss.csv").sigma, [0.01, 0.1, 1.0, 30.0])
    wide = co.learning_curves(tmp_path / "loss.csv", levels=2).sigma  # several levels in one bin: their mean
    np.testing.assert_allclose(wide, [np.sqrt(0.01 * 0.1), np.sqrt(1.0 * 30.0)], rtol=1e-6)


def test_recorders_of_several_processes_merge_into_that_of_all_examples():
    parts = list(batches(3, 120, size=96))
    whole = co.LevelStatistics(LEVELS, run="a", learning_rate=0.1)
    ranks = [co.LevelStatistics(LEVELS, run="a", learning_rate=0.1) for _ in range(3)]
    for sigma, loss in parts:
        whole.record(sigma, loss)
        for i, rank in enumerate(ranks):
            rank.record(sigma[i::3], loss[i::3])
    states = json.loads(json.dumps([rank.state() for rank in ranks]))
    merged = co.LevelStatistics.merged(states)
    assert sum(row["examples"] for row in whole.rows()) == merged.examples == 120 * 96
    by_level = {}
    for name, stats in (("whole", whole), ("merged", merged)):
        for row in stats.rows():
            count, total = by_level.get((name, row["level"]), (0, 0.0))
            by_level[name, row["level"]] = count + row["examples"], total + row["examples"] * row["loss"]
            assert row["batch"] == 96
    for (name, level), (count, total) in by_level.items():
        if name == "merged":
            assert (count, pytest.approx(total, rel=1e-12)) == by_level["whole", level]
    last = merged.rows()[-1]
    inside = [pair for k, pair in enumerate(parts) if last["start"] <= 96 * k < last["end"]]
    sigma, loss = (np.concatenate(each) for each in zip(*inside, strict=True))
    edges = np.concatenate([[0], LEVELS.edges, [np.inf]])
    own = loss[(sigma >= edges[last["level"] + 1]) & (sigma < edges[last["level"] + 2])]
    assert last["loss"] == pytest.approx(own.mean(), rel=1e-12)
    assert last["variance"] == pytest.approx(own.var(ddof=1), rel=1e-9)
    ranks[1].record([1.0] * 40, [1.0] * 40)
    with pytest.raises(ValueError, match="process 1 has other levels or took other steps"):
        co.LevelStatistics.merged([rank.state() for rank in ranks])


def test_without_edges_the_levels_are_wide_and_fine_enough(tmp_path):
    stats = co.LevelStatistics()
    assert stats.levels.edges[[0, -1]] == pytest.approx([2.0**-10, 2.0**10])
    stats.record([0.01, 5.0], [0.1, 1.0])
    stats.save(tmp_path / "log.csv")
    again = co.LevelStatistics.resume(tmp_path / "log.csv")
    assert [row["sigma"] for row in again.rows()] == pytest.approx([0.01, 5.0])


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_log_of_flow_matching_holds_the_squared_error_of_the_denoiser(kind):
    rng = np.random.default_rng(0)
    x0, z, t = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), rng.uniform(0.2, 0.9, 50)
    x = (1 - t)[:, None] * x0 + t[:, None] * z
    guess = z - x0 + rng.normal(size=(50, 3))
    denoised = x - t[:, None] * guess
    truth = co.LevelStatistics(LEVELS)
    truth.record(t / (1 - t), (denoised - x0) ** 2)
    stats = co.LevelStatistics(LEVELS)
    loss = (guess - (z - x0)) ** 2
    if kind == "tensor":
        torch = pytest.importorskip("torch")
        t, loss = torch.from_numpy(t)[:, None], torch.from_numpy(loss)
    stats.record_flow(t, loss)
    for a, b in zip(stats.rows(), truth.rows(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-9)
        assert a["sigma"] == pytest.approx(b["sigma"], rel=1e-9)
