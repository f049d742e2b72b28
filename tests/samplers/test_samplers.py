"""Samplers against literal scalar loops, Monte Carlo, fine grids and finite differences."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_opt.samplers.affine_steps import denoiser_weights
from codesign_opt.samplers.members import (
    Ancestral,
    DPMpp2M,
    Euler,
    EulerMaruyama,
    Heun,
    Sampler,
    TerminalLaw,
    check_grid,
)

SAMPLERS = [
    Euler(),
    Heun(),
    DPMpp2M(),
    Ancestral(0.0),
    Ancestral(0.5),
    Ancestral(1.0),
    Ancestral(1.4),
    EulerMaruyama(0.0),
    EulerMaruyama(0.5),
    EulerMaruyama(1.0),
    EulerMaruyama(1.4),
]
ODE = [Euler(), Heun(), DPMpp2M()]
NOISY = [Ancestral(0.5), Ancestral(1.0), EulerMaruyama(0.5), EulerMaruyama(1.0), EulerMaruyama(1.4)]
LAM = np.array([4.0, 0.25, 1e-3, 0.0])


def edm_grid(steps, sigma_max=80.0, sigma_min=0.002, rho=7.0, zero=True):
    ramp = np.linspace(0, 1, steps)
    nodes = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return np.append(nodes, 0.0) if zero else nodes


GRIDS = {
    "denoise": edm_grid(9),
    "rescale": edm_grid(10, sigma_min=0.05, zero=False),
    "uneven": np.array([10.0, 9.0, 2.0, 1.7, 0.3, 0.01, 0.0]),
    "one step to zero": np.array([5.0, 0.0]),
    "one step": np.array([5.0, 0.5]),
}


# ---- the samplers once more, literally, on a scalar x (model(x, i) is the denoiser at node i) ----


def sample_euler(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, i)) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def sample_heun(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, i)) / sigmas[i]
        dt = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - model(x_2, i + 1)) / sigmas[i + 1]
            x = x + (d + d_2) / 2 * dt
    return x


def sample_dpmpp_2m(model, x, sigmas, noise, eta):
    old = None
    for i in range(len(sigmas) - 1):
        denoised = model(x, i)
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        t, t_next = -math.log(sigmas[i]), -math.log(sigmas[i + 1])
        h = t_next - t
        if old is None:
            mixed = denoised
        else:
            r = (t - -math.log(sigmas[i - 1])) / h
            mixed = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * old
        x = (sigmas[i + 1] / sigmas[i]) * x - math.expm1(-h) * mixed
        old = denoised
    return x


def sample_euler_ancestral(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        a, b = sigmas[i], sigmas[i + 1]
        up = min(b, eta * (b**2 * (a**2 - b**2) / a**2) ** 0.5)
        down = (b**2 - up**2) ** 0.5
        d = (x - model(x, i)) / a
        x = x + d * (down - a)
        if b > 0:
            x = x + noise[i] * up
    return x


def sample_euler_maruyama(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        a, b = sigmas[i], sigmas[i + 1]
        if b == 0:
            x = model(x, i)
            continue
        minus_score = (x - model(x, i)) / a**2
        x = x + (1 + eta**2) * a * minus_score * (b - a) + eta * math.sqrt(2 * a * (a - b)) * noise[i]
    return x


LITERAL = {
    "euler": sample_euler,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "euler_ancestral": sample_euler_ancestral,
    "euler_maruyama": sample_euler_maruyama,
}


def literal_law(sampler, sigmas, weights, start):
    """Amplitude and variance of one band, by pushing x = 1 and then each unit of noise alone."""
    run = LITERAL[sampler.name]
    silence = [0.0] * (len(sigmas) - 1)

    def push(x, noise):
        return run(lambda y, i: weights[i] * y, x, [float(s) for s in sigmas], noise, sampler.eta)

    amplitude = push(1.0, silence)
    variance = amplitude**2 * start
    for i in range(len(silence)):
        variance += push(0.0, [float(i == j) for j in range(len(silence))]) ** 2
    return amplitude, variance


def ids(value):
    return repr(value) if isinstance(value, Sampler) else None


# ---- exact laws ----


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_terminal_law_is_that_of_the_literal_scalar_loop(sampler, grid):
    law = sampler.terminal_law(grid, LAM)
    for b, lam in enumerate(LAM):
        weights = [lam / (lam + s**2) if s > 0 else 1.0 for s in grid]
        amplitude, variance = literal_law(sampler, grid, weights, lam + grid[0] ** 2)
        assert law.amplitude[b] == pytest.approx(amplitude, rel=1e-10, abs=1e-14)
        assert law.variance[b] == pytest.approx(variance, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_any_linear_denoiser_and_start_match_the_literal_loop_in_batches(sampler):
    rng = np.random.default_rng(3)
    grids = np.sort(rng.uniform(0.01, 5.0, (3, 1, 7)), axis=-1)[..., ::-1].copy()
    grids[1, 0, -1] = 0.0  # both terminals in one batch
    weights = rng.uniform(-0.3, 1.2, (2, 7, 3))
    start = rng.uniform(0.5, 2.0, 3)
    law = sampler.terminal_law(grids, LAM[:3], denoiser=weights, initial_variance=start)
    assert law.amplitude.shape == law.variance.shape == (3, 2, 3)
    for g, w, b in np.ndindex(3, 2, 3):
        amplitude, variance = literal_law(sampler, grids[g, 0], weights[w, :, b], start[b])
        assert law.amplitude[g, w, b] == pytest.approx(amplitude, rel=1e-9, abs=1e-13)
        assert law.variance[g, w, b] == pytest.approx(variance, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("grid", ["denoise", "rescale"])
@pytest.mark.parametrize("sampler", NOISY, ids=ids)
def test_terminal_law_matches_monte_carlo_of_the_stochastic_samplers(sampler, grid):
    draws, lam, sigmas = 100_000, 0.25, GRIDS[grid]
    rng = np.random.default_rng(11)
    start = math.sqrt(lam + sigmas[0] ** 2)
    x = start * (1.0 + rng.standard_normal(draws))  # a mean of one start std besides
    noise = rng.standard_normal((len(sigmas) - 1, draws))
    out = LITERAL[sampler.name](
        lambda y, i: lam / (lam + sigmas[i] ** 2) * y, x, [float(s) for s in sigmas], noise, sampler.eta
    )
    law = sampler.terminal_law(sigmas, [lam])
    variance = law.variance[0]
    assert abs(out.mean() - law.amplitude[0] * start) < 3 * math.sqrt(variance / draws)
    assert abs(out.var(ddof=1) - variance) < 3 * variance * math.sqrt(2 / (draws - 1))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_last_step_to_zero_is_the_plain_denoiser(sampler):
    grid = edm_grid(8, sigma_min=0.3)
    before = sampler.terminal_law(grid[:-1], LAM)
    after = sampler.terminal_law(grid, LAM)
    weight = LAM / (LAM + 0.3**2)
    np.testing.assert_allclose(after.std, weight * before.std, rtol=1e-13)
    np.testing.assert_allclose(after.amplitude, weight * before.amplitude, rtol=1e-13)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_fine_grids_reach_the_exact_terminal_std(sampler):
    grid = np.geomspace(20.0, 0.1, 4001)
    law = sampler.terminal_law(grid, LAM)
    np.testing.assert_allclose(law.std, np.sqrt(LAM + 0.01), rtol=2e-2 if sampler.order == 1 else 1e-5)
    # the mean is forgotten (v_r / v)^((1 + eta^2) / 2)
    forgotten = ((LAM + 0.01) / (LAM + 400.0)) ** ((1 + sampler.eta**2) / 2)
    np.testing.assert_allclose(law.amplitude, forgotten, rtol=5e-2 if sampler.order == 1 else 1e-5)


def test_noise_free_eta_is_euler():
    grid, euler = GRIDS["denoise"], Euler()
    for sampler in (Ancestral(0.0), EulerMaruyama(0.0)):
        np.testing.assert_allclose(sampler.terminal_law(grid, LAM).std, euler.terminal_law(grid, LAM).std, rtol=1e-13)
        np.testing.assert_allclose(
            sampler.local_error(LAM, [0.1, 2.0], 0.1), euler.local_error(LAM, [0.1, 2.0], 0.1), rtol=1e-14
        )


def test_tangent_law_multiplier_over_exact_is_cosine_for_euler_and_its_correction_for_heun():
    rng = np.random.default_rng(5)
    for lam, a, share in zip(rng.uniform(0.01, 9, 50), rng.uniform(0.1, 30, 50), rng.random(50), strict=True):
        b = a * share
        exact = math.sqrt((lam + b**2) / (lam + a**2))
        delta = math.atan(a / math.sqrt(lam)) - math.atan(b / math.sqrt(lam))
        euler = Euler().terminal_law([a, b], [lam]).amplitude[0]
        heun = Heun().terminal_law([a, b], [lam]).amplitude[0]
        correction = 0.5 * math.sin(delta) ** 2 * math.sqrt((lam + a**2) / (lam + b**2))
        assert euler / exact == pytest.approx(math.cos(delta), rel=1e-12)
        assert heun / exact == pytest.approx(math.cos(delta) + correction, rel=1e-12)


def test_uniform_angles_are_the_best_euler_grid_of_one_band():
    lam, steps = 0.25, 9
    low, high = math.atan(0.05 / 0.5), math.atan(80 / 0.5)
    angles = np.linspace(high, low, steps + 1)
    best = Euler().terminal_law(0.5 * np.tan(angles), [lam]).std[0]
    exact = math.sqrt(lam + 0.05**2)
    assert best == pytest.approx(exact * math.cos((high - low) / steps) ** steps, rel=1e-12)
    rng = np.random.default_rng(2)
    others = np.sort(rng.uniform(low, high, (500, steps - 1)))[:, ::-1]
    ends = np.ones((500, 1))
    grids = 0.5 * np.tan(np.hstack([high * ends, others, low * ends]))
    assert (Euler().terminal_law(grids, [lam]).std < best).all()


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1e4), st.floats(1e-3, 1e3), st.just(0.0) | st.floats(1e-5, 0.999))
def test_every_real_step_of_euler_heun_and_ancestral_is_stable(lam, sigma, share):
    below = sigma * share
    for sampler in (Euler(), Heun(), Ancestral(0.7), Ancestral(1.0)):
        multiplier = sampler.terminal_law([sigma, below], [lam]).amplitude[0]
        assert -1e-10 <= multiplier <= 1 + 1e-10


def test_euler_maruyama_is_stable_for_every_real_step_up_to_eta_one_but_not_beyond():
    a, share = np.geomspace(1e-2, 1e2, 40)[:, None], np.linspace(1e-4, 0.99, 30)
    steps = np.stack(np.broadcast_arrays(a, a * share), axis=-1)
    for eta, stable in [(0.5, True), (1.0, True), (1.5, False)]:
        multipliers = EulerMaruyama(eta).terminal_law(steps, LAM).amplitude
        assert (np.abs(multipliers) <= 1).all() == stable


def test_2m_can_amplify_in_one_step():
    lam = np.geomspace(1e-6, 1e4, 2001)
    for steps, worst in [(2, 1.60), (3, 1.48), (8, 1.19)]:
        grid = edm_grid(steps + 1, zero=False)
        path = [DPMpp2M().terminal_law(grid[: k + 1], lam).amplitude for k in range(1, steps + 1)]
        assert max((b / a).max() for a, b in pairwise(path)) == pytest.approx(worst, abs=0.005)


# ---- local error ----


def log_uniform(u):
    return 30.0 * (0.05 / 30.0) ** u


def rho_seven(u):
    return (30 ** (1 / 7) + u * (0.05 ** (1 / 7) - 30 ** (1 / 7))) ** 7


def wobbly(u):
    return log_uniform(u + 0.1 * np.sin(2 * np.pi * u))


@pytest.mark.parametrize("path", [log_uniform, rho_seven, wobbly])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_local_error_is_the_leading_order_of_the_signed_relative_std_error(sampler, path):
    lam, stop, q = np.array([4.0, 0.25, 1e-3]), 0.05, sampler.order
    exact = np.sqrt(lam + stop**2)

    def scaled_error(steps):
        grid = path(np.linspace(0, 1, steps + 1))
        return (sampler.terminal_law(grid, lam).std / exact - 1) * steps**q

    measured = 2 * scaled_error(4000) - scaled_error(2000)
    u = (np.arange(20_000) + 0.5) / 20_000
    slope = np.abs(path(u + 1e-5) - path(u - 1e-5)) / 2e-5
    predicted = -(sampler.local_error(lam, path(u), stop) * slope ** (q + 1)).mean(axis=1)
    if isinstance(sampler, DPMpp2M):  # its first step is Euler's: one more term of the same order
        first = (path(0.0) - path(1e-6)) / 1e-6
        predicted -= first**2 * Euler().local_error(lam, [path(0.0)], stop)[:, 0]
    scale = (np.abs(sampler.local_error(lam, path(u), stop)) * slope ** (q + 1)).mean(axis=1)
    assert (np.abs(measured - predicted) < 2e-3 * scale).all()


@pytest.mark.parametrize(("sampler", "ratios"), [(Euler(), (1.43, 1.17, 1.07)), (Heun(), (0.57, 0.78, 0.89))], ids=ids)
def test_leading_order_over_exact_error_on_edm_grids_is_that_of_the_theory(sampler, ratios):
    lam, stop = np.arange(1, 65.0) ** -1.5, 0.002
    target = np.sqrt(lam + stop**2)
    u = (np.arange(4000) + 0.5) / 4000
    sigma, end = (80 ** (1 / 7) + u * (stop ** (1 / 7) - 80 ** (1 / 7))) ** 7, stop ** (1 / 7) - 80 ** (1 / 7)
    slope = np.abs(7 * sigma ** (6 / 7) * end)
    for steps, ratio in zip((8, 18, 40), ratios, strict=True):
        exact = ((sampler.terminal_law(edm_grid(steps + 1, zero=False), lam).std - target) ** 2).sum()
        local = np.abs(sampler.local_error(lam, sigma, stop)) * slope ** (sampler.order + 1)
        leading = ((target * local.mean(axis=1) / steps**sampler.order) ** 2).sum()
        assert leading / exact == pytest.approx(ratio, abs=0.012)


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.4])
def test_euler_maruyama_inflates_a_band_without_variance(eta):
    grid = np.geomspace(30.0, 0.05, 4001)
    relative = EulerMaruyama(eta).terminal_law(grid, [0.0]).std[0] / 0.05 - 1
    local = EulerMaruyama(eta).local_error([0.0], grid[:-1], 0.05)[0]
    assert relative == pytest.approx(-(local * np.diff(grid) ** 2).sum(), rel=2e-2)
    assert relative > 0


def test_signed_says_whether_the_local_error_changes_sign():
    sigma = np.geomspace(1e-3, 1e3, 400)
    for sampler in SAMPLERS:
        local = sampler.local_error([1.0], sigma, 1e-3)[0]
        assert sampler.signed == (local.min() < 0 < local.max())
    assert abs(DPMpp2M().local_error([2.0], [3**0.5], 0.01)[0, 0]) < 1e-16
    assert abs(EulerMaruyama(0.5).local_error([0.25 * 2.25], [1.0], 0.01)[0, 0]) < 1e-16


def test_attributes_of_every_sampler():
    table = [(s.name, s.order, s.evaluations_per_step, s.eta) for s in (*ODE, Ancestral(0.5), EulerMaruyama())]
    assert table == [
        ("euler", 1, 1, 0.0),
        ("heun", 2, 2, 0.0),
        ("dpmpp_2m", 2, 1, 0.0),
        ("euler_ancestral", 1, 1, 0.5),
        ("euler_maruyama", 1, 1, 1.0),
    ]


# ---- positivity ----


def test_minimum_steps_are_the_worked_example_of_the_theory():
    steps = EulerMaruyama(1.0).minimum_steps([1.0, 1e-4], 80.0, 0.002)
    assert round(steps.density, 1) == 17.9
    assert round(steps.grid, 1) == 13.4


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.6])
def test_the_longest_positive_grid_has_zero_multipliers_and_the_stated_count(eta):
    sampler, lam = EulerMaruyama(eta), np.array([1.0, 1e-2])
    sigmas = [80.0]
    while sigmas[-1] > 0.05:
        sigmas.append(sigmas[-1] - sampler.positivity_cap(lam, [sigmas[-1]])[0])
    steps = sampler.minimum_steps(lam, 80.0, 0.05)
    assert math.ceil(steps.grid) == len(sigmas) - 1
    assert steps.density > steps.grid
    for a, b in pairwise(sigmas[:-1]):
        multipliers = sampler.terminal_law([a, b], lam).amplitude
        assert abs(multipliers[1]) < 1e-12
        assert multipliers[0] >= -1e-12  # the smallest eigenvalue binds first
    # the density is the integral of one over the cap
    sigma = np.geomspace(0.05, 80.0, 20_001)
    assert steps.density == pytest.approx(np.trapezoid(1 / sampler.positivity_cap(lam, sigma), sigma), rel=1e-6)


def test_stability_cap_is_where_the_multiplier_is_minus_one():
    sampler, sigma = EulerMaruyama(2.0), 3.0
    step = sampler.stability_cap([0.5, 4.0], [sigma])[0]
    assert sampler.terminal_law([sigma, sigma - step], [0.5]).amplitude[0] == pytest.approx(-1.0, rel=1e-12)
    assert (EulerMaruyama(1.0).stability_cap(LAM, [0.1, 9.0]) >= [0.1, 9.0]).all()


@pytest.mark.parametrize("sampler", [*ODE, Ancestral(), EulerMaruyama(0.0)], ids=ids)
def test_samplers_with_positive_multipliers_have_no_cap(sampler):
    assert np.isinf(sampler.positivity_cap(LAM, [0.1, 1.0])).all()
    assert np.isinf(sampler.stability_cap(LAM, [0.1, 1.0])).all()
    assert sampler.minimum_steps(LAM, 80.0, 0.002) == (0.0, 0.0)


# ---- gradients ----


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_weight_sensitivity_matches_complex_steps_and_finite_differences_of_the_law(sampler, grid):
    lam = LAM[:3]
    weights = denoiser_weights(lam, grid)
    sensitivity = sampler.weight_sensitivity(grid, lam)
    assert sensitivity.shape == weights.shape
    directions = np.eye(len(grid))[:, :, None]  # one batch entry per node
    step = sampler.terminal_law(grid, lam, denoiser=weights + 1e-30j * directions)
    np.testing.assert_allclose(sensitivity, step.std.imag / 1e-30, rtol=1e-10, atol=1e-14)
    ahead = sampler.terminal_law(grid, lam, denoiser=weights + 1e-6 * directions).std
    behind = sampler.terminal_law(grid, lam, denoiser=weights - 1e-6 * directions).std
    scale = np.abs(sensitivity).max()
    np.testing.assert_allclose(sensitivity, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_weight_sensitivity_of_a_broken_denoiser_matches_the_literal_loop(sampler):
    rng = np.random.default_rng(8)
    grid = GRIDS["uneven"]
    weights = rng.uniform(-0.4, 1.3, (len(grid), 1))  # negative amplitudes too
    sensitivity = sampler.weight_sensitivity(grid, [1.0], denoiser=weights, initial_variance=[2.0])
    for k in range(len(grid)):
        std = []
        for h in (1e-5, -1e-5):
            shifted = weights[:, 0].copy()
            shifted[k] += h
            std.append(math.sqrt(literal_law(sampler, grid, shifted, 2.0)[1]))
        assert sensitivity[k, 0] == pytest.approx((std[0] - std[1]) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", ["denoise", "rescale", "uneven"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_complex_steps_differentiate_law_and_adjoint_by_the_grid(sampler, name):
    grid, lam = GRIDS[name], LAM[:3]
    nodes = len(grid) - (grid[-1] == 0)
    batch = grid + 1e-30j * np.eye(len(grid))[:nodes]
    by_law = sampler.terminal_law(batch, lam).std.imag / 1e-30
    by_adjoint = sampler.weight_sensitivity(batch, lam).imag / 1e-30
    for k in range(nodes):
        h = 1e-5 * grid[k]
        shift = h * np.eye(len(grid))[k]
        std = [sampler.terminal_law(grid + s * shift, lam).std for s in (1, -1)]
        scale = np.abs(by_law).max(axis=0) + 1e-12
        assert (np.abs(by_law[k] - (std[0] - std[1]) / (2 * h)) < 1e-5 * scale).all()
        adjoint = [sampler.weight_sensitivity(grid + s * shift, lam) for s in (1, -1)]
        scale = np.abs(by_adjoint).max(axis=(0, 1)) + 1e-12
        assert (np.abs(by_adjoint[k] - (adjoint[0] - adjoint[1]) / (2 * h)) < 1e-5 * scale).all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_complex_steps_survive_tiny_step_ratios(sampler):
    """A ratio of 1e-10 must not lose the derivative to cancelled terms (of a square root above all)."""
    grid = np.array([100.0, 1e-8, 1e-9])
    batch = grid + 1e-40j * np.eye(3)
    by_law = sampler.terminal_law(batch, [1e-18]).std.imag / 1e-40
    for k in range(3):
        shift = 1e-5 * grid * np.eye(3)[k]
        std = [sampler.terminal_law(grid + s * shift, [1e-18]).std[0] for s in (1, -1)]
        difference = (std[0] - std[1]) / (2 * shift[k])
        assert by_law[k, 0] == pytest.approx(difference, rel=1e-3, abs=1e-9 * np.abs(by_law).max())


@pytest.mark.parametrize("steps", [10, 40])
@pytest.mark.parametrize("sampler", [Euler(), Heun(), DPMpp2M(), Ancestral(1.0), EulerMaruyama(0.7)], ids=ids)
def test_discrete_kernel_is_the_variance_over_perturbed_denoisers(sampler, steps):
    draws, lam = 20_000, 0.25
    grid = edm_grid(steps)
    rng = np.random.default_rng(steps)
    weights = np.array([lam / (lam + s**2) if s > 0 else 1.0 for s in grid])
    spread = 1e-4 * rng.uniform(0.5, 2.0, len(grid)) * weights
    noisy = weights[:, None] + spread[:, None] * rng.standard_normal((len(grid), draws))
    # one literal run per source of randomness, all draws of the denoiser at once
    run, levels = LITERAL[sampler.name], [float(s) for s in grid]

    def push(x, noise):
        return run(lambda y, i: noisy[i] * y, x, levels, noise, sampler.eta)

    zero = np.zeros(draws)
    variance = push(zero + 1.0, [0.0] * steps) ** 2 * (lam + grid[0] ** 2)
    if sampler.eta:
        for i in range(steps):
            variance += push(zero, [float(i == j) for j in range(steps)]) ** 2
    measured = np.sqrt(variance).var(ddof=1)
    kernel = (sampler.weight_sensitivity(grid, [lam])[:, 0] ** 2 * spread**2).sum()
    assert abs(measured / kernel - 1) < 3 * math.sqrt(2 / (draws - 1))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_sensitivity_at_zero_output_is_the_one_sided_derivative(sampler):
    grid = GRIDS["denoise"]
    sensitivity = sampler.weight_sensitivity(grid, [0.0])  # W = 0 everywhere: the output is 0
    weights = np.zeros((len(grid), 1))
    weights[-2] = 1e-7
    grown = sampler.terminal_law(grid, [0.0], denoiser=weights).std[0]
    assert sensitivity[-2, 0] == pytest.approx(grown / 1e-7, rel=1e-5)
    assert np.isfinite(sensitivity).all()


# ---- values and refusals ----


def test_samplers_are_values_that_survive_a_round_trip():
    for sampler in SAMPLERS:
        assert Sampler.from_dict(sampler.to_dict()) == sampler
    assert Ancestral(0.5) != Ancestral(0.6)
    with pytest.raises(ValueError, match=r"Sampler.name is 'ddpm'; it must be one of 'euler'"):
        Sampler.from_dict({"name": "ddpm"})
    with pytest.raises(ValueError, match="Sampler heun has no parameter eta"):
        Sampler.from_dict({"name": "heun", "eta": 1.0})
    with pytest.raises(AttributeError):
        Ancestral().eta = 2.0
    assert isinstance(Euler().terminal_law([1.0, 0.0], [1.0]), TerminalLaw)


def test_check_grid_reads_the_terminal_and_the_stopping_point():
    grid = check_grid([80, 3, 0.5, 0], "Plan.sigmas")
    assert (grid.terminal, grid.stopping_sigma, grid.sigmas.dtype) == ("denoise", 0.5, np.float64)
    assert check_grid(np.array([3.0, 1.0])).terminal == "rescale"
    for bad, words in [
        ([1.0], "at least 2"),
        ([1.0, 2.0], "strictly descending"),
        ([1.0, 0.0, 0.0], "strictly descending"),
        ([1.0, -1.0], "must be >= 0"),
        ([np.nan, 1.0], "must be finite"),
        ([True, False], "dtype bool"),
        ([[2.0, 1.0]], "dimension"),
        ([], "at least 2"),
    ]:
        with pytest.raises(ValueError, match=f"Plan.sigmas.*{words}"):
            check_grid(bad, "Plan.sigmas")


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([1.0], [1.0]), {}, "sigmas has 1 node"),
        (([1.0, 2.0], [1.0]), {}, "sigmas is 2 at index 1; it must be below"),
        (([2.0, 0.0, -1.0], [1.0]), {}, "sigmas is -1 at index 2"),
        (([np.inf, 1.0], [1.0]), {}, "sigmas is inf at index 0; it must be finite"),
        (([True, False], [1.0]), {}, "sigmas has dtype bool"),
        ((2.0, [1.0]), {}, "sigmas has shape"),
        (([[2.0, 1.0], [1.0]], [1.0]), {}, "sigmas is not a rectangular"),
        (([2.0, 1.0], [-1.0]), {}, "eigenvalues is -1 at index 0"),
        (([2.0, 1.0], []), {}, "eigenvalues has 0 entries"),
        (
            ([2.0, 1.0], [1.0]),
            {"denoiser": np.ones((3, 1))},
            r"last axes must be \(nodes, bands\) = \(2, 1\)",
        ),
        (([2.0, 1.0], [1.0]), {"denoiser": [[np.nan], [1.0]]}, r"denoiser is nan at index \(0, 0\)"),
        (([2.0, 1.0], [1.0]), {"initial_variance": [-1.0]}, "initial_variance is -1 at index 0"),
        (([2.0, 1.0], [1.0]), {"initial_variance": [1.0, 2.0]}, "initial_variance has 2 bands"),
        ((np.ones((2, 1)) * [2.0, 1.0], [1.0]), {"denoiser": np.ones((3, 2, 1))}, "do not broadcast"),
    ],
)
@pytest.mark.parametrize("method", ["terminal_law", "weight_sensitivity"])
def test_malformed_laws_are_refused_by_name(method, arguments, options, words):
    with pytest.raises(ValueError, match=words):
        getattr(Heun(), method)(*arguments, **options)


def test_malformed_local_arguments_are_refused_by_name():
    for kind in (Ancestral, EulerMaruyama):
        for bad in (-0.1, math.nan, math.inf, True, "1", None, [1.0]):
            with pytest.raises(ValueError, match=f"{kind.__name__}.eta"):
                kind(bad)
    with pytest.raises(ValueError, match="stopping_sigma is 0; it must be > 0"):
        Euler().local_error([1.0], [1.0], 0.0)
    with pytest.raises(ValueError, match="sigma is 0 at index 1"):
        Euler().local_error([1.0], [1.0, 0.0], 0.1)
    with pytest.raises(ValueError, match="sigma is -1 at index 0"):
        EulerMaruyama().positivity_cap([1.0], [-1.0])
    with pytest.raises(ValueError, match="must be below sigma_max"):
        EulerMaruyama().minimum_steps([1.0], 1.0, 1.0)
