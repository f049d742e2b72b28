"""Eigenvalues of a sample covariance, block by block: the work of Spectrum.from_samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..basics.checks import Array
from .gathered import gathered_samples
from .sampling_error import group_deviations

__all__ = ["class_codes", "covariance_bands", "sample_rows"]

# Eigenvalues below this fraction of the largest are rounding, not data.
_NUMERICAL_ZERO = 1e-12
# Float64 working memory of one block: 2^23 numbers, 64 MiB.
_BLOCK = 1 << 23


def sample_rows(samples: ArrayLike) -> NDArray[Any]:
    """Check and flatten the samples to (N, d) in their own dtype: float64 copies are made block by block.

    What is no array is gathered first: a Dataset example by example, a DataLoader or an iterator batch by batch.
    """
    name = "Spectrum.samples"
    samples = gathered_samples(samples, name)
    if np.ma.is_masked(samples):
        raise ValueError(
            f"{name} is a masked array with masked entries; a covariance needs them all: fill or drop them."
        )
    try:
        raw = np.asarray(samples)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a rectangular array of numbers.") from None
    if raw.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {raw.dtype}; real numbers are needed.")
    if raw.ndim < 2 or raw.size == 0:
        raise ValueError(f"{name} has shape {raw.shape}; (N, ...) with N >= 2 and d >= 1 is needed.")
    if raw.shape[0] < 2:
        raise ValueError(f"{name} has {raw.shape[0]} sample; a covariance needs at least 2.")
    rows = raw.reshape(raw.shape[0], -1)
    largest = 0.0
    for part in _blocks(*rows.shape):
        finite = np.isfinite(rows[part])
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            value, row = rows[part][row, column], part.start + row
            raise ValueError(f"{name} is {value:g} in sample {row}, entry {column}; it must be finite.")
        largest = max(largest, float(rows[part].max()), -float(rows[part].min()))
    if largest > 1e100:
        raise ValueError(f"{name} reaches {largest:g}; its square leaves float64, rescale the data.")
    return rows


def class_codes(labels: ArrayLike | None, samples: int) -> tuple[NDArray[np.intp], int]:
    """Class index of every sample and the number of classes; no labels are one class."""
    if labels is None:
        return np.zeros(samples, dtype=np.intp), 1
    name = "Spectrum.labels"
    try:
        raw = np.asarray(labels[: samples + 1] if isinstance(labels, range) else labels)  # a long one is no memory
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is not a list of labels.") from None
    if raw.shape != (samples,):
        raise ValueError(
            f"{name} has shape {raw.shape}; ({samples},) is needed, one class per sample "
            "(argmax(axis=1) of a one-hot table)."
        )
    if raw.dtype.kind not in "iuUS":
        raise ValueError(f"{name} has dtype {raw.dtype}; integers >= 0 or strings are needed.")
    if raw.dtype.kind == "i" and raw.min() < 0:
        raise ValueError(
            f"{name} is {raw.min()} at index {int(raw.argmin())}; classes are >= 0. "
            "Drop unlabelled samples, or give them a class."
        )
    values, codes = np.unique(raw, return_inverse=True)
    if values.size >= samples:
        raise ValueError(
            f"{name} has {values.size} classes for {samples} samples; fewer classes than samples are needed."
        )
    return codes.astype(np.intp), int(values.size)


def covariance_bands(
    rows: NDArray[Any], codes: NDArray[np.intp], classes: int
) -> tuple[Array, Array, Array, Array | None]:
    """Positive eigenvalues one by one, all zeros as one last band, with the mean power of each and their deviations.

    The deviations are those of `SamplingError`, (B, G); None where there are fewer samples than dimensions, whose
    eigenvalues are not near those of the law.
    """
    size, dimension = rows.shape
    means = _class_means(rows, codes, classes)
    share = np.bincount(codes, minlength=classes) / size
    deviations = None
    if size < dimension:
        values, coordinates = _by_gram(rows, codes, means)
    else:
        values, vectors = _by_covariance(rows, codes, means)
        coordinates, deviations = means @ vectors, group_deviations(rows, codes, means, vectors)
    eps = np.finfo(float).eps
    floor = max(_NUMERICAL_ZERO, eps * min(size, dimension)) * values[0]
    # The mean of N numbers is off by up to N eps: constant data must not pass for a tiny covariance.
    floor = max(floor, dimension * (eps * size * float(np.abs(means).max())) ** 2)
    keep = values > floor
    if not keep.any():
        raise ValueError("Spectrum.samples do not vary (within classes); a covariance needs variation.")
    values, power = values[keep], (share @ coordinates**2)[keep]
    zeros = dimension - values.size
    counts = np.ones(values.size)
    deviations = None if deviations is None else deviations[keep]
    if zeros:
        rest = max(float(share @ (means**2).sum(axis=1)) - float(power.sum()), 0.0)
        values, counts, power = np.append(values, 0.0), np.append(counts, zeros), np.append(power, rest)
        deviations = None if deviations is None else np.vstack([deviations, np.zeros((1, deviations.shape[1]))])
    return values, counts, power, deviations


def _blocks(size: int, width: int) -> Iterator[slice]:
    """Rows in blocks of bounded working memory."""
    step = max(1, _BLOCK // width)
    for start in range(0, size, step):
        yield slice(start, start + step)


def _class_means(rows: NDArray[Any], codes: NDArray[np.intp], classes: int) -> Array:
    """(classes, d) mean of each class."""
    sums = np.zeros((classes, rows.shape[1]))
    for part in _blocks(*rows.shape):
        for k in np.unique(codes[part]):
            one = rows[part] if classes == 1 else rows[part][codes[part] == k]
            sums[k] += one.sum(axis=0, dtype=np.float64)
    return sums / np.bincount(codes, minlength=classes)[:, None]


def _by_covariance(rows: NDArray[Any], codes: NDArray[np.intp], means: Array) -> tuple[Array, Array]:
    """Eigenvalues, descending, and (d, d) their eigenvectors, by the d x d covariance."""
    size, dimension = rows.shape
    total = np.zeros((dimension, dimension))
    for part in _blocks(size, dimension):
        centred = rows[part].astype(np.float64) - means[codes[part]]
        total += centred.T @ centred
    values, vectors = np.linalg.eigh(total / (size - means.shape[0]))
    return values[::-1], vectors[:, ::-1]


def _by_gram(rows: NDArray[Any], codes: NDArray[np.intp], means: Array) -> tuple[Array, Array]:
    """Eigenvalues, descending, and (classes, d) coordinates of the means, by the N x N Gram matrix.

    centred = U S V^T gives V^T mean = S^-1 U^T (centred mean).
    """
    size, dimension = rows.shape
    rank = size - means.shape[0]
    gram, cross = np.zeros((size, size)), np.zeros((size, means.shape[0]))
    for part in _blocks(dimension, size):
        centred = rows[:, part].astype(np.float64) - means[codes, part]
        gram += centred @ centred.T
        cross += centred @ means[:, part].T
    values, left = np.linalg.eigh(gram / rank)
    # Centring makes one zero per class; drop them, the caller counts the directions that are left.
    values, left = values[::-1][:rank], left[:, ::-1][:, :rank]
    length = np.sqrt(np.where(values > 0, values, 1.0) * rank)
    return values, (left.T @ cross / length[:, None]).T
