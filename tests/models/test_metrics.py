"""Errors in other metrics: sampled laws, quadrature and finite differences, and optima of one's own."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

import codesign_opt as co
from codesign_opt.planning.question import Study

SPECTRUM = co.Spectrum([1.0, 0.2, 0.04], [1, 2, 3], [0.3, 0.1, 0.0])
GRID = co.edm_grid(7, 0.05, 20.0)
PRICES = co.Prices(1.0, 1.0, 100)


def model(metric, **options):
    return co.GaussianModel(SPECTRUM, co.EDM(0.01, 20.0), metric=metric, **{"sampler": co.Euler(), **options})


def kl_by_quadrature(first, second):
    """KL(first | second) of two (mean, std) in one dimension, by integration."""
    a, b = norm(*first), norm(*second)
    low, high = a.ppf(1e-14), a.isf(1e-14)
    return quad(lambda x: a.pdf(x) * (a.logpdf(x) - b.logpdf(x)), low, high, epsabs=1e-13, limit=200)[0]


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_kl_of_a_grid_is_the_integral_over_its_law(direction):
    own = model(co.KL(direction))
    law = own.sampler.terminal_law(GRID, SPECTRUM.eigenvalues, initial_variance=np.full(3, GRID[0] ** 2))
    total = 0.0
    for b, lam in enumerate(SPECTRUM.eigenvalues):
        shift = law.amplitude[b] * np.sqrt(SPECTRUM.mean_power[b])
        each = [(0.0, np.sqrt(lam)), (0.0, float(law.std[b]))]
        moved = [(0.0, np.sqrt(lam)), (float(shift), float(law.std[b]))]
        ends, first = (each, moved) if direction == "forward" else (each[::-1], moved[::-1])
        # one direction of the band carries all of its mean
        total += (SPECTRUM.counts[b] - 1) * kl_by_quadrature(*ends) + kl_by_quadrature(*first)
    assert own.bias(GRID) == pytest.approx(total, rel=1e-7)
    assert own.kl_divergence(GRID, reverse=direction == "reverse") == pytest.approx(total, rel=1e-7)


def test_feature_weights_of_a_matrix_are_the_squared_distance_of_features_under_common_draws():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 3))
    spectrum = co.Spectrum.from_eigenvalues([1.0, 0.2, 0.04])
    own = co.GaussianModel(spectrum, co.EDM(0.01, 20.0), sampler=co.Euler(),
                           metric=co.Features.of_matrix(features.T @ features, np.eye(3)))  # fmt: skip
    z = rng.normal(size=(200_000, 3))
    apart = (z * (own.terminal_std(GRID) - np.sqrt(spectrum.eigenvalues))) @ features.T
    squared = (apart**2).sum(axis=1)
    assert own.bias(GRID) == pytest.approx(squared.mean(), abs=4 * squared.std() / np.sqrt(z.shape[0]))


@pytest.mark.parametrize("metric", [co.Features(lambda lam: 1 / (0.1 + lam)), co.KL("forward"), co.KL("reverse")])
def test_score_error_is_the_second_order_of_the_metric_in_the_denoiser_s_weights(metric):
    """On a grid: each node's weights off by their standard deviation, one after the other, by finite differences."""
    own = model(metric, training=co.AveragedSGD(prior=None), start="mean")
    errors = own.node_errors(GRID).reducible
    nodes, lam = GRID[GRID > 0], SPECTRUM.eigenvalues
    weight = 1 / (0.1 + lam) if isinstance(metric, co.Features) else 1 / lam

    def output(move, at, band):
        """Standard deviation after Euler's steps with one weight moved, step by step."""
        std = nodes[0]
        for k, sigma in enumerate(nodes):
            w = lam[band] / (lam[band] + sigma**2) + (move if k == at else 0.0)
            after = nodes[k + 1] if k + 1 < nodes.size else 0.0
            std = std * (1 + (after - sigma) * (1 - w) / sigma)
        return std

    for at in (0, 3, nodes.size - 1):
        total = 0.0
        for b in range(3):
            slope = (output(1e-6, at, b) - output(-1e-6, at, b)) / 2e-6
            v = lam[b] + nodes[at] ** 2
            total += SPECTRUM.counts[b] * weight[b] * slope**2 * lam[b] * nodes[at] ** 2 / v**2
        assert errors[at] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("metric", [co.Features([0.0, 1.0, 30.0]), co.KL("forward")], ids=["features", "KL"])
