"""What an estimated model prints: what was measured, how sure it is, and what to type next, in at most thirty lines."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ..basics.checks import Array
from ..basics.wording import aligned, printable, quantity
from ..ingredients.coupling import Coupling
from ..ingredients.estimation_record import EstimationRecord
from ..ingredients.network_floor import NetworkFloor
from ..ingredients.spectrum import Spectrum

__all__ = ["estimated_text"]

_ROWS, _NOTES, _WIDTH = 12, 2, 88


class _Estimated(Protocol):
    """What is told of an `EstimatedModel`, which imports this file."""

    @property
    def sigma(self) -> Array: ...

    @property
    def spectrum(self) -> Spectrum: ...

    @property
    def coupling(self) -> Coupling: ...

    @property
    def standard_errors(self) -> Mapping[str, Array]: ...

    @property
    def estimation(self) -> EstimationRecord: ...

    @property
    def trained(self) -> bool: ...

    def columns(self) -> dict[str, Array]: ...

    def heading(self) -> list[str]: ...


def estimated_text(model: _Estimated) -> str:
    """The text of an `EstimatedModel`: at most thirty lines, whatever it holds."""
    lines = [*model.heading(), *_next(model), f"Data: {model.spectrum!r}", *_denoiser(model), *_coupling(model)]
    lines += _table(model)
    record = model.estimation
    if record.evaluations:
        parts = ", ".join(f"{name} {count:,}" for name, count in record.evaluations.items())
        lines += _wrapped(f"Cost: {record.model_evaluations:,} batch evaluations ({parts})")
    for note in record.training_notes[:_NOTES]:
        lines += _wrapped(f"Note: {note}")
    if len(record.training_notes) > _NOTES:
        lines.append(f"… and {len(record.training_notes) - _NOTES} more in model.estimation.training_notes")
    return "\n".join(printable(line) for line in lines)


def _next(model: _Estimated) -> list[str]:
    if model.trained:
        return [
            "  plan with co.codesign(model, prices, budget=…), or its sampler alone with co.codesign(model, steps=K)"
        ]
    return [
        "  plan its sampler with co.codesign(model, steps=K); where to train, too, once",
        "  estimate.network(…, training=log) has read how its loss fell",
    ]


def _denoiser(model: _Estimated) -> list[str]:
    record = model.estimation
    lines = (
        _wrapped(record.denoiser_check[0][:1].upper() + record.denoiser_check[0][1:]) if record.denoiser_check else []
    )
    if record.fine_steps is not None and record.draws is not None:
        lines += _wrapped(
            f"Errors: {record.error}; {record.draws:,} draws, the fine solution of {record.fine_steps} steps is "
            f"accurate to {quantity(record.fine_accuracy, 3)}"
        )
    return lines + ([] if record.floor is None else _wrapped(_floor(record.floor)))


def _floor(floor: NetworkFloor) -> str:
    seen = "" if floor.seen else ": not told from none by so few samples"
    return (
        f"Network's own error, which no grid mends: energy distance {quantity(floor.energy, 3)} ± "
        f"{quantity(floor.energy_standard_error, 2)}, Gaussian W2² {quantity(floor.gaussian, 3)} ± "
        f"{quantity(floor.gaussian_standard_error, 2)}{seen}"
    )


def _coupling(model: _Estimated) -> list[str]:
    assumed = "assumed" if model.estimation.correlation_assumed else "measured or given"
    return _wrapped(f"Errors of training hang together over {model.coupling!r} ({assumed})") if model.trained else []


def _table(model: _Estimated) -> list[str]:
    """At most twelve levels: what a step, a stop and training leave there, with standard errors where known."""
    names = {"response": "step", "truncation": "stop", "sensitivity": "g^2", "error_variance": "kappa1"}
    columns, errors = model.columns(), model.standard_errors
    titles, cells = ["sigma"], [model.sigma]
    for name, title in names.items():
        if name in columns:
            titles, cells = [*titles, title], [*cells, np.asarray(columns[name])]
            if name in errors and np.shape(errors[name]) == model.sigma.shape:
                titles, cells = [*titles, "+-"], [*cells, np.asarray(errors[name])]
    count = model.sigma.size
    kept = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).round().astype(int))
    rows = [[quantity(column[k], 3) for column in cells] for k in kept]
    left = f"  … {count - kept.size} more levels in model.to_frame()"
    return [*aligned(titles, rows, left=()), *([left] if kept.size < count else [])]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", max_lines=2)
