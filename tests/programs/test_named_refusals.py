"""What a program cannot be built from is refused with the name of the part that holds it."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

TABLE = co.Coefficients(
    co.Levels.log_uniform(0.01, 10, 20), np.ones(20), np.zeros(20), np.ones((1, 20)), terminal="rescale"
)
ERROR = co.ScoreError(TABLE) + co.Discretization(TABLE)
BUDGET = co.Compute(co.Prices(1.0, 1.0, 100)) <= 1e6


def mine(expression):
    return type("Mine", (co.Term,), {"expression": lambda self, design: expression(design)})()


def row(expression):
    return co.named("mine", expression)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("terms", "rows", "error", "message"),
    [
        (mine(lambda d: np.nan * cp.sum(d.examples)), [], ValueError, "Mine holds nan among its numbers"),
        (mine(lambda d: np.inf * cp.sum(d.examples)), [], ValueError, "Mine holds inf among its numbers"),
        (mine(lambda d: cp.sum_squares(d.steps - np.full(20, np.nan))), [], ValueError, "Mine holds nan"),
        (0 * ERROR, [mine(lambda d: np.nan * cp.sum(d.steps)) <= 1], ValueError, "Mine holds nan"),
        (0 * ERROR, [row(lambda d: cp.sum(d.examples) >= np.nan)], ValueError, "mine holds nan"),
        (0 * ERROR, [row(lambda d: d.density <= np.r_[np.inf, np.ones(19)])], ValueError, "mine holds inf.*leave the"),
        (0 * ERROR, [row(lambda d: d.examples >= np.ones(3))], ValueError, "'mine': .*shape"),
        (0 * ERROR, [row(lambda d: d.examples > 3)], TypeError, "'mine': Strict inequalities"),
        (co.WorstCase([ERROR, mine(lambda d: cp.sum(cp.sqrt(d.examples)))]), [], co.ConvexityError, "Mine is not con"),
        (co.WorstCase([ERROR, mine(lambda d: np.nan * cp.sum(d.steps))]), [], ValueError, "Mine holds nan"),
    ],
)
def test_the_part_is_named(terms, rows, error, message):
    with pytest.raises(error, match=message) as caught:
        co.Problem(ERROR + terms, [BUDGET, *rows])
    assert len(str(caught.value)) < 400


def test_a_start_that_is_no_plan_is_refused():
    problem = co.Problem(ERROR, [BUDGET])
    with pytest.raises(TypeError, match="start is 3; give a Plan"):
        problem.solve(start=3)
    with pytest.raises(TypeError, match="start is 3; give a Plan"):
        problem.cvxpy(3)


def test_shared_parameters_of_one_stopping_point_are_refused_where_many_are_tried():
    model = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.0))
    sigma = model.coefficients(0.01, 20).sigma
    rng = np.random.default_rng(0)
    term = co.InformationError(rng.normal(size=(sigma.size, 2, 3)), rng.normal(size=(3, 1)), sigma=sigma)
    with pytest.raises(ValueError, match=r"InformationError.*one stopping point.*co\.SharedParameters"):
        co.codesign(model, co.Prices(1.0, 1.0, 10), 1e4, levels=20, terms=[2 * term])
