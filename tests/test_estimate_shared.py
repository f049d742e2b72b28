"""Shared parameters: correlation of errors, transfer between levels, information of a network's parameters."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.error_coupling import ErrorGram, error_gram, jackknife
from codesign_opt.estimate.sampling import BrownianPath, run
from codesign_opt.estimate.streams import normal
from codesign_opt.estimate.transfer import TransferKernel, information_overlap, kernel_matrix, teaching_shares

ROOT = Path(co.__file__).parent.parent
F64 = torch.zeros((), dtype=torch.float64)
WIDE = co.Levels.log_uniform(np.exp(-5.0), np.exp(5.0), 40)
LENGTH = 0.8
SHAPES = {  # correlation at a distance, and its two-sided integral
    "exponential": (lambda d: np.exp(-np.abs(d) / LENGTH), 2 * LENGTH),
    "gaussian": (lambda d: np.exp(-0.5 * (d / LENGTH) ** 2), np.sqrt(2 * np.pi) * LENGTH),
}


def correlated_fields(shape, rng, units=40, entries=8, amplitude=1.0):
    place = np.log(WIDE.sigma)
    root = np.linalg.cholesky(SHAPES[shape][0](place[:, None] - place) + 1e-10 * np.eye(place.size))
    return amplitude * (root @ rng.standard_normal((units, place.size, entries)))


def covered(values, errors, truth):
    return float(np.mean(np.abs(np.asarray(values) - truth) <= 1.96 * np.asarray(errors)))


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_length_is_the_two_sided_integral_with_calibrated_standard_errors(shape):
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        gram = ErrorGram.from_fields(correlated_fields(shape, rng), WIDE)
        found.append(gram.correlation_length())
    integral = SHAPES[shape][1]
    place, width = np.log(WIDE.sigma), WIDE.log_width
    exact = SHAPES[shape][0](place[:, None] - place)  # the bins' sum, cut with the range
    assert (exact @ width)[20] == pytest.approx(integral, rel=0.01)
    mean = exact.sum() * width[0] / place.size
    centre = [(f.local.value[20], f.local.standard_error[20]) for f in found]
    for values, truth in (
        (centre, (exact @ width)[20]),
        ([(f.overall.value, f.overall.standard_error) for f in found], mean),
        ([(f.gram.value, f.gram.standard_error) for f in found], mean),
    ):
        value, error = np.array(values).T
        assert 0.90 <= covered(value, error, truth) <= 0.99
        assert value.mean() == pytest.approx(truth, abs=3.5 * value.std() / np.sqrt(200) + 0.01 * truth)
    value, error = np.array(centre).T
    assert abs(value[0] - integral) <= 3 * error[0] + 0.01 * integral


def test_gram_length_gives_the_coherent_sum_whatever_the_amplitudes():
    amplitude = np.exp(-0.5 * np.log(WIDE.sigma) ** 2)[None, :, None]
    gram = ErrorGram.from_fields(correlated_fields("exponential", np.random.default_rng(1), amplitude=amplitude), WIDE)
    length = gram.correlation_length()
    squares = float(np.sum(np.diag(gram.gram) / WIDE.log_width))
    assert float(length.gram.value) * squares == pytest.approx(float(gram.sums()["linear"].value), rel=1e-12)
    assert float(length.gram.value) < float(length.overall.value)
    assert length.coupling().log_width == pytest.approx(float(length.gram.value))
    local = length.coupling("local", form="p4")
    np.testing.assert_allclose(local.lengths(WIDE), np.maximum(length.local.value, length.overall.value / 30))
    distance, correlation = gram.by_distance()
    np.testing.assert_allclose(distance[:4], [0, 0.25, 0.5, 0.75], atol=1e-12)
    away = np.abs(correlation.value[:8] - np.exp(-distance[:8] / LENGTH))
    assert np.all(away <= 3.5 * correlation.standard_error[:8] + 1e-12)


def test_jackknife_of_a_mean_is_its_textbook_standard_error():
    units = np.random.default_rng(2).standard_normal((30, 3))
    found = jackknife(lambda mean: mean, units)
    np.testing.assert_allclose(found.standard_error, units.std(axis=0, ddof=1) / np.sqrt(30), rtol=1e-12)


LAM = torch.tensor([2.0, 0.5, 0.05], dtype=torch.float64)


def wiener(x, sigma, gain=0.0):
    return x * LAM / (LAM + sigma[:, None] ** 2) * (1 + gain)


def flawed(x, sigma):
    """Relative error of the gain that changes sign at sigma = 1, different in the three directions."""
    wave = torch.tanh(torch.log(sigma))[:, None] * torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    return wiener(x, sigma, 0.05 * wave)


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(eta=0.7)], ids=repr)
def test_single_level_swaps_are_the_derivative_of_the_exact_sampler(sampler):
    """A linear error moves the terminal amplitude; the derivative by each block's gain is taken by differences."""
    grid = co.edm_grid(6, 0.05, 10.0)
    found = error_gram(wiener, flawed, sampler, grid, shape=(3,), draws=6, batch=4, swap=1e-5, like=F64, seed=3)
    levels, moved = found.levels, []
    x = torch.stack([10.0 * normal(3, "gram start", n, shape=(3,), like=F64) for n in range(4)])
    path = BrownianPath(3, ("gram noise", 0), 10.0, 0.05)

    def terminal(block, sign):
        def denoise(y, sigma):
            inside = int(np.searchsorted(levels.edges[1:-1], float(sigma[0]))) == block
            return wiener(y, sigma) + sign * 1e-3 * (flawed(y, sigma) - wiener(y, sigma)) * inside

        return run(denoise, sampler, grid, x, path)

    for block in range(len(levels)):
        moved.append((terminal(block, 1.0) - terminal(block, -1.0)) / 2e-3)
    fields = torch.stack(moved, dim=1).numpy()
    np.testing.assert_allclose(found.units[:4], fields @ fields.transpose(0, 2, 1), rtol=2e-3, atol=1e-9)
    assert found.gram.min() < 0  # the error changes sign
    together = found.sums()
    assert together["together"].value == pytest.approx(float(together["linear"].value), rel=1e-3)


