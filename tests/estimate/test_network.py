"""estimate.network: from a denoiser, data and a log to a plan; interrupted, resumed, and refused by name."""

import os
from itertools import pairwise

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import (
    DenoiserError,
    Draws,
    Measurement,
    Reference,
    TrainingHistory,
    measured_error,
    network,
)
from codesign_opt.testbed import LinearDenoiser

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LAM = co.Spectrum.power_law(12, exponent=1.5).eigenvalues
FINE = {"levels": 8, "draws": 32, "fine_steps": 16, "evaluations": 2_500}
QUICK = {"measurement": Measurement(**FINE), "seed": 1}


@pytest.fixture(scope="module")
def data():
    draws = torch.randn((4000, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws * torch.as_tensor(np.sqrt(LAM))


def perfect():
    return LinearDenoiser(LAM)


class Interrupted(Exception):
    """What stands for a kill: nothing catches it."""


class Stopping:
    """A denoiser that is stopped at some call."""

    def __init__(self, at=None):
        self.at, self.calls, self.inner = at, 0, perfect()

    def __call__(self, x, sigma):
        self.calls += 1
        if self.at is not None and self.calls > self.at:
            raise Interrupted
        return self.inner(x, sigma)


def rows(model):
    return [model.sigma, model.responses, model.truncation]


@pytest.mark.slow
def test_measured_coefficients_are_the_closed_forms_of_a_gaussian(data):
    finely = Measurement(levels=10, draws=512, evaluations=40_000)
    model = network(perfect(), data, sampler=co.Euler(), measurement=finely)
    exact = co.GaussianModel(co.Spectrum.from_eigenvalues(LAM), sampler=co.Euler(), start="marginal")
    fine = model.at_steps(co.log_snr_grid(400, 0.002, 80.0))
    weight = LAM**2 / (LAM + 0.002**2)
    local = co.Euler().local_error(LAM, fine.sigma, 0.002) * fine.sigma**2
    inside = (fine.sigma > 0.01) & (fine.sigma < 10.0)
    strength, truth = np.sqrt((fine.responses**2).sum(axis=0)), np.sqrt(weight @ local**2)
    np.testing.assert_allclose(strength[inside], truth[inside], rtol=0.1)
    # pathwise: the same noise stopped early, sum of n (lambda / sqrt(v) - sqrt(lambda))^2 for one Gaussian direction
    for sigma, measured in zip(model.sigma, model.truncation, strict=True):
        if 0.02 < sigma < 2.0:
            assert measured == pytest.approx(exact.truncation(sigma), rel=0.25)


@pytest.mark.slow
def test_a_plan_for_a_measured_denoiser_beats_the_usual_grids_on_other_draws(data):
    model = network(
        perfect(), data, sampler=co.Heun(), measurement=Measurement(levels=10) if FULL else QUICK["measurement"]
    )
    plan = co.codesign(model, steps=8, **({"points": 6, "levels": 80} if FULL else {"points": 4, "levels": 30}))
    draws = Draws((12,), 512, 80.0, seed=7, name="other", like=data)
    reference = Reference(perfect(), co.Heun(), draws, 0.002)
    ours = measured_error(reference, plan.sigmas)
    for family in (co.edm_grid, co.log_snr_grid):
        ratio = ours.ratio(measured_error(reference, family(8, 0.002, 80.0)))
        assert ratio.value + 3 * ratio.standard_error < 0.9
    assert "batch evaluations" in str(plan)
    assert plan.certificate.optimal
    assert plan.handed_out["total"] == pytest.approx(plan.handed_out["bias"])


def test_the_budget_of_evaluations_is_kept(data):
    denoiser = Stopping()
    model = network(denoiser, data, **({} if FULL else QUICK))
    co.codesign(
        model, steps=12, **{"points": 4, "levels": 60} if FULL else {"points": 3, "levels": 20, "search": (0.02, 0.05)}
    )
    assert denoiser.calls <= (6000 if FULL else FINE["evaluations"])


def test_killed_twenty_times_at_random_it_goes_on_to_the_same_result(data, tmp_path):
    whole = network(perfect(), data, **QUICK)
    calls, rng, kills = 0, np.random.default_rng(3), 0
    while True:
        denoiser = Stopping(int(rng.integers(10, 60)) if kills < 20 else None)
        try:
            model = network(denoiser, data, folder=tmp_path, **QUICK)
            break
        except Interrupted:
            kills, calls = kills + 1, calls + denoiser.calls
    assert kills == 20
    for ours, truth in zip(rows(model), rows(whole), strict=True):
        np.testing.assert_array_equal(ours, truth)


@pytest.mark.slow
def test_a_plan_goes_on_too(data, tmp_path):
    truth = co.codesign(network(perfect(), data, **QUICK), steps=6, points=3, levels=30, search=(0.02, 0.03))
    for stop in (500, 700, None) if FULL else (600, None):
        denoiser = Stopping(stop)
        try:
            plan = co.codesign(
                network(denoiser, data, folder=tmp_path, **QUICK), steps=6, points=3, levels=30, search=(0.02, 0.03)
            )
        except Interrupted:
            continue
    np.testing.assert_array_equal(plan.sigmas, truth.sigmas)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A log that a perfect recorder would write: floor + kappa1 / m with kappa1 / floor = 100 examples."""
    edges, log = np.geomspace(0.002, 80.0, 13), tmp_path_factory.mktemp("log") / "loss.csv"
    with log.open("w") as file:
        file.write("examples,sigma,loss\n")
        for row in range(40):
            for low, high in pairwise(edges):
                sigma = np.sqrt(low * high)
                floor, seen = (LAM * sigma**2 / (LAM + sigma**2)).sum(), 100 * (row + 0.5) * 2.7 / np.log(high / low)
                file.write(f"100,{sigma:.6g},{floor * (1 + 100 / seen):.8g}\n")
    run = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=2_000, batch=256, log=log)
    return TrainingHistory(run, other=lambda x, s: 0.9 * x)


@pytest.mark.slow
def test_a_budget_beside_the_steps_leaves_the_grid_of_the_sampler_alone(data, history):
    measurement = Measurement(levels=5, draws=16, fine_steps=12, evaluations=3_500)
    asked = {"steps": 4, "levels": 20, "points": 3, "search": (0.05, 0.2)}
    prices, run = co.Prices(example=3.0, evaluation=1.0, images=1_000), co.TrainingRun(co.LogNormal(-1.2, 1.2), 50, 64)
    alone, both, given = (
        co.codesign(network(perfect(), data, training=history, measurement=measurement, seed=1), **asked, **beside)
        for beside in ({}, {"prices": prices, "budget": 1e6}, {"run": run})
    )
    for plan in (both, given):
        np.testing.assert_array_equal(plan.sigmas, alone.sigmas)
        assert plan.handed_out["bias"] == alone.handed_out["bias"]
        assert plan.handed_out["score"] > 0
    assert given.certificate.optimal
    assert not given.new_examples.any()


@pytest.mark.slow
def test_training_needs_a_log_and_gives_prices_something_to_buy(data, history):
    few = Measurement(**FINE | {"evaluations": 5_000})
    model = network(perfect(), data, training=history, measurement=few, objective="trimmed", seed=1)
    assert model.trained
    assert model.provenance["correlation_length"] == "measured or given"
    prices = co.Prices(example=3.0, evaluation=1.0, images=1_000)
    plan = co.codesign(model, prices, 1e6, stopping_sigma=0.02, levels=30, polish=False)
    assert plan.certificate.optimal
    assert plan.breakdown["score"] > 0
    assert plan.measured.objective == "trimmed"  # of the sampler's error; that of training stays a mean
    assert plan.handed_out["bias"] == plan.measured.value
    rest = sum(plan.handed_out[name] for name in ("score", "floor", "last evaluation"))
    assert plan.handed_out["total"] == pytest.approx(plan.measured.value + rest, rel=1e-12)
    assert "of the sampler, measured, and" in str(plan)
    grid = co.edm_grid(8, 0.02, 80.0)
    audit = co.audit(model, prices, sigmas=grid, run=co.TrainingRun(co.LogNormal(-1.2, 1.2), 500, 256), levels=30,
                     polish=False, stopping_sigma=0.02)  # fmt: skip
    assert audit.current["bias"] == model.stated({"grid": grid})["grid"].value
    assert plan.costs["training"] + plan.costs["sampling"] <= 1e6 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"denoiser": lambda x, s: x * torch.where(s > 50, torch.nan, 1.0)[:, None]}, DenoiserError, "at sigma = 80"),
        ({"denoiser": lambda x, s: x[:, :3]}, DenoiserError, "returned shape"),
        ({"denoiser": lambda x, s: x.float()}, DenoiserError, "returned torch.float32"),
        ({"denoiser": "net"}, ValueError, "a callable"),
        ({"data": np.zeros((0, 3))}, ValueError, "no examples"),
        ({"sampler": "heunn"}, ValueError, "did you mean 'heun'"),
        ({"process": 3}, ValueError, "process is 3"),
        ({"measurement": Measurement(evaluations=100)}, ValueError, "evaluations is 100; measuring"),
        ({"terminal": "stop"}, ValueError, "terminal"),
        ({"training": 3}, ValueError, "source is 3; give a co.TrainingRun"),
    ],
)
def test_bad_input_is_refused_before_the_work_begins(data, options, error, message):
    arguments = {"denoiser": perfect(), "data": data[:200]} | options
    with pytest.raises(error, match=message):
        network(arguments.pop("denoiser"), arguments.pop("data"), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"levels": 2}, "levels is 2"), ({"images": 3}, "images is 3"), ({"seconds": 0.0}, "seconds is 0")],
)
def test_a_measurement_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=f"Measurement.{message}"):
        Measurement(**options)


def test_a_folder_of_another_question_is_refused(data, tmp_path):
    network(perfect(), data, folder=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="seed"):
        network(perfect(), data, folder=tmp_path, **(QUICK | {"seed": 2}))


def test_a_time_is_turned_into_evaluations(data):
    with pytest.raises(ValueError, match="batch evaluations"):
        network(perfect(), data, measurement=Measurement(seconds=1e-4))


def test_progress_says_what_was_measured(data):
    said = []
    network(perfect(), data, measurement=Measurement(progress=said.append, **FINE))
    assert any(text.startswith("spectrum") for text in said)
    assert any("responses" in text and "batch evaluations" in text for text in said)


def test_what_an_earlier_call_made_counts_as_done_and_what_comes_after_is_counted_anew(data, tmp_path):
    for _ in range(2):
        told: list[tuple[int, int | None, str]] = []
        model = network(
            perfect(),
            data,
            measurement=Measurement(progress=lambda *each, told=told: told.append(each), **FINE),
            folder=tmp_path,
        )
        done = [(done, total) for done, total, _ in told if total]
        assert done[-1][0] == done[-1][1]
        assert sorted(done) == done
        before = len(told)
        co.codesign(model, steps=4)
        assert len(told) > before
        assert all(total is None for _, total, _ in told[before:])
