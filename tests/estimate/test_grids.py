"""Measured errors of grids and their descent, against exact laws and direct minimisation."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.runs.fine_solution import Draws, Reference
from codesign_opt.estimate.steps import grid_descent
from codesign_opt.estimate.steps.grid_descent import (
    DescentRules,
    _FreeSteps,
    descend_grid,
    jumped_grids,
    usual_grids,
)
from codesign_opt.estimate.steps.grid_error import GridErrors, measured_error, objective_of
from codesign_opt.estimate.steps.grid_runs import GridRuns

LAM = np.array([2.0, 0.5, 0.03, 0.2])
TOP, STOP = 20.0, 0.02
DOUBLE = torch.zeros((), dtype=torch.float64)
ODE = [co.Euler(), co.Heun(), co.DPMpp2M()]


def linear(lam=LAM):
    lam = torch.as_tensor(np.array(lam))
    return lambda x, sigma: x * (lam.to(x.dtype) / (lam.to(x.dtype) + sigma[:, None] ** 2))


def mixture(x, sigma):
    """Posterior mean under four Gaussians on a square."""
    centres = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -0.5]], dtype=x.dtype)
    total = 0.3**2 + sigma[:, None] ** 2
    share = (-((x[:, None, :] - centres) ** 2).sum(dim=2) / (2 * total)).softmax(dim=1)
    return share @ centres + (0.3**2 / total) * (x - share @ centres)


def problem(sampler, denoiser=None, dims=4, count=64, chunk=32, steps=32, stop=STOP, **options):
    draws = [Draws((dims,), count, TOP, name=name, chunk=chunk, like=DOUBLE) for name in ("descent", "held out")]
    return Reference(denoiser or linear(), sampler, draws[0], stop, steps=steps, **options), draws[1]


@pytest.mark.parametrize("sampler", ODE, ids=repr)
def test_the_measured_error_is_the_exact_one_of_the_affine_law_within_three_standard_errors(sampler):
    solution, _ = problem(sampler, count=400, chunk=400, steps=60)
    grid = co.edm_grid(7, 0.05, TOP)
    found = measured_error(solution, grid).mean
    fine = np.sqrt(LAM**2 / (LAM + STOP**2) / (LAM + TOP**2))
    truth = np.sum((sampler.terminal_law(grid, LAM).amplitude - fine) ** 2) * TOP**2
    assert abs(found.value - truth) <= 3 * found.standard_error + 1e-3 * truth


def test_the_ratio_of_two_grids_uses_that_the_draws_are_the_same():
    errors = np.random.default_rng(0).lognormal(sigma=2, size=400)
    one, other = GridErrors(0.5 * errors), GridErrors(errors)
    assert float(one.ratio(other).value) == pytest.approx(0.5)
    assert float(one.ratio(other).standard_error) < 1e-12


@pytest.mark.parametrize("name", ["mean", "geometric", "trimmed"])
def test_slope_of_an_objective_matches_finite_differences(name):
    errors = np.random.default_rng(1).lognormal(size=31)
    value, slope = objective_of(name)(errors)
    for i in (0, 7, int(np.argmax(errors))):
        moved = errors.copy()
        moved[i] *= 1 + 1e-6
        numeric = (objective_of(name)(moved)[0] - value) / (errors[i] * 1e-6)
        assert slope[i] == pytest.approx(numeric, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("free", [True, False])
def test_unknowns_give_descending_grids_with_their_slope(free):
    grid = co.edm_grid(6, 0.05, TOP)
    space, unknowns = _FreeSteps.of(grid, free, 0.04)
    np.testing.assert_allclose(space.grid(unknowns), grid, rtol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(5):
        at = unknowns + rng.normal(size=unknowns.size)
        made = space.grid(at)
        assert np.all(np.diff(made) < 0)
        assert made[-2] >= (0.04 if free else 0.05) * (1 - 1e-9)
        step = 1e-6 * rng.normal(size=at.size)
        change = np.log(space.grid(at + step)[1:-1]) - np.log(made[1:-1])
        np.testing.assert_allclose(space.slope(at) @ step, change, atol=1e-10)


@pytest.mark.cases(1)
@pytest.mark.parametrize("sampler", [*ODE, pytest.param(co.Ancestral(1.0), marks=pytest.mark.slow)], ids=repr)
def test_slopes_by_both_routes_match_differences_of_whole_runs(sampler):
    solution, held_out = problem(sampler, mixture, dims=2, count=6, chunk=4)
    grid, weights = co.edm_grid(6, 0.05, TOP), np.arange(1.0, 7.0)
    runs = [GridRuns(solution, solution.with_draws(held_out), Ledger(None, {}), autograd) for autograd in (True, False)]
    found = [each.slope(grid, weights) for each in runs]
    for k in range(1, 6):
        values = []
        for factor in (1 + 1e-5, 1 - 1e-5):
            moved = grid.copy()
            moved[k] *= factor
            values.append(weights @ runs[0].errors(moved))
        slope = (values[0] - values[1]) / 2e-5
        scale = np.abs(found[0]).max()
        assert found[0][k - 1] == pytest.approx(slope, rel=1e-3, abs=1e-3 * scale)
        assert sampler.eta > 0 or found[1][k - 1] == pytest.approx(slope, rel=0.05, abs=0.05 * scale)


@pytest.mark.slow
def test_descent_on_the_digits_spectrum_reaches_the_minimum_of_the_exact_expected_error():
    lam = co.Spectrum.from_samples(load_digits().data / 16 * 2 - 1).eigenvalues
    sampler, steps = co.Euler(), 8
    draws = [Draws((lam.size,), 512, 80.0, name=name, chunk=512, like=DOUBLE) for name in ("descent", "held out")]
    solution = Reference(linear(lam), sampler, draws[0], 0.002, steps=32)
    starts = [co.edm_grid(steps, 0.03, 80.0), co.log_snr_grid(steps, 0.03, 80.0)]
    found = descend_grid(solution, draws[1], starts, budget=5000)
    fine = np.sqrt(lam**2 / (lam + 0.002**2) / (lam + 80.0**2))

    def exact(grid):  # expectation over starts, by the affine law
        return np.sum((sampler.terminal_law(grid, lam).amplitude - fine) ** 2) * 80.0**2

    def of(unknowns):
        return np.log(exact(np.concatenate([[80.0], 80.0 * np.exp(-np.cumsum(np.exp(unknowns))), [0.0]])))

    start = np.log(-np.diff(np.log(starts[0][:-1])))
    best = min(np.exp(minimize(of, start, method="BFGS", options={"maxiter": 300}).fun) for _ in range(1))
    assert best < 0.9 * exact(found.start)
    assert exact(found.sigmas) < 1.01 * best


@pytest.mark.parametrize(
    "sampler", [co.DPMpp2M(), *(pytest.param(other, marks=pytest.mark.slow) for other in ODE[:2])], ids=repr
)
def test_descent_on_a_mixture_beats_every_start_on_other_draws(sampler):
    solution, held_out = problem(sampler, mixture, dims=2, count=64, chunk=64, steps=32)
    starts = usual_grids(5, TOP, stops=(0.02, 0.1))
    found = descend_grid(solution, held_out, starts, budget=1500)
    others = solution.with_draws(Draws((2,), 400, TOP, name="test", chunk=400, like=DOUBLE))
    after = measured_error(others, found.sigmas)
    assert all(after.mean.value < 0.95 * measured_error(others, grid).mean.value for grid in starts)
    assert np.all(np.diff(found.sigmas) < 0)
    assert found.batches <= 1500


def test_a_jumped_node_leaves_its_interval_for_one_beside_it():
    for terminal in ("denoise", "rescale"):
        grid = co.edm_grid(6, 0.05, TOP, terminal=terminal)
        logs, found = np.log(grid[grid > 0]), jumped_grids(grid)
        assert len(found) == 2 * (logs.size - 2) - 2  # one beside the first and the last interval, two else
        for made in found:
            assert np.all(np.diff(made) < 0)
            np.testing.assert_array_equal(made[[0, -1]], grid[[0, -1]])
            new = np.log(made[made > 0])
            (at,) = (i for i in range(new.size) if not np.any(np.isclose(new[i], logs)))
            (gone,) = (i for i in range(logs.size) if not np.any(np.isclose(logs[i], new)))
            assert new[at] == pytest.approx(0.5 * (new[at - 1] + new[at + 1]))
            assert abs(at - gone) == 1  # past one neighbour
    assert jumped_grids(np.array([4.0, 2.0, 1.0])) == []


def test_jumps_leave_a_minimum_that_descents_of_the_start_end_in(monkeypatch):
    # two stretches of levels that matter: how many nodes are in each is the start's, unless one jumps
    lam, sampler = np.array([4.0, 1e-3, 1e-3, 1e-3]), co.Euler()
    fine = np.sqrt(lam**2 / (lam + 0.002**2) / (lam + TOP**2))

    def descended(start: np.ndarray, jumps: int) -> float:
        monkeypatch.setattr(grid_descent, "_JUMPS", jumps)
        solution, held_out = problem(sampler, linear(lam), count=64, chunk=64, steps=16, stop=0.002)
        found = descend_grid(solution, held_out, [start], budget=4000).sigmas
        return float(np.sum((sampler.terminal_law(found, lam).amplitude - fine) ** 2) * TOP**2)

    edm, log_snr = co.edm_grid(6, 0.002, TOP), co.log_snr_grid(6, 0.002, TOP)
    best = descended(log_snr, 0)
    assert descended(edm, 0) > 1.3 * best
    assert descended(edm, 2) < 1.01 * best


@pytest.mark.parametrize("name", ["geometric", "trimmed"])
def test_robust_objectives_lower_the_statistic_that_they_name(name):
    solution, held_out = problem(co.Heun(), mixture, dims=2, count=64, chunk=64)
    found = descend_grid(solution, held_out, usual_grids(5, TOP, stops=(0.05,)), rules=DescentRules(name), budget=900)
    value = objective_of(name)
    assert value(found.held_out.errors)[0] < 0.9 * value(found.held_out_before.errors)[0]


@pytest.mark.slow
def test_held_out_draws_stop_the_descent_that_overfits():
    # few draws to descend: their own error goes on falling, the returned grid is the best held out
    draws = [Draws((2,), n, TOP, name=name, chunk=64, like=DOUBLE) for n, name in ((2, "descent"), (64, "held out"))]
    solution = Reference(mixture, co.Heun(), draws[0], STOP)
    found = descend_grid(solution, draws[1], usual_grids(8, TOP, stops=(0.05,)), budget=6000)
    assert found.held_out.mean.value <= found.held_out_before.mean.value
    assert found.reason != "budget"


def test_a_descent_stays_inside_its_budget_and_counts_what_it_spends():
    calls = [0]

    def counted(x, sigma):
        calls[0] += 1
        return linear()(x, sigma)

    solution, held_out = problem(co.Heun(), counted, steps=32, count=32)
    found = descend_grid(solution, held_out, usual_grids(8, TOP, stops=(0.05,)), budget=1200)
    assert 0.5 * found.batches < calls[0] <= found.batches <= 1200
    with pytest.raises(ValueError, match="the fine solution and the starts alone take"):
        descend_grid(solution, held_out, usual_grids(12, TOP), budget=100)


class Killed(Exception):
    pass


def test_a_descent_killed_at_any_batch_goes_on_and_gives_the_same(tmp_path):
    solution, held_out = problem(co.DPMpp2M(), steps=6, count=16, chunk=16)
    starts = usual_grids(4, TOP, stops=(0.05,))
    whole = descend_grid(solution, held_out, starts, budget=500)
    rng, calls = np.random.default_rng(0), [0]

    def fragile(x, sigma):
        calls[0] -= 1
        if calls[0] < 0:
            raise Killed
        return linear()(x, sigma)

    fragile.__name__ = solution.denoiser.name
    broken, _ = problem(co.DPMpp2M(), fragile, steps=6, count=16, chunk=16)
    kills, found = 0, None
    while found is None:
        calls[0] = int(rng.integers(27, 60))
        try:
            found = descend_grid(broken, held_out, starts, budget=500, folder=tmp_path)
        except Killed:
            kills += 1
    assert kills >= 3
    np.testing.assert_array_equal(found.sigmas, whole.sigmas)
    assert (found.batches, found.reason) == (whole.batches, whole.reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": []}, "starts must hold"),
        ({"starts": [[10.0, 1.0, 0.0]]}, "sigmas starts at 10, the draws at 20"),
        ({"starts": [[TOP, 1.0, 0.0], [TOP, 2.0, 1.0, 0.0]]}, "all of one number of steps"),
        ({"held_out": Draws((4,), 8, TOP, name="descent")}, "another name"),
        ({"budget": 0}, "budget is 0"),
    ],
)
def test_bad_input_is_named(change, message):
    solution, held_out = problem(co.Euler(), steps=8)
    starts = change.pop("starts", usual_grids(4, TOP, stops=(0.05,)))
    with pytest.raises(ValueError, match=message):
        descend_grid(solution, change.pop("held_out", held_out), starts, **change)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"objective": "median"}, "objective is 'median'"),
        ({"patience": 0}, "patience is 0"),
        ({"gradient": "magic"}, "gradient is 'magic'"),
    ],
)
def test_rules_out_of_range_are_named(field, message):
    with pytest.raises(ValueError, match=message):
        DescentRules(**field)


def test_a_start_that_is_read_only_and_too_dear_for_differences_is_descended():
    solution, held_out = problem(co.Heun(), steps=8, count=4, chunk=4)
    start = co.edm_grid(16, STOP, TOP)
    start.setflags(write=False)
    found = descend_grid(solution, held_out, [start], rules=DescentRules(gradient="autograd"), budget=600)
    assert found.held_out.mean.value < found.held_out_before.mean.value


@pytest.mark.parametrize("grain", [0.0, 0.0005, 0.003])
def test_differences_are_as_wide_as_the_rounding_of_the_answers_asks_for(grain):
    """Answers on a grid of spacing g are off by g / sqrt(12)."""
    gain = torch.linspace(0.2, 1.0, 500, dtype=torch.float64)

    def denoiser(x, sigma):
        return gain * x if grain == 0 else torch.round(gain * x / grain) * grain

    draws = Draws((500,), 4, 20.0, like=gain)
    reference = Reference(denoiser, co.Heun(), draws, 0.05)
    states = torch.randn(4000, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2**0.5
    truth = grain / 12**0.5 / float((gain * states).square().mean()) ** 0.5
    runs = GridRuns(reference, reference, Ledger(None, {}), autograd=False)
    assert runs.nudge == (0.01 if grain == 0 else pytest.approx(8 * truth**0.5, rel=0.1))
    assert runs.rounds == (grain > 0)