def test_replicas_are_units_of_their_own_and_few_are_refused():
    others = [lambda x, s, g=g: wiener(x, s, g) for g in (0.01, -0.02, 0.03, 0.01)]
    grid = co.edm_grid(4, 0.1, 5.0)
    found = error_gram(wiener, others, co.Euler(), grid, shape=(3,), draws=4, unit="replica", like=F64)
    assert found.units.shape == (4, 4, 4)
    np.testing.assert_allclose(found.units[1] / found.units[0], 4.0, rtol=0.1)
    with pytest.raises(ValueError, match=r"error_gram.unit is 'replica' with 1 others"):
        error_gram(wiener, flawed, co.Euler(), grid, shape=(3,), unit="replica")
    with pytest.raises(ValueError, match=r"never evaluates the denoiser between sigma"):
        error_gram(wiener, flawed, co.Euler(), grid, shape=(3,), levels=30, draws=2, like=F64)
    with pytest.raises(ValueError, match=r"has no terminal response \(4 of 4 levels\)"):
        error_gram(wiener, wiener, co.Euler(), grid, shape=(3,), draws=2, like=F64)


def test_a_killed_gram_goes_on_with_the_same_result_and_another_question_is_refused(tmp_path):
    options = {"shape": (3,), "draws": 8, "batch": 1, "like": F64, "seed": 5}
    grid = co.edm_grid(4, 0.1, 5.0)
    whole = error_gram(wiener, flawed, co.Euler(), grid, **options)
    calls = [0]

    def dying(x, sigma):
        calls[0] += 1
        if calls[0] > 70:
            raise KeyboardInterrupt
        return wiener(x, sigma)

    with pytest.raises(KeyboardInterrupt):
        error_gram(dying, flawed, co.Euler(), grid, folder=tmp_path, **options)
    assert [p.name for p in tmp_path.glob("draws-*")] == ["draws-0.npz"]
    resumed = error_gram(wiener, flawed, co.Euler(), grid, folder=tmp_path, **options)
    np.testing.assert_array_equal(resumed.units, whole.units)
    assert resumed.evaluations == whole.evaluations
    with pytest.raises(ValueError, match="holds results for seed = 5, not 6"):
        error_gram(wiener, flawed, co.Euler(), grid, folder=tmp_path, **{**options, "seed": 6})


TWO = """
import os, sys, numpy as np, torch, torch.distributed as dist
sys.path.insert(0, "tests")
from test_estimate_shared import jobs
rank = int(os.fork() == 0)  # one import for both
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
np.savez(f"{sys.argv[1]}/{rank}.npz", **jobs())
dist.destroy_process_group()
if rank == 0:
    assert os.wait()[1] == 0
"""


def jobs():
    """What one and two processes must agree on."""
    grid = co.edm_grid(4, 0.1, 5.0)
    gram = error_gram(wiener, flawed, co.Heun(), grid, shape=(3,), draws=20, batch=3, like=F64)
    return {"units": gram.units, "together": gram.together, "evaluations": gram.evaluations}


