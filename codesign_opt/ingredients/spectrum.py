"""The data as the theory sees them: eigenvalues of the covariance, how often each occurs, and the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..basics.checks import AT_ONCE, Array, integer, noise_level, number, scale_of, shown, vector
from .sample_covariance import class_codes, covariance_bands, sample_rows
from .sampling_error import SamplingError

__all__ = ["Spectrum"]

_LARGEST = 1e120  # trace whose square is a float
_SIGMA_DATA_TOLERANCE = 0.10
_ROUND_OFF = "Set round-off of an eigenvalue solver to 0 first."


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """Eigenvalues lambda_b of the data covariance with multiplicities n_b, sum of n_b = d.

    docs/theory.md section 1. Every closed form of the package is a sum over these bands. Bands are stored
    with eigenvalues descending; a band may be a single direction, and equal eigenvalues are not merged.

    Args:
        eigenvalues: (B,) variances lambda_b >= 0 in squared data units, in any order, not all 0.
        counts: (B,) whole numbers n_b >= 1, the number of directions of each band.
        mean_power: (B,) sum over the directions of a band of the squared coordinates of the data mean,
            squared data units, >= 0; zeros when left out.
        provenance: where the numbers come from, kept in every plan made from them.
        sampling: how far the eigenvalues may lie from those of the law; None where they are stated, or where
            fewer samples than dimensions tell nothing of it. `co.uncertainty` carries it to a plan.

    Raises:
        ValueError: an entry is negative or not finite, the shapes differ, a count is not a whole number,
            or every eigenvalue is 0.

    >>> Spectrum([0.25, 1.0], [3, 1])
    Spectrum(d = 4, trace = 1.75, sigma_data = 0.6614, eigenvalues 1 to 0.25, 2 bands)
    """

    eigenvalues: Array
    counts: Array
    mean_power: Array = None  # type: ignore[assignment]
    provenance: str = "bands stated by the user"
    sampling: SamplingError | None = None

    def __post_init__(self) -> None:
        values = vector(self.eigenvalues, "Spectrum.eigenvalues", nonnegative=True, hint=_ROUND_OFF)
        counts = vector(self.counts, "Spectrum.counts", length=values.size, positive=True)
        given = np.zeros(values.size) if self.mean_power is None else self.mean_power
        power = vector(given, "Spectrum.mean_power", length=values.size, nonnegative=True)
        _check_whole(counts)
        if not np.any(values > 0):
            raise ValueError("Spectrum.eigenvalues are all 0; data without variance leave nothing to plan.")
        with np.errstate(over="ignore"):
            if not np.dot(counts, values) < _LARGEST:
                raise ValueError("Spectrum.eigenvalues overflow the trace; rescale the data.")
        if not isinstance(self.provenance, str):
            raise ValueError(f"Spectrum.provenance is {shown(self.provenance)}; a string is needed.")
        order = np.argsort(-values, kind="stable")
        for name, array in (("eigenvalues", values), ("counts", counts), ("mean_power", power)):
            ordered = array[order]
            ordered.setflags(write=False)
            object.__setattr__(self, name, ordered)
        sampling = SamplingError.read(self.sampling)
        if sampling is not None:
            if sampling.deviations.shape[0] != values.size:
                raise ValueError(
                    f"Spectrum.sampling is of {sampling.deviations.shape[0]} bands; {values.size} are needed."
                )
            sampling = sampling.ordered(order)
        object.__setattr__(self, "sampling", sampling)

    # ------------------------------------------------------------------------------------ constructors

    @classmethod
    def from_bands(cls, eigenvalues: ArrayLike, counts: ArrayLike, mean_power: ArrayLike | None = None) -> Spectrum:
        """Bands stated one by one: eigenvalue lambda_b occurs n_b times.

        Args: eigenvalues (B,) >= 0 in squared data units, counts (B,) whole numbers >= 1, mean_power (B,)
        >= 0 or None for data of mean zero. Raises ValueError as the class does. docs/theory.md section 1.

        >>> Spectrum.from_bands([1.0, 0.01], [10, 90]).dimension
        100
        """
        return cls(eigenvalues, counts, mean_power)  # type: ignore[arg-type]

    @classmethod
    def from_eigenvalues(cls, eigenvalues: ArrayLike, mean: ArrayLike | None = None) -> Spectrum:
        """Every direction by itself: d eigenvalues, nothing merged (d of a million is fine).

        Args:
            eigenvalues: (d,) >= 0, squared data units, in any order.
            mean: (d,) coordinates of the data mean along the same eigenvectors, data units; zero if None.

        Raises:
            ValueError: negative or non-finite entries, or shapes that differ. docs/theory.md section 1.

        >>> Spectrum.from_eigenvalues([0.5, 2.0], mean=[1.0, 3.0]).mean_power.tolist()
        [9.0, 1.0]
        """
        values = vector(eigenvalues, "Spectrum.eigenvalues", nonnegative=True, hint=_ROUND_OFF)
        power = None
        if mean is not None:
            with np.errstate(over="ignore"):  # an overflow is refused below, by name
                power = vector(mean, "Spectrum.mean", length=values.size) ** 2
        return cls(
            values,
            np.ones(values.size),
            power,  # type: ignore[arg-type]
            f"{values.size} eigenvalues stated by the user",
        )

    @classmethod
    def power_law(cls, dimension: int, exponent: float, scale: float = 1.0) -> Spectrum:
        """Power law lambda_i = scale * i^-exponent for i = 1, ..., d.

        Args: dimension d >= 1; exponent >= 0 (natural images: between 1 and 2 per direction); scale > 0 in
        squared data units. Raises ValueError outside these ranges, or when the smallest eigenvalue
        underflows to 0 (a zero eigenvalue means a direction without data). docs/theory.md section 1.

        >>> Spectrum.power_law(3, exponent=1.0).eigenvalues.round(4).tolist()
        [1.0, 0.5, 0.3333]
        """
        size = integer(dimension, "Spectrum.dimension", minimum=1, maximum=AT_ONCE)
        rate = number(exponent, "Spectrum.exponent", nonnegative=True)
        factor = scale_of(scale, "Spectrum.scale")
        values = factor * np.arange(1.0, size + 1.0) ** -rate
        if values[-1] == 0:
            raise ValueError(
                f"Spectrum.exponent is {rate:g}: the smallest of {size} eigenvalues underflows to 0; "
                "lower it, or state the zeros by from_bands."
            )
        return cls(values, np.ones(size), provenance=f"power law {factor:g} * i^-{rate:g}, d = {size}")

    @classmethod
    def spiked(cls, dimension: int, spikes: ArrayLike, noise: float) -> Spectrum:
        """Spiked covariance: the eigenvalues `spikes`, and `noise` in all remaining directions.

        A spike is the whole eigenvalue of its direction, not the excess over the noise.

        Args: dimension d >= 1; spikes (k,) >= 0 with k <= d; noise >= 0; squared data units. Raises
        ValueError outside these ranges. docs/theory.md section 1.

        >>> Spectrum.spiked(10, [4.0, 2.0], noise=0.1).counts.tolist()
        [1.0, 1.0, 8.0]
        """
        size = integer(dimension, "Spectrum.dimension", minimum=1, maximum=AT_ONCE)
        values = vector(spikes, "Spectrum.spikes", nonnegative=True)
        base = number(noise, "Spectrum.noise", nonnegative=True)
        rest = size - values.size
        if rest < 0:
            raise ValueError(f"Spectrum.spikes has {values.size} entries; at most dimension = {size} fit.")
        counts = np.ones(values.size)
        if rest:
            values, counts = np.append(values, base), np.append(counts, float(rest))
        return cls(values, counts, provenance=f"spiked covariance, noise {base:g}, d = {size}")

    @classmethod
    def from_samples(
        cls,
        samples: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        bands: int | None = None,
        sigma_data: float | None = None,
    ) -> Spectrum:
        """Eigenvalues of the unbiased sample covariance, sum of (x - mean)(x - mean)^T / (N - 1).

        With `labels` the covariance is pooled within classes, divided by N - classes: what a conditional
        denoiser sees; mean_power is then the class-frequency average of the squared coordinates of the
        class means. Fewer samples than dimensions go through the N x N Gram matrix, which has the same
        positive eigenvalues; all directions without variance form one band of eigenvalue 0. Eigenvalues up
        to 1e-12 of the largest are rounding and count as 0. Whole arrays are never copied to float64. With as
        many samples as dimensions or more, `sampling` holds the eigenvalues' standard errors.

        Args:
            samples: (N, ...) real, N >= 2; trailing axes are flattened to d.
            labels: (N,) integers >= 0 or strings, fewer classes than samples.
            bands: merge the result, see `in_bands`.
            sigma_data: the data scale used elsewhere (preconditioning), data units, > 0; refused when it
                is over 10 % from sqrt(trace / d).

        Raises:
            ValueError: too few samples, non-finite entries, constant data, wrong labels, or a sigma_data
                that the samples contradict. docs/theory.md section 1.

        >>> samples = [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]]
        >>> Spectrum.from_samples(samples).eigenvalues.round(4).tolist()
        [0.6667, 0.1667]
        """
        rows = sample_rows(samples)
        codes, classes = class_codes(labels, rows.shape[0])
        merged = None if bands is None else integer(bands, "Spectrum.bands", minimum=1)
        values, counts, power, deviations = covariance_bands(rows, codes, classes)
        source = f"covariance of {rows.shape[0]} samples in {rows.shape[1]} dimensions"
        if classes > 1:
            source += f", pooled within {classes} classes"
        sampling = None if deviations is None else SamplingError(rows.shape[0] - classes, deviations)
        spectrum = cls(values, counts, power, source, sampling)
        if sigma_data is not None:
            _check_sigma_data(spectrum, noise_level(sigma_data, "Spectrum.sigma_data"))
        return spectrum if merged is None else spectrum.in_bands(merged)

    # -------------------------------------------------------------------------------------- properties

    @property
    def dimension(self) -> int:
        """Number of dimensions d = sum of n_b."""
        return int(self.counts.sum())

    @property
    def trace(self) -> float:
        """Total variance, sum of n_b lambda_b, squared data units."""
        return float(np.dot(self.counts, self.eigenvalues))

    @property
    def sigma_data(self) -> float:
        """Root mean square deviation per dimension, sqrt(trace / d), data units."""
        return float(np.sqrt(self.trace / self.dimension))

    @property
    def smallest_positive(self) -> float:
        """Smallest eigenvalue that is not 0, squared data units."""
        return float(self.eigenvalues[self.eigenvalues > 0][-1])

    def __len__(self) -> int:
        """Number of bands B."""
        return int(self.eigenvalues.size)

    # ----------------------------------------------------------------------------------------- methods

    def in_bands(self, bands: int) -> Spectrum:
        """Merge into `bands` bins of equal width in log lambda, each with its arithmetic-mean eigenvalue.

        Dimension, trace and mean power are kept; empty bins are left out; directions of eigenvalue 0 stay
        in one band of their own, beside the `bands`; no more than `bands` positive eigenvalues are left as
        they are. docs/theory.md sections 1 and 2 (eight bands move the coefficients by 0.1 %; take the
        truncation error from the full spectrum).

        Args: bands >= 1. Raises ValueError otherwise.

        >>> Spectrum.from_eigenvalues([8.0, 6.0, 2.0, 1.0]).in_bands(2).eigenvalues.tolist()
        [7.0, 1.5]
        """
        wanted = integer(bands, "Spectrum.bands", minimum=1)
        positive = int(np.count_nonzero(self.eigenvalues))
        merge = positive > wanted
        starts = _band_starts(self.eigenvalues[:positive], wanted) if merge else np.arange(positive)
        if positive < len(self):
            starts = np.append(starts, positive)
        if starts.size == len(self):
            return self
        counts = np.add.reduceat(self.counts, starts)
        values = np.add.reduceat(self.counts * self.eigenvalues, starts) / counts
        power = np.add.reduceat(self.mean_power, starts)
        sampling = None if self.sampling is None else self.sampling.merged(self.counts, starts)
        return type(self)(values, counts, power, f"{self.provenance}; merged into {counts.size} bands", sampling)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for json; `from_dict` restores the same numbers.

        >>> Spectrum.from_bands([1.0], [2]).to_dict()["counts"]
        [2.0]
        """
        plain = {
            "eigenvalues": self.eigenvalues.tolist(),
            "counts": self.counts.tolist(),
            "mean_power": self.mean_power.tolist(),
            "provenance": self.provenance,
        }
        return plain if self.sampling is None else plain | {"sampling": self.sampling.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spectrum:
        """Restore what `to_dict` wrote; ValueError names a missing or unknown key.

        >>> Spectrum.from_dict({"eigenvalues": [1.0, 0.5], "counts": [1, 2]}).dimension
        3
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"Spectrum.from_dict: {type(data).__name__} given; a mapping is needed.")
        known = {"eigenvalues", "counts", "mean_power", "provenance", "sampling"}
        for key in ("eigenvalues", "counts"):
            if key not in data:
                raise ValueError(f"Spectrum.{key} is missing from the dictionary.")
        if set(data) - known:
            raise ValueError(f"Spectrum.from_dict: unknown keys {sorted(map(str, set(data) - known))}.")
        return cls(**data)

    def __repr__(self) -> str:
        positive = self.eigenvalues[self.eigenvalues > 0]
        top, low = positive[0], positive[-1]
        span = f"eigenvalues {top:.4g} to {low:.4g}" if top > low else f"eigenvalue {top:.4g}"
        zeros = int(self.counts[self.eigenvalues == 0].sum())
        void = f", {zeros} directions of variance 0" if zeros else ""
        return (
            f"Spectrum(d = {self.dimension}, trace = {self.trace:.4g}, sigma_data = {self.sigma_data:.4g}, "
            f"{span}{void}, {len(self)} band{'s' if len(self) > 1 else ''})"
        )


def _check_whole(counts: Array) -> None:
    bad = np.flatnonzero(counts != np.round(counts))
    if bad.size:
        i = int(bad[0])
        raise ValueError(f"Spectrum.counts is {counts[i]:g} at index {i}; whole numbers are needed.")
    if counts.sum() > 2**53:
        raise ValueError(f"Spectrum.counts sum to {counts.sum():g}; at most 2^53 directions are countable.")


def _check_sigma_data(spectrum: Spectrum, stated: float) -> None:
    measured = spectrum.sigma_data
    if abs(stated - measured) > _SIGMA_DATA_TOLERANCE * measured:
        raise ValueError(
            f"Spectrum.sigma_data is {stated:g}, but the samples have sqrt(trace / d) = {measured:.4g}, "
            f"{stated / measured - 1:+.0%} off; multiply the samples by {stated / measured:.4g}, or state "
            f"sigma_data={measured:.4g}. (With labels only the variance within classes counts.)"
        )


def _band_starts(descending: Array, bands: int) -> NDArray[np.intp]:
    """First index of every occupied bin of equal width in log lambda; bins are contiguous once sorted."""
    logs = np.log(descending)
    width = (logs[0] - logs[-1]) / bands
    if width == 0:
        return np.zeros(1, dtype=np.intp)
    bins = np.minimum((logs[0] - logs) / width, bands - 1).astype(np.intp)
    return np.flatnonzero(np.diff(bins, prepend=-1))
