"""Caps on steps, obeyed by the whole steps that are handed out: every step is checked here by its own arithmetic."""

import os

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.ingredients.levels import Levels
from codesign_opt.modeling.step_limits import StepLimits, smallest_variance
from codesign_opt.planning.real_steps import INSIDE, START, RealSteps

FULL = bool(os.environ.get("CODESIGN_OPT_FULL"))
KINDS = ("size", "range", "floor", "density", "monotone", "stability", "trust", "raw", "both")
SAMPLERS = (co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(0.5), co.EulerMaruyama(1.0))


def drawn(seed):
    """A model, prices, budget, stopping point (None: searched) and a constraint of each kind in turn."""
    rng, kind = np.random.default_rng(seed), KINDS[seed % 9]
    low, high = float(10 ** rng.uniform(-2.7, -1.3)), float(10 ** rng.uniform(1, 2))
    spectrum = co.Spectrum.power_law(int(rng.integers(4, 40)), exponent=float(rng.uniform(0.8, 2)))
    sampler, terminal = SAMPLERS[seed % 5], ("denoise", "rescale")[(seed // 5) % 2]
    model = co.GaussianModel(spectrum, process=co.EDM(low, high), sampler=sampler, terminal=terminal)
    prices = co.Prices(float(rng.uniform(1, 5)), 1.0, float(10 ** rng.uniform(2, 3)))
    stop = float(low * 10 ** rng.uniform(0.1, 1.0)) if seed % 3 else None
    a = float(rng.uniform(0.25, 0.9))
    needed = np.log(high / low) / a if kind in ("size", "raw", "both") else 20
    budget = float(sampler.evaluations_per_step * prices.images * needed * 10 ** rng.uniform(0.05, 0.8) + prices.images)
    table = lambda d: model.coefficients(float(d.levels.edges[0]), 60)  # noqa: E731
    constraints = {
        "size": [co.Cap(lambda s: a * s, "step_size")],
        "range": [co.Cap(lambda s: 0.4 * a * s, "step_size", low=0.3, high=3.0)],
        "floor": [co.Floor(1.5, "step_density")],
        "density": [co.Cap(4.0, "step_density")],
        "monotone": [co.Monotone(("increasing", "decreasing")[seed % 2], "step_density")],
        "stability": [lambda d: co.StabilityCap(table(d)).constraints(d)],
        "trust": [lambda d: co.TrustCap(table(d), kappa=0.8).constraints(d)],
        "raw": [lambda d: d.step_sizes <= a * d.sigma],
        "both": [co.Cap(lambda s: a * s, "step_size"), co.Cap(8.0, "step_density")],
    }[kind]
    return kind, a, model, prices, budget, stop, constraints


def obeys(kind, a, model, plan, direction):
    """Every real step between noise levels, at the level where it starts, and inside it unless the plan says not."""
    nodes = plan.sigmas[plan.sigmas > 0]
    high, low = nodes[:-1], nodes[1:]
    length, density = high - low, 1 / np.log(high / low)
    everywhere = not any("where it starts" in note for note in plan.notes)
    at = low if everywhere else high
    smallest = model.spectrum.eigenvalues.min()
    grid = 1 + 1e-9
    if kind in ("size", "both", "raw"):  # a user's row on step sizes speaks of lengths, as a cap on them does
        assert np.all(length <= a * at * grid)
    if kind == "range":
        on = (high > 0.3) & (low < 3.0)
        assert np.all(length[on] <= 0.4 * a * np.clip(at[on], 0.3, 3.0) * grid)
    if kind == "floor":
        assert np.all(density >= 1.5 / (1 + 1e-6))
    if kind in ("density", "both"):
        assert np.all(density <= (4.0 if kind == "density" else 8.0) * (1 + 1e-6))
    if kind == "monotone":
        change = np.diff(density) / density[1:]
        assert np.all(change <= 1e-6) if direction == "increasing" else np.all(change >= -1e-6)
    if kind == "stability" and model.sampler.positivity:
        limit = (smallest + high**2) / (model.sampler.positivity * high)
        assert np.all(length <= limit * np.exp(2 * plan.levels.log_width.max()))
    if kind == "trust":
        assert np.all(length <= 0.8 * (smallest + high**2) / high * np.exp(2 * plan.levels.log_width.max()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60) if FULL else (1, 4, 14))
def test_every_real_step_obeys_and_the_budget_holds(seed):
    kind, a, model, prices, budget, stop, constraints = drawn(seed)
    plan = co.codesign(
        model, prices, budget, constraints=constraints, stopping_sigma=stop, levels=60, points=6 if FULL else 3
    )
    obeys(kind, a, model, plan, getattr(constraints[0], "direction", None))
    evaluations = (plan.number_of_steps - (model.terminal == "denoise")) * model.sampler.evaluations_per_step
    evaluations += model.terminal == "denoise"
    paid = prices.example * plan.examples.sum() + prices.images * evaluations
    assert paid <= budget * (1 + 1e-9)
    assert plan.certificate.optimal


def test_caps_of_half_sigma_with_a_budget_give_27_to_29_steps():
    model, prices = co.GaussianModel(co.Spectrum.power_law(32, exponent=1.0)), co.Prices(3.0, 1.0, 1000)
    cap = co.Cap(lambda s: 0.5 * s, "step_size")
    plan = co.codesign(model, prices, 1e5, stopping_sigma=0.02, constraints=[cap])
    nodes = plan.sigmas[plan.sigmas > 0]
    assert 27 <= plan.number_of_steps <= 29
    assert np.all(-np.diff(nodes) <= 0.5 * nodes[1:])
    free = co.codesign(model, prices, 1e5, stopping_sigma=0.02, polish=None if FULL else False)
    assert np.any(-np.diff(free.sigmas[free.sigmas > 0]) > 0.5 * free.sigmas[free.sigmas > 0][:-1]), "the cap binds"
    assert plan.costs["training"] + plan.costs["sampling"] <= 1e5 * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_a_budget_with_room_for_the_least_real_grid_alone_is_not_infeasible(terminal):
    # cap a sigma at the level where a step starts: the shortest grid shrinks by 1 - a; inside it by 1 / (1 + a)
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Euler(), terminal=terminal)
    prices, a, stop, final = co.Prices(1.0, 1.0, 1000), 0.5, 0.02, int(terminal == "denoise")
    span = np.log(80.0 / stop)
    inside, start = int(np.ceil(span / np.log(1 + a))), int(np.ceil(-span / np.log(1 - a)))
    density = span / a  # what the program asks for
    assert start < density < inside
    cap = co.Cap(lambda s: a * s, "step_size")
    for count, said in ((inside, False), (int(np.ceil(density)), True)):
        budget = 1000.0 * (count + final + 0.5)
        quick = {"levels": 80} if FULL else {"levels": 40, "polish": False}
        plan = co.codesign(model, prices, budget, stopping_sigma=stop, constraints=[cap], **quick)
        nodes = plan.sigmas[plan.sigmas > 0]
        assert np.all(-np.diff(nodes) <= a * nodes[:-1] * (1 + 1e-9))
        assert any("where it starts" in note for note in plan.notes) == said
        assert plan.number_of_steps - final <= count


def test_a_given_grid_that_obeys_is_trained_for_and_one_that_does_not_is_refused():
    model, prices = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)), co.Prices(1.0, 1.0, 100)
    cap = co.Cap(lambda s: 0.5 * s, "step_size")
    fine, coarse = co.log_snr_grid(25, 0.01, 80.0), co.log_snr_grid(8, 0.01, 80.0)
    plan = co.codesign(model, prices, 1e5, sigmas=fine, constraints=[cap], levels=60)
    np.testing.assert_array_equal(plan.sigmas, fine)
    with pytest.raises(co.CodesignError):
        co.codesign(model, prices, 1e5, sigmas=coarse, constraints=[cap], levels=60)


