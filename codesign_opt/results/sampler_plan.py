"""What a plan says of one of several samplers that share its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ..basics.checks import Array
from ..ingredients.grids import grid_from_steps
from ..ingredients.levels import Levels
from .plan_schema import read_only

__all__ = ["SamplerPlan"]


@dataclass(frozen=True, eq=False)
class SamplerPlan:
    """The steps of one sampler of a plan, and what they leave.

    Attributes:
        levels: those of the plan.
        steps: (L,) steps on each level (fractions: the continuous solution).
        sigmas: whole steps, descending noise levels as in `Plan.sigmas`; None where the program gave it none.
        terminal: "denoise" or "rescale".
        images: images that the prices count; None where they are those of the prices.
        weight: importance of its error in the objective.
        breakdown: its own part of the objective by cause, not weighted.
        handed_out: error of `sigmas` with the plan's examples, by cause and "total", exact where the model behind the
            sampler was stated and knows the law; empty where there is no model.
        evaluations_per_step: calls of the denoiser in a step.
        sampler: name and settings; empty where unknown.
    """

    levels: Levels
    steps: Array
    sigmas: Array | None
    terminal: str
    images: float | None = None
    weight: float = 1.0
    breakdown: Mapping[str, float] = field(default_factory=dict)
    handed_out: Mapping[str, float] = field(default_factory=dict)
    evaluations_per_step: int = 1
    sampler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Its own part of the objective, not weighted."""
        return float(sum(self.breakdown.values()))

    @property
    def number_of_steps(self) -> int:
        """K, its number of whole steps."""
        return 0 if self.sigmas is None else self.sigmas.size - 1

    def grid(self, number_of_steps: int) -> Array:
        """(K+1,) another number of whole steps at equal increments of the continuous step count."""
        return grid_from_steps(self.levels, self.steps, number_of_steps, terminal=self.terminal)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the levels, which are the plan's, as plain values."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "levels"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], levels: Levels) -> Self:
        """From `to_dict` and the plan's levels."""
        sigmas = data["sigmas"]
        read = {
            "steps": read_only(data["steps"], "SamplerPlan.steps"),
            "sigmas": None if sigmas is None else read_only(sigmas, "SamplerPlan.sigmas"),
        }
        return cls(levels, **{**data, **read})
