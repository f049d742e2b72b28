"""Loss-adaptive schedules: programs against enumeration, closed forms of one Gaussian, bad input."""

import os
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.peers import Evidence, LossAdaptive, LossAdaptiveLimit, RiskCurve, SaturatingSNR, risks
from problems.studies.las_experiment import las_experiment
from tests.helpers.gaussian_truth import gaussian_risk

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def lines(rng, size):
    """Ascending axis, falling risk, and the matrix of their interval costs."""
    u, risk = np.cumsum(rng.exponential(size=size)), np.sort(rng.exponential(size=size))[::-1]
    return u, risk, (u - u[:, None]) * risk[:, None]


# ------------------------------------------------------------------------------- programs against enumeration


def enumerated(cost, places, intervals, weight, exponent=2.0):
    paths = [(0, *middle, len(places) - 1) for middle in combinations(range(1, len(places) - 1), intervals - 1)]
    return min(peers.path_cost(cost, places, np.array(p), weight=weight, exponent=exponent) for p in paths)


@pytest.mark.cases(1)
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


@pytest.mark.cases(1)
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


@pytest.mark.slow
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


SCHEDULES = ["las", "las_limit", "ays", "gits", *(f"ays_{t}" for t in peers.AYS_TABLES)]
MATRIX = [(terminal, name) for name in SCHEDULES for terminal in ("denoise", "rescale")]


@pytest.mark.parametrize(("terminal", "name"), MATRIX if FULL else MATRIX[::3])
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
