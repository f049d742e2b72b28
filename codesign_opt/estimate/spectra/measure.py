"""One entry point to the spectra of data: exact, stochastic Lanczos quadrature, or radial bandpower."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...basics.checks import choice, integer
from ...basics.ledger import Ledger
from ...basics.wording import Progress
from .exact import exact_spectrum, finish_exact
from .lanczos_spectrum import lanczos_spectrum
from .passes import DataEndedEarly, Passes
from .radial import finish_radial, radial_spectrum
from .result import SpectrumEstimate
from .source import Source

__all__ = ["spectrum"]

_EXACT_LIMIT = 4096
_METHODS = ("auto", "exact", "lanczos", "radial")


def spectrum(
    data: Any,
    *,
    method: str = "auto",
    bands: int | None = None,
    features: Callable[[torch.Tensor], torch.Tensor] | None = None,
    monotone: bool = False,
    probes: int = 16,
    steps: int = 40,
    top: int = 32,
    reorthogonalize: bool | None = None,
    examples: int | None = None,
    batch: int | None = None,
    device: Any = None,
    folder: str | Path | None = None,
    checkpoint: int = 64,
    seed: int = 0,
    progress: Progress = None,
) -> SpectrumEstimate:
    """Eigenvalues lambda_b of the data covariance with multiplicities, mean power and errors, streamed.

    docs/theory.md section 1. Sums are in float64 (float32 on devices that have no float64) about the mean
    of the first batch. Under torch.distributed every process takes its share of the batches and all get
    the same result; every process must be given the same data.

    Methods:
        "exact": one pass, the d x d covariance, every eigenvalue; one direction per band unless `bands`.
        "lanczos": steps + 4 passes, memory O(d (top + probes)) (times steps with reorthogonalisation):
            `top` eigenpairs by randomised SVD, the rest by Lanczos quadrature from random signs. Counts
            sum to d and the trace is exact.
        "radial": one pass over images (N, C, H, W), averages over rings of spatial frequency in the cosine
            basis, C bands per ring: a smoothed spectrum, majorised by the exact one.
        "auto": "exact" up to 4,096 dimensions, then "lanczos".

    Args:
        data: a tensor, an array, a Dataset, a DataLoader, a list of batches, a callable that returns an
            iterator over batches, or an iterator (methods of one pass only).
        bands: exact and lanczos: bins of equal width in log lambda; radial: rings of equal width.
        features: phi, a callable on batches; the spectrum is that of phi(x).
        monotone: radial only, lambda decreasing in frequency (weighted isotonic regression).
        probes: random probes, at least 2; the relative error of a band of n directions is about
            sqrt(2 / (n probes)).
        steps: Lanczos steps; nodes are resolved to about 1/steps^2 of the largest eigenvalue left.
        top: eigenpairs found one by one.
        reorthogonalize: see `lanczos.spectral_measures`.
        examples: how many examples the data have, or how many to use of an endless stream.
        batch: examples per batch where the data are not in batches; about 2^20 numbers if left out.
        device: where to compute; where the data are if left out.
        folder: where sums are kept every `checkpoint` batches, so that a killed call, repeated, goes on
            to the same result.
        progress: True for lines on stderr, or a function of a text.

    Raises:
        ValueError: bad data (see `Source`), data that do not vary, options outside their range, a folder
            of another question, an iterator for a method of several passes, images of other than four axes.
        DataEndedEarly: fewer examples than promised or than in the first pass; what was seen is kept.

    >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    >>> spectrum(rows).spectrum.eigenvalues.round(4).tolist()
    [0.6667, 0.1667]
    """
    choice(method, "method", _METHODS)
    bands = None if bands is None else integer(bands, "bands", minimum=1)
    seed, every = integer(seed, "seed"), integer(checkpoint, "checkpoint", minimum=1)
    numbers = {
        "probes": integer(probes, "probes", minimum=2),
        "steps": integer(steps, "steps", minimum=1),
        "top": integer(top, "top", minimum=1),
    }
    source = Source(data, batch=batch, features=features, device=device, examples=examples)
    method = _chosen(method, source)
    if monotone and method != "radial":
        raise ValueError(f'monotone=True is for method="radial"; {method!r} is in descending order by itself.')
    question = _question(source, method, seed, numbers)
    passes = Passes(source, Ledger(folder, question), every=every, progress=progress)
    if method == "lanczos":
        return lanczos_spectrum(passes, seed=seed, bands=bands, reorthogonalize=reorthogonalize, **numbers)
    try:
        if method == "exact":
            return exact_spectrum(passes, seed=seed, bands=bands)
        return radial_spectrum(passes, seed=seed, bands=bands, monotone=monotone)
    except DataEndedEarly as error:
        if error.sums is not None:
            kept = {"first": source.first, "seed": seed, "bands": bands}
            extra = {"monotone": monotone} if method == "radial" else {}
            finish: Callable[..., SpectrumEstimate] = finish_exact if method == "exact" else finish_radial
            error.estimate = partial(finish, error.sums, **kept, **extra)
        raise


def _chosen(method: str, source: Source) -> str:
    if method != "auto":
        return method
    if source.dimension <= _EXACT_LIMIT:
        return "exact"
    if not source.repeatable:
        raise ValueError(
            f"data: {source.dimension:,} dimensions need several passes, but an iterator can be read only once; "
            'give a callable that returns a new iterator, or method="radial" for images.'
        )
    return "lanczos"


def _question(source: Source, method: str, seed: int, numbers: dict[str, int]) -> dict[str, Any]:
    """What the sums depend on; the bands are formed from them afterwards."""
    name = getattr(source.features, "__qualname__", type(source.features).__name__)
    return {
        "method": f"spectrum, {method}", "shape": list(source.shape), "length": source.length, "batch": source.batch,
        "examples": source.examples, "first batch": source.digest, "features": name, "seed": seed,
        **(numbers if method == "lanczos" else {}),
    }  # fmt: skip
