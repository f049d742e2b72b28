"""What an error is counted in: distance of the data, of features, or a divergence of Gaussian laws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, choice, matrix, takes, vector
from ..basics.user_code import told_in
from .spectrum import Spectrum

__all__ = ["KL", "Features", "Metric", "ValuedBands", "Wasserstein"]

_LEAST = 1e-12  # weight of a band that a metric does not see, beside the largest

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class ValuedBands:
    """Bands as error sums see them: counts and powers of the mean times the metric's weights."""

    eigenvalues: Array
    counts: Array
    mean_power: Array


class Metric(ABC):
    """What the difference of two Gaussian laws with common eigenvectors is counted in (docs/theory.md section 2.5)."""

    @property
    @abstractmethod
    def measure(self) -> str:
        """The error in words, for plans and tables; empty for the squared Wasserstein distance."""

    @property
    def quadratic(self) -> bool:
        """Whether it is a weighted sum of squared differences of standard deviations, not only to second order."""
        return True

    @abstractmethod
    def weights(self, spectrum: Spectrum) -> Array:
        """(B,) what a squared error of one direction's standard deviation counts, >= 0."""

    @takes(spectrum=Spectrum)
    def mean_weights(self, spectrum: Spectrum) -> Array:
        """(B,) what a squared error of the mean counts."""
        return self.weights(spectrum)

    def curvature(self, spectrum: Spectrum, std: Array) -> Array:
        """(B,) what small errors of a standard deviation count at `std`, over `weights`: 1 where they are right."""
        return np.ones(len(spectrum))

    @takes(spectrum=Spectrum)
    def valued(self, spectrum: Spectrum) -> ValuedBands:
        """The spectrum with its bands weighted."""
        weights, means = self.weights(spectrum), self.mean_weights(spectrum)
        floor = _LEAST * float(weights.max())
        return ValuedBands(
            spectrum.eigenvalues, spectrum.counts * np.maximum(weights, floor), spectrum.mean_power * means
        )

    def merged(self, spectrum: Spectrum, bands: Spectrum) -> Metric:
        """The metric of a spectrum whose bands are merged; itself where weights are functions of the eigenvalues."""
        return self

    def truncation(self, spectrum: Spectrum, excess: Array, ends: Array) -> Array:
        """(...) error of a law of variances lambda + excess, (..., B), whose roots are `ends`."""
        root = ends + np.sqrt(spectrum.eigenvalues)
        off = np.where(root > 0, excess / np.where(root > 0, root, 1.0), 0.0)
        return np.asarray(off**2 @ (spectrum.counts * self.weights(spectrum)))

    def distance(self, spectrum: Spectrum, std: Numbers, mean: Numbers) -> Numbers:
        """(...) error of a law of standard deviations (..., B) and squared errors of the mean, summed in each band."""
        off = (std - np.sqrt(spectrum.eigenvalues)) ** 2
        return off @ (spectrum.counts * self.weights(spectrum)) + mean @ self.mean_weights(spectrum)


@dataclass(frozen=True)
class Wasserstein(Metric):
    """Squared Wasserstein-2 distance of samples to data: the default.

    >>> Wasserstein().weights(Spectrum.from_bands([1.0, 0.1], [1, 2])).tolist()
    [1.0, 1.0]
    """

    @property
    def measure(self) -> str:
        return ""

    @takes(spectrum=Spectrum)
    def weights(self, spectrum: Spectrum) -> Array:
        return np.ones(len(spectrum))


