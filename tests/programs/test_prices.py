"""Shadow prices are d error / d what the author wrote: every constraint against re-solved programs."""

from __future__ import annotations

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
TABLE = co.GaussianModel(
    co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun()
).coefficients(levels=30)
S, D = co.ScoreError(TABLE), co.Discretization(TABLE)
PRICES = co.Prices(3.0, 1.0, 10_000)
BUDGET = [co.Compute(PRICES) <= 1e6]
FREE = co.Problem(S + D, BUDGET).solve()
M, N = FREE.examples, FREE.steps
DENSITY, STEP_DENSITY = M / TABLE.log_width, N / TABLE.log_width
RATIO = 10 ** np.random.default_rng(0).uniform(-1, 0.5, 30)
STIFF = replace(TABLE, variance_ratio=RATIO, positivity=1.0)
KAPPA = 0.5 * float(np.max(RATIO * TABLE.log_width / N))
INSIDE = TABLE.levels.overlap(0.1, 1.0) / TABLE.log_width
LOW = TABLE.sigma < 0.2
TOTAL = float(M.sum())
SCORE = FREE.breakdown["score"] + FREE.breakdown["last evaluation"]


BENT = ("trust cap", "stability cap")  # a level begins to train between 1 and 1.002 times the limit


def user(row):
    return lambda x: [*BUDGET, co.named("user", lambda d: row(d, x))]


CASES = {
    "compute": (lambda x: [co.Compute(PRICES) <= x], 1e6),
    "steps": (lambda x: [*BUDGET, co.Steps() <= x], 0.7 * N.sum()),
    "floor, density": (lambda x: [*BUDGET, co.Floor(x)], np.median(DENSITY)),
    "floor, examples in a range": (lambda x: [*BUDGET, co.Floor(x, "examples", 0.001, 0.2)], np.median(M)),
    "floor, step density": (lambda x: [*BUDGET, co.Floor(x, "step_density")], np.median(STEP_DENSITY)),
    "floor, function": (lambda x: [*BUDGET, co.Floor(lambda s: x + 0 * s)], np.median(DENSITY)),
    "cap, density in a range": (lambda x: [*BUDGET, co.Cap(x, low=0.02)], np.median(DENSITY)),
    "cap, examples": (lambda x: [*BUDGET, co.Cap(x, "examples")], np.median(M)),
    "cap, steps": (lambda x: [*BUDGET, co.Cap(x, "steps")], np.median(N)),
    "cap, step density": (lambda x: [*BUDGET, co.Cap(x, "step_density")], np.median(STEP_DENSITY)),
    "cap, step size": (lambda x: [*BUDGET, co.Cap(x, "step_size")], np.quantile(TABLE.levels.width / N, 0.95)),
    "share, examples": (lambda x: [*BUDGET, co.Share(x, 0.1, 1.0)], 0.8 * float(INSIDE @ M) / TOTAL),
    "share, steps": (lambda x: [*BUDGET, co.Share(x, 0.1, 1.0, "steps")], 0.8 * float(INSIDE @ N) / N.sum()),
    "trust cap": (
        lambda x: [*BUDGET, co.TrustCap(STIFF, x)], 0.5 * float(np.max(RATIO * TABLE.log_width / N))
    ),
    "stability cap": (  # by the multiple of the stable step, 1 as stated: the table's positivity over it
        lambda x: [*BUDGET, co.StabilityCap(replace(STIFF, positivity=1 / (KAPPA * x)))], 1.0
    ),
    "term bound": (lambda x: [*BUDGET, co.named("quality", co.modeling.Bound(S, x))], 0.9 * SCORE),
    "user <=": (user(lambda d, x: cp.sum(d.examples[LOW]) <= x), 0.7 * M[LOW].sum()),
    "user >=": (user(lambda d, x: cp.sum(d.examples[LOW]) >= x), 1.5 * M[LOW].sum()),
    "user ==": (user(lambda d, x: cp.sum(d.examples[LOW]) == x), 1.5 * M[LOW].sum()),
    "user, constant == sum": (user(lambda d, x: cp.Constant(x) == cp.sum(d.examples[LOW])), 1.5 * M[LOW].sum()),
    "user, number >= sum": (user(lambda d, x: x >= cp.sum(d.examples[LOW])), 0.7 * M[LOW].sum()),
    "user, vector": (user(lambda d, x: d.density[LOW] >= x), 1.5 * np.median(DENSITY[LOW])),
    "user, a >= b + x": (user(lambda d, x: cp.sum(d.examples[LOW]) >= cp.sum(d.examples[~LOW]) + x), 0.2 * TOTAL),
    "user, a <= b + x": (user(lambda d, x: cp.sum(d.examples[~LOW]) <= cp.sum(d.examples[LOW]) + x), -0.2 * TOTAL),
    "user, vectors on both sides": (user(lambda d, x: d.density[1:] >= d.density[:-1] + x), -0.02 * DENSITY.max()),
    "user, second-order cone": (user(lambda d, x: cp.SOC(cp.Constant(x), d.examples)), 0.8 * np.linalg.norm(M)),
    "user, norm": (user(lambda d, x: cp.norm(d.examples - TOTAL / 30) <= x), 0.5 * np.linalg.norm(M - TOTAL / 30)),
    "user, squares": (user(lambda d, x: cp.sum_squares(d.examples / 1e3) <= x), 0.8 * float((M / 1e3) @ (M / 1e3))),
    "user, divergence": (user(lambda d, x: cp.sum(cp.kl_div(d.examples / TOTAL, np.full(30, 1 / 30))) <= x), 0.1),
}  # fmt: skip

