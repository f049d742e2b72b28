"""estimate.network in careless hands: random, foreign or ill-typed denoisers, one-shot data, several processes."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import codesign_opt as co
from codesign_opt.estimate import DenoiserError, Measurement, TrainingHistory, from_prediction, guided, network
from codesign_opt.testbed import LinearDenoiser
from tests.helpers.processes import of_two

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LAM = np.array([1.0, 0.25, 0.01])
FINE = {"levels": 6, "draws": 8, "fine_steps": 8, "rest_steps": 4, "evaluations": 2_000 if FULL else 1_500}
QUICK = {"measurement": Measurement(**FINE)}
SHORT = {"points": 3, "levels": 30, "search": (0.02, 0.05)}


@pytest.fixture(scope="module")
def data():
    draws = torch.randn((500, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws * torch.as_tensor(np.sqrt(LAM))


@pytest.fixture(scope="module")
def model(data):
    return network(LinearDenoiser(LAM), data, **QUICK)


def falling_log(path, examples=10_000, gain=2000.0):
    """Losses floor + gain floor / m, as a recorder would write them: m counts examples within 2.7 in log sigma."""
    edges = np.geomspace(0.002, 80.0, 13)
    with path.open("w") as file:
        file.write("examples,sigma,loss\n")
        for row in range(40):
            for low, high in pairwise(edges):
                sigma, seen = np.sqrt(low * high), examples * (row + 0.5) * 2.7 / np.log(high / low)
                floor = (LAM * sigma**2 / (LAM + sigma**2)).sum()
                file.write(f"{examples},{sigma:.6g},{floor * (1 + gain / seen):.8g}\n")
    return path


# denoisers


class Normalised(nn.Module):
    """Batch normalisation: in training mode an answer depends on the rest of the batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, x, sigma):
        return self.norm(x)


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), None])
def test_a_network_in_training_mode_is_refused(data, layer):
    torch.manual_seed(0)  # some draws of a small dropout drop nothing
    clean = LinearDenoiser(LAM)
    denoiser = Normalised() if layer is None else lambda x, s: layer(clean(x, s))
    with pytest.raises(DenoiserError, match=r"\.eval\(\)"):
        network(denoiser, data, **QUICK)
    if layer is None:
        network(denoiser.eval(), data, check=False, **QUICK)  # it divides by the spread of noise that it saw


def test_data_in_another_precision_than_the_network_are_cast_where_it_is_given_itself(data):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x, sigma):
            return self.linear(x)

    net = Net().eval()
    with pytest.raises(DenoiserError, match=r"States and levels are torch.float64: a network in another precision"):
        network(lambda x, sigma: net(x, sigma), data, **QUICK)
    single = network(net, data.float(), check=False, **QUICK)
    np.testing.assert_allclose(
        network(net, data, check=False, **QUICK).responses, single.responses, rtol=1e-3, atol=1e-5
    )


def test_items_of_another_denoiser_are_not_taken_for_this_ones(data, tmp_path):
    network(LinearDenoiser(LAM), data, folder=tmp_path, **QUICK)
    network(LinearDenoiser(LAM), data, folder=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="another denoiser"):
        network(LinearDenoiser(0.8 * LAM), data, folder=tmp_path, **QUICK)


def test_a_denoiser_without_slopes_by_its_input_is_descended_by_differences():
    from codesign_opt.estimate.denoisers.denoiser import Denoiser
    from codesign_opt.estimate.runs.fine_solution import Draws
    from codesign_opt.estimate.steps.grid_runs import differentiable

    weight = nn.Parameter(torch.ones(3))
    draws = Draws((3,), 2, 80.0)
    assert differentiable(Denoiser(lambda x, s: weight * x / (1 + s[:, None] ** 2)), draws)
    assert not differentiable(Denoiser(lambda x, s: weight * x.detach() / (1 + s[:, None] ** 2)), draws)
    assert not differentiable(Denoiser(lambda x, s: weight * x / (1 + s.detach()[:, None] ** 2)), draws)


def test_adapters_know_the_range_of_their_process(data):
    score = from_prediction(lambda x, t: -0.5 * x, "score", co.VP())
    assert score.sigma_range == (co.VP().sigma_min, co.VP().sigma_max)
    assert guided(score, LinearDenoiser(LAM), 2.0).sigma_range == score.sigma_range
    found = network(score, data, check=False, **QUICK)  # EDM's range is cut to the network's
    assert found.process.sigma_min == pytest.approx(score.sigma_range[0])


