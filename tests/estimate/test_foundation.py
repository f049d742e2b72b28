"""Samplers on a network against exact laws; draws, ledgers and checks that long work stands on."""

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.denoisers.denoiser import Denoiser, DenoiserError
from codesign_opt.estimate.draws.statistics import Moments
from codesign_opt.estimate.draws.streams import batches, normal, seeded
from codesign_opt.estimate.runs.run import BrownianPath, run

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

LAM = np.array([2.0, 0.5, 0.03, 0.0])
GRIDS = [co.edm_grid(7, 0.05, 20.0), co.log_snr_grid(9, 0.1, 10.0, terminal="rescale")]
ODE = [co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(eta=0.0), co.EulerMaruyama(eta=0.0)]
SDE = [co.Ancestral(eta=1.0), co.Ancestral(eta=0.6), co.EulerMaruyama(eta=1.0)]


def linear(lam=LAM):
    lam = torch.as_tensor(lam)
    return lambda x, sigma: x * lam.to(x.dtype) / (lam.to(x.dtype) + sigma[:, None] ** 2)


@pytest.mark.parametrize("grid", GRIDS, ids=["denoise", "rescale"])
@pytest.mark.parametrize("sampler", ODE, ids=repr)
def test_ode_samplers_on_a_linear_denoiser_multiply_as_the_exact_law(sampler, grid):
    out = run(linear(), sampler, grid, torch.ones(1, 4, dtype=torch.float64))
    np.testing.assert_allclose(out[0], sampler.terminal_law(grid, LAM).amplitude, rtol=1e-12, atol=1e-14)


@pytest.mark.cases(1)
@pytest.mark.parametrize("sampler", SDE, ids=repr)
def test_stochastic_samplers_have_the_exact_law_within_three_standard_errors(sampler):
    grid, count = co.edm_grid(6, 0.05, 20.0), 40_000
    law = sampler.terminal_law(grid, LAM, initial_variance=np.full(4, 400.0))
    x = 20.0 * normal(1, "start", shape=(count, 4), like=torch.zeros((), dtype=torch.float64))
    out = run(linear(), sampler, grid, x, BrownianPath(1, ("noise",), 20.0, 0.05)).numpy()
    error = (out**2).mean(axis=0) - np.asarray(law.variance)
    spread = np.sqrt(2 / count) * np.asarray(law.variance)
    assert np.all(np.abs(error[:3]) <= 3 * spread[:3]), error / np.maximum(spread, 1e-300)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SDE if FULL else SDE[::2], ids=repr)
def test_one_noise_path_serves_every_grid_so_that_coarse_runs_approach_fine_ones(sampler):
    x = 5.0 * normal(2, "start", shape=(500, 1), like=torch.zeros((), dtype=torch.float64))
    path = BrownianPath(2, ("path",), 5.0, 0.1)
    runs = {
        k: run(linear([1.0]), sampler, co.log_snr_grid(k, 0.1, 5.0, terminal="rescale"), x, path) for k in (16, 64, 256)
    }
    near, far = ((runs[k] - runs[256]).square().mean().item() for k in (64, 16))
    other = run(
        linear([1.0]),
        sampler,
        co.log_snr_grid(256, 0.1, 5.0, terminal="rescale"),
        x,
        BrownianPath(3, ("path",), 5.0, 0.1),
    )
    assert near < 0.35 * far
    assert far < 0.2 * (other - runs[256]).square().mean().item()


