"""Fitted multistep solvers: programs against least squares of their own, derivatives, gains on unseen draws, kills."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.runs.fine_solution import Draws, Reference
from codesign_opt.estimate.runs.run import run
from codesign_opt.estimate.solver_fit.fit_rows import fit_rows
from codesign_opt.estimate.solver_fit.joint import JointFit, Unknowns
from codesign_opt.estimate.solver_fit.quadratic import Bounds, damped_step
from codesign_opt.estimate.solver_fit.row_runs import RowRuns
from codesign_opt.estimate.solver_fit.rows import Rows, two_step_rows
from codesign_opt.estimate.solver_fit.stepwise import stepwise_fit
from codesign_opt.ingredients.fit_rules import FitRules
from codesign_opt.testbed import circle8
from tests.helpers.processes import of_two

GRID = co.edm_grid(5, 0.02, 20.0)
MIXTURE = circle8()


def draws(name: str, count: int = 24) -> Draws:
    return Draws((2,), count, 20.0, name=name, chunk=16, like=torch.zeros((), dtype=torch.float64))


def reference(name: str = "fit", count: int = 24, **options: object) -> Reference:
    return Reference(MIXTURE, co.Euler(), draws(name, count), 0.02, steps=32, **options)


def runs(name: str = "fit", count: int = 24) -> RowRuns:
    return RowRuns(reference(name, count), GRID[1:-1], Ledger(None, {}))


def other_rows(seed: int, history: int = 3) -> Rows:
    rng, rows = np.random.default_rng(seed), two_step_rows(GRID, history)
    for k in range(rows.steps):
        rows = rows.with_row(k, rows.free(k) + 0.05 * rng.normal(size=1 + rows.reach(k)))
    return rows


@pytest.mark.parametrize(("history", "sampler"), [(1, co.Euler()), (2, co.DPMpp2M())])
def test_two_step_rows_are_the_samplers(history, sampler):
    own = runs()
    for chunk in range(2):
        expected = run(MIXTURE, sampler, GRID, own.draws.start(chunk))
        found = own.path(two_step_rows(GRID, history), chunk).states[-1]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_every_row_sums_to_one_after_any_move():
    rows = other_rows(0)
    moved = Unknowns().applied(rows, 0.02 * np.random.default_rng(1).normal(size=Unknowns().count(rows)))
    for each in (rows, moved, rows.moved(np.log(GRID[1:-1]) + 0.03)):
        np.testing.assert_allclose(each.a + each.c.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    # and rows follow their levels: what a fit adds to the two-step rows stays
    np.testing.assert_allclose(moved.moved(np.log(moved.levels[1:-1])).c, moved.c, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_damped_step_is_least_squares_and_its_gap_holds(seed):
    rng = np.random.default_rng(seed)
    rows, rest, damping = rng.normal(size=(30, 6)) * np.logspace(0, 5, 6), rng.normal(size=30), 1e-4
    gram, slope = rows.T @ rows, rows.T @ rest
    stacked = np.vstack([rows, np.sqrt(damping) * np.diag(np.linalg.norm(rows, axis=0))])
    expected = -np.linalg.lstsq(stacked, np.concatenate([rest, np.zeros(6)]), rcond=None)[0]
    found = damped_step(gram, slope, damping)
    np.testing.assert_allclose(found.move, expected, rtol=1e-8)
    assert found.relative_gap < 1e-12
    # the bound is one: of a worse point, too, the distance to the minimum is at most the gap
    scale = np.linalg.norm(rows, axis=0)
    matrix = gram + damping * np.diag(scale**2)
    worse = found.move * (1 + 0.1 * rng.normal(size=6))
    gradient = (matrix @ worse + slope) / scale
    excess = slope @ worse + 0.5 * worse @ matrix @ worse - found.value
    assert excess <= gradient @ gradient / (2 * damping) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_bounded_step_is_the_minimum_of_its_program_and_its_gap_holds(seed):
    rng, size, damping = np.random.default_rng(seed), 7, 1e-3
    root = rng.normal(size=(size, size)) * np.logspace(0, 2, size)
    gram, slope = root.T @ root, 100 * rng.normal(size=size)
    sides = np.vstack([rng.normal(size=(4, size)), rng.normal(size=size) * np.eye(size)[-1]])
    sides = np.vstack([sides, -sides.sum(axis=0)])  # a dependent one: together they bound a sum from both sides
    free = damped_step(gram, slope, damping).move
    least = np.minimum(0.3 * (sides @ free), -1e-3 * np.abs(sides @ free))  # cuts off where that goes
    found = damped_step(gram, slope, damping, Bounds(sides, least))
    move = cp.Variable(size)
    curved = np.linalg.cholesky(gram + damping * np.diag(np.diag(gram))).T
    value = cp.Problem(cp.Minimize(slope @ move + 0.5 * cp.sum_squares(curved @ move)), [sides @ move >= least]).solve()
    assert found.value == pytest.approx(value, rel=1e-5)
    assert found.value > damped_step(gram, slope, damping).value * (1 - 1e-3)
    assert np.all(sides @ found.move >= least - 1e-6 * np.abs(least).max())
    assert found.relative_gap < 1e-6


def test_no_move_within_the_bounds_brings_levels_too_near_or_too_low():
    rng, unknowns = np.random.default_rng(0), Unknowns(lowest=0.02)
    for history, free in ((1, True), (3, True), (3, False)):
        rows, unknowns = other_rows(3, history), replace(unknowns, stop=free)
        size = unknowns.count(rows)
        for pull in (1e-6, 1.0, 1e3):
            slope = pull * rng.normal(size=size)
            slope[-3:] *= 10  # levels want to go far beyond each other
            move = damped_step(np.eye(size), slope, 1e-3, unknowns.bounds(rows)).move
            moved = unknowns.applied(rows, move)
            assert moved is not None
            steps, before = (-np.diff(np.log(each.levels[:-1])) for each in (moved, rows))
            assert np.all(steps >= 0.25 * before * (1 - 1e-5))
            assert moved.levels[-2] >= 0.02 * (1 - 1e-9)


def test_levels_that_want_to_move_far_do_not_hold_back_a_fit():
    """Twelve steps on circle8, where a fit that refused such moves ended at .7 of the start's error."""
    own = [Draws((2,), 64, 80.0, name=name, like=torch.zeros((), dtype=torch.float64)) for name in ("fit", "held out")]
    solution = Reference(MIXTURE, co.Euler(), own[0], 0.002, steps=24)
    found = fit_rows(solution, own[1], [co.log_snr_grid(12, 0.06, 80.0)], budget=1500)
    test = RowRuns(
        solution.with_draws(replace(own[0], count=1024, name="test", chunk=1024)), np.zeros(0), Ledger(None, {})
    )
    after = test.errors(Rows(found.solver.levels, found.solver.a, found.solver.c))
    before = test.errors(two_step_rows(found.start, 2))
    assert after.mean() < 0.4 * before.mean()
    assert np.exp(np.log(after).mean()) < 0.05 * np.exp(np.log(before).mean())


