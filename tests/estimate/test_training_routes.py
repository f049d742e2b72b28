"""network(training=...) by every route of measuring errors, and by one of the user's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import (
    ErrorLaw,
    Measurement,
    Replication,
    TrainingErrors,
    TrainingHistory,
    gradient_noise,
    network,
    replicated_runs,
)
from codesign_opt.testbed import LinearDenoiser

LAM = np.array([1.0, 0.5, 0.2, 0.1])
SCATTER = np.array([0.1, 0.06, 0.05, 0.02])  # of the denoiser's weights over runs
QUICK = Measurement(levels=6, draws=8, fine_steps=8, rest_steps=4)
RUN = co.TrainingRun(co.LogNormal(-0.5, 1.3), iterations=500, batch=200)


@pytest.fixture(scope="module")
def data():
    draws = torch.randn((2_000, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws * torch.as_tensor(np.sqrt(LAM))


@pytest.fixture(scope="module")
def nodes(data):
    return network(LinearDenoiser(LAM), data, measurement=QUICK).sigma


def measured(data, training, **options):
    return network(LinearDenoiser(LAM), data, training=training, measurement=QUICK, **options)


def planned(model):
    prices = co.Prices(example=3.0, evaluation=1.0, images=1_000)
    return co.codesign(model, prices, 1e5, stopping_sigma=0.02, levels=30, polish=False)


def scattered(seed):
    weights = np.diag(SCATTER * np.random.default_rng(seed).standard_normal(4))
    return LinearDenoiser(LAM, perturbation=weights)


def variance(sigma):
    """E|(W - E W)(x0 + sigma z)|^2 of weights with that scatter."""
    return np.array([np.sum(SCATTER**2 * (LAM + s**2)) for s in sigma])


@pytest.mark.slow
@pytest.mark.parametrize("examples", [5_000, RUN], ids=["a number", "a run"])
def test_repeated_runs_give_kappa1_their_variance_times_the_examples(data, nodes, examples):
    often = Replication(runs=64, inputs=256, examples=examples)
    found = replicated_runs(scattered, data, nodes, replication=often)
    model = measured(data, found, coupling=co.Local(1.8))
    served = 5_000.0
    if examples is RUN:  # per unit log sigma, times the length in which the model counts
        density = np.exp(-0.5 * ((np.log(nodes) + 0.5) / 1.3) ** 2) / (1.3 * np.sqrt(2 * np.pi))
        served = 1.8 * 100_000 * density
    error = np.hypot(model.standard_errors["error_variance"], 2e-3 * served * variance(nodes))
    assert np.all(np.abs(model.error_variance - served * variance(nodes)) < 3 * error)
    assert np.all(model.standard_errors["error_variance"] < 0.3 * model.error_variance)
    assert planned(model).breakdown["score"] > 0


def test_repeated_runs_of_one_density_serve_neighbours_where_levels_teach_each_other(data, nodes):
    found = replicated_runs(scattered, data, nodes, replication=Replication(runs=8, examples=RUN))
    wide, own = (measured(data, found, coupling=co.Transfer(width, 2.0)) for width in (1.0, 1e-3))
    density = [np.exp(-0.5 * ((np.log(nodes) + 0.5) / std) ** 2) / std for std in (np.hypot(1.3, 1.0), 1.3)]
    inside = (nodes > 0.03) & (nodes < 5)  # away from the ends of the range, where the kernel is cut
    ratio = (wide.error_variance / own.error_variance)[inside]
    np.testing.assert_allclose(ratio, (density[0] / density[1])[inside], rtol=0.02)


def test_repeated_runs_that_do_not_say_their_examples_are_refused_by_name(data, nodes):
    found = replicated_runs(scattered, data, nodes, replication=Replication(runs=8))
    with pytest.raises(ValueError, match=r"ReplicatedRuns\.examples is None.*Replication\(examples="):
        measured(data, found)
    assert measured(data, replace(found, examples=1_000.0)).trained
    with pytest.raises(ValueError, match="examples has 2 entries for 6 noise levels"):
        replicated_runs(scattered, data, nodes, replication=Replication(runs=3, examples=[1.0, 2.0]))


class Diagonal(torch.nn.Module):
    """D = w x, one weight for each dimension."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((4,), 0.5, dtype=torch.float64))

    def forward(self, x, sigma):
        return self.weight * x


def test_gradient_noise_gives_kappa1_and_with_a_learning_rate_a_floor(data, nodes):
    found = gradient_noise(Diagonal(), data, nodes[::-1].copy())  # levels in any order
    model = measured(data, TrainingHistory(found, learning_rate=0.1, batch=20))
    np.testing.assert_allclose(model.error_variance, found.reducible[::-1], rtol=1e-9)
    np.testing.assert_allclose(model.error_floor, 0.1 / 20 * found.step_noise[::-1], rtol=1e-9)
    np.testing.assert_allclose(model.standard_errors["error_variance"], found.reducible_error[::-1], rtol=1e-9)
    assert planned(model).breakdown["floor"] > 0


class Quoted(TrainingErrors):
    """A route of one's own: numbers read off a paper."""

    def __init__(self, kappa, log_width=None):
        self.kappa, self.log_width = kappa, log_width

    def law(self):
        sigma = np.geomspace(1e-3, 100.0, 30)
        return ErrorLaw(sigma, self.kappa * sigma**2 / (0.45 + sigma**2), log_width=self.log_width)


@pytest.mark.slow
def test_a_users_own_route_is_planned_with_and_its_examples_are_counted_by_its_length(data, nodes):
    own, within = (measured(data, Quoted(700.0, width), coupling=co.Local(1.8)) for width in (None, 0.6))
    np.testing.assert_allclose(own.error_variance, 700.0 * nodes**2 / (0.45 + nodes**2), rtol=0.01)
    np.testing.assert_allclose(within.error_variance, 3 * own.error_variance, rtol=1e-12)
    assert planned(own).breakdown["score"] > 0
    assert measured(data, Quoted(700.0).law()).error_variance.sum() > 0  # the law itself serves too


def test_errors_that_fall_nowhere_are_refused_and_other_objects_named(data):
    sigma = np.geomspace(1e-3, 100.0, 5)
    with pytest.raises(ValueError, match=r"at no noise level do the losses fall.*; ask for more runs"):
        measured(data, ErrorLaw(sigma, np.ones(5), np.ones(5), remedy="ask for more runs"))
    with pytest.raises(ValueError, match=r"source is \{\}; give a co\.TrainingRun"):
        measured(data, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": [2.0, 1.0]}, "sigma must be strictly ascending"),
        ({"reducible": [-1.0, 1.0]}, "reducible is -1"),
        ({"reducible_error": [1.0]}, "reducible_error has 1 entries"),
        ({"log_width": 0.0}, "log_width is 0"),
    ],
)
def test_a_malformed_law_is_named(change, message):
    with pytest.raises(ValueError, match=f"ErrorLaw.{message}"):
        ErrorLaw(**{"sigma": [1.0, 2.0], "reducible": [1.0, 1.0]} | change)
