"""AllowedError: what the spectrum of the data says of E|D(x0 + sigma z) - x0|^2, for any denoiser of these data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...basics.checks import Array
from ...ingredients.spectrum import Spectrum

__all__ = ["AllowedError"]

_LOWEST, _HIGHEST = 0.1, 20.0  # levels that are looked at, in standard deviations of a coordinate of the data
_QUIET, _LOUD = 0.05, 60.0  # noise against data, in energy: where losing the data, and where keeping the noise, decides
_LOSES, _KEEPS = 0.5, 0.25  # of the data's variance, of the noise: more than any network leaves that was trained


@dataclass(frozen=True, eq=False)
class AllowedError:
    """Errors to hold a denoiser against, docs/theory.md section 1.5.

        identity    d sigma^2                                       D = x
        mean        sum_b n_b lambda_b                              D = the mean of the data
        Wiener      sum_b n_b lambda_b sigma^2 / (lambda_b + sigma^2)  the best affine D; at least the Bayes error

    Args:
        spectrum: of the data.
        count: examples that it was measured on; None where it is exact.

    >>> allowed = AllowedError(Spectrum.from_eigenvalues([1.0, 1.0]))
    >>> allowed.wiener(np.array([1.0])).tolist(), allowed.mean
    ([1.0], 2.0)
    """

    spectrum: Spectrum
    count: int | None = None

    @property
    def mean(self) -> float:
        """Error of the mean alone: the trace."""
        return self.spectrum.trace

    @property
    def power(self) -> float:
        """E|x0|^2, the error of D = 0."""
        return self.mean + float(self.spectrum.mean_power.sum())

    @property
    def spread(self) -> float:
        """Standard deviation of a coordinate."""
        return float(np.sqrt(self.mean / self.spectrum.dimension))

    def identity(self, sigma: Array) -> Array:
        """Error of the input itself."""
        return self.spectrum.dimension * np.asarray(sigma) ** 2

    def wiener(self, sigma: Array) -> Array:
        """Error of the linear denoiser of the law that the data come from.

        Eigenvalues of N examples spread around those of the law, and those that fall to zero make the error of the
        sample's own Wiener filter too small. With df(t) = tr C (C + t)^-1 of the sample, df(t) is that of the law
        at s = t / (1 - df(t) / (N - 1)), so the law's error at sigma^2 = s is sigma^2 df(t).
        """
        square = np.asarray(sigma, dtype=np.float64) ** 2
        if self.count is None or self.count < 2:
            return square * self._freedom(square)
        low, high, free = np.zeros_like(square), square.copy(), float(self.count - 1)  # one went into the mean
        for _ in range(80):  # t - sigma^2 (1 - df(t) / free) has its largest root at or below sigma^2
            middle = 0.5 * (low + high)
            under = middle < square * (1 - self._freedom(middle) / free)
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        # no root: fewer examples than dimensions tell nothing of directions below this noise, which may all be there
        return np.where(high > 1e-9 * square, square * self._freedom(high), self.identity(sigma))

    def _freedom(self, square: Array) -> Array:
        values, counts = self.spectrum.eigenvalues, self.spectrum.counts
        total = np.maximum(values + square[:, None], 1e-300)
        return np.sum(counts * values / total, axis=1)

    def levels(self, count: int, low: float, high: float) -> Array:
        """Noise levels around the data's own scale, inside a range."""
        scale = np.sqrt(self.power / self.spectrum.dimension)
        first, last = np.clip([_LOWEST * self.spread, _HIGHEST * scale], low, high)
        if last < 2 * first:
            first, last = low, high
        return np.geomspace(first, last, count)

    def telling(self, sigma: Array) -> list[int]:
        """Indices of levels, first those where the Wiener error is far below both the identity's and the mean's."""
        share = self.wiener(sigma) / np.minimum(self.identity(sigma), self.mean)
        return [int(level) for level in np.argsort(share, kind="stable")]

    def loud(self, sigma: Array) -> NDArray[np.bool_]:
        """Levels where the noise is so much more than the data that a part of it left is more than all the data."""
        return self.identity(sigma) >= _LOUD * self.power

    def lost(self, sigma: Array, error: Array, standard_error: Array) -> NDArray[np.bool_]:
        """Levels that decide by themselves: the noise is kept, or the data are lost, by the lower end of the error."""
        least = error - 3 * standard_error
        quiet = self.identity(sigma) <= _QUIET * self.mean
        return (self.loud(sigma) & (least > _KEEPS * self.identity(sigma))) | (quiet & (least > _LOSES * self.mean))
