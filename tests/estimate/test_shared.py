"""Shared parameters: correlation of errors, transfer between levels, information of a network's parameters."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.draws.streams import normal
from codesign_opt.estimate.features.derivatives import TerminalResponse
from codesign_opt.estimate.features.ntk import decoupling, tangent_spectrum
from codesign_opt.estimate.features.parameter_sketch import ParameterSketch, Sketch
from codesign_opt.estimate.features.shared_features import shared_features
from codesign_opt.estimate.runs.run import BrownianPath, run
from codesign_opt.estimate.training_errors.correlation import ErrorGram, jackknife
from codesign_opt.estimate.training_errors.error_coupling import Starts, Swap, error_gram
from codesign_opt.estimate.training_errors.transfer import (
    TransferKernel,
    information_overlap,
    kernel_matrix,
    teaching_shares,
)

ROOT = Path(co.__file__).parent.parent
F64 = torch.zeros((), dtype=torch.float64)
WIDE = co.Levels.log_uniform(np.exp(-5.0), np.exp(5.0), 40)
LENGTH = 0.8
SHAPES = {  # correlation at a distance, and its two-sided integral
    "exponential": (lambda d: np.exp(-np.abs(d) / LENGTH), 2 * LENGTH),
    "gaussian": (lambda d: np.exp(-0.5 * (d / LENGTH) ** 2), np.sqrt(2 * np.pi) * LENGTH),
}


def correlated_fields(shape, rng, units=40, entries=8, amplitude=1.0):
    place = np.log(WIDE.sigma)
    root = np.linalg.cholesky(SHAPES[shape][0](place[:, None] - place) + 1e-10 * np.eye(place.size))
    return amplitude * (root @ rng.standard_normal((units, place.size, entries)))


def covered(values, errors, truth):
    return float(np.mean(np.abs(np.asarray(values) - truth) <= 1.96 * np.asarray(errors)))


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_length_is_the_two_sided_integral_with_calibrated_standard_errors(shape):
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        gram = ErrorGram.from_fields(correlated_fields(shape, rng), WIDE)
        found.append(gram.correlation_length())
    integral = SHAPES[shape][1]
    place, width = np.log(WIDE.sigma), WIDE.log_width
    exact = SHAPES[shape][0](place[:, None] - place)  # the bins' sum, cut with the range
    assert (exact @ width)[20] == pytest.approx(integral, rel=0.01)
    mean = exact.sum() * width[0] / place.size
    centre = [(f.local.value[20], f.local.standard_error[20]) for f in found]
    for values, truth in (
        (centre, (exact @ width)[20]),
        ([(f.overall.value, f.overall.standard_error) for f in found], mean),
        ([(f.gram.value, f.gram.standard_error) for f in found], mean),
    ):
        value, error = np.array(values).T
        assert 0.90 <= covered(value, error, truth) <= 0.99
        assert value.mean() == pytest.approx(truth, abs=3.5 * value.std() / np.sqrt(200) + 0.01 * truth)
    value, error = np.array(centre).T
    assert abs(value[0] - integral) <= 3 * error[0] + 0.01 * integral


def test_gram_length_gives_the_coherent_sum_whatever_the_amplitudes():
    amplitude = np.exp(-0.5 * np.log(WIDE.sigma) ** 2)[None, :, None]
    gram = ErrorGram.from_fields(correlated_fields("exponential", np.random.default_rng(1), amplitude=amplitude), WIDE)
    length = gram.correlation_length()
    squares = float(np.sum(np.diag(gram.gram) / WIDE.log_width))
    assert float(length.gram.value) * squares == pytest.approx(float(gram.sums()["linear"].value), rel=1e-12)
    assert float(length.gram.value) < float(length.overall.value)
    assert length.coupling().log_width == pytest.approx(float(length.gram.value))
    local = length.coupling("local", form="p4")
    np.testing.assert_allclose(local.lengths(WIDE), np.maximum(length.local.value, length.overall.value / 30))
    distance, correlation = gram.by_distance()
    np.testing.assert_allclose(distance[:4], [0, 0.25, 0.5, 0.75], atol=1e-12)
    away = np.abs(correlation.value[:8] - np.exp(-distance[:8] / LENGTH))
    assert np.all(away <= 3.5 * correlation.standard_error[:8] + 1e-12)


def test_jackknife_of_a_mean_is_its_textbook_standard_error():
    units = np.random.default_rng(2).standard_normal((30, 3))
    found = jackknife(lambda mean: mean, units)
    np.testing.assert_allclose(found.standard_error, units.std(axis=0, ddof=1) / np.sqrt(30), rtol=1e-12)


LAM = torch.tensor([2.0, 0.5, 0.05], dtype=torch.float64)


def wiener(x, sigma, gain=0.0):
    return x * LAM / (LAM + sigma[:, None] ** 2) * (1 + gain)


def flawed(x, sigma):
    """Relative error of the gain that changes sign at sigma = 1, different in the three directions."""
    wave = torch.tanh(torch.log(sigma))[:, None] * torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    return wiener(x, sigma, 0.05 * wave)


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(eta=0.7)], ids=repr)
def test_single_level_swaps_are_the_derivative_of_the_exact_sampler(sampler):
    """A linear error moves the terminal amplitude; the derivative by each block's gain is taken by differences."""
    grid = co.edm_grid(6, 0.05, 10.0)
    starts, swap = Starts((3,), draws=6, batch=4, like=F64), Swap(fraction=1e-5)
    found = error_gram(wiener, flawed, sampler, grid, starts, swap=swap, seed=3)
    levels, moved = found.levels, []
    x = torch.stack([10.0 * normal(3, "gram start", n, shape=(3,), like=F64) for n in range(4)])
    path = BrownianPath(3, ("gram noise", 0), 10.0, 0.05)

    def terminal(block, sign):
        def denoise(y, sigma):
            inside = int(np.searchsorted(levels.edges[1:-1], float(sigma[0]))) == block
            return wiener(y, sigma) + sign * 1e-3 * (flawed(y, sigma) - wiener(y, sigma)) * inside

        return run(denoise, sampler, grid, x, path)

    for block in range(len(levels)):
        moved.append((terminal(block, 1.0) - terminal(block, -1.0)) / 2e-3)
    fields = torch.stack(moved, dim=1).numpy()
    np.testing.assert_allclose(found.units[:4], fields @ fields.transpose(0, 2, 1), rtol=2e-3, atol=1e-9)
    assert found.gram.min() < 0  # the error changes sign
    together = found.sums()
    assert together["together"].value == pytest.approx(float(together["linear"].value), rel=1e-3)


