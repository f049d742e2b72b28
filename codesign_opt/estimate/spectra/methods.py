"""Ways to the spectrum of streamed data: the whole covariance, Lanczos quadrature, radial bandpower of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ...basics.checks import integer
from .exact import exact_spectrum, finish_exact
from .lanczos_spectrum import lanczos_spectrum
from .passes import DataEndedEarly, Passes, Sums
from .radial import finish_radial, radial_spectrum
from .result import SpectrumEstimate

__all__ = ["METHODS", "Exact", "Lanczos", "Radial", "SpectrumMethod"]


class SpectrumMethod(ABC):
    """What `spectrum` may be told to do with the data; a method of one's own derives from this."""

    name: ClassVar[str]

    @abstractmethod
    def estimate(self, passes: Passes, *, seed: int, bands: int | None) -> SpectrumEstimate:
        """The spectrum from as many passes over the data as it takes, in `bands` bands."""

    def question(self) -> dict[str, Any]:
        """Options that kept sums depend on, as plain values."""
        return {}


@dataclass(frozen=True)
class Exact(SpectrumMethod):
    """The d x d covariance in one pass, and every eigenvalue of it; one direction per band unless bands are given.

    Memory d^2: what "auto" takes up to 4,096 dimensions, where it also is the quickest.
    """

    name: ClassVar[str] = "exact"

    def estimate(self, passes: Passes, *, seed: int, bands: int | None) -> SpectrumEstimate:
        first = passes.source.first
        return _whole_or_seen(
            partial(exact_spectrum, passes, seed=seed, bands=bands),
            lambda sums: finish_exact(sums, first, seed=seed, bands=bands),
        )


@dataclass(frozen=True)
class Lanczos(SpectrumMethod):
    """Top eigenpairs by randomised SVD, the rest by Lanczos quadrature from random signs: steps + 4 passes.

    Memory O(d (top + probes)), times `steps` with reorthogonalisation. Counts sum to d and the trace is exact.

    Args:
        probes: random probes, at least 2; the relative error of a band of n directions is about sqrt(2 / (n probes)),
            so that 16 leave some 10 % of a band of ten.
        steps: Lanczos steps, one pass over the data each; nodes are resolved to about 1 / steps^2 of the largest
            eigenvalue left.
        top: eigenpairs found one by one, at most d / 2: few directions hold most of the variance of images.
        reorthogonalize: every block against all before it; None: where these are at most 2^26 numbers. Without it
            converged nodes come twice, which their weights make up for.

    Raises:
        ValueError: a number out of range.

    >>> Lanczos(probes=8).steps
    40
    """

    name: ClassVar[str] = "lanczos"

    probes: int = 16
    steps: int = 40
    top: int = 32
    reorthogonalize: bool | None = None

    def __post_init__(self) -> None:
        for name, least in (("probes", 2), ("steps", 1), ("top", 1)):
            object.__setattr__(self, name, integer(getattr(self, name), f"Lanczos.{name}", minimum=least))

    def estimate(self, passes: Passes, *, seed: int, bands: int | None) -> SpectrumEstimate:
        return lanczos_spectrum(
            passes, seed=seed, bands=bands, probes=self.probes, steps=self.steps, top=self.top,
            reorthogonalize=self.reorthogonalize,
        )  # fmt: skip

    def question(self) -> dict[str, Any]:
        return {"probes": self.probes, "steps": self.steps, "top": self.top}


@dataclass(frozen=True)
class Radial(SpectrumMethod):
    """Images (N, C, H, W) in one pass: power in rings of spatial frequency, C bands per ring.

    A smoothed spectrum, majorised by the exact one; bands are rings of equal width, max(H, W) / 2 unless given.

    Args:
        monotone: lambda decreasing in frequency, by weighted isotonic regression; images have it on the whole, and
            single rings only miss it by their noise.
    """

    name: ClassVar[str] = "radial"

    monotone: bool = False

    def estimate(self, passes: Passes, *, seed: int, bands: int | None) -> SpectrumEstimate:
        first = passes.source.first
        return _whole_or_seen(
            partial(radial_spectrum, passes, seed=seed, bands=bands, monotone=self.monotone),
            lambda sums: finish_radial(sums, first, seed=seed, bands=bands, monotone=self.monotone),
        )


METHODS: dict[str, type[SpectrumMethod]] = {method.name: method for method in (Exact, Lanczos, Radial)}


def _whole_or_seen(
    measure: Callable[[], SpectrumEstimate], finish: Callable[[Sums], SpectrumEstimate]
) -> SpectrumEstimate:
    """A method of one pass; where the data end early, the error has the estimate from the examples seen."""
    try:
        return measure()
    except DataEndedEarly as error:
        if error.sums is not None:
            error.estimate = partial(finish, error.sums)
        raise
