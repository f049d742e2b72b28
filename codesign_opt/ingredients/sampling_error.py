"""SamplingError: how far the eigenvalues of a sample may lie from those of the law that the sample is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array, integer, matrix, shown

__all__ = ["GROUPS", "SamplingError", "group_deviations"]

GROUPS = 48
_SEED = 20260
_BLOCK = 1 << 23


@dataclass(frozen=True, eq=False)
class SamplingError:
    """Spread of eigenvalues over independent groups of the samples (docs/theory.md section 8.5).

    The samples are dealt into G groups at random. To first order an eigenvalue is the mean square of the samples'
    coordinates along its eigenvector; with c_bg that of group g, any function's standard error is the scatter of
    sum_b (df / d lambda_b) c_bg over the groups, whatever the law of the data and however eigenvalues depend on each
    other. It has G - 1 degrees of freedom.

    Args:
        samples: N, the number of samples less the number of means taken off, >= 1.
        deviations: (B, G) c_bg - lambda_b, squared data units, weighted so that the covariance of the eigenvalues is
            `deviations @ deviations.T`.

    Raises:
        ValueError: deviations that are not finite, or fewer than two groups.

    >>> SamplingError(100, np.array([[0.3, -0.3], [0.0, 0.1]])).standard_errors.round(3).tolist()
    [0.424, 0.1]
    """

    samples: int
    deviations: Array

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "samples", integer(self.samples, "SamplingError.samples", minimum=1))
        put(self, "deviations", matrix(self.deviations, "SamplingError.deviations", shape=(None, None)))
        if self.deviations.shape[1] < 2:
            raise ValueError("SamplingError.deviations has one group; a spread needs at least two columns.")

    @property
    def degrees(self) -> int:
        """Degrees of freedom of a standard error, for Student's t."""
        return int(self.deviations.shape[1]) - 1

    @property
    def standard_errors(self) -> Array:
        """(B,) of the eigenvalues, squared data units."""
        return np.asarray(np.sqrt((self.deviations**2).sum(axis=1)))

    def ordered(self, order: Any) -> SamplingError:
        """The same for bands in another order."""
        return SamplingError(self.samples, self.deviations[order])

    def merged(self, counts: Array, starts: Any) -> SamplingError:
        """That of the mean eigenvalues of neighbouring bands, which begin at `starts`."""
        total = np.add.reduceat(counts[:, None] * self.deviations, starts, axis=0)
        return SamplingError(self.samples, total / np.add.reduceat(counts, starts)[:, None])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for json."""
        return {"samples": self.samples, "deviations": self.deviations.tolist()}

    @classmethod
    def read(cls, value: Any) -> SamplingError | None:
        """Itself, or what `to_dict` wrote; None for None.

        Raises:
            ValueError: anything else.
        """
        if value is None or isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or set(value) != {"samples", "deviations"}:
            raise ValueError(f"Spectrum.sampling is {shown(value)}; a SamplingError is needed.")
        return cls(**value)


def group_deviations(rows: NDArray[Any], codes: NDArray[np.intp], means: Array, vectors: Array) -> Array | None:
    """(K, G) deviations of the mean squared coordinates of groups of samples along K eigenvectors.

    The groups are drawn, not cut: files are often sorted. None where there are fewer than two samples a group.

    Args:
        rows: (N, d) samples, read block by block.
        codes, means: (N,) class of each sample and (C, d) means of the classes, which are taken off.
        vectors: (d, K).
    """
    size, dimension = rows.shape
    groups = min(GROUPS, size // 2)
    if groups < 2:
        return None
    member = np.random.default_rng(_SEED).permutation(size) % groups
    total = np.zeros((groups, vectors.shape[1]))
    step = max(1, _BLOCK // dimension)
    for start in range(0, size, step):
        part = slice(start, start + step)
        squares = ((rows[part].astype(np.float64) - means[codes[part]]) @ vectors) ** 2
        total += (np.arange(groups)[:, None] == member[part]).astype(np.float64) @ squares
    number = np.bincount(member, minlength=groups)[:, None]
    # of independent means of n_g samples around the mean of all; their number differs by one at most
    scatter = (total / number - total.sum(axis=0) / size) * np.sqrt(number / size)
    return np.asarray(scatter.T * np.sqrt(1.0 / (groups - 1)) * (size / (size - means.shape[0])))