def test_replicas_are_units_of_their_own_and_few_are_refused():
    others = [lambda x, s, g=g: wiener(x, s, g) for g in (0.01, -0.02, 0.03, 0.01)]
    grid = co.edm_grid(4, 0.1, 5.0)
    found = error_gram(wiener, others, co.Euler(), grid, Starts((3,), draws=4, like=F64), swap=Swap(unit="replica"))
    assert found.units.shape == (4, 4, 4)
    np.testing.assert_allclose(found.units[1] / found.units[0], 4.0, rtol=0.1)
    with pytest.raises(ValueError, match=r"Swap\.unit is 'replica' with 1 others"):
        error_gram(wiener, flawed, co.Euler(), grid, Starts((3,)), swap=Swap(unit="replica"))
    with pytest.raises(ValueError, match=r"never evaluates the denoiser between sigma"):
        error_gram(wiener, flawed, co.Euler(), grid, Starts((3,), draws=2, like=F64), swap=Swap(levels=30))
    with pytest.raises(ValueError, match=r"has no terminal response \(4 of 4 levels\)"):
        error_gram(wiener, wiener, co.Euler(), grid, Starts((3,), draws=2, like=F64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Starts((3,), draws=1), r"Starts\.draws is 1; it must be >= 2"),
        (lambda: Starts((3, 0)), r"Starts\.shape is 0"),
        (lambda: Starts((3,), batch=0), r"Starts\.batch is 0"),
        (lambda: Swap(levels=0), r"Swap\.levels is 0"),
        (lambda: Swap(fraction=1.5), r"Swap\.fraction is 1\.5; it must be <= 1"),
        (lambda: Swap(unit="run"), r"Swap\.unit is 'run'"),
    ],
)
def test_starts_and_swaps_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_killed_gram_goes_on_with_the_same_result_and_another_question_is_refused(tmp_path):
    options = {"starts": Starts((3,), draws=8, batch=1, like=F64), "seed": 5}
    grid = co.edm_grid(4, 0.1, 5.0)
    whole = error_gram(wiener, flawed, co.Euler(), grid, **options)
    calls = [0]

    def dying(x, sigma):
        calls[0] += 1
        if calls[0] > 70:
            raise KeyboardInterrupt
        return wiener(x, sigma)

    with pytest.raises(KeyboardInterrupt):
        error_gram(dying, flawed, co.Euler(), grid, folder=tmp_path, **options)
    assert [p.name for p in tmp_path.glob("draws-*")] == ["draws-0.npz"]
    resumed = error_gram(wiener, flawed, co.Euler(), grid, folder=tmp_path, **options)
    np.testing.assert_array_equal(resumed.units, whole.units)
    assert resumed.evaluations == whole.evaluations
    with pytest.raises(ValueError, match="holds results for seed = 5, not 6"):
        error_gram(wiener, flawed, co.Euler(), grid, folder=tmp_path, **{**options, "seed": 6})


