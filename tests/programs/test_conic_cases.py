"""Programs that were called infeasible or refused: spent beyond the budget, target errors, rows in raw units."""

import os

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from tests.helpers.raw_user_programs import own

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
MODEL = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun())
TABLE = MODEL.coefficients(levels=30)
ERROR = co.ScoreError(TABLE) + co.Discretization(TABLE)
PRICES = co.Prices(3.0, 1.0, 10_000)
BUDGET = [co.Compute(PRICES) <= 1e6, co.Steps() <= 18]


def test_spent_examples_beyond_the_budget_and_new_ones_asked_for_elsewhere():
    shape = np.exp(-((np.log(TABLE.sigma) + 1.2) ** 2) / 2.88) * TABLE.log_width
    there = (TABLE.sigma > 0.09) & (TABLE.sigma < 0.43)
    more = co.named("more", lambda d: cp.sum(d.new_examples[there]) >= 1e4)
    plan = co.Problem(ERROR, [*BUDGET, more], spent=shape / shape.sum() * 5e5).solve()
    assert plan.certificate.optimal
    assert plan.new_examples[there].sum() >= 1e4 * (1 - 1e-7)


def test_examples_on_levels_without_score_error():
    levels = co.Levels.log_uniform(0.01, 10, 20)
    table = co.Coefficients(levels, np.tile([1.0, 0.0], 10), np.zeros(20), np.ones((1, 20)), terminal="rescale")
    rows = [co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6, lambda d: cp.sum(d.examples[1::2]) >= 3e5]
    assert co.Problem(co.ScoreError(table) + co.Discretization(table), rows).solve().certificate.optimal


@pytest.mark.cases(1)
@pytest.mark.parametrize("factor", [1.02, 1.5, 10.0, 300.0])
def test_the_cheapest_plan_for_a_target_error_and_the_best_plan_at_its_price_agree(factor):
    target = factor * co.Problem(ERROR, BUDGET).solve().error
    cheapest = co.Problem(co.Compute(PRICES), [target >= ERROR, co.Steps() <= 18]).solve()
    assert cheapest.certificate.optimal
    again = co.Problem(ERROR, [co.Compute(PRICES) <= cheapest.certificate.value, co.Steps() <= 18]).solve()
    assert again.error == pytest.approx(target, rel=1e-5)


@pytest.mark.cases(2)
@pytest.mark.parametrize("decade", [2, 6, 10, 12] if FULL else [2, 12])
@pytest.mark.parametrize("kind", ["norm", "squares", "kl"])
def test_rows_in_raw_units_are_what_they_are_in_shares(kind, decade):
    total = 10.0**decade
    present, prices = np.full(30, total / 180), co.Prices(3.0, 1.0, 1.0)
    row = {
        "norm": lambda unit: lambda d: cp.norm((d.examples - present) / unit) <= 0.1 * total / unit,
        "squares": lambda unit: lambda d: cp.sum_squares((d.examples - present) / unit) <= (0.1 * total / unit) ** 2,
        "kl": lambda unit: lambda d: cp.sum(cp.kl_div(d.examples / unit, present / unit)) <= 0.02 * total / unit,
    }[kind]
    plans = [
        co.Problem(ERROR, [co.Compute(prices) <= total, co.Steps() <= 18, row(u)]).solve() for u in (1.0, total / 30)
    ]
    assert all(plan.certificate.optimal for plan in plans)
    assert plans[0].certificate.value == pytest.approx(plans[1].certificate.value, rel=2e-6)


def test_the_papers_problem_for_the_step_size_has_its_closed_form():
    """min sum d n^-2 with sum n <= K: n in proportion to d^(1/3), value (sum d^(1/3))^3 / K^2."""
    levels = co.Levels.log_uniform(0.01, 10.0, 60)
    table = co.Coefficients(levels, np.zeros(60), np.zeros(60), np.zeros((0, 60)), coupling=co.PerStep(1.0),
                            terminal="rescale")  # fmt: skip
    weight = levels.sigma**-1.5 * (levels.sigma * levels.log_width) ** 3
    term = own(lambda d: cp.sum(cp.multiply(weight, cp.power(d.steps, -2))))
    proof = co.Problem(co.ScoreError(table) + term, [co.Steps() <= 20]).solve().certificate
    assert proof.optimal
    assert proof.value == pytest.approx(np.sum(weight ** (1 / 3)) ** 3 / 20**2, rel=1e-6)


def test_whole_numbers_and_shared_variables_are_refused_by_name():
    choice = cp.Variable(30, boolean=True, name="chosen")
    with pytest.raises(co.ConvexityError, match=r"pick.*boolean variable 'chosen'"):
        co.Problem(ERROR, [*BUDGET, co.named("pick", lambda d: d.examples <= 1e6 * choice)])
    level = cp.Variable(name="level")
    with pytest.raises(TypeError, match="share the variable 'level'"):
        co.Problem(ERROR + own(lambda d: level), [*BUDGET, co.named("row", lambda d: cp.max(d.density) <= level)])


@pytest.mark.cases(1)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_trace_of_an_inverse_in_any_unit_beside_examples_already_spent(unit):
    """sum_i 1 / (e_i + m_i) of three directions, a level each, at the price c: m_i + e_i = lambda / sqrt(c_i)."""
    spent, budget = 1e9 * np.array([1.0, 2.0, 3.0]), 1e11
    nothing = co.ScoreError(
        co.Coefficients(co.Levels.log_uniform(0.01, 10.0, 3), np.zeros(3), np.zeros(3), np.zeros((0, 3)))
    )
    price = np.array([1.0, 4.0, 0.25])
    directions = [np.outer(e, e) for e in np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]]

    def design_error(d):
        return unit * cp.tr_inv(sum(unit * d.examples[i] * each for i, each in enumerate(directions)))

    rows = [co.Compute(co.Prices(price, 1.0, 1), part="training") <= budget]
    plan = co.Problem(own(design_error) + nothing, rows, spent=spent, steps=np.ones(3)).solve()
    best = np.sqrt(price).sum() ** 2 / (budget + price @ spent)
    assert plan.certificate.value == pytest.approx(best, rel=1e-6)
    assert plan.certificate.lower_bound <= best * (1 + 1e-12)


@pytest.mark.parametrize("width", [0.02, 0.1])
def test_a_kernel_that_falls_to_nothing_between_its_levels(width):
    """Far narrower than the levels' distance it pools nothing: the optimum is that of the same program without."""
    levels = co.Levels.log_uniform(0.01, 10.0, 12)
    logs = np.log(levels.sigma)
    kernel = np.exp(-0.5 * ((logs[:, None] - logs) / width) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    score, response = 10.0 ** np.linspace(-3, 3, 12), np.ones((1, 12))

    def best(coupling):
        table = co.Coefficients(levels, score, np.full(12, 1e-4), response, coupling=coupling, final_score=1e3)
        rows = [co.Compute(co.Prices(1.0, 1.0, 1e4)) <= 1e7, lambda d: cp.sum(cp.inv_pos(d.steps)) <= 20.0]
        close = co.named("close", lambda d: cp.norm(d.examples - 2e5) <= 9e5)
        return co.Problem(co.ScoreError(table) + co.Discretization(table), [*rows, close]).solve().certificate

    pooled, alone = best(co.Transfer(kernel, 0.8)), best(co.Local(0.8))
    assert pooled.optimal
    assert alone.optimal
    assert pooled.value == pytest.approx(alone.value, rel=2e-6 if width < 0.05 else 1e-3)
