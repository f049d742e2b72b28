"""DM-NonUniform and entropic time: the bound by quadrature and brute force, entropy against its closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import lagrange

import codesign_opt as co
from codesign_opt import peers

EVIDENCE = peers.Evidence(sigma_min=0.01, sigma_max=20.0)


def quadrature(levels: np.ndarray, order: int) -> np.ndarray:
    at, weights = -np.log(levels), np.zeros(levels.size - 1)
    for step in range(levels.size - 1):
        known = list(range(max(0, step - order + 1), step + 1))
        for n in known:
            basis = lagrange(at[known], [float(m == n) for m in known])
            weights[n] += quad(lambda u, basis=basis: np.exp(u) * basis(u), at[step], at[step + 1], epsabs=1e-12)[0]
    return weights


@pytest.mark.parametrize("order", [1, 2, 3])
def test_weights_of_outputs_are_integrals_of_lagrange_polynomials(order):
    levels = np.array([9.0, 4.0, 2.5, 0.8, 0.3])
    np.testing.assert_allclose(peers.output_weights(levels, order), quadrature(levels, order), rtol=1e-9)


def test_weights_are_those_of_a_multistep_run():
    # the sample is linear in outputs: 2M's coefficients on equal steps of log sigma are Lagrange's to second order,
    # and for order 1 the weights are Euler's own
    levels = np.geomspace(8.0, 0.5, 6)
    expected = 1 / levels[1:] - 1 / levels[:-1]
    np.testing.assert_allclose(peers.output_weights(levels, 1), expected, rtol=1e-12)
    assert peers.output_weights(levels, 3).sum() == pytest.approx(1 / levels[-1] - 1 / levels[0], rel=1e-12)


@pytest.mark.slow
def test_two_free_levels_are_a_local_minimum_of_the_bound_by_brute_force():
    power = 2.0
    rule = peers.OptimizedSteps(power=power)
    found = rule.sigmas(3, EVIDENCE)
    assert found[-1] == 0
    logs = np.log(found[1:3])

    def bound(move: tuple[float, float]) -> float:
        levels = np.array([20.0, *np.exp(logs + np.array(move)), 0.01])
        errors = levels[:-1] ** power * (1 + levels[:-1] ** 2) ** ((1 - power) / 2)
        return float(0.01 * np.abs(quadrature(levels, 3)) @ errors)

    near = [bound((i, j)) for i in (-0.05, 0, 0.05) for j in (-0.05, 0, 0.05)]
    assert bound((0.0, 0.0)) <= min(near) * (1 + 1e-6)
    equal = np.append(np.geomspace(20.0, 0.01, 4)[:-1], 0.01)
    assert bound((0.0, 0.0)) < rule.bound(equal)


def test_entropic_time_is_equal_in_the_entropy_of_gaussian_data():
    lam = np.array([2.0, 0.3, 0.01])
    model = co.GaussianModel(co.Spectrum.from_eigenvalues(lam), terminal="rescale")
    sigma = peers.EntropicTime(rescaled=False).sigmas(6, peers.Evidence.of(model))[:, None]
    entropy = 0.5 * np.log(sigma**2 / (lam + sigma**2)).sum(axis=1)  # H[x0 | x_sigma], less a constant
    steps = np.diff(entropy)
    np.testing.assert_allclose(steps, steps.mean(), rtol=2e-3)
    rescaled = peers.EntropicTime().sigmas(6, peers.Evidence.of(model))[:, None]
    angles = np.diff((np.sqrt(lam) * np.arctan(rescaled / np.sqrt(lam))).sum(axis=1))
    np.testing.assert_allclose(angles, angles.mean(), rtol=2e-3)


def test_entropic_time_of_one_band_is_the_tangent_law():
    model = co.GaussianModel(co.Spectrum.from_eigenvalues([0.25]), terminal="rescale")
    evidence = peers.Evidence.of(model)
    angles = np.linspace(np.arctan(evidence.sigma_max / 0.5), np.arctan(evidence.sigma_min / 0.5), 6)
    np.testing.assert_allclose(peers.EntropicTime().sigmas(5, evidence), 0.5 * np.tan(angles), rtol=2e-3)


@pytest.mark.parametrize("kind", [peers.OptimizedSteps, peers.EntropicTime])
def test_they_go_by_their_names(kind):
    assert peers.schedule(kind.name) == kind()
    with pytest.raises(ValueError, match=r"OptimizedSteps\.order|EntropicTime\.rescaled"):
        kind(*([0] if kind is peers.OptimizedSteps else ["yes"]))


def test_least_midpoint_proxy_is_the_log_snr_grid():
    # sum of e(mid) (exp(l_{k+1}) - exp(l_k)) with e = sigma, by brute force over two inner nodes
    ends = -np.log([20.0, 0.01])
    inner = np.linspace(*ends, 61)[1:-1]

    def proxy(nodes: np.ndarray) -> float:
        middle = 0.5 * (nodes[1:] + nodes[:-1])
        return float(np.exp(-middle) @ np.diff(np.exp(nodes)))

    found = min(
        ((a, b) for a in inner for b in inner if a < b), key=lambda ab: proxy(np.array([ends[0], *ab, ends[1]]))
    )
    expected = -np.log(peers.LogSNR().sigmas(3, peers.Evidence(sigma_min=0.01, sigma_max=20.0, terminal="rescale")))
    np.testing.assert_allclose(found, expected[1:-1], atol=inner[1] - inner[0])


@pytest.mark.slow
def test_a_search_that_tries_levels_out_of_order_goes_on():
    # the solver asks for the bound beyond its own constraints now and then: of 12 steps it did, and nothing was found
    rule, evidence = peers.OptimizedSteps(), replace(EVIDENCE, sigma_min=0.002, sigma_max=80.0)
    found = rule.sigmas(12, evidence)
    assert np.all(np.diff(found) < 0)
    assert rule.bound(np.append(found[:-1], 0.002)) < rule.bound(np.geomspace(80.0, 0.002, 13))