TWO = """
import os, sys, numpy as np, torch, torch.distributed as dist
from tests.estimate.test_shared import jobs
rank = int(os.fork() == 0)  # one import for both
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
np.savez(f"{sys.argv[1]}/{rank}.npz", **jobs())
dist.destroy_process_group()
if rank == 0:
    assert os.wait()[1] == 0
"""


def jobs():
    """What one and two processes must agree on."""
    grid = co.edm_grid(4, 0.1, 5.0)
    gram = error_gram(wiener, flawed, co.Heun(), grid, Starts((3,), draws=20, batch=3, like=F64))
    sketch = Sketch(size=6, examples=20, batch=4, groups=3, probes=3)
    response = TerminalResponse(co.Heun(), GRID, draws=2, probes=6)
    found = shared_features(Small(), DATA, SIGMA[:2], response, sketch=sketch)
    return {"units": gram.units, "together": gram.together, "evaluations": gram.evaluations + found.evaluations,
            "information": found.information, "response": found.level_response,
            "residual": found.residual.standard_error}  # fmt: skip


def test_two_processes_give_the_result_of_one(tmp_path):
    subprocess.run([sys.executable, "-c", TWO, str(tmp_path)], cwd=ROOT, check=True, timeout=300)
    one = jobs()
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as two:
            for name, value in one.items():
                np.testing.assert_allclose(two[name], value, rtol=1e-10, atol=1e-14)


LEVELS = co.Levels.log_uniform(np.exp(-3.0), np.exp(3.0), 24)


def lognormal(mean, std):
    place = np.log(LEVELS.sigma)
    return 1e5 * np.exp(-0.5 * ((place - mean) / std) ** 2) / std + 1.0


