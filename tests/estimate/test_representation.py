"""Representation analysis: gradient parts, phase space, tangent kernel, bound and features against closed forms."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

torch = pytest.importorskip("torch")

import codesign_opt as co  # noqa: E402
from codesign_opt import peers  # noqa: E402
from codesign_opt.estimate.features.degradation import (  # noqa: E402
    TrainingPath,
    contraction_bound,
    linear_degradation,
    steady_bound,
)
from codesign_opt.estimate.features.derivatives import TerminalResponse  # noqa: E402
from codesign_opt.estimate.features.ntk import entropy_rank, tangent_spectrum  # noqa: E402
from codesign_opt.estimate.features.parameter_sketch import Sketch  # noqa: E402
from codesign_opt.estimate.features.representation import (  # noqa: E402
    feature_collapse,
    gradient_decomposition,
    phase_space,
)
from codesign_opt.estimate.features.shared_features import shared_features  # noqa: E402
from codesign_opt.estimate.features.tangent_gram import tangent_gram  # noqa: E402
from codesign_opt.testbed import MLP, LinearDenoiser, clusters4  # noqa: E402

SIGMA = np.array([0.2, 1.0, 5.0])
EIGENVALUES = np.array([2.0, 0.5, 0.1])


class Linear(torch.nn.Module):
    """D(x, sigma) = W x, all entries of W trained."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights, dtype=torch.float64))

    def forward(self, x, sigma):
        return x @ self.weights.T


def gaussian(count, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(count, 3)) * np.sqrt(EIGENVALUES))


def small_network(seed=0):
    torch.manual_seed(seed)
    model = MLP(2, sigma_data=2.0, width=8, layers=2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_signal_and_noise_gradients_sum_to_the_gradient_of_the_loss():
    model, mixture, count = small_network(), clusters4(), 20
    clean = mixture.sample(count, dtype=torch.float64)
    found = gradient_decomposition(model, mixture, clean, SIGMA, examples=count)
    from codesign_opt.estimate.draws.streams import normal

    for index, level in enumerate(SIGMA):
        x = clean + level * normal(0, "decomposition", index, shape=(count, 2), like=clean)
        squares, excess = [], []
        for i in range(count):
            model.zero_grad()
            out = model(x[i : i + 1], torch.tensor([level]))
            (0.5 * (out - clean[i]).square().sum()).backward()
            squares.append(sum(float(p.grad.square().sum()) for p in model.parameters()))
            excess.append(float((out.detach() - mixture(x[i : i + 1], torch.tensor(level))).square().sum()))
        assert found.whole.value[index] == pytest.approx(np.mean(squares), rel=1e-10)
        assert found.excess.value[index] == pytest.approx(np.mean(excess), rel=1e-10)
    parts = found.signal.value + found.noise.value + 2 * found.cross.value
    assert np.allclose(parts, found.whole.value, rtol=1e-12)


def test_gradient_parts_of_a_linear_model_have_their_closed_form():
    """J^T u = u x^T: the parts' squares are |W - W*|^2-weighted moments of Gaussians, and their product vanishes."""
    weights = np.diag([0.3, 0.9, -0.2])
    data = gaussian(20_000)
    found = gradient_decomposition(Linear(weights), LinearDenoiser(EIGENVALUES), data, SIGMA, examples=20_000)
    v = EIGENVALUES + SIGMA[:, None] ** 2
    error = (np.diag(weights) - EIGENVALUES / v) ** 2
    # E |E x|^2 |x|^2 for independent coordinates: sum_i e_i (v_i sum v + 2 v_i^2)
    signal = (error * (v * v.sum(axis=1, keepdims=True) + 2 * v**2)).sum(axis=1)
    noise = (EIGENVALUES * SIGMA[:, None] ** 2 / v).sum(axis=1) * v.sum(axis=1)
    assert np.all(np.abs(found.signal.value - signal) < 4 * found.signal.standard_error)
    assert np.all(np.abs(found.noise.value - noise) < 4 * found.noise.standard_error)
    assert np.all(np.abs(found.cross.value) < 4 * found.cross.standard_error)
    assert np.allclose(found.contamination, noise / (signal + noise), atol=0.02)


def test_at_the_bayes_denoiser_the_gradient_is_all_noise():
    gain = EIGENVALUES / (EIGENVALUES + 1.0)
    found = gradient_decomposition(Linear(np.diag(gain)), LinearDenoiser(EIGENVALUES), gaussian(50), [1.0], examples=50)
    assert found.contamination[0] == pytest.approx(1.0, abs=1e-12)


def test_phase_space_of_a_gaussian_has_its_closed_form():
    found = phase_space(LinearDenoiser(EIGENVALUES), gaussian(20_000, 1), SIGMA, examples=20_000)
    v = EIGENVALUES + SIGMA[:, None] ** 2
    mmse = peers.gaussian_mmse(co.Spectrum.from_eigenvalues(EIGENVALUES), SIGMA)
    for target in ("eps", "x0", "v", "flow"):
        floor = peers.bayes_floor(target, SIGMA, mmse)
        assert np.all(np.abs(found.noise[target].value - floor) < 4 * found.noise[target].standard_error)
    # E|E[y|x]|^2: of eps sum sigma^2 / v, of x0 sum lambda^2 / v
    for target, signal in (("eps", (SIGMA[:, None] ** 2 / v).sum(1)), ("x0", (EIGENVALUES**2 / v).sum(1))):
        assert np.all(np.abs(found.signal[target].value - signal) < 4 * found.signal[target].standard_error)
    assert np.all(np.diff(found.contamination("x0")) > 0)
    assert np.all(np.diff(found.contamination("eps")) < 0)


def test_tangent_gram_of_a_linear_model_is_the_gram_of_its_inputs():
    """J = x^T for every output: the kernel's spectrum is the inputs' second moment, effective rank in closed form."""
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 3)))[0] * np.sqrt(12)
    clean = torch.tensor(basis * np.sqrt(EIGENVALUES))  # second moment diag(lambda) exactly
    found = tangent_gram(Linear(np.eye(3)), clean, [1e-9, 0.7], examples=12)
    assert found.exact
    assert np.allclose(found.eigenvalues()[0][:3], EIGENVALUES, rtol=1e-6)
    assert np.allclose(found.eigenvalues()[0][3:], 0, atol=1e-9)
    share = EIGENVALUES / EIGENVALUES.sum()
    assert found.effective_rank[0] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)
    from codesign_opt.estimate.draws.streams import normal

    x = (clean + 0.7 * normal(0, "gram noise", shape=(12, 3), like=clean)).numpy()
    assert np.allclose(found.gram[1, :, 1], x @ x.T, rtol=1e-9)
    assert np.allclose(found.gram[0, :, 1], clean.numpy() @ x.T, atol=1e-7)
    assert np.allclose(np.einsum("ljlj->lj", found.correlation), 1)
    # noise prediction's network has 1 / sigma^2 times the kernel; the rank stays
    assert np.allclose(found.eigenvalues("eps")[1], found.eigenvalues()[1] / 0.49, rtol=1e-9)