@pytest.mark.slow
def test_a_fit_whose_draws_are_learned_by_heart_goes_on_with_more(monkeypatch):
    rules, solution, others = FitRules(objective="geometric"), reference(count=4), draws("held out", 4)
    more = fit_rows(solution, others, [GRID], rules=rules, budget=1200)
    monkeypatch.setattr("codesign_opt.estimate.solver_fit.more_draws._OVER", np.inf)
    alone = fit_rows(solution, others, [GRID], rules=rules, budget=1200)
    assert more.held_out.errors.size > 4 == alone.held_out.errors.size
    assert more.held_out_before.errors.size == more.held_out.errors.size  # a gain is of the same draws
    test = runs("test", 512)
    errors = [test.errors(Rows(f.solver.levels, f.solver.a, f.solver.c)) for f in (more, alone)]
    assert np.mean(np.log(errors[0] / errors[1])) < np.log(0.7)
    assert more.batches <= 1200


def test_twice_the_draws_hold_those_before():
    few = runs("fit", 24)  # a whole batch of 16 and half a one
    more = few.doubled()
    assert more.draws.count == 48
    rows = other_rows(1)
    np.testing.assert_array_equal(few.errors(rows)[:16], more.errors(rows)[:16])
    again = RowRuns(reference("fit", 48), GRID[1:-1], Ledger(None, {}))
    np.testing.assert_array_equal(more.errors(rows), again.errors(rows))