def test_transfer_width_of_pilots_is_found_with_calibrated_standard_errors():
    rng, densities = np.random.default_rng(3), np.array([lognormal(-1.0, 0.9), lognormal(1.0, 0.9)])
    level_cost = np.exp(rng.standard_normal(24))
    truth = level_cost / (densities @ kernel_matrix(0.6, LEVELS).T)
    plain, known = [], []
    for repeat in range(200):
        errors = truth * np.exp(0.2 * rng.standard_normal((2, 24)))
        plain.append(TransferKernel.from_pilots(errors, densities, LEVELS))
        if repeat < 20:
            known.append(TransferKernel.from_pilots(errors, densities, LEVELS, standard_errors=0.2 * truth))
    width, error = np.array([(k.width, k.standard_error) for k in plain]).T
    assert 0.90 <= covered(width, error, 0.6) <= 0.99
    assert width.mean() == pytest.approx(0.6, abs=3.5 * width.std() / np.sqrt(200) + 0.005)
    assert np.mean([k.standard_error for k in known]) == pytest.approx(width.std(), rel=0.25)
    noise = np.exp(0.2 * rng.standard_normal((8, 2, 24)))
    repeated = TransferKernel.from_pilots(truth * noise, densities, LEVELS)
    assert abs(repeated.width - 0.6) <= 4 * repeated.standard_error
    with pytest.raises(ValueError, match="proportional"):
        TransferKernel.from_pilots(truth, np.stack([densities[0], 2 * densities[0]]), LEVELS)


def bump_features(rng, width, groups=6, rows=12, knots=160):
    """White features on a fine axis seen through a window of the given width: cos^2 is the Gaussian overlap."""
    axis, place = np.linspace(-8, 8, knots), np.log(LEVELS.sigma)
    window = np.exp(-0.5 * ((place[:, None] - axis) / width) ** 2)
    scale = 1 + 0.3 * rng.standard_normal((1, LEVELS.sigma.size, rows, 1))  # how much each level has to say
    return np.repeat(scale * window[None, :, None, :], groups, axis=0)


def test_transfer_width_of_features_is_that_of_their_window():
    """phi(u) = exp(-u^2 / (2 width^2)) gives cos = exp(-d^2 / (4 width^2)) and overlap cos^2."""
    features = bump_features(np.random.default_rng(4), 0.6)
    place = np.log(LEVELS.sigma)
    exact = np.exp(-0.5 * ((place[:, None] - place) / 0.6) ** 2)
    np.testing.assert_allclose(information_overlap(features), exact, atol=1e-6)
    found = TransferKernel.from_features(features, LEVELS.sigma)
    assert found.width == pytest.approx(0.6, abs=1e-5)
    assert found.misfit < 1e-6


def test_overlap_of_noisy_features_has_no_bias_from_their_own_noise():
    rng, count = np.random.default_rng(5), 6
    mixing = [np.eye(5) + 0.5 * rng.standard_normal((5, 5)) for _ in range(count)]
    exact = np.array([[np.sum((a.T @ a) * (b.T @ b)) for b in mixing] for a in mixing])
    own = np.sqrt(np.diag(exact))
    exact = exact / own / own[:, None]
    features = np.stack([[rng.standard_normal((40, 5)) @ m / np.sqrt(40) for m in mixing] for _ in range(200)])
    parts = np.array([information_overlap(features[i : i + 10]) for i in range(0, 200, 10)])
    error = parts.std(axis=0, ddof=1) / np.sqrt(20)
    off = ~np.eye(count, dtype=bool)
    assert np.all(np.abs(parts.mean(axis=0) - exact)[off] <= 4 * error[off] + 2e-3)


def test_teaching_shares_are_the_derivative_of_each_levels_error():
    rng = np.random.default_rng(6)
    features = rng.standard_normal((5, 3, 4))
    term = co.InformationError(features, np.eye(4), sigma=np.geomspace(0.1, 10, 5), residual_variance=2.0)
    examples = np.array([10.0, 40.0, 20.0, 5.0, 30.0])

    def errors(m):
        inverse = np.linalg.inv(term.information(m))
        return np.einsum("lkp,pq,lkq->l", term.roots, inverse, term.roots)

    shares = teaching_shares(term, examples)
    for l in range(5):
        up, down = examples.copy(), examples.copy()
        up[l], down[l] = up[l] * 1.0001, down[l] / 1.0001
        slope = (np.log(errors(down)) - np.log(errors(up))) / (2 * np.log(1.0001))
        np.testing.assert_allclose(shares[:, l], slope, rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)


