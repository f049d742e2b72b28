"""User parts whose sizes are far from one: exponentials, penalties that can be avoided, optima of nothing."""

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq

import codesign_opt as co

LEVELS = co.Levels.log_uniform(0.01, 10.0, 6)
WIDTH = LEVELS.log_width
PRICES = co.Prices(1.0, 1.0, 1)


def table(score, truncation=0.0):
    """Score errors alone, of given totals score / m."""
    return co.Coefficients(LEVELS, score=score / WIDTH**2, floor=np.zeros(6), response=np.zeros((0, 6)),
                           coupling=co.PerStep(lambda _: WIDTH), terminal="rescale", truncation=truncation)  # fmt: skip


def random_exponentials(seed):
    """Errors a/m and units u of w exp(m/u - 1) with 20 to 150 in the exponent at the optimum."""
    rng = np.random.default_rng(seed)
    unit, exponent = 10 ** rng.uniform(-3, 6, 6), rng.uniform(20, 150, 6)
    m = exponent * unit
    score = m * np.exp(rng.normal(0, 1, 6))
    weight = unit * score / m**2 * np.exp(1 - exponent)  # stationary there
    return score, unit, weight, m


class _Exponentials(co.Term):
    def __init__(self, unit, weight):
        self.unit, self.weight = unit, weight

    def expression(self, design):
        return cp.sum(cp.multiply(self.weight, cp.exp(cp.multiply(1 / self.unit, design.examples) - 1)))


@pytest.mark.cases(1)
@pytest.mark.parametrize("seed", range(4))
def test_exponentials_a_hundred_decades_from_the_rest_are_certified(seed):
    score, unit, weight, m = random_exponentials(seed)
    problem = co.Problem(co.ScoreError(table(score)) + _Exponentials(unit, weight),
                         [co.Compute(PRICES) <= 1e3 * m.sum()], steps=np.ones(6))  # fmt: skip
    plan = problem.solve()
    truth = np.sum(score / m) + np.sum(weight * np.exp(m / unit - 1))
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(truth, rel=1e-6)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_such_exponentials_are_certified(seed):
    """min sum a/m with sum w exp(m/u - 1) <= t: a/m^2 = y w/u exp(m/u - 1) on every level."""
    score, unit, weight, m = random_exponentials(seed)
    limit = 2 * float(np.sum(weight * np.exp(m / unit - 1)))

    def best(y):
        def level(k):
            return brentq(
                lambda v: np.log(score[k] / (v * unit[k]) ** 2) - np.log(y * weight[k] / unit[k]) - v + 1, 1e-3, 900
            )

        return unit * np.array([level(k) for k in range(6)])

    log_y = brentq(lambda s: np.log(np.sum(weight * np.exp(best(np.exp(s)) / unit - 1)) / limit), -30, 30, xtol=1e-14)
    truth = float(np.sum(score / best(np.exp(log_y))))
    plan = co.Problem(co.ScoreError(table(score)), [_Exponentials(unit, weight) <= limit,
                      co.Compute(PRICES) <= 1e3 * m.sum()], steps=np.ones(6)).solve()  # fmt: skip
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(truth, rel=1e-6)


PENALTIES = {
    "largest distance": lambda d, t: cp.norm_inf(d.density / t - 1),
    "distance": lambda d, t: cp.norm(d.density / t - 1),
    "squares": lambda d, t: cp.sum_squares(d.density / t - 1),
    "uneven": lambda d, t: cp.quad_over_lin(
        cp.diff(cp.multiply(1 / t, d.density)), cp.sum(cp.multiply(1 / t, d.density))
    ),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("seed", range(2))
def test_a_penalty_that_can_be_avoided_beside_an_error_that_no_design_changes(name, seed):
    """Nothing varies at the optimum: ten digits of the whole are proved, and they are the constant's."""
    rng = np.random.default_rng(seed)
    target, constant = np.exp(rng.normal(10, 1, 6)), float(10 ** rng.uniform(-3, 2))
    term = type("Penalty", (co.Term,), {"expression": lambda self, d: constant * PENALTIES[name](d, target)})()
    budget = co.Compute(PRICES) <= 2 * float(target @ WIDTH) * np.exp(rng.uniform(0, 3))
    truncated = co.Truncation(table(np.zeros(6), constant))
    plan = co.Problem(co.ScoreError(table(np.zeros(6))) + truncated + term, [budget], steps=np.ones(6)).solve()
    assert plan.certificate.optimal
    assert constant <= plan.error <= constant * (1 + 2e-10)


def test_an_error_that_varies_still_has_a_gap_relative_to_what_varies():
    """Ten digits of the whole do not excuse a plan that is a per cent worse in what the design can change."""
    score = np.full(6, 1e-3)
    errors = co.ScoreError(table(score, 1.0)) + co.Truncation(table(score, 1.0))
    stated = co.Problem(errors, [co.Compute(PRICES) <= 1e3], steps=np.ones(6))
    best = stated.solve()
    assert best.certificate.optimal
    worse = stated.certify(examples=best.new_examples * (1 + 0.1 * (-1) ** np.arange(6)))
    assert not worse.optimal
    assert worse.relative_gap == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
def test_where_nothing_is_best_nothing_is_the_answer(power):
    """A price of examples that no error asks for: the optimum is none, and zero is proved."""
    term = type("Price", (co.Term,), {"expression": lambda self, d: cp.sum(cp.power(d.density, power))})()
    plan = co.Problem(co.ScoreError(table(np.zeros(6))) + term, [co.Compute(PRICES) <= 1e3], steps=np.ones(6)).solve()
    assert plan.certificate.optimal
    assert plan.error == 0.0
    assert not plan.new_examples.any()
