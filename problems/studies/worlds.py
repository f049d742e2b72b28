"""Worlds where schedules are compared: a denoiser, its data, draws for tests, and measures beside the error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array, choice
from codesign_opt.basics.progress import Progress
from codesign_opt.testbed.metrics import negative_log_likelihood, sliced_wasserstein2

__all__ = ["DenoiserWorld", "mixture_world"]

Metric = Callable[[torch.Tensor], co.estimate.Estimate]


@dataclass(frozen=True, eq=False)
class DenoiserWorld:
    """A denoiser as a `co.compare` world: errors against a fine solution on draws that nothing was planned on.

    Any denoiser serves, one with a condition or guided (`estimate.guided`) too: evaluations are counted on it.

    Args:
        title: for tables.
        denoiser: callable (x, sigma) -> x0, or Denoiser.
        data: (N, *shape) training examples, what plans and evidence are measured on.
        process: forward process; its range of noise levels is planned over.
        draws: test draws per seed.
        chunk: test draws in one batch.
        fine_steps: of the fine solution.
        metrics: secondary measures of the samples, by name: function of (N, *shape) outputs -> Estimate.
        plan_options: fields of `estimate.Measurement`: draws, evaluations, chunk, ….
        evidence_options: of `estimate.EvidenceMeasurement`: draws, levels, chunk, ….
        folder: where everything finished is kept: evidence, measurements of plans, fine solutions.
        progress: True for lines on stderr, or a function of a text.
        test_draws: name and first seed of the test draws.

    >>> import codesign_opt as co
    >>> world = mixture_world("circle8", draws=200, plan_options={"draws": 32, "evaluations": 1500, "levels": 6})
    >>> found = co.compare(world, ["edm"], [6], samplers=["euler"], plan=False)
    >>> found.rows[0].used, sorted(found.rows[0].others)
    (6.0, ['nll', 'sliced_w2'])
    """

    title: str
    denoiser: Any
    data: torch.Tensor
    process: co.Process = field(default_factory=co.EDM)
    draws: int = 1024
    chunk: int = 64
    fine_steps: int = 64
    terminal: str = "denoise"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    plan_options: Mapping[str, Any] = field(default_factory=dict)
    evidence_options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    progress: Progress = None
    test_draws: tuple[str, int] = ("test", 1)
    measure: str = "mean squared distance of the output to a fine solution under the same noise"
    _models: dict[str, Any] = field(default_factory=dict, repr=False)
    _tests: dict[int, co.estimate.GridTest] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "denoiser", co.estimate.Denoiser.of(self.denoiser))

    @property
    def sampler(self) -> co.Sampler:
        """Euler, where none is named."""
        return co.Euler()

    def evidence(self, sampler: co.Sampler) -> co.peers.Evidence:
        """Measured once, for all samplers."""
        return replace(self._evidence, sampler=sampler)

    @cached_property
    def _evidence(self) -> co.peers.Evidence:
        measurement = co.estimate.EvidenceMeasurement(progress=self.progress, **self.evidence_options)
        return co.estimate.evidence(
            self.denoiser, self.data, process=self.process, terminal=self.terminal, measurement=measurement,
            folder=self._place("evidence"),
        )  # fmt: skip

    def plan(self, sampler: co.Sampler, steps: int) -> Array:
        """The co-designed grid, from measurements and a descent on the plan's own draws."""

        def planned() -> dict[str, Any]:
            return {"sigmas": co.codesign(self.model(sampler), steps=steps, points=8, levels=100).sigmas}

        question = {name: self.plan_options.get(name) for name in ("draws", "evaluations")}
        ledger = co.estimate.Ledger(self._place("plans"), question)
        return np.asarray(ledger.item(f"{sampler.name}-{steps}", planned)["sigmas"])

    def model(self, sampler: co.Sampler) -> Any:
        """What `estimate.network` measures for a sampler."""
        name = "-".join(str(value) for value in sampler.to_dict().values())
        if name not in self._models:
            self._models[name] = co.estimate.network(
                self.denoiser, self.data, process=self.process, sampler=sampler, terminal=self.terminal,
                measurement=co.estimate.Measurement(progress=self.progress, **self.plan_options),
                folder=self._place(name),
            )  # fmt: skip
        return self._models[name]

    def cost(self, sampler: co.Sampler, sigmas: Array) -> float:
        """Evaluations per image of a grid, counted on one draw."""
        return self.test(0).evaluations_of(sampler, sigmas)

    def measured(self, sampler: co.Sampler, sigmas: Array, seed: int) -> dict[str, Any]:
        """Squared distances to the fine solution, draw by draw, and the secondary measures of the outputs."""
        test = self.test(seed)
        outputs = test.outputs(sampler, sigmas)
        found: dict[str, Any] = {"errors": test.errors(sampler, sigmas, outputs)}
        for name, metric in self.metrics.items():
            value = metric(outputs)
            found[name] = np.array([float(value.value), float(value.standard_error)])
        return found

    def test(self, seed: int) -> co.estimate.GridTest:
        """Test draws of a seed and their fine solution."""
        if seed not in self._tests:
            high, like = self.process.sigma_max, torch.zeros((), dtype=self.data.dtype, device=self.data.device)
            name, first = self.test_draws
            draws = co.estimate.Draws(
                tuple(self.data.shape[1:]), self.draws, high, first + seed, name, chunk=self.chunk, like=like
            )
            place = self._place(f"test-{self.draws}-{self.fine_steps}" + (f"-{seed}" if seed else ""))
            self._tests[seed] = co.estimate.GridTest(
                self.denoiser, draws, self.process.sigma_min, self.terminal, self.fine_steps, place
            )
        return self._tests[seed]

    def describe(self) -> dict[str, Any]:
        """Plain values that tell this world from others."""
        return {
            "title": self.title, "denoiser": self.denoiser.name, "process": self.process.to_dict(),
            "terminal": self.terminal, "test": self.test(0).draws.describe(), "fine_steps": self.fine_steps,
            "metrics": sorted(self.metrics), "plan": dict(self.plan_options),
        }  # fmt: skip

    def _place(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name


_MIXTURES: dict[str, Callable[[], co.testbed.Mixture]] = {"circle8": co.testbed.circle8, "grid8": co.testbed.grid8}
_RANGE = (0.002, 80.0)  # EDM's


def mixture_world(
    name: str,
    *,
    draws: int = 20_000,
    fine_steps: int = 128,
    plan_options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: Progress = None,
) -> DenoiserWorld:
    """circle8 or grid8 with its exact denoiser; NLL under the true law and sliced W2 to as many data beside the error.

    Raises:
        ValueError: an unknown name (the known ones are listed).
    """
    world = _MIXTURES[choice(name, "mixture_world", _MIXTURES)]()
    data = world.sample(20_000, dtype=torch.float64)
    fresh = world.sample(draws, seed=1, dtype=torch.float64)
    return DenoiserWorld(
        f"{name}, exact denoiser", co.estimate.Denoiser(world, name=name), data, co.EDM(*_RANGE), draws, draws,
        fine_steps,
        metrics={
            "nll": lambda outputs: negative_log_likelihood(world, outputs),
            "sliced_w2": lambda outputs: sliced_wasserstein2(outputs, fresh),
        },
        plan_options=plan_options or {"draws": 1024, "chunk": 1024, "evaluations": 5_000},
        evidence_options={"draws": 2048, "levels": 96, "chunk": 2048},
        folder=folder, progress=progress,
    )  # fmt: skip