def test_transfer_width_of_information_orders_narrow_and_wide_features():
    widths = []
    for spread in (0.3, 0.9):
        knots = np.linspace(-3.5, 3.5, 29)
        features = np.exp(-0.5 * ((np.log(LEVELS.sigma)[:, None] - knots) / spread) ** 2)[:, None, :]
        prior = 1e-6 * np.eye(29)
        term = co.InformationError(features, features[:, 0].T, sigma=LEVELS.sigma, prior=prior)
        widths.append(TransferKernel.from_information(term, np.full(24, 1e3)).width)
    assert widths[0] < widths[1]


class Gains(torch.nn.Module):
    """D = W(sigma) (sum_p theta_p hat_p(log sigma)) x in isotropic data: truth at theta = 1, shared parameters."""

    def __init__(self, count=4):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.ones(count, dtype=torch.float64))
        self.knots = np.linspace(np.log(0.1), np.log(10.0), count)

    def hats(self, sigma):
        rows = [np.interp(float(torch.log(sigma)), self.knots, unit) for unit in np.eye(self.knots.size)]
        return torch.as_tensor(np.array(rows))

    def forward(self, x, sigma):
        return x / (1 + sigma[:, None] ** 2) * (self.theta @ self.hats(sigma[0]))


class Small(torch.nn.Module):
    """A two-layer network of the state and the noise level."""

    def __init__(self, width=4):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = torch.nn.Linear(3, width), torch.nn.Linear(width, 2, bias=False)
        for p in self.parameters():
            p.data = 0.7 * torch.randn(p.shape, generator=generator, dtype=torch.float64)

    def forward(self, x, sigma):
        inputs = torch.cat([x / (1 + sigma[:, None]), torch.log(sigma)[:, None] / 4], dim=1)
        return self.second(torch.tanh(self.first(inputs)))


DATA = np.random.default_rng(7).standard_normal((4096, 2))
SIGMA = np.geomspace(0.15, 7.0, 5)
GRID = co.edm_grid(5, 0.1, 10.0)


def unsketched(parameters, seed):
    """Sign and place of each parameter in a sketch that is a permutation."""
    sketch = ParameterSketch(parameters, 10_000, seed=seed)
    return np.stack([torch.cat([d.flatten() for d in sketch.direction(j).values()]) for j in range(sketch.size)])


@pytest.mark.parametrize("sampler", [co.Heun(), co.DPMpp2M(), co.Ancestral(eta=0.5)], ids=repr)
def test_features_and_response_are_the_autograd_jacobians(sampler):
    net = Small()
    response = TerminalResponse(sampler, GRID, draws=3, probes=None)
    found = shared_features(net, DATA, SIGMA, response, sketch=Sketch(512, examples=10, batch=5), seed=2)
    named = {"net." + k: v.detach() for k, v in net.named_parameters()}
    turn = unsketched(named, 2)  # (P, p)
    np.testing.assert_allclose(np.abs(turn).sum(axis=0), 1.0)

    def call(*tensors):
        values = {k.removeprefix("net."): t for k, t in zip(named, tensors, strict=True)}
        return lambda x, s: torch.func.functional_call(net, values, (x, s))

    def jacobian(function):
        parts = torch.autograd.functional.jacobian(function, tuple(named.values()))
        return torch.cat([part.flatten(2) for part in parts], dim=2).flatten(0, 1).numpy()

    for level in (0, 4):
        total, rest = 0.0, []
        for batch in range(2):
            clean = torch.as_tensor(DATA[5 * batch : 5 * batch + 5])
            x = clean + SIGMA[level] * normal(2, "feature noise", level, batch, shape=(5, 2), like=F64)
            sigma = torch.full((5,), SIGMA[level], dtype=torch.float64)
            rows = jacobian(lambda *t, x=x, s=sigma: call(*t)(x, s))
            total = total + rows.T @ rows / 10
            rest.append((net(x, sigma) - clean).detach().numpy())
        phi = found.features[level] @ turn
        np.testing.assert_allclose(phi.T @ phi, total, rtol=1e-9, atol=1e-12)
        assert found.residual.value[level] == pytest.approx(np.mean(np.concatenate(rest) ** 2), rel=1e-12)
    total = 0.0
    for draw in range(3):
        x = 10.0 * normal(2, "response start", "output", draw, shape=(1, 2), like=F64)
        path = BrownianPath(2, ("response noise", "output", draw), 10.0, 0.1)
        rows = jacobian(lambda *t, x=x, path=path: run(call(*t), sampler, GRID, x, path))
        total = total + rows.T @ rows / 3
    response = turn.T @ found.response
    np.testing.assert_allclose(response @ response.T, total, rtol=1e-8, atol=1e-12)


