"""A model as a world: every schedule's error exactly, or as the model predicts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..basics.checks import Array, number
from ..models.base import Model
from ..peers import Evidence
from ..planning.codesign import codesign
from ..samplers.members import Sampler
from .world import calls_of

__all__ = ["ModelWorld"]


@dataclass(frozen=True, eq=False)
class ModelWorld:
    """What `co.compare` asks, answered by a model: its `bias` of any grid.

    Args:
        model: GaussianModel, whose errors are exact, or any other that predicts them.

    Raises:
        ValueError: a model that only a live denoiser could answer for, without one.
    """

    model: Model
    measure: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measure", self.model.error_measure)

    @property
    def title(self) -> str:
        """The model's."""
        return self.model.title

    @property
    def terminal(self) -> str:
        """The model's."""
        return self.model.terminal

    @property
    def sampler(self) -> Sampler:
        """The model's."""
        return self.model.sampler

    def evidence(self, sampler: Sampler) -> Evidence:
        """What the model knows."""
        return Evidence.of(self.model.with_sampler(sampler))

    def plan(self, sampler: Sampler, steps: int) -> Array:
        """The grid of `codesign`."""
        sigmas = codesign(self.model.with_sampler(sampler), steps=steps, progress=False).sigmas
        assert sigmas is not None
        return sigmas

    def cost(self, sampler: Sampler, sigmas: Array) -> float:
        """Calls of the denoiser for one image."""
        return float(calls_of(sampler, sigmas).size)

    def measured(self, sampler: Sampler, sigmas: Array, seed: int) -> dict[str, Array]:
        """The model's error of a grid, without noise."""
        error = self.model.with_sampler(sampler).bias(sigmas)
        return {"errors": np.array([number(error, "error", nonnegative=True)])}

    def describe(self) -> dict[str, Any]:
        """The model's own plain values."""
        return self.model.describe()