@pytest.mark.parametrize("sampler", [*ODE, *SDE], ids=repr)
def test_gradient_in_the_grid_matches_finite_differences(sampler):
    grid = torch.as_tensor(co.edm_grid(5, 0.1, 10.0).copy())
    x, path = torch.full((3, 4), 8.0, dtype=torch.float64), BrownianPath(0, ("g",), 10.0, 0.07)  # no node on a kink

    def value(sigmas):
        return run(linear(), sampler, sigmas, x, path).square().sum()

    leaf = grid.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    for k in (1, 2, 4):
        up, down = grid.clone(), grid.clone()
        up[k] *= 1 + 1e-6
        down[k] *= 1 - 1e-6
        numeric = (value(up) - value(down)) / (up[k] - down[k])
        assert slope[k].item() == pytest.approx(numeric.item(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, s: torch.where(s[:, None] > 1, torch.nan, 1.0) * x, "entries are not finite at sigma = 2"),
        (lambda x, s: x[:, :1], r"returned shape \(4, 1\)"),
        (lambda x, s: x.double(), "returned torch.float64 for states of torch.float32"),
        (lambda x, s: (x, s), "returned tuple"),
    ],
)
def test_a_broken_denoiser_is_named_with_its_noise_level(function, message):
    with pytest.raises(DenoiserError, match=message):
        Denoiser(function, name="net")(torch.ones(4, 3), torch.tensor([2.0, 0.5, 0.5, 0.5]))


def test_evaluations_count_images():
    denoiser = Denoiser(linear())
    run(denoiser, co.Heun(), co.edm_grid(5, 0.1, 10.0), torch.ones(3, 4, dtype=torch.float64))
    assert (denoiser.evaluations, denoiser.calls) == (27, 9)  # four steps of two and a last one


def test_draws_depend_on_their_names_alone():
    first = torch.rand(3, generator=seeded(1, "level", 2))
    torch.rand(10)
    assert torch.equal(first, torch.rand(3, generator=seeded(1, "level", 2)))
    assert not torch.equal(first, torch.rand(3, generator=seeded(1, "level", 3)))
    assert not torch.equal(first, torch.rand(3, generator=seeded(2, "level", 2)))


def test_moments_of_parts_are_the_moments_of_the_whole():
    samples = 1e6 + np.random.default_rng(0).normal(size=(1000, 3))
    whole, left, right = Moments((3,)), Moments((3,)), Moments((3,))
    whole.add(samples)
    for part in np.split(samples[:600], 6):
        left.add(torch.as_tensor(part))
    right.add(samples[600:])
    both = left.merged(Moments.from_state(right.state()))
    np.testing.assert_allclose(both.mean, samples.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(both.variance, samples.var(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(whole.estimate().standard_error, both.estimate().standard_error, rtol=1e-9)


def test_a_ledger_computes_once_recomputes_cut_files_and_refuses_another_question(tmp_path):
    ledger, calls = Ledger(tmp_path, {"seed": 1, "sampler": "heun"}), []

    def compute():
        calls.append(1)
        return {"value": np.arange(3.0)}

    for _ in range(2):
        assert Ledger(tmp_path, {"seed": 1, "sampler": "heun"}).item("level/3", compute)["value"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    file = tmp_path / "level" / "3.npz"
    file.write_bytes(file.read_bytes()[:40])
    assert ledger.item("level/3", compute)["value"].tolist() == [0, 1, 2]
    assert len(calls) == 2
    with pytest.raises(ValueError, match="seed = 1, not 2"):
        Ledger(tmp_path, {"seed": 2, "sampler": "heun"})


@pytest.mark.parametrize(
    "data",
    [
        np.arange(10.0).reshape(5, 2),
        torch.arange(10.0).reshape(5, 2),
        torch.utils.data.TensorDataset(torch.arange(10.0).reshape(5, 2), torch.zeros(5)),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(10.0).reshape(5, 2)), batch_size=2),
        [np.arange(4.0).reshape(2, 2), np.arange(4.0, 10.0).reshape(3, 2)],
        lambda: iter([(np.arange(10.0).reshape(5, 2), "label")]),
    ],
    ids=["array", "tensor", "dataset", "loader", "list", "callable"],
)
def test_batches_come_from_any_usual_form_of_data(data):
    parts = list(batches(data, 2))
    np.testing.assert_array_equal(torch.cat(parts).double(), np.arange(10.0).reshape(5, 2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], "batch 1 has shape"),
        (np.array([[0.0, np.nan]]), "1 entries that are not finite"),
        ([], "no examples"),
        (3.0, "data is float"),
        (np.zeros(4), r"\(examples, …\)"),
    ],
)
def test_bad_data_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        list(batches(data))
