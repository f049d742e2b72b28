"""Spectra measured on data against known covariances: exact sums, Lanczos quadrature, radial bands."""

import os

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from codesign_opt import Spectrum
from codesign_opt.estimate.draws.streams import Stream
from codesign_opt.estimate.spectra.measure import spectrum
from codesign_opt.estimate.spectra.methods import Lanczos, Radial
from codesign_opt.estimate.spectra.top_eigen import top_eigenpairs
from tests.helpers.gaussian_data import LANCZOS, gaussian, sample_eigenvalues

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def band_truth(values, estimate):
    """Means of descending values over the bands of an estimate."""
    ends = np.append(0, np.cumsum(estimate.spectrum.counts)).astype(int)
    return np.add.reduceat(values, ends[:-1]) / estimate.spectrum.counts


def images(power, count, seed, mean=0.0):
    """Gaussian fields (N, C, H, W) whose cosine coefficients have variance `power` (C, H, W)."""
    noise = np.random.default_rng(seed).standard_normal((count, *power.shape))
    return torch.as_tensor(idctn(noise * np.sqrt(power), axes=(2, 3), norm="ortho") + mean)


def radial_power(size):
    """(size, size) power falling with frequency, and frequency in cycles per pixel."""
    u = np.arange(size) / size / 2
    radius = np.hypot(u[:, None], u[None, :])
    return 1.0 / (0.05 + radius) ** 2, radius


# ------------------------------------------------------------------------------------------ exact


