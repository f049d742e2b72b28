"""Loss-adaptive schedules against enumeration, closed forms and Monte Carlo; what they win on two mixtures."""

import csv
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.estimate.runs.run import BrownianPath, run
from codesign_opt.peers import Evidence, LossAdaptive, LossAdaptiveLimit, RiskCurve, SaturatingSNR, risks
from codesign_opt.testbed.data.mixtures import circle8, grid8
from problems.studies.__main__ import main
from problems.studies.las_experiment import las_experiment, mixture_risk
from problems.studies.sde_dpmpp_2m import sde_dpmpp_2m

TABLE = Path(co.__file__).parent.parent / "docs" / "figures" / "las_experiment.csv"


def gaussian_risk(lam):
    return lambda sigma: lam * sigma**2 / (lam + sigma**2)


def lines(rng, size):
    """Ascending axis, falling risk, and the matrix of their interval costs."""
    u, risk = np.cumsum(rng.exponential(size=size)), np.sort(rng.exponential(size=size))[::-1]
    return u, risk, (u - u[:, None]) * risk[:, None]


# ------------------------------------------------------------------------------- programs against enumeration


def enumerated(cost, places, intervals, weight, exponent=2.0):
    paths = [(0, *middle, len(places) - 1) for middle in combinations(range(1, len(places) - 1), intervals - 1)]
    return min(peers.path_cost(cost, places, np.array(p), weight=weight, exponent=exponent) for p in paths)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_every_program_finds_the_best_of_all_paths(start):
    for seed in range(start, start + 50):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(3, 13))
        intervals = int(rng.integers(1, size))
        u, risk, cost = lines(rng, size)
        places = np.cumsum(rng.exponential(size=size))
        weight, exponent = float(rng.exponential()), float(rng.choice([1.0, 2.0, 2.5]))
        free = enumerated(cost, places, intervals, 0.0)
        for path in (peers.shortest_path(cost, intervals), peers.shortest_path_of_lines(u, risk, intervals)):
            assert peers.path_cost(cost, places, path) == pytest.approx(free, rel=1e-12)
        smooth = peers.smooth_path(cost, places, intervals, weight=weight, exponent=exponent)
        options = {"weight": weight, "exponent": exponent}
        assert peers.path_cost(cost, places, smooth, **options) == pytest.approx(
            enumerated(cost, places, intervals, **options), rel=1e-12
        )
        wide = {"beam": 100, "window": 12, "spread": 12}  # nothing cut off: the beam is a full enumeration
        beam = peers.beam_path(lambda i, j, c=cost: c[i, j], places, intervals, **options, **wide)
        assert peers.path_cost(cost, places, beam, **options) == pytest.approx(
            peers.path_cost(cost, places, smooth, **options), rel=1e-12
        )


def test_costs_of_any_sign_and_growth_are_enumerated_right():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = int(rng.integers(3, 10))
        intervals, growth = int(rng.integers(1, size)), float(rng.uniform(0.5, 1.5))
        cost = rng.normal(size=(size, size))
        paths = [(0, *m, size - 1) for m in combinations(range(1, size - 1), intervals - 1)]
        value = [sum(growth**k * cost[p[k], p[k + 1]] for k in range(intervals)) for p in paths]
        assert tuple(peers.shortest_path(cost, intervals, growth=growth)) == paths[int(np.argmin(value))]


@pytest.mark.parametrize("size", [40, 300])
def test_linear_time_program_has_the_indices_of_the_quadratic_one(size):
    for seed in range(10):
        u, risk, cost = lines(np.random.default_rng(seed), size)
        for intervals in (1, 2, 7, 20, size - 1):
            fast = peers.shortest_path_of_lines(u, risk, intervals)
            np.testing.assert_array_equal(fast, peers.shortest_path(cost, intervals))


