"""A program compiled in numbers is the program declared in cvxpy."""

from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.design import Point
from codesign_opt.programs.compiled import compile_problem
from codesign_opt.programs.proof import certify, lagrangian
from codesign_opt.programs.rows import BudgetRow

TABLE = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 30)
SIZE = len(TABLE.levels)
RNG = np.random.default_rng(0)
POINT = Point(RNG.uniform(10, 90, SIZE), np.zeros(SIZE), RNG.uniform(0.2, 2, SIZE))


def program(*constraints):
    terms = 0.5 * co.ScoreError(TABLE) + 2 * co.Discretization(TABLE) + co.Truncation(TABLE)
    return co.Problem(terms, [co.Compute(co.Prices(3.0, 1.0, 10)) <= 4e3, *constraints]).declaration


def test_budgets_and_library_terms_make_no_expression():
    compiled = compile_problem(program(co.Steps() <= 20.0), POINT, program().box, declare=False)
    assert compiled.in_numbers
    assert all(isinstance(row, BudgetRow) for row in compiled.rows)
    mixed = compile_problem(program(co.Cap(1e9)), POINT, program().box, declare=False)
    assert not mixed.in_numbers


def test_values_violations_and_bounds_in_numbers_are_those_of_the_expressions():
    stated = program(co.Steps() <= 20.0)
    numbers = compile_problem(stated, POINT, stated.box, declare=False)
    declared = compile_problem(stated, POINT, stated.box)
    other = Point(1.3 * POINT.new_examples, POINT.spent, 0.9 * POINT.steps)
    declared.set(other)
    value = sum(leaf.weight * float(leaf.expression.value) for leaf in declared.leaves)
    multipliers = [np.array([1e-7]), np.array([1e-5])]
    proofs = [certify(compiled, multipliers, other, 1e-6) for compiled in (numbers, declared)]
    assert proofs[0].value == pytest.approx(value, rel=1e-9)
    bounds = [lagrangian(compiled, multipliers, other).value() for compiled in (numbers, declared)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-12)
    assert all(proof.lower_bound >= bounds[0] * (1 - 1e-12) for proof in proofs)
    for row, twin in zip(numbers.rows, declared.rows, strict=True):
        np.testing.assert_allclose(row.excess(other), twin.excess(other), rtol=1e-9)
        assert twin.excess(other)[0] > 0
        assert row.violation(other) == pytest.approx(twin.violation(other), rel=1e-9)


def test_the_declared_objective_is_of_order_one_at_its_reference():
    compiled = compile_problem(program(), POINT, program().box)
    compiled.set(POINT)
    assert compiled.declared.objective.value == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize("spent", [0.0, 1e3])
def test_score_errors_on_one_design_share_their_cones(spent):
    """Six scenarios cost the solver the cones of one: cvxpy knows what is the same where it is one expression.

    Of small arrays it knows them by their numbers.
    """
    table = replace(co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 150), untrained=None)
    size = len(table.levels)
    tables = [replace(table, score=table.score * (1 + k)) for k in range(6)]

    def cones(count):
        problem = co.Problem(
            co.WorstCase([co.ScoreError(each) for each in tables[:count]]) + co.Steps() / 100,
            [co.Compute(co.Prices(3.0, 1.0, 1000)) <= 1e5],
            spent=np.full(size, spent),
        )
        return problem.cvxpy().problem.get_problem_data("CLARABEL")[0]["dims"]

    assert cones(6).exp == cones(1).exp > 0
