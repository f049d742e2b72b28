"""MeasuredWorld: a measured model with its live denoiser, as a place where schedules are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..basics.checks import Array, shown
from ..estimate.runs.fine_solution import Reference
from ..estimate.steps.held_out import GridTest
from ..estimate.steps.probe import NetworkProbe
from ..models.base import Model
from ..peers import Evidence
from ..planning.codesign import codesign
from ..samplers.members import Sampler

__all__ = ["MeasuredWorld"]


@dataclass(frozen=True, eq=False)
class MeasuredWorld:
    """What `co.compare` asks, answered by the denoiser behind a model on draws of its own.

    Args:
        model: with a probe; its sampler is the one that plans are made for.
        draws: per seed.

    Raises:
        ValueError: a plan for another sampler than the model was measured with.
    """

    model: Model
    draws: int = 256
    measure: str = "mean squared distance of the output to a fine solution under the same noise"
    _tests: dict[int, GridTest] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """The denoiser's name."""
        return self._reference.denoiser.name

    @property
    def terminal(self) -> str:
        """That of the model."""
        return self.model.terminal

    @property
    def sampler(self) -> Sampler:
        """That of the model."""
        return self.model.sampler

    @cached_property
    def _reference(self) -> Reference:
        probe = self.model.probe
        if not isinstance(probe, NetworkProbe):
            raise ValueError(
                f"compare: the model's probe is {shown(probe)}; estimate.network makes one that can be compared."
            )
        return probe.reference

    def evidence(self, sampler: Sampler) -> Evidence:
        """Spectrum and range; `estimate.evidence` measures the rest."""
        low, high = self._reference.stopping_sigma, self._reference.draws.sigma_max
        return replace(Evidence.of(self.model), sampler=sampler, sigma_min=low, sigma_max=high)

    def plan(self, sampler: Sampler, steps: int) -> Array:
        """The grid of `codesign`."""
        if sampler.to_dict() != self.model.sampler.to_dict():
            raise ValueError(
                f"compare: the model was measured with {self.model.sampler!r}, so that it has no plan for {sampler!r}; "
                "estimate.network once for each sampler, or compare with plan=False."
            )
        sigmas = codesign(self.model, steps=steps, points=8, levels=100, progress=False).sigmas
        assert sigmas is not None
        return sigmas

    def cost(self, sampler: Sampler, sigmas: Array) -> float:
        """Evaluations per image, counted on one draw."""
        return self._test(0).evaluations_of(sampler, sigmas)

    def measured(self, sampler: Sampler, sigmas: Array, seed: int) -> Mapping[str, Any]:
        """Squared distances to the fine solution, draw by draw."""
        return {"errors": self._test(seed).errors(sampler, sigmas)}

    def prepare(self, samplers: Sequence[Sampler], seeds: Sequence[int]) -> None:
        """The fine solutions, which every sampler of an ODE shares: once here, not in every worker."""
        for sampler in samplers:
            for seed in seeds:
                self._test(seed).ends(sampler)

    def describe(self) -> dict[str, Any]:
        """The denoiser, its fine solution and the number of test draws."""
        return {**self._reference.describe(), "sampler": None, "test draws": self.draws}

    def check_folder(self, folder: Path) -> None:
        """Refuse a folder whose errors are those of another denoiser: it answers as it did, or it is another."""
        self._reference.check_same(self._reference.denoiser, "denoiser", folder)

    def _test(self, seed: int) -> GridTest:
        if seed not in self._tests:
            own, probe = self._reference, self.model.probe
            folder = getattr(probe, "folder", None)
            draws = replace(own.draws, count=self.draws, name=f"comparison {seed}")
            where = None if folder is None else folder / "comparison" / f"{self.draws}-{seed}"
            self._tests[seed] = GridTest(own.denoiser, draws, own.stopping_sigma, own.terminal, 2 * own.steps, where)
        return self._tests[seed]
