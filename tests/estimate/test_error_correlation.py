"""Errors of different noise levels: correlation lengths, and swaps of single levels of the sampler."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.draws.streams import normal
from codesign_opt.estimate.runs.run import BrownianPath, run
from codesign_opt.estimate.training_errors.correlation import ErrorGram, jackknife
from codesign_opt.estimate.training_errors.error_coupling import Starts, Swap, error_gram
from tests.helpers.known_errors import F64, covered, flawed, wiener

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


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(eta=0.7)], ids=repr)
def test_single_level_swaps_are_the_derivative_of_the_exact_sampler(sampler):
    """A linear error moves the terminal amplitude; the derivative by each block's gain is taken by differences."""
    grid = co.edm_grid(6, 0.05, 10.0)
    starts, swap = Starts((3,), draws=6, batch=4, like=F64), Swap(fraction=1e-5)
    found = error_gram(wiener, flawed, sampler, grid, starts, swap=swap, seed=3)
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
    found = error_gram(wiener, others, co.Euler(), grid, Starts((3,), draws=4, like=F64), swap=Swap(unit="replica"))
    assert found.units.shape == (4, 4, 4)
    np.testing.assert_allclose(found.units[1] / found.units[0], 4.0, rtol=0.1)
    with pytest.raises(ValueError, match=r"Swap\.unit is 'replica' with 1 others"):
        error_gram(wiener, flawed, co.Euler(), grid, Starts((3,)), swap=Swap(unit="replica"))
    with pytest.raises(ValueError, match=r"never evaluates the denoiser between sigma"):
        error_gram(wiener, flawed, co.Euler(), grid, Starts((3,), draws=2, like=F64), swap=Swap(levels=30))
    with pytest.raises(ValueError, match=r"has no terminal response \(4 of 4 levels\)"):
        error_gram(wiener, wiener, co.Euler(), grid, Starts((3,), draws=2, like=F64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Starts((3,), draws=1), r"Starts\.draws is 1; it must be >= 2"),
        (lambda: Starts((3, 0)), r"Starts\.shape is 0"),
        (lambda: Starts((3,), batch=0), r"Starts\.batch is 0"),
        (lambda: Swap(levels=0), r"Swap\.levels is 0"),
        (lambda: Swap(fraction=1.5), r"Swap\.fraction is 1\.5; it must be <= 1"),
        (lambda: Swap(unit="run"), r"Swap\.unit is 'run'"),
    ],
)
def test_starts_and_swaps_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_killed_gram_goes_on_with_the_same_result_and_another_question_is_refused(tmp_path):
    options = {"starts": Starts((3,), draws=8, batch=1, like=F64), "seed": 5}
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
