"""Certificate: a candidate, a proved lower bound, and how far they are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Certificate"]

_FEASIBLE = 1e-7  # relative violation up to which a point counts as feasible: conic solvers leave about 1e-8


@dataclass(frozen=True)
class Certificate:
    """What the independent check found for one candidate.

    Attributes:
        value: objective at the candidate.
        lower_bound: no feasible point has a smaller objective.
        relative_gap: (value + price of the candidate's violations - lower_bound) / scale, where
            scale is the part of the objective that the design can change, or where hardly any varies what a small
            change costs (docs/theory.md section 8.1); (value - lower_bound) / scale
            where the value is below the bound by more than `tolerance`: no feasible point is.
        infeasibility: largest violation of a constraint, (value - limit) / |limit| as its author wrote it; where there
            is no limit other than 0, relative to what is compared (docs/theory.md section 8.1).
        tolerance: gap below which the candidate is called optimal.
        method: which bound was used.
    """

    value: float
    lower_bound: float
    relative_gap: float
    infeasibility: float
    tolerance: float = 1e-6
    method: str = "separable Lagrangian"

    @property
    def optimal(self) -> bool:
        """Whether the candidate is proved feasible and optimal to `tolerance`."""
        # a gap far below zero is no better than one above: value or bound must be wrong
        return bool(
            np.isfinite(self.relative_gap)
            and -self.tolerance <= self.relative_gap <= self.tolerance
            and self.infeasibility <= _FEASIBLE
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record."""
        return {
            "value": self.value,
            "lower_bound": self.lower_bound,
            "relative_gap": self.relative_gap,
            "infeasibility": self.infeasibility,
            "tolerance": self.tolerance,
            "method": self.method,
            "optimal": self.optimal,
        }
