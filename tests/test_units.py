"""A user's nonlinear term in any unit is certified, and the unit changes nothing."""

import os
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)
TABLE = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5)).coefficients(levels=100)


@dataclass(frozen=True, eq=False)
class Congestion(co.Term):
    price: float
    power: float = 1.5

    def expression(self, design):
        return self.price * cp.sum(cp.multiply(design.log_width, cp.power(design.density, self.power)))


def solved(*, examples=1.0, errors=1.0, price=1e-12):
    """User code 3 with examples counted in units of `examples` and errors in units of `errors`."""
    table = replace(
        TABLE,
        score=TABLE.score / examples / errors,
        response=TABLE.response / np.sqrt(errors),
        final_score=TABLE.final_score / examples / errors,
        untrained=TABLE.untrained / errors,
        final_untrained=TABLE.final_untrained / errors,
    )
    prices = co.Prices(example=PRICES.example * examples, evaluation=1.0, images=10_000)
    term = Congestion(price * examples**1.5 / errors)
    problem = co.Problem(
        co.ScoreError(table) + co.Discretization(table) + term,
        [
            co.Compute(prices) <= 1e6,
            co.Steps() <= 18,
            co.StabilityCap(table),
            co.named("low-noise floor", lambda d: cp.sum(d.examples[table.sigma < 0.1]) >= 5_000 / examples),
        ],
    )
    return problem.solve()


BASE = solved().error


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12] if FULL else [1e-12, 1e12])
@pytest.mark.parametrize("quantity", ["examples", "errors"])
def test_the_unit_of_examples_or_of_the_error_changes_nothing(quantity, unit):
    plan = solved(**{quantity: unit})
    scale = unit if quantity == "errors" else 1.0
    assert plan.certificate.relative_gap <= 1e-6
    assert plan.error * scale == pytest.approx(BASE, rel=1e-6)


@pytest.mark.parametrize("price", [1e-24, 1e-18, 1e-8, 1e-6, 1.0] if FULL else [1e-24, 1e-8])
def test_a_price_over_24_decades_is_certified(price):
    plan = solved(price=price)
    assert plan.certificate.relative_gap <= 1e-6
    free = co.Problem(
        co.ScoreError(TABLE) + co.Discretization(TABLE), [co.Compute(PRICES) <= 1e6, co.Steps() <= 18]
    ).solve(method="declared")
    assert plan.error >= free.error * (1 - 1e-6)
    if price <= 1e-18:  # nothing to pay: the optimum without the term
        assert plan.error == pytest.approx(free.error, rel=1e-6)
