"""What a declared problem costs beside the solver it calls: digits, 200 levels, structured route, one thread.

OMP_NUM_THREADS=1 PYTHONPATH=. pytest -s --benchmark-enable tests/benchmarks/test_problem_speed.py
"""

from __future__ import annotations

import time

import pytest

import codesign_opt as co
from codesign_opt.programs import joint_structure
from codesign_opt.solvers.joint.newton import solve_joint

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def declare():
    """A function that declares the digits program."""
    digits = co.problems.load("digits")
    table = digits.model.coefficients(levels=200)
    return lambda: co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Compute(digits.prices) <= 1e6])


@pytest.fixture(scope="module")
def program(declare):
    """What the problem hands to the solver."""
    handed = []

    def caught(given):
        handed.append(given)
        return solve_joint(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_structure, "solve_joint", caught)
        assert [a["solver"] for a in declare().solve().attempts] == ["dual Newton"]
    return handed[0]


def test_solve(benchmark, declare):
    benchmark(declare().solve)


def test_declare(benchmark, declare):
    benchmark(declare)


def test_the_whole_of_solve_takes_at_most_three_times_its_solver(declare, program):
    """Checks, proof and description included; timed in turn, so that a busy machine slows all alike."""
    problem = declare()
    work = {"declare": declare, "solve": problem.solve, "solver": lambda: solve_joint(program)}
    least = dict.fromkeys(work, float("inf"))
    for _ in range(60):
        for name, function in work.items():
            begun = time.process_time()
            function()
            least[name] = min(least[name], time.process_time() - begun)
    print("\n" + ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in least.items()))
    assert least["solve"] <= 3.0 * least["solver"]
    assert least["declare"] <= 0.5 * least["solver"]
