"""Align Your Steps: its published tables as their users read them, and its optimiser against closed forms."""

import os
from itertools import pairwise

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.peers import AlignYourSteps, DenoiserGaps, EulerCost, Evidence, KLUBCost, risks
from codesign_opt.peers.schedules.ays_tables import AYS_TABLES, AYS_TIMESTEPS, ays_table
from codesign_opt.testbed.data.mixtures import circle8
from tests.helpers.gaussian_truth import gaussian_risk

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
NAMES = ("sd15", "sdxl", "svd", "deepfloyd")


def gaussian_evidence(scale, *, low=0.002, high=80.0, levels=512):
    sigma = np.geomspace(low, high, levels)
    risk = gaussian_risk(scale**2)(sigma)
    gaps = DenoiserGaps(sigma, np.abs(risk[:, None] - risk))
    return Evidence(sigma_min=low, sigma_max=high, terminal="rescale", gaps=gaps)


# ------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("name", "key"),
    [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL"), ("svd", "StableDiffusionVideo")],
)
def test_tables_at_ten_steps_are_those_of_diffusers(name, key):
    tables = pytest.importorskip("diffusers.schedulers.scheduling_utils").AysSchedules
    assert ays_table(name).tolist() == tables[f"{key}Sigmas"]
    assert name not in AYS_TIMESTEPS or list(AYS_TIMESTEPS[name]) == tables[f"{key}Timesteps"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 4, 7, 10, 20, 33])
def test_other_numbers_of_steps_are_read_as_the_authors_and_comfyui_read_them(name, steps):
    def from_the_low_end(levels, count):  # the authors' recipe: ascending logarithms, then turned round
        x = np.linspace(0, 1, len(levels))
        return np.exp(np.interp(np.linspace(0, 1, count), x, np.log(levels[::-1])))[::-1].copy()

    want = from_the_low_end(np.array(AYS_TABLES[name]), steps + 1)
    np.testing.assert_allclose(ays_table(name, steps, terminal="rescale"), want, rtol=1e-12)
    want[-1] = 0.0
    np.testing.assert_allclose(ays_table(name, steps), want, rtol=1e-12)


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_timesteps_and_levels_of_a_table_belong_together(name):
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - beta)
    sigma = np.sqrt(1 / kept - 1)[list(AYS_TIMESTEPS[name])]
    np.testing.assert_allclose(sigma, AYS_TABLES[name][:-1], atol=0.003, rtol=0.002)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_schedule_on_the_tables_own_range_is_the_table(name, terminal):
    own = AYS_TABLES[name]
    evidence = Evidence(sigma_min=own[-1], sigma_max=own[0], terminal=terminal)
    for steps in (5, 10, 20):
        found = peers.schedule(f"ays_{name}").sigmas(steps, evidence)
        np.testing.assert_array_equal(found, ays_table(name, steps, terminal=terminal))


@pytest.mark.parametrize("name", NAMES)
def test_schedule_on_another_range_is_the_table_stretched_in_log_sigma(name):
    own = np.array(AYS_TABLES[name])
    found = peers.schedule(f"ays_{name}").sigmas(10, Evidence(sigma_min=0.01, sigma_max=100.0, terminal="rescale"))
    assert found[[0, -1]].tolist() == [100.0, 0.01]
    place = np.log(found / found[-1]) / np.log(found[0] / found[-1])
    np.testing.assert_allclose(place, np.log(own / own[-1]) / np.log(own[0] / own[-1]), atol=1e-12)


# --------------------------------------------------------------------------------------------------- KLUB


@pytest.mark.parametrize("grid", [[40.0, 0.1], [80.0, 5.0, 1.0, 0.3, 0.05, 0.002, 0.0]])
def test_klub_of_the_exact_denoiser_is_the_discretisation_error(grid):
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
    lam, n = model.spectrum.eigenvalues, model.spectrum.counts
    exact = risks.discretization_error(lambda s: (lam * s[:, None] ** 2 / (lam + s[:, None] ** 2)) @ n, np.array(grid))
    assert peers.klub(Evidence.of(model).gaps, np.array(grid)) == pytest.approx(exact, rel=1e-5)