def test_random_probes_agree_with_exact_derivatives_within_three_standard_errors():
    net, sketch = Small(), Sketch(512, examples=64)
    outputs, probes = (TerminalResponse(co.Euler(), GRID, draws=n, probes=r) for n, r in ((48, None), (4, 64)))
    exact = shared_features(net, DATA, SIGMA[:2], outputs, sketch=sketch)
    probed = shared_features(net, DATA, SIGMA[:2], probes, sketch=replace(sketch, probes=100))
    direction = np.random.default_rng(8).standard_normal((6, exact.information.shape[-1]))
    want, got = (np.einsum("ap,lpq,aq->la", direction, f.information.mean(axis=0), direction) for f in (exact, probed))
    assert np.all(np.abs(got - want) <= 3.5 * np.sqrt(2 / 400) * want)  # each probe's square is chi-squared
    want = ((direction @ exact.response) ** 2).sum(axis=1)
    squares = (direction @ probed.response) ** 2 * probed.response.shape[1]
    both = squares.std(axis=1, ddof=1) * np.sqrt(1 / 64 + 1 / 96)
    assert np.all(np.abs(squares.mean(axis=1) - want) <= 3.5 * both)
    np.testing.assert_allclose(probed.gradient_residual, exact.gradient_residual, rtol=0.35)


def test_a_sketch_keeps_inner_products_in_expectation():
    rng = np.random.default_rng(9)
    shapes = {"a": torch.zeros(30, 7), "b": torch.zeros(90), "c": torch.zeros(())}
    left, right = (rng.standard_normal(301) for _ in range(2))
    right += 0.3 * left

    def split(v):
        return [torch.as_tensor(part) for part in (v[:210].reshape(30, 7), v[210:300], v[300])]

    products = []
    for seed in range(400):
        sketch = ParameterSketch(shapes, 32, seed=seed)
        products.append(float(sketch.project(split(left)) @ sketch.project(split(right))))
    error = np.std(products, ddof=1) / 20
    assert abs(np.mean(products) - left @ right) <= 3 * error
    assert np.std(products) <= 1.2 * np.linalg.norm(left) * np.linalg.norm(right) * np.sqrt(2 / 32)
    sketch = ParameterSketch(shapes, 32)
    columns = [torch.cat([d.flatten() for d in sketch.direction(j).values()]).numpy() for j in range(32)]
    np.testing.assert_allclose(np.array(columns) @ left, sketch.project(split(left)), rtol=1e-5)


