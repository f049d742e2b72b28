"""Speed of the dual Newton beside cvxpy, all cold, one thread.

OMP_NUM_THREADS=1 PYTHONPATH=. pytest -s tests/benchmarks/test_joint_speed.py
"""

from __future__ import annotations

import time

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import codesign_opt as co
from codesign_opt.planning.question import Study
from codesign_opt.planning.stopping_points import Stop, _sweep_grid, bound_between, sweep
from codesign_opt.solvers.joint.batch import solve_batch
from codesign_opt.solvers.joint.newton import JointProgram, solve_joint

BUDGET = 1e9


def instance(size):
    """(table, prices, program): a smooth table of 8 bands on `size` levels, order 1, one budget."""
    levels = co.Levels.log_uniform(0.002, 80.0, size)
    sigma, lam = levels.sigma, np.geomspace(1e-5, 1.0, 8)[:, None]
    counts = np.geomspace(2000, 1, 8)[:, None]
    v = lam + sigma**2
    score = (counts * lam**2 / v**2 * sigma**2 / (lam + 0.002**2)).sum(axis=0)
    rows = np.sqrt(counts) * lam / np.sqrt(lam + 0.002**2) * sigma**2 * lam / (2 * v**2)
    table = co.Coefficients(levels, score=score, floor=1e-4 * score, response=rows, terminal="rescale")
    prices = co.Prices(example=3.0, evaluation=1.0, images=10_000)
    return table, prices


def program_of(table, prices):
    return JointProgram(
        table.example_error, table.floor_error, table.kappa, table.step_response, table.order,
        prices.example_price(table.levels)[None], prices.evaluation_price(table.levels)[None], np.array([BUDGET]),
    )  # fmt: skip


def geometric(table, prices, unit):
    """The geometric program in (gamma, m): x = kappa/n, t >= max(1, x); error in `unit`, price in budgets."""
    size = len(table.levels)
    x, m, t = (cp.Variable(size, pos=True) for _ in range(3))
    error = cp.sum(cp.multiply(table.example_error, t / m)) + cp.sum(cp.multiply(table.floor_error, t))
    scaled = table.step_response / table.kappa**table.order
    for row in scaled:
        error = error + cp.square(cp.sum(cp.multiply(row, x)))
    price = cp.sum(cp.multiply(prices.example_price(table.levels), m))
    price = price + cp.sum(cp.multiply(prices.evaluation_price(table.levels) * table.kappa, x**-1))
    program = cp.Problem(cp.Minimize(error / unit), [price / BUDGET <= 1, t >= x, t >= 1])
    program.solve(gp=True, solver="CLARABEL")
    return float(program.value) * unit


def timed(function, repeat, clock=time.perf_counter):
    """(least seconds of `repeat` cold runs, the last result): the least, because the machine is shared."""
    times, result = [], None
    for _ in range(repeat):
        begun = clock()
        result = function()
        times.append(clock() - begun)
    return min(times), result


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_joint_program_at_200_levels_beside_cvxpy():
    table, prices = instance(200)
    newton, found = timed(lambda: solve_joint(program_of(table, prices)), 31)

    def declared():
        terms = co.ScoreError(table) + co.Discretization(table)
        return co.Problem(terms, [co.Compute(prices) <= BUDGET]).solve(method="declared")

    dcp, plan = timed(declared, 5)
    gp, value = timed(lambda: geometric(table, prices, found.value), 3)
    print(f"\nL = 200: {newton * 1e3:.3f} ms, gap {found.relative_gap:.1e}, {found.iterations} iterations")
    print(f"cvxpy geometric program {gp * 1e3:.0f} ms = {gp / newton:.0f}x (value {value / found.value - 1:+.1e})")
    print(f"cvxpy DCP {dcp * 1e3:.1f} ms = {dcp / newton:.0f}x (value {plan.error / found.value - 1:+.1e})")
    assert found.relative_gap <= 1e-9
    assert plan.error == pytest.approx(found.value, rel=1e-6)
    assert gp / newton >= 150
    assert dcp / newton >= 80


def test_cost_per_level_does_not_grow():
    base = None
    print()
    for size in (200, 2_000, 20_000, 200_000):
        program = program_of(*instance(size))
        seconds, found = timed(lambda p=program: solve_joint(p), 5 if size < 100_000 else 3)
        base = seconds / size if size == 2_000 else base
        ratio = "" if base is None else f", per level {seconds / size / base:.2f} of L = 2,000"
        told = f"{seconds * 1e3:9.2f} ms, gap {found.relative_gap:.1e}, {found.iterations} iterations"
        print(f"L = {size:>7,}: {told}{ratio}")
        assert found.relative_gap <= 1e-9
        assert base is None or seconds / size <= 3.0 * base  # memory, not work: out of cache beyond 20,000 levels