def test_klub_of_a_mixture_by_monte_carlo_is_its_discretisation_error():
    mixture, rng = circle8(), np.random.default_rng(0)
    grid, draws = np.array([4.0, 1.0, 0.4, 0.2]), 20_000
    clean = mixture.sample(draws, 1, dtype=torch.float64).numpy()
    sample = np.zeros(draws)
    for high, low in pairwise(grid):  # one noise level per draw, density sigma^-3
        sigma = (low**-2 + rng.uniform(size=draws) * (high**-2 - low**-2)) ** -0.5
        x = clean + sigma[:, None] * rng.normal(size=clean.shape)
        far = x + np.sqrt(high**2 - sigma**2)[:, None] * rng.normal(size=clean.shape)
        x, far = torch.from_numpy(x), torch.from_numpy(far)
        change = mixture(x, torch.from_numpy(sigma)) - mixture(far, torch.tensor(high, dtype=torch.float64))
        # int |D - D|^2 sigma^-3 dsigma: the weight's integral times the mean
        sample += (change**2).sum(1).numpy() * 0.5 * (low**-2 - high**-2)
    levels = np.geomspace(0.2, 4.0, 60)
    draw = torch.from_numpy(clean)
    noise = torch.from_numpy(rng.normal(size=clean.shape))
    risk = [float((mixture(draw + s * noise, torch.tensor(s)) - draw).square().sum(1).mean()) for s in levels]
    exact = risks.discretization_error(peers.RiskCurve(levels, np.array(risk)), grid)
    spread = sample.std() / np.sqrt(draws)
    assert abs(sample.mean() - exact) < 3 * np.hypot(spread, 0.01 * exact)  # the curve's own error: 1 per cent


@pytest.mark.cases(1)
@pytest.mark.parametrize("steps", [2, 5, 10, 20, 40] if FULL else [2, 10])
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_klub_optimiser_on_a_gaussian_is_uniform_in_log_1_plus_snr(steps, scale):
    found = AlignYourSteps().sigmas(steps, gaussian_evidence(scale))
    ends = np.log1p((scale / found[[0, -1]]) ** 2)
    want = scale / np.sqrt(np.expm1(np.linspace(*ends, steps + 1)))
    np.testing.assert_allclose(found, want, rtol=1e-3)


@pytest.mark.cases(1)
@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_same_search_on_eulers_divergence_is_the_tangent_law(steps, scale):
    start = np.log(np.linspace(0.002 ** (1 / 7), 80.0 ** (1 / 7), steps + 1) ** 7)
    logs = peers.coordinate_search(EulerCost(scale), start)
    tangent = scale * np.tan(np.linspace(np.arctan(0.002 / scale), np.arctan(80.0 / scale), steps + 1))
    np.testing.assert_allclose(np.exp(logs), tangent, rtol=1e-3)
    finer = peers.subdivided(EulerCost(scale), logs)
    tangent = scale * np.tan(np.linspace(np.arctan(0.002 / scale), np.arctan(80.0 / scale), 2 * steps + 1))
    np.testing.assert_allclose(np.exp(finer), tangent, rtol=1e-3)


def test_euler_cost_is_the_exact_law_of_eulers_output():
    lam, grid = 0.25, np.array([80.0, 3.0, 1.0, 0.2, 0.01])
    law = co.Euler().terminal_law(grid, [lam])
    logs = np.log(grid[::-1])
    ratio = float(law.variance[0]) / (lam + grid[-1] ** 2)
    assert -0.5 * np.log(ratio) == pytest.approx(EulerCost(0.5)(logs[:-1], logs[1:]).sum(), rel=1e-12)


