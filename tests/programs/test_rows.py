"""Rows of a declared program: their slopes, their size and their multipliers in the user's units."""

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.constraints import Named
from codesign_opt.modeling.design import Design, Point
from codesign_opt.programs.rows import linearise
from codesign_opt.programs.scaling import rows_of

LEVELS = co.Levels.log_uniform(0.01, 10.0, 5)
REFERENCE = Point(np.array([1e4, 2e5, 3e6, 4e5, 5e4]), np.zeros(5), np.array([1.0, 2.0, 3.0, 2.0, 1.0]))
POINT = Point(1.1 * REFERENCE.new_examples, REFERENCE.spent, 0.7 * REFERENCE.steps)


def curved(design):
    return cp.sum_squares(design.density) / 1e9 + cp.sum(design.steps) <= 700.0


def test_slopes_are_per_example_and_per_step_whatever_the_reference():
    design = Design.declare(LEVELS, reference=REFERENCE)
    (row,) = rows_of(Named("curved", curved), design)
    design.set(POINT)
    value, examples, steps = linearise(row.stated, design, np.ones(1))
    density = POINT.new_examples / LEVELS.log_width
    assert value == pytest.approx(np.sum(density**2) / 1e9 + POINT.steps.sum() - 700.0)
    np.testing.assert_allclose(examples, 2 * density / LEVELS.log_width / 1e9, rtol=1e-9)
    np.testing.assert_allclose(steps, 1.0, rtol=1e-12)


def test_the_declared_row_is_of_order_one_and_its_multiplier_is_scaled_back():
    design = Design.declare(LEVELS, reference=REFERENCE)
    (row,) = rows_of(Named("curved", curved), design)
    design.set(REFERENCE)
    assert 0.1 < abs(float(np.ravel(row.constraint.args[0].value)[0])) <= 1.0
    row.constraint.dual_variables[0].save_value(np.array([3.0]))
    np.testing.assert_allclose(row.multipliers(0.5), 3.0 * 0.5 / row.size)


def test_violations_are_relative_to_the_limit():
    design = Design.declare(LEVELS, reference=REFERENCE)
    (row,) = rows_of(Named("steps", lambda d: cp.sum(d.steps) <= 6.0), design)
    design.set(POINT)
    paid = POINT.steps.sum()
    np.testing.assert_allclose(row.excess(POINT), paid - 6.0)
    assert row.violation(POINT) == pytest.approx((paid - 6.0) / 6.0)
    design.set(Point(POINT.new_examples, POINT.spent, 0.1 * POINT.steps))
    assert row.violation(POINT) == 0.0
