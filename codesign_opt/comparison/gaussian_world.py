"""Gaussian data as a world: every schedule's error exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, number
from ..models.gaussian import GaussianModel
from ..peers import Evidence
from ..planning.codesign import codesign
from ..samplers.members import Sampler
from .world import calls_of

__all__ = ["GaussianWorld"]


@dataclass(frozen=True, eq=False)
class GaussianWorld:
    """Gaussian data: exact errors of any grid."""

    model: GaussianModel
    measure: str = "exact squared Wasserstein-2 distance to the data"

    @property
    def title(self) -> str:
        return f"Gaussian data, {self.model.spectrum!r}"

    @property
    def terminal(self) -> str:
        return self.model.terminal

    @property
    def sampler(self) -> Sampler:
        return self.model.sampler

    def evidence(self, sampler: Sampler) -> Evidence:
        return Evidence.of(replace(self.model, sampler=sampler))

    def plan(self, sampler: Sampler, steps: int) -> Array:
        sigmas = codesign(replace(self.model, sampler=sampler), steps=steps).sigmas
        assert sigmas is not None
        return sigmas

    def cost(self, sampler: Sampler, sigmas: Array) -> float:
        return float(calls_of(sampler, sigmas).size)

    def measured(self, sampler: Sampler, sigmas: Array, seed: int) -> dict[str, Array]:
        error = replace(self.model, sampler=sampler).wasserstein2(sigmas)
        return {"errors": np.array([number(error, "error", nonnegative=True)])}

    def describe(self) -> dict[str, Any]:
        plain = self.model.provenance()
        return {name: plain[name] for name in ("band_eigenvalues", "band_counts", "process", "terminal", "start")} | {
            "mean_power": float(self.model.spectrum.mean_power.sum()), "dimension": plain["dimension"],
        }  # fmt: skip