def test_a_grid_without_a_free_node_is_left_as_it_is(data):
    epsilon = from_prediction(lambda x, t: 0.1 * x, "epsilon", co.VP())  # errors grow with every step: two suffice
    stop = SHORT if FULL else {"levels": 30, "stopping_sigma": 0.05}
    plan = co.codesign(network(epsilon, data, process=co.VP(), check=False, **QUICK), steps=6 if FULL else 4, **stop)
    assert plan.sigmas.size >= 3


# data


def test_an_iterator_keeps_its_first_batch(data):
    whole = network(LinearDenoiser(LAM), data, **QUICK)
    parts = network(LinearDenoiser(LAM), iter(data.split(100)), **QUICK)
    np.testing.assert_allclose(parts.spectrum.eigenvalues, whole.spectrum.eigenvalues, rtol=1e-10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.0, 2.0], r"batch 0 has shape \(\)"),
        ([torch.zeros(3), torch.zeros(3)], r"batch 0 has shape \(3,\)"),
        ("abc", "a batch is str"),
    ],
)
def test_data_that_are_no_batches_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(LinearDenoiser(LAM), wrong, **QUICK)


# training


def test_a_log_that_does_not_fall_is_refused_before_the_work(data, tmp_path):
    calls = []

    def counting(x, sigma):
        calls.append(1)
        return x

    flat = falling_log(tmp_path / "flat.csv", gain=0.0)
    with pytest.raises(ValueError, match="losses fall"):
        network(counting, data, training=flat, **QUICK)
    with pytest.raises(ValueError, match="learning_rate and batch"):
        network(counting, data, training=TrainingHistory(learning_rate=0.1), **QUICK)
    assert not calls


def test_kappa1_counts_the_examples_of_the_models_own_correlation_length(data, tmp_path):
    log = falling_log(tmp_path / "loss.csv")
    usual = network(LinearDenoiser(LAM), data, training=log, **QUICK)
    short = network(LinearDenoiser(LAM), data, training=log, coupling=co.Local(0.9), **QUICK)
    truth = 2000.0 * (LAM * usual.sigma[:, None] ** 2 / (LAM + usual.sigma[:, None] ** 2)).sum(axis=1)
    inside = (usual.sigma > 0.01) & (usual.sigma < 20)
    np.testing.assert_allclose(usual.error_variance[inside], truth[inside], rtol=0.15)
    np.testing.assert_allclose(short.error_variance, usual.error_variance / 3, rtol=1e-9)


# plans


def test_another_sampler_needs_its_own_measurement(model):
    with pytest.raises(ValueError, match="were measured with Heun"):
        co.codesign(model, steps=9, samplers=[co.Heun(), co.Euler()], **SHORT)


def test_grids_outside_what_was_measured_are_refused(model):
    with pytest.raises(ValueError, match="starts at 40, the draws at 80"):
        model.bias(co.edm_grid(6, 0.002, 40.0))
    with pytest.raises(ValueError, match=r"stops at 0\.0005, below 0\.002"):
        model.bias(co.edm_grid(6, 0.0005, 80.0))


def test_long_grids_are_predicted_not_measured(model):
    before = model.probe.calls
    grid = co.edm_grid(2000, 0.002, 80.0)
    assert model.bias(grid) == model.predicted_bias(grid)
    assert model.probe.calls == before


def test_the_report_says_what_was_measured_and_what_it_cost(model, tmp_path):
    plan = co.codesign(model, steps=8, **SHORT)
    text = str(plan)
    assert "mean squared distance to a fine solution, same noise" in text
    assert "Wasserstein" not in text
    assert "Gram matrix of responses" in text
    assert f"{sum(model.provenance['evaluations'].values()):,} for the model" in text
    assert "for this plan" in text
    assert "term of this problem" not in text
    assert plan.measured.fine_steps > 8  # 8 fine steps are no truth for 8
    plan.save(tmp_path / "plan.json")
    assert str(co.Plan.load(tmp_path / "plan.json")) == text
    labels = [ax.get_xlabel() + ax.get_ylabel() for ax in plan.plot().axes]
    assert not any("Wasserstein" in label for label in labels)
    predicted = co.codesign(replace(model, probe=None), steps=8, **SHORT)
    assert "steps, stop and start, predicted" in str(predicted)