def test_the_solver_runs_as_it_was_fitted():
    found = fit_rows(reference(), draws("held out"), [GRID], budget=700)
    own = runs("test", 16)
    outputs = run(MIXTURE, found.solver, found.solver.levels, own.draws.start(0))
    fitted = Rows(found.solver.levels, found.solver.a, found.solver.c)
    torch.testing.assert_close(outputs, own.path(fitted, 0).states[-1], rtol=1e-12, atol=1e-12)


def test_the_last_level_stays_where_it_is_held():
    rules = FitRules(free_stop=False)
    found = fit_rows(reference(), draws("held out"), [GRID], rules=rules, budget=900)
    assert found.solver.levels[-2] == GRID[-2]
    assert found.gain < 0.5


def test_the_first_row_of_a_stepwise_fit_is_ridge_regression_on_the_draws():
    own, others = runs(), runs("held out")
    rows, _ = stepwise_fit(own, others, two_step_rows(GRID, 3))
    x = torch.cat([own.draws.start(chunk) for chunk in range(2)])
    d = MIXTURE(x, torch.full((len(x),), GRID[0], dtype=torch.float64))
    fine = torch.cat([own.targets(GRID, chunk)[0] for chunk in range(2)])
    column, rest = (x - d).flatten().numpy(), (fine - d).flatten().numpy()
    least = column @ rest / (column @ column)
    ridge = [least + (GRID[1] / GRID[0] - least) * mu / (1 + mu) for mu in (1e-7, 1e-5, 1e-3, 1e-1)]
    assert min(abs(rows.a[0] - value) for value in ridge) < 1e-12 * abs(rows.a[0]) + 1e-12


@pytest.mark.cases(1)
@pytest.mark.parametrize("unknowns", [Unknowns(), Unknowns(levels=False), Unknowns(coefficients=False)])
def test_slopes_of_the_joint_fit_are_those_of_the_error(unknowns):
    own = runs()
    fit = JointFit(own, runs("held out"), unknowns, "mean", 3, 1000, Ledger(None, {}))
    rows = other_rows(2)
    weights = np.full(own.draws.count, 1 / own.draws.count)
    _, slope = fit._linearised(rows, weights)
    expected = []
    for move in 1e-6 * np.eye(unknowns.count(rows)):
        up, down = (own.errors(unknowns.applied(rows, sign * move)).mean() for sign in (1, -1))
        expected.append((up - down) / 4e-6)
    # forward differences, wide enough for a network in float32
    assert np.linalg.norm(slope - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("moves", "objective"),
    [
        ("both", "mean"),
        pytest.param("both", "geometric", marks=pytest.mark.slow),
        pytest.param("coefficients", "mean", marks=pytest.mark.slow),
        ("levels", "trimmed"),
    ],
)
def test_a_fitted_solver_gains_on_draws_it_has_not_seen(moves, objective):
    rules = FitRules(moves=moves, objective=objective)
    found = fit_rows(reference(), draws("held out"), [GRID], rules=rules, budget=1200)
    test = runs("test", 64)
    before, after = (
        test.errors(two_step_rows(GRID, 2)),
        test.errors(Rows(found.solver.levels, found.solver.a, found.solver.c)),
    )
    assert np.mean(np.log(after / before)) < (np.log(0.5) if moves == "both" else 0)
    assert found.gap < 1e-9
    assert found.batches <= 1200
    np.testing.assert_allclose(found.solver.a + found.solver.c.sum(axis=1), 1.0, atol=1e-12)
    if moves == "coefficients":
        np.testing.assert_array_equal(found.solver.levels, GRID)