def test_two_processes_give_the_result_of_one(tmp_path):
    subprocess.run([sys.executable, "-c", TWO, str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    one = jobs()
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as two:
            for name, value in one.items():
                np.testing.assert_allclose(two[name], value, rtol=1e-10, atol=1e-14)


LEVELS = co.Levels.log_uniform(np.exp(-3.0), np.exp(3.0), 24)


def lognormal(mean, std):
    place = np.log(LEVELS.sigma)
    return 1e5 * np.exp(-0.5 * ((place - mean) / std) ** 2) / std + 1.0


def test_transfer_width_of_pilots_is_found_with_calibrated_standard_errors():
    rng, densities = np.random.default_rng(3), np.array([lognormal(-1.0, 0.9), lognormal(1.0, 0.9)])
    level_cost = np.exp(rng.standard_normal(24))
    truth = level_cost / (densities @ kernel_matrix(0.6, LEVELS).T)
    plain, known, repeated = [], [], []
    for _ in range(200):
        noise = np.exp(0.2 * rng.standard_normal((1, 2, 24)))
        plain.append(TransferKernel.from_pilots(truth * noise[0], densities, LEVELS))
        errors = 0.2 * truth
        known.append(TransferKernel.from_pilots(truth * noise[0], densities, LEVELS, standard_errors=errors))
    for kernels in (plain, known):
        width, error = np.array([(k.width, k.standard_error) for k in kernels]).T
        assert 0.90 <= covered(width, error, 0.6) <= 0.99
        assert width.mean() == pytest.approx(0.6, abs=3.5 * width.std() / np.sqrt(200) + 0.005)
    for _ in range(10):
        noise = np.exp(0.2 * rng.standard_normal((8, 2, 24)))
        repeated.append(TransferKernel.from_pilots(truth * noise, densities, LEVELS))
    pulls = [(k.width - 0.6) / k.standard_error for k in repeated]
    assert np.abs(pulls).max() < 4
    with pytest.raises(ValueError, match="proportional"):
        TransferKernel.from_pilots(truth, np.stack([densities[0], 2 * densities[0]]), LEVELS)


def bump_features(rng, width, groups=6, rows=12, knots=160):
    """White features on a fine axis seen through a window of the given width: cos^2 is the Gaussian overlap."""
    axis, place = np.linspace(-8, 8, knots), np.log(LEVELS.sigma)
    window = np.exp(-0.5 * ((place[:, None] - axis) / width) ** 2)
    scale = 1 + 0.3 * rng.standard_normal((1, LEVELS.sigma.size, rows, 1))  # how much each level has to say
    return np.repeat(scale * window[None, :, None, :], groups, axis=0)


def test_transfer_width_of_features_is_that_of_their_window():
    """phi(u) = exp(-u^2 / (2 width^2)) gives cos = exp(-d^2 / (4 width^2)) and overlap cos^2."""
    features = bump_features(np.random.default_rng(4), 0.6)
    place = np.log(LEVELS.sigma)
    exact = np.exp(-0.5 * ((place[:, None] - place) / 0.6) ** 2)
    np.testing.assert_allclose(information_overlap(features), exact, atol=1e-6)
    found = TransferKernel.from_features(features, LEVELS.sigma)
    assert found.width == pytest.approx(0.6, abs=1e-5)
    assert found.misfit < 1e-6


def test_overlap_of_noisy_features_has_no_bias_from_their_own_noise():
    rng, count = np.random.default_rng(5), 6
    mixing = [np.eye(5) + 0.5 * rng.standard_normal((5, 5)) for _ in range(count)]
    exact = np.array([[np.sum((a.T @ a) * (b.T @ b)) for b in mixing] for a in mixing])
    own = np.sqrt(np.diag(exact))
    exact = exact / own / own[:, None]
    features = np.stack([[rng.standard_normal((40, 5)) @ m / np.sqrt(40) for m in mixing] for _ in range(200)])
    parts = np.array([information_overlap(features[i : i + 10]) for i in range(0, 200, 10)])
    error = parts.std(axis=0, ddof=1) / np.sqrt(20)
    off = ~np.eye(count, dtype=bool)
    assert np.all(np.abs(parts.mean(axis=0) - exact)[off] <= 4 * error[off] + 2e-3)


def test_teaching_shares_are_the_derivative_of_each_levels_error():
    rng = np.random.default_rng(6)
    features = rng.standard_normal((5, 3, 4))
    term = co.InformationError(features, np.eye(4), sigma=np.geomspace(0.1, 10, 5), residual_variance=2.0)
    examples = np.array([10.0, 40.0, 20.0, 5.0, 30.0])

    def errors(m):
        inverse = np.linalg.inv(term.information(m))
        return np.einsum("lkp,pq,lkq->l", term.roots, inverse, term.roots)

    shares = teaching_shares(term, examples)
    for l in range(5):
        up, down = examples.copy(), examples.copy()
        up[l], down[l] = up[l] * 1.0001, down[l] / 1.0001
        slope = (np.log(errors(down)) - np.log(errors(up))) / (2 * np.log(1.0001))
        np.testing.assert_allclose(shares[:, l], slope, rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)


def test_transfer_width_of_information_orders_narrow_and_wide_features():
    widths = []
    for spread in (0.3, 0.9):
        knots = np.linspace(-3.5, 3.5, 29)
        features = np.exp(-0.5 * ((np.log(LEVELS.sigma)[:, None] - knots) / spread) ** 2)[:, None, :]
        prior = 1e-6 * np.eye(29)
        term = co.InformationError(features, features[:, 0].T, sigma=LEVELS.sigma, prior=prior)
        widths.append(TransferKernel.from_information(term, np.full(24, 1e3)).width)
    assert widths[0] < widths[1]
