"""Radial bandpower of images: the diagonal of the covariance in the cosine basis, averaged over frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from ...basics.checks import Array
from ...ingredients.spectrum import Spectrum
from .errors import energy_error, norm_bound, significant, trace_error
from .exact import reservoir_for
from .passes import Passes, Sums
from .result import SpectrumEstimate

__all__ = ["RadialBands", "cosine_matrix", "cosine_transform", "radial_spectrum"]


def cosine_matrix(size: int, like: torch.Tensor) -> torch.Tensor:
    """(size, size) orthonormal DCT-II: row k is cos(pi k (2n + 1) / (2 size)), scaled.

    >>> matrix = cosine_matrix(4, torch.zeros((), dtype=torch.float64))
    >>> bool(torch.allclose(matrix @ matrix.T, torch.eye(4, dtype=torch.float64)))
    True
    """
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(torch.pi * k[:, None] * (2 * k[None, :] + 1) / (2 * size)) * (2.0 / size) ** 0.5
    matrix[0] /= 2.0**0.5
    return matrix.to(like.device, like.dtype)


def cosine_transform(images: torch.Tensor) -> torch.Tensor:
    """Orthonormal two-dimensional DCT-II of (..., H, W) images."""
    rows, columns = (cosine_matrix(images.shape[axis], images) for axis in (-2, -1))
    return rows @ images @ columns.T


@dataclass(frozen=True)
class RadialBands:
    """Coefficients (u, v) of an H x W cosine transform in rings of sqrt((u/H)^2 + (v/W)^2) / 2 cycles per pixel.

    Rings are of equal width; the constant (0, 0) is a band by itself; empty rings are left out.

    >>> RadialBands(4, 4, 2).counts.tolist()
    [1, 5, 10]
    """

    height: int
    width: int
    rings: int

    @cached_property
    def radius(self) -> Array:
        """(H W,) frequency of every coefficient, cycles per pixel."""
        u, v = np.arange(self.height) / self.height, np.arange(self.width) / self.width
        return np.asarray(np.hypot(u[:, None], v[None, :]).ravel() / 2)

    @cached_property
    def index(self) -> NDArray[np.intp]:
        """(H W,) band of every coefficient, ascending in frequency."""
        span = max(float(self.radius.max()), np.finfo(float).tiny)
        ring = np.minimum((self.radius / span * self.rings).astype(np.intp), self.rings - 1) + 1
        ring[0] = 0
        return np.unique(ring, return_inverse=True)[1].astype(np.intp)

    @property
    def counts(self) -> NDArray[np.intp]:
        """(R,) coefficients of every band, per channel."""
        return np.bincount(self.index)

    @property
    def frequency(self) -> Array:
        """(R,) mean frequency of every band, cycles per pixel."""
        return np.bincount(self.index, weights=self.radius) / self.counts

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """(..., R) mean over the coefficients of every band of values (..., H W)."""
        index = torch.as_tensor(self.index, device=values.device)
        total = values.new_zeros((*values.shape[:-1], len(self.counts))).index_add_(-1, index, values)
        return total / torch.as_tensor(self.counts, device=values.device)


def radial_spectrum(passes: Passes, *, seed: int, bands: int | None, monotone: bool) -> SpectrumEstimate:
    """Radial bandpower of (N, C, H, W) images in one pass, memory O(C d).

    In every ring the C x C covariance of the channels is averaged over the coefficients and its
    eigenvalues are taken, so that the common part of the channels is told from their differences: C bands
    per ring. The diagonal of a covariance in any orthonormal basis is majorised by its eigenvalues: the
    bands are a smoothed spectrum, with the exact trace.
    """
    first = passes.source.first
    if first.ndim != 4:
        raise ValueError(
            f'method="radial" needs images (N, C, H, W), the examples have shape {tuple(first.shape[1:])}; '
            'reshape them, or use method="exact" or "lanczos".'
        )
    sums = passes.run("bandpower", bandpower_sums(first, seed=seed))
    return finish_radial(sums, first, seed=seed, bands=bands, monotone=monotone)


def bandpower_sums(first: torch.Tensor, *, seed: int) -> Sums:
    """Empty sums of the cosine coefficients and of the products of their channels."""
    shift = first.mean(dim=0)
    channels, height, width = shift.shape

    def update(sums: dict[str, torch.Tensor], examples: torch.Tensor) -> None:
        waves = cosine_transform(examples - shift)
        sums["first"] += waves.sum(dim=0)
        for c in range(channels):
            sums["second"][c, c:] += (waves[:, c : c + 1] * waves[:, c:]).sum(dim=0)

    zeros = {"first": torch.zeros_like(shift), "second": shift.new_zeros((channels, channels, height, width))}
    return Sums(zeros, update, reservoir_for(shift.numel(), seed=seed, like=shift))


def finish_radial(sums: Sums, first: torch.Tensor, *, seed: int, bands: int | None, monotone: bool) -> SpectrumEstimate:
    """Bands and errors from finished sums."""
    if sums.count < 2:
        raise ValueError(f"data: {sums.count} example; a covariance needs at least 2.")
    channels, height, width = first.shape[1:]
    rings = RadialBands(height, width, max(4, max(height, width) // 2) if bands is None else bands)
    shift, offset = first.mean(dim=0), sums["first"] / sums.count
    second = torch.triu(sums["second"].permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
    second = second + torch.triu(sums["second"].permute(2, 3, 0, 1), 1).permute(3, 2, 0, 1)
    cross = (second - sums.count * offset[:, None] * offset[None, :]) / (sums.count - 1)
    table = rings.average(cross.flatten(2)).permute(2, 0, 1).to("cpu", torch.float64)
    values, rotation = torch.linalg.eigh(table)  # (R, C) and (R, C, C)
    assert sums.reservoir is not None
    rows = sums.reservoir.rows - (shift + _inverse(offset)).flatten()
    energies = _energies(rows.reshape(-1, channels, height, width), rings, rotation)
    mean = (_energies((shift + _inverse(offset))[None], rings, rotation)[0] * rings.counts[:, None]).reshape(-1)
    power = values.clamp(min=0).numpy()
    if monotone:
        power, energies = _monotone(power, energies, rings.counts)
    return _radial_estimate(power, energies, mean, rings, rows, sums.count, seed)


def _inverse(waves: torch.Tensor) -> torch.Tensor:
    rows, columns = (cosine_matrix(waves.shape[axis], waves) for axis in (-2, -1))
    return rows.T @ waves @ columns


def _energies(images: torch.Tensor, rings: RadialBands, rotation: torch.Tensor) -> Array:
    """(N, R, C) mean squared coefficient of every band of every image, channels rotated band by band."""
    waves = cosine_transform(images).flatten(2)
    turned = torch.einsum("nck,kce->nek", waves, rotation.to(waves)[torch.as_tensor(rings.index)])
    return np.asarray(rings.average(turned**2).transpose(1, 2).cpu().numpy())


def _monotone(power: Array, energies: Array, counts: NDArray[np.intp]) -> tuple[Array, Array]:
    """Power made decreasing in frequency, and the images' energies averaged over the same rings, for its error."""
    power, energies = power.copy(), energies.copy()
    for channel in range(power.shape[1]):
        fit = isotonic_regression(power[:, channel], weights=counts, increasing=False)
        for block in (slice(low, high) for low, high in pairwise(fit.blocks)):
            weight = counts[block] / counts[block].sum()
            power[block, channel] = weight @ power[block, channel]
            energies[:, block, channel] = (energies[:, block, channel] @ weight)[:, None]
    return power, energies


def _radial_estimate(
    power: Array, energies: Array, mean: Array, rings: RadialBands, rows: torch.Tensor, count: int, seed: int
) -> SpectrumEstimate:
    channels = power.shape[1]
    values, counts = power.reshape(-1), np.repeat(rings.counts.astype(np.float64), channels)
    frequency, error = np.repeat(rings.frequency, channels), energy_error(energies.reshape(len(energies), -1), count)
    order = np.argsort(-values, kind="stable")
    values = significant(values[order], examples=count, mean_size=float(np.sqrt(mean / counts).max()))
    source = f"radial bandpower of {count} images of {channels} x {rings.height} x {rings.width}"
    spectrum = Spectrum(values, counts[order], mean[order], source)
    error = np.where(values > 0, error[order], 0.0)
    return SpectrumEstimate(
        spectrum, error, np.zeros(len(spectrum)), norm_bound(rows, count, seed=seed), trace_error(rows, count), count,
        "radial", 1, frequency[order],
    )  # fmt: skip
