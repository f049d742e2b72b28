"""A coupling of one's own from one file: planned as declared, certified, and saved with a measured model."""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np

import codesign_opt as co

SPECTRUM, PRICES = co.Spectrum.power_law(16, exponent=1.5), co.Prices(3.0, 1.0, images=1000)


@dataclass(frozen=True)
class Added(co.Coupling):
    """M(x) = 1 + x, between once and twice the default max(1, x)."""

    width: object = 2.7  # number or function of sigma

    def lengths(self, levels):
        return np.full(len(levels), self.width(levels.sigma) if callable(self.width) else self.width)

    factor = staticmethod(lambda x: 1.0 + x)
    slope = staticmethod(np.ones_like)
    expression = staticmethod(lambda steps, scale: 1.0 + cp.multiply(scale, cp.inv_pos(steps)))

    def product(self, examples, steps, scale):
        return cp.inv_pos(examples) + cp.multiply(scale, cp.exp(-cp.log(examples) - cp.log(steps)))


def test_a_plan_is_certified_between_those_of_the_bounds(tmp_path):
    model = co.GaussianModel(SPECTRUM, coupling=Added())
    options = {"levels": 30, "stopping_sigma": 0.05, "polish": False}
    mine = co.codesign(model, PRICES, 1e5, **options)
    usual = co.codesign(co.GaussianModel(SPECTRUM), PRICES, 1e5, **options)
    assert mine.certificate.optimal
    assert usual.error < mine.error < 2 * usual.error
    sigma, row = np.geomspace(0.01, 80.0, 20), np.ones(20)
    measured = co.EstimatedModel(sigma, row[None], row, SPECTRUM, coupling=Added(lambda s: 1 + np.log1p(s)))
    again = co.EstimatedModel.load(measured.save(tmp_path / "model.npz"))
    assert isinstance(again.coupling, Added)
    np.testing.assert_allclose(again.coefficients(0.05).kappa, measured.coefficients(0.05).kappa, rtol=2e-2)
