"""P1: the exact water-filling against bisection in extended precision, KKT conditions, SLSQP, enumeration."""

from __future__ import annotations

import itertools
import os
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from codesign_opt.basics.errors import InfeasibleError
from codesign_opt.solvers.waterfill import surface as water_level
from codesign_opt.solvers.waterfill.fill import square_root_rule, waterfill
from codesign_opt.solvers.waterfill.rounding import round_examples, separable_errors

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

_DIGITS = 60


def random_problem(rng, size, decades, *, boxes=True, spent=False, budget_scale=1.0, price_scale=1.0):
    """Errors, prices, budget and bounds spread over the given decades."""
    s = 10 ** rng.uniform(-decades / 2, decades / 2, size)
    c = price_scale * 10 ** rng.uniform(-1, 1, size)
    budget = budget_scale * 1e5
    free = np.sqrt(s / c) * budget / np.sqrt(s * c).sum()
    low = np.where(rng.random(size) < 0.3, free * rng.uniform(0.2, 2, size), 0.0) if boxes else np.zeros(size)
    low *= min(1.0, 0.5 * budget / max((c * low).sum(), 1e-300))
    high = np.where(rng.random(size) < 0.3, low + free * rng.uniform(0.1, 1, size), np.inf)
    high = high if boxes else np.full(size, np.inf)
    e = np.where(rng.random(size) < 0.5, free * rng.uniform(0, 1.5, size), 0.0) if spent else np.zeros(size)
    return s, c, budget, low, high, np.minimum(e, high)


def bisected(s, c, budget, low, high, e):
    """Optimal value and totals by bisection on log(multiplier) in 60-digit arithmetic."""
    with localcontext() as context:
        context.prec = _DIGITS
        s, c, low, high, e = ([Decimal(float(x)) for x in a] for a in (s, c, low, high, e))
        floor = [max(a, b) for a, b in zip(low, e, strict=True)]
        levels = list(zip(s, c, floor, high, strict=True))

        def totals(eta):
            return [min(max((si / (ci * eta)).sqrt(), fi), hi) for si, ci, fi, hi in levels]

        def cost(u):
            return sum(ci * (ui - ei) for ci, ui, ei in zip(c, u, e, strict=True))

        a, b = Decimal(-60), Decimal(60)
        for _ in range(150):
            middle = (a + b) / 2
            a, b = (middle, b) if cost(totals(Decimal(10) ** middle)) > Decimal(budget) else (a, middle)
        u = totals(Decimal(10) ** b)
        value = sum(si / ui for si, ui in zip(s, u, strict=True) if si > 0)
        return float(value), np.array([float(x) for x in u])


def assert_kkt(s, c, budget, low, high, e, answer, tolerance=1e-9):
    """Primal and dual feasibility, complementarity and stationarity, each relative to its own size."""
    m, eta = answer.examples, answer.multiplier
    u, floor = e + m, np.maximum(low, e)
    assert np.all(m >= 0)
    assert np.all(u >= floor * (1 - tolerance))
    assert np.all(u <= high * (1 + tolerance))
    cost = float(c @ m)
    scale = max(budget, 1e-300)
    assert cost <= budget * (1 + tolerance) + tolerance * float(c @ e)
    assert eta >= 0
    assert abs(cost + answer.slack - budget) <= tolerance * scale + tolerance * float(c @ e)
    assert answer.slack == 0 or eta == 0
    gradient = np.where(s > 0, -s / np.maximum(u, 1e-150) ** 2, 0.0) + eta * c
    size = np.where(s > 0, s / np.maximum(u, 1e-150) ** 2, 0.0) + eta * c + 1e-300
    at_floor, at_cap = u <= floor * (1 + tolerance), u >= high * (1 - tolerance)
    inside = ~at_floor & ~at_cap
    assert np.all(np.abs(gradient[inside]) <= tolerance * size[inside])
    assert np.all(gradient[at_floor & ~at_cap] >= -tolerance * size[at_floor & ~at_cap])
    assert np.all(gradient[at_cap & ~at_floor] <= tolerance * size[at_cap & ~at_floor])


