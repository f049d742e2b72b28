"""Grids that are handed out: whole steps, the polish, the fits, against brute force and named schedules."""

import os

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_digits

import codesign_opt as co
from codesign_opt.ingredients.grids import grid_from_steps, steps_on_levels
from codesign_opt.modeling.prediction import predict
from codesign_opt.models.polish import polish_grid, rho_fit
from tests.helpers.gaussian_truth import responses, wasserstein2

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
STOP, HIGH = 0.002, 20.0
PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)


@pytest.fixture(scope="module")
def digits():
    return co.Spectrum.from_samples(load_digits().data / 16 * 2 - 1)


@pytest.mark.cases(1)
@pytest.mark.parametrize(("sampler", "promised"), [(co.Euler(), 0.55), (co.Heun(), 0.35)])
@pytest.mark.parametrize("terminal", ["rescale", "denoise"])
def test_exact_distance_on_digits_beats_the_better_of_edm_and_log_snr(digits, sampler, promised, terminal):
    m = co.GaussianModel(digits, co.EDM(STOP, HIGH), sampler, terminal=terminal, start="marginal")
    own = co.GaussianModel(digits, co.EDM(STOP, HIGH), sampler, terminal=terminal, start="marginal")
    for steps in (8, 10, 15, 20, 40) if FULL else (8, 20):
        plan = co.codesign(m, steps=steps, stopping_sigma=STOP)
        assert plan.sigmas.size == steps + 1
        assert plan.sigmas[0] == HIGH
        assert plan.sigmas[plan.sigmas > 0][-1] == STOP
        named = {
            "edm": float(own.wasserstein2(co.edm_grid(steps, STOP, HIGH, terminal=terminal))),
            "log_snr": float(own.wasserstein2(co.log_snr_grid(steps, STOP, HIGH, terminal=terminal))),
        }
        planned = float(own.wasserstein2(plan.sigmas))
        ratio = planned / min(named.values())
        print(f"{sampler.name:5} {terminal:7} K = {steps:2}: plan {planned:.4e}, edm {named['edm']:.4e}, "
              f"log_snr {named['log_snr']:.4e}, ratio to the better {ratio:.3f}")  # fmt: skip
        assert ratio <= promised


def free_descent(error, steps, terminal, low, high, seeds):
    """Least error over unconstrained descents on the logarithms of all interior nodes, gradient by differences."""
    tail = [0.0] if terminal == "denoise" else []
    count = steps - 1 - len(tail)

    def grid(x):
        share = np.exp(x - x.max())
        return np.concatenate([high * np.exp(np.log(low / high) * np.cumsum(np.append(0, share / share.sum()))), tail])

    best = np.inf
    for seed in seeds:
        start = np.random.default_rng(seed).normal(size=count + 1, scale=0.7)

        def value(x):
            return float(np.log(error(grid(x))))

        def slope(x):
            h = 1e-5
            moved = np.stack([grid(x + h * e) for e in np.eye(x.size)] + [grid(x - h * e) for e in np.eye(x.size)])
            values = np.log(error(moved))
            return (values[: x.size] - values[x.size :]) / (2 * h)

        best = min(best, float(np.exp(minimize(value, start, jac=slope, method="BFGS").fun)))
    return best