def test_sweep_over_64_stopping_points_beside_all_64_declared_programs():
    model = co.GaussianModel(co.Spectrum.power_law(3072, exponent=1.5).in_bands(8), sampler=co.Euler())
    prices = co.Prices(example=3.0, evaluation=1.0, images=10_000)
    study = Study(model, prices, BUDGET, None, None, (), (), 200, 1e-6)
    sigmas = np.geomspace(0.02, 0.002, 64)
    grid: list[Stop] = []
    whole, stops = timed(lambda: sweep(study, 0.002, 0.02, 64, lambda text: None), 15)

    def points():
        grid.clear()
        _sweep_grid(study, sigmas, lambda stop: grid.append(stop) or stop)

    first, _ = timed(points, 15)
    tables, table = timed(lambda: study.tables(sigmas), 15)
    batch = study.batch(table)
    solving, _ = timed(lambda: solve_batch(batch), 15)
    declared, plans = timed(lambda: [study.problem(float(s)).solve(method="declared") for s in sigmas], 2)
    print(f"\n64 stopping points: {first * 1e3:.1f} ms = {first / 64 * 1e3:.3f} ms each", end=" ")
    print(f"(tables {tables / 64 * 1e3:.3f}, solving {solving / 64 * 1e3:.3f})")
    print(f"with the refinement around the best, {len(stops)} points: {whole * 1e3:.1f} ms")
    print(f"64 declared programs by cvxpy {declared * 1e3:.0f} ms = {declared / 64 * 1e3:.1f} ms each", end=" ")
    print(f"= {declared / first:.0f}x the 64 points, {declared / whole:.0f}x the whole sweep")
    for stop, plan in zip(grid, plans, strict=True):
        assert stop.record["relative_gap"] <= 1e-9
        assert stop.record["method"] == "dual Newton"
        assert plan.error == pytest.approx(stop.error, rel=1e-6)
    assert declared / first >= 100
    assert declared / whole >= 60


def declared_curve(study, low, high):
    """What a cvxpy user solves for the same curve and best point: every stopping point as a declared program."""
    solved = {}

    def error(sigma):
        solved[sigma] = study.problem(sigma).solve(method="declared").error
        return solved[sigma]

    for sigma in np.geomspace(high, low, 64):
        error(float(sigma))
    known = sorted(solved)
    best = int(np.argmin([solved[s] for s in known]))
    bounds = np.log(known[max(best - 1, 0)]), np.log(known[min(best + 1, 63)])
    options = {"xatol": 3e-3, "maxiter": 12}
    minimize_scalar(lambda logs: error(float(np.exp(logs))), bounds=bounds, method="bounded", options=options)
    return solved


@pytest.mark.parametrize("budget", [1e6, 1e7, 1e9])
def test_a_whole_codesign_beside_its_curve_by_declared_programs(budget):
    model = co.GaussianModel(co.Spectrum.power_law(3072, exponent=1.5).in_bands(8), sampler=co.Euler())
    prices = co.Prices(example=3.0, evaluation=1.0, images=10_000)
    study = Study(model, prices, budget, None, None, (), (), 200, 1e-6)
    low, high = 0.002, 0.02
    stages = {
        "64 points": lambda: _sweep_grid(study, np.geomspace(high, low, 64), lambda stop: stop),
        "and refinement": lambda: sweep(study, low, high, 64, lambda text: None),
        "and bound": lambda: bound_between(study, sweep(study, low, high, 64, lambda text: None), 1e-3),
        "whole codesign": lambda: co.codesign(model, prices, budget, search=(low, high), points=64, levels=200),
    }
    cpu = time.process_time  # of one thread: what else runs on the machine does not count
    taken = {name: timed(stage, 25, cpu) for name, stage in stages.items()}
    declared, solved = timed(lambda: declared_curve(study, low, high), 2, cpu)
    plan = taken["whole codesign"][1]
    print(f"\nbudget {budget:g}, {plan.number_of_steps:,} steps: {len(solved)} declared programs {declared:.2f} s")
    for name, (seconds, _) in taken.items():
        print(f"{name:>15}: {seconds * 1e3:6.1f} ms = {declared / seconds:.0f}x")
    assert plan.certificate.optimal
    assert plan.outer["status"] == "optimal"
    assert plan.outer["relative_gap"] <= 1e-3
    assert plan.error == pytest.approx(min(solved.values()), rel=1e-6)
    assert declared / taken["and bound"][0] >= 100
    assert declared / taken["whole codesign"][0] >= (60 if plan.number_of_steps < 2_000 else 20)
