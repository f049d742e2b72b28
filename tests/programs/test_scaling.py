"""A homogeneous term of a user is declared in units in which it is of order one; proofs use it as written."""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.design import Design, Point
from codesign_opt.programs.scaling import as_stated, scaled_expression

LEVELS = co.Levels.log_uniform(0.01, 10.0, 5)
REFERENCE = Point(np.array([1e7, 2e8, 3e9, 4e8, 5e7]), np.zeros(5), np.array([1.0, 2.0, 3.0, 2.0, 1.0]))


@dataclass(frozen=True, eq=False)
class Power(co.Term):
    price: float
    power: float
    offset: float = 0.0

    def expression(self, design):
        return self.price * cp.sum(cp.multiply(design.log_width, cp.power(design.density + self.offset, self.power)))


def largest_number(expression):
    """The largest value that any node of a tree takes: what a conic solver sees."""
    inside = max((largest_number(a) for a in expression.args if not a.is_constant()), default=0.0)
    return max(inside, float(np.max(np.abs(expression.value))))


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
def test_a_homogeneous_term_keeps_its_value_and_loses_its_large_numbers(power):
    design = Design.declare(LEVELS, reference=REFERENCE)
    term = Power(1e-9**power, power)
    expression, _, scaled = scaled_expression(term, design)
    design.set(REFERENCE)
    assert scaled
    assert float(expression.value) == pytest.approx(float(term.expression(design).value), rel=1e-12)
    assert largest_number(expression) < 100 < 1e8 < largest_number(term.expression(design))


def test_a_term_that_is_not_homogeneous_is_left_as_written():
    design = Design.declare(LEVELS, reference=REFERENCE)
    expression, _, scaled = scaled_expression(Power(1e-18, 2.0, offset=1e8), design)
    design.set(REFERENCE)
    assert not scaled
    assert largest_number(expression) > 1e8


def test_proofs_use_the_term_as_its_author_wrote_it():
    design = Design.declare(LEVELS, reference=REFERENCE)
    term = Power(1e-18, 2.0)
    scaled = scaled_expression(term, design)[0]
    assert as_stated(term, scaled, design) is not scaled
    table = co.Coefficients(LEVELS, np.ones(5), np.zeros(5), np.zeros((0, 5)), terminal="rescale")
    known = scaled_expression(co.ScoreError(table), design)[0]
    assert as_stated(co.ScoreError(table), known, design) is known