MATRIX = [(sampler, terminal) for sampler in (co.Euler(), co.Heun()) for terminal in ("rescale", "denoise")]


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "terminal"), MATRIX if FULL else MATRIX[::3])
@pytest.mark.parametrize("steps", [8, 15] if FULL else [8])
def test_polished_grid_is_within_one_percent_of_a_free_descent_from_20_random_starts(digits, sampler, terminal, steps):
    m = co.GaussianModel(digits.in_bands(12), co.EDM(STOP, HIGH), sampler, terminal=terminal, start="marginal")
    plan = co.codesign(m, steps=steps, stopping_sigma=STOP)
    limit = free_descent(m.wasserstein2, steps, terminal, STOP, HIGH, range(20))
    reached = float(m.wasserstein2(plan.sigmas))
    print(f"{sampler.name:5} {terminal:7} K = {steps}: plan {reached:.5e}, free {limit:.5e}, {reached / limit:.4f}")
    assert reached <= 1.01 * limit


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", ["euler", "heun", "dpmpp_2m"])
def test_prediction_of_a_grid_is_that_of_scalar_loops_and_finite_differences(kind):
    sampler = {"euler": co.Euler(), "heun": co.Heun(), "dpmpp_2m": co.DPMpp2M()}[kind]
    spectrum = co.Spectrum.from_bands([1.3, 0.2, 0.004], [2, 5, 30], mean_power=[0.7, 0.0, 2.0])
    m = co.GaussianModel(spectrum, co.EDM(0.002, 40.0), sampler, coupling=co.Local(1.5))
    plan = co.codesign(m, PRICES, 1e5, levels=60, points=5, polish=False)
    grid, nodes = plan.sigmas, plan.sigmas[plan.sigmas > 0]
    truth = wasserstein2(kind, grid, spectrum.eigenvalues, spectrum.counts, spectrum.mean_power)
    assert plan.handed_out["bias"] == pytest.approx(truth, rel=1e-10)
    # the score: max(1, length/step) / (rho length / (kappa_k A) + 1 / (kappa_k D)) at a constant density, D the squared
    # slope that a denoiser of output 0 lacks
    density = 1e5
    table = m.settled(grid, 60)
    parts = predict(m, grid, density * table.log_width, 60)
    log_steps = -np.diff(np.log(nodes))
    total, start = np.zeros(nodes.size), np.zeros(nodes.size)
    for lam, n in zip(spectrum.eigenvalues, spectrum.counts, strict=True):
        kappa = responses(kind, list(grid), float(lam))[: nodes.size] ** 2
        total += n * kappa * lam * nodes**2 / (lam + nodes**2) ** 2 / (density * 1.5)
        start += n * kappa * (lam / (lam + nodes**2)) ** 2
    total = 1 / (1 / total + 1 / start)
    score = float(np.sum(np.maximum(1.0, 1.5 / log_steps) * total[:-1]))
    assert parts["score"] == pytest.approx(score, rel=1e-5)
    assert parts["last evaluation"] == pytest.approx(total[-1], rel=1e-5)
    assert parts["total"] == pytest.approx(truth + score + total[-1], rel=1e-5)


def test_handed_out_plan_stays_within_its_budget_and_whole_steps():
    for sampler in (co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(0.5)):
        for terminal in ("denoise", "rescale"):
            m = co.GaussianModel(co.Spectrum.power_law(16, 1.5), sampler=sampler, terminal=terminal)
            plan = co.codesign(m, PRICES, 2e5, stopping_sigma=0.02, levels=60, polish=False)
            final = 1 if terminal == "denoise" else 0
            evaluations = (plan.number_of_steps - final) * sampler.evaluations_per_step + final
            spent = 3.0 * plan.examples.sum() + 1_000 * evaluations
            assert spent <= 2e5 * (1 + 1e-9)
            assert plan.costs["training"] + plan.costs["sampling"] == pytest.approx(spent, rel=1e-9)


def test_more_steps_than_anyone_can_run_are_cut_and_said_so():
    m = co.GaussianModel(co.Spectrum.power_law(8, 1.5), sampler=co.Euler())
    plan = co.codesign(m, co.Prices(1.0, 1.0, 1.0), 1e14, stopping_sigma=0.05, levels=40, polish=False)
    assert plan.number_of_steps == 10_000
    assert any("10,000" in note for note in plan.notes)