def test_linear_time_program_copes_with_flat_risks():
    u, risk = np.arange(50.0), np.repeat([3.0, 2.0, 1.0, 0.0, 0.0], 10)
    cost = (u - u[:, None]) * risk[:, None]
    for intervals in (1, 3, 10, 49):
        best = peers.path_cost(cost, u, peers.shortest_path(cost, intervals))
        assert peers.path_cost(cost, u, peers.shortest_path_of_lines(u, risk, intervals)) == best


def test_pair_program_without_penalty_is_the_shortest_path():
    for seed in range(10):
        u, risk, cost = lines(np.random.default_rng(seed), 60)
        path = peers.smooth_path(cost, u, 9, weight=0.0)
        np.testing.assert_array_equal(path, peers.shortest_path_of_lines(u, risk, 9))


@pytest.mark.parametrize(("rho", "loss"), [(1.0, 1e-12), (0.2, 1e-12), (0.02, 0.01), (0.0, 0.02)])
def test_beam_is_near_the_exact_pair_program(rho, loss):
    sigma = np.geomspace(50.0, 0.02, 90)
    gamma, places = sigma**-2.0, -2 * np.log(sigma)
    risk = gaussian_risk(1.0)(sigma) + gaussian_risk(0.04)(sigma)
    unit = risk / np.trapezoid(risk, gamma)
    cost = (gamma - gamma[:, None]) * unit[:, None]
    exact = peers.path_cost(cost, places, peers.smooth_path(cost, places, 8, weight=rho), weight=rho)
    found = peers.beam_path(lambda i, j: cost[i, j], places, 8, weight=rho)
    value = peers.path_cost(cost, places, found, weight=rho)
    assert exact - 1e-12 <= value <= exact * (1 + loss)


def test_narrow_beam_always_arrives():
    for intervals in (1, 2, 5, 18, 19):
        path = peers.beam_path(
            lambda i, j: -1.0 * (j - i) ** 2, np.arange(20.0), intervals, weight=0.0, beam=1, window=1, spread=0
        )
        assert path.size == intervals + 1
        assert path[0] == 0
        assert path[-1] == 19
        assert np.all(np.diff(path) > 0)


def pooled(values, weights):
    """Non-increasing least squares by pooling adjacent violators: every pool takes its weighted mean."""
    pools = []
    for value, weight in zip(values, weights, strict=True):
        pools.append([value, weight, 1])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            mean, mass, length = pools.pop()
            before, total = pools[-1], pools[-1][1] + mass
            pools[-1] = [(before[0] * before[1] + mean * mass) / total, total, before[2] + length]
    return np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])


def test_the_nearest_monotone_sequence_is_that_of_pooled_violators():
    rng = np.random.default_rng(0)
    for case in range(400):
        size = 1 + case % 40
        y, w = rng.normal(size=size) - np.linspace(0, 2, size), rng.exponential(size=size) + 0.1
        np.testing.assert_allclose(peers.monotone(y, w), pooled(y, w), rtol=0, atol=4e-15)
        rising = -pooled(-y, np.ones(size))
        np.testing.assert_allclose(peers.monotone(y, decreasing=False), rising, rtol=0, atol=4e-15)


# ----------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("lam", [0.04, 1.0, 9.0])
def test_schedule_of_one_gaussian_is_uniform_in_log_1_plus_gamma_lambda(lam):
    sigma = np.geomspace(0.01, 20.0, 6000)
    evidence = Evidence(
        sigma_min=0.01, sigma_max=20.0, terminal="rescale", risk=RiskCurve(sigma, gaussian_risk(lam)(sigma))
    )
    spacing = 2 * np.log(2000.0) / 5999  # of the candidates, in log gamma; log(1 + gamma lam) moves by less
    for steps in (2, 5, 12):
        for schedule in (LossAdaptive(candidates=6000), LossAdaptiveLimit(candidates=6000)):
            place = np.log1p(lam * schedule.sigmas(steps, evidence) ** -2.0)
            away = np.abs(place - np.linspace(place[0], place[-1], steps + 1)).max()
            assert away < 2 * spacing  # rounding of one node moves the best place of the next


