"""A model of one's own, from one file outside the package: data whose spectrum depends on the noise level."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import codesign_opt as co


@dataclass(frozen=True)
class Widening(co.Model):
    spectrum: co.Spectrum
    process: co.Process
    sampler: co.Sampler
    terminal: str = "rescale"
    growth: float = 0.0  # lambda(sigma) = lambda (1 + growth sigma)

    def coefficients(self, stopping_sigma=None, levels=200):
        stop = stopping_sigma or self.process.sigma_min
        table = co.Levels.log_uniform(stop, self.process.sigma_max, levels)
        still, s = self.spectrum.eigenvalues[:, None], table.sigma
        lam, end = still * (1 + self.growth * s), still * (1 + self.growth * stop) + stop**2
        w, cut = lam * s**2 / (lam + s**2) ** 2, ((np.sqrt(end) - np.sqrt(still)) ** 2).sum()
        return co.Coefficients(table, (end * w).sum(0), 0 * s, np.sqrt(end) * w / 2, terminal="rescale", truncation=cut)

    def settled(self, sigmas, levels=200, *, smooth=False):
        return self.leading_order(sigmas, levels)


@pytest.mark.usefixtures("undescended")
def test_a_model_of_ones_own_is_planned_audited_swept_and_compared():
    parts = co.Spectrum.power_law(8, 1.5), co.EDM(0.01, 20.0), co.Euler()
    known, mine = (
        co.GaussianModel(*parts, co.AveragedSGD(prior=None), terminal="rescale", start="marginal"),
        Widening(*parts),
    )
    few = {"prices": co.Prices(3, 1, 100), "levels": 30, "points": 4}
    plans = [co.codesign(model, budget=1e5, **few) for model in (known, mine, replace(mine, growth=3.0))]
    errors = [min(stop["error"] for stop in plan.curve) for plan in plans]  # of the programs, before whole steps
    assert abs(errors[1] / errors[0] - 1) < 1e-3 < errors[2] / errors[1] - 1.5
    assert plans[1].outer["status"].startswith("best of")
    grid, run = co.edm_grid(9, 0.02, 15.0, terminal="rescale"), co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 64)
    assert co.audit(mine, sigmas=grid, run=run, **few).ratio > 1
    assert np.all(np.diff(co.frontier(mine, budgets=[1e4, 1e5], **few).errors) < 0)
    assert [row.peer for row in co.compare(mine, ["edm"], [10]).rows] == ["plan", "edm"]