def test_tangent_gram_agrees_with_finite_differences_of_the_network():
    model, mixture = small_network(1), clusters4()
    clean = mixture.sample(4, dtype=torch.float64)
    found = tangent_gram(model, clean, [0.3, 2.0], examples=4)
    from codesign_opt.estimate.draws.streams import normal

    z = normal(0, "gram noise", shape=(4, 2), like=clean)
    rows = []
    for level in (0.3, 2.0):
        x, at = clean + level * z, torch.full((4,), level, dtype=torch.float64)
        jacobian = []
        with torch.no_grad():
            for parameter in model.parameters():
                flat = parameter.view(-1)
                for i in range(flat.numel()):
                    before = float(flat[i])
                    flat[i] = before + 1e-5
                    up = model(x, at)
                    flat[i] = before - 1e-5
                    jacobian.append((up - model(x, at)) / 2e-5)
                    flat[i] = before
        rows.append(torch.stack(jacobian).numpy())  # (P, N, d)
    jacobian = np.concatenate(rows, axis=1)
    truth = np.einsum("pnd,pmd->nm", jacobian, jacobian) / 2
    assert np.allclose(found.gram.reshape(8, 8), truth, rtol=1e-6, atol=1e-8)


def test_probes_and_directions_keep_the_gram_matrix_on_average():
    rng = np.random.default_rng(4)
    clean = torch.tensor(rng.normal(size=(6, 3)))
    model = Linear(np.eye(3))
    whole = tangent_gram(model, clean, [0.5], examples=6).gram[0, :, 0]
    draws = np.stack([
        tangent_gram(model, clean, [0.5], examples=6, probes=1, directions=5, seed=seed).gram[0, :, 0]
        - tangent_gram(model, clean, [0.5], examples=6, seed=seed).gram[0, :, 0]
        for seed in range(100)
    ])  # fmt: skip
    error = draws.std(axis=0, ddof=1) / np.sqrt(100)
    assert np.all(np.abs(draws.mean(axis=0)) < 4.5 * error)
    assert whole.shape == (6, 6)