LIKE_ANOTHER = {
    "floor, examples in a range", "floor, step density", "cap, examples", "cap, step density", "share, steps",
    "user >=", "user, number >= sum", "user, a <= b + x", "user, squares", "trust cap",
}  # fmt: skip


def solved(rows):
    for tolerance in (1e-9, 1e-8, 1e-7, 1e-6):
        try:
            return co.Problem(S + D, rows).solve(tolerance=tolerance)
        except co.NotCertifiedError as error:
            last = error
    raise last


def priced(plan):
    """The price of the constraint in question: the only one beside the budget."""
    return next((p for name, p in plan.shadow_prices.items() if name != "Compute"), plan.shadow_prices["Compute"])


@pytest.mark.cases(5)
@pytest.mark.parametrize("case", CASES if FULL else [case for case in CASES if case not in LIKE_ANOTHER])
def test_prices_are_finite_differences_of_what_was_written(case):
    rows, x = CASES[case]
    step = (5e-4 if case in BENT else 2e-3) * abs(x)
    plan, up, down = (solved(rows(value)) for value in (x, x + step, x - step))
    slope = (up.error - down.error) / (2 * step)
    assert abs(slope * x) > 1e-5 * plan.error, "the constraint does not bind: nothing is tested"
    assert np.ndim(priced(plan)) == 0
    assert priced(plan) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("method", ["auto", "declared"])
def test_duplicates_share_the_price_and_several_binding_constraints_each_have_their_own(method):
    x = float(np.median(DENSITY))
    alone = co.Problem(S + D, [*BUDGET, co.Floor(x)]).solve(method=method).shadow_prices["Floor(density)"]
    twice = co.Problem(S + D, [*BUDGET, co.Floor(x), co.Floor(x)]).solve(method=method).shadow_prices
    assert twice["Floor(density)"] + twice["Floor(density) (2)"] == pytest.approx(alone, rel=1e-3)
    assert min(twice["Floor(density)"], twice["Floor(density) (2)"]) >= 0

    def both(a, b):
        rows = [co.Floor(a, low=0.05), co.Cap(b, "steps", high=0.5), co.Steps() <= 0.8 * N.sum()]
        return solved([*BUDGET, *rows])

    a, b = x, float(np.median(N))
    plan = both(a, b)
    for name, (da, db) in (("Floor(density, from 0.05)", (2e-3 * a, 0)), ("Cap(steps, to 0.5)", (0, 2e-3 * b))):
        slope = (both(a + da, b + db).error - both(a - da, b - db).error) / (2 * (da + db))
        assert plan.shadow_prices[name] == pytest.approx(slope, rel=1e-3)


def test_a_degenerate_price_lies_between_the_one_sided_derivatives():
    """A second bound on the same sum: tightening either costs, relaxing one alone gains nothing."""
    x = 0.7 * float(M[LOW].sum())

    def problem(first, second):
        rows = [
            co.named("first", lambda d: cp.sum(d.examples[LOW]) <= first),
            co.named("second", lambda d: 2 * cp.sum(d.examples[LOW]) <= second),
        ]
        return solved([*BUDGET, *rows])

    step, plan = 2e-3 * x, problem(x, 2 * x)
    left = (plan.error - problem(x - step, 2 * x).error) / step
    right = (problem(x + step, 2 * x).error - plan.error) / step
    assert abs(right) < 1e-3 * abs(left)
    assert left * (1 + 5e-3) <= plan.shadow_prices["first"] <= 1e-6 * abs(left)
    assert plan.shadow_prices["first"] + 2 * plan.shadow_prices["second"] == pytest.approx(left, rel=5e-3)


def test_an_array_has_a_price_for_each_level_and_tables_say_where_level_bounds_bind():
    floor = np.where(TABLE.sigma < 0.1, 1.5 * DENSITY, 0.0)
    plan = solved([*BUDGET, co.Floor(floor)])
    prices = plan.shadow_prices["Floor(density)"]
    assert prices.shape == (30,)
    level = int(np.argmax(prices * floor))
    step = 5e-3 * floor[level] * (np.arange(30) == level)
    slope = (solved([*BUDGET, co.Floor(floor + step)]).error - solved([*BUDGET, co.Floor(floor - step)]).error) / (
        2 * step[level]
    )
    assert prices[level] == pytest.approx(slope, rel=2e-3)
    whole = solved([*BUDGET, co.Floor(float(np.median(DENSITY)))])
    table = whole.tables["shadow price of Floor(density)"]
    assert table.sum() == pytest.approx(whole.shadow_prices["Floor(density)"])
    held = np.isclose(whole.examples / TABLE.log_width, np.median(DENSITY), rtol=1e-6)
    assert np.array_equal(table > 1e-6 * table.max(), held)


def test_monotone_has_a_price_for_each_pair_of_levels():
    plan = solved([*BUDGET, co.Monotone("increasing")])
    assert plan.shadow_prices["Monotone"].shape == (29,)