def test_shared_error_is_that_of_replicated_least_squares():
    """Train the gains by weighted least squares again and again, sample, and average the terminal error."""
    net = Gains()
    response = TerminalResponse(co.Heun(), GRID, draws=16, probes=None)
    found = shared_features(net, DATA, SIGMA, response, sketch=Sketch(16, examples=4096, batch=1024))
    exact = 1 / (1 + SIGMA**-2)  # lambda sigma^2 / v per dimension, lambda = 1
    assert np.all(np.abs(found.residual.value - exact) <= 4 * found.residual.standard_error)
    np.testing.assert_allclose(found.gradient_residual, exact, rtol=0.15)
    examples, repeats = np.array([900, 300, 1200, 400, 800]), 4000
    rng, fits = np.random.default_rng(10), np.empty((repeats, 4))
    hats = np.array([net.hats(torch.tensor(s)).numpy() for s in SIGMA])
    for repeat in range(repeats):
        curvature, right = np.zeros((4, 4)), np.zeros(4)
        for m, s, h, rest in zip(examples, SIGMA, hats, exact, strict=True):
            clean = rng.standard_normal(2 * m)
            x = (clean + s * rng.standard_normal(2 * m)) / (1 + s**2)
            curvature += (x @ x / rest) * np.outer(h, h)
            right += (x @ clean / rest) * h
        fits[repeat] = np.linalg.solve(curvature, right)

    def trained(x, sigma):  # every row has gains of its own
        return x / (1 + sigma[:, None] ** 2) * (torch.as_tensor(fits) @ net.hats(sigma[0]))[:, None]

    unit = torch.full((repeats, 1), 10.0, dtype=torch.float64)  # the sampler is linear: one start of size sigma_max
    with torch.no_grad():
        moved = (run(trained, co.Heun(), GRID, unit) - run(net, co.Heun(), GRID, unit[:1])).numpy()
    errors = 2 * moved[:, 0] ** 2
    draws = torch.cat([normal(0, "response start", "output", n, shape=(1, 2), like=F64) for n in range(16)])
    predicted = found.term().error(examples.astype(float)) / float(draws.square().mean())
    error = np.std(errors, ddof=1) / np.sqrt(repeats)
    assert error <= 0.03 * predicted
    assert abs(np.mean(errors) - predicted) <= 3 * np.hypot(error, 0.012 * predicted)  # F from 8192 squares


def test_decoupled_density_is_optimal_for_separate_parameters_and_not_for_one_shared_one():
    rng, count = np.random.default_rng(11), 4
    features = np.zeros((count, 3, 2 * count))
    response = np.zeros((count, 2 * count, 2))
    for l in range(count):
        features[l, :, 2 * l : 2 * l + 2] = rng.standard_normal((3, 2))
        response[l, 2 * l : 2 * l + 2] = rng.standard_normal((2, 2))
    price = np.array([1.0, 2.0, 1.0, 3.0])
    term = co.InformationError(features, response.sum(axis=0), sigma=np.geomspace(0.1, 10, count))
    apart = decoupling(term, level_response=response, price=price, budget=50.0)
    assert apart.ratio == pytest.approx(1.0, abs=1e-8)
    assert apart.good_enough
    assert price @ apart.examples == pytest.approx(50.0)
    # one parameter: all examples where information is cheapest; the rule spreads them as |G_l| / (A_l sqrt c)
    one, gains = np.array([1.0, 2.0, 0.5, 1.5]), np.array([1.0, 3.0, 2.0, 0.5])
    term = co.InformationError(one[:, None, None], [[gains.sum()]], sigma=np.geomspace(0.1, 10, count))
    rule = gains / one / np.sqrt(price)
    rule = rule / (price @ rule)
    exact = (one**2 / price).max() / (rule @ one**2)
    found = decoupling(term, level_response=gains[:, None, None], price=price)
    assert found.ratio == pytest.approx(exact, rel=1e-8)
    assert found.bound >= found.ratio * (1 - 1e-9)
    assert "is not good enough" in str(found)
    assert decoupling(term, examples=found.optimum, price=price).ratio == pytest.approx(1.0)
    with pytest.raises(ValueError, match="give one of level_response and examples"):
        decoupling(term)


def test_tangent_spectrum_is_that_of_the_kernel_matrix_and_ranks_are_calibrated():
    net = Small()
    response = TerminalResponse(co.Euler(), GRID, draws=2, probes=2)
    found = shared_features(net, DATA, SIGMA, response, sketch=Sketch(512, examples=64))
    spectrum = tangent_spectrum(found)
    gram = np.linalg.eigvalsh(found.features[1] @ found.features[1].T)[::-1]
    np.testing.assert_allclose(spectrum.eigenvalues[1, : gram.size], gram, rtol=1e-9, atol=1e-12 * gram[0])
    assert np.all(
        spectrum.participation.value < spectrum.entropy_rank.value + 3 * spectrum.participation.standard_error
    )
    assert "participation ratio" in repr(spectrum)
    rng, pulls = np.random.default_rng(12), []
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
    truth = values.sum() ** 2 / (values**2).sum()
    for _ in range(200):
        rows = rng.standard_normal((16, 1, 20, 5)) * np.sqrt(values / 20)
        fake = replace(found, sigma=SIGMA[:1], information=rows.transpose(0, 1, 3, 2) @ rows)
        rank = tangent_spectrum(fake).participation
        pulls.append((rank.value[0] - truth) / rank.standard_error[0])
    assert 0.90 <= np.mean(np.abs(pulls) <= 1.96) <= 0.99