def greedy(limit, low, high):
    """Steps of the shortest grid whose steps are at most the least of `limit` inside them, by brute force."""
    at, count = high, 0
    while at > low * (1 + 1e-12):
        tried = np.linspace(low, at, 20_001)[:-1]
        running = np.minimum.accumulate(limit(np.append(tried, at))[::-1])[::-1][:-1]
        fits = at - tried <= running
        if not fits.any():
            return 0
        at, count = tried[np.argmax(fits)], count + 1
    return count


@pytest.mark.cases(2)
@pytest.mark.parametrize("seed", range(6))
def test_least_number_of_steps_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    a, v, edge = rng.uniform(0.2, 0.8), 10 ** rng.uniform(-4, 0), 10 ** rng.uniform(-1, 0.5)
    curves = [lambda s: a * s, lambda s: 0.7 * (v + s**2) / s, lambda s: np.where(s < edge, a * s, 0.3 * a * s)]
    curve = curves[seed % 3]
    real = RealSteps(StepLimits(longest=curve, breaks=frozenset([edge])), Levels.log_uniform(0.02, 30.0, 70))
    assert abs(real.least_steps(INSIDE) - greedy(curve, 0.02, 30.0)) <= (1 if seed % 3 else 0)
    steps = rng.uniform(0.5, 2.0, 70)
    for reading in (INSIDE, START):
        least = real.least_steps(reading)
        for count in (least, least + 1, 2 * least):
            grid = real.place(steps, count, "rescale", reading)
            assert grid is not None
            assert grid.size == count + 1
            h = -np.diff(grid)
            assert np.all(h <= curve(grid[:-1] * (1 - 1e-12)) * (1 + 1e-9))
            if reading == INSIDE:
                inside = np.geomspace(grid[1:] * (1 + 1e-8), grid[:-1] * (1 - 1e-8), 200)
                assert np.all(h <= curve(inside).min(axis=0) * (1 + 1e-9))
        assert real.place(steps, least - 1, "rescale", reading) is None


