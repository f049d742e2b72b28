"""Information of a network's parameters: features and responses against autograd, error against least squares."""

import os
from dataclasses import replace

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
from codesign_opt.estimate.training_errors.error_coupling import Starts, error_gram
from codesign_opt.estimate.training_errors.transfer import TransferKernel
from tests.helpers.known_errors import F64, flawed, wiener
from tests.helpers.processes import of_two


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


@pytest.mark.skipif(os.environ.get("CODESIGN_OPT_FULL") != "1", reason="two processes: one estimator of each kind does")
def test_two_processes_give_the_result_of_one(tmp_path):
    one = jobs()
    for two in of_two(jobs, tmp_path):
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-10, atol=1e-14)


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


@pytest.mark.cases(1)
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


@pytest.mark.slow
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
        small = {"gradient_residual": found.gradient_residual[:1], "level_response": found.level_response[:1, :5]}
        fake = replace(found, sigma=SIGMA[:1], information=rows.transpose(0, 1, 3, 2) @ rows, **small)
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


def test_a_layer_without_a_forward_derivative_is_told_with_the_way_round_it():
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 1.0 * x

        @staticmethod
        def backward(ctx, slope):
            return slope

    class Net(Small):
        def forward(self, x, sigma):
            return Backwards.apply(super().forward(x, sigma))

    response = TerminalResponse(co.Euler(), GRID, probes=2)
    with pytest.raises(ValueError, match=r"no forward-mode derivative.*give Sketch\.probes"):
        shared_features(Net().double(), DATA, SIGMA[:2], response, sketch=Sketch(4, examples=8))