@pytest.mark.cases(2)
@pytest.mark.parametrize("decades", [2, 8, 16])
@pytest.mark.parametrize("spent", [False, True])
def test_waterfill_equals_extended_precision_bisection(decades, spent):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, 30, decades, spent=spent)
        if (problem[1] * np.maximum(problem[3] - problem[5], 0)).sum() > problem[2]:
            continue
        s, c, budget, low, high, e = problem
        answer = waterfill(s, c, budget, low=low, high=high, spent=e)
        value, totals = bisected(*problem)
        assert answer.value == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(problem[5] + answer.examples, totals, rtol=1e-10)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 60),
    decades=st.sampled_from([0, 2, 8, 16]),
    zeros=st.booleans(),
    spent=st.booleans(),
    budget=st.sampled_from([1e-9, 1e-3, 1.0, 1e3, 1e9]),
    price=st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_waterfill_meets_kkt_for_any_scale(seed, size, decades, zeros, spent, budget, price):
    rng = np.random.default_rng(seed)
    s, c, total, low, high, e = random_problem(rng, size, decades, spent=spent, budget_scale=budget, price_scale=price)
    if zeros:
        s = np.where(rng.random(size) < 0.3, 0.0, s)
    answer = waterfill(s, c, total, low=low, high=high, spent=e)
    assert_kkt(s, c, total, low, high, e, answer)


def test_waterfill_equals_slsqp_on_small_problems():
    for seed in range(8):
        s, c, budget, low, high, _ = random_problem(np.random.default_rng(seed), 6, 2)
        answer = waterfill(s, c, budget, low=low, high=high)
        unit = np.sqrt(s / c) * budget / np.sqrt(s * c).sum()  # SLSQP works on m / unit
        start = np.clip(0.3 * unit, low, high)
        found = minimize(
            lambda x, a=s / unit: float(np.sum(a / x) / a.sum()),
            start / unit,
            jac=lambda x, a=s / unit: -a / x**2 / a.sum(),
            bounds=list(zip(np.maximum(low / unit, 1e-6), np.minimum(high / unit, 1e6), strict=True)),
            constraints={"type": "ineq", "fun": lambda x, a=c * unit / budget: 1 - a @ x},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 2000},
        )
        assert c @ (unit * found.x) <= budget * (1 + 1e-8)
        assert answer.value == pytest.approx(found.fun * (s / unit).sum(), rel=1e-7)


def test_square_root_rule_is_waterfill_without_bounds_over_16_decades():
    s, c, budget, *_ = random_problem(np.random.default_rng(3), 200, 16, boxes=False)
    closed, exact = square_root_rule(s, c, budget), waterfill(s, c, budget)
    np.testing.assert_allclose(closed.examples, exact.examples, rtol=1e-12)
    assert closed.value == pytest.approx(np.sqrt(s * c).sum() ** 2 / budget, rel=1e-13)
    assert closed.multiplier == pytest.approx(exact.multiplier, rel=1e-12)
    assert closed.value == pytest.approx(exact.value, rel=1e-12)


def test_multiplier_is_minus_the_derivative_of_the_value():
    s, c, budget, low, high, e = random_problem(np.random.default_rng(5), 40, 6, spent=True)

    def value(b):
        return waterfill(s, c, b, low=low, high=high, spent=e).value

    step = 1e-5 * budget
    slope = -(value(budget + step) - value(budget - step)) / (2 * step)
    assert waterfill(s, c, budget, low=low, high=high, spent=e).multiplier == pytest.approx(slope, rel=1e-6)


def test_many_budgets_at_once_equal_one_by_one():
    s, c, budget, low, high, e = random_problem(np.random.default_rng(7), 50, 8, spent=True)
    floors = float(c @ (np.maximum(low, e) - e))
    budgets = floors * 1.01 + budget * np.logspace(-4, 4, 33)
    batch = waterfill(s, c, budgets, low=low, high=high, spent=e)
    assert batch.examples.shape == (33, 50)
    for r, b in enumerate(budgets):
        one = waterfill(s, c, float(b), low=low, high=high, spent=e)
        np.testing.assert_array_equal(batch.examples[r], one.examples)
        assert (batch.value[r], batch.multiplier[r], batch.slack[r]) == (one.value, one.multiplier, one.slack)
    rule = square_root_rule(s, c, budgets)
    np.testing.assert_allclose(rule.value * budgets, np.sqrt(s * c).sum() ** 2, rtol=1e-13)


def test_budget_is_slack_when_every_cap_binds():
    answer = waterfill([1.0, 2.0, 0.0], [2.0, 3.0, 1.0], 100.0, high=[5.0, 4.0, np.inf], low=[0, 0, 7.0])
    assert answer.examples.tolist() == [5.0, 4.0, 7.0]
    assert answer.slack == 100.0 - 10 - 12 - 7
    assert answer.multiplier == 0.0
    assert answer.value == 1 / 5 + 2 / 4


