"""Wrong kinds and sizes where users hand things in: tensors, counts, devices, functions, names; refused by name."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.jobs import each_of
from codesign_opt.basics.progress import teller
from tests.hostile.arguments import Unprintable
from tests.hostile.attempt import limited
from tests.hostile.instances import compared, plan, reported, validated
from tests.hostile.plausible import GRID

LEVELS, NODES = [0.1, 1.0, 10.0], [0.0, 0.5, 1.0]
SPARSE, META = torch.ones(3).to_sparse(), torch.ones(3, device="meta")


def two(a, b):
    raise AssertionError("never called")


def stats():
    return co.LevelStatistics(LEVELS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: teller(two), "neither .done, total, text. nor the text alone"),
        (lambda: teller(np.ones(3)), "progress is array"),
        (lambda: co.peers.weighting("edm").denoiser(SPARSE), "sigma is not a rectangular"),
        (lambda: co.peers.weighting("edm").denoiser(META), "sigma is not a rectangular"),
        (lambda: stats().record(META, META), "record: loss is .*dense tensor"),
        (lambda: stats().record(np.ones(3), np.ones((0, 4))), "3 noise levels but 0 losses"),
        (lambda: co.peers.smooth_path(np.ones((3, 3)), NODES, 2, weight=1e308), "leaves float64, rescale"),
        (lambda: co.peers.smooth_path(np.ones((3, 3)), [0.0, 1e200, 2e200], 2, weight=0.0), "leaves float64, rescale"),
        (lambda: co.validate(plan(), learner=np.ones(3)), "learner is array"),
        (lambda: stats().record(np.ones(3), SPARSE), "record: loss is .*dense tensor"),
        (lambda: stats().record(torch.ones(3) > 0, torch.ones(3)), "record: sigma is .*real numbers"),
        (lambda: stats().record_flow([0.5], torch.ones(3, dtype=torch.complex64)), "record_flow: loss"),
        (lambda: co.LevelStatistics(LEVELS, averaged=torch.ones(2)), "LevelStatistics.averaged is"),
        (lambda: co.LevelStatistics(LEVELS, run=Unprintable()), "LevelStatistics.run is a Unprintable"),
        (lambda: co.SGD(co.LearningRate(0.01), 1e308, 10), r"SGD.batch is 1e\+308; whole numbers up to"),
        (lambda: co.Local(1e-300), "Local.log_width is 1e-300; it must lie between"),
        (lambda: co.Measured([0.1, 1.0], [1.0, 1.0], log_width=[1e-320, 1.0]), "Measured.log_width is 9.99989e-321"),
        (lambda: co.Measured([0.1, 1.0], [1.0, 1e200]), r"Measured.parameters is 1e\+200"),
        (lambda: co.Heun().local_error([1.0], [1e200], 0.1), r"sigma is 1e\+200"),
        (lambda: co.Heun().local_error([1e-118], [1e-59], 1e-59), "local_error: .* no float holds"),
        (lambda: co.GaussianModel(co.Spectrum.power_law(4, 1.5)).distance([1e200, 1.0, 0.0]), r"sigmas reach 1e\+200"),
        (lambda: co.Floor(1e-3, two), "Floor.quantity is"),
        (lambda: co.StabilityCap(co.Heun), "StabilityCap.table is"),
        (lambda: co.peers.target_coefficients("edm", [0.0], [0.0]), "both 0"),
        (
            lambda: co.peers.coordinate_search(lambda a, b: a * np.nan, NODES),
            "cost.left, right. returned NaN",
        ),
        (lambda: co.peers.coordinate_search(lambda a, b: a[:0], NODES), "returned shape"),
        (lambda: co.peers.beam_path(float, [0.0, 1.0, 2.0], 2, weight=1.0), "in beam_path: cost"),
        (lambda: validated().ratio("mine"), "Validation.ratio: cause is 'mine'"),
        (lambda: co.validate(plan(), replicas=10**9), r"validate.replicas is 1,000,000,000; it must be <= 100,000"),
        (lambda: compared().geometric_mean_ratio({1}), "Comparison: peer is {1}"),
        (lambda: reported().report(3), "Replanner.report: against is 3"),
        (lambda: co.training.SigmaSampler(co.LogNormal())(4, device="nowhere"), "SigmaSampler: device is 'nowhere'"),
        (
            lambda: co.export(co.estimate.PASSteps(GRID, np.ones((5, 4))), "comfyui"),
            "no other program takes",
        ),
        (lambda: co.peers.equal_increments([1.0, 2.0, 3.0], [3.0, 1.0, 2.0], 3), "length falls from 3 to 1 at index 0"),
        (lambda: co.peers.gaussian_length(np.inf, 1.0), "sigma is inf"),
        (lambda: co.peers.recoverability("eps", [1.0], variance=np.ones((2, 3))), "a covariance is square"),
        (lambda: co.Wasserstein().weights("flat"), "weights: spectrum is 'flat'"),
    ],
)
def test_refused_by_name(call, message):
    with limited(10.0), pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tensors_of_any_precision_count_as_their_numbers(dtype):
    sigma = torch.tensor([0.5, 1.0, 2.0], dtype=dtype, requires_grad=True)
    law = co.Measured([0.1, 1.0, 10.0], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(law.weight_variance([1.0], sigma)[0], law.weight_variance([1.0], [0.5, 1.0, 2.0])[0])
    weight = co.peers.weighting("edm")
    np.testing.assert_allclose(weight.denoiser(sigma).double().detach(), weight.denoiser([0.5, 1.0, 2.0]), rtol=1e-2)
    one, other = stats(), stats()
    one.record(sigma, np.ones(3)), other.record([0.5, 1.0, 2.0], np.ones(3))
    one.record_flow(np.array([0.5, 0.5]), sigma[:2]), other.record_flow([0.5, 0.5], [0.5, 1.0])
    assert one.rows() == other.rows()


def test_targets_at_pure_noise_and_none_are_their_limits():
    """F = (x0 - c_skip x) / c_out: at alpha = 0 the state is noise, and x0 / sigma_data is left to predict."""
    for alpha, noise in ((0.0, 1.0), (1.0, 0.0), (1e-9, 1.0)):
        found = co.peers.target_coefficients("edm", [alpha], [noise], sigma_data=0.5)
        total = np.hypot(noise, 0.5 * alpha)
        assert [float(part[0]) for part in found] == pytest.approx([noise / (0.5 * total), -0.5 * alpha / total])


def test_steps_of_loud_samplers_are_counted_in_no_time():
    with limited(5.0):
        found = co.EulerMaruyama(eta=1e30).minimum_steps([1.0], 80.0, 0.002)
    assert found.grid == found.density == pytest.approx(0.5 * 1e60 * np.log(6401.0 / 1.000004), rel=1e-9)
    slow = co.EulerMaruyama(eta=100.0).minimum_steps([1.0], 80.0, 0.002)  # counted one by one
    assert slow.grid == pytest.approx(slow.density, rel=1e-3)


@pytest.mark.parametrize("sigmas", [[0.5], [0.5, 0.5000001]])
def test_a_log_of_one_noise_level_counts_all_its_examples(tmp_path, sigmas):
    """Losses L + kappa ln(b / a) / (b - a) of windows from a to b examples are recovered as they were made."""
    floor, kappa, rows = 0.1, 40.0, ["run,start,end,examples,sigma,loss"]
    for i in range(100):  # the first is burn-in, whatever its loss
        a, b = 640 * i, 640 * (i + 1)
        loss = 1.0 if i == 0 else floor + kappa * float(np.log(b / a)) / (b - a)
        rows.append(f"a,{a},{b},{b - a},{sigmas[i % len(sigmas)]},{loss}")
    (tmp_path / "log.csv").write_text("\n".join(rows))
    for width in (2.7, 1.0, None):
        found = co.learning_curves(tmp_path / "log.csv", log_width=width)
        assert found.reducible[found.reducible > 0] == pytest.approx([kappa], rel=1e-6)
        assert found.sigma[found.reducible > 0] == pytest.approx([0.5])


def test_work_of_workers_that_is_left_early_ends_in_silence():
    """As where a function of progress raises: joblib advises to ask for less."""
    found = each_of(time.sleep, [(0.02,)] * 8, n_jobs=2, backend="threading")
    next(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.close()


@pytest.mark.parametrize("count", [3.0, np.array(3.0), np.float32(3.0)])
def test_whole_numbers_of_any_kind_are_counts(count):
    u, slopes, nodes = [0.0, 1.0, 2.0, 3.0, 4.0], [4.0, 2.0, 1.0, 1.0, 0.5], np.arange(5.0)
    cost = (nodes - nodes[:, None]) ** 2
    for given in (
        lambda n: co.peers.shortest_path_of_lines(u, slopes, n),
        lambda n: co.peers.shortest_path(cost, n),
        lambda n: co.peers.smooth_path(cost, nodes, n, weight=1.0),
        lambda n: co.peers.beam_path(lambda i, j: (j - i) ** 2.0, nodes, n, weight=1.0),
    ):
        assert given(count).tolist() == given(3).tolist()
