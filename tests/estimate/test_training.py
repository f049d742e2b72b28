"""Training noise of a linear denoiser on Gaussian data: three routes against closed forms, docs/theory.md section 5."""

import copy
import csv
import os

import numpy as np
import pytest
import scipy.linalg

import codesign_opt as co

torch = pytest.importorskip("torch")

from codesign_opt.estimate.denoisers.denoiser import DenoiserError  # noqa: E402
from codesign_opt.estimate.training_errors.gradient_noise import (  # noqa: E402
    GradientSampling,
    averaged_covariance,
    gradient_noise,
    lyapunov,
)
from codesign_opt.estimate.training_errors.pilots import SGDPilot  # noqa: E402
from codesign_opt.estimate.training_errors.replicated_runs import Replication, replicated_runs, run_seed  # noqa: E402
from tests.helpers.processes import of_two  # noqa: E402

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LAMBDA, SIGMA = np.array([1.0, 0.5]), 1.0
V = LAMBDA + SIGMA**2
RESIDUAL = LAMBDA * SIGMA**2 / V
TRUTH = {
    "full": (LAMBDA.size * RESIDUAL.sum(), RESIDUAL.sum() * V.sum() / 2),
    "diagonal": (RESIDUAL.sum(), (LAMBDA * SIGMA**2).sum() / 2),
}


class Full(torch.nn.Module):
    """D(x) = W x, all d^2 weights learned, at the optimum of its level."""

    def __init__(self, variance=LAMBDA, sigma=SIGMA):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.diag(torch.as_tensor(variance / (variance + sigma**2))))

    def forward(self, x, sigma):
        return x @ self.weight.T


