"""Functions and shapes that cvxpy treats specially: certified like others, and without warnings."""

import warnings

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

LEVELS = co.Levels.log_uniform(0.01, 10.0, 6)


def table(levels, score=1.0):
    size = len(levels)
    return co.Coefficients(
        levels, np.full(size, score), np.zeros(size), np.ones((1, size)), coupling=co.PerStep(1.0), terminal="rescale"
    )


def own(function):
    return type("Own", (co.Term,), {"expression": lambda self, design: function(design)})()


def solved(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = problem.solve()
    assert plan.certificate.optimal
    return plan


def test_the_largest_difference_as_a_term_and_as_a_row():
    """The same as a variable of its own above every difference."""
    tab = table(LEVELS)
    center = np.linspace(1e5, 3e5, 6)
    base = [co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6]
    errors = co.ScoreError(tab) + co.Discretization(tab)

    def above(d):
        top = cp.Variable()
        return 1e-9 * top, [d.examples - center <= top, center - d.examples <= top]

    row = solved(co.Problem(errors, [*base, lambda d: cp.norm_inf(d.examples - center) <= 1.2e5]))
    every = [lambda d: d.examples <= center + 1.2e5, lambda d: d.examples >= center - 1.2e5]
    assert np.isclose(row.error, solved(co.Problem(errors, [*base, *every])).error, rtol=2e-6)
    term = solved(co.Problem(errors + own(lambda d: 1e-9 * cp.norm_inf(d.examples - center)), base))
    assert np.isclose(term.error, solved(co.Problem(errors + own(above), base)).error, rtol=2e-6)


def test_the_sum_of_the_largest_of_all_is_the_sum():
    tab = table(LEVELS)
    base = [co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6]
    errors = co.ScoreError(tab) + co.Discretization(tab)
    found = [solved(co.Problem(errors, [*base, lambda d, f=f: f(d.steps) <= 1e3])).error
             for f in (lambda x: cp.sum_largest(x, 6), cp.sum)]  # fmt: skip
    assert np.isclose(*found, rtol=2e-6)


def test_programs_on_one_level():
    levels = co.Levels.log_uniform(0.01, 10.0, 1)
    tab = table(levels)
    errors = co.ScoreError(tab) + co.Discretization(tab)
    base = [co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6]
    plan = solved(
        co.Problem(errors + own(lambda d: 1e-7 * cp.sum(d.examples)), [*base, lambda d: cp.max(d.steps) <= 9])
    )
    assert np.isclose(plan.steps[0], 9.0, rtol=1e-5)


def test_a_row_about_examples_that_no_term_needs_is_met():
    tab = table(LEVELS, score=0.0)
    base = co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6
    plan = solved(co.Problem(co.Discretization(tab), [base, lambda d: cp.sum(d.examples) >= 5e5]))
    without = solved(co.Problem(co.Discretization(tab), [co.Compute(co.Prices(1.0, 1.0, 100)) <= 5e5]))
    assert plan.examples.sum() >= 5e5 * (1 - 1e-7)
    assert np.isclose(plan.error, without.error, rtol=2e-6)


@pytest.mark.cases(1)
@pytest.mark.parametrize("exponent", [0.7325123, 1.93217, np.pi])
def test_exponents_that_are_no_fractions_are_those_of_the_author(exponent):
    """cvxpy puts a fraction in their place, off by 2e-6: of another function no bound holds, and values move."""
    rng, size = np.random.default_rng(3), 8
    table = co.Coefficients(
        co.Levels.log_uniform(0.01, 10.0, size), np.ones(size), np.zeros(size), np.ones((1, size)), terminal="rescale"
    )
    weights, total, unit = np.exp(rng.normal(size=size)), 1e7, 1e-4
    root = (weights ** (1 / (1 + exponent))).sum()
    least = root ** (1 + exponent) / (unit * total) ** exponent

    best = weights ** (1 / (1 + exponent)) / root * total

    def falls(design):
        """The kink, a maximum whose entries are all one at the optimum of the rest, needs the conic dual."""
        kink = cp.max(cp.multiply(best, cp.inv_pos(design.examples)))
        return weights @ cp.power(unit * design.examples, -exponent) + 0.1 * least * kink

    steps = np.ones(size)
    error = co.Discretization(table)
    truth = float((table.step_response.sum(axis=1) ** 2).sum()) + 1.1 * least
    training = co.Compute(co.Prices(1.0, 1.0, 1), part="training")
    plan = co.Problem(own(falls) + error, [training <= total], steps=steps).solve()
    assert plan.certificate.optimal
    assert plan.certificate.value == pytest.approx(truth, rel=1e-7)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-12)
    rows = [co.named("mine", lambda d: weights @ cp.power(unit * d.examples, -exponent) <= least)]
    cheapest = co.Problem(training + 0 * error, rows, steps=steps).solve()
    assert cheapest.certificate.value == pytest.approx(total, rel=1e-6)
