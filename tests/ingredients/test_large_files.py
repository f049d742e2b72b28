"""Data larger than memory: a spectrum of two gigabytes in a process that may have one."""

import os
import subprocess
import sys

import numpy as np
import pytest

from codesign_opt.ingredients import sample_covariance
from codesign_opt.ingredients.spectrum import Spectrum

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
COUNT, DIMENSION = 2_100_000, 256  # 2.15 GB of float32
CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9))
import numpy as np, codesign_opt as co
found = co.Spectrum.from_samples(np.load(sys.argv[1], mmap_mode="r"))
np.save(sys.argv[2], np.sort(found.eigenvalues)[::-1])
"""


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1; writes 2 GB")
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds what a process owns under Linux")
def test_the_spectrum_of_two_gigabytes_takes_less_than_one_of_memory(tmp_path):
    deviations, rng = np.geomspace(10.0, 0.1, DIMENSION).astype(np.float32), np.random.default_rng(0)
    path, answer = tmp_path / "data.npy", tmp_path / "eigenvalues.npy"
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(COUNT, DIMENSION))
    for start in range(0, COUNT, 50_000):
        part = rows[start : start + 50_000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) * deviations
    rows.flush()
    assert rows.nbytes > 2e9
    subprocess.run([sys.executable, "-c", CODE, path, answer], check=True)
    # eigenvalues of sample covariances lie 1 + sqrt(d / N) squared from those of the law at most, and sampling errors
    edge = (1 + np.sqrt(DIMENSION / COUNT)) ** 2 - 1 + 4 * np.sqrt(2 / COUNT)
    np.testing.assert_allclose(np.load(answer), deviations.astype(np.float64) ** 2, rtol=edge)


@pytest.mark.parametrize("shape", [(40, 7), (9, 30)])
def test_blocks_of_samples_change_nothing(monkeypatch, shape):
    monkeypatch.setattr(sample_covariance, "_BLOCK", 16)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, shape[0])
    labels[:3] = [0, 1, 2]
    samples = rng.normal(size=shape) + labels[:, None]
    found = Spectrum.from_samples(samples.astype(np.float32), labels)
    within = np.vstack([samples[labels == k] - samples[labels == k].mean(axis=0) for k in range(3)])
    values = np.sort(np.linalg.eigvalsh(within.T @ within / (shape[0] - 3)))[::-1]
    known = min(shape[1], shape[0] - 3)
    np.testing.assert_allclose(found.eigenvalues[:known], values[:known], rtol=1e-5)
    with pytest.raises(ValueError, match="nan in sample 8, entry 4"):
        Spectrum.from_samples(
            np.where(np.arange(shape[0])[:, None] * 100 + np.arange(shape[1]) == 804, np.nan, samples)
        )