def test_programs_are_certified_and_their_optimum_is_an_independent_one(metric):
    own = model(metric, training=co.AveragedSGD(prior=None), coupling=co.PerStep(0.5), start="mean")
    plan = Study(own, PRICES, 1e4, None, None, (), (), 10, 1e-8).solve(0.05)
    assert plan.certificate.optimal
    assert plan.measure == metric.measure
    table = own.coefficients(0.05, 10)
    lam, n = SPECTRUM.eigenvalues, SPECTRUM.counts
    weight = np.array([1e-12 * 30.0, 1.0, 30.0]) if isinstance(metric, co.Features) else 1 / lam
    s, stop, log_width = table.sigma, 0.05, table.log_width
    v, ends = lam[:, None] + s**2, lam**2 / (lam + stop**2)
    score = log_width**2 * s**2 * ((n * weight * ends * lam) @ (1 / v**2))
    rows = np.sqrt(n * weight * ends)[:, None] * log_width**2 * s**2 * lam[:, None] / (2 * v**2)
    last = stop**2 * np.sum(n * weight * lam / (lam + stop**2))

    def error(logs):
        m, k = np.exp(logs[: s.size]), np.exp(logs[s.size :])
        spent = m.sum() + 100 * k.sum()
        m, k = m * (1e4 - 100) / spent, k * (1e4 - 100) / spent
        return (
            np.sum(score * log_width / 0.5 / (m * k))
            + np.sum((rows / k).sum(axis=1) ** 2)
            + last / (table.final_window @ m)
        )

    start = np.log(np.concatenate([plan.examples, plan.steps]))
    start += np.random.default_rng(0).normal(size=start.size)
    best = minimize(lambda x: np.log(error(x)), start, method="BFGS", options={"gtol": 1e-9}).fun
    moving = plan.error - plan.breakdown["truncation"] - plan.breakdown["initial"]
    assert moving == pytest.approx(np.exp(best), rel=1e-5)


def test_a_metric_moves_the_plan_and_reaches_hand_out_audit_and_peers():
    plain = co.codesign(model(co.Wasserstein(), start="mean"), steps=8, levels=60, points=5)
    for metric in (co.KL("forward"), co.KL("reverse"), co.Features(lambda lam: lam**-0.5)):
        own = model(metric, start="mean")
        plan = co.codesign(own, steps=8, levels=60, points=5)
        assert own.bias(plan.sigmas) == pytest.approx(plan.handed_out["total"], rel=1e-9)
        assert own.bias(plan.sigmas) < own.bias(plain.sigmas)
        assert metric.measure in str(plan)
        assert plan.trace is None
        assert own.error_measure == f"exact {metric.measure}"


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_stopping_alone_under_rescale_and_small_errors_about_a_bias_are_those_of_quadrature(direction):
    own = model(co.KL(direction), terminal="rescale", start="marginal")

    def divergence(lam, std):
        pair = (0.0, np.sqrt(lam)), (0.0, std)
        return kl_by_quadrature(*(pair if direction == "forward" else pair[::-1]))

    each = [divergence(lam, np.sqrt(lam + 0.04)) for lam in SPECTRUM.eigenvalues]
    assert own.truncation(0.2) == pytest.approx(SPECTRUM.counts @ each, rel=1e-9)
    off, h = np.sqrt(SPECTRUM.eigenvalues) * 1.4, 1e-3
    found = co.KL(direction).weights(SPECTRUM) * co.KL(direction).curvature(SPECTRUM, off)
    ends = [divergence(0.04, off[2] * (1 + sign * h)) for sign in (-1, 0, 1)]
    assert found[2] == pytest.approx((ends[0] - 2 * ends[1] + ends[2]) / (2 * (off[2] * h) ** 2), rel=1e-4)


def test_refusals_name_metric_and_remedy():
    with pytest.raises(ValueError, match=r"training\.matrix is 'full'"):
        model(co.KL(), training=co.AveragedSGD(matrix="full"))
    with pytest.raises(ValueError, match="a mean is learned"):
        model(co.KL(), training=co.AveragedSGD(intercept=True))
    with pytest.raises(ValueError, match="infinite where the data have no variance"):
        co.GaussianModel(co.Spectrum([1.0, 0.0], [1, 1]), metric=co.KL(), terminal="rescale")
    with pytest.raises(ValueError, match=r"Features\.band_weights are all 0"):
        model(co.Features([0.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="must be positive semidefinite"):
        co.Features.of_matrix([[1.0, 0.0], [0.0, -1.0]], np.eye(2))
    with pytest.raises(ValueError, match=r"metric is 'KL'; give co.Wasserstein"):
        model("KL")


def test_stated_weights_of_a_long_spectrum_are_averaged_over_its_bands():
    spectrum = co.Spectrum.from_samples(np.random.default_rng(0).normal(size=(300, 60)) * np.arange(1, 61.0) ** -0.5)
    weights = np.linspace(1.0, 2.0, 60)
    own = co.GaussianModel(spectrum, metric=co.Features(weights))
    assert len(own.bands) < 60
    assert own.valued.counts.sum() == pytest.approx(weights.sum())
    ends = np.cumsum(own.bands.counts).astype(int)
    np.testing.assert_allclose(own.valued.counts, np.diff(np.cumsum(np.append(0.0, weights))[np.append(0, ends)]))
    moved = own.unknowns().moved(np.full(len(own.bands), np.log(2.0)))
    np.testing.assert_allclose(moved.spectrum.eigenvalues, 2 * own.bands.eigenvalues)
    np.testing.assert_allclose(moved.valued.counts, own.valued.counts)