def test_network_features_solve_as_a_problem_and_say_whether_decoupling_will_do():
    response = TerminalResponse(co.Heun(), GRID, probes=16)
    found = shared_features(Small(), DATA, SIGMA, response, sketch=Sketch(8, examples=64))
    term = found.term()
    plan = co.Problem(
        term, [co.Compute(co.Prices(example=3.0, evaluation=1.0, images=0), part="training") <= 1e5]
    ).solve()
    judged = decoupling(term, level_response=found.level_response, price=3.0, budget=1e5)
    assert plan.error == pytest.approx(term.error(judged.optimum), rel=1e-4)
    assert judged.ratio >= 1 - 1e-9
    width = TransferKernel.from_features(found.group_features, SIGMA).width
    assert 0 < width < 15
    assert found.term(prior_examples=10.0, residual="gradient").error(judged.optimum) < np.inf


def test_killed_features_go_on_with_the_same_result(tmp_path):
    options = {"sketch": Sketch(6, examples=16, batch=8)}
    response = TerminalResponse(co.Heun(), GRID, draws=2, probes=10)
    whole = shared_features(Small(), DATA, SIGMA, response, **options)
    net, calls = Small(), [0]
    plain = net.forward

    def dying(x, sigma):
        calls[0] += 1
        if calls[0] > 40:
            raise KeyboardInterrupt
        return plain(x, sigma)

    net.forward = dying
    with pytest.raises(KeyboardInterrupt):
        shared_features(net, DATA, SIGMA, response, folder=tmp_path, **options)
    assert len(list(tmp_path.glob("level-*"))) == 3
    again = shared_features(Small(), DATA, SIGMA, response, folder=tmp_path, **options)
    for name in ("information", "level_response", "gradient_residual", "evaluations"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_bad_input_of_features_is_named():
    response = TerminalResponse(co.Euler(), GRID, probes=2)
    with pytest.raises(ValueError, match=r"module is missing"):
        shared_features(lambda x, s: x, DATA, SIGMA, response)
    with pytest.raises(ValueError, match=r"data has 4096 examples; 5000 are asked for"):
        shared_features(Small(), DATA, SIGMA, response, sketch=Sketch(examples=5000))
    with pytest.raises(ValueError, match=r"no gradient by the module's parameters|does not depend on the module"):
        shared_features(lambda x, s: x, DATA, SIGMA, response, module=Small(), sketch=Sketch(examples=4))
    for make, message in (
        (lambda: Sketch(groups=0), r"Sketch\.groups is 0"),
        (lambda: Sketch(probes=0), r"Sketch\.probes is 0"),
        (lambda: TerminalResponse("euler", GRID), r"TerminalResponse\.sampler is 'euler'"),
        (lambda: TerminalResponse(co.Euler(), GRID[::-1]), r"TerminalResponse\.sigmas must be strictly descending"),
        (lambda: TerminalResponse(co.Euler(), GRID, draws=0), r"TerminalResponse\.draws is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    net, sketch = Small().double(), Sketch(4, examples=8)
    adapted = shared_features(lambda x, s: net(x, s), DATA, SIGMA[:2], response, module=net, sketch=sketch)
    direct = shared_features(net, DATA, SIGMA[:2], response, sketch=sketch)
    np.testing.assert_array_equal(adapted.information, direct.information)
