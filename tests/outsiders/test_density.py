"""A training density of one's own from one file: by name in `peers`, restricted to a range, audited."""

from dataclasses import dataclass

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import peers


def define():
    @dataclass(frozen=True)
    class Pareto(co.SigmaDensity):
        """P(sigma > s) = (s / least)^-slope from `least` on."""

        slope: float = 1.0
        least: float = 0.002
        name = "pareto"

        def tails(self, sigma):
            above = (np.maximum(sigma, self.least) / self.least) ** -self.slope
            return 1 - above, above

        def quantile(self, u):
            return self.least * (1 - np.minimum(u, 1 - 1e-12)) ** (-1 / self.slope)

        def per_log_sigma(self, sigma):
            return np.where(sigma < self.least, 0.0, self.slope * self.tails(sigma)[1])


@pytest.mark.usefixtures("undescended")
def test_a_density_goes_by_its_name_and_an_audit_takes_it():
    define()
    assert "pareto" in peers.training_densities()
    law = peers.training_density("pareto", slope=0.5, sigma_min=0.02, sigma_max=20.0)
    np.testing.assert_allclose(law.quantile(np.array([0.0, 1.0])), [0.02, 20.0])
    model, prices = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)), co.Prices(3.0, 1.0, images=100)
    grid = peers.schedule("edm").sigmas(4, peers.Evidence.of(model))
    run = co.TrainingRun(peers.training_density("pareto"), iterations=100, batch=64)
    assert co.audit(model, prices, sigmas=grid, run=run, levels=24, points=3, polish=False).ratio >= 1