def test_tangent_law_is_not_the_minimiser_of_klub():
    evidence = gaussian_evidence(0.5)
    klub = AlignYourSteps().sigmas(10, evidence)
    tangent = 0.5 * np.tan(np.linspace(np.arctan(80.0 / 0.5), np.arctan(0.002 / 0.5), 11))
    assert np.abs(np.log(klub / tangent)).max() > 1.0
    assert peers.klub(evidence.gaps, klub) < 0.5 * peers.klub(evidence.gaps, tangent)
    variance = [float(co.Euler().terminal_law(grid, [0.25]).variance[0]) for grid in (klub, tangent)]
    assert variance[0] < variance[1] < 0.25 + 0.002**2  # for Euler's divergence it is the other way round


@pytest.mark.slow
def test_more_than_ten_intervals_keep_the_nodes_of_ten():
    evidence = Evidence.of(co.GaussianModel(co.Spectrum.power_law(8, exponent=1.0), terminal="rescale"))
    ten, twenty, forty = (AlignYourSteps().sigmas(steps, evidence) for steps in (10, 20, 40))
    np.testing.assert_allclose(twenty[::2], ten, rtol=1e-12)
    np.testing.assert_allclose(forty[::4], ten, rtol=1e-12)
    between = AlignYourSteps().sigmas(15, evidence)
    place = np.interp(np.linspace(0, 1, 16), np.linspace(0, 1, 21), np.log(twenty))
    np.testing.assert_allclose(between, np.exp(place), rtol=1e-12)


def test_search_never_raises_the_bound():
    evidence = Evidence.of(co.GaussianModel(co.Spectrum.power_law(8, exponent=1.0), terminal="rescale"))
    for steps in (3, 8):
        found = peers.klub(evidence.gaps, AlignYourSteps().sigmas(steps, evidence))
        for other in ("edm", "log_snr", "ays_sd15", "las"):
            assert found <= peers.klub(evidence.gaps, peers.schedule(other).sigmas(steps, evidence)) * (1 + 1e-6)


def test_gaps_at_uneven_levels_are_read_as_well():
    sigma = np.sort(np.exp(np.random.default_rng(0).uniform(np.log(0.01), np.log(50.0), 300)))
    risk = gaussian_risk(1.0)(sigma)
    gaps = DenoiserGaps(sigma, np.abs(risk[:, None] - risk))
    grid = np.array([30.0, 2.0, 0.5, 0.05])
    assert peers.klub(gaps, grid) == pytest.approx(risks.discretization_error(gaussian_risk(1.0), grid), rel=1e-3)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ays_table("sd3"), r"table is 'sd3'"),
        (lambda: ays_table("sd15", 0), r"steps is 0"),
        (lambda: ays_table("sd15", terminal="stop"), r"terminal is 'stop'"),
        (lambda: AlignYourSteps(sweeps=0), r"AlignYourSteps.sweeps is 0"),
        (lambda: AlignYourSteps(base=0.5), r"AlignYourSteps.base is 0.5"),
        (lambda: AlignYourSteps().sigmas(5, Evidence(sigma_min=0.1, sigma_max=1.0)), r"ays needs Evidence.gaps"),
        (lambda: AlignYourSteps().sigmas(5, NARROW), r"measure the gaps on the whole range"),
        (lambda: KLUBCost(DenoiserGaps([1.0, 2.0], np.zeros((2, 2)))), r"gaps has 2 levels"),
        (lambda: peers.klub(NARROW.gaps, [50.0, 1.0]), r"sigmas run from 50 to 1, the gaps from 2 to 0.5"),
        (lambda: EulerCost(0.0), r"EulerCost.scale is 0"),
        (lambda: peers.coordinate_search(EulerCost(1.0), [1.0, 0.0]), r"nodes must be strictly ascending"),
        (lambda: peers.coordinate_search(EulerCost(1.0), [0.0, 1.0], frozen=[True]), r"frozen has 1 entries"),
    ],
)
def test_bad_input_is_refused_by_name(call, text):
    with pytest.raises(ValueError, match=text):
        call()


NARROW = Evidence(sigma_min=0.1, sigma_max=10.0, gaps=gaussian_evidence(1.0, low=0.5, high=2.0, levels=8).gaps)