def test_exact_is_the_spectrum_of_the_sample_covariance_with_its_mean_power():
    rows = gaussian(np.arange(1, 31) ** -1.0, 500, 0, mean=3.0)
    ours, theirs = spectrum(rows, stream=Stream(batch=37)).spectrum, Spectrum.from_samples(rows.numpy())
    assert np.allclose(ours.eigenvalues, theirs.eigenvalues, rtol=1e-11, atol=0)
    assert np.allclose(ours.mean_power, theirs.mean_power, rtol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_float64_sums_hold_small_eigenvalues_beside_a_large_mean(offset):
    rows = gaussian(np.geomspace(1.0, 1e-6, 12), 4000, 1) + offset
    assert np.allclose(
        spectrum(rows, stream=Stream(batch=100)).spectrum.eigenvalues, sample_eigenvalues(rows), rtol=1e-6
    )


def test_fewer_examples_than_dimensions_leave_a_band_of_zeros():
    found = spectrum(gaussian(np.ones(40), 12, 2)).spectrum
    assert (found.eigenvalues[-1], found.counts[-1], len(found)) == (0.0, 29.0, 12)


def test_every_form_of_data_gives_the_same_spectrum():
    rows = gaussian(np.arange(1, 9) ** -1.0, 90, 3)
    parts = list(rows.split(32))
    dataset = TensorDataset(rows, torch.zeros(90))
    forms = [rows, rows.numpy(), dataset, DataLoader(dataset, batch_size=32), parts, lambda: iter(parts), iter(parts)]
    forms += [[{"image": part, "label": 0} for part in parts]]
    for form in forms:
        found = spectrum(form, stream=Stream(batch=32))
        assert found.count == 90
        assert np.array_equal(found.spectrum.eigenvalues, spectrum(rows, stream=Stream(batch=32)).spectrum.eigenvalues)


def test_integer_images_count_as_numbers():
    pixels = np.random.default_rng(4).integers(0, 256, (300, 2, 3), dtype=np.uint8)
    assert np.allclose(spectrum(pixels).spectrum.eigenvalues, sample_eigenvalues(pixels.reshape(300, 6)))


def test_features_give_the_spectrum_of_their_values():
    rows = gaussian(np.ones(6), 400, 5).float()
    layer = torch.nn.Linear(6, 3)
    with torch.no_grad():
        expected = sample_eigenvalues(layer(rows))
    assert np.allclose(spectrum(rows, features=layer).spectrum.eigenvalues, expected, rtol=1e-5)


def test_intervals_of_exact_eigenvalues_cover_the_true_ones():
    truth = np.array([4.0, 2.0, 1.0, 0.5, 0.2])
    scores, inside = [], []
    for seed in range(200):
        found = spectrum(gaussian(truth, 3000, 100 + seed), seed=seed)
        scores.append((found.spectrum.eigenvalues - truth) / found.standard_error)
        low, high = found.conservative()
        inside.append(np.all((low <= truth) & (truth <= high)))
    assert 0.90 <= np.mean(np.abs(scores) <= 1.96) <= 0.99
    assert np.abs(np.mean(scores, axis=0)).max() < 3 / np.sqrt(200) + 0.1  # 0.1: eigenvalues repel by O(1/N)
    assert np.mean(inside) >= 0.95


@pytest.mark.parametrize("degrees", [pytest.param(None, marks=pytest.mark.slow), 6])
def test_error_bound_holds_the_norm_of_the_covariance_error(degrees):
    truth, draw, inside, ratio = np.arange(1, 31) ** -0.7, np.random.default_rng(6), [], []
    for seed in range(60):
        noise = draw.standard_normal((300, 30)) if degrees is None else draw.standard_t(degrees, (300, 30)) * 0.816
        rows = noise * np.sqrt(truth)
        norm = np.linalg.norm(np.cov(rows.T) - np.diag(truth), 2)
        bound = spectrum(rows, seed=seed).error_bound
        inside.append(norm <= bound)
        ratio.append(bound / norm)
    assert np.mean(inside) >= 0.9
    assert np.mean(ratio) < 2.0


# ---------------------------------------------------------------------------------------- Lanczos


class NoMatrix(TorchDispatchMode):
    """Refuses tensors of `limit` entries or more, and records the largest."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.largest = limit, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
                assert value.numel() < self.limit, f"{func} made {tuple(value.shape)}"
        return result


@pytest.mark.slow
def test_quadrature_at_512_dimensions_is_within_2_percent_and_makes_no_matrix():
    truth = np.arange(1, 513) ** -1.5
    rows = gaussian(truth, 5000, 7, mean=0.2)
    parts = [part.float() for part in rows.split(250)]
    with NoMatrix(512 * 512) as guard:
        found = spectrum(parts, method="lanczos")
    directions, share = found.cumulative()
    cumulative = np.interp(np.arange(513), directions, share)
    for values, limit in ((sample_eigenvalues(torch.cat(parts)), 0.003), (truth, 0.02)):
        exact = np.append(0.0, np.cumsum(values)) / values.sum()
        assert np.abs(cumulative - exact).max() < limit
    assert guard.largest <= 256 * 512
    assert found.spectrum.dimension == 512
    assert found.trace == pytest.approx(sample_eigenvalues(torch.cat(parts)).sum(), rel=1e-10)
    mean = torch.cat(parts).double().mean(dim=0)
    assert found.spectrum.mean_power.sum() == pytest.approx(float(mean @ mean), rel=1e-8)


@pytest.mark.slow
def test_intervals_of_quadrature_bands_cover_the_sample_spectrum():
    rows = gaussian(np.arange(1, 51) ** -1.0, 200, 8)
    truth, scores = sample_eigenvalues(rows), []
    for seed in range(200 if FULL else 80):
        found = spectrum(rows, method=Lanczos(top=4, steps=12, probes=8), seed=seed, bands=6)
        scores.append((found.spectrum.eigenvalues - band_truth(truth, found)) / found.probe_error)
    scores = np.array(scores)
    assert 0.90 <= np.mean(np.abs(scores[:, 2:]) <= 1.96) <= 0.99


def test_quadrature_bands_are_within_3_standard_errors_of_the_true_spectrum():
    truth = np.arange(1, 41) ** -1.0
    found = spectrum(gaussian(truth, 40_000, 9), bands=8, method=LANCZOS)
    scores = (found.spectrum.eigenvalues - band_truth(truth, found)) / found.standard_error
    assert np.abs(scores).max() < 3.0


def test_quadrature_tells_equal_eigenvalues_from_a_continuum():
    truth = np.concatenate([[9.0, 5.0, 4.0], np.full(60, 1.0), np.full(100, 0.1)])
    rows = gaussian(truth, 200, 10)
    left, _, right = np.linalg.svd((rows - rows.mean(dim=0)).numpy(), full_matrices=False)
    exact = torch.as_tensor(left * np.sqrt(truth * 199) @ right)  # this very sample covariance
    found = spectrum(exact, method=Lanczos(top=2, probes=4)).spectrum
    middle = found.counts[np.abs(found.eigenvalues - 1.0) < 1e-6].sum()
    low = found.counts[np.abs(found.eigenvalues - 0.1) < 1e-6].sum()
    assert abs(middle - 60) <= 6
    assert abs(low - 100) <= 6


def test_directions_without_variance_are_counted_by_quadrature():
    rows = gaussian(np.arange(1, 41) ** -1.0, 300, 11, rotate=False)
    embedded = torch.zeros(300, 120, dtype=torch.float64)
    embedded[:, ::3] = rows
    found = spectrum(embedded, method=Lanczos(top=10)).spectrum
    assert found.eigenvalues[-1] == 0.0
    assert abs(found.counts[-1] - 80) <= 6
    few = spectrum(embedded[:30], method=Lanczos(top=10)).spectrum
    assert (few.eigenvalues[-1], few.counts[-1]) == (0.0, 91.0)
    assert few.trace == pytest.approx(float(embedded[:30].var(dim=0).sum()), rel=1e-10)


def test_without_reorthogonalisation_the_measure_stays():
    rows = gaussian(np.arange(1, 101) ** -2.0, 500, 12)
    kept, lean = (
        spectrum(rows, method=Lanczos(top=4, steps=60, reorthogonalize=choice), bands=6) for choice in (True, False)
    )
    exact = np.append(0.0, np.cumsum(sample_eigenvalues(rows)))
    for found in (kept, lean):
        directions, share = found.cumulative()
        assert np.allclose(share, exact[directions.astype(int)] / exact[-1], atol=5e-3)


def test_a_smooth_and_an_atomic_reading_say_how_well_the_tail_is_resolved():
    truth = np.arange(1, 601) ** -1.5
    left, _ = np.linalg.qr(np.random.default_rng(24).standard_normal((800, 601)) - 0.0)
    left = left - left.mean(axis=0)  # nearly orthonormal: the sample covariance is computed below
    rows = torch.as_tensor(left[:, :600] * np.sqrt(truth * 799))
    found = spectrum(rows, method=Lanczos(top=16, steps=16))
    scores = (found.spectrum.eigenvalues - band_truth(sample_eigenvalues(rows), found)) / found.probe_error
    assert np.mean(np.abs(scores) <= 3) >= 0.9
    assert np.abs(scores).max() < 6


def test_top_eigenpairs_lie_within_their_residuals():
    rows = gaussian(np.arange(1, 201) ** -1.0, 2000, 13)
    found = top_eigenpairs(rows, 10, passes=5)
    truth = sample_eigenvalues(rows)
    assert np.all(np.abs(truth[None, :] - found.values[:, None]).min(axis=1) <= found.residual + 1e-12)
    assert np.abs(found.values[:5] / truth[:5] - 1).max() < 1e-4
    assert torch.allclose(found.vectors.T @ found.vectors, torch.eye(10, dtype=torch.float64), atol=1e-12)


# ----------------------------------------------------------------------------------------- radial


@pytest.mark.slow
def test_radial_bands_of_a_field_of_known_power_are_covered():
    power, radius = radial_power(6)
    scores = []
    for seed in range(seeds := 200 if FULL else 100):
        found = spectrum(images(power[None], 400, 200 + seed), method="radial", bands=4, seed=seed)
        truth = [power.ravel()[0]] + [
            power[(radius > 0) & (ring == np.minimum((radius / radius.max() * 4).astype(int), 3))].mean()
            for ring in range(4)
        ]
        scores.append((found.spectrum.eigenvalues - truth) / found.standard_error)
    assert 0.90 <= np.mean(np.abs(scores) <= 1.96) <= 0.99
    assert np.abs(np.mean(scores, axis=0)).max() < 4 / np.sqrt(seeds)


def test_radial_bands_tell_the_common_part_of_the_channels_from_their_differences():
    power, _ = radial_power(6)
    common, difference = images(np.stack([3 * power, 0.1 * power]), 3000, 14).unbind(dim=1)
    fields = torch.stack([common + difference, common - difference], dim=1) / 2**0.5 + torch.tensor([0.7])
    found = spectrum(fields, method="radial", bands=3, stream=Stream(batch=64))
    apart = [spectrum(x[:, None], method="radial", bands=3).spectrum.eigenvalues for x in (common, difference)]
    assert np.allclose(found.spectrum.eigenvalues / np.sort(np.concatenate(apart))[::-1], 1.0, atol=0.002)
    assert found.spectrum.dimension == 72
    assert found.trace == pytest.approx(float(fields.var(dim=0).sum()), rel=1e-10)
    mean = fields.mean(dim=0)
    assert found.spectrum.mean_power.sum() == pytest.approx(float((mean**2).sum()), rel=1e-10)
    assert np.all((found.frequency >= 0) & (found.frequency <= 0.5 * 2**0.5))


def test_monotone_bands_descend_in_frequency_and_keep_the_trace():
    power = np.ones((1, 10, 10))
    fields = images(power, 60, 15)
    free, held = (spectrum(fields, method=Radial(monotone=choice), bands=8) for choice in (False, True))
    by_frequency = held.spectrum.eigenvalues[np.argsort(held.frequency)]
    assert np.all(np.diff(by_frequency) <= 1e-12)
    assert np.any(np.diff(free.spectrum.eigenvalues[np.argsort(free.frequency)]) > 0)
    assert held.trace == pytest.approx(free.trace, rel=1e-12)


def test_pooled_violators_are_the_least_squares_decreasing_fit():
    cvxpy = pytest.importorskip("cvxpy")
    fields = images(np.ones((1, 10, 10)), 60, 16)
    free, held = (spectrum(fields, method=Radial(monotone=choice), bands=12) for choice in (False, True))
    order = np.argsort(free.frequency)
    values, weights = free.spectrum.eigenvalues[order], free.spectrum.counts[order]
    fit = cvxpy.Variable(values.size)
    objective = cvxpy.Minimize(weights @ cvxpy.square(fit - values))
    cvxpy.Problem(objective, [cvxpy.diff(fit) <= 0]).solve(solver="CLARABEL")
    assert np.any(np.diff(values) > 0)  # there is something to pool
    assert np.allclose(held.spectrum.eigenvalues[np.argsort(held.frequency)], fit.value, atol=1e-5)
