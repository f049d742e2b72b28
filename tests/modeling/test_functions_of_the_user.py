"""Functions of the user's that raise, cost models of their own, and numbers that are set later."""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.errors import EmptySelectionError

TABLE = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 40)
ERROR = co.ScoreError(TABLE) + co.Discretization(TABLE)
PRICES = co.Prices(1.0, 1.0, 100)
BUDGET = co.Compute(PRICES) <= 1e6


def own(function, name="Mine"):
    return type(name, (co.Term,), {"expression": lambda self, design: function(design)})()


def raising(error):
    def function(*_):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("division by zero"), ValueError),
        (KeyError("density"), ValueError),
        (RuntimeError("no file"), ValueError),
        (AttributeError("no attribute foo"), TypeError),
        (TypeError("wrong"), TypeError),
        (cp.error.DCPError("not convex"), ValueError),
        (co.ConvexityError("not convex"), co.ConvexityError),
        (EmptySelectionError("none"), EmptySelectionError),
    ],
)
def test_what_a_function_raises_is_told_with_the_name_of_its_part_and_its_cause(error, kind):
    stated = {
        "the constraint 'more'": lambda f: co.Problem(ERROR, [BUDGET, co.named("more", f)]),
        "the term 'Mine'": lambda f: co.Problem(ERROR + own(f), [BUDGET]),
        "Mine": lambda f: co.Problem(co.WorstCase([ERROR, own(f)]), [BUDGET]),
        "wish": lambda f: co.Problem(ERROR + co.SoftConstraint(co.named("wish", f), 1.0), [BUDGET]),
        "Prices.example": lambda f: co.Problem(ERROR, [co.Compute(co.Prices(f, 1.0, 100)) <= 1e6]),
        "Cap.value": lambda f: co.Problem(ERROR, [BUDGET, co.Cap(f)]),
    }
    for name, make in stated.items():
        with pytest.raises(kind, match=name) as found:
            make(raising(error)).solve()
        assert type(found.value) is kind
        assert str(error) in str(found.value)
        assert found.value.__cause__ is error


def test_a_parameter_before_a_term_is_refused_in_words_of_the_term():
    p = cp.Parameter(nonneg=True, value=2.0, name="p")
    for wrong in (lambda: p * ERROR, lambda: p + ERROR, lambda: p >= ERROR, lambda: np.asarray(ERROR)):
        with pytest.raises(TypeError, match="write the term first"):
            wrong()
    assert [weight for weight, _ in (np.float64(2.0) * ERROR).leaves()] == [2.0, 2.0]
    assert (np.int64(3) * co.Steps() <= np.float64(6.0)).limit == 6.0
    with pytest.raises(ValueError, match="one number"):
        np.ones(3) * ERROR


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda p: co.Cap(p), (1e5, 2e5)),
        (lambda p: co.Floor(p, low=0.05), (1e3, 1e4)),
        (lambda p: co.Share(p, 0.05, 0.5), (0.1, 0.2)),
        (lambda p: co.Cap(p, "step_density"), (2.0, 3.0)),
        (lambda p: co.Steps() <= p, (8.0, 12.0)),
    ],
)
def test_numbers_of_constraints_may_be_parameters_and_sweep_like_numbers(make, values):
    p = cp.Parameter(name="p")
    found = co.Problem(ERROR, [BUDGET, make(p)]).sweep(p, values)
    literal = [co.Problem(ERROR, [BUDGET, make(value)]).solve().error for value in values]
    np.testing.assert_allclose(found.errors, literal, rtol=1e-9)
    assert p.value is None
    p.value = -1.0
    if not isinstance(make(1.0), type(co.Steps() <= 1)):
        with pytest.raises(ValueError, match="must be >= 0"):
            co.Problem(ERROR, [BUDGET, make(p)])


@dataclass(frozen=True, eq=False)
class Invoice(co.Term):
    """price x examples^power on each level, a congestion price where power > 1, a discount where it is below."""

    price: float
    power: float

    def expression(self, design):
        unit = design.log_width
        return self.price * cp.sum(cp.multiply(unit, cp.power(design.density, self.power)))


def test_a_cost_model_of_ones_own_is_met_and_a_discount_is_refused_by_name():
    steps = np.full(len(TABLE.levels), 5.0)
    plan = co.Problem(co.ScoreError(TABLE), [Invoice(1e-3, 1.5) <= 1e4], steps=steps).solve()
    # stationarity, with one multiplier for all levels: A / (m + m0)^2 = y 1.5 price (m / delta)^(1/2)
    width, served = TABLE.log_width, plan.examples + TABLE.prior_examples
    gain = TABLE.example_error * np.maximum(1, TABLE.kappa / steps) / served**2
    gain = gain + TABLE.final_score / (TABLE.final_window @ plan.examples + TABLE.final_prior) ** 2 * TABLE.final_window
    ratio = gain / (1.5e-3 * np.sqrt(plan.examples / width))
    np.testing.assert_allclose(ratio, -plan.shadow_prices["Invoice"], rtol=1e-3)
    with pytest.raises(co.ConvexityError, match="Invoice"):
        co.Problem(ERROR, [Invoice(1.0, 0.9) <= 1e6])
    used = own(lambda d: 100.0 * cp.sum(cp.Variable(len(d), boolean=True)), "Fee")
    with pytest.raises(co.ConvexityError, match="Fee uses the boolean variable"):
        co.Problem(ERROR + used, [BUDGET])