def test_grid_of_whole_steps_has_equal_increments_of_the_step_count():
    levels = co.Levels.log_uniform(0.01, 10.0, 50)
    steps = np.random.default_rng(0).uniform(0.1, 1.0, 50)
    for terminal, count in (("denoise", 7), ("rescale", 6)):
        grid = grid_from_steps(levels, steps, 7, terminal=terminal)
        assert grid.size == 8
        positive = grid[grid > 0]
        accumulated = np.interp(np.log(positive), np.log(levels.edges), np.concatenate([[0], np.cumsum(steps)]))
        np.testing.assert_allclose(np.diff(accumulated), -steps.sum() / (positive.size - 1), rtol=1e-9)
        assert steps_on_levels(levels, grid).sum() == pytest.approx(positive.size - 1, abs=1e-12)
        assert count <= positive.size


def test_polish_never_makes_a_grid_worse_and_keeps_its_ends():
    rng = np.random.default_rng(5)
    for sampler in (co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(1.0), co.EulerMaruyama(0.7)):
        m = co.GaussianModel(co.Spectrum.power_law(10, 1.2), sampler=sampler)
        grid = np.append(np.sort(np.exp(rng.uniform(np.log(0.02), np.log(60.0), 8)))[::-1], 0.0)
        found = polish_grid(m.wasserstein2, grid, max_iterations=60)
        assert found.after <= found.before
        assert found.after == pytest.approx(float(m.wasserstein2(found.sigmas)), rel=1e-12)
        assert found.sigmas[0] == grid[0]
        assert found.sigmas[-2] == grid[-2]


def test_rho_fit_finds_no_better_exponent_by_brute_force(digits):
    m = co.GaussianModel(digits.in_bands(12), co.EDM(STOP, HIGH), co.Euler(), start="marginal")
    plan = co.codesign(m, steps=18, stopping_sigma=STOP, levels=100)
    found = rho_fit(m.wasserstein2, plan.sigmas)
    brute = min(float(m.wasserstein2(co.edm_grid(18, STOP, HIGH, rho=rho))) for rho in np.geomspace(1.0, 100.0, 400))
    assert found.error <= brute * (1 + 1e-9)
    assert found.error == pytest.approx(float(m.wasserstein2(co.edm_grid(18, STOP, HIGH, rho=found.rho))), rel=1e-12)
    assert found.loss == pytest.approx(found.error / float(m.wasserstein2(plan.sigmas)) - 1, rel=1e-9)
    assert found.loss > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4) if FULL else (0, 1))
def test_what_is_handed_out_is_the_prediction_on_its_own_levels_which_no_step_straddles(seed, tmp_path):
    rng = np.random.default_rng(seed)
    model = co.GaussianModel(
        co.Spectrum.power_law(int(rng.choice([1, 16])), exponent=rng.uniform(0.5, 2.5)),
        sampler=(co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(1.0))[seed],
        terminal=("denoise", "rescale")[seed % 2],
    )  # fmt: skip
    run = co.TrainingRun(co.LogNormal(), 10, 64) if seed == 1 else None
    plan = co.codesign(model, co.Prices(3.0, 1.0, 1000), 3e4, run=run, levels=60, points=5, outer_tolerance=0.1)
    plan.save(tmp_path / "plan.json")
    back = co.Plan.load(tmp_path / "plan.json")
    told = model.predict(back.sigmas, back.examples, levels=back.levels).total
    assert told == pytest.approx(plan.handed_out["total"], rel=1e-12)
    assert np.all(np.isin(plan.sigmas[plan.sigmas > 0], plan.levels.edges))
    used = plan.costs["training"] + plan.costs["sampling"]
    assert used == pytest.approx(3e4, rel=1e-6)
    asked = {"run": run, "levels": 60, "stopping_sigma": plan.stopping_sigma}
    program = co.codesign(model, co.Prices(3.0, 1.0, 1000), 3e4, polish=False, **asked)
    assert plan.steps.sum() == pytest.approx(program.steps.sum(), rel=1e-3)
