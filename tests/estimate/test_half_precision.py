"""Half precision: states, levels and sums keep their digits, the network alone is cast; such data are taken."""

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import (
    DescentRules,
    Draws,
    GradientSampling,
    Lanczos,
    Measurement,
    Reference,
    check_denoiser,
    descend_grid,
    from_prediction,
    gradient_noise,
    measured_error,
    network,
    spectrum,
)
from codesign_opt.estimate.steps.grid_runs import rounding_of
from codesign_opt.estimate.steps.probe import NetworkProbe

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
HALF = [torch.bfloat16, torch.float16]
LAM = torch.linspace(0.2, 3.0, 6)


class Layer(torch.nn.Module):
    """One layer, the identity."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 6, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(6))


class Net(Layer):
    """The exact denoiser of N(0, diag LAM), through a layer."""

    def forward(self, x, sigma):
        return self.layer(x) * LAM.to(x.dtype) / (LAM.to(x.dtype) + sigma[:, None].to(x.dtype) ** 2)


@pytest.fixture(scope="module")
def data():
    return torch.randn(1500, 6, generator=torch.Generator().manual_seed(0)) * LAM.sqrt()


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("method", [None, Lanczos(probes=4)], ids=["exact", "lanczos"])
def test_spectra_of_half_precision_data_are_those_of_the_same_numbers(half, method, data):
    given = data.to(half)
    options = {} if method is None else {"method": method}
    found, exact = spectrum(given, **options), spectrum(given.double(), **options)
    np.testing.assert_array_equal(found.spectrum.eigenvalues, exact.spectrum.eigenvalues)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(given), batch_size=300)
    streamed = spectrum(loader, **options)
    np.testing.assert_allclose(streamed.spectrum.eigenvalues, exact.spectrum.eigenvalues, rtol=1e-9)


@pytest.mark.parametrize("half", HALF)
def test_a_check_and_gradients_take_half_precision_networks_and_data(half, data):
    net, given = Net().to(half), data.to(half)
    assert check_denoiser(net, given).verdict == "right"
    few = {"sampling": GradientSampling(batch=8, batches=8)}
    found, exact = (
        gradient_noise(net, given, [0.5, 2.0], **few),
        gradient_noise(Net(), given.float(), [0.5, 2.0], **few),
    )
    np.testing.assert_allclose(found.reducible, exact.reducible, rtol=0.01)
    around = gradient_noise(lambda x, sigma: net(x.to(half), sigma).float(), given, [0.5, 2.0], module=net, **few)
    np.testing.assert_allclose(around.reducible, exact.reducible, rtol=0.03)


class Velocity(Layer):
    """The exact velocity of N(0, diag LAM) along a flow, through a layer."""

    def forward(self, state, t):
        share = t[:, None]
        gain = (share - (1 - share) * LAM) / ((1 - share) ** 2 * LAM + share**2)
        return self.layer(state) * gain.to(state.dtype)


def measured(half, data, **measurement):
    """The model measured on the velocity network in a precision, on data in the same."""
    process = co.FlowMatching(t_min=0.02, t_max=0.95)
    net = from_prediction(Velocity().to(half), "flow", co.FlowMatching())
    return network(net, data.to(half), process=process, measurement=Measurement(**measurement), seed=1)


@pytest.mark.slow
def test_what_is_measured_on_a_bfloat16_network_is_what_the_full_one_gives(data):
    few = {"levels": 8, "draws": 64, "fine_steps": 32, "evaluations": 2_500}
    full, half = measured(torch.float32, data, **few), measured(torch.bfloat16, data, **few)
    np.testing.assert_allclose(half.sigma, full.sigma, rtol=1e-6)
    found, strong = (np.sqrt((model.responses**2).sum(axis=0)) for model in (half, full))
    telling = strong > 0.2 * strong.max()  # the others drown in 8 bits
    assert telling.sum() >= 3
    np.testing.assert_allclose(found[telling], strong[telling], rtol=0.06)


@pytest.mark.skipif(not FULL, reason="six plans from many draws: five minutes")
def test_plans_for_a_bfloat16_network_are_those_of_the_full_one_until_it_rounds(data):
    """Each planned from its own measurements, of one seed; what the grids leave is measured on the full network.

    At 4 and 8 steps levels are within 1 % of the range of log sigma and errors within 2 %. At 16 steps the full
    network's descent goes on to 2e-7 of the variance. The other rounds by 2e-7 of it and ends at 4e-6 to 3e-5, its
    levels 17 to 26 % of the range apart (three runs): no bound on levels holds there, and none is asked.
    """
    many = {"levels": 12, "draws": 256, "chunk": 256, "fine_steps": 48, "evaluations": 20_000}
    models = [measured(kind, data, **many) for kind in (torch.float32, torch.bfloat16)]
    for steps in (4, 8, 16):
        plans = [co.codesign(model, steps=steps, points=6, levels=80) for model in models]
        full, half = (np.log(plan.sigmas[plan.sigmas > 0]) for plan in plans)
        apart = float(np.abs(half - full).max() / (full.max() - full.min()))
        errors = [float(models[0].probe.errors(plan.sigmas).mean.value) for plan in plans]
        print(f"{steps} steps: {apart:.2%} of the range apart, errors {errors}, {plans[1].notes}")
        if steps > 8:
            assert errors[1] < 1e-4 * models[0].spectrum.trace
            continue
        assert apart < 0.01
        assert errors[1] < 1.02 * errors[0]
        assert not any("rounds its answers" in note for plan in plans for note in plan.notes)


def test_a_plan_says_where_its_network_rounds_by_more_than_the_grid_errs(data, monkeypatch):
    few = {"levels": 4, "draws": 8, "chunk": 8, "fine_steps": 16, "evaluations": 1_200}
    model = measured(torch.float32, data, **few)
    monkeypatch.setattr(NetworkProbe, "rounding", 2.0)
    assert model.rounded_error == pytest.approx(4.0 * model.spectrum.trace)
    plan = co.codesign(model, steps=3, stopping_sigma=0.1, levels=20, polish=False)
    assert plan.measured.value < model.rounded_error
    assert any("rounds its answers" in note for note in plan.notes)
    monkeypatch.setattr(NetworkProbe, "rounding", 1e-6)
    again = co.codesign(model, steps=3, stopping_sigma=0.1, levels=20, polish=False)
    assert again.measured.value == plan.measured.value > model.rounded_error
    assert not any("rounds its answers" in note for note in again.notes)


@pytest.mark.parametrize(("kind", "low", "high"), [(torch.bfloat16, 5e-4, 4e-3), (torch.float32, 1e-9, 3e-7)])
def test_the_rounding_of_a_network_is_that_of_its_number_format(kind, low, high, data):
    draws = Draws((6,), 8, 19.0)
    net = from_prediction(Velocity().to(kind), "flow", co.FlowMatching())
    assert low < rounding_of(Reference(net, co.Heun(), draws, 0.05, steps=8)) < high


@pytest.mark.parametrize("half", HALF)
def test_schedules_in_half_precision_are_read_as_their_numbers(half):
    given = torch.tensor([14.0, 2.5, 0.25, 0.0]).to(half)
    np.testing.assert_array_equal(co.read_schedule(given), [14.0, 2.5, 0.25, 0.0])
    np.testing.assert_array_equal(co.Spectrum.from_eigenvalues(given[1:3]).eigenvalues, [2.5, 0.25])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gradient", "steps", "budget"), [("differences", 8, 1500), *([("autograd", 10, 2500)] if FULL else [])]
)
def test_descents_of_half_precision_networks_end_as_low_as_those_of_the_full_one(gradient, steps, budget):
    """Differences that drown in the network's rounding ended the first at 2.2 times, the second at 1.6 times."""
    start, found = co.log_snr_grid(steps, 0.05, 19.0), {}
    for kind in (torch.float32, torch.bfloat16):
        net = from_prediction(Velocity().to(kind), "flow", co.FlowMatching())
        draws, held_out = (Draws((6,), 24, 19.0, name=name) for name in ("descent", "held out"))
        reference, rules = Reference(net, co.Heun(), draws, 0.05, steps=32), DescentRules(patience=5, gradient=gradient)
        found[kind] = descend_grid(reference, held_out, [start], rules=rules, budget=budget, free_stop=False).sigmas
    full = from_prediction(Velocity(), "flow", co.FlowMatching())
    judge = Reference(full, co.Heun(), Draws((6,), 128, 19.0, name="judge"), 0.05, steps=64)
    most, full_error, half_error = (float(measured_error(judge, grid).mean.value) for grid in (start, *found.values()))
    assert full_error < 0.3 * most
    assert half_error < 1.1 * full_error