def test_effective_rank_agrees_between_the_kernels_two_sides():
    """Nonzero eigenvalues of J^T J over parameters and of J J^T over examples and outputs are the same."""
    clean = gaussian(24, 5)
    model = Linear(np.eye(3))
    grams = tangent_gram(model, clean, [1e-6], examples=24).eigenvalues()[0]
    response = TerminalResponse(co.Euler(), [1.0, 0.1, 0.0], draws=1, probes=1)
    sketch = Sketch(9, examples=24, batch=6, groups=4)
    features = shared_features(model, clean, [1e-6, 1.0], response, sketch=sketch)
    spectrum = tangent_spectrum(features)
    assert np.allclose(spectrum.eigenvalues[0], np.repeat(grams[:3], 3), rtol=1e-4)
    rank = entropy_rank(features.information.mean(axis=0)[0].diagonal())
    assert rank > 0
    assert entropy_rank(spectrum.eigenvalues[0]) == pytest.approx(3 * entropy_rank(grams), rel=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize("seed", range(4))
def test_the_bound_holds_on_the_linear_model_at_every_level_and_time(seed):
    for eigenvalues, batch, beta in (([2.0, 0.5], 48, None), ([2.0, 0.5], 48, 0.02), (EIGENVALUES, 6, 0.5)):
        path = TrainingPath(300, duration=0.1, batch=batch)
        found = linear_degradation(eigenvalues, SIGMA, path=path, beta=beta, seed=seed)
        assert np.all(found.excess <= found.bound * (1 + 1e-12))
        assert set(found.level) == {0, 1, 2}
        assert np.all(found.excess[-1] < found.excess[0])


def test_single_examples_have_no_contraction_rate_in_more_than_one_dimension():
    one = linear_degradation([2.0], SIGMA, path=TrainingPath(50, batch=1), seed=1)
    assert np.all(one.rate > 0)
    assert np.all(one.excess <= one.bound)
    several = linear_degradation(EIGENVALUES, SIGMA, path=TrainingPath(50, batch=1), beta=0.1, seed=1)
    assert np.all(several.rate < 1e-12)


def test_the_linear_models_path_solves_its_gradient_flow():
    lam, sigma, level = np.array([1.5, 0.3]), np.array([0.4, 2.0]), 1
    path = TrainingPath(1, duration=0.8, batch=4, share=[0.0, 1.0])
    found = linear_degradation(lam, sigma, weight=[1.0, 3.0], path=path, beta=1.0, seed=3)
    rng = np.random.default_rng(3)
    rng.choice(2, size=1, p=[0.0, 1.0])
    gain = lam / (lam + sigma[:, None] ** 2)
    clean = rng.normal(size=(4, 2)) * np.sqrt(lam)
    x = clean + sigma[level] * rng.normal(size=(4, 2))

    def flow(_, flat):
        weights = flat.reshape(2, 2)
        rest = x * gain[level] @ weights.T - clean
        return (-3.0 * rest.T @ (x * gain[level]) / 4).ravel()

    end = solve_ivp(flow, (0, 0.8), np.zeros(4), rtol=1e-11, atol=1e-13).y[:, -1].reshape(2, 2)
    for index, m in enumerate((1.0, 3.0)):
        # the excess M E|W C x - C x|^2 / 2 over the population
        moment = np.diag(lam + sigma[index] ** 2)
        off = (end - np.eye(2)) * gain[index]
        assert found.excess[-1, index] == pytest.approx(0.5 * m * np.trace(off @ moment @ off.T), rel=1e-8)


def test_the_bound_is_tight_without_forcing_and_its_pieces_solve_the_inequality():
    first, second = contraction_bound([2.0], [[3.0], [1.0]], [[0.0], [0.0]], [0.5, 1.0], beta=1e-12)
    assert (first + second)[-1, 0] == pytest.approx(2 * np.exp(-2.5), rel=1e-9)
    rates, forces, beta, m = [[2.0], [0.4], [1.0]], [[3.0], [1.0], [0.5]], 0.4, 1.7
    first, second = contraction_bound([0.7], rates, forces, [0.6, 0.5, 0.9], weight=m, beta=beta)
    value = 0.7
    for (mu,), (force,), length in zip(rates, forces, (0.6, 0.5, 0.9), strict=True):
        solved = solve_ivp(
            lambda _, y, mu=mu, force=force: -(mu - beta) * y + m / (2 * beta) * force, (0, length), [value],
            rtol=1e-11, atol=1e-13,
        )  # fmt: skip
        value = solved.y[0, -1]
    assert (first + second)[-1, 0] == pytest.approx(value, rel=1e-9)


def test_the_steady_bound_is_the_limit_at_the_best_beta():
    limit = min(
        float(sum(contraction_bound([1.0], [[2.0]], [[0.3]], [60.0], weight=1.5, beta=beta))[-1, 0])
        for beta in np.linspace(0.2, 1.8, 81)
    )
    assert steady_bound(2.0, 0.3, weight=1.5) == pytest.approx(limit, rel=1e-6)


def test_features_are_projected_on_the_axes_of_the_lowest_level():
    class Net(torch.nn.Module):
        """Features 4 A x / (1 + sigma): they shrink by a known factor."""

        def __init__(self):
            super().__init__()
            self.inward = torch.nn.Linear(2, 5, bias=False)
            self.outward = torch.nn.Linear(5, 2)

        def forward(self, x, sigma):
            return self.outward(self.inward(x) / (1 + sigma[:, None]))

    torch.manual_seed(3)
    net, mixture = Net(), clusters4()
    clean = mixture.sample(400)
    labels = (clean[:, 0] > 0).int() * 2 + (clean[:, 1] > 0).int()
    found = feature_collapse(net, net.outward, clean, [1e-6, 3.0], labels=labels, examples=400)
    a = net.inward.weight.detach().numpy()
    from codesign_opt.estimate.draws.streams import normal

    noisy = (clean + 3.0 * normal(0, "features", shape=(400, 2), like=clean)).numpy()
    expected = np.trace(a @ np.cov(noisy.T, bias=True) @ a.T) / 16
    assert found.spread[0] == 1
    assert found.spread[1] == pytest.approx(expected / np.trace(a @ np.cov(clean.numpy().T, bias=True) @ a.T), rel=1e-4)
    assert np.allclose(found.captured, 1)  # two inputs: both axes hold everything
    assert found.separation[0] > 0.95
    assert found.separation[1] < 0.5
    gram = found.projections[0] @ found.projections[0].T
    centred = (clean - clean.mean(0)).numpy() @ a.T
    assert np.allclose(gram, centred @ centred.T, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("unarranged")
def test_the_study_writes_its_table_and_figures(tmp_path):
    from problems.studies.representation import RepresentationReport, mixture_world

    told = []
    world = mixture_world(told.append, iterations=5, width=8)
    bound = linear_degradation([2.0, 0.5], [0.2, 1.0, 3.0], path=TrainingPath(pieces=30))
    paths = RepresentationReport(world, None, bound).save(tmp_path)
    assert [path.name for path in paths] == ["representation.csv", "representation_mixture.png",
                                             "representation_kernel.png"]  # fmt: skip
    rows = [line.split(",") for line in paths[0].read_text().replace('", "', "").splitlines()]
    assert rows[0] == ["world", "quantity", "of", "sigma", "value", "standard_error"]
    floor = {float(row[3]): float(row[4]) for row in rows if row[1:3] == ["irreducible target", "x0"]}
    assert len(floor) == 13
    for sigma, value in floor.items():
        if sigma < 0.2:  # clusters far apart: the risk of one Gaussian, 2 * .09 sigma^2 / (.09 + sigma^2)
            assert value == pytest.approx(0.18 * sigma**2 / (0.09 + sigma**2), rel=0.05)
    assert all(path.stat().st_size > 1000 for path in paths)
    assert told[0] == "mixture: eps, plain"


def test_bad_input_is_refused_by_name():
    model, data = Linear(np.eye(3)), gaussian(5)
    exact = LinearDenoiser(EIGENVALUES)
    for call, words in (
        (lambda: gradient_decomposition(model, exact, data, [1.0], examples=9), "data has 5 examples; 9"),
        (lambda: gradient_decomposition(model, exact, data, [2.0, 1.0], examples=5), "ascending"),
        (lambda: phase_space(exact, data, [1.0], targets=["z"], examples=5), "phase_space.targets"),
        (lambda: tangent_gram(model, data, [1.0], examples=1), "must be >= 2"),
        (lambda: feature_collapse(model, torch.nn.Linear(3, 3), data, [1.0], examples=5), "not called"),
        (lambda: contraction_bound([1.0], [[1.0]], [[1.0]], [1.0], beta=0.0), "beta is 0"),
        (lambda: TrainingPath(duration=0.0), r"TrainingPath\.duration is 0"),
        (lambda: linear_degradation([1.0], [1.0], path=TrainingPath(share=[0.5, 0.5])), r"TrainingPath\.share has 2"),
        (lambda: linear_degradation([1.0, 1.0], [1.0], path=TrainingPath(batch=1)), r"raise TrainingPath\.batch"),
        (lambda: steady_bound(0.0, 1.0), "steady_bound.rate"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
