"""A term from one file outside the package: in a problem and in codesign, with its own parts in every breakdown."""

import runpy

import numpy as np
import pytest

import codesign_opt as co

SOURCE = """
from dataclasses import dataclass
import cvxpy as cp
import codesign_opt as co
@dataclass(frozen=True, eq=False)
class Carbon(co.Term):
    "What training emits, in units of error: worse than linear in its density."
    price: float
    def expression(self, design):
        return self.price * cp.sum(cp.multiply(design.log_width, cp.power(design.density, 1.5)))
    def parts(self, design, point):
        each = self.price * design.log_width * (point.examples / design.log_width) ** 1.5
        return {"carbon, high": each[design.sigma >= 1].sum(), "carbon, low": each[design.sigma < 1].sum()}
"""


@pytest.mark.slow
def test_a_term_of_ones_own_shows_its_parts_and_its_price(tmp_path):
    (tmp_path / "carbon.py").write_text(SOURCE)
    carbon = runpy.run_path(str(tmp_path / "carbon.py"))["Carbon"]
    model, paid = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)), co.Prices(3.0, 1.0, 1_000)
    table = model.coefficients(0.02, 40)
    errors = co.ScoreError(table) + co.Discretization(table)
    plan = co.Problem(errors + carbon(1e-9), [co.Compute(paid) <= 1e5]).solve()
    emitted = np.sum(table.log_width * (plan.examples / table.log_width) ** 1.5)
    assert plan.breakdown["carbon, low"] + plan.breakdown["carbon, high"] == pytest.approx(1e-9 * emitted)
    assert sum(plan.breakdown.values()) == pytest.approx(plan.error)
    held = co.Problem(errors, [carbon(1.0) <= 0.5 * emitted, co.Compute(paid) <= 1e5]).solve()
    assert held.shadow_prices["Carbon"] < 0
    assert np.sum(table.log_width * (held.examples / table.log_width) ** 1.5) <= 0.5 * emitted * (1 + 1e-6)
    found = co.codesign(model, paid, 1e5, terms=[carbon(1e-9)], levels=24, points=3, polish=False, outer_tolerance=0.1)
    assert min(found.breakdown["carbon, low"], found.handed_out["carbon, low"]) > 0
