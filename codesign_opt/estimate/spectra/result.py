"""A spectrum measured on data, with its errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...basics.checks import Array, vector
from ...basics.fields import holds
from ...ingredients.spectrum import Spectrum

__all__ = ["SpectrumEstimate"]


@dataclass(frozen=True, eq=False, repr=False)
class SpectrumEstimate:
    """Bands lambda_b of the covariance of the data, with the standard error of every band.

    docs/theory.md section 1. Two kinds of error are told. `standard_error` is the spread of lambda_b over
    repetitions (other data, other probes), measured on a uniform sample of the examples and from probe to
    probe; it does not contain the systematic spread of sample eigenvalues around those of the
    distribution, which is of order lambda d/N. `error_bound` is conservative and covers it: by Weyl's
    inequality every eigenvalue, in order, and every mean over bands moves by no more than the spectral
    norm of the covariance error,

        |lambda_b(sample) - lambda_b| <= ||sample covariance - covariance||,

    and that norm is bounded by its 95 % quantile under random signs, ||sum_i s_i x_i x_i^T|| / m over a
    uniform sample of m examples, times sqrt(m/N). (The products are not centred by the covariance, and the
    part of order d/m is scaled by sqrt(m/N) only: both make it larger.) It holds for data of any law with
    four moments and is one number for all bands, so it says little of bands far below it.

    Attributes:
        spectrum: the bands, descending; eigenvalues in squared data units.
        standard_error: (B,) of each lambda_b, squared data units.
        probe_error: (B,) the part of it that comes from random probes and from the number of Lanczos
            steps; 0 for the exact methods.
        error_bound: >= 0, see above, squared data units.
        trace_error: standard error of the trace (the trace itself has no probe error).
        count: number of examples N.
        method: "exact", "lanczos" or "radial".
        passes: passes over the data.
        frequency: (B,) mean radial frequency of each band in cycles per pixel (0.5 is the highest along an
            axis) for "radial"; None otherwise.
        note: where reading stopped by itself, after how many examples; else empty.
    """

    spectrum: Spectrum
    standard_error: Array
    probe_error: Array
    error_bound: float
    trace_error: float
    count: int
    method: str
    passes: int
    frequency: Array | None = None
    note: str = ""

    def __post_init__(self) -> None:
        numbers = dict.fromkeys(("error_bound", "trace_error"), float)
        holds(self, spectrum=Spectrum, count=int, method=str, passes=int, frequency=("band", None), note=str, **numbers)
        for name in ("standard_error", "probe_error"):
            values = vector(
                getattr(self, name), f"SpectrumEstimate.{name}", length=len(self.spectrum), nonnegative=True
            )
            object.__setattr__(self, name, values)

    @property
    def trace(self) -> float:
        """Total variance, squared data units: exact for the examples seen."""
        return self.spectrum.trace

    def interval(self, z: float = 1.96) -> tuple[Array, Array]:
        """(B,) lower and upper end of lambda_b -/+ z standard errors, cut at 0."""
        half = z * self.standard_error
        return np.maximum(self.spectrum.eigenvalues - half, 0.0), self.spectrum.eigenvalues + half

    def conservative(self) -> tuple[Array, Array]:
        """(B,) ends of lambda_b -/+ (Weyl bound + 1.96 standard errors of the probes), cut at 0."""
        half = self.error_bound + 1.96 * self.probe_error
        return np.maximum(self.spectrum.eigenvalues - half, 0.0), self.spectrum.eigenvalues + half

    def cumulative(self) -> tuple[Array, Array]:
        """(B+1,) number of directions and share of the trace in the largest 0, 1, ..., B bands."""
        counts, values = self.spectrum.counts, self.spectrum.eigenvalues
        directions = np.append(0.0, np.cumsum(counts))
        return directions, np.append(0.0, np.cumsum(counts * values)) / self.trace

    def __repr__(self) -> str:
        return (
            f"SpectrumEstimate({self.method}, {self.count:,} examples, {self.passes} passes, trace = {self.trace:.4g} "
            f"+- {self.trace_error:.2g}, error bound {self.error_bound:.2g}: {self.spectrum!r})"
            + (f"; {self.note}" if self.note else "")
        )
