"""What losses recorded in training say about training noise: docs/theory.md section 5."""

import csv
import json
import os

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.curves.least_squares import nonnegative_least_squares
from codesign_opt.curves.smoothing import smooth_across_levels
from codesign_opt.curves.windows import transfer_matrix
from tests.helpers.recorded import LEVELS

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

FLOOR, FRESH, STEP = np.array([4.2, 5.0, 7.0, 8.0]), np.array([40.0, 90.0, 60.0, 20.0]), np.array([0.5, 2.0, 4.0, 3.0])


def pilot(rng, *, total, rate=0.1, batch=8, share=(0.2, 0.4, 0.3, 0.1), width=0.0, levels=LEVELS, law=None, spread=1.0):
    """Rows of a log whose mean losses obey the law exactly, with the noise of single examples."""
    floor, fresh, step = (FLOOR, FRESH, STEP) if law is None else law
    share = np.asarray(share)
    ends = np.unique((total * 2.0 ** (-np.arange(30)[::-1] / 2)).astype(int))
    ends = ends[ends > 256]
    served = transfer_matrix(levels, width) @ (share / levels.log_width) * 2.7
    rows, start = [], 0
    for end in ends:
        inverse = np.log(end / start) / (end - start) / served if start else 1 / (end * served)
        mean = floor + fresh * inverse + step * rate / batch
        for i in np.flatnonzero(share):
            count = max(int(share[i] * (end - start)), 2)
            noise = spread * rng.standard_normal() / np.sqrt(count)
            variance = spread**2 * rng.chisquare(count - 1) / (count - 1)
            rows.append((start, end, levels.sigma[i], count, mean[i] + noise, variance, rate, batch))
        start = end
    return rows


def write(path, runs):
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["run", "start", "end", "sigma", "examples", "loss", "variance", "learning_rate", "batch"])
        out.writerows([i, *row] for i, rows in enumerate(runs) for row in rows)
    return path


def test_floor_and_both_noises_are_recovered_with_calibrated_errors(tmp_path):
    rng = np.random.default_rng(1)
    inside, repeats = np.zeros(3), 200 if FULL else 80
    truth = np.stack([FLOOR, FRESH, STEP])
    for i in range(repeats):
        runs = [pilot(rng, total=t, rate=r) for t, r in ((20_000, 0.1), (20_000, 0.4), (80_000, 0.1), (80_000, 0.4))]
        found = co.learning_curves(
            write(tmp_path / "log.csv", runs), levels=LEVELS, transfer=0.0, bootstrap=co.Bootstrap(repeats=60), seed=i
        )
        value = np.stack([found.bayes_floor, found.reducible, found.step_noise])
        error = np.stack([found.bayes_floor_error, found.reducible_error, found.step_noise_error])
        inside += np.mean(np.abs(value - truth) < 1.96 * error, axis=1)
    print("coverage of 95 % intervals:", inside / repeats)
    assert np.all(np.abs(inside / repeats - 0.945) <= 0.045)


def test_with_one_learning_rate_the_floor_holds_the_step_noise_and_says_so(tmp_path):
    path = write(tmp_path / "log.csv", [pilot(np.random.default_rng(0), total=100_000, spread=1e-3)])
    found = co.learning_curves(path, levels=LEVELS)
    assert np.all(found.step_noise == 0)
    assert any("one learning rate only" in note for note in found.notes)
    np.testing.assert_allclose(found.bayes_floor, FLOOR + STEP * 0.1 / 8, rtol=1e-3)
    np.testing.assert_allclose(found.reducible, FRESH, rtol=1e-2)
    assert np.isnan(found.transfer_width)
    assert any("one density" in note for note in found.notes)


