"""A constraint from one file outside the package: in a problem and in codesign, met and priced by its name."""

import runpy

import pytest

import codesign_opt as co

SOURCE = """
from dataclasses import dataclass
import cvxpy as cp
import codesign_opt as co

@dataclass(frozen=True, eq=False)
class Archive(co.Constraint):
    "Examples below a noise level come from a small archive."
    below: float
    most: float
    name = "archive"
    def constraints(self, design):
        return [cp.sum(design.examples[design.sigma < self.below]) <= self.most]
"""


def test_a_constraint_of_ones_own_is_met_and_priced_by_name(tmp_path):
    (tmp_path / "archive.py").write_text(SOURCE)
    archive = runpy.run_path(str(tmp_path / "archive.py"))["Archive"]
    model, paid = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)), co.Prices(3.0, 1.0, 1_000)
    table = model.coefficients(0.02, 40)

    def solve(most):
        terms = co.ScoreError(table) + co.Discretization(table)
        return co.Problem(terms, [co.Compute(paid) <= 1e5, archive(0.3, most)]).solve()

    plan, slope = solve(1_000.0), (solve(1_010.0).error - solve(990.0).error) / 20.0
    assert plan.examples[table.sigma < 0.3].sum() == pytest.approx(1_000.0, rel=1e-5)
    assert plan.shadow_prices["archive"] == pytest.approx(slope, rel=1e-3)
    found = co.codesign(
        model, paid, 1e5, constraints=[archive(0.3, 1_000.0)], levels=24, stopping_sigma=0.02, polish=False
    )
    assert found.examples[found.levels.sigma < 0.3].sum() <= 1_000.0 * (1 + 1e-6)
