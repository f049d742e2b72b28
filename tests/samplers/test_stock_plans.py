"""Every stock sampler planned: certified, handed out below EDM's grid, measured on a network, chosen among others."""

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Measurement, network
from codesign_opt.testbed import LinearDenoiser

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
EVERY = [
    *[co.UniPC(p, kind) for p in (2, 3) for kind in ("bh1", "bh2")],
    co.DPMpp3M(),
    co.DPMpp2S(),
    *[co.DEIS(p) for p in (2, 3)],
    *[co.IPNDM(p, kind) for p in (3, 4) for kind in ("epsilon", "x0")],
    *[co.AdamsBashforth(p) for p in (2, 3, 4)],
    co.HeunChurn(5.0),
    co.HeunChurn(40.0),
]
SOME = [co.DEIS(3), co.HeunChurn(5.0)]


def model(sampler, bands=6, process=None):
    spectrum = co.Spectrum.power_law(bands, exponent=1.5)
    return co.GaussianModel(spectrum, process or co.EDM(0.02, 20.0), sampler)


@pytest.mark.parametrize("sampler", EVERY if FULL else SOME, ids=repr)
def test_plans_are_certified_and_below_edms_grid_with_the_same_sampler(sampler):
    options = {} if FULL else {"levels": 40, "stopping_sigma": 0.03}
    for steps in (5, 8, 12) if FULL else (5,):
        own = model(sampler, 24, co.EDM()) if FULL else model(sampler)
        plan = co.codesign(own, steps=steps, **options)
        assert plan.certificate.relative_gap < 1e-4
        edm = co.edm_grid(plan.number_of_steps, own.process.sigma_min, own.process.sigma_max)
        assert own.bias(plan.sigmas) < own.bias(edm)


def test_the_best_of_several_samplers_is_handed_out():
    choice = [co.IPNDM(3, "x0"), co.DEIS(2), co.DPMpp2S()]
    best = co.codesign(model(co.Euler()), steps=6, samplers=choice, levels=40, stopping_sigma=0.03)
    errors = {name: record["error"] for name, record in best.outer["samplers"].items()}
    assert min(errors.values()) == pytest.approx(best.handed_out["total"])
    assert {record["evaluations"] <= 6 for record in best.outer["samplers"].values()} == {True}


@pytest.mark.parametrize("sampler", EVERY if FULL else [co.UniPC(2)], ids=repr)
def test_a_network_is_measured_and_planned_with_it(sampler):
    lam = co.Spectrum.power_law(6, exponent=1.5).eigenvalues
    data = torch.as_tensor(np.random.default_rng(0).normal(size=(400, 6)) * lam**0.5)
    measurement = Measurement(levels=6, draws=8, fine_steps=32, evaluations=3000)
    own = network(LinearDenoiser(lam), data, process=co.EDM(0.02, 20.0), sampler=sampler, measurement=measurement)
    plan = co.codesign(own, steps=6, levels=40, stopping_sigma=0.03)
    assert plan.certificate.relative_gap < 1e-4
    assert np.isfinite(plan.handed_out["total"])
