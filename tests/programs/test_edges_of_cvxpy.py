"""Functions and shapes that cvxpy treats specially: certified like others, and without warnings."""

import warnings

import cvxpy as cp
import numpy as np

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