def test_averaged_losses_give_the_reducible_part_and_last_iterates_the_step_noise(tmp_path):
    rng = np.random.default_rng(0)
    none = np.zeros(4)
    kinds = {1: (FLOOR, FRESH, none), 0: (FLOOR, none, STEP)}
    with (path := tmp_path / "log.jsonl").open("w") as file:
        for averaged, law in kinds.items():
            for row in pilot(rng, total=50_000, law=law, spread=1e-3):
                names = ["start", "end", "sigma", "examples", "loss", "variance", "learning_rate", "batch"]
                values = dict(zip(names, map(float, row), strict=True))
                file.write(json.dumps(values | {"averaged": averaged, "run": f"r{averaged}"}) + "\n")
    found = co.learning_curves(path, levels=LEVELS, transfer=0.0)
    np.testing.assert_allclose(found.reducible, FRESH, rtol=3e-2)
    np.testing.assert_allclose(found.step_noise, STEP, rtol=3e-2)


def test_levels_are_numerics_finer_bins_give_the_same_noise(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for number in (4, 16):
        levels = co.Levels.log_uniform(0.1, 10.0, number)
        law = (np.ones(number), np.full(number, 50.0), np.zeros(number))
        rows = pilot(rng, total=100_000, levels=levels, law=law, share=np.full(number, 1 / number), spread=1e-3)
        found.append(co.learning_curves(write(tmp_path / "log.csv", [rows]), levels=levels).reducible)
    np.testing.assert_allclose(found[0], 50.0, rtol=0.01)
    np.testing.assert_allclose(found[1], 50.0, rtol=0.03)


SHARES = {"low": (0.5, 0.3, 0.1, 0.05, 0.03, 0.02), "high": (0.02, 0.03, 0.05, 0.1, 0.3, 0.5), "even": (1 / 6,) * 6}


def pilots_with_transfer(seed, names, width=0.6):
    rng = np.random.default_rng(seed)
    levels = co.Levels.log_uniform(0.05, 20.0, 6)
    law = (np.linspace(4.2, 7, 6), np.array([80.0, 70.0, 60.0, 50.0, 60.0, 70.0]), np.zeros(6))
    return levels, [pilot(rng, total=50_000, levels=levels, law=law, share=SHARES[n], width=width) for n in names]


@pytest.mark.slow
def test_pilots_at_several_densities_tell_how_far_examples_teach(tmp_path):
    error = []
    for seed in range(12):
        levels, runs = pilots_with_transfer(seed, ("low", "high", "even"))
        found = co.learning_curves(write(tmp_path / "log.csv", runs), levels=levels, bootstrap=co.Bootstrap(repeats=20))
        error.append((found.transfer_width - 0.6) / found.transfer_error)
    print("transfer width, errors in standard errors:", np.round(error, 2))
    assert np.max(np.abs(error)) < 3.5
    assert abs(np.mean(error)) < 3 / np.sqrt(12)
    assert 0.3 < np.std(error) < 1.8


def test_without_transfer_the_width_is_near_zero_and_of_equal_densities_nothing_is_said(tmp_path):
    levels, runs = pilots_with_transfer(0, ("low", "high", "even"), width=0.0)
    found = co.learning_curves(write(tmp_path / "log.csv", runs), levels=levels)
    assert found.transfer_width < 3 * found.transfer_error
    levels, runs = pilots_with_transfer(0, ("low", "low"))
    found = co.learning_curves(write(tmp_path / "log.csv", runs), levels=levels)
    assert np.isnan(found.transfer_width)
    assert any("too alike" in note for note in found.notes)


def test_rows_that_are_cumulative_are_read_as_such(tmp_path):
    rows = pilot(np.random.default_rng(0), total=50_000, share=(0.25,) * 4, spread=1e-3)
    per_row, cumulative = tmp_path / "a.csv", tmp_path / "b.csv"
    per_row.write_text("examples,sigma,loss\n" + "".join(f"{(r[1] - r[0]) / 4},{r[2]},{r[4]}\n" for r in rows))
    cumulative.write_text("examples,sigma,loss\n" + "".join(f"{r[1]},{r[2]},{r[4]}\n" for r in rows))
    a = co.learning_curves(per_row, levels=LEVELS)
    b = co.learning_curves(cumulative, levels=LEVELS, reading=co.LogReading("cumulative"))
    np.testing.assert_allclose(b.reducible, FRESH, rtol=0.02)
    np.testing.assert_allclose(a.reducible, b.reducible, rtol=0.05)


def test_a_weighted_loss_is_unweighed(tmp_path):
    rows = pilot(np.random.default_rng(0), total=50_000)
    plain = co.learning_curves(write(tmp_path / "a.csv", [rows]), levels=LEVELS)
    weighted = [(*r[:4], r[4] / r[2] ** 2, r[5] / r[2] ** 4, *r[6:]) for r in rows]
    path = write(tmp_path / "b.csv", [weighted])
    found = co.learning_curves(path, levels=LEVELS, reading=co.LogReading(weight=lambda sigma: sigma**-2.0))
    np.testing.assert_allclose(found.reducible, plain.reducible, rtol=1e-9)
    np.testing.assert_allclose(found.reducible_error, plain.reducible_error, rtol=1e-9)


def test_limits_are_named(tmp_path):
    rng = np.random.default_rng(0)
    rows = pilot(rng, total=50_000)
    varying = [(*r[:6], 0.1 / (1 + r[0] / 1000), 8) for r in rows]
    with pytest.raises(ValueError, match="learning_rate varies from"):
        co.learning_curves(write(tmp_path / "a.csv", [varying]), levels=LEVELS)
    text = write(tmp_path / "b.csv", [rows]).read_text().splitlines()
    (tmp_path / "b.csv").write_text("\n".join([text[0] + ",ema", *(line + ",0.999" for line in text[1:])]))
    assert any("moving average" in note for note in co.learning_curves(tmp_path / "b.csv", levels=LEVELS).notes)
    wide = co.Levels.log_uniform(0.01, 10.0, 6)
    found = co.learning_curves(write(tmp_path / "c.csv", [rows]), levels=wide)
    assert any("levels without data" in note and "0.0178" in note for note in found.notes)
    assert found.sigma.size == 4
    with pytest.raises(ValueError, match="two different numbers of examples"):
        co.learning_curves(write(tmp_path / "d.csv", [rows[-4:]]), levels=LEVELS)


def test_a_wrong_curve_is_noted_and_whole_runs_can_be_resampled(tmp_path):
    rng = np.random.default_rng(3)
    bent = [[(*r[:4], r[4] + 3 * np.exp(-r[1] / 2e4), *r[5:]) for r in pilot(rng, total=100_000)] for _ in range(4)]
    found = co.learning_curves(write(tmp_path / "a.csv", bent), levels=LEVELS, transfer=0.0)
    assert found.misfit.max() > 3
    assert any("raise LogReading.burn_in" in note for note in found.notes)
    by_run = co.learning_curves(tmp_path / "a.csv", levels=LEVELS, transfer=0.0, bootstrap="runs")
    np.testing.assert_array_equal(by_run.reducible, found.reducible)
    with pytest.raises(ValueError, match=r"Bootstrap\.repeats is 1"):
        co.Bootstrap(repeats=1)
    with pytest.raises(ValueError, match="three are needed"):
        co.learning_curves(write(tmp_path / "b.csv", bent[:2]), levels=LEVELS, bootstrap="runs")


def test_resampling_runs_sees_what_runs_have_in_common(tmp_path):
    """Every run is shifted by its own amount at all windows: rows are not independent, runs are."""
    values, errors = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        runs = [
            [(*r[:4], r[4] + shift * r[2] ** 0, *r[5:]) for r in pilot(rng, total=20_000)]
            for shift in rng.normal(0, 0.3, 6)
        ]
        path = write(tmp_path / "a.csv", runs)
        found = co.learning_curves(path, levels=LEVELS, transfer=0.0, bootstrap=co.Bootstrap("runs", repeats=60))
        values.append(found.bayes_floor[2])
        errors.append(found.bayes_floor_error[2])
    assert 0.7 < np.mean(errors) / np.std(values) < 1.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("examples,sigma\n1,2\n", "'loss' is missing"),
        ("examples,sigma,loss\n1,2,nan\n", "line 2: 'loss' is nan"),
        ("examples,sigma,loss\n1,2,1\n1,-2,1\n", "line 3: 'sigma' is -2"),
        ("examples,sigma,loss\n-1,2,1\n", "'examples' is -1"),
        ("examples,sigma,loss\n", "no rows"),
        ("examples,sigma,loss,learning_rate\n1,2,1,fast\n", "'learning_rate' holds entries that are not numbers"),
    ],
)
def test_bad_logs_are_refused_by_name(tmp_path, text, message):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        co.learning_curves(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"burn_in": 1.0}, r"LogReading\.burn_in is 1"),
        ({"transfer": -1.0}, "transfer is -1"),
        ({"smoothing": "mean"}, "smoothing is 'mean'"),
        ({"examples": "total"}, r"LogReading\.examples is 'total'"),
        ({"bootstrap": "columns"}, "bootstrap is 'columns'"),
        ({"log_width": 0.0}, "log_width is 0"),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate has 2 entries for 1 runs"),
        ({"weight": -1.0}, "weight must be positive"),
    ],
)
def test_bad_options_are_refused_by_name(tmp_path, options, message):
    path = write(tmp_path / "log.csv", [pilot(np.random.default_rng(0), total=20_000)])
    names = ("burn_in", "examples", "learning_rate", "weight")
    of_the_log = {name: value for name, value in options.items() if name in names}
    others = {name: value for name, value in options.items() if name not in names}
    with pytest.raises(ValueError, match=message):
        co.learning_curves(path, **others, reading=co.LogReading(**of_the_log))