def test_levels_without_error_get_their_floor_and_no_more():
    answer = waterfill([0.0, 1.0, 0.0], 1.0, 10.0, low=[2.0, 0.0, 0.0])
    assert answer.examples.tolist() == [2.0, 8.0, 0.0]
    nothing = waterfill([0.0, 0.0], 1.0, 10.0, low=[2.0, 0.0])
    assert nothing.examples.tolist() == [2.0, 0.0]
    assert (nothing.value, nothing.multiplier, nothing.slack) == (0.0, 0.0, 8.0)


def test_floors_that_cost_exactly_the_budget_are_feasible():
    answer = waterfill([1.0, 1.0], [1.0, 2.0], 7.0, low=[3.0, 2.0])
    assert answer.examples.tolist() == [3.0, 2.0]
    assert answer.slack == 0.0


def test_spent_examples_beyond_the_water_line_stay_and_cost_nothing():
    answer = waterfill([1.0, 1.0], 1.0, 4.0, spent=[100.0, 1.0])
    assert answer.examples.tolist() == [0.0, 4.0]
    assert answer.value == pytest.approx(1 / 100 + 1 / 5)


def test_infeasible_floors_name_their_cost_and_the_budget():
    with pytest.raises(InfeasibleError, match=r"floors cost 12 but the budget is 10.*by 2") as caught:
        waterfill([1.0, 1.0], [2.0, 3.0], 10.0, low=[3.0, 2.0])
    assert caught.value.conflicts[0]["amount"] == pytest.approx(2.0)
    waterfill([1.0, 1.0], [2.0, 3.0], 12.0, low=[3.0, 2.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"errors": [1.0, -1.0], "prices": 1.0, "budget": 1.0}, "waterfill.errors is -1 at index 1"),
        ({"errors": [1.0, np.nan], "prices": 1.0, "budget": 1.0}, "waterfill.errors is nan"),
        ({"errors": [], "prices": 1.0, "budget": 1.0}, "waterfill.errors has 0 entries"),
        ({"errors": [1.0], "prices": 0.0, "budget": 1.0}, "waterfill.prices is 0"),
        ({"errors": [1.0], "prices": True, "budget": 1.0}, "waterfill.prices is True"),
        ({"errors": [1.0], "prices": [1.0, 2.0], "budget": 1.0}, "waterfill.prices has 2 entries"),
        ({"errors": [1.0], "prices": 1.0, "budget": -1.0}, "waterfill.budget is -1"),
        ({"errors": [1.0], "prices": 1.0, "budget": np.inf}, "waterfill.budget is inf"),
        ({"errors": [1.0], "prices": 1.0, "budget": 1.0, "low": 2.0, "high": 1.0}, "low is 2 at index 0"),
        ({"errors": [1.0], "prices": 1.0, "budget": 1.0, "high": np.nan}, "waterfill.high is nan"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        waterfill(**arguments)


def test_nothing_where_the_error_needs_examples_is_infeasible():
    with pytest.raises(InfeasibleError, match="high is 0 at index 1"):
        waterfill([1.0, 1.0], 1.0, 5.0, high=[1.0, 0.0])
    with pytest.raises(InfeasibleError, match="leaves nothing above the floors"):
        waterfill([1.0, 1.0], 1.0, 0.0)
    with pytest.raises(InfeasibleError, match="spent is 3 at index 0, above high = 2"):
        waterfill([1.0, 1.0], 1.0, 5.0, spent=[3.0, 0.0], high=2.0)


# ------------------------------------------------------------------ many levels: the segment is selected


def large_problem(kind, size=20_000, seed=11):
    """More levels than are sorted, with floors, caps and spent examples; `kind` of their breakpoints."""
    rng = np.random.default_rng(seed)
    s, c, budget, low, high, e = random_problem(rng, size, 16 if kind == "spread" else 4, spent=True)
    if kind == "ordered":
        s = np.sort(s)
    if kind == "tied":  # each level leaves its floor, and meets its cap, at one of few water lines
        rate = np.sqrt(s / c)
        low, high = rate * rng.integers(1, 4, size), rate * rng.integers(4, 7, size)
        low, high, e = low * 1e-3, high * 1e-3, np.zeros(size)
        budget = 1e-3 * float(c @ (rate * 3.5))
    if kind == "dominant":  # the sample of the levels rarely sees the few that carry the price
        low, high, e = low, np.full(size, np.inf), np.zeros(size)
        s[:3] *= 1e16
    if kind == "idle":
        s = np.where(rng.random(size) < 0.5, 0.0, s)
    if kind == "fixed":
        fixed = np.arange(size) % 2 == 1
        low = np.where(np.isfinite(high), high, low + e + 1.0)
        low, high = np.where(fixed, low, 0.0), np.where(fixed, low, np.inf)
        e = np.minimum(e, high)
        budget = 2 * float(c @ (np.maximum(low, e) - e))
    return s, c, budget, low, high, e


@pytest.mark.parametrize("kind", ["drawn", "spread", "ordered", "tied", "idle", "fixed", "dominant"])
def test_waterfill_meets_kkt_at_many_levels(kind):
    s, c, budget, low, high, e = large_problem(kind)
    assert_kkt(s, c, budget, low, high, e, waterfill(s, c, budget, low=low, high=high, spent=e), tolerance=1e-11)


def test_waterfill_at_many_levels_equals_extended_precision_bisection():
    problem = large_problem("spread", size=600)
    s, c, budget, low, high, e = problem
    answer = waterfill(s, c, budget, low=low, high=high, spent=e)
    value, totals = bisected(*problem)
    assert answer.value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(e + answer.examples, totals, rtol=1e-10)


@pytest.mark.parametrize("kind", ["drawn", "tied", "idle", "dominant"])
def test_selected_water_level_equals_the_sorted_one(kind, monkeypatch):
    s, c, budget, low, high, e = large_problem(kind)
    floors = float(c @ (np.maximum(low, e) - e))
    caps = float(c @ (np.where(s > 0, high, np.maximum(low, e)) - e))
    budgets = [floors, floors * 1.001, budget, 10 * budget, *([caps, 2 * caps] if caps < np.inf else [])]
    budgets = [b for b in budgets if b > floors or not np.any((s > 0) & (low + e == 0))]
    selected = [waterfill(s, c, b, low=low, high=high, spent=e) for b in budgets]
    batch = waterfill(s, c, budgets, low=low, high=high, spent=e)
    monkeypatch.setattr(water_level, "_SORTED", s.size)
    for r, (b, one) in enumerate(zip(budgets, selected, strict=True)):
        np.testing.assert_array_equal(batch.examples[r], one.examples)
        by_sort = waterfill(s, c, b, low=low, high=high, spent=e)
        np.testing.assert_allclose(e + one.examples, e + by_sort.examples, rtol=1e-13)
        assert one.value == pytest.approx(by_sort.value, rel=1e-13)
        assert (one.multiplier, one.slack) == pytest.approx(
            (by_sort.multiplier, by_sort.slack), rel=1e-12, abs=1e-12 * b
        )


# ------------------------------------------------------------------ whole examples


def enumerated(s, e, total, low, high):
    """Least value over all whole allocations of `total` examples."""
    best = np.inf
    for m in itertools.product(range(total + 1), repeat=len(s)):
        u = e + np.array(m)
        if sum(m) == total and np.all(u >= low) and np.all(u <= high):
            with np.errstate(divide="ignore", invalid="ignore"):
                best = min(best, float(np.where(s > 0, s / u, 0.0).sum()))
    return best


@pytest.mark.parametrize("spent", [False, True])
def test_rounding_at_equal_prices_is_the_optimum_of_all_whole_allocations(spent):
    for seed in range(25 if FULL else 10):
        rng = np.random.default_rng(seed)
        s = 10 ** rng.uniform(-3, 3, 4)
        e = rng.uniform(0, 3, 4) if spent else np.zeros(4)
        low, high = np.array([0, 0, 1.0, 0]), np.array([np.inf, 6.0, 9.0, np.inf])
        continuous = waterfill(s, 2.0, 18.0, low=low, high=high, spent=e).examples
        whole, loss = round_examples(s, 2.0, continuous, spent=e, total=9, low=low, high=high)
        assert whole.sum() == 9
        assert np.all(whole == np.floor(whole))
        value = float((s / (e + whole)).sum())
        assert value == pytest.approx(enumerated(s, e, 9, low, high), rel=1e-12)
        assert loss == pytest.approx(value / float((s / (e + continuous)).sum()) - 1, rel=1e-9, abs=1e-12)
        assert loss >= -1e-12


def test_rounding_under_the_plans_price_is_near_the_best_whole_allocation():
    worst = 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        s, c = 10 ** rng.uniform(-1, 1, 3), rng.uniform(0.5, 3, 3)
        budget = 40.0
        continuous = waterfill(s, c, budget).examples
        whole, loss = round_examples(s, c, continuous)
        assert c @ whole <= budget * (1 + 1e-9)
        every = np.stack(np.meshgrid(*[np.arange(1.0, 80.0)] * 3), axis=-1).reshape(-1, 3)
        best = (s / every[every @ c <= budget]).sum(axis=1).min()
        value = float((s / whole).sum())
        assert value >= best * (1 - 1e-12)
        worst = max(worst, value / best - 1)
        assert loss >= -1e-12
    assert worst < 0.05  # a knapsack: greedy is near, not at, the optimum


def test_rounding_a_large_plan_loses_almost_nothing_and_keeps_the_total():
    s, c, budget, *_ = random_problem(np.random.default_rng(1), 300, 4, boxes=False)
    continuous = waterfill(s, c, budget * 100).examples
    whole, loss = round_examples(s, c, continuous, total=round(continuous.sum()))
    assert whole.sum() == round(continuous.sum())
    assert abs(loss) < 1e-4
    cheap, loss = round_examples(s, c, continuous)
    assert c @ cheap <= budget * 100 * (1 + 1e-9)
    assert c @ cheap >= budget * 100 - c.min()
    assert 0 <= loss < 1e-4


def test_rounding_spends_what_a_dear_level_leaves_on_cheap_ones():
    whole, _ = round_examples([1.0, 1.0], [1.0, 1e6], [10.0, 5.9])
    assert whole[1] == 5.0
    assert whole @ np.array([1.0, 1e6]) == pytest.approx(10 + 5.9e6, abs=1.0)


def test_every_level_that_needs_an_example_gets_one_or_the_total_is_refused():
    whole, loss = round_examples([1.0, 100.0, 100.0], 1.0, [0.05, 2.45, 2.5])
    assert whole.tolist() == [1.0, 2.0, 2.0]
    assert loss == pytest.approx(101 / (20 + 100 / 2.45 + 100 / 2.5) - 1)
    with pytest.raises(InfeasibleError, match="take 3 of the 2"):
        round_examples([1.0, 100.0, 100.0], 1.0, [0.05, 2.45, 2.5], total=2)


def test_rounding_zero_error_and_zero_plan():
    whole, loss = round_examples([0.0, 0.0], 1.0, [2.5, 0.0], total=3)
    assert whole.sum() == 3
    assert loss == 0.0
    whole, loss = round_examples([1.0], 1.0, [0.0], spent=[4.0])
    assert whole.tolist() == [0.0]
    assert loss == 0.0


def with_last_evaluation(rng):
    """(s, A, w): errors of 4 levels, and the last evaluation's error A / (w . m)."""
    s, window = 10 ** rng.uniform(-1, 1, 4), np.array([1.0, 0.6, 0.1, 0.0])
    return s, 10 ** rng.uniform(0, 2), window


def test_separable_errors_bound_the_last_evaluation_and_touch_it_at_the_plan():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        s, final, window = with_last_evaluation(rng)
        plan = 10 ** rng.uniform(-1, 1, 4)
        bound = separable_errors(s, final, window, plan)
        m = plan * np.vstack([np.ones(4), rng.uniform(0.1, 10, (50, 4))])
        true, above = (s / m).sum(axis=1) + final / (m @ window), (bound / m).sum(axis=1)
        assert above[0] == pytest.approx(true[0], rel=1e-14)
        assert np.all(above >= true * (1 - 1e-14))
        slope = -s / plan**2 - final * window / (window @ plan) ** 2
        np.testing.assert_allclose(-bound / plan**2, slope, rtol=1e-13)


def test_rounding_with_the_last_evaluation_is_near_the_best_whole_allocation():
    every = np.array([m for m in itertools.product(range(1, 13), repeat=4) if sum(m) == 14], dtype=float)
    losses, without = [], []
    for seed in range(20):
        s, final, window = with_last_evaluation(np.random.default_rng(seed))

        def error(m, s=s, final=final, window=window):
            return (s / m).sum(axis=-1) + final / (m @ window)

        start = np.full(4, 3.5)
        for _ in range(500):  # the continuous optimum as the fixed point of its own separable bound
            before, start = start, waterfill(separable_errors(s, final, window, start), 1.0, 14.0).examples
            if np.abs(start - before).max() < 1e-10:
                break
        best = error(every).min()
        for errors, found in ((separable_errors(s, final, window, start), losses), (s, without)):
            whole, _ = round_examples(errors, 1.0, start, total=14)
            found.append(error(whole) / best - 1)
    assert max(losses) < 0.02
    assert max(without) > 0.2  # what leaving the last evaluation out would cost
