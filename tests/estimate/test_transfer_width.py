"""How far training at one noise level reaches others: widths with calibrated standard errors."""

import os

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.estimate.training_errors.transfer import (
    TransferKernel,
    information_overlap,
    kernel_matrix,
    teaching_shares,
)
from tests.helpers.known_errors import covered

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

LEVELS = co.Levels.log_uniform(np.exp(-3.0), np.exp(3.0), 24)


def lognormal(mean, std):
    place = np.log(LEVELS.sigma)
    return 1e5 * np.exp(-0.5 * ((place - mean) / std) ** 2) / std + 1.0


def test_transfer_width_of_pilots_is_found_with_calibrated_standard_errors():
    rng, densities = np.random.default_rng(3), np.array([lognormal(-1.0, 0.9), lognormal(1.0, 0.9)])
    level_cost = np.exp(rng.standard_normal(24))
    truth = level_cost / (densities @ kernel_matrix(0.6, LEVELS).T)
    plain, known = [], []
    for repeat in range(repeats := 200 if FULL else 100):
        errors = truth * np.exp(0.2 * rng.standard_normal((2, 24)))
        plain.append(TransferKernel.from_pilots(errors, densities, LEVELS))
        if repeat < 20:
            known.append(TransferKernel.from_pilots(errors, densities, LEVELS, standard_errors=0.2 * truth))
    width, error = np.array([(k.width, k.standard_error) for k in plain]).T
    assert 0.90 <= covered(width, error, 0.6) <= 0.99
    assert width.mean() == pytest.approx(0.6, abs=3.5 * width.std() / np.sqrt(repeats) + 0.005)
    assert np.mean([k.standard_error for k in known]) == pytest.approx(width.std(), rel=0.25)
    noise = np.exp(0.2 * rng.standard_normal((8, 2, 24)))
    repeated = TransferKernel.from_pilots(truth * noise, densities, LEVELS)
    assert abs(repeated.width - 0.6) <= 4 * repeated.standard_error
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