def test_curves_are_saved_loaded_and_printed(tmp_path):
    found = co.learning_curves(write(tmp_path / "log.csv", [pilot(np.random.default_rng(0), total=20_000)]))
    found.save(tmp_path / "curves.json")
    again = co.LearningCurves.load(tmp_path / "curves.json")
    for name in ("sigma", "bayes_floor", "reducible", "reducible_error", "misfit"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert str(again) == str(found)
    old = json.loads((tmp_path / "curves.json").read_text()) | {"transfer_widths": [0.0], "transfer_chi2": [1.0]}
    assert str(co.LearningCurves.load(write_json(tmp_path / "old.json", old))) == str(found)  # of version 0.1.0
    assert "kappa1" in str(found)
    with pytest.raises(ValueError, match="no learning curves"):
        co.LearningCurves.load(write_json(tmp_path / "other.json", {"a": 1}))


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spline", "tv"])
def test_smoothing_lowers_the_error_and_fills_zeros(method):
    sigma = np.geomspace(0.01, 100, 30)
    logs = np.log(sigma)
    truth = np.exp(np.sin(logs / 2)) if method == "spline" else np.where(sigma < 1, 1.0, 5.0)
    before, after, within = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noisy = truth * np.exp(0.3 * rng.standard_normal(30))
        error = 0.3 * noisy
        noisy[11] = 0.0
        smooth, spread = smooth_across_levels(sigma, noisy, error, method)
        before.append(np.mean(np.delete(np.log(noisy + 1e-300) - np.log(truth), 11) ** 2))
        after.append(np.mean(np.log(smooth / truth) ** 2))
        within.append(np.mean(np.abs(smooth - truth) < 3 * spread + 0.1 * truth))
    print(method, "mean squared error of logarithms:", np.mean(before), "->", np.mean(after))
    assert np.mean(after) < 0.45 * np.mean(before)
    assert np.mean(within) > 0.85


def test_smoothing_of_learning_curves_is_an_explicit_choice(tmp_path):
    path = write(tmp_path / "log.csv", [pilot(np.random.default_rng(0), total=20_000)])
    raw = co.learning_curves(path, levels=LEVELS)
    smooth = co.learning_curves(path, levels=LEVELS, smoothing="spline")
    assert np.any(raw.reducible != smooth.reducible)
    assert smooth.smoothing == "spline"
    np.testing.assert_array_equal(raw.bayes_floor, smooth.bayes_floor)


def test_nonnegative_least_squares_meets_the_optimality_conditions():
    rng = np.random.default_rng(0)
    design, target, weight = rng.standard_normal((12, 3)), rng.standard_normal((50, 12)), rng.uniform(0.5, 2, 12)
    found = nonnegative_least_squares(design, target, weight)
    gradient = ((found @ design.T - target) * weight) @ design
    assert np.all(found >= 0)
    assert np.all(gradient > -1e-9)
    assert np.max(np.abs(gradient * found)) < 1e-9