def test_free_optimum_of_one_gaussian_is_uniform_in_log_1_plus_gamma_lambda():
    lam, ends = 1.7, np.array([0.05, 40.0])

    def total(a):
        gamma = np.concatenate([ends[:1], np.sort(np.exp(a)), ends[1:]])
        return float(np.sum(np.diff(gamma) * lam / (1 + gamma[:-1] * lam)))

    found = minimize(total, np.log([0.3, 2.0, 9.0]), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    want = np.expm1(np.linspace(*np.log1p(lam * ends), 5)) / lam
    np.testing.assert_allclose(np.sort(np.exp(found.x)), want[1:-1], rtol=1e-6)


def test_excess_at_many_steps_is_length_squared_over_twice_their_number():
    def both(sigma):
        return gaussian_risk(1.0)(sigma) + gaussian_risk(0.01)(sigma)

    sigma = np.geomspace(20.0, 0.05, 4000)
    gamma, risk = sigma**-2.0, both(sigma)
    area = 2 * risks.mutual_information(both, sigma[[0, -1]], pieces=40)
    length = float(np.sqrt(-np.diff(risk) * np.diff(gamma)).sum())

    def excess(path):
        return float(np.diff(gamma[path]) @ risk[path[:-1]]) - area

    for steps in (30, 60, 120):
        law = length**2 / (2 * steps)
        best = excess(peers.shortest_path_of_lines(gamma, risk, steps))
        assert abs(best / law - 1) < 2.2 / steps  # the next order
        lengths = np.sqrt(-np.diff(risk) * np.diff(gamma))[::-1]
        done = np.concatenate([[0.0], np.cumsum(lengths)])
        assert done[-1] == pytest.approx(length)
        logs = peers.equal_increments(np.log(sigma[::-1]), done, steps + 1)
        nearest = np.abs(np.log(sigma)[:, None] - logs).argmin(axis=0)
        assert best <= excess(nearest) < best * (1 + 1 / steps)


def test_saturating_axis_moves_nodes_away_from_low_noise():
    evidence = Evidence.of(co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)))
    plain = LossAdaptive().sigmas(8, evidence)
    saturating = LossAdaptive(axis=SaturatingSNR(0.01)).sigmas(8, evidence)
    assert np.all(saturating[1:-2] > plain[1:-2])
    np.testing.assert_array_equal(LossAdaptive(axis=lambda gamma: gamma).sigmas(8, evidence), plain)


def test_penalty_evens_the_steps_of_log_snr_and_works_with_many_candidates():
    evidence = Evidence.of(co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)))

    def bends(schedule):
        return np.abs(np.diff(np.log(schedule.sigmas(8, evidence)[:-1]), 2)).max()

    rough, exact = bends(LossAdaptive(candidates=120)), bends(LossAdaptive(smoothness=1.0, candidates=120))
    beam = bends(LossAdaptive(smoothness=1.0, candidates=500))
    assert exact < 0.5 * rough
    assert beam == pytest.approx(exact, abs=0.2)


def test_units_of_the_data_do_not_move_the_schedule():
    for smoothness in (0.0, 0.1):
        grids = []
        for scale in (1.0, 1000.0):
            sigma = scale * np.geomspace(0.01, 20.0, 400)
            risk = gaussian_risk(scale**2)(sigma) + gaussian_risk(0.01 * scale**2)(sigma)
            evidence = Evidence(sigma_min=sigma[0], sigma_max=sigma[-1], risk=RiskCurve(sigma, risk))
            schedule = LossAdaptive(smoothness=smoothness, axis=SaturatingSNR(1e-3 * scale**2), candidates=150)
            grids.append(schedule.sigmas(6, evidence) / scale)
        np.testing.assert_allclose(grids[0], grids[1], rtol=1e-9)


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


