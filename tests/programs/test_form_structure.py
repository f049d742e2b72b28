"""Programs with quadratic forms take the interior-point method, whole and proved, and give what is declared."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling import Cap, CoherentScore, Compute, Discretization, Floor, ScoreError, Steps

METHOD = "interior point"
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def random_problem(seed, size=14):
    """A measured table, a coherent or a pooled score, under one or two budgets, by chance with spent examples."""
    rng = np.random.default_rng(seed)
    levels = co.Levels.log_uniform(0.01, 40.0, size)
    order, kind = int(rng.integers(1, 4)), seed // 4 % 3
    coupling = [co.Local(2.0), co.PerStep(1.0), co.Transfer(0.5), co.Local(1.0, form="p4")][seed % 4]
    if kind == 1:  # a coherent score knows no pooling
        coupling = co.Local(2.0)
    rows = rng.normal(size=(20, size)) * 10 ** rng.uniform(-1, 1, size) / levels.log_width ** (order + 1)
    denoise = bool(rng.random() < 0.5)
    table = co.Coefficients(
        levels, 10 ** rng.uniform(-1, 1, size), 1e-3 * rng.random(size) * rng.integers(0, 2), rows, order=order,
        coupling=coupling, terminal="denoise" if denoise else "rescale", final_score=0.3 * denoise,
    )  # fmt: skip
    budget, weight = float(10 ** rng.uniform(2, 6)), float(10 ** rng.uniform(-1, 1))
    if kind == 0:
        objective = ScoreError(table) + weight * co.GramDiscretization(table, "positive")
    elif kind == 1:
        pairs = rng.normal(size=(6, size))
        objective = weight * CoherentScore(table, pairs.T @ pairs) + Discretization(table)
    else:
        objective = weight * co.GramDiscretization(table)
    constraints = [Compute(co.Prices(3.0, 1.0, 10)) <= budget]
    if rng.random() < 0.4:
        constraints.append(Steps() <= budget / 50)
    spent = budget / 100 * rng.random(size) * rng.integers(0, 2, size) if kind < 2 and rng.random() < 0.4 else None
    return objective, constraints, spent


def bounded(objective, constraints, spent, plan):
    """The same with bounds of single levels that its plan breaks and that some other design obeys."""
    most = 1.5 * plan.examples.mean() if spent is None else max(1.5 * plan.examples.mean(), 1.01 * spent.max())
    more = [Floor(0.3 * float(plan.steps.mean()), "steps")]
    if plan.examples.sum() > 0:
        more += [Cap(float(most), "examples"), Floor(0.05 * float(plan.examples.mean()), "examples")]
    return co.Problem(objective, [*constraints, *more], spent=spent)


@pytest.mark.cases(6)
@pytest.mark.parametrize("seed", range(120 if FULL else 24))
def test_the_method_is_proved_and_nothing_declared_is_below_it(seed):
    parts = random_problem(seed)
    plan = co.Problem(*parts[:2], spent=parts[2]).solve()
    for problem, found in ((co.Problem(*parts[:2], spent=parts[2]), plan), (bounded(*parts, plan), None)):
        found = problem.solve() if found is None else found
        assert [attempt["solver"] for attempt in found.attempts] == [METHOD]
        assert found.certificate.optimal
        assert found.certificate.infeasibility <= 1e-9
        if seed % 6 == 0 or FULL:
            declared = problem.solve(method="declared")
            assert found.error <= declared.error * (1 + 1e-7)
            assert found.certificate.lower_bound <= declared.error * (1 + 1e-12)
            limits = {c.name: c.limit if hasattr(c, "limit") else c.value for c in problem.constraints}
            for name, price in declared.shadow_prices.items():
                resolved = 1e-3 * found.error / limits[name]  # a conic solver's own are no better than that
                assert found.shadow_prices[name] == pytest.approx(price, rel=1e-2, abs=resolved)


@pytest.mark.cases(2)
@pytest.mark.parametrize("method", ["auto", "declared"])
@pytest.mark.parametrize("seed", [*range(60)] if FULL else [1, 4, 11, 23])
def test_prices_of_level_bounds_are_finite_differences(seed, method):
    """Also of a floor of the steps under a signed Gram matrix, which bounds what longer steps could cancel."""
    objective, constraints, spent = random_problem(seed)
    plan = bounded(objective, constraints, spent, co.Problem(objective, constraints, spent=spent).solve())
    found, error = plan.solve(method=method), plan.solve().error
    for bound in plan.constraints[len(constraints) :]:
        others = [c for c in plan.constraints if c is not bound]
        lower, higher = (
            co.Problem(objective, [*others, replace(bound, value=bound.value * factor)], spent=spent).solve().error
            for factor in (1 - 1e-4, 1 + 1e-4)
        )
        slopes = ((error - lower) / (1e-4 * bound.value), (higher - error) / (1e-4 * bound.value))
        # the optimum is convex in a limit: its price lies between the slopes to both sides
        resolved = (3e-4 if method == "auto" else 1e-3) * error / bound.value + 1e-3 * max(np.abs(slopes))
        assert slopes[0] - resolved <= found.shadow_prices[bound.name] <= slopes[1] + resolved


def largest(changes):
    return cp.max(cp.abs(changes))


# the sum of changes of seed 11 is refused with the term's advice: there longer steps, which cancel errors, break it
@pytest.mark.cases(1)
@pytest.mark.parametrize(("rough", "seed"), [(cp.norm1, 23), (largest, 11), (cp.sum_squares, 11), (cp.sum_squares, 23)])
def test_floors_beside_a_row_of_the_users_own_are_certified_and_priced(seed, rough):
    objective, constraints, spent = random_problem(seed)
    plan = co.Problem(objective, constraints, spent=spent).solve()
    unit = float(plan.steps.mean())
    limit = 0.7 * float(np.asarray(rough(np.diff(plan.steps) / unit).value))
    smooth = co.named("smooth", lambda d: rough(cp.diff(d.steps) / unit) <= limit)
    floor = Floor(0.3 * unit, "steps")
    found, lower, higher = (
        co.Problem(objective, [*constraints, smooth, replace(floor, value=floor.value * factor)], spent=spent).solve()
        for factor in (1.0, 1 - 1e-3, 1 + 1e-3)
    )
    assert found.certificate.optimal
    resolved = 2e-3 * found.error / floor.value
    slopes = (found.error - lower.error) / (1e-3 * floor.value), (higher.error - found.error) / (1e-3 * floor.value)
    assert slopes[0] - resolved <= found.shadow_prices["Floor(steps)"] <= slopes[1] + resolved


@pytest.mark.parametrize("coupling", [co.Transfer(0.6), co.Local(2.0)])
def test_examples_under_given_steps_take_it_too(coupling):
    levels = co.Levels.log_uniform(0.01, 40.0, 12)
    table = co.Coefficients(
        levels, np.geomspace(1, 9, 12), np.zeros(12), np.zeros((0, 12)), coupling=coupling, terminal="rescale"
    )
    score = ScoreError(table) if coupling.pooling(levels) is not None else CoherentScore(table, np.ones((12, 12)))
    problem = co.Problem(score, [Compute(co.Prices(3.0, 1.0, 10)) <= 1e4], steps=np.full(12, 2.0))
    found, declared = problem.solve(), problem.solve(method="declared")
    assert [attempt["solver"] for attempt in found.attempts] == [METHOD]
    assert found.error == pytest.approx(declared.error, rel=1e-6)
    assert found.error <= declared.error * (1 + 1e-9)
