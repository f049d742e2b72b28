"""One pass over the examples: mean and covariance in float64, and their exact spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ...basics.checks import Array
from ...ingredients.spectrum import Spectrum
from ..draws.reservoir import Reservoir
from .errors import energy_error, norm_bound, significant, trace_error
from .passes import Passes, Sums
from .result import SpectrumEstimate

__all__ = ["Covariance", "covariance_sums", "exact_spectrum", "solve_covariance"]

_BLOCKS = 6  # the symmetric product is formed in blocks of columns on and above the diagonal
_RESERVOIR = 1024
_RESERVOIR_NUMBERS = 1 << 22


@dataclass(frozen=True, eq=False)
class Covariance:
    """Unbiased covariance sum (x - mean)(x - mean)^T / (N - 1), docs/theory.md section 1.

    Attributes: matrix (d, d), mean (d,), count N, rows (M, d) centred examples, a uniform sample.
    """

    matrix: torch.Tensor
    mean: torch.Tensor
    count: int
    rows: torch.Tensor


def reservoir_for(dimension: int, *, seed: int, like: torch.Tensor, most: int = _RESERVOIR) -> Reservoir:
    """A reservoir of at most `most` examples, fewer where they are large, never under 32."""
    return Reservoir(max(32, min(most, _RESERVOIR_NUMBERS // dimension)), dimension, seed=seed, like=like)


def covariance_sums(first: torch.Tensor, *, seed: int) -> Sums:
    """Empty sums of a covariance; `first` is a batch whose mean is subtracted, for stability."""
    shift = first.flatten(1).mean(dim=0)
    size = shift.numel()
    edges = sorted({round(i * size / _BLOCKS) for i in range(_BLOCKS + 1)})

    def update(sums: dict[str, torch.Tensor], examples: torch.Tensor) -> None:
        rows = examples.flatten(1) - shift
        sums["first"] += rows.sum(dim=0)
        for low, high in pairwise(edges):
            sums["second"][low:high, low:] += rows[:, low:high].T @ rows[:, low:]

    zeros = {"first": torch.zeros_like(shift), "second": shift.new_zeros((size, size))}
    return Sums(zeros, update, reservoir_for(size, seed=seed, like=shift))


def solve_covariance(sums: Sums, first: torch.Tensor) -> Covariance:
    """The covariance from finished sums."""
    shift = first.flatten(1).mean(dim=0)
    offset = sums["first"] / sums.count
    upper = torch.triu(sums["second"])
    matrix = upper + torch.triu(upper, 1).T
    matrix.addr_(offset, offset, alpha=-float(sums.count))
    assert sums.reservoir is not None
    mean = shift + offset
    return Covariance(matrix / (sums.count - 1), mean, sums.count, sums.reservoir.rows - mean)


def exact_spectrum(passes: Passes, *, seed: int, bands: int | None) -> SpectrumEstimate:
    """Every eigenvalue of the covariance of one pass, or these merged into bands."""
    first = passes.source.first
    sums = passes.run("covariance", covariance_sums(first, seed=seed))
    return finish_exact(sums, first, seed=seed, bands=bands)


def finish_exact(sums: Sums, first: torch.Tensor, *, seed: int, bands: int | None) -> SpectrumEstimate:
    """Eigenvalues, bands and errors from finished sums."""
    if sums.count < 2:
        raise ValueError(f"data: {sums.count} example; a covariance needs at least 2.")
    found = solve_covariance(sums, first)
    values, vectors = _eigh(found.matrix)
    mean = found.mean.cpu().numpy()
    values = significant(values, examples=found.count, mean_size=float(np.abs(mean).max()))
    power = (vectors.T.cpu().numpy() @ mean) ** 2
    spectrum = _merged(values, power, bands, f"covariance of {found.count} examples in {values.size} dimensions")
    energies = (found.rows @ vectors.to(found.rows.device)).cpu().numpy() ** 2
    starts = np.append(0, np.cumsum(spectrum.counts)[:-1]).astype(np.intp)
    energies = np.add.reduceat(energies, starts, axis=1) / spectrum.counts
    error = np.where(spectrum.eigenvalues > 0, energy_error(energies, found.count), 0.0)
    return SpectrumEstimate(
        spectrum, error, np.zeros(len(spectrum)), norm_bound(found.rows, found.count, seed=seed),
        trace_error(found.rows, found.count), found.count, "exact", 1,
    )  # fmt: skip


def _eigh(matrix: torch.Tensor) -> tuple[Array, torch.Tensor]:
    """Descending eigenvalues and (d, d) eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix.to("cpu") if matrix.device.type == "mps" else matrix)
    return values.flip(0).to("cpu", torch.float64).numpy(), vectors.flip(1)


def _merged(values: Array, power: Array, bands: int | None, source: str) -> Spectrum:
    """Positive eigenvalues one by one or in bands, the zeros as one last band."""
    keep = int(np.count_nonzero(values))
    counts, shown = np.ones(keep), values[:keep]
    if keep < values.size:
        shown, counts = np.append(shown, 0.0), np.append(counts, float(values.size - keep))
        power = np.append(power[:keep], power[keep:].sum())
    spectrum = Spectrum(shown, counts, power, source)
    return spectrum if bands is None else spectrum.in_bands(bands)
