"""The saturating law a / (m + m0) against ridge regression that is simulated, from no example up."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2

import codesign_opt as co
from codesign_opt.samplers.terminal import terminal_weight
from codesign_opt.training.base import TrainingNoise

SPECTRA = {  # eigenvalues and counts: flat, two bands far apart, a power law
    "flat": (np.array([1.5]), np.array([16.0])),
    "two": (np.array([1.0, 0.01]), np.array([4.0, 60.0])),
    "power law": (np.arange(1.0, 9.0) ** -1.5, np.ones(8)),
}
STOP = 0.01
RUNS = ((0, 1), (1, 4000), (3, 2000), (10, 1000), (100, 200), (10_000, 40))  # examples, and how often they are drawn
LAWS = {
    "x0": co.AveragedSGD(prior="untrained"),
    "edm": co.AveragedSGD(prior="untrained", parameterization="edm", sigma_data=0.3),
    "eps": co.AveragedSGD(prior="untrained", parameterization="eps"),
    "v": co.AveragedSGD(prior="untrained", parameterization="v"),
}
SKIPS = {
    "x0": lambda s: 0.0,
    "eps": lambda s: 1.0,
    "v": lambda s: 1 / (1 + s**2),
    "edm": lambda s: 0.09 / (s**2 + 0.09),
}


def weights(lam, n, sigma, terminal="rescale"):
    """(B,) squared terminal error per squared error of each band's denoiser: n P / sigma^2 of the ODE (section 4)."""
    return n * terminal_weight(lam, STOP, terminal) / sigma**2


def law(training, lam, n, sigma, m, terminal="rescale"):
    known = (lam, n, [sigma], STOP)
    a = training.reducible(*known, terminal=terminal)[0]
    return 1 / (m / a + 1 / training.untrained(*known, terminal=terminal)[0])


def simulated(lam, skip, sigma, m, m0, runs, seed, *, known):
    """(runs, B) squared errors of the slopes that ridge regression learns from m pairs, shrunk to `skip` by m0."""
    rng = np.random.default_rng(seed)
    v, best = lam + sigma**2, lam / (lam + sigma**2)
    products, squares = np.zeros((runs, lam.size)), np.zeros((runs, lam.size))
    clean = np.sqrt(lam) * rng.standard_normal((runs, m, lam.size))
    noisy = clean + sigma * rng.standard_normal((runs, m, lam.size))
    left = clean - best * noisy
    if known and m:  # inputs of exactly their second moment; what is left does not depend on the inputs
        noisy = noisy * np.sqrt(m * v / (noisy**2).sum(axis=1, keepdims=True))
        clean = best * noisy + left
    products, squares = (noisy * clean).sum(axis=1), (noisy**2).sum(axis=1)
    return ((products + m0 * v * skip) / (squares + m0 * v) - best) ** 2


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_ridge_regression_of_known_second_moment_leaves_the_law_within_four_standard_errors(spectrum, name):
    lam, n = SPECTRA[spectrum]
    for seed, sigma in enumerate((0.05, 0.7, 8.0)):
        weight, skip = weights(lam, n, sigma), SKIPS[name](sigma)
        a = LAWS[name].reducible(lam, n, [sigma], STOP, terminal="rescale")[0]
        m0 = a / float(weight @ (skip - lam / (lam + sigma**2)) ** 2)  # the shrinkage of the least error
        for m, runs in RUNS if name == "x0" else RUNS[:4]:
            errors = simulated(lam, skip, sigma, m, m0, runs, seed, known=True) @ weight
            spread = 4 * float(errors.std()) / np.sqrt(runs)
            expected = law(LAWS[name], lam, n, sigma, m)
            assert abs(errors.mean() - expected) <= spread + 1e-12 * expected
            assert expected <= law(LAWS[name], lam, n, sigma, 0)
            # no other strength of the prior does better
            assert expected <= (a * m + (2 * m0) ** 2 * a / m0) / (m + 2 * m0) ** 2 * (1 + 1e-12)


