"""Losses of validation are points at the examples trained so far: kappa1 on known truths within standard errors."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.curves.windows import read_windows

KAPPA = 0.70
SIGMA = np.geomspace(0.1, 10.0, 4)
VALIDATION = co.LogReading("validation", burn_in=0.0)


def write(path, rows, header="examples,sigma,loss"):
    path.write_text(header + "\n" + "".join(",".join(f"{value:.10g}" for value in row) + "\n" for row in rows))
    return path


def learned_means(path, seed, *, runs=24, size=64, drawn=2000):
    """Networks that learn a mean of `size` numbers level by level: E loss = kappa (1 + 1 / m), m examples of the level.

    The data are N(0, kappa / size) in every direction; the estimate is the mean of the examples seen, and validation
    holds it against examples of its own, the same at all points.
    """
    rng = np.random.default_rng(seed)
    points = np.unique(np.geomspace(3, drawn, 16).astype(int))
    rows, scale = [], np.sqrt(KAPPA / size)
    for run in range(runs):
        for sigma in SIGMA:
            seen = np.cumsum(scale * rng.standard_normal((drawn, size)), axis=0)
            held_out = scale * rng.standard_normal((500, size))
            for m in points:
                loss = np.mean(np.sum((held_out - seen[m - 1] / m) ** 2, axis=1))
                rows.append((run, m * SIGMA.size, sigma, loss))
    return write(path, sorted(rows), "run,examples,sigma,loss")


def deviation(found):
    """Mean kappa1 over independent levels, from the truth in standard errors."""
    error = np.sqrt(np.sum(found.reducible_error**2)) / found.sigma.size
    return (np.mean(found.reducible) - KAPPA) / error


def test_kappa_of_networks_that_learned_a_mean_is_the_truth_and_windows_would_miss_it(tmp_path):
    path = learned_means(tmp_path / "log.csv", 1)
    options = {"log_width": None, "transfer": 0.0, "bootstrap": "runs"}
    found = co.learning_curves(path, reading=VALIDATION, **options)
    windows = co.learning_curves(path, reading=co.LogReading("cumulative", burn_in=0.0), **options)
    print("kappa1", np.mean(found.reducible), deviation(found), "as windows", np.mean(windows.reducible))
    assert abs(deviation(found)) < 3
    assert np.all(np.abs(found.reducible - KAPPA) < 3 * found.reducible_error)
    np.testing.assert_allclose(found.reducible, KAPPA, rtol=0.2)
    assert deviation(windows) < -3
    assert any("as even over the log's rows" in note for note in found.notes)


def noisy_points(path, rng, total=40_000, count=20, spread=2e-4):
    """Losses L + kappa / m at even distances, m within 2.7 in log sigma of log-normal examples."""
    sigma, rows = np.geomspace(0.05, 20.0, 30), []
    served = np.exp(-((np.log(sigma) + 0.5) ** 2) / (2 * 1.5**2)) / (1.5 * np.sqrt(2 * np.pi)) * 2.7
    for seen in np.linspace(total / count, total, count):
        loss = 1.0 + sigma + KAPPA / (served * seen) + spread * 1e-2 * rng.standard_normal(sigma.size)
        rows += [(seen, s, value) for s, value in zip(sigma, loss, strict=True)]
    return write(path, rows)


def test_the_examples_of_a_level_are_those_of_the_density_that_was_trained_on(tmp_path):
    density = co.LogNormal(-0.5, 1.5)
    apart = []
    for seed in range(8):
        path = noisy_points(tmp_path / "log.csv", np.random.default_rng(seed))
        run = co.TrainingRun(density=density, iterations=400, batch=100, log=path)
        found = co.learning_curves(run, levels=30, reading=co.LogReading("validation"))
        assert not any("as even" in note for note in found.notes)
        inside = (found.sigma > 0.1) & (found.sigma < 10.0)
        apart.append((found.reducible - KAPPA)[inside] / found.reducible_error[inside])
    apart = np.array(apart)
    print("errors in standard errors: mean", apart.mean(), "largest", np.abs(apart).max(), "size", apart.std())
    assert np.mean(np.abs(apart) < 3) > 0.98
    assert 0.6 < apart.std() < 1.4


def test_a_column_end_has_the_examples_trained_on_and_examples_those_of_a_row(tmp_path):
    rows = [(end, s, 100 * (1 + i), 1 + 5 / end, 0.3) for end in (100, 200, 400) for i, s in enumerate((0.5, 2.0))]
    path = write(tmp_path / "log.csv", rows, "end,sigma,examples,loss,variance")
    _, (windows,) = read_windows(path, 4, VALIDATION)
    np.testing.assert_array_equal(windows.count, [[100, 200]] * 3)
    np.testing.assert_array_equal(windows.seen, [[50, 50], [50, 50], [100, 100]])
    np.testing.assert_array_equal(windows.end, [100, 200, 400])
    np.testing.assert_array_equal(windows.freedom, [[99, 199]] * 3)
    found = co.learning_curves(path, reading=VALIDATION, log_width=None, transfer=0.0)
    np.testing.assert_allclose(found.reducible, 2.5, rtol=1e-9)  # half of the examples on each level
    np.testing.assert_allclose(found.bayes_floor, 1.0, rtol=1e-9)


def test_rows_may_come_in_any_order(tmp_path):
    rows = [(seen, s, 1 + 5 / seen) for s in (0.5, 2.0) for seen in (400, 100, 200)]
    found = co.learning_curves(write(tmp_path / "log.csv", rows), reading=VALIDATION, log_width=None, transfer=0.0)
    np.testing.assert_allclose(found.reducible, 2.5, rtol=1e-9)


def test_averaged_weights_beside_last_iterates_count_their_examples_once(tmp_path):
    rows = [(seen, 1.0, 1 + 5 * kind / seen, kind) for seen in (100, 200, 400) for kind in (0, 1)]
    path = write(tmp_path / "log.csv", rows, "examples,sigma,loss,averaged")
    found = co.learning_curves(path, levels=co.Levels([0.5, 2.0]), reading=VALIDATION, log_width=None, transfer=0.0)
    np.testing.assert_allclose(found.reducible, 5.0, rtol=1e-9)


def test_a_log_that_only_grows_is_told_to_be_perhaps_cumulative(tmp_path):
    rows = [(seen, s, 1 + 5 / seen) for seen in (100, 200, 400) for s in (0.5, 2.0)]
    found = co.learning_curves(write(tmp_path / "log.csv", rows), reading=co.LogReading(burn_in=0.0))
    assert any("LogReading('validation')" in note for note in found.notes)


def test_an_unknown_way_of_counting_is_named():
    with pytest.raises(ValueError, match=r"LogReading\.examples is 'test'"):
        co.LogReading("test")