@dataclass(frozen=True, eq=False)
class Features(Metric):
    """Squared Wasserstein-2 distance in a feature space: a quadratic metric of the data (docs/theory.md section 2.5).

    With weights along the data's own directions it is exact; of a matrix the diagonal in these directions counts,
    which is the squared distance of samples to data under common draws and no less than the least one.

    Args:
        band_weights: a function of eigenvalues, or (B,) one for each band of the spectrum, >= 0 and not all 0. Zeros
            are taken as 1e-12 of the largest.

    Raises:
        ValueError: weights that are negative, not finite, or all 0; another number than the spectrum has bands.

    >>> metric = Features(lambda eigenvalues: 1 / (0.1 + eigenvalues))
    >>> metric.weights(Spectrum.from_bands([0.9, 0.1], [1, 2])).round(3).tolist()
    [1.0, 5.0]
    """

    band_weights: Any

    def __post_init__(self) -> None:
        if not callable(self.band_weights):
            found = vector(self.band_weights, "Features.band_weights", nonnegative=True)
            object.__setattr__(self, "band_weights", found)

    @classmethod
    def of_matrix(cls, metric: ArrayLike, eigenvectors: ArrayLike) -> Features:
        """Weights v_b' Q v_b of a positive semidefinite metric Q along the data's eigenvectors.

        Args:
            metric: (d, d) Q, as |phi(x) - phi(y)|^2 = (x - y)' Q (x - y) of linear features phi; Q = J' J of others.
            eigenvectors: (d, B) columns in the order of the spectrum's eigenvalues, each of a direction by itself.

        Raises:
            ValueError: a matrix that is not symmetric or has a negative eigenvalue, or other sizes.

        >>> Features.of_matrix([[2.0, 0.0], [0.0, 1.0]], np.eye(2)).band_weights.tolist()
        [2.0, 1.0]
        """
        q = matrix(metric, "Features.metric", shape=(None, None))
        v = matrix(eigenvectors, "Features.eigenvectors", shape=(q.shape[0], None))
        size = float(np.abs(q).max())
        if q.shape[0] != q.shape[1] or np.abs(q - q.T).max() > 1e-9 * size:
            raise ValueError("Features.metric is not symmetric; give (Q + Q') / 2.")
        least = float(np.linalg.eigvalsh(q)[0])
        if least < -1e-9 * size:
            raise ValueError(f"Features.metric has the eigenvalue {least:g}; it must be positive semidefinite.")
        return cls(np.maximum(np.einsum("ib,ij,jb->b", v, q, v), 0.0))

    @property
    def measure(self) -> str:
        return "squared Wasserstein-2 distance in feature space"

    def merged(self, spectrum: Spectrum, bands: Spectrum) -> Metric:
        if callable(self.band_weights) or len(bands) == len(spectrum):
            return self
        starts = np.searchsorted(np.cumsum(spectrum.counts), np.cumsum(bands.counts) - bands.counts, side="right")
        return Features(np.add.reduceat(spectrum.counts * self.weights(spectrum), starts) / bands.counts)

    @takes(spectrum=Spectrum)
    def weights(self, spectrum: Spectrum) -> Array:
        given: Callable[[Array], Any] | Array = self.band_weights
        if callable(given):
            with told_in("Features.band_weights(eigenvalues)"):
                given = given(np.array(spectrum.eigenvalues))
        found = vector(given, "Features.band_weights", length=len(spectrum), nonnegative=True)
        if not found.any():
            raise ValueError("Features.band_weights are all 0; a metric that sees nothing leaves nothing to plan.")
        return found


@dataclass(frozen=True)
class KL(Metric):
    """Kullback-Leibler divergence of Gaussian laws, in nats; to second order relative squared errors of variances.

    Both directions agree to second order, sum_b n_b (std_b / sqrt(lambda_b) - 1)^2 and half the squared error of the
    mean over lambda_b: that is the program's. Truncation and the bias of handed-out grids are exact in the direction
    asked for (docs/theory.md section 2.5).

    Args:
        direction: "forward", KL(data | samples), which punishes what is missing, or "reverse", KL(samples | data).

    Raises:
        ValueError: another direction.

    >>> KL("reverse").measure
    'KL divergence of samples from data, nats'
    """

    direction: str = "forward"

    def __post_init__(self) -> None:
        choice(self.direction, "KL.direction", ("forward", "reverse"))

    @property
    def measure(self) -> str:
        said = "data from samples" if self.direction == "forward" else "samples from data"
        return f"KL divergence of {said}, nats"

    @property
    def quadratic(self) -> bool:
        return False

    @takes(spectrum=Spectrum)
    def weights(self, spectrum: Spectrum) -> Array:
        return np.asarray(1 / np.maximum(spectrum.eigenvalues, spectrum.smallest_positive))

    @takes(spectrum=Spectrum)
    def mean_weights(self, spectrum: Spectrum) -> Array:
        return 0.5 * self.weights(spectrum)

    def truncation(self, spectrum: Spectrum, excess: Array, ends: Array) -> Array:
        on = spectrum.eigenvalues > 0
        return np.asarray(self._divergence(excess[..., on] / spectrum.eigenvalues[on]) @ spectrum.counts[on])

    def distance(self, spectrum: Spectrum, std: Numbers, mean: Numbers) -> Numbers:
        on = spectrum.eigenvalues > 0
        lam = spectrum.eigenvalues[on]
        excess = (std[..., on] - np.sqrt(lam)) * (std[..., on] + np.sqrt(lam)) / lam
        shift = mean[..., on] / (lam if self.direction == "reverse" else lam * (1 + excess))
        return self._divergence(excess) @ spectrum.counts[on] + 0.5 * shift.sum(axis=-1)

    def curvature(self, spectrum: Spectrum, std: Array) -> Array:
        """Half the second derivative by std times lambda: (1 + 1 / rho) / 2, or (3 / rho^2 - 1 / rho) / 2 forward."""
        lam = np.maximum(spectrum.eigenvalues, spectrum.smallest_positive)
        inverse = lam / np.where(spectrum.eigenvalues > 0, std**2, lam)
        return np.asarray(0.5 * (1 + inverse if self.direction == "reverse" else 3 * inverse**2 - inverse))

    def _divergence(self, excess: Numbers) -> Numbers:
        """Of a variance 1 + excess from one of 1, or back."""
        logs = np.log1p(excess)
        return np.asarray(0.5 * (excess - logs if self.direction == "reverse" else logs - excess / (1 + excess)))