@pytest.mark.parametrize("name", ["las", "las_limit", "ays", "gits", *(f"ays_{t}" for t in peers.AYS_TABLES)])
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_every_schedule_gives_a_grid_at_every_number_of_steps(name, terminal):
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), terminal=terminal)
    evidence = Evidence.of(model)
    for steps in (2, 3, 11, 30) if terminal == "denoise" else (1, 2, 11, 30):
        grid = peers.schedule(name).sigmas(steps, evidence)
        assert grid.shape == (steps + 1,)
        assert grid[0] == 80.0
        assert np.all(np.diff(grid) < 0)
        assert float(model.wasserstein2(grid)) >= 0
        if terminal == "rescale" or not name.startswith("ays_"):
            assert grid[grid > 0][-1] == (80.0 if grid[grid > 0].size == 1 else 0.002)


# ------------------------------------------------------------------------------------------------ samplers


def test_sde_dpmpp_2m_is_its_variance_preserving_form():
    mixture, sigmas = grid8(), np.array([20.0, 4.0, 1.0, 0.5, 0.1, 0.0])
    path, x = BrownianPath(0, ("t",), 20.0, 0.1), 20.0 * mixture.sample(50, 3, dtype=torch.float64)
    found = sde_dpmpp_2m(mixture, sigmas, x, path)
    alpha = 1 / np.sqrt(1 + sigmas**2)
    noise, state, before, last = alpha * sigmas, alpha[0] * x, None, None
    for k in range(4):
        h = np.log(alpha[k + 1] / noise[k + 1]) - np.log(alpha[k] / noise[k])
        clean = mixture(state / alpha[k], torch.tensor(sigmas[k]))
        d = clean if before is None else clean + (clean - before) / (2 * last / h)
        z = path.draw(torch.tensor(sigmas[k]), torch.tensor(sigmas[k + 1]), x)
        state = noise[k + 1] / noise[k] * np.exp(-h) * state + alpha[k + 1] * (1 - np.exp(-2 * h)) * d
        state = state + noise[k + 1] * np.sqrt(1 - np.exp(-2 * h)) * z
        before, last = clean, h
    end = mixture(state / alpha[4], torch.tensor(sigmas[4]))
    torch.testing.assert_close(found, end, rtol=1e-9, atol=1e-9)


def test_first_step_of_sde_dpmpp_2m_is_ddim_with_eta_1():
    mixture, path = circle8(), BrownianPath(0, ("t",), 5.0, 0.5)
    x = 5.0 * mixture.sample(50, 3, dtype=torch.float64)
    for sigmas in ([5.0, 0.5], [5.0, 0.5, 0.0]):
        torch.testing.assert_close(
            sde_dpmpp_2m(mixture, sigmas, x, path), run(mixture, co.Ancestral(eta=1.0), sigmas, x, path)
        )


# ---------------------------------------------------------------------------------------------- experiment


def assert_las_wins(rows, sampler):
    cells = {}
    for row in rows:
        if row["sampler"] == sampler:
            cells.setdefault((row["world"], int(row["evaluations"])), {})[row["schedule"]] = row
    assert len(cells) == 6
    for cell, grids in cells.items():
        las = grids["las"]
        for other in ("time_uniform", "edm"):
            gap = float(grids[other]["nll"]) - float(las["nll"])
            error = np.hypot(float(grids[other]["nll_se"]), float(las["nll_se"]))
            assert gap > 3 * error, (cell, other, gap, error)


def test_loss_adaptive_grid_wins_every_ddim_cell_beyond_three_standard_errors():
    assert_las_wins(las_experiment(samples=2000, samplers=["ddim"]), "ddim")


@pytest.mark.parametrize("sampler", ["ddim", "sde_dpmpp_2m"])
def test_committed_table_of_20_000_samples_says_the_same(sampler):
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert min(int(row["samples"]) for row in rows) >= 20_000
    assert_las_wins(rows, sampler)
    for row in rows:  # no cell is won by samples that are too narrow
        assert row["schedule"] != "las" or float(row["nll"]) > float(row["entropy"])