class Diagonal(Full):
    """D(x) = w x, one weight for each direction."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.diagonal(self.weight.detach()).clone())

    def forward(self, x, sigma):
        return x * self.weight


def gaussian(number, seed=0, variance=LAMBDA):
    return np.random.default_rng(seed).standard_normal((number, len(variance))) * np.sqrt(variance)


@pytest.mark.slow
@pytest.mark.parametrize("model", [Full(), Diagonal()], ids=["full", "diagonal"])
def test_gradient_noise_meets_the_closed_form_with_calibrated_errors(model):
    fresh, step = TRUTH["full" if isinstance(model, Full) and model.weight.ndim == 2 else "diagonal"]
    inside, errors, repeats = np.zeros(2), [], 200 if FULL else 100
    for seed in range(repeats):
        sampling = GradientSampling(batch=32, at_once=1024)
        found = gradient_noise(model, gaussian(50_000, seed), [SIGMA], sampling=sampling, seed=seed)
        value = np.array([found.reducible[0] - fresh, found.step_noise[0] - step])
        inside += np.abs(value) < 1.96 * np.array([found.reducible_error[0], found.step_noise_error[0]])
        errors.append(value)
    errors = np.array(errors)
    print("coverage:", inside / repeats, "bias in standard errors of the mean:",
          errors.mean(0) / errors.std(0) * np.sqrt(repeats))  # fmt: skip
    assert np.all(np.abs(inside / repeats - 0.945) <= 0.045)
    assert np.all(np.abs(errors.mean(0)) < 3.5 * errors.std(0) / np.sqrt(repeats))


def test_the_loss_weight_scales_the_step_noise_alone():
    data = gaussian(2000)
    plain, weighted = (gradient_noise(Full(), data, [0.5, SIGMA], weight=w) for w in (None, lambda s: 3.0 + 0 * s))
    np.testing.assert_allclose(weighted.reducible, plain.reducible, rtol=1e-9)
    np.testing.assert_allclose(weighted.step_noise, 3 * plain.step_noise, rtol=1e-9)
    np.testing.assert_array_equal(weighted.loss, plain.loss)


def test_traces_in_parameter_space_are_the_output_errors():
    found = gradient_noise(Full(), gaussian(2000), [SIGMA], sampling=GradientSampling(batches=40))
    averaged = averaged_covariance(found.curvature[0], found.covariance[0])
    last = lyapunov(found.curvature[0], found.covariance[0])
    assert np.sum(found.curvature[0] * averaged) == pytest.approx(found.reducible[0], rel=0.02)
    assert np.sum(found.curvature[0] * last) == pytest.approx(found.step_noise[0], rel=0.02)
    assert found.effective_dimension[0] == pytest.approx(4)


def test_lyapunov_solves_its_equation():
    rng = np.random.default_rng(0)
    half, noise = rng.standard_normal((2, 5, 5))
    curvature, noise = half @ half.T, noise @ noise.T
    np.testing.assert_allclose(
        lyapunov(curvature, noise), scipy.linalg.solve_continuous_lyapunov(curvature, noise), rtol=1e-8
    )


def test_in_random_directions_kappa1_counts_the_directions_and_kappa2_all_parameters():
    """Equal variances: Sigma = S H, so that P directions leave P S, whichever they are."""
    variance = np.ones(4)
    sampling = GradientSampling(batch=200, directions=8)
    found = gradient_noise(Full(variance), gaussian(4096, 0, variance), [SIGMA], sampling=sampling)
    assert abs(found.reducible[0] - 8 * 0.5) < 3 * found.reducible_error[0]
    assert abs(found.step_noise[0] - 4 * 0.5 * 8 / 2) < 3 * found.step_noise_error[0]
    assert any("lower bound" in note for note in found.notes)


def test_a_ridge_leaves_out_directions_that_are_not_reached():
    found = gradient_noise(Full(), gaussian(4096), [SIGMA], sampling=GradientSampling(batch=200, ridge=1.75))
    curvature = np.tile(V, 2)
    noise = np.repeat(RESIDUAL, 2) * curvature
    expected = np.sum(curvature * noise / (curvature + 1.75) ** 2)
    assert abs(found.reducible[0] - expected) < 3 * found.reducible_error[0]
    assert found.effective_dimension[0] == pytest.approx(np.sum(curvature / (curvature + 1.75)), rel=0.05)


class Unvectorisable(Full):
    def forward(self, x, sigma):
        assert float(x.detach().abs().sum()) >= 0  # reads a value
        return super().forward(x, sigma)


def test_without_vmap_or_module_gradients_are_the_same():
    data, options = gaussian(500), {"sampling": GradientSampling(batch=10, batches=5)}
    expected = gradient_noise(Full(), data, [SIGMA], **options)
    slow = gradient_noise(Unvectorisable(), data, [SIGMA], **options)
    model = Full()
    closure = gradient_noise(lambda x, sigma: model(x, sigma), data, [SIGMA], module=model, **options)
    for found in (slow, closure):
        np.testing.assert_allclose(found.reducible, expected.reducible, rtol=1e-9)
        np.testing.assert_allclose(found.step_noise, expected.step_noise, rtol=1e-9)
    assert any("one example at a time" in note for note in slow.notes)
    assert any("not a module" in note for note in closure.notes)


def test_random_output_probes_agree_with_all_outputs():
    found = gradient_noise(Full(), gaussian(4096), [SIGMA], sampling=GradientSampling(batch=200, probes=2))
    assert abs(found.reducible[0] - TRUTH["full"][0]) < 3 * found.reducible_error[0]


@pytest.mark.slow
def test_finished_levels_are_taken_from_the_folder_and_another_question_is_refused(tmp_path):
    data = gaussian(500)
    whole = gradient_noise(Full(), data, [0.5, SIGMA])
    gradient_noise(Full(), data, [0.5], folder=tmp_path)
    broken = Full()
    broken.forward = lambda x, sigma: x * (np.nan if float(sigma[0]) == 0.5 else 1.0) @ broken.weight.T
    with pytest.raises(DenoiserError, match=r"sigma = 0\.5"):
        gradient_noise(broken, data, [0.5])
    resumed = gradient_noise(broken, data, [0.5, SIGMA], folder=tmp_path)  # 0.5 is not asked for again
    np.testing.assert_array_equal(resumed.reducible, whole.reducible)
    weighted = gradient_noise(Full(), data, [0.5], weight=3.0, folder=tmp_path)
    assert weighted.step_noise[0] == pytest.approx(3 * whole.step_noise[0])
    with pytest.raises(ValueError, match="results for seed = 0, not 1"):
        gradient_noise(Full(), data, [0.5], seed=1, folder=tmp_path)
    with pytest.raises(ValueError, match="results for weights = "):
        gradient_noise(Full(sigma=2.0), data, [0.5], folder=tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_noise(Full(), gaussian(50), [-1.0]), "sigma is -1"),
        (lambda: gradient_noise(Full(), gaussian(50), [1.0], sampling=GradientSampling(batches=1)), "batches is 1"),
        (lambda: Replication(inputs=1), r"Replication\.inputs is 1"),
        (lambda: GradientSampling(ridge=-1.0), r"GradientSampling\.ridge is -1"),
        (lambda: GradientSampling(probes=0), r"GradientSampling\.probes is 0"),
        (lambda: gradient_noise(lambda x, s: x, gaussian(50), [1.0]), "give module="),
        (lambda: gradient_noise(Full().requires_grad_(False), gaussian(50), [1.0]), "no parameter requires"),
        (lambda: gradient_noise(Full(), gaussian(50), [1.0], weight=-1.0), "weight is -1"),
        (lambda: gradient_noise(Full(), gaussian(50) * np.inf, [1.0]), "not finite"),
        (lambda: replicated_runs(lambda s: Full(), gaussian(50), [1.0], replication=Replication(2)), "runs is 2"),
        (lambda: replicated_runs(lambda s: Full(), gaussian(50), [1.0, 0.5]), "strictly ascending"),
        (lambda: SGDPilot(Full(), gaussian(50), co.LogNormal(), 0, 8, 0.1), "iterations is 0"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        call()


# replicated runs


def least_squares(examples, variance=LAMBDA, sigma=SIGMA):
    def train(seed):
        rng = np.random.default_rng(seed)
        clean = rng.standard_normal((examples, len(variance))) * np.sqrt(variance)
        noisy = clean + sigma * rng.standard_normal(clean.shape)
        weight = torch.as_tensor(np.linalg.lstsq(noisy, clean, rcond=None)[0])
        return lambda x, s: x @ weight

    return train


def test_replicated_runs_meet_the_law_of_least_squares_with_calibrated_errors():
    """m - p - 1 in place of m is exact for least squares on Gaussian data."""
    examples, inside, repeats = 60, 0, 200 if FULL else 100
    for seed in range(repeats):
        found = replicated_runs(
            least_squares(examples), gaussian(256, seed), [SIGMA], replication=Replication(32, 256), seed=seed
        )
        fresh = found.reducible(examples - 3)
        inside += abs(fresh.value[0] - TRUTH["full"][0]) < 1.96 * fresh.standard_error[0]
    print("coverage:", inside / repeats)
    assert 0.90 <= inside / repeats <= 0.99
    covariance = found.covariance[0]  # of the output: RESIDUAL_i / (m - p - 1) sum_j x_j^2 / v_j
    np.testing.assert_allclose(np.diag(covariance) / RESIDUAL * 57 / 2, 1.0, atol=0.6)
    assert np.trace(covariance) == pytest.approx(found.variance[0])


def test_the_correlation_length_across_levels_is_the_integral_of_the_correlation():
    """Runs whose errors are a Gaussian process in log sigma, correlation exp(-|u| / 0.5), two-sided integral 1."""
    sigma = np.geomspace(0.01, 10.0, 41)
    logs = np.log(sigma)
    root = np.linalg.cholesky(np.exp(-np.abs(logs[:, None] - logs) / 0.5) + 1e-12 * np.eye(41))

    def train(seed):
        path = root @ np.random.default_rng(seed).standard_normal((41, 8))

        def denoiser(x, s):
            return x * 0 + torch.as_tensor(path[int(np.argmin(np.abs(sigma - float(s[0]))))])

        return denoiser

    found = replicated_runs(train, np.zeros((4, 8)), sigma, replication=Replication(60, inputs=4))
    middle = slice(10, 31)
    steps = np.diff(logs)[0]
    exact = steps / np.tanh(steps)  # the trapezoidal sum of exp(-2 |u|) at this spacing
    error = (found.log_width - exact)[middle] / found.log_width_error[middle]
    assert np.max(np.abs(error)) < 4
    assert abs(np.mean(found.log_width[middle]) - exact) < 3 * np.mean(found.log_width_error[middle])
    assert np.max(np.abs(found.variance - 8) / found.variance_error) < 4


def test_bias_is_told_apart_from_variance():
    def train(seed):
        shift = 0.5 + 0.3 * torch.as_tensor(np.random.default_rng(seed).standard_normal(4))
        return lambda x, sigma: x + shift

    many = Replication(runs=200, inputs=16)
    found = replicated_runs(train, np.zeros((16, 4)), [0.5, 1.0], replication=many, reference=lambda x, s: x)
    assert abs(found.variance[0] - 4 * 0.09) < 3 * found.variance_error[0]
    assert found.bias[0] == pytest.approx(4 * 0.25, abs=3 * 2 * 0.5 * 0.3 * 2 / np.sqrt(200))


def test_stopped_replicates_go_on_and_runs_can_be_added(tmp_path):
    data, calls, six = gaussian(64), [], Replication(runs=6)

    def train(seed):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(seed)
        return least_squares(40)(seed)

    with pytest.raises(KeyboardInterrupt):
        replicated_runs(train, data, [SIGMA], replication=six, folder=tmp_path)
    later, told = [], []
    found = replicated_runs(
        lambda s: later.append(s) or least_squares(40)(s), data, [SIGMA], replication=six, folder=tmp_path,
        progress=lambda *three: told.append(three),
    )  # fmt: skip
    assert later == [run_seed(0, r) for r in (3, 4, 5)]
    assert told[-1] == (6, 6, "runs trained")
    with pytest.raises(ValueError, match="results for seed = 0, not 1"):
        replicated_runs(least_squares(40), data, [SIGMA], seed=1, folder=tmp_path)
    whole = replicated_runs(least_squares(40), data, [SIGMA], replication=six)
    np.testing.assert_array_equal(found.variance, whole.variance)


# the three routes together


class Curve:
    """Losses along simulated runs, all runs averaged into one row for each window."""

    def __init__(self, name, steps, rate, batch, averaged):
        self.ends = np.unique((steps * 2.0 ** (-np.arange(20)[::-1] / 2)).astype(int))
        self.rows, self.sums, self.start = [], np.zeros(2), 0
        self.fixed = (rate, batch, averaged, name)

    def add(self, step, loss):
        self.sums += loss.sum(), (loss**2).sum()
        if step in self.ends:
            count = loss.shape[1] * (step - self.start)
            mean, square = self.sums / (count * loss.shape[0])
            first, last = loss.shape[1] * self.start, loss.shape[1] * step
            self.rows.append((first, last, SIGMA, count, mean, (square - mean**2) / loss.shape[0], *self.fixed))
            self.sums, self.start = np.zeros(2), step


def noised(rng, runs, batch):
    clean = rng.standard_normal((runs, batch, 2)) * np.sqrt(LAMBDA)
    return clean, clean + SIGMA * rng.standard_normal(clean.shape)


def losses_of(weights, clean, noisy):
    return np.sum((noisy @ weights.transpose(0, 2, 1) - clean) ** 2, axis=2)


def simulate_least_squares(runs, steps, batch=8):
    """Weights of least squares on all examples so far, the law of averaged SGD, and the loss of the next batch."""
    rng, curve = np.random.default_rng(1), Curve("averaged", steps, 0.05, batch, 1)
    second, cross = np.tile(np.eye(2) * 1e-3, (runs, 1, 1)), np.zeros((runs, 2, 2))
    weights = np.zeros((runs, 2, 2))
    for step in range(1, steps + 1):
        clean, noisy = noised(rng, runs, batch)
        curve.add(step, losses_of(weights, clean, noisy))
        second += noisy.transpose(0, 2, 1) @ noisy
        cross += noisy.transpose(0, 2, 1) @ clean
        weights = np.linalg.solve(second, cross).transpose(0, 2, 1)
    return weights, curve.rows


def simulate_constant_step(runs, steps, rate, batch=1):
    """Last iterates of SGD from the optimum, and their losses."""
    rng, curve = np.random.default_rng(2), Curve("last", steps, rate, batch, 0)
    weights = np.tile(np.diag(LAMBDA / V), (runs, 1, 1))
    for step in range(1, steps + 1):
        clean, noisy = noised(rng, runs, batch)
        curve.add(step, losses_of(weights, clean, noisy))
        residual = noisy @ weights.transpose(0, 2, 1) - clean
        weights = weights - rate / batch * residual.transpose(0, 2, 1) @ noisy
    return weights, curve.rows


def test_three_routes_agree_on_the_linear_denoiser(tmp_path):
    runs, steps, rate = 400, 200, 0.01
    mean, averaged = simulate_least_squares(runs, steps)
    last, stationary = simulate_constant_step(runs, 3000, rate)

    with (path := tmp_path / "log.csv").open("w", newline="") as file:
        out = csv.writer(file)
        columns = ["start", "end", "sigma", "examples", "loss", "variance", "learning_rate", "batch", "averaged", "run"]
        out.writerow(columns)
        out.writerows([*averaged, *stationary])
    reading = co.LogReading(burn_in=0.05)
    curves = co.learning_curves(path, levels=[0.9, 1.1], log_width=None, transfer=0.0, reading=reading)

    def stacked(weights):
        order = {run_seed(0, i): torch.as_tensor(w) for i, w in enumerate(weights)}
        return lambda seed: lambda x, sigma: x @ order[seed].T

    data = gaussian(4096, 3)
    options = {"replication": Replication(runs, inputs=2048)}
    fresh = replicated_runs(stacked(mean), data, [SIGMA], **options).reducible(steps * 8 - 3)
    step = replicated_runs(stacked(last), data, [SIGMA], **options).step_noise(rate, 1)
    gradients = gradient_noise(Full(), data, [SIGMA], sampling=GradientSampling(batch=200))

    kappa1 = {
        "curves": (curves.reducible[0], curves.reducible_error[0]),
        "replicates": (fresh.value[0], fresh.standard_error[0]),
        "gradients": (gradients.reducible[0], gradients.reducible_error[0]),
    }
    kappa2 = {
        "curves": (curves.step_noise[0], curves.step_noise_error[0]),
        "replicates": (step.value[0], step.standard_error[0]),
        "gradients": (gradients.step_noise[0], gradients.step_noise_error[0]),
    }
    for name, found, truth in (("kappa1", kappa1, TRUTH["full"][0]), ("kappa2", kappa2, TRUTH["full"][1])):
        print(name, f"truth {truth:.3f}", {k: f"{v:.3f} +- {e:.3f}" for k, (v, e) in found.items()})
        for value, error in found.values():
            assert abs(value - truth) < 3 * error
        for a in found.values():
            for b in found.values():
                assert abs(a[0] - b[0]) <= 3 * np.hypot(a[1], b[1])
    assert curves.bayes_floor[0] == pytest.approx(RESIDUAL.sum(), abs=3 * curves.bayes_floor_error[0])


def test_pilots_of_a_given_module_write_logs_and_repeat_with_their_seed(tmp_path):
    path = tmp_path / "log.csv"
    levels = co.Levels.log_uniform(0.2, 5.0, 3)
    options = {"iterations": 150, "batch": 16, "learning_rate": 0.02, "statistics": (levels, path)}
    start = copy.deepcopy(Diagonal())
    pilot = SGDPilot(start, gaussian(500), co.LogNormal(0.0, 0.7), average=0.5, **options)
    first, again, other = pilot(1), pilot(1), pilot(2)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(start.weight, Diagonal().weight)
    assert pilot.examples == 75 * 16
    log = co.TrainingRun(None, 150, 16, log=path).read_log()
    assert log["examples"].sum() == 2 * 150 * 16
    assert set(log["run"]) == {1.0, 2.0}
    assert co.learning_curves(path, levels=levels).sigma.size == 3


def test_averaged_pilots_meet_the_closed_form():
    pilot = SGDPilot(Diagonal(), gaussian(4096), [SIGMA], iterations=200, batch=8, learning_rate=0.2, average=0.9)
    runs = Replication(12 if FULL else 8, inputs=512)
    found = replicated_runs(pilot, gaussian(512, 5), [SIGMA], replication=runs)
    fresh = found.reducible(pilot.examples)
    # a finite step adds (2 - tau h) / (2 - (1 + 2 / beta) tau h), about 5 %
    assert abs(fresh.value[0] - 1.05 * TRUTH["diagonal"][0]) < 3 * fresh.standard_error[0]


def shared_work():
    found = gradient_noise(Full(), gaussian(500), [0.5, 1.0], sampling=GradientSampling(batches=7))
    runs = replicated_runs(least_squares(40), gaussian(64), [0.5, 1.0], replication=Replication(5))
    return found.reducible, found.reducible_error, runs.gram


@pytest.mark.skipif(not FULL, reason="two processes: one estimator of each kind does")
def test_two_processes_give_the_result_of_one(tmp_path):
    alone = shared_work()
    for together in of_two(shared_work, tmp_path):
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-14)
