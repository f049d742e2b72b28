"""The full matrix of tests/programs/test_declared_programs.py, not in the default run:

pytest tests/benchmarks/test_programs_full.py.
"""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.errors import NotCertifiedError
from codesign_opt.solvers.waterfill.fill import waterfill
from tests.helpers.programs import Joint, boxed_training


@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.parametrize("decades", [2, 6, 10])
@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize(("budget_scale", "price_scale"), [(1, 1), (1e9, 1), (1e-9, 1), (1, 1e9), (1, 1e-9)])
def test_training_program_equals_exact_waterfilling(size, decades, budget_scale, price_scale, spent):
    for seed in range(10 if size < 1000 else 3):
        table, steps, s, c, budget, low, high, e = boxed_training(
            size, decades, budget_scale, price_scale, seed, spent=spent
        )
        exact = waterfill(s, c, budget, low=low, high=high, spent=e)
        rows = [co.Compute(co.Prices(c, 1.0, 1), part="training") <= budget]
        rows += [co.Floor(low, "examples"), co.Cap(high, "examples")]
        plan = co.Problem(co.ScoreError(table), rows, steps=steps, spent=e).solve()
        assert plan.error == pytest.approx(exact.value, rel=1e-6)


@pytest.mark.parametrize("seed", range(120))
def test_joint_program_equals_the_geometric_program_or_is_refused(seed):
    """Coefficients over up to 14 decades, dominated errors, budgets over 12 decades: never a wrong 'optimal'."""
    rng = np.random.default_rng(seed)
    size, order, decades = (
        int(rng.choice([3, 6, 10])),
        int(rng.choice([1, 2, 3])),
        float(rng.choice([2, 6, 10, 14])),
    )
    coupling = [co.Local(1.2), co.Local(1.2, form="p4"), co.PerStep(1.2), co.Local(0.05), co.Local(30.0)]
    truth = Joint.random(
        size, seed, order=order, coupling=coupling[rng.integers(5)], decades=decades,
        floor=float(rng.choice([0, 1, 1e3, 1e6])),
    )  # fmt: skip
    rows = truth.rows * float(rng.choice([1e-6, 1e-3, 1, 1e3]))
    truth = replace(truth, rows=rows, budget=truth.budget * float(rng.choice([1e-6, 1, 1e6])))
    try:
        plan = truth.problem().solve(method="declared")
    except NotCertifiedError:
        pytest.skip("refused")
    try:
        geometric = truth.geometric()[0]
    except cp.SolverError:
        pytest.skip("the geometric program failed")
    assert plan.error <= geometric * (1 + 3e-6)
    assert plan.certificate.lower_bound <= geometric * (1 + 1e-6)
