"""network(): everything the programs need, measured on a denoiser and its data within a budget of evaluations."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._validate import Array, choice, integer, number
from ..coupling import Coupling, Local
from ..curve_estimation import learning_curves
from ..estimated import EstimatedModel
from ..grids import edm_grid
from ..process import EDM, Process
from ..samplers import Heun, Sampler
from .denoiser import Denoiser
from .error_coupling import error_gram
from .grid_error import batches_of_run
from .local_error import step_responses, truncation_error
from .network_probe import NetworkProbe
from .reference import Draws, Reference
from .sensitivity import difference_of, sensitivity
from .spectra import spectrum
from .step_rule import StepRule
from .streams import batches

__all__ = ["network"]

_FIRST_STEPS = 18  # EDM's number of steps: where responses are measured before a plan exists
_LONGEST_REPORT = 60  # batch evaluations of one run that is reported
Progress = bool | Callable[[str], None] | None


def network(
    denoiser: Any,
    data: Any,
    *,
    process: Process | None = None,
    sampler: Sampler | None = None,
    training: Any = None,
    other: Any = None,
    coupling: Coupling | None = None,
    terminal: str = "denoise",
    levels: int = 12,
    draws: int = 64,
    fine_steps: int = 64,
    rest_steps: int = 16,
    evaluations: int = 5000,
    seconds: float | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    device: Any = None,
    progress: Progress = None,
) -> EstimatedModel:
    """A denoiser, its data and its training log as a model that `codesign` plans with.

    Measured, in this order: the spectrum of the data; the fine solution and its own accuracy; what
    stopping early costs (docs/theory.md section 2); the responses to one coarse step at every level and
    their Gram matrix (3.4); with `training`, learning curves (section 5) and the sensitivity of the
    output to an error at every level (section 4); with `other`, the correlation length of the errors
    (section 6). `codesign` measures the responses again at its own plan's steps and descends the
    measured error of the final grid. Every finished item is kept in `folder`: the same call goes on.

    Args:
        denoiser: callable (x, sigma) -> x0 in the rescaled state; see `estimate.adapters` for others.
        data: tensor, array, Dataset, DataLoader or iterable of batches of training examples.
        process: forward process; its sigma range is planned over. EDM unless given.
        sampler: any sampler of the library. Heun unless given.
        training: TrainingRun with a log, or its path, read by `learning_curves`; or the result of any route of
            section 5 (LearningCurves, GradientNoise, replicated runs). Without it only the sampler is planned.
        other: a second denoiser (an earlier checkpoint, or the last iterate beside its average): the
            difference is taken for the direction of the errors.
        coupling: correlation length of the errors; measured where `other` is given, else Local().
        terminal: "denoise" or "rescale".
        levels: noise levels M of the measurement.
        draws: starts of the sampler whose errors a grid descends; as many again stop the descent, as many
            measure the result, and half of them serve for responses and sensitivities.
        fine_steps: of the fine solution that errors are measured against (Heun's method).
        rest_steps: of the fine run behind a coarse step, where only a difference of two such runs counts.
        evaluations: batch evaluations (calls of the denoiser with up to 64 states) of the measurement and one
            plan for a number of steps: two more measurements of the responses, and a descent, which gets
            what the rest leaves.
        seconds: instead, a time: one call is timed, and `evaluations` follows.
        learning_rate, batch: of the training, where the log does not hold them: they turn kappa2 into a floor.
        seed: of all draws.
        folder: where finished items are kept.
        device: of the states; the data's unless given.
        progress: True for lines on stderr, or a function of a text.

    Returns:
        EstimatedModel with its probe; `provenance["evaluations"]` counts the calls, part by part.

    Raises:
        ValueError: a malformed argument, or a budget below the fixed part, which the message names.
        DenoiserError: a denoiser that fails at some noise level; what was finished stays in `folder`.

    >>> from codesign_opt import codesign, Euler
    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> clean = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> model = network(clean, x, sampler=Euler(), levels=8, draws=16)
    >>> codesign(model, steps=6, points=3, levels=40).number_of_steps
    6
    """
    work = _Work.prepared(
        denoiser, data, process, sampler, terminal, draws, (fine_steps, rest_steps), seed, folder, device, progress
    )
    nodes = work.nodes(integer(levels, "levels", minimum=4))
    work.check_range(nodes)
    evaluations = work.budget(nodes, evaluations, seconds, training is not None)
    found = spectrum(data, seed=seed, folder=work.place("spectrum"))
    work.tell(f"spectrum: {found.spectrum!r}")
    accuracy = work.counted("accuracy", lambda: work.reference.accuracy())
    truncation = work.counted(
        "truncation", lambda: truncation_error(work.reference, nodes, folder=work.place("truncation"))
    )
    first = StepRule.of_grid(
        edm_grid(_FIRST_STEPS, work.reference.stopping_sigma, work.reference.draws.sigma_max, terminal=terminal)
    )
    responses = work.counted(
        "responses", lambda: step_responses(work.rest, nodes, first, folder=work.place("responses/first"))
    )
    errors = {"truncation": truncation.standard_error}
    learned: dict[str, Any] = {}
    if training is not None:
        learned, spread = work.learned(training, nodes, other, learning_rate, batch)
        errors |= spread
    if coupling is None and other is not None:
        coupling = work.coupling(other)
    provenance = {
        "source": "network", "denoiser": work.denoiser.name, "seed": seed, "draws": draws,
        "dimension": found.spectrum.dimension, "fine_steps": fine_steps,
        "fine_accuracy": float(accuracy.value), "evaluations": dict(work.calls),
        "correlation_length": "assumed" if coupling is None else "measured or given",
        "gram_standard_error": float(np.max(responses.gram.standard_error) / max(np.max(responses.gram.value), 1e-300)),
    }  # fmt: skip
    work.tell(f"batch evaluations: {', '.join(f'{name} {count:,}' for name, count in work.calls.items())}")
    return EstimatedModel(
        nodes,
        responses.scaled_response,
        truncation.value,
        found.spectrum,
        process=work.process,
        sampler=work.sampler,
        terminal=terminal,
        coupling=coupling or Local(),
        standard_errors=errors,
        provenance=provenance,
        probe=work.probe(nodes, work.left(evaluations)),
        **learned,
    )


@dataclass(eq=False)
class _Work:
    """One estimation: what it measures with, where it keeps items, and what it has cost so far."""

    denoiser: Denoiser
    reference: Reference
    rest: Reference
    process: Process
    sampler: Sampler
    terminal: str
    folder: Path | None
    tell: Callable[[str], None]
    calls: dict[str, int]

    @classmethod
    def prepared(
        cls,
        denoiser: Any,
        data: Any,
        process: Process | None,
        sampler: Sampler | None,
        terminal: str,
        draws: int,
        steps: tuple[int, int],
        seed: int,
        folder: str | Path | None,
        device: Any,
        progress: Progress,
    ) -> _Work:
        wrapped = Denoiser.of(denoiser)
        process, sampler = process or EDM(), sampler or Heun()
        if not isinstance(process, Process):
            raise ValueError(f"network: process is {process!r}; a Process is needed, such as co.EDM().")
        if not isinstance(sampler, Sampler):
            raise ValueError(f"network: sampler is {sampler!r}; a Sampler is needed, such as co.Heun().")
        choice(terminal, "network: terminal", ("denoise", "rescale"))
        first = next(batches(data))
        like = torch.zeros((), dtype=first.dtype, device=first.device if device is None else device)
        low, high = _range(process, wrapped)
        if (low, high) != (process.sigma_min, process.sigma_max):
            process = EDM(low, high)  # the part of the process that the network was trained on
        start = Draws(tuple(first.shape[1:]), integer(draws, "draws", minimum=2), high, seed, "descent", like=like)
        fine, rest = (
            Reference(wrapped, sampler, start, low, terminal, integer(count, name, minimum=4))
            for count, name in zip(steps, ("fine_steps", "rest_steps"), strict=True)
        )
        rest = rest.with_draws(replace(start, count=max(2, draws // 2)))  # a plan to start from; errors need more
        place = None if folder is None else Path(folder)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        return cls(wrapped, fine, rest, process, sampler, terminal, place, _teller(progress), {})

    def place(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def counted(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part of the work, with its calls of the denoiser and its time."""
        before, start = self.denoiser.calls, time.monotonic()
        result = compute()
        self.calls[name] = self.calls.get(name, 0) + self.denoiser.calls - before
        self.tell(f"{name}: {self.denoiser.calls - before} batch evaluations, {time.monotonic() - start:.1f} s")
        return result

    def nodes(self, count: int) -> Array:
        """Noise levels of the measurement; the lowest leaves room for a step."""
        low, high = self.reference.stopping_sigma, self.reference.draws.sigma_max
        return np.geomspace(low * (high / low) ** (1 / count), high, count)

    @torch.no_grad()
    def check_range(self, nodes: Array) -> None:
        """One call at every level: a denoiser that fails anywhere is known before the work begins."""
        for sigma in [self.reference.stopping_sigma, *nodes]:
            x = self.reference.draws.start(0)[:2] * (float(sigma) / self.reference.draws.sigma_max)
            self.denoiser(x, float(sigma))

    def budget(self, nodes: Array, evaluations: int, seconds: float | None, trains: bool) -> int:
        """Batch evaluations in all; refused where measuring the responses three times leaves too few."""
        if seconds is not None:
            evaluations = max(1, int(number(seconds, "seconds", positive=True) / self._seconds_per_call()))
        chunks, zero = self.reference.draws.chunks, self.terminal == "denoise"
        fine, rest = (batches_of_run(r.fine, r.steps, to_zero=zero) for r in (self.reference, self.rest))
        once = chunks * (nodes.size + 2) * (rest + 2 * nodes.size) // 2  # the nodes cut steps of the rest in two
        fixed = 3 * once + 6 * chunks * fine + (2 * once if trains else 0)
        if integer(evaluations, "evaluations", minimum=1) < 1.2 * fixed:
            raise ValueError(
                f"evaluations is {evaluations:,}; measuring {nodes.size} levels three times on "
                f"{self.reference.draws.count} draws takes about {fixed:,} batch evaluations, and a descent some more. "
                "Give more, or fewer levels, draws or fine_steps."
            )
        return evaluations

    def left(self, evaluations: int) -> int:
        """What a descent may take: all but what was spent, two more measurements, and the final report."""
        zero = self.terminal == "denoise"
        fine = batches_of_run(self.reference.fine, self.reference.steps, to_zero=zero)
        report = self.reference.draws.chunks * (fine + 4 * _LONGEST_REPORT)
        return max(0, evaluations - sum(self.calls.values()) - int(2.2 * self.calls["responses"]) - report)

    @torch.no_grad()
    def _seconds_per_call(self) -> float:
        x = self.reference.draws.start(0)
        start = time.monotonic()
        for _ in range(3):
            self.denoiser(x, self.reference.draws.sigma_max)
        return max((time.monotonic() - start) / 3, 1e-9)

    def learned(
        self, training: Any, nodes: Array, other: Any, learning_rate: float | None, batch: int | None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Learning curves at the nodes and the sensitivity of the output, with their standard errors."""
        curves = training if hasattr(training, "reducible") else learning_curves(training)
        direction = None if other is None else difference_of(self.denoiser, other)
        gain = self.counted(
            "sensitivity",
            lambda: sensitivity(self.rest, nodes, direction=direction, folder=self.place("sensitivity")),
        ).gain
        rate = 0.0
        if learning_rate is not None:
            rate = number(learning_rate, "learning_rate", positive=True) / integer(batch, "batch", minimum=1)

        def at_nodes(values: Array) -> Array:
            return np.interp(np.log(nodes), np.log(curves.sigma), values)

        values = {
            "sensitivity": np.maximum(gain.value, 0.0),
            "error_variance": at_nodes(curves.reducible),
            "error_floor": rate * at_nodes(curves.step_noise),
        }
        errors = {"sensitivity": gain.standard_error, "error_variance": at_nodes(curves.reducible_error)}
        return values, errors

    def coupling(self, other: Any) -> Coupling:
        """The measured correlation length of the difference between two denoisers."""
        low, high = self.reference.stopping_sigma, self.reference.draws.sigma_max
        grid = edm_grid(_FIRST_STEPS, low, high, terminal=self.terminal)
        draws = self.reference.draws
        found = self.counted(
            "correlation length",
            lambda: error_gram(
                self.denoiser, other, self.sampler, grid, shape=draws.shape, draws=min(draws.count, 16), batch=16,
                like=draws.like, seed=draws.seed, folder=self.place("correlation"),
            ),
        )  # fmt: skip
        length = found.correlation_length()
        self.tell(f"{length!r}")
        return length.coupling("gram")

    def probe(self, nodes: Array, budget: int) -> NetworkProbe:
        draws = self.reference.draws

        def others(name: str) -> Draws:
            return Draws(draws.shape, draws.count, draws.sigma_max, draws.seed, name, like=draws.like)

        return NetworkProbe(
            self.reference, self.rest, nodes, others("held out"), others("report"), budget, self.folder, self.tell
        )


def _range(process: Process, denoiser: Denoiser) -> tuple[float, float]:
    """The noise levels that both the process and the network cover."""
    low, high = process.sigma_min, process.sigma_max
    if denoiser.sigma_range is not None:
        low, high = max(low, denoiser.sigma_range[0]), min(high, denoiser.sigma_range[1])
    if not low < high:
        raise ValueError(
            f"the process runs from {process.sigma_min:.4g} to {process.sigma_max:.4g}, the network from "
            f"{denoiser.sigma_range}; they share no noise levels."
        )
    return low, high


def _teller(progress: Progress) -> Callable[[str], None]:
    if callable(progress):
        return progress
    if progress:
        return lambda text: print(text, file=sys.stderr, flush=True)
    return lambda text: None