def test_experiment_takes_other_mixtures():
    rows = las_experiment(samples=100, worlds={"wide": circle8(4.0)}, samplers=["ddim"], evaluations=[4])
    assert {row["world"] for row in rows} == {"wide"}
    grids = {row["schedule"]: row["sigmas"] for row in rows}
    usual = las_experiment(samples=100, worlds=["circle8"], samplers=["ddim"], evaluations=[4])
    assert grids["edm"] == usual[4]["sigmas"]
    assert grids["las"] != usual[0]["sigmas"]


def test_experiment_is_a_command(tmp_path, capsys):
    assert main(["las", "--samples", "20", "--out", str(tmp_path)]) == 0
    assert "las_experiment.csv" in capsys.readouterr().out
    with (tmp_path / "las_experiment.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 3 * 6


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: LossAdaptive(smoothness=-1.0), r"LossAdaptive.smoothness is -1"),
        (lambda: LossAdaptive(exponent=0.5), r"exponent is 0.5; it must be >= 1"),
        (lambda: LossAdaptive(candidates=1), r"LossAdaptive.candidates is 1"),
        (lambda: LossAdaptive(axis=0.5), r"LossAdaptive.axis is 0.5; a function"),
        (lambda: LossAdaptiveLimit(axis=None), r"LossAdaptiveLimit.axis is None"),
        (lambda: SaturatingSNR(-0.1), r"SaturatingSNR.beta is -0.1"),
        (lambda: LossAdaptive().sigmas(5, Evidence(sigma_min=0.1, sigma_max=1.0)), r"las needs Evidence.risk"),
        (lambda: LossAdaptive(axis=lambda g: -g).sigmas(5, EVIDENCE), r"axis\(gamma\) must be strictly ascending"),
        (lambda: LossAdaptive().sigmas(5, replace(EVIDENCE, sigma_min=0.05)), r"known from 0.1 to 1, but the range is"),
        (lambda: LossAdaptive().sigmas(5, replace(EVIDENCE, sigma_max=1.6)), r"guess it with `extended_risk`"),
        (lambda: peers.shortest_path(np.zeros((3, 2)), 1), r"cost has shape \(3, 2\)"),
        (lambda: peers.shortest_path(np.zeros((3, 3)), 3), r"intervals is 3, but 3 candidates"),
        (lambda: peers.shortest_path_of_lines([0.0, 1.0, 2.0], [1.0, 2.0, 0.0], 2), r"slopes grow from 1 to 2"),
        (lambda: peers.smooth_path(np.zeros((3, 3)), np.arange(3.0), 2, weight=-1.0), r"weight is -1"),
        (lambda: peers.equal_increments(np.arange(3.0), np.zeros(3), 2), r"the length is 0 over the whole range"),
        (lambda: peers.risk_from_losses([1.0, 1.0], [1.0, 1.0]), r"RiskCurve.sigma must be strictly ascending"),
        (lambda: peers.risk_from_losses([1.0, 2.0], [1.0, 1.0], target="noise"), r"Parameterization.name is 'noise'"),
        (lambda: risks.discretization_error(gaussian_risk(1.0), [1.0, 2.0]), r"sigmas must be strictly descending"),
        (lambda: risks.mmse_slope(np.zeros((1, 2, 2))), r"at least 2"),
        (lambda: risks.entropy_bound([0.5, 0.0], [2.0, 1.0]), r"probabilities is 0 at index 1"),
        (lambda: las_experiment(samples=1), r"samples is 1"),
        (lambda: las_experiment(worlds=["swiss"]), r"world is 'swiss'"),
        (lambda: las_experiment(samples=10, samplers=["heun"]), r"sampler is 'heun'"),
    ],
)
def test_bad_input_is_refused_by_name(call, text):
    with pytest.raises(ValueError, match=text):
        call()


EVIDENCE = Evidence(sigma_min=0.1, sigma_max=1.0, risk=RiskCurve(np.array([0.1, 1.0]), np.array([0.1, 1.0])))


def test_log_with_one_noise_level_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("examples,sigma,loss\n1,0.5,1.0\n1,0.5,2.0\n")
    with pytest.raises(ValueError, match="1 filled bins"):
        peers.risk_from_log(tmp_path / "log.csv")
