"""network(): everything the programs need, measured on a denoiser and its data within a budget of evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..basics.checks import Array, choice, integer, number
from ..basics.ledger import Ledger
from ..basics.wording import Progress, teller
from ..curves.estimation import learning_curves
from ..ingredients.coupling import Coupling, Local, Transfer
from ..ingredients.grids import edm_grid
from ..ingredients.process import EDM, Process
from ..models.estimated import EstimatedModel
from ..samplers.members import Heun, Sampler
from .denoisers.denoiser import Denoiser, DenoiserError
from .denoisers.same_denoiser import SAME, check_same_denoiser, shared_range
from .draws.streams import agreed, first_of, normal
from .runs.fine_solution import Draws, Reference
from .runs.step_rule import StepRule
from .spectra.measure import spectrum
from .steps.grid_error import batches_of_run
from .steps.probe import NetworkProbe
from .steps.responses import calls_of_responses, calls_of_truncation, step_responses, truncation_error
from .training_errors.checkpoint_pair import CheckpointPair, sampled_images
from .training_errors.error_coupling import Starts, error_gram
from .training_errors.sensitivity import calls_of_pairs, difference_of, sensitivity
from .training_errors.served_examples import LeftCurve, as_served, check_checkpoints, run_of
from .training_errors.transfer import TransferKernel

__all__ = ["network"]

_FIRST_STEPS = 18  # EDM's number of steps: where responses are measured before a plan exists
_LONGEST_REPORT = 60  # batch evaluations of one run that is reported
_WIDTH_LEVELS = 24  # for the transfer width: narrow against it


def network(
    denoiser: Any,
    data: Any,
    *,
    process: Process | None = None,
    sampler: Sampler | None = None,
    training: Any = None,
    other: Any = None,
    growth: float | None = None,
    coupling: Coupling | str | None = None,
    terminal: str = "denoise",
    levels: int = 12,
    images: int = 2048,
    draws: int = 64,
    fine_steps: int = 64,
    rest_steps: int = 16,
    evaluations: int = 5000,
    seconds: float | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    chunk: int = 64,
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
        growth: examples of `denoiser` over those of `other`, an earlier checkpoint of the run `training`: kappa1 is
            what the loss gained between the two on common images and noise (section 6.3), less noisy than a fit to
            the log, which is not needed then. Give it with "transfer": at high noise logs hold too few losses.
        coupling: correlation length of the errors; measured where `other` is given, else Local(). "transfer":
            `Transfer` with that length and the width, measured too, in which examples teach neighbouring levels;
            with prices, take the log-normal of the plan (`plan.training_density.lognormal()`), since such a plan
            itself leaves out levels that are only taught by their neighbours.
        terminal: "denoise" or "rescale".
        levels: noise levels M of the measurement.
        images: examples, drawn evenly from the data, on which checkpoints are compared.
        draws: starts of the sampler whose errors a grid descends; as many again stop the descent, as many
            measure the result, and half of them serve for responses and sensitivities.
        fine_steps: of the fine solution that errors are measured against (Heun's method).
        rest_steps: of the fine run behind a coarse step, where only a difference of two such runs counts.
        evaluations: batch evaluations (calls of the denoiser with up to `chunk` states) of the measurement and one
            plan for a number of steps: up to two more measurements of the responses, and a descent, which gets
            what the rest leaves.
        seconds: instead, a time: one call is timed, and `evaluations` follows.
        learning_rate, batch: of the training, where the log does not hold them: they turn kappa2 into a floor.
        chunk: states in one call of the denoiser; more where states are small.
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
    if (learning_rate is None) != (batch is None) or (learning_rate is not None and training is None):
        raise ValueError("network: learning_rate and batch go together, and with training: they scale its floor.")
    check_checkpoints(training, other, growth, coupling, data)
    curves = None if training is None or growth is not None else _curves(training)
    first, data = first_of(data)
    work = _Work.prepared(
        denoiser,
        first,
        process,
        sampler,
        terminal,
        draws,
        chunk,
        (fine_steps, rest_steps),
        seed,
        folder,
        device,
        progress,
    )
    nodes = work.nodes(integer(levels, "levels", minimum=4))
    work.check_range(nodes)
    work.check_same("denoiser", work.denoiser, nodes)
    if other is not None:
        work.check_same("other", Denoiser.of(other), nodes)
    rule = StepRule.of_grid(
        edm_grid(_FIRST_STEPS, work.reference.stopping_sigma, work.reference.draws.sigma_max, terminal=terminal)
    )
    pair = None if other is None else work.pair(other, data, integer(images, "images", minimum=32))
    work.expect(nodes, rule, trains=training is not None, directed=other is not None)
    if pair is not None and coupling == "transfer":
        work.expected["transfer width"] = pair.calls_of_width(_WIDTH_LEVELS)
    if pair is not None and growth is not None:
        work.expected["errors left"] = pair.calls_of_left(nodes.size)
    evaluations = work.budget(nodes, evaluations, seconds)
    found = spectrum(data, seed=seed, folder=work.place("spectrum"))
    work.tell(f"spectrum: {found.spectrum!r}")
    accuracy = work.counted("accuracy", lambda: work.reference.accuracy())
    truncation = work.counted(
        "truncation", lambda: truncation_error(work.reference, nodes, folder=work.place("truncation"))
    )
    responses = work.counted(
        "responses", lambda: step_responses(work.rest, nodes, rule, folder=work.place("responses/first"))
    )
    errors = {"truncation": truncation.standard_error}
    learned: dict[str, Any] = {}
    given = coupling
    kernel: TransferKernel | None = None
    if coupling is None or isinstance(coupling, str):
        local = Local() if other is None else work.coupling(other)
        kernel = None if given is None or pair is None else work.transfer(pair)
        coupling = local if kernel is None else Transfer(kernel.width, local.log_width, local.form)
    run, (low, high) = run_of(training), (work.process.sigma_min, work.process.sigma_max)
    if growth is not None and pair is not None and run is not None:
        left = work.counted("errors left", lambda: pair.left(nodes, growth))
        curves = LeftCurve.of(left, nodes, run, coupling, low, high)
    elif run is not None:
        curves = as_served(curves, run, coupling, low, high)
    if curves is not None:
        learned, more = work.learned(curves, nodes, coupling, found.spectrum.sigma_data, other, learning_rate, batch)
        errors |= more
    provenance = {
        "source": "network", "denoiser": work.denoiser.name, "seed": seed, "draws": draws,
        "dimension": found.spectrum.dimension, "fine_steps": fine_steps,
        "fine_accuracy": float(accuracy.value), "evaluations": dict(work.expected),
        "correlation_length": "assumed" if given is None and other is None else "measured or given",
        "transfer_width_error": None if kernel is None else kernel.standard_error,
        "training_notes": _training_notes(curves, nodes, learned),
        "gram_standard_error": float(np.max(responses.gram.standard_error) / max(np.max(responses.gram.value), 1e-300)),
    }  # fmt: skip
    work.tell(f"batch evaluations: {', '.join(f'{name} {count:,}' for name, count in work.expected.items())}")
    return EstimatedModel(
        nodes,
        responses.scaled_response,
        truncation.value,
        found.spectrum,
        process=work.process,
        sampler=work.sampler,
        terminal=terminal,
        coupling=coupling,
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
    expected: dict[str, int]  # batch evaluations by part: of the whole work, whatever an earlier call finished

    @classmethod
    def prepared(
        cls,
        denoiser: Any,
        first: torch.Tensor,
        process: Process | None,
        sampler: Sampler | None,
        terminal: str,
        draws: int,
        chunk: int,
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
        like = torch.zeros((), dtype=first.dtype, device=first.device if device is None else torch.device(device))
        low, high = shared_range(process, wrapped)
        if (low, high) != (process.sigma_min, process.sigma_max):
            process = EDM(low, high)  # the part of the process that the network was trained on
        count = integer(draws, "draws", minimum=2)
        start = Draws(tuple(first.shape[1:]), count, high, seed, "descent", chunk=chunk, like=like)
        fine, rest = (
            Reference(wrapped, sampler, start, low, terminal, integer(count, name, minimum=4))
            for count, name in zip(steps, ("fine_steps", "rest_steps"), strict=True)
        )
        rest = rest.with_draws(replace(start, count=max(2, draws // 2)))  # a plan to start from; errors need more
        place = None if folder is None else Path(folder)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        return cls(wrapped, fine, rest, process, sampler, terminal, place, teller(progress), {})

    def place(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def counted(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part of the work, with its calls of the denoiser and its time."""
        before, start = self.denoiser.calls, time.monotonic()
        result = compute()
        self.tell(f"{name}: {self.denoiser.calls - before} batch evaluations, {time.monotonic() - start:.1f} s")
        return result

    def nodes(self, count: int) -> Array:
        """Noise levels of the measurement; the lowest leaves room for a step."""
        low, high = self.reference.stopping_sigma, self.reference.draws.sigma_max
        return np.geomspace(low * (high / low) ** (1 / count), high, count)

    @torch.no_grad()
    def check_range(self, nodes: Array) -> None:
        """One call at every level: a denoiser that fails anywhere is known before the work begins."""
        states, name = self._states(4), self.denoiser.name
        try:
            self.denoiser(states[:2] * float(nodes[-1]), float(nodes[-1]))
        except RuntimeError as error:
            own = next((p.dtype for p in getattr(self.denoiser.function, "parameters", list)()), None)
            said = "" if own is None else f" (its parameters are {own})"
            raise DenoiserError(
                f"denoiser {name!r} fails on states of {states.dtype} on {states.device}, shape {tuple(states.shape)}: "
                f"{error}. The states take the dtype of the data{said}; give data in the network's dtype."
            ) from error
        for sigma in [self.reference.stopping_sigma, *nodes]:
            x = float(sigma) * states
            two, again = self.denoiser(x[:2], float(sigma)), self.denoiser(x, float(sigma))[:2]
            apart = float((two - again).abs().max()) / max(float(two.abs().max()), 1e-30)
            if apart > SAME:
                raise DenoiserError(
                    f"denoiser {name!r} at sigma {float(sigma):.4g}: the same two states give answers {apart:.2g} "
                    "apart (relative), alone and in a batch of four; a network in training mode (dropout, batch "
                    "normalisation) is random: call .eval() first."
                )

    @torch.no_grad()
    def check_same(self, name: str, denoiser: Denoiser, nodes: Array) -> None:
        """The folder's items are of this denoiser: it answers as the one did that they were measured on."""
        question = {"levels": nodes.tolist(), "seed": self.reference.draws.seed}
        place = self.place(f"answers/{name}")
        check_same_denoiser(denoiser, nodes, self._states(4), place, question, name=name, within=self.folder)

    def _states(self, count: int) -> torch.Tensor:
        draws = self.reference.draws
        return normal(draws.seed, "check", shape=(count, *draws.shape), like=draws.like)

    def expect(self, nodes: Array, rule: StepRule, *, trains: bool, directed: bool) -> None:
        """Batch evaluations of every part, known beforehand: a call that goes on plans with the same budget."""
        half = replace(self.reference, steps=self.reference.steps // 2)
        self.expected["accuracy"] = self.reference.path().calls() + half.path().calls()
        self.expected["truncation"] = calls_of_truncation(self.reference, nodes)
        self.expected["responses"] = calls_of_responses(self.rest, nodes, rule)
        if trains:
            directions = self.rest.draws.chunks * nodes.size if directed else 0
            self.expected["sensitivity"] = calls_of_pairs(self.rest, nodes) + directions

    def budget(self, nodes: Array, evaluations: int, seconds: float | None) -> int:
        """Batch evaluations in all; refused where measuring the responses three times takes more."""
        if seconds is not None:
            wanted = number(seconds, "seconds", positive=True)
            ledger = Ledger(self.place("budget"), {"seconds": wanted})
            found = ledger.item("budget", lambda: {"calls": np.array([wanted / self._seconds_per_call()])})
            evaluations = max(1, int(agreed(found["calls"])[0]))
        fixed = sum(self.expected.values()) + 2 * self.expected["responses"]
        if integer(evaluations, "evaluations", minimum=1) < fixed:
            raise ValueError(
                f"evaluations is {evaluations:,}; measuring {nodes.size} levels three times on "
                f"{self.reference.draws.count} draws takes about {fixed:,} batch evaluations, and a descent some more. "
                "Give more, or fewer levels, draws or fine_steps."
            )
        return evaluations

    def left(self, evaluations: int) -> int:
        """What measuring again and a descent may take: all but the model and the final report."""
        zero = self.terminal == "denoise"
        fine = batches_of_run(self.reference.fine, self.reference.steps, to_zero=zero)
        report = self.reference.draws.chunks * (fine + 4 * _LONGEST_REPORT)
        return max(0, evaluations - sum(self.expected.values()) - report)

    @torch.no_grad()
    def _seconds_per_call(self) -> float:
        x = self.reference.draws.start(0)
        self.denoiser(x, self.reference.draws.sigma_max)  # the first call of a network takes longer
        start = time.monotonic()
        for _ in range(3):
            self.denoiser(x, self.reference.draws.sigma_max)
        return max((time.monotonic() - start) / 3, 1e-9)

    def learned(
        self,
        curves: Any,
        nodes: Array,
        coupling: Coupling,
        spread: float,
        other: Any,
        learning_rate: float | None,
        batch: int | None,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Learning curves at the nodes and the sensitivity of the output, with their standard errors."""
        direction = None if other is None else difference_of(self.denoiser, other)
        gain = self.counted(
            "sensitivity",
            lambda: sensitivity(self.rest, nodes, direction=direction, folder=self.place("sensitivity")),
        ).gain
        rate = 0.0
        if learning_rate is not None:
            rate = number(learning_rate, "learning_rate", positive=True) / integer(batch, "batch", minimum=1)
        # kappa1 was fitted to examples within the curves' correlation length; the model counts those within its own
        within = getattr(curves, "log_width", None)
        scale = 1.0 if within is None else coupling.lengths_at(nodes, nodes[0], nodes[-1]) / within

        def shape(sigma: Array) -> Array:  # errors fall as sigma^2 below the data's scale: interpolated beside that
            return 1 / (1 + (spread / sigma) ** 2)

        def at_nodes(values: Array) -> Array:
            return shape(nodes) * np.interp(np.log(nodes), np.log(curves.sigma), values / shape(curves.sigma))

        values = {
            "sensitivity": np.maximum(gain.value, 0.0),
            "error_variance": scale * at_nodes(curves.reducible),
            "error_floor": rate * at_nodes(curves.step_noise),
        }
        errors = {"sensitivity": gain.standard_error, "error_variance": scale * at_nodes(curves.reducible_error)}
        return values, errors

    def pair(self, other: Any, data: Any, images: int) -> CheckpointPair:
        """The network and `other` on common images of the data."""
        draws = self.reference.draws
        read = partial(sampled_images, data, images, seed=draws.seed, like=draws.like)
        return CheckpointPair(Denoiser.of(other), self.denoiser, read, images, draws.seed, self.place("checkpoints"))

    def transfer(self, pair: CheckpointPair) -> TransferKernel:
        """The width in which examples teach neighbouring levels."""
        low, high = self.process.sigma_min, self.process.sigma_max
        kernel = self.counted("transfer width", lambda: pair.width(low, high, _WIDTH_LEVELS))
        self.tell(repr(kernel))
        return kernel

    def coupling(self, other: Any) -> Local:
        """The measured correlation length of the difference between two denoisers."""
        low, high = self.reference.stopping_sigma, self.reference.draws.sigma_max
        grid = edm_grid(_FIRST_STEPS, low, high, terminal=self.terminal)
        draws = self.reference.draws
        found = self.counted(
            "correlation length",
            lambda: error_gram(
                self.denoiser, other, self.sampler, grid,
                Starts(draws.shape, min(draws.count, 16), 16, like=draws.like),
                seed=draws.seed, folder=self.place("correlation"),
            ),
        )  # fmt: skip
        self.expected["correlation length"] = -(-found.evaluations // min(draws.count, 16))
        length = found.correlation_length()
        self.tell(f"{length!r}")
        return length.coupling("gram")

    def probe(self, nodes: Array, budget: int) -> NetworkProbe:
        draws = self.reference.draws

        def others(name: str) -> Draws:
            return replace(draws, name=name)

        again = int(1.1 * self.expected["responses"])
        return NetworkProbe(
            self.reference,
            self.rest,
            nodes,
            others("held out"),
            others("report"),
            budget,
            again,
            self.folder,
            self.tell,
        )


def _training_notes(curves: Any, nodes: Array, learned: dict[str, Any]) -> list[str]:
    """What the learning curves said, and first where they leave nothing to train."""
    notes = list(getattr(curves, "notes", ()))
    if curves is None or not np.any(learned["error_variance"] == 0):
        return notes
    nothing = ", ".join(f"{sigma:.3g}" for sigma in nodes[learned["error_variance"] == 0])
    said = f"kappa1 is 0 at sigma = {nothing}, where a plan gives no examples; "
    if isinstance(curves, LeftCurve):
        return [said + "the loss did not fall there between the checkpoints: give more images", *notes]
    return [said + 'with a noisy log, smooth it: training=co.learning_curves(run, smoothing="spline")', *notes]


def _curves(training: Any) -> Any:
    """Learning curves, read before anything is measured; a log whose losses stand still is refused."""
    curves = training if hasattr(training, "reducible") else learning_curves(training)
    found, error = np.asarray(curves.reducible), np.asarray(curves.reducible_error)
    least = 1e-9 * np.asarray(getattr(curves, "bayes_floor", 0.0))
    if not np.any((found > 2 * np.where(np.isfinite(error), error, np.inf)) & (found > least)):
        raise ValueError(
            "network: training: at no noise level do the losses fall with the examples beyond their scatter, so that "
            "nothing can be said about training; log from its beginning, with more rows, or plan for steps alone."
        )
    return curves
