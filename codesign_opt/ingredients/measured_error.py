"""MeasuredError: what was measured of one grid on a denoiser, on draws that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..basics.checks import choice, integer, number

__all__ = ["OBJECTIVES", "MeasuredError"]

OBJECTIVES = {
    "mean": "mean",
    "trimmed": "mean without the largest tenth",
    "geometric": "geometric mean",
}


@dataclass(frozen=True)
class MeasuredError:
    """Squared distances of a grid's outputs to the fine solution under the same noise, over independent draws.

    The draws chose neither the grid nor anything else of the plan (docs/theory.md section 3.5).

    Args:
        value, standard_error: of the objective over the draws, squared data units.
        draws: their number.
        objective: "mean", "trimmed" (the mean without the largest tenth) or "geometric".
        mean, mean_standard_error: of the same draws, whatever the objective.
        largest, largest_share: a hundredth of the draws, and what share of their sum the largest so many carry.
        fine_steps: of the fine solution.
        fine_share: at most this share of `value` is the fine solution's own error.
        ratio, ratio_standard_error: `value` over that of the plan's grid on the same draws; 1 and 0 for its own.

    Raises:
        ValueError: a field out of its range, by name.

    >>> MeasuredError(1.0, 0.1, 256, "mean", 1.0, 0.1, 3, 0.05, 32, 0.004).relative_error
    0.1
    """

    value: float
    standard_error: float
    draws: int
    objective: str
    mean: float
    mean_standard_error: float
    largest: int
    largest_share: float
    fine_steps: int
    fine_share: float
    ratio: float = 1.0
    ratio_standard_error: float = 0.0

    def __post_init__(self) -> None:
        choice(self.objective, "MeasuredError.objective", OBJECTIVES)
        for name in ("draws", "largest", "fine_steps"):
            integer(getattr(self, name), f"MeasuredError.{name}", minimum=1)
        for name in ("value", "mean", "largest_share", "ratio"):
            number(getattr(self, name), f"MeasuredError.{name}", nonnegative=True)

    @property
    def relative_error(self) -> float:
        """Standard error over the value; 0 where nothing is left."""
        return self.standard_error / self.value if self.value > 0 else 0.0

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> MeasuredError:
        """What `dataclasses.asdict` gave, from a file."""
        return cls(**record)
