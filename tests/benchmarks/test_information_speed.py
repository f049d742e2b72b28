"""Speed of the structured solver for shared parameters against the conic program, in one run.

OMP_NUM_THREADS=1 pytest tests/benchmarks/test_information_speed.py -s -p no:cacheprovider --benchmark-enable
"""

from __future__ import annotations

import resource
import time
import tracemalloc

import clarabel
import numpy as np
import pytest
from scipy import sparse

import codesign_opt as co
from codesign_opt.solvers.information.shares import solve_information


def instance(kind, parameters, levels, outputs=3, columns=6, seed=0):
    """Smooth bumps in log sigma (a network's features) or independent normal features."""
    rng = np.random.default_rng(seed)
    response = rng.standard_normal((parameters, columns))
    s = np.linspace(np.log(0.002), np.log(80), levels)
    if kind == "normal":
        return rng.standard_normal((levels, outputs, parameters)), response, np.exp(0.3 * rng.standard_normal(levels))
    centre = rng.uniform(s[0], s[-1], (outputs, parameters))
    width = rng.uniform(0.3, 2.0, (outputs, parameters)) * 60 / parameters
    bumps = np.exp(-0.5 * ((s[:, None, None] - centre) / width) ** 2)
    return rng.standard_normal((outputs, parameters)) * bumps, response, np.exp(0.3 * np.sin(s))


def raw_clarabel(roots, response, prices, budget):
    """The cone program handed to Clarabel directly: min sum t, |Z_l|^2 <= t_l x_l, sum A^T Z = G, sum x = 1.

    In shares and in coordinates that make the information one at equal shares.
    """
    levels, k, size = roots.shape
    r = response.shape[1]
    scaled = (roots * np.sqrt(budget / prices / levels)[:, None, None]).reshape(-1, size)
    left = np.linalg.inv(np.linalg.qr(scaled, mode="r"))
    inner, wanted = scaled @ left, left.T @ response
    unit = np.sum(wanted**2)
    wanted = wanted / np.sqrt(unit)
    per = k * r  # entries of Z_l; variables: Z (levels, k, r), t (levels), x (levels)
    n = levels * (per + 2)
    equal = sparse.hstack([sparse.kron(inner.T, sparse.eye(r)), sparse.csc_matrix((size * r, 2 * levels))])
    one = sparse.hstack([sparse.csc_matrix((1, levels * (per + 1))), sparse.csc_matrix(np.ones((1, levels)))])
    row, column, entry = [], [], []
    for l in range(levels):
        base, t, x = l * (per + 2), levels * per + l, levels * (per + 1) + l
        row += [base, base, base + 1, base + 1]
        column += [t, x, t, x]
        entry += [-1.0, -1.0, -1.0, 1.0]
        row += list(range(base + 2, base + 2 + per))
        column += list(range(l * per, (l + 1) * per))
        entry += [-2.0] * per
    cones = sparse.csc_matrix((entry, (row, column)), shape=(n, n))
    matrix = sparse.vstack([equal, one, cones]).tocsc()
    right = np.concatenate([wanted.ravel(), [levels], np.zeros(n)])
    cost = np.zeros(n)
    cost[levels * per : levels * (per + 1)] = 1.0
    kinds = [clarabel.ZeroConeT(size * r + 1)] + [clarabel.SecondOrderConeT(per + 2)] * levels
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    solution = clarabel.DefaultSolver(sparse.csc_matrix((n, n)), cost, matrix, right, kinds, settings).solve()
    return solution.obj_val * unit


@pytest.mark.parametrize("kind", ["smooth", "normal"])
def test_thirty_times_faster_than_the_cone_program_at_a_gap_of_a_billionth(kind, benchmark):
    roots, response, prices = instance(kind, 60, 400)
    start = time.perf_counter()
    found = solve_information(roots, response, prices, 1e4)  # cold: the first call of this process
    own = time.perf_counter() - start
    start = time.perf_counter()
    raw = raw_clarabel(roots, response, prices, 1e4)
    conic = time.perf_counter() - start
    start = time.perf_counter()
    term = co.InformationError(roots, response, sigma=np.geomspace(0.002, 80, 400))
    plan = co.Problem(term, [co.Compute(co.Prices(prices, 1.0, 0), part="training") <= 1e4]).solve(method="declared")
    declared = time.perf_counter() - start
    print(
        f"\n{kind} 60 x 400: {own * 1e3:.0f} ms, gap {found.relative_gap:.1e}, {found.iterations} steps, support "
        f"{found.support.size}; raw Clarabel {conic:.2f} s ({conic / own:.0f}x), declared {declared:.2f} s "
        f"({declared / own:.0f}x)"
    )
    benchmark(solve_information, roots, response, prices, 1e4)
    assert found.relative_gap <= 1e-9
    assert found.value == pytest.approx(raw, rel=1e-5)
    assert found.value <= plan.error * (1 + 1e-9)
    assert min(conic, declared) >= 30 * own


@pytest.mark.parametrize("kind", ["smooth", "normal"])
def test_three_hundred_parameters_and_five_thousand_levels(kind):
    roots, response, prices = instance(kind, 300, 5000)
    start = time.perf_counter()
    found = solve_information(roots, response, prices, 1e4)
    own = time.perf_counter() - start
    tracemalloc.start()
    solve_information(roots, response, prices, 1e4)
    peak = tracemalloc.get_traced_memory()[1] / 1e9
    tracemalloc.stop()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"\n{kind} 300 x 5000: {own:.1f} s, gap {found.relative_gap:.1e}, {found.iterations} steps, support "
        f"{found.support.size}; traced peak {peak:.2f} GB, resident peak of the whole run {resident:.2f} GB"
    )
    assert found.relative_gap <= 1e-8
    assert peak < 4
