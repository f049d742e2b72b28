"""Parts of one's own together: each from outside the package, in pairs that no other test puts side by side."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtr

import codesign_opt as co
from codesign_opt.estimate import Measurement, network
from codesign_opt.exports import Target, add_target
from codesign_opt.testbed import LinearDenoiser
from tests.outsiders.test_coupling import Added
from tests.outsiders.test_model import Widening
from tests.outsiders.test_sampler import Ralston
from tests.results.test_saved_plans import FOLDER, NAMES


def test_a_coupling_and_a_sampler_of_ones_own_are_planned_with_on_a_network_and_read_again(tmp_path):
    lam = co.Spectrum.power_law(6, exponent=1.5).eigenvalues
    data = torch.as_tensor(np.random.default_rng(0).normal(size=(300, 6)) * lam**0.5)
    small = Measurement(levels=6, draws=8, fine_steps=8, evaluations=1_500)
    model = network(LinearDenoiser(lam), data, sampler=Ralston(), coupling=Added(1.5), measurement=small)
    best = lam * model.sigma[:, None] ** 2 / (lam + model.sigma[:, None] ** 2)
    trained = replace(model, sensitivity=np.ones(6), error_variance=best.sum(1))
    options = {"prices": co.Prices(3.0, 1.0, 100), "budget": 1e5, "levels": 40, "stopping_sigma": 0.05}
    plans = [co.codesign(each, **options) for each in (trained, replace(trained, coupling=co.Local(1.5)))]
    assert plans[0].certificate.optimal
    assert plans[0].sampler["name"] == "ralston"
    assert plans[1].breakdown["score"] < plans[0].breakdown["score"] < 3 * plans[1].breakdown["score"]
    again = co.EstimatedModel.load(trained.save(tmp_path / "model.npz"))
    assert (again.coupling, again.sampler) == (Added(1.5), Ralston())
    np.testing.assert_array_equal(again.coefficients(0.05, 40).kappa, trained.coefficients(0.05, 40).kappa)


@pytest.mark.usefixtures("undescended")
def test_a_model_of_ones_own_goes_on_from_a_run_at_prices_that_are_functions_of_sigma():
    model = Widening(co.Spectrum.power_law(8, 1.5), co.EDM(0.01, 20.0), co.Euler(), growth=1.0)
    prices = co.Prices(example=lambda s: 2 + s / (1 + s), evaluation=lambda s: 1.0 + (s < 1), images=100)
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=50, batch=64)
    options = {"prices": prices, "budget": 1e5, "levels": 40, "stopping_sigma": 0.05}
    fresh, on = co.codesign(model, **options), co.codesign(model, run=run, **options)
    spent = 50 * 64 * np.diff(ndtr((np.log(on.levels.edges) + 1.2) / 1.2))
    np.testing.assert_allclose(on.examples - on.new_examples, spent, rtol=1e-9)
    assert on.certificate.optimal
    assert on.error < fresh.error  # what was spent is free
    price = 2 + on.levels.sigma / (1 + on.levels.sigma)
    assert on.costs["training"] == pytest.approx(price @ on.new_examples, rel=1e-3)  # by the middle of each level
    grid = co.edm_grid(9, 0.05, 15.0, terminal="rescale")
    assert co.audit(model, prices, sigmas=grid, run=run, levels=40, points=3).ratio >= 1


@pytest.mark.parametrize("name", NAMES)
def test_an_export_of_ones_own_gets_a_plan_of_version_0_1_0(name, tmp_path):
    def write(levels):
        text = f"{levels.sampler.get('name')}: {' '.join(f'{sigma:.3f}' for sigma in levels.sigmas)}\n"
        return levels.sigmas.size, text

    add_target(Target("lines", (), write))
    plan, path = co.Plan.load(FOLDER / f"{name}.json"), tmp_path / "levels.txt"
    if plan.sigmas is None:
        with pytest.raises(ValueError, match="sigmas"):
            plan.export("lines", path=path)
        return
    assert plan.export("lines", path=path) == plan.sigmas.size
    assert path.read_text() == f"{plan.sampler['name']}: " + " ".join(f"{s:.3f}" for s in plan.sigmas) + "\n"