def test_a_start_that_nothing_improves_is_kept():
    # exact in one step for a denoiser that knows one point alone
    point = torch.tensor([0.3, -0.2], dtype=torch.float64)
    solution = Reference(lambda x, sigma: 0 * x + point, co.Euler(), draws("fit"), 0.02, steps=16)
    found = fit_rows(solution, draws("held out"), [GRID])
    assert found.held_out.mean.value <= found.held_out_before.mean.value


def test_a_killed_fit_goes_on_to_the_same_solver(tmp_path):
    calls, limit = [0], [10**9]

    def denoiser(x, sigma):
        calls[0] += 1
        if calls[0] > limit[0]:
            raise KeyboardInterrupt
        return MIXTURE(x, sigma)

    solution = replace(reference(), denoiser=denoiser)
    whole = fit_rows(solution, draws("held out"), [GRID], budget=1000, folder=tmp_path / "whole")
    for share in (0.3, 0.3, 0.3):
        limit[0] = calls[0] + int(share * whole.batches)
        with pytest.raises(KeyboardInterrupt):
            fit_rows(solution, draws("held out"), [GRID], budget=1000, folder=tmp_path / "killed")
    limit[0] = 10**9
    again = fit_rows(solution, draws("held out"), [GRID], budget=1000, folder=tmp_path / "killed")
    assert again.solver == whole.solver
    assert again.record == whole.record
    assert again.reason == whole.reason


FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


@pytest.mark.parametrize(("steps", "fitted"), [(18, 3), (40, 1)] if FULL else [(18, 3)])
def test_stepwise_fits_take_three_hundred_batches_at_most(monkeypatch, steps, fitted):
    counted = []

    def stepwise(own, others, rows):
        before = own.batches + others.batches
        found = stepwise_fit(own, others, rows)
        counted.append(own.batches + others.batches - before + 2 * others.draws.chunks * rows.steps)  # and its errors
        return found

    monkeypatch.setattr("codesign_opt.estimate.solver_fit.fit_rows.stepwise_fit", stepwise)
    own = [replace(draws(name, count), chunk=64) for name, count in (("fit", 128), ("held out", 64))]
    starts = [co.edm_grid(steps, stop, 20.0) for stop in (0.02, 0.03, 0.05, 0.1)]
    fit_rows(Reference(MIXTURE, co.Euler(), own[0], 0.02, steps=8), own[1], starts, budget=1100)
    assert len(counted) == fitted
    assert sum(counted) <= 300


def test_batches_are_the_calls_of_the_denoiser():
    solution = reference()
    found = fit_rows(solution, draws("held out"), [GRID], budget=700)
    assert found.batches == solution.denoiser.calls


def fitted_alone():
    found = fit_rows(reference(), draws("held out"), [GRID], budget=700)
    return found.solver.levels, found.solver.a, found.solver.c, np.array(found.batches)


@pytest.mark.skipif(os.environ.get("CODESIGN_OPT_FULL") != "1", reason="three seconds; CODESIGN_OPT_FULL=1 runs it")
def test_two_processes_fit_the_solver_of_one(tmp_path):
    truth = fitted_alone()
    for found in of_two(fitted_alone, tmp_path):
        for ours, theirs in zip(found, truth, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_fitted_is_refused_by_name():
    stochastic = Reference(MIXTURE, co.Ancestral(), draws("fit"), 0.02)
    for arguments, said in [
        ((stochastic, draws("held out"), [GRID]), "draws noise"),
        ((reference(), draws("fit"), [GRID]), "another name"),
        ((reference(), draws("held out"), []), "at least one grid"),
        ((reference(), draws("held out"), [GRID, co.edm_grid(4, 0.02, 20.0)]), "one number of steps"),
    ]:
        with pytest.raises(ValueError, match=said):
            fit_rows(*arguments)
    with pytest.raises(ValueError, match="the starts alone take"):
        fit_rows(reference(), draws("held out"), [GRID], budget=10)
    for field in ({"history": 0}, {"moves": "all"}, {"objective": "median"}):
        with pytest.raises(ValueError, match=next(iter(field))):
            FitRules(**field)
