"""A metric of one's own from one file: what errors are counted in, planned with, audited and reported."""

import numpy as np
import pytest

import codesign_opt as co


class Visible(co.Metric):
    """Squared errors of directions count as their share of what is seen beside a noise floor."""

    measure = "visible squared error"

    def __init__(self, floor):
        self.floor = floor

    def weights(self, spectrum):
        return spectrum.eigenvalues / (spectrum.eigenvalues + self.floor)


def model(metric=None):
    more = {} if metric is None else {"metric": metric}
    return co.GaussianModel(co.Spectrum.power_law(12, exponent=1.5), sampler=co.Heun(), start="mean", **more)


def test_its_error_is_the_weighted_sum_of_squares_of_the_samplers_law_and_plans_are_better_in_it():
    ours, plain = model(Visible(0.1)), model()
    lam, grid = ours.spectrum.eigenvalues, co.edm_grid(9, 0.002, 80.0)
    law = co.Heun().terminal_law(grid, lam, initial_variance=np.full(lam.size, 80.0**2))
    weight = lam / (lam + 0.1)
    assert float(ours.bias(grid)) == pytest.approx(float(weight @ (law.std - np.sqrt(lam)) ** 2), rel=1e-9)
    plans = [co.codesign(each, steps=9, levels=40, points=5) for each in (ours, plain)]
    assert "visible squared error" in str(plans[0])
    assert plans[0].handed_out["total"] <= float(ours.bias(plans[1].sigmas)) * (1 + 1e-9)
    assert float(plain.bias(plans[1].sigmas)) <= float(plain.bias(plans[0].sigmas)) * (1 + 1e-9)


@pytest.mark.slow
def test_a_plan_with_training_in_it_is_audited_reported_and_asked_what_if(tmp_path):
    pytest.importorskip("matplotlib")
    ours, prices = model(Visible(0.1)), co.Prices(3.0, 1.0, 100)
    plan = co.codesign(ours, prices, 1e4, levels=40, points=5)
    assert plan.certificate.optimal
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 10, 100)
    audit = co.audit(ours, prices, sigmas=co.edm_grid(9, 0.002, 80.0), run=run, levels=40, points=5)
    assert audit.ratio >= 1
    found = co.what_if(plan, budget=[1e4, 2e4], model=ours, prices=prices)
    fresh = co.codesign(ours, prices, 2e4, levels=40, points=5, polish=False)
    assert found.error[0, 0, 0] > found.error[1, 0, 0] == pytest.approx(fresh.error, rel=2e-3)
    page = plan.report(tmp_path / "plan.html", what_if=found).read_text(encoding="utf-8")
    assert "visible squared error" in page
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert str(again).splitlines()[:9] == str(plan).splitlines()[:9]
