"""Risks of the denoiser: mmse identities against Monte Carlo, and risks read from training losses."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.peers import Evidence, LossAdaptive, RiskCurve, SaturatingSNR, risks
from codesign_opt.testbed.data.mixtures import circle8
from problems.studies.las_experiment import mixture_risk
from tests.helpers.gaussian_truth import gaussian_risk

# ---------------------------------------------------------------------------------------- mmse identities


def posterior(x, sigma, mixture):
    """Mean (N, d) and covariance (N, d, d) of x0 given x = x0 + sigma z, in numpy."""
    means, width, weights = mixture.means, mixture.widths[0], mixture.weights
    v = width**2 + sigma**2
    away = x[:, None, :] - means
    logs = np.log(weights) - 0.5 * (away**2).sum(2) / v
    share = np.exp(logs - logs.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    centres = means + width**2 / v * away
    mean = (share[:, :, None] * centres).sum(1)
    spread = centres - mean[:, None, :]
    within = width**2 * sigma**2 / v * np.eye(2)
    return mean, within + np.einsum("nk,nki,nkj->nij", share, spread, spread)


@pytest.fixture(scope="module")
def draws():
    mixture, rng = circle8(), np.random.default_rng(3)
    clean = mixture.sample(40_000, 1, dtype=torch.float64).numpy()
    return mixture, clean, rng.normal(size=clean.shape), rng.normal(size=clean.shape)


def assert_mean_zero(values):
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(values.size)


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.6), (0.5, 2.0)])
def test_denoiser_changes_by_the_difference_of_risks_on_a_mixture(draws, low, high):
    mixture, clean, z, w = draws
    x = clean + low * z
    near = posterior(x, low, mixture)[0]
    far = posterior(x + np.sqrt(high**2 - low**2) * w, high, mixture)[0]
    risk = ((clean - far) ** 2).sum(1) - ((clean - near) ** 2).sum(1)
    assert_mean_zero(((near - far) ** 2).sum(1) - risk)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.5])
def test_slope_of_the_risk_is_minus_the_squared_posterior_covariance(draws, sigma):
    mixture, clean, z, _ = draws
    gamma, step = sigma**-2.0, 0.02 * sigma**-2.0
    trace = [
        np.trace(posterior(clean + g**-0.5 * z, g**-0.5, mixture)[1], axis1=1, axis2=2)
        for g in (gamma + step, gamma - step)
    ]
    difference = (trace[0] - trace[1]) / (2 * step)
    covariance = posterior(clean + sigma * z, sigma, mixture)[1]
    slope, error = risks.mmse_slope(covariance)
    assert slope == pytest.approx(-(covariance**2).sum((1, 2)).mean())
    paired = difference + (covariance**2).sum((1, 2))
    assert error > 0
    assert_mean_zero(paired)


def test_information_is_half_the_area_under_the_risk_on_a_mixture(draws):
    mixture, clean, z, _ = draws
    curve = mixture_risk(mixture, 0.3, 3.0, levels=60, draws=20_000, seed=9)

    def density(sigma):  # log p(x | x0) - log p(x) at its own draws
        x = clean + sigma * z
        normal = -0.5 * (z**2).sum(1) - np.log(2 * np.pi * sigma**2)
        return normal - mixture.log_density(torch.from_numpy(x), sigma).numpy()

    gained = density(0.3) - density(3.0)
    error = np.hypot(gained.std() / np.sqrt(gained.size), 0.003)  # and the curve's own, some 0.3 per cent of 1.6
    assert abs(gained.mean() - risks.mutual_information(curve, np.array([3.0, 0.3]))) < 3 * error


@pytest.mark.parametrize("lam", [[1.0], [4.0, 1.0, 0.01]])
def test_discretisation_error_is_the_divergence_of_the_chain_of_steps_on_a_gaussian(lam):
    sigmas = np.array([30.0, 5.0, 2.0, 0.7, 0.2, 0.05])
    chain = 0.0
    for eigenvalue in lam:
        for t, u in zip(sigmas[:-1] ** 2, sigmas[1:] ** 2, strict=True):
            frozen = u * (t - u) / t  # variance of DDIM's step; the mean is the exact one
            exact = frozen + (1 - u / t) ** 2 * eigenvalue * t / (eigenvalue + t)
            chain += 0.5 * (exact / frozen - 1 - np.log(exact / frozen))
    found = risks.discretization_error(lambda s: sum(gaussian_risk(e)(s) for e in lam), sigmas)
    assert found == pytest.approx(chain, rel=1e-12)
    assert risks.discretization_error(lambda s: sum(gaussian_risk(e)(s) for e in lam), np.append(sigmas, 0.0)) == found


def test_loss_objective_is_discretisation_plus_model_error_plus_a_constant():
    sigmas, lam = np.geomspace(10.0, 0.1, 7), 1.0
    exact = gaussian_risk(lam)
    worse = lambda sigma: exact(sigma) + 0.03 * sigma**2  # noqa: E731  noise predicted with mean squared error 0.03
    gap = risks.frozen_denoiser_error(worse, sigmas) - risks.mutual_information(exact, sigmas)
    approximation = 0.5 * (sigmas[0] ** 2 / sigmas[1] ** 2 - 1) * 6 * 0.03  # Prop 3, geometric grid
    assert gap == pytest.approx(risks.discretization_error(exact, sigmas) + approximation, rel=1e-10)
    axis = risks.frozen_denoiser_error(worse, sigmas, axis=SaturatingSNR(0.5))
    u = 1 / (sigmas**2 + 0.5)
    assert axis == pytest.approx(0.5 * np.diff(u) @ worse(sigmas[:-1]))


def discrete_risk(points, weights):
    """mmse of discrete data on the line by quadrature over x."""

    def risk(sigma):
        result = []
        for s in np.atleast_1d(sigma):
            x = np.linspace(points[0] - 9 * s, points[-1] + 9 * s, 4001)
            joint = weights * np.exp(-0.5 * (x[:, None] - points) ** 2 / s**2) / (s * np.sqrt(2 * np.pi))
            total = joint.sum(1)
            mean = (joint @ points) / np.where(total > 0, total, 1.0)
            result.append(weights @ points**2 - np.trapezoid(total * mean**2, x))
        return np.array(result)

    return risk


def test_entropy_bounds_the_discretisation_error_and_is_least_for_equal_log_snr_steps():
    points, weights = np.array([-2.0, -1.0, 0.5, 2.5]), np.array([0.1, 0.4, 0.3, 0.2])
    mmse = discrete_risk(points, weights)
    geometric = np.geomspace(10.0, 0.1, 9)
    bound = risks.entropy_bound(weights, geometric)
    assert 0 < risks.discretization_error(mmse, geometric, pieces=1) < bound
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = np.concatenate([[10.0], np.sort(np.exp(rng.uniform(np.log(0.1), np.log(10.0), 7)))[::-1], [0.1]])
        assert risks.entropy_bound(weights, other) > bound
    slope = np.diff(mmse(np.array([1.0, 0.98]))) / np.diff(np.array([1.0, 0.98]) ** -2.0)
    per_unit = risks.entropy_bound(weights, np.array([1.0, 0.98])) * 4 / (0.98**-2 - 1) ** 2
    assert 0 < -slope[0] < per_unit


# ----------------------------------------------------------------------------------------- risks from losses


@pytest.mark.parametrize("target", ["x0", "eps", "eps_vp", "v", "flow", "score", "edm"])
def test_losses_of_every_parameterisation_give_the_same_risk(target):
    rng, sigma = np.random.default_rng(0), np.array([0.2, 1.0, 5.0])
    x0, z, wrong = (rng.normal(size=(500, 4)) for _ in range(3))
    loss, risk = [], []
    for s in sigma:
        alpha = {"flow": 1 / (1 + s)}.get(target, 1 / np.hypot(1, s))
        noise = alpha * s
        x = x0 + s * z
        denoised = x0 + 0.1 * s * wrong / np.hypot(1, s)
        implied = (x - denoised) / s  # the noise, and from it what each network would have put out
        guess, truth = {
            "x0": (denoised, x0),
            "eps": (implied, z),
            "eps_vp": (implied, z),
            "v": (alpha * implied - noise * denoised, alpha * z - noise * x0),
            "flow": (implied - denoised, z - x0),
            "score": ((denoised - x) / s**2, -z / s),
            "edm": tuple((d * (s**2 + 0.25) - 0.25 * x) / (s * 0.5 * np.hypot(s, 0.5)) for d in (denoised, x0)),
        }[target]
        loss.append(((guess - truth) ** 2).mean())
        risk.append(((denoised - x0) ** 2).sum(1).mean())
    curve = peers.risk_from_losses(
        sigma[::-1], loss[::-1], target=target, dimensions=4, standard_error=np.array(loss[::-1])
    )
    np.testing.assert_allclose(curve.risk, risk, rtol=1e-10)
    np.testing.assert_allclose(curve.standard_error, risk, rtol=1e-10)


def test_risk_is_read_from_the_end_of_a_training_log(tmp_path):
    rng, stats = np.random.default_rng(0), co.LevelStatistics(np.geomspace(0.01, 100.0, 21))
    for step in range(60):
        sigma = np.exp(rng.normal(0.0, 2.0, 200)).clip(0.011, 99.0)
        untrained = 50.0 if step < 20 else 0.0
        stats.record(sigma, (gaussian_risk(1.0)(sigma) + untrained) * rng.exponential(size=200))
    stats.save(tmp_path / "log.csv")
    run_made = co.TrainingRun(density=None, iterations=60, batch=200, log=tmp_path / "log.csv")
    curve = peers.risk_from_log(run_made, share=0.4)
    good = (curve.sigma > 0.1) & (curve.sigma < 10.0)
    assert np.all(np.diff(curve.risk) >= 0)
    np.testing.assert_allclose(curve.risk[good], gaussian_risk(1.0)(curve.sigma[good]), rtol=0.35)
    assert np.all(curve.standard_error[good] > 0)
    whole = peers.risk_from_log(tmp_path / "log.csv", share=1.0)
    assert whole.risk.min() > 5 * curve.risk.min()
    evidence = Evidence(sigma_min=0.02, sigma_max=50.0, risk=curve)
    assert LossAdaptive().sigmas(6, evidence).shape == (7,)


def test_risk_is_read_from_a_log_without_windows(tmp_path):
    rows = [(1.0, s, (10.0 if i < 3 else 1.0) * s) for i in range(6) for s in (0.5, 1.0, 2.0)]
    text = "\n".join(["examples,sigma,loss", *(",".join(map(str, row)) for row in rows)])
    (tmp_path / "log.csv").write_text(text)
    np.testing.assert_allclose(peers.risk_from_log(tmp_path / "log.csv").risk, [0.5, 1.0, 2.0])


def test_risk_beyond_the_log_follows_the_noise_level_squared():
    sigma = np.geomspace(0.05, 20.0, 200)
    risk = gaussian_risk(1.0)(sigma)
    wide = peers.extended_risk(RiskCurve(sigma, risk, standard_error=0.1 * risk, floor=risk), 0.002, 80.0)
    levels = np.geomspace(0.002, 80.0, 500)
    np.testing.assert_allclose(wide(levels), gaussian_risk(1.0)(levels), rtol=0.004)
    np.testing.assert_allclose(wide.standard_error, 0.1 * wide.risk)
    same = peers.extended_risk(wide, 0.01, 50.0)
    np.testing.assert_array_equal(same.sigma, wide.sigma)
