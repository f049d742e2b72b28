"""Every bound of the conic dual, also those that prove nothing, against feasible values: weak duality itself."""

import contextlib

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.design import Point
from codesign_opt.programs import attempts
from tests.helpers.random_user_programs import Instance

LEVELS = co.Levels.log_uniform(0.01, 30.0, 20)
WIDTH = LEVELS.log_width


@pytest.fixture
def bounds(monkeypatch):
    """All bounds that are computed while a program is solved."""
    found, computed = [], attempts.conic_bound

    def watched(*given):
        found.append(computed(*given))
        return found[-1]

    monkeypatch.setattr(attempts, "conic_bound", watched)
    return found


def attempt(problem):
    with contextlib.suppress(co.NotCertifiedError):
        problem.solve()


def table(rng, examples, steps, coupling):
    shape = 10 ** rng.uniform(-3, 3, len(WIDTH))
    response = np.exp(0.5 * rng.normal(size=(2, len(WIDTH)))) * steps / len(WIDTH) ** 2
    return co.Coefficients(
        LEVELS, score=shape / shape.sum() * examples / len(WIDTH) / WIDTH**2, floor=np.zeros(len(WIDTH)),
        response=response / WIDTH**2, order=1, coupling=coupling, terminal="rescale",
    )  # fmt: skip


@pytest.mark.cases(1)
@pytest.mark.parametrize("seed", [3, 11, 14])
def test_no_bound_of_a_random_program_is_above_its_feasible_point(bounds, seed):
    instance = Instance(seed)
    attempt(instance.problem)
    value = instance.value(instance.problem.objective)
    assert all(bound <= value * (1 + 1e-9) for bound in bounds)


@pytest.mark.cases(1)
@pytest.mark.parametrize(("seed", "exponent"), [(0, 1.3), (1, 1.3), (5, 1.3)])
def test_a_number_lost_beside_a_large_one_is_no_proof(bounds, seed, exponent):
    """A tree of c^2 <= a b, stated by a + b and a - b: of a = 1 beside b = 1e18 nothing is left in the data."""
    rng = np.random.default_rng(seed)
    examples, steps = 1e12, 40.0
    spent, new = (np.exp(rng.normal(size=len(WIDTH))) * size / len(WIDTH) for size in (1e4 * examples, examples))
    tab = table(rng, examples, steps, co.PerStep(lambda _: WIDTH))
    top = np.sum((1e6 * (new + spent) / WIDTH) ** exponent)

    class Steep(co.Term):
        def expression(self, design):
            return 0.1 * cp.sum(cp.power(1e6 * design.density, exponent)) / top

    new *= examples / new.sum()
    point = Point(new, spent, np.full(len(WIDTH), steps / len(WIDTH)))
    prices = co.Prices(1.0, 1e12 / steps, 1)
    problem = co.Problem(
        co.ScoreError(tab) + co.Discretization(tab) + Steep(), [co.Compute(prices) <= 2.1e12, co.Steps() <= steps],
        spent=spent,
    )  # fmt: skip
    design = problem.design(point)
    value = sum(weight * term.value(design, point) for weight, term in problem.declaration.leaves)
    attempt(problem)
    assert all(bound <= value * (1 + 1e-9) for bound in bounds)


def test_a_term_with_variables_of_its_own_is_valued_at_the_steps_of_the_point():
    """Inside it a built-in part that is given its steps takes them from the point, not from the reference."""
    rng = np.random.default_rng(4)
    tables = [table(rng, 1e6, 20.0, co.Local(lambda _: 0.5 * WIDTH)) for _ in range(3)]

    class Tail(co.Term):
        def expression(self, design):
            values = cp.hstack([co.ScoreError(t).expression(design) for t in tables])
            threshold = cp.Variable()
            return threshold + cp.sum(cp.pos(values - threshold)) / 1.5

    problem = co.Problem(Tail() + co.Discretization(tables[0]), [co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6])
    points = [Point(np.exp(rng.normal(size=20)), np.zeros(20), 10 ** rng.uniform(-2, 2, 20)) for _ in range(4)]
    for reference in points:
        design = problem.design(reference)
        for point in points:
            first, second, _ = np.sort([co.ScoreError(t).value(design, point) for t in tables])[::-1]
            assert np.isclose(Tail().value(design, point), (first + 0.5 * second) / 1.5, rtol=1e-8)
