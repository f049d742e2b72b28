"""Shadow prices of the declared programs against finite differences and the structured solvers."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from tests.helpers.declared import COUPLINGS, named_budget, shared
from tests.helpers.programs import Joint

pytestmark = pytest.mark.usefixtures("declared_programs_only")


def test_budget_multiplier_is_the_finite_difference_of_the_optimum():
    for coupling in COUPLINGS:
        truth = Joint.random(20, 8, coupling=coupling)
        step = 2e-3
        up, down = (
            replace(truth, budget=truth.budget * (1 + k)).problem().solve(tolerance=1e-8).error for k in (step, -step)
        )
        slope = (up - down) / (2 * step * truth.budget)
        plan = truth.problem().solve()
        assert plan.shadow_prices["budget"] < 0
        assert plan.shadow_prices["budget"] == pytest.approx(slope, rel=1e-4)


def test_shadow_prices_of_lower_and_upper_rows_have_the_sign_of_the_change():
    truth = Joint.random(20, 8)
    free = truth.problem().solve()
    inside = truth.levels.sigma < 0.2
    need = 1.5 * free.examples[inside].sum()
    most = 0.7 * free.steps[~inside].sum()

    def rows(a, b):
        return [
            co.named("at least", lambda d: cp.sum(d.examples[inside]) >= a),
            co.named("at most", lambda d: cp.sum(d.steps[~inside]) <= b),
            co.named("turned round", lambda d: 0.1 * a <= cp.sum(d.examples[~inside])),
        ]

    plan = truth.problem(rows(need, most)).solve(tolerance=1e-8)
    h = 1e-3
    for name, change in (("at least", (h * need, 0)), ("at most", (0, h * most))):
        up, down = (
            truth.problem(rows(need + k * change[0], most + k * change[1])).solve(tolerance=1e-8).error for k in (1, -1)
        )
        slope = (up - down) / (2 * sum(change))
        assert plan.shadow_prices[name] == pytest.approx(slope, rel=1e-3)
    assert plan.shadow_prices["at least"] > 0
    assert plan.shadow_prices["at most"] < 0
    assert abs(plan.shadow_prices["turned round"]) * need < 1e-6 * plan.error


def test_structured_solvers_and_declared_programs_agree_in_value_and_shadow_prices():
    term, c = shared(3)
    box = [co.Floor(0.02, "examples"), co.Cap(30.0, "examples")]
    problems = {
        "Newton in shares": co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0, "training"), *box]),
        "dual Newton": Joint.random(30, 5).problem(),
    }
    for method, problem in problems.items():
        fast, slow = problem.solve(method="auto", tolerance=1e-7), problem.solve(tolerance=1e-5)
        assert [a["solver"] for a in fast.attempts] == [method]
        assert fast.error == pytest.approx(slow.error, rel=1e-5)
        assert fast.shadow_prices["budget"] == pytest.approx(slow.shadow_prices["budget"], rel=1e-3)
        for name, value in slow.shadow_prices.items():
            scale = np.abs(value).max() if np.ndim(value) else abs(value)
            np.testing.assert_allclose(fast.shadow_prices[name], value, atol=1e-2 * scale + 1e-9)