def test_placed_grids_are_the_density_s_own_where_nothing_binds():
    levels, rng = Levels.log_uniform(0.02, 30.0, 70), np.random.default_rng(1)
    steps = rng.uniform(0.5, 2.0, 70)
    free = RealSteps(StepLimits(longest=lambda s: 10 * s), levels)
    from codesign_opt.ingredients.grids import grid_from_steps

    np.testing.assert_allclose(
        free.place(steps, 20, "denoise"), grid_from_steps(levels, steps, 20, terminal="denoise"), rtol=2e-3
    )


def test_variance_behind_a_ratio_is_recovered():
    for smallest in (1e-6, 1e-2, 1.0, 0.0):
        spectrum = co.Spectrum.from_eigenvalues([1.0, smallest])
        table = co.GaussianModel(spectrum, sampler=co.EulerMaruyama(1.0)).coefficients(0.01, 60)
        assert smallest_variance(table) == pytest.approx(smallest, rel=1e-6, abs=1e-12)


@pytest.mark.slow
def test_a_table_of_the_stopping_point_and_a_row_on_step_sizes_leave_the_grid_that_lengths_allow():
    """As densities, 1 / 0.8 per unit log sigma, the row asks for 8 steps and the last one; as lengths for 4."""
    model = co.GaussianModel(
        co.Spectrum.power_law(8, exponent=1.0), process=co.EDM(0.01, 18.7), sampler=co.Ancestral(0.3)
    )
    trust = co.TrustCap(model.coefficients(0.04, levels=100), 1.0)
    row = co.named("mine", lambda d: d.step_sizes <= 0.8 * d.sigma)
    plan = co.codesign(
        model, co.Prices(1.0, 1.0, 100.0), 880.0, stopping_sigma=0.04, constraints=[row, trust], levels=100
    )
    nodes = plan.sigmas[plan.sigmas > 0]
    length, smallest = nodes[:-1] - nodes[1:], model.spectrum.eigenvalues.min()
    assert np.all(length <= 0.8 * nodes[:-1] * (1 + 1e-9))
    assert np.all(length <= (smallest + nodes[:-1] ** 2) / nodes[:-1] * (1 + 1e-9))
    assert plan.number_of_steps <= 8


def test_a_cap_of_another_table_is_refused_by_name():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.0), process=co.EDM(0.01, 18.7))
    trust = co.TrustCap(model.coefficients(0.1, levels=100), 1.0)
    table = model.coefficients(0.02, levels=100)
    with pytest.raises(ValueError, match=r"TrustCap: its table has .* levels from sigma = 0\.1"):
        co.Problem(co.Discretization(table), [co.Steps() <= 10, trust])


def test_lengths_of_levels_are_a_power_between_them_and_end_with_them():
    levels = Levels.log_uniform(0.01, 10.0, 20)
    least = levels.width / (0.3 * levels.sigma**1.2)
    least[[0, 1, 7]] = 0.0
    limits = StepLimits.of_lengths(least, levels)
    sigma = np.geomspace(0.0101, 9.99, 300)
    free = (sigma < levels.edges[2]) | ((sigma >= levels.edges[7]) & (sigma <= levels.edges[8]))
    wanted = np.where(free, np.inf, 0.3 * sigma**1.2)
    np.testing.assert_allclose(limits.longest(sigma), wanted, rtol=1e-12)
    assert StepLimits.of_lengths(np.zeros(20), levels) is None


@pytest.mark.slow
def test_a_schedule_of_the_literature_that_is_handed_out_obeys_as_the_plan_does():
    """A grid whose steps are short enough where they start alone was taken for one that obeys inside them."""
    variances, counts = (
        [2.09348, 0.594451, 0.200932, 0.0981224, 0.0190989, 0.0171452, 0.00511192],
        [1, 1, 5, 2, 8, 4, 1],
    )
    model = co.GaussianModel(
        co.Spectrum(variances, counts), process=co.EDM(0.04756827, 11.44582), sampler=co.Heun(), terminal="rescale"
    )
    longest = lambda s: 0.650318949 * s / (1 + 0.2 * s)  # noqa: E731
    plan = co.codesign(
        model, co.Prices(2.0, 1.0, 581.24), 47163.28, constraints=[co.Cap(longest, "step_size")],
        stopping_sigma=0.0749531843, levels=50,
    )  # fmt: skip
    nodes = plan.sigmas[plan.sigmas > 0]
    assert not any("where it starts" in note for note in plan.notes)
    assert np.all(nodes[:-1] - nodes[1:] <= longest(nodes[1:]) * (1 + 1e-9))
