"""The whole spectrum at high dimension: deflated stochastic Lanczos quadrature, put together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...basics.checks import Array
from ...ingredients.spectrum import Spectrum
from .errors import energy_error, norm_bound, significant, trace_error
from .lanczos import Measures, probe_block, spectral_measures
from .passes import Passes
from .quadrature_bands import Deflated, band_edges, band_means, jackknife, null_directions, probe_masses
from .result import SpectrumEstimate
from .top_eigen import FirstPass, TopEigenpairs, first_pass, iterate

__all__ = ["lanczos_spectrum"]

_OVERSAMPLE = 8
_PRODUCTS = 5
_BANDS = 24
_ROUNDING = 1e-12


def lanczos_spectrum(
    passes: Passes, *, seed: int, bands: int | None, probes: int, steps: int, top: int,
    reorthogonalize: bool | None,
) -> SpectrumEstimate:  # fmt: skip
    """Top eigenpairs by randomised SVD, the rest by Lanczos from random probes outside their span.

    Bands: the leading directions one by one and 24 bins, or `bands` bins over everything. The error from
    the method: the spread from probe to probe (jackknife), the residuals of the top eigenpairs, and half
    the difference between a smooth and an atomic reading of the quadratures (their resolution).
    """
    dimension = passes.source.dimension
    top = min(top, dimension // 2)
    width = min(top + _OVERSAMPLE, dimension)
    begun = first_pass(passes, width=width, seed=seed)
    significant(np.full(dimension, begun.trace / dimension), examples=begun.count, mean_size=_size(begun.mean))
    found = iterate(passes, begun, keep=top, products=_PRODUCTS)
    start, power = probe_block(begun, found.vectors, probes, seed=seed)
    measures = spectral_measures(passes, begun, start, found.vectors, steps=steps, reorthogonalize=reorthogonalize)
    return _assembled(begun, found, measures, power, probes, passes.finished, bands, seed)


def _size(mean: torch.Tensor) -> float:
    return float(mean.abs().max())


def _assembled(
    begun: FirstPass, found: TopEigenpairs, measures: Measures, power: float, probes: int, passes: int,
    bands: int | None, seed: int,
) -> SpectrumEstimate:  # fmt: skip
    parts = _deflated(begun, found, measures, probes)
    apart = int(np.count_nonzero(found.values > parts.nodes.max()))
    single = apart if bands is None else 0
    edges = band_edges(parts, _BANDS if bands is None else bands, single=single)
    values, counts = band_means(parts, edges), np.diff(edges).astype(np.float64)
    values = _decreasing(np.where(values > _ROUNDING * values[0], values, 0.0))
    atomic = band_means(_deflated(begun, found, measures, probes, smooth=False), edges)
    resolution = _widest_near(np.abs(atomic - values) / 2, values, single)
    ritz = _ritz_error(found, apart, float(parts.nodes.max()), edges)
    probe_error = np.where(values > 0, np.sqrt(jackknife(parts, edges) ** 2 + resolution**2 + ritz**2), 0.0)
    sampling = _sampling_error(begun, found, parts, values, counts, edges, single)
    mean_power = _mean_power(begun, found, measures, power, values)
    source = f"Lanczos quadrature of {begun.count} examples in {parts.dimension} dimensions, {probes} probes"
    return SpectrumEstimate(
        Spectrum(values, counts, mean_power, source), np.hypot(probe_error, sampling), probe_error,
        norm_bound(begun.rows, begun.count, seed=seed), trace_error(begun.rows, begun.count), begun.count,
        "lanczos", passes,
    )  # fmt: skip


def _deflated(
    begun: FirstPass, found: TopEigenpairs, measures: Measures, probes: int, *, smooth: bool = True
) -> Deflated:
    dimension, top = begun.mean.numel(), found.values.size
    rest = begun.trace - float(found.values.sum())
    zeros = max(0, min(dimension - top, dimension - (begun.count - 1)))
    if rest <= _ROUNDING * begun.trace or zeros == dimension - top:
        values = found.values * (begun.trace / found.values.sum())
        return Deflated(values, np.zeros((probes, 1)), np.zeros((probes, 1)), dimension - top)
    zeros = max(zeros, null_directions(measures, probes, dimension - top))
    nodes, masses = probe_masses(measures, probes, dimension - top - zeros, zeros, rest, smooth=smooth)
    return Deflated(found.values, nodes, masses, zeros)


def _widest_near(error: Array, values: Array, single: int) -> Array:
    """Errors relative to the value as large as in both neighbouring bands: two readings may cross by chance."""
    relative = np.divide(error, values, out=np.zeros_like(error), where=values > 0)
    tail = np.pad(relative[single:], 1)
    return np.concatenate([relative[:single], np.max([tail[:-2], tail[1:-1], tail[2:]], axis=0)]) * values


def _ritz_error(found: TopEigenpairs, apart: int, below: float, edges: NDArray[np.intp]) -> Array:
    """(B,) errors of the eigenvalues above all others: residual^2 / gap (Kato-Temple), added within bands."""
    residual, gap = found.residual[:apart], np.maximum(found.values[:apart] - below, np.finfo(float).tiny)
    rounding = np.finfo(float).eps * found.values.size * found.values[0]
    error = np.maximum(np.minimum(residual, residual**2 / gap), rounding)
    band = np.searchsorted(edges, np.arange(apart), side="right") - 1
    total = np.bincount(band, weights=error, minlength=edges.size - 1)
    return np.asarray(total / np.diff(edges), dtype=np.float64)


def _decreasing(values: Array) -> Array:
    """Means of a descending function over consecutive bands descend; rounding is taken out."""
    return np.minimum.accumulate(values)


def _sampling_error(
    begun: FirstPass, found: TopEigenpairs, parts: Deflated, values: Array, counts: Array,
    edges: NDArray[np.intp], single: int,
) -> Array:  # fmt: skip
    """(B,) spread over other examples: measured for single directions, modelled for the rest.

    The power of an example in a band of n directions varies by 2/n (Gaussian coordinates) and by what all
    directions share, the contrast of an example: the excess variance of its power outside the single
    directions.
    """
    energies = (begun.rows @ found.vectors[:, :single]).cpu().numpy() ** 2
    rest = (begun.rows**2).sum(dim=1).cpu().numpy() - energies.sum(axis=1)
    tail, directions = values[single:], counts[single:]
    total = float(directions @ tail)
    contrast = 0.0
    if rest.size > 1 and total > 0:
        contrast = max(0.0, float(rest.var(ddof=1)) / rest.mean() ** 2 - 2.0 * float(directions @ tail**2) / total**2)
    spread = tail * np.sqrt((2.0 / directions + contrast) / begun.count)
    return np.concatenate([energy_error(energies, begun.count), spread])


def _mean_power(begun: FirstPass, found: TopEigenpairs, measures: Measures, power: float, values: Array) -> Array:
    """(B,) squared coordinates of the data mean: exact on the top directions, by its own measure elsewhere."""
    top = (found.vectors.T @ begun.mean).cpu().numpy() ** 2
    at, share = [found.values], [top]
    if power > 0:
        at.append(measures.nodes[-1])
        share.append(measures.weights[-1] * power)
    # the nearest band, in order: between two bands the geometric middle decides
    safe = np.maximum(values, _ROUNDING * values[0])
    cuts = np.sqrt(safe[1:] * safe[:-1])
    band = np.searchsorted(-cuts, -np.concatenate(at), side="right")
    return np.asarray(np.bincount(band, weights=np.concatenate(share), minlength=values.size), dtype=np.float64)