@pytest.mark.cases(1)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_inputs_of_random_second_moment_leave_the_stated_ratio_more_and_never_more_than_no_training(spectrum):
    lam, n = SPECTRA[spectrum]
    place = (np.arange(20_000) + 0.5) / 20_000
    for seed, sigma in enumerate((0.05, 0.7, 8.0)):
        weight, training = weights(lam, n, sigma), LAWS["x0"]
        start = law(training, lam, n, sigma, 0)
        m0 = training.reducible(lam, n, [sigma], STOP, terminal="rescale")[0] / start
        for m in (1, 3, 10, 100):
            runs = 2000 if m < 100 else 200
            errors = simulated(lam, 0.0, sigma, m, m0, runs, seed, known=False) @ weight
            ratio = (m + m0) * float(np.mean(1 / (chi2(m).ppf(place) + m0)))
            expected = ratio * law(training, lam, n, sigma, m)
            assert abs(errors.mean() - expected) <= 4 * float(errors.std()) / np.sqrt(runs) + 2e-3 * expected
            assert expected <= start * (1 + 1e-9)
            if m >= 10:
                assert ratio == pytest.approx(1 + 2 * m / (m + m0) ** 2, rel=0.05)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_the_law_is_an_upper_model_of_bands_with_priors_of_their_own_within_ten_percent_from_ten_examples(terminal):
    sigma, lengths = np.geomspace(STOP, 80.0, 40), np.ones(40)
    for lam, n in SPECTRA.values():
        levels = sigma[:, None]
        a = n * terminal_weight(lam, STOP, terminal) * lam / (lam + levels**2) ** 2
        for m in (0, 1, 3, 10, 100, 10_000):
            own = (a / (m + levels**2 / lam)).sum(axis=1)
            pooled = np.array([law(LAWS["x0"], lam, n, s, m, terminal) for s in sigma])
            assert np.all(pooled >= own * (1 - 1e-12))
            total = float(lengths @ (pooled * sigma**2)) / float(lengths @ (own * sigma**2))
            assert total <= (1 + 1e-9 if m == 0 else 1.22 if m < 10 else 1.10)
            assert np.all(pooled <= own * (1 + 1e-9 if m == 0 else 1.7 if m < 10 else 1.13))


def test_the_closing_call_untrained_is_the_error_of_the_map_it_applies():
    lam, n, stop = np.array([2.0, 0.3]), np.array([1.0, 3.0]), 0.4
    for name, training in LAWS.items():
        roots, mean = training.untrained_output(lam, n, np.array([stop]), np.zeros(2))
        v = lam + stop**2
        # standard deviation of c_skip x against that of the right denoiser's lambda / v x
        truth = n @ (SKIPS[name](stop) * np.sqrt(v) - lam / np.sqrt(v)) ** 2
        assert float((roots**2).sum()) == pytest.approx(truth, rel=1e-12)
        assert mean[0] == 0.0


def test_a_mean_that_is_learned_is_missing_before_training():
    lam, n, power = np.array([1.0, 0.5]), np.array([2.0, 2.0]), np.array([0.3, 0.1])
    plain, learned = (co.AveragedSGD(prior="untrained", intercept=flag) for flag in (False, True))
    known = {"terminal": "rescale", "mean_power": power}
    more = learned.untrained(lam, n, [0.7], STOP, **known) - plain.untrained(lam, n, [0.7], STOP, **known)
    v = lam + 0.7**2
    assert more[0] == pytest.approx(float(power @ ((lam + STOP**2) / v)) / 0.7**2, rel=1e-12)


def test_each_node_of_a_grid_is_moved_by_the_untrained_denoiser_as_the_law_says():
    """Euler by hand: the denoiser of one node a little towards the untrained one."""
    spectrum = co.Spectrum.power_law(8, exponent=1.5)
    lam, n = spectrum.eigenvalues, spectrum.counts
    model = co.GaussianModel(spectrum, sampler=co.Euler(), training=LAWS["edm"])
    grid = co.edm_grid(7, 0.02, 40.0)

    def std(node, share):
        scale = np.full(lam.size, grid[0])
        for k, (s, t) in enumerate(pairwise(grid)):
            best = lam / (lam + s**2)
            weight = best + (share if k == node else 0.0) * (SKIPS["edm"](s) - best)
            scale = scale * (1 + (t - s) / s * (1 - weight))
        return scale

    errors = model.node_errors(grid)
    for node in range(7):
        slope = (std(node, 1e-6) - std(node, -1e-6)) / 2e-6
        assert errors.untrained[node] == pytest.approx(float(n @ slope**2), rel=1e-7)


def test_records_of_versions_that_knew_no_prior_mean_none():
    assert TrainingNoise.from_dict({"type": "AveragedSGD", "matrix": "full"}).prior is None
    again = TrainingNoise.from_dict(LAWS["edm"].to_dict())
    assert again == LAWS["edm"]
    with pytest.raises(ValueError, match=r"AveragedSGD\.prior is 'mean'"):
        co.AveragedSGD(prior="mean")
    with pytest.raises(ValueError, match=r"AveragedSGD\.parameterization"):
        co.AveragedSGD(parameterization="none")


def test_a_measured_law_ends_at_one_example_within_a_correlation_length():
    spectrum, sigma = co.Spectrum.power_law(4, exponent=1.0), np.array([0.1, 1.0, 10.0])
    model = co.EstimatedModel(
        sigma, responses=np.array([[0.1, 0.4, 0.2]]), truncation=np.array([1e-4, 1e-2, 1.0]), spectrum=spectrum,
        sensitivity=np.array([0.5, 0.2, 0.1]), error_variance=np.array([30.0, 300.0, 900.0]),
    )  # fmt: skip
    table = model.coefficients(0.1, levels=12)
    zero, ones = np.zeros(len(table.levels)), np.ones(len(table.levels))
    one = table.log_width / 2.7
    none, doubled = (co.ScoreError(table).levels_value(co.Point(m, zero, 1e9 * ones))[0] for m in (zero, one))
    np.testing.assert_allclose(none, table.example_error / one, rtol=1e-12)
    np.testing.assert_allclose(doubled, 0.5 * none, rtol=1e-12)
