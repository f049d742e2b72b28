"""NetworkFloor: how far the fine solution itself is from the data, which no grid can mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..basics.checks import integer

__all__ = ["NetworkFloor"]


@dataclass(frozen=True)
class NetworkFloor:
    """Distances of the fine solution's outputs to examples of the data: the network's own error.

    Both are without the bias of finite samples, so that they may be negative where nothing is left.

    Args:
        gaussian, gaussian_standard_error: squared Wasserstein-2 distance of two normal laws with the means of both
            and with their variances in bands of the data's principal directions, squared data units: at most that
            of the laws themselves (docs/theory.md section 3.5).
        energy, energy_standard_error: energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, data units.
        samples, examples: number of both.
        bands: of principal directions.

    >>> NetworkFloor(0.1, 0.02, 0.01, 0.002, 256, 2048, 8).seen
    True
    """

    gaussian: float
    gaussian_standard_error: float
    energy: float
    energy_standard_error: float
    samples: int
    examples: int
    bands: int

    def __post_init__(self) -> None:
        for name in ("samples", "examples", "bands"):
            object.__setattr__(self, name, integer(getattr(self, name), f"NetworkFloor.{name}", minimum=1))

    @property
    def seen(self) -> bool:
        """Whether so many samples tell one of the distances from nothing, by two standard errors."""
        pairs = ((self.gaussian, self.gaussian_standard_error), (self.energy, self.energy_standard_error))
        return any(value > 2 * error for value, error in pairs)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> NetworkFloor:
        """What `dataclasses.asdict` gave, from a file."""
        return cls(**record)
