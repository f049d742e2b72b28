"""Spectra at full size: 3,072 dimensions and 50,000 examples by Lanczos quadrature; 60,000 x 784 in one pass."""

import time

import numpy as np
import pytest
import torch

from codesign_opt.estimate.spectra.measure import spectrum

DIMENSION, EXAMPLES = 3072, 50_000


def power_law_data():
    """float32 Gaussian rows with eigenvalues i^-1.5, turned by ten random reflections."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.arange(1, DIMENSION + 1, dtype=torch.float64) ** -1.5
    rows = torch.randn(EXAMPLES, DIMENSION, generator=draw)
    rows *= truth.sqrt().float()
    for _ in range(10):
        normal = torch.randn(DIMENSION, generator=draw)
        normal /= normal.norm()
        for part in rows.split(4096):
            part -= 2 * torch.outer(part @ normal, normal)
    return rows, truth.numpy()


def test_quadrature_of_3072_dimensions_is_within_2_percent_without_a_matrix(monkeypatch):
    largest = [0]
    make = torch.Tensor.__matmul__

    def watched(left, right):
        result = make(left, right)
        largest[0] = max(largest[0], result.numel())
        return result

    rows, truth = power_law_data()
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", watched)
        begun = time.perf_counter()
        found = spectrum(rows, method="lanczos")
        seconds = time.perf_counter() - begun
    directions, share = found.cumulative()
    cumulative = np.interp(np.arange(DIMENSION + 1), directions, share)
    sample = torch.linalg.eigvalsh(torch.cov(rows.double().T)).flip(0).numpy()
    errors = {}
    for name, values in (("sample", sample), ("truth", truth)):
        errors[name] = float(np.abs(cumulative - np.append(0.0, np.cumsum(values)) / values.sum()).max())
    print(f"\n{found}\ncumulative spectrum off by {errors}, {seconds:.0f} s, largest product {largest[0]:,} numbers")
    assert errors["sample"] < 0.005
    assert errors["truth"] < 0.02
    assert largest[0] < DIMENSION**2 / 8
    assert found.spectrum.dimension == DIMENSION


@pytest.mark.parametrize("method", ["exact", "radial"])
def test_sixty_thousand_images_stream_in_seconds(method):
    images = torch.rand(60_000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    begun = time.process_time()
    found = spectrum(images, method=method)
    seconds = time.process_time() - begun
    print(f"\n{method}: {seconds:.2f} s of processor time, {found}")
    assert seconds < 10
