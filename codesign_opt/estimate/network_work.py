"""What `network` measures with: the denoiser, its fine solutions, the folder of finished items, and the costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..basics.checks import Array, as_path, choice
from ..basics.ledger import Ledger
from ..basics.progress import Teller, teller
from ..ingredients.grids import edm_grid
from ..ingredients.network_floor import NetworkFloor
from ..ingredients.process import EDM, Process
from ..samplers.base import Sampler
from ..samplers.members import Heun
from .denoisers.check_result import DenoiserCheck
from .denoisers.denoiser import Denoiser, DenoiserError
from .denoisers.denoiser_check import MOST_CALLS, checked
from .denoisers.pure import check_alone, check_pure
from .denoisers.same_denoiser import check_same_denoiser, shared_range
from .draws.statistics import Estimate
from .draws.streams import agreed, example_draws, examples_at_hand, normal
from .fine_to_data import fine_to_data
from .measurement import Measurement
from .runs.fine_solution import Draws, Reference
from .runs.step_rule import StepRule
from .spectra.result import SpectrumEstimate
from .steps.probe import NetworkProbe
from .steps.responses import Responses, calls_of_responses, calls_of_truncation, step_responses, truncation_error
from .steps.stated_error import StatedErrors

__all__ = ["MeasuredSampling", "NetworkWork", "Sampling"]

_FIRST_STEPS = 18  # EDM's number of steps: where responses are measured before a plan exists
_SAID = 4  # times the draws of a descent, on which the errors of grids are said


@dataclass(frozen=True)
class Sampling:
    """What is sampled with: process, sampler and last step."""

    process: Process
    sampler: Sampler
    terminal: str

    @classmethod
    def of(cls, process: Process | str | None, sampler: Sampler | str | None, terminal: str) -> Sampling:
        """EDM and Heun unless given."""
        return cls(
            EDM() if process is None else Process.named(process, "network: process"),
            Heun() if sampler is None else Sampler.named(sampler, "network: sampler"),
            terminal,
        )

    def __post_init__(self) -> None:
        self.sampler.check_network_step()
        self.sampler.check_plannable()
        choice(self.terminal, "network: terminal", ("denoise", "rescale"))


@dataclass(frozen=True, eq=False)
class MeasuredSampling:
    """What a plan for sampling needs.

    Attributes:
        accuracy: squared distance of the fine solution to the one of half its steps.
        floor: distance of the fine solution to the data; None for too few of either.
        truncation: (M,) what stopping at each node costs.
        responses: to one coarse step at each node.
    """

    accuracy: Estimate
    floor: NetworkFloor | None
    truncation: Estimate
    responses: Responses


@dataclass(frozen=True, eq=False)
class NetworkWork:
    """One estimation: what it measures with, where it keeps items, and what its parts cost.

    Args:
        denoiser: what is measured.
        reference: the fine solution, on the draws that a grid descends.
        rest: the same with fewer steps on fewer draws, behind coarse steps.
        said: fine solutions on the draws that errors are said of.
        sampling: process (cut to the levels the network knows), sampler and last step.
        measurement: how finely.
        folder: where finished items are kept; None for memory.
        expected: batch evaluations by part, of the whole work, whatever an earlier call finished.
    """

    denoiser: Denoiser
    reference: Reference
    rest: Reference
    said: StatedErrors
    sampling: Sampling
    measurement: Measurement
    folder: Path | None
    expected: dict[str, int] = field(default_factory=dict)
    _made: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def prepared(
        cls,
        denoiser: Any,
        first: torch.Tensor,
        sampling: Sampling,
        measurement: Measurement,
        seed: int,
        folder: str | Path | None,
    ) -> NetworkWork:
        """Fine solutions for states like the `first` batch of the data."""
        wrapped = Denoiser.of(denoiser)
        low, high = shared_range(sampling.process, wrapped)
        if (low, high) != (sampling.process.sigma_min, sampling.process.sigma_max):
            sampling = replace(sampling, process=EDM(low, high))  # the part that the network was trained on
        device = first.device if measurement.device is None else torch.device(measurement.device)
        like = torch.zeros((), dtype=first.dtype, device=device)
        draws = measurement.draws
        start = Draws(tuple(first.shape[1:]), draws, high, seed, "descent", chunk=measurement.chunk, like=like)
        fine, rest = (
            Reference(wrapped, sampling.sampler, start, low, sampling.terminal, steps)
            for steps in (measurement.fine_steps, measurement.rest_steps)
        )
        rest = rest.with_draws(replace(start, count=max(2, draws // 2)))  # a plan to start from; errors need more
        place = None if folder is None else as_path(folder, "folder")
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        report = replace(start, count=_SAID * draws, name="report")
        said = StatedErrors(fine.with_draws(report), None if place is None else place / "said")
        return cls(wrapped, fine, rest, said, sampling, measurement, place)

    # places and words

    def place(self, name: str) -> Path | None:
        """Where items of one kind are kept."""
        return None if self.folder is None else self.folder / name

    @cached_property
    def tell(self) -> Teller:
        """What takes the progress: one for the whole work, since in a terminal it waits two seconds."""
        return teller(self.measurement.progress)

    def counted(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part of the work, with its calls of the denoiser and its time."""
        before, start = self.denoiser.calls, time.monotonic()
        result = compute()
        made = self.denoiser.calls - before
        finished = max(made, self.expected.get(name, 0))  # what an earlier call made is done, too
        self.tell(f"{name}: {made} batch evaluations, {time.monotonic() - start:.1f} s", *self._of_all(finished))
        return result

    def _of_all(self, finished: int) -> tuple[int, int] | tuple[()]:
        """Batch evaluations that are done, of all that are expected; nothing before that is known."""
        self._made[0] += finished
        total = sum(self.expected.values())
        return (min(self._made[0], total), total) if total else ()

    # what is measured of the sampler

    def measured(self, first: torch.Tensor, data: Any) -> MeasuredSampling:
        """The fine solution's own accuracy and distance to the data, truncation and responses at the nodes."""
        accuracy, samples = self.counted("fine solution", lambda: (self.said.accuracy(), self.said.samples()))
        count = min(self.measurement.images, examples_at_hand(data, first))
        examples = example_draws(data, first, count, seed=self.reference.draws.seed, like=torch.zeros(()))
        truncation = partial(truncation_error, self.reference, self.nodes, folder=self.place("truncation"))
        place = self.place("responses/first")
        responses = partial(step_responses, self.rest, self.nodes, self.first_steps, folder=place)
        found = self.counted("truncation", truncation), self.counted("responses", responses)
        return MeasuredSampling(accuracy, fine_to_data(samples, examples), *found)

    def provenance(self, found: MeasuredSampling) -> dict[str, Any]:
        """Where the numbers come from, as plain values."""
        gram = found.responses.gram
        return {
            "source": "network",
            "denoiser": self.denoiser.name,
            "seed": self.reference.draws.seed,
            "draws": self.measurement.draws,
            "fine_steps": self.measurement.fine_steps,
            "fine_accuracy": float(found.accuracy.value),
            "floor": None if found.floor is None else asdict(found.floor),
            "evaluations": dict(self.expected),
            "gram_standard_error": float(np.max(gram.standard_error) / max(np.max(gram.value), 1e-300)),
        }

    # levels and grids

    @property
    def nodes(self) -> Array:
        """(M,) noise levels of the measurement; the lowest leaves room for a step."""
        count, low, high = self.measurement.levels, self.reference.stopping_sigma, self.reference.draws.sigma_max
        return np.geomspace(low * (high / low) ** (1 / count), high, count)

    @property
    def first_grid(self) -> Array:
        """EDM's grid, for what is measured before a plan exists."""
        low, high = self.reference.stopping_sigma, self.reference.draws.sigma_max
        return edm_grid(_FIRST_STEPS, low, high, terminal=self.sampling.terminal)

    @property
    def first_steps(self) -> StepRule:
        """The steps of that grid."""
        return StepRule.of_grid(self.first_grid)

    # checks

    def check_answers(self) -> None:
        """A denoiser that fails anywhere, or answers by anything but its arguments, is known before the work begins."""
        self._check_range()

    def check_denoiser(self, first: torch.Tensor, data: Any, spectrum: SpectrumEstimate) -> DenoiserCheck:
        """The denoiser can be one of these data; a check that it passed is kept, so that a call that goes on has it.

        Raises:
            DenoiserError: it cannot; nothing of it is kept.
        """
        draws, chunk = self.reference.draws, self.measurement.chunk

        def look() -> dict[str, Any]:
            count = max(4, min(chunk, 256))
            examples = example_draws(data, first, count, seed=draws.seed, like=draws.like)
            found = checked(self.denoiser, examples, spectrum, self.sampling.process, chunk=chunk, seed=draws.seed)
            found.check()
            return found.record()

        question = {"seed": draws.seed, "chunk": chunk, "sigma_min": self.reference.stopping_sigma}
        kept = Ledger(self.place("denoiser check"), {**question, "sigma_max": draws.sigma_max})
        result = DenoiserCheck.from_record(self.counted("denoiser check", lambda: kept.item("check", look)))
        self.expected["denoiser check"] = result.evaluations
        self.tell(str(result))
        return result

    def check_same(self, other: Any) -> None:
        """A folder of another denoiser is known before the work begins."""
        self._check_same("denoiser", self.denoiser)
        if other is not None:
            self._check_same("other", Denoiser.of(other))

    @torch.no_grad()
    def _check_range(self) -> None:
        """One call at every level."""
        states, highest = self._states(4), float(self.nodes[-1])
        try:
            check_pure(self.denoiser, states, highest)
        except DenoiserError as error:
            if not isinstance(error.__cause__, RuntimeError):
                raise
            own = next((p.dtype for p in getattr(self.denoiser.function, "parameters", list)()), None)
            said = "" if own is None else f" (its parameters are {own})"
            raise DenoiserError(
                f"{str(error).rstrip('.')}. They have the shape and the device of the data{said}."
            ) from error.__cause__
        for sigma in [self.reference.stopping_sigma, *self.nodes]:
            check_alone(self.denoiser, states, float(sigma))

    def _check_same(self, name: str, denoiser: Denoiser) -> None:
        """The folder's items are of this denoiser: it answers as the one did that they were measured on."""
        nodes = self.nodes
        question = {"levels": nodes.tolist(), "seed": self.reference.draws.seed}
        place = self.place(f"answers/{name}")
        check_same_denoiser(denoiser, nodes, self._states(4), place, question, name=name, within=self.folder)

    def _states(self, count: int) -> torch.Tensor:
        draws = self.reference.draws
        return normal(draws.seed, "check", shape=(count, *draws.shape), like=draws.like)

    # costs

    def expect(self, check: bool) -> None:
        """Batch evaluations of the sampler's parts, known beforehand: a call that goes on plans with as many."""
        if check:
            self.expected["denoiser check"] = MOST_CALLS  # at most, until it was made
        self.expected["fine solution"] = self.said.cost_of_ends()
        self.expected["truncation"] = calls_of_truncation(self.reference, self.nodes)
        self.expected["responses"] = calls_of_responses(self.rest, self.nodes, self.first_steps)

    def budget(self) -> int:
        """Batch evaluations in all; refused where measuring the responses three times takes more."""
        evaluations = self.measurement.evaluations
        if self.measurement.seconds is not None:
            evaluations = self._evaluations_within(self.measurement.seconds)
        fixed = sum(self.expected.values()) + 2 * self.expected["responses"]
        if evaluations < fixed:
            raise ValueError(
                f"evaluations is {evaluations:,}; measuring {self.nodes.size} levels three times on "
                f"{self.reference.draws.count} draws takes about {fixed:,} batch evaluations, and a descent some more. "
                "Give more, or fewer levels, draws or fine_steps."
            )
        return evaluations

    def left(self, evaluations: int) -> int:
        """What a plan may take: all but the model."""
        return max(0, evaluations - sum(self.expected.values()))

    def _evaluations_within(self, seconds: float) -> int:
        ledger = Ledger(self.place("budget"), {"seconds": seconds})
        found = ledger.item("budget", lambda: {"calls": np.array([seconds / self._seconds_per_call()])})
        return max(1, int(agreed(found["calls"])[0]))

    @torch.no_grad()
    def _seconds_per_call(self) -> float:
        x = self.reference.draws.start(0)
        self.denoiser(x, self.reference.draws.sigma_max)  # the first call of a network takes longer
        start = time.monotonic()
        for _ in range(3):
            self.denoiser(x, self.reference.draws.sigma_max)
        return max((time.monotonic() - start) / 3, 1e-9)

    def probe(self, budget: int, objective: str = "mean") -> NetworkProbe:
        """The live measurement that a plan asks, with what is left of the evaluations."""
        held_out, choosing = (replace(self.reference.draws, name=name) for name in ("held out", "choosing"))
        again = int(1.1 * self.expected["responses"])
        return NetworkProbe(
            self.reference,
            self.rest,
            self.nodes,
            held_out,
            choosing,
            self.said,
            budget=self.left(budget),
            round_cost=again,
            fit_budget=self.measurement.fit_evaluations,
            objective=objective,
            folder=self.folder,
            tell=self.tell,
        )
