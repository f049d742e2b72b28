"""Gaussian rows with known eigenvalues, and the options with which Lanczos measures their spectra."""

import numpy as np
import torch

from codesign_opt.estimate.spectra.methods import Lanczos

LANCZOS = Lanczos(top=8, steps=16, probes=8)


def gaussian(eigenvalues, count, seed, mean=0.0, rotate=True):
    """(N, d) Gaussian rows with these eigenvalues in a random basis."""
    draw = np.random.default_rng(seed)
    size = len(eigenvalues)
    basis = np.linalg.qr(draw.standard_normal((size, size)))[0] if rotate else np.eye(size)
    return torch.as_tensor((draw.standard_normal((count, size)) * np.sqrt(eigenvalues)) @ basis.T + mean)


def sample_eigenvalues(rows):
    return np.linalg.eigvalsh(np.cov(np.asarray(rows, dtype=float), rowvar=False))[::-1]