def test_a_saved_measurement_plans_as_it_did_without_its_denoiser(model, tmp_path):
    model.save(tmp_path / "model.npz")
    ours = co.codesign(co.EstimatedModel.load(tmp_path / "model.npz"), steps=8, **SHORT)
    truth = co.codesign(replace(model, probe=None), steps=8, **SHORT)
    np.testing.assert_array_equal(ours.sigmas, truth.sigmas)
    assert str(ours) == str(truth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "terminal", "options"),
    [
        (co.Ancestral(), "denoise", SHORT),
        (co.EulerMaruyama(), "rescale", SHORT if FULL else {"stopping_sigma": 0.02, "levels": 30}),
    ],
)
def test_samplers_with_noise_and_both_terminals_are_planned(data, sampler, terminal, options):
    small = Measurement(**{**FINE, "levels": 4, "draws": 4, "fine_steps": 8, "evaluations": 800})
    plan = co.codesign(
        network(LinearDenoiser(LAM), data, sampler=sampler, terminal=terminal, measurement=small), steps=5, **options
    )
    assert plan.certificate.optimal
    assert plan.sigmas.size == 6


# budgets and processes


MATRIX = [
    (terminal, sampler) for terminal in ("denoise", "rescale") for sampler in (co.Heun(), co.DPMpp2M(), co.Ancestral())
]


@pytest.mark.parametrize(("terminal", "sampler"), MATRIX if FULL else MATRIX[::4])
def test_the_cost_of_every_part_is_known_beforehand(data, tmp_path, sampler, terminal):
    said = []
    log = falling_log(tmp_path / "loss.csv")
    options = {"sampler": sampler, "terminal": terminal, "training": log}
    measurement = Measurement(progress=said.append, **FINE)
    found = network(LinearDenoiser(LAM), data, measurement=measurement, **options)
    for name, count in found.provenance["evaluations"].items():
        assert any(text.startswith(f"{name}: {count} batch evaluations") for text in said), (name, count, said)


def test_a_call_that_goes_on_has_the_same_budget_for_its_plan(data, tmp_path):
    first = network(LinearDenoiser(LAM), data, folder=tmp_path, **QUICK)
    again = network(LinearDenoiser(LAM), data, folder=tmp_path, **QUICK)
    assert again.probe.budget == first.probe.budget
    assert again.provenance == first.provenance


def plan_of_all(data):
    measurement = Measurement(**FINE | {"draws": 24, "chunk": 8, "evaluations": 10_000})
    plan = co.codesign(network(LinearDenoiser(LAM), data, measurement=measurement), steps=5, **SHORT)
    return plan.sigmas, plan.handed_out["total"]


@pytest.mark.skipif(not FULL, reason="slow; each part that two processes share has a test of its own")
def test_two_processes_plan_as_one(data, tmp_path):
    truth = plan_of_all(data)
    for sigmas, total in of_two(plan_of_all, tmp_path, data):
        np.testing.assert_allclose(sigmas, truth[0], rtol=1e-10)
        assert total == pytest.approx(truth[1], rel=1e-10)


def test_levels_where_nothing_was_seen_to_fall_are_said_and_not_left_out():
    """kappa1 = p L: a gap between levels with one p has that p, and so has the end below."""
    sigma = np.geomspace(0.002, 80.0, 12)
    zero = np.zeros(12)
    whole = 3 * sigma**2 / (1 + sigma**2)  # of three dimensions of variance 1, one parameter each
    reducible = np.where((sigma < 0.05) | ((sigma > 1.0) & (sigma < 5.0)), 0.0, whole)
    nan = float("nan")
    curves = co.LearningCurves(sigma, zero, reducible, zero, zero, zero, zero, zero, 2.7, nan, nan)
    data = torch.randn((200, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measurement = Measurement(levels=8, draws=8, fine_steps=8)
    model = network(LinearDenoiser(np.ones(3)), data, training=curves, measurement=measurement)
    assert "kappa1 is measured as 0 at sigma" in model.provenance["training_notes"][0]
    assert "smoothing" in model.provenance["training_notes"][0]
    at = model.sigma
    seen = np.interp(np.log(at), np.log(sigma), reducible)
    assert (seen == 0).sum() >= 2  # nodes in both stretches
    told = 3 * at**2 / (1 + at**2)
    np.testing.assert_allclose(model.error_variance[seen == 0], told[seen == 0], rtol=0.35)  # the data's spread is ~1
    nothing = replace(curves, reducible=zero)
    with pytest.raises(ValueError, match="at no noise level do the losses fall"):
        network(LinearDenoiser(np.ones(3)), data, training=nothing, measurement=measurement)
