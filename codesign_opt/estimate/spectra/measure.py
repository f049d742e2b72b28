"""One entry point to the spectra of data: exact, stochastic Lanczos quadrature, or radial bandpower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...basics.checks import choice, integer, takes
from ...basics.ledger import Ledger
from ...basics.progress import Progress
from ..draws.data_fingerprint import data_fingerprint
from ..draws.streams import Stream
from .methods import METHODS, Exact, Lanczos, SpectrumMethod
from .passes import Passes
from .result import SpectrumEstimate
from .source import Source

__all__ = ["spectrum"]

_EXACT_LIMIT = 4096


@takes(stream=Stream)
def spectrum(
    data: Any,
    *,
    method: str | SpectrumMethod = "auto",
    bands: int | None = None,
    features: Callable[[torch.Tensor], torch.Tensor] | None = None,
    stream: Stream | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress = None,
) -> SpectrumEstimate:
    """Eigenvalues lambda_b of the data covariance with multiplicities, mean power and errors, streamed.

    docs/theory.md section 1. Sums are in float64 (float32 on devices that have no float64) about the mean
    of the first batch. Under torch.distributed every process takes its share of the batches and all get
    the same result; every process must be given the same data.

    Args:
        data: a tensor, an array, a Dataset, a DataLoader, a list of batches, a callable that returns an
            iterator over batches, or an iterator (methods of one pass only).
        method: `Exact()`, `Lanczos(probes=16, …)` or `Radial(monotone=…)`; their names "exact", "lanczos" and
            "radial" stand for them as they come, and "auto" for "exact" up to 4,096 dimensions, then "lanczos".
        bands: exact and lanczos: bins of equal width in log lambda; radial: rings of equal width.
        features: phi, a callable on batches; the spectrum is that of phi(x).
        stream: how many examples, in which batches, on which device; see `Stream`. About 2^20 numbers at once
            unless given. Of data without a length (iterators, callables: they may be endless) the first 262,144
            examples unless it says how many, which the result's `note` tells.
        seed: of probes and of the sample that errors are measured on.
        folder: where sums are kept every `stream.checkpoint` batches, so that a killed call, repeated, goes on
            to the same result.
        progress: True, False, None (in a terminal or notebook, after 2 s), or a function of (done, total, text).

    Raises:
        ValueError: bad data (see `Source`), data that do not vary, options outside their range, a folder
            of another question, an iterator for a method of several passes, images of other than four axes.
        DataEndedEarly: fewer examples than promised or than in the first pass; what was seen is kept.

    >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    >>> spectrum(rows).spectrum.eigenvalues.round(4).tolist()
    [0.6667, 0.1667]
    """
    bands = None if bands is None else integer(bands, "bands", minimum=1)
    seed = integer(seed, "seed")
    if not isinstance(method, SpectrumMethod):
        choice(method, "method", ("auto", *METHODS))
    source = Source(data, stream, features=features)
    chosen = method if isinstance(method, SpectrumMethod) else _named(method, source)
    question = _question(source, chosen, seed)
    if folder is not None:
        question["data"] = data_fingerprint(data, source.first)
    passes = Passes(source, Ledger(folder, question), progress=progress)
    found = chosen.estimate(passes, seed=seed, bands=bands)
    return replace(found, note=source.note(found.count)) if isinstance(found, SpectrumEstimate) else found


def _named(method: str, source: Source) -> SpectrumMethod:
    if method != "auto":
        return METHODS[method]()
    if source.dimension <= _EXACT_LIMIT:
        return Exact()
    if not source.repeatable:
        raise ValueError(
            f"data: {source.dimension:,} dimensions need several passes, but an iterator can be read only once; "
            'give a callable that returns a new iterator, or method="radial" for images.'
        )
    return Lanczos()


def _question(source: Source, method: SpectrumMethod, seed: int) -> dict[str, Any]:
    """What the sums depend on; the bands are formed from them afterwards."""
    name = getattr(source.features, "__qualname__", type(source.features).__name__)
    return {
        "method": f"spectrum, {method.name}", "shape": list(source.shape), "length": source.length,
        "batch": source.batch, "examples": source.examples, "first batch": source.digest, "features": name,
        "seed": seed, **method.question(),
    }  # fmt: skip
