"""Kernel against the covariance ODE, and the lower bounds against their definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from codesign_opt.samplers.terminal import terminal_weight
from codesign_opt.training.lower_bounds import (
    bound_report,
    cramer_rao_intercept,
    cramer_rao_score_error,
    cramer_rao_variance,
    dataset_floor,
)
from codesign_opt.training.sensitivity_kernel import (
    PairwiseKernel,
    banded_sum,
    diagonal_kernel,
    harmonic_product,
    mean_kernel,
    pairwise_kernel,
    propagation_factor,
    terminal_gain,
)

LAM = np.array([1.3, 0.4, 0.09])
STOP, TOP = 0.2, 3.0
TERMINALS = ["rescale", "denoise"]
ETAS = [0.0, 0.5, 1.0]
NAN, INF = float("nan"), float("inf")


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def bures(first, second):
    """Exact squared W2 distance of centred Gaussians."""
    half = root(first)
    return np.trace(first + second - 2 * root(half @ second @ half))


def terminal_law(error, bias, eta, terminal, breaks=()):
    """Mean and covariance at the end under score -x / v + error(sigma) x + bias(sigma), by the moment ODE."""
    d = LAM.size

    def slope(sigma, state):
        cov, mean = state[: d * d].reshape(d, d), state[d * d :]
        score = -np.diag(1 / (LAM + sigma**2)) + error(sigma)
        drift = -(1 + eta**2) * sigma * score
        change = drift @ cov + cov @ drift.T - 2 * eta**2 * sigma * np.eye(d)
        return np.append(change.ravel(), drift @ mean - (1 + eta**2) * sigma * bias(sigma))

    state = np.append(np.diag(LAM + TOP**2).ravel(), np.zeros(d))
    nodes = [TOP, *sorted(breaks, reverse=True), STOP]
    for high, low in pairwise(nodes):
        state = solve_ivp(slope, (high, low), state, rtol=1e-11, atol=1e-14, method="DOP853").y[:, -1]
    gain = np.diag(LAM / (LAM + STOP**2)) if terminal == "denoise" else np.eye(d)
    return gain @ state[d * d :], gain @ state[: d * d].reshape(d, d) @ gain


def second_order(error, eta, terminal, breaks=()):
    """Coefficient of amplitude^2 in the exact squared W2 distance; odd orders cancel between +h and -h."""
    exact = np.diag(terminal_weight(LAM, STOP, terminal))
    h, none = 3e-3, np.zeros(LAM.size)
    laws = [terminal_law(lambda s, c=c: c * error(s), lambda s: none, eta, terminal, breaks) for c in (h, -h)]
    return sum(bures(exact, cov) for _, cov in laws) / (2 * h**2)


def matrices(symmetric):
    e = np.random.default_rng(1).standard_normal((LAM.size, LAM.size))
    return e + e.T if symmetric else e


@pytest.mark.cases(3)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("eta", ETAS)
def test_kernel_matches_covariance_ode_for_a_narrow_full_matrix_error(eta, terminal, symmetric):
    e, at, width = matrices(symmetric), 0.7, 0.01
    edges = (at - width / 2, at + width / 2)
    truth = second_order(lambda s: e / width * (edges[0] < s < edges[1]), eta, terminal, edges)
    kernel = pairwise_kernel(LAM, [at], STOP, eta=eta, terminal=terminal)
    got = banded_sum(kernel, np.ones(LAM.size), (e**2)[..., None], covariance=(e * e.T)[..., None])
    np.testing.assert_allclose(got, truth, rtol=1e-3)


@pytest.mark.cases(3)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("eta", ETAS)
def test_kernel_matches_covariance_ode_for_a_smooth_error_at_all_levels(eta, terminal, symmetric):
    # a deterministic E(sigma) adds coherently: integrate sqrt(kernel) E, then square
    e, other = matrices(symmetric), np.cos(np.arange(9.0)).reshape(3, 3)
    other = other + other.T if symmetric else other

    def error(s):
        return e * np.exp(-((np.log(s / 0.6) / 0.5) ** 2)) + 0.3 * other * np.sin(3 * s)

    truth = second_order(error, eta, terminal)
    x, w = np.polynomial.legendre.leggauss(60)
    s, w = (TOP - STOP) / 2 * x + (TOP + STOP) / 2, (TOP - STOP) / 2 * w
    kernel = pairwise_kernel(LAM, s, STOP, eta=eta, terminal=terminal)
    amplitude = np.sqrt(kernel.off) * np.stack([error(t) for t in s], axis=-1)
    total = (amplitude + amplitude.transpose(1, 0, 2)) @ w
    np.testing.assert_allclose(np.sum(total**2) / 2, truth, rtol=1e-3)
    np.testing.assert_allclose(kernel.cross, np.sqrt(kernel.off * kernel.off.transpose(1, 0, 2)), rtol=1e-12)


@pytest.mark.cases(2)
@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("eta", ETAS)
def test_diagonal_kernel_matches_exact_standard_deviations_of_the_ode(eta, terminal):
    e, at, width = np.array([0.7, -1.1, 0.5]), 0.5, 0.005
    edges = (at - width / 2, at + width / 2)
    truth = second_order(lambda s: np.diag(e) / width * (edges[0] < s < edges[1]), eta, terminal, edges)
    got = e**2 @ diagonal_kernel(LAM, [at], STOP, eta=eta, terminal=terminal)
    np.testing.assert_allclose(got, truth, rtol=1e-3)


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("eta", ETAS)
def test_mean_kernel_matches_the_mean_of_the_ode(eta, terminal):
    b, at, width = np.array([0.7, -1.1, 0.5]), 0.5, 0.005
    edges = (at - width / 2, at + width / 2)
    none = np.zeros((3, 3))
    mean, _ = terminal_law(lambda s: none, lambda s: b / width * (edges[0] < s < edges[1]), eta, terminal, edges)
    got = b**2 @ mean_kernel(LAM, [at], STOP, eta=eta, terminal=terminal)
    np.testing.assert_allclose(got, mean @ mean, rtol=1e-3)


@pytest.mark.parametrize("eta", ETAS)
def test_propagation_factor_solves_the_linear_flow(eta):
    flow = solve_ivp(lambda s, x: (1 + eta**2) * s / (LAM + s**2) * x, (1.7, STOP), np.ones(3), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(propagation_factor(LAM, [1.7], STOP, eta=eta)[:, 0], flow.y[:, -1], rtol=1e-6)
    np.testing.assert_allclose(terminal_gain(LAM, STOP), LAM / (LAM + STOP**2))


def full_sum(lam, counts, sigma, eta, terminal, var, cov, var_diagonal):
    """The definition over all d x d entries: 1/2 sum_ij (Phi_i Phi_j T_i T_j)^2 (...) / (P_i + P_j)."""
    x = np.repeat(lam, counts)
    band = np.repeat(np.arange(lam.size), counts)
    v, gain = x + sigma**2, terminal_gain(x, STOP, terminal)
    reach = (propagation_factor(x, [sigma], STOP, eta=eta)[:, 0] * gain) ** 2
    p = (x + STOP**2) * gain**2
    total = 0.0
    for i in range(x.size):
        for j in range(x.size):
            if p[i] + p[j] == 0:
                continue
            a, b = band[i], band[j]
            vij, vji, c = var[a, b], var[b, a], cov[a, b]
            if i == j:
                vij = vji = c = var_diagonal[a]
            bracket = v[j] ** 2 * vij + v[i] ** 2 * vji + 2 * v[i] * v[j] * c
            total += (1 + eta**2) ** 2 * sigma**2 / 2 * reach[i] * reach[j] * bracket / (p[i] + p[j])
    return total


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("eta", ETAS)
def test_banded_sum_equals_the_enumeration_over_all_entries(eta, terminal):
    rng = np.random.default_rng(0)
    lam, counts, sigma = np.array([1.1, 0.3, 0.02, 0.0]), np.array([2, 3, 1, 2]), np.array([0.3, 1.5])
    var = rng.uniform(1, 2, (4, 4, 2))
    cov = rng.uniform(-1, 1, (4, 4, 2))
    cov = (cov + cov.transpose(1, 0, 2)) / 2
    diagonal = rng.uniform(1, 2, (4, 2))
    kernel = pairwise_kernel(lam, sigma, STOP, eta=eta, terminal=terminal)
    got = banded_sum(kernel, counts.astype(float), var, covariance=cov, diagonal_variance=diagonal)
    want = [
        full_sum(lam, counts, s, eta, terminal, var[..., k], cov[..., k], diagonal[:, k]) for k, s in enumerate(sigma)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    plain = banded_sum(kernel, counts.astype(float), var)
    own = np.einsum("bbl->bl", var)
    want = [
        full_sum(lam, counts, s, eta, terminal, var[..., k], 0 * cov[..., k], own[:, k]) for k, s in enumerate(sigma)
    ]
    np.testing.assert_allclose(plain, want, rtol=1e-12)


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("eta", ETAS)
def test_full_cramer_rao_bound_equals_the_enumeration_over_all_entries(eta, terminal):
    lam, counts, sigma = np.array([1.1, 0.3, 0.02, 0.0]), np.array([2, 3, 1, 2]), 0.8
    v = lam + sigma**2
    var = np.outer(lam, lam) / np.outer(v, v) ** 2
    want = full_sum(lam, counts, sigma, eta, terminal, var, var, 2 * lam**2 / v**4)
    got = cramer_rao_score_error(lam, counts.astype(float), [sigma], STOP, eta=eta, terminal=terminal, matrix="full")
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_splitting_a_band_changes_no_full_matrix_sum(terminal):
    options = {"eta": 0.5, "terminal": terminal, "matrix": "full", "intercept": True}
    one = cramer_rao_score_error([1.0, 0.2], [5.0, 3.0], [0.5, 2.0], STOP, **options)
    two = cramer_rao_score_error([1.0, 1.0, 0.2], [2.0, 3.0, 3.0], [0.5, 2.0], STOP, **options)
    np.testing.assert_allclose(one, two, rtol=1e-12)


def test_least_squares_reaches_twice_the_diagonal_bound_at_sigma_squared_equal_lambda_and_more_elsewhere():
    lam, sigma = np.array([0.7]), np.sqrt([0.07, 0.7, 7.0])
    v = lam + sigma**2
    ratio = lam / (sigma**2 * v**2) / cramer_rao_variance(lam, sigma)[0]
    np.testing.assert_allclose(ratio, v**2 / (2 * lam * sigma**2))
    np.testing.assert_allclose(ratio[1], 2)
    assert ratio[0] > 2
    assert ratio[2] > 2


def test_cramer_rao_variances_are_reached_by_the_plug_in_of_the_sample_covariance():
    rng, m, draws, lam, sigma = np.random.default_rng(3), 400, 20_000, 0.7, 0.5
    v = lam + sigma**2
    slope = 1 / (lam * rng.chisquare(m, draws) / m + sigma**2)
    error = m * np.var(slope, ddof=1) / cramer_rao_variance([lam], [sigma])[0, 0] - 1
    assert abs(error) < 3 * np.sqrt(2 / draws) + 10 / m  # 3 standard errors, next order in 1/m
    shift = m * np.var(np.sqrt(lam / m) * rng.standard_normal(draws) / v)
    assert abs(shift / cramer_rao_intercept([lam], [sigma])[0, 0] - 1) < 3 * np.sqrt(2 / draws)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_dataset_floor_is_the_mean_squared_distance_of_the_plug_in_law(terminal):
    rng, size, draws = np.random.default_rng(4), 2000, 1500
    p = terminal_weight(LAM, STOP, terminal)
    full, diagonal = np.empty(draws), np.empty(draws)
    for k in range(draws):
        x = np.sqrt(LAM) * rng.standard_normal((size, 3))
        cov = x.T @ x / size
        last = cov + STOP**2 * np.eye(3)
        law = last if terminal == "rescale" else cov @ np.linalg.solve(last, cov)
        full[k] = bures(np.diag(p), law)
        c = np.diag(cov)
        out = c + STOP**2 if terminal == "rescale" else c**2 / (c + STOP**2)
        diagonal[k] = np.sum((np.sqrt(out) - np.sqrt(p)) ** 2)
    for have, matrix in ((full, "full"), (diagonal, "diagonal")):
        want = dataset_floor(LAM, np.ones(3), STOP, size, terminal=terminal, matrix=matrix)
        error = 3 * np.std(have, ddof=1) / np.sqrt(draws)  # 3 standard errors, about 5 %
        assert abs(have.mean() - want) < error + 3 / size * want
    extra = dataset_floor(LAM, np.ones(3), STOP, size, terminal=terminal, intercept=True)
    assert np.isclose(extra - dataset_floor(LAM, np.ones(3), STOP, size, terminal=terminal), LAM.sum() / size)


def test_dataset_floor_ignores_directions_without_data_under_denoise():
    with_zeros = dataset_floor([1.0, 0.0], [1.0, 9.0], STOP, 10, matrix="full")
    np.testing.assert_allclose(with_zeros, dataset_floor([1.0], [1.0], STOP, 10, matrix="full"))


def test_bound_report_gives_ratios_per_level_and_in_total():
    report = bound_report([2.0, 6.0, 0.0, 1.0], [1.0, 2.0, 0.0, 0.0], [1.0, 0.5, 1.0, 0.0])
    np.testing.assert_array_equal(report.per_level, [2.0, 3.0, NAN, INF])
    assert report.total == 2.5
    with pytest.raises(ValueError, match="bound is 0"):
        bound_report([1.0], [0.0])


def test_zero_eigenvalues_give_finite_kernels_and_no_effect_under_denoise():
    kernel = pairwise_kernel([1.0, 0.0], [0.3], STOP)
    assert all(np.all(np.isfinite(part)) for part in kernel)
    assert kernel.diagonal[1, 0] == 0
    assert kernel.off[0, 1, 0] == kernel.off[1, 1, 0] == 0
    np.testing.assert_allclose(diagonal_kernel([0.0], [0.3], STOP, terminal="rescale"), 0.09 * STOP**2)


def test_a_thousand_bands_and_levels_are_contracted_without_cubic_memory():
    lam, sigma = np.geomspace(1e-5, 10, 1000), np.geomspace(STOP, 80, 1000)
    value = cramer_rao_score_error(lam, np.ones(1000), sigma, STOP, eta=1.0, matrix="full")
    assert value.shape == (1000,)
    assert np.all(value > 0)
    with pytest.raises(ValueError, match="merge bands"):
        pairwise_kernel(lam, sigma, STOP)


def test_harmonic_product_in_blocks_equals_the_matrix():
    p = np.random.default_rng(0).uniform(0, 1, 3000)
    p[:5] = 0
    h = p[:, None] * p / np.where(p[:, None] + p > 0, p[:, None] + p, 1)
    np.testing.assert_allclose(harmonic_product(p, np.ones((3000, 1))), h.sum(axis=1)[:, None], rtol=1e-12)


BAD_VECTOR = [[], [[1.0]], 1.0, [NAN], [INF], [-1.0], [True], ["a"], None]
BAD_NUMBER = [NAN, INF, -1.0, True, None, "a", [1.0]]


@pytest.mark.parametrize("function", [diagonal_kernel, mean_kernel, pairwise_kernel, propagation_factor])
def test_kernels_refuse_bad_input_by_name(function):
    for bad in BAD_VECTOR:
        with pytest.raises(ValueError, match="eigenvalues"):
            function(bad, [1.0], STOP)
        with pytest.raises(ValueError, match="sigma"):
            function([1.0], bad, STOP)
    for bad in [*BAD_NUMBER, 0.0]:
        with pytest.raises(ValueError, match="stopping_sigma"):
            function([1.0], [1.0], bad)
    for bad in BAD_NUMBER:
        with pytest.raises(ValueError, match="eta"):
            function([1.0], [1.0], STOP, eta=bad)
    with pytest.raises(ValueError, match="below stopping_sigma"):
        function([1.0], [0.1], STOP)
    if function is not propagation_factor:
        with pytest.raises(ValueError, match="terminal"):
            function([1.0], [1.0], STOP, terminal="other")


@pytest.mark.parametrize("function", [terminal_weight, terminal_gain])
def test_terminal_maps_refuse_bad_input_by_name(function):
    for bad in BAD_VECTOR:
        with pytest.raises(ValueError, match="eigenvalues"):
            function(bad, STOP)
    for bad in [*BAD_NUMBER, 0.0]:
        with pytest.raises(ValueError, match="stopping_sigma"):
            function([1.0], bad)
    for bad in ["other", None, True, 1]:
        with pytest.raises(ValueError, match="terminal"):
            function([1.0], STOP, bad)


def test_banded_sum_refuses_what_does_not_fit_the_kernel():
    kernel, ones = pairwise_kernel([1.0, 0.5], [1.0], STOP), np.ones((2, 2, 1))
    assert isinstance(kernel, PairwiseKernel)
    with pytest.raises(ValueError, match="kernel"):
        banded_sum(tuple(kernel), [1.0, 1.0], ones)
    for bad in [[1.0], [1.0, 0.0], [1.0, NAN], [True, True]]:
        with pytest.raises(ValueError, match="counts"):
            banded_sum(kernel, bad, ones)
    for bad in [ones[0], -ones, ones * NAN, ones * INF, ones > 0]:
        with pytest.raises(ValueError, match=r"^variance"):
            banded_sum(kernel, [1.0, 1.0], bad)
    for bad in [ones[0], ones * NAN, ones > 0]:
        with pytest.raises(ValueError, match=r"^covariance"):
            banded_sum(kernel, [1.0, 1.0], ones, covariance=bad)
    for bad in [ones, -ones[0], ones[0] * NAN]:
        with pytest.raises(ValueError, match=r"^diagonal_variance"):
            banded_sum(kernel, [1.0, 1.0], ones, diagonal_variance=bad)
    with pytest.raises(ValueError, match="weight"):
        harmonic_product([-1.0], [[1.0]])
    with pytest.raises(ValueError, match="values"):
        harmonic_product([1.0], [[1.0], [1.0]])


def test_lower_bounds_refuse_bad_input_by_name():
    for bad in BAD_VECTOR:
        with pytest.raises(ValueError, match="eigenvalues"):
            cramer_rao_variance(bad, [1.0])
        with pytest.raises(ValueError, match="sigma"):
            cramer_rao_intercept([1.0], bad)
        with pytest.raises(ValueError, match="counts"):
            cramer_rao_score_error([1.0], bad, [1.0], STOP)
        with pytest.raises(ValueError, match="counts"):
            dataset_floor([1.0], bad, STOP, 10)
        with pytest.raises(ValueError, match="achieved"):
            bound_report(bad, [1.0])
    for bad in [*BAD_NUMBER, 0, 1.5]:
        with pytest.raises(ValueError, match="dataset_size"):
            dataset_floor([1.0], [1.0], STOP, bad)
    for bad in ["other", None, True]:
        with pytest.raises(ValueError, match="matrix"):
            dataset_floor([1.0], [1.0], STOP, 10, matrix=bad)
        with pytest.raises(ValueError, match="matrix"):
            cramer_rao_score_error([1.0], [1.0], [1.0], STOP, matrix=bad)
    for bad in [1, None, "yes"]:
        with pytest.raises(ValueError, match="intercept"):
            dataset_floor([1.0], [1.0], STOP, 10, intercept=bad)
        with pytest.raises(ValueError, match="intercept"):
            cramer_rao_score_error([1.0], [1.0], [1.0], STOP, intercept=bad)
