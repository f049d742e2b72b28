"""LD3: the grid of a stock sampler by gradient through the unrolled run, with soft teacher forcing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...basics.checks import Array, number
from ...samplers.base import Sampler
from ..runs.run import run
from .base import Ground
from .gradient_fit import GradientRival, Unknowns
from .unrolled import FreeGrid

__all__ = ["LD3"]


@dataclass(frozen=True)
class LD3(GradientRival):
    """Noise levels of the reference's sampler, by gradient of the distance to the teacher's samples.

    The numbers are logarithms of steps in log sigma; RMSprop; every start may move in a ball while the grid is learned.
    Tong, Hoang, Liu, Van den Broeck, Niepert 2025 (LD3, arXiv 2405.15506), the soft objective.

    The paper leaves to choose, or we chose: squared distance instead of LPIPS, which the comparison measures; the
    denoiser is asked at the levels of the states (their second set of times is left out); the last positive level moves
    with the others, as the step below it is the denoiser's; from the best of the starts.

    Args:
        learning_rate: of RMSprop, whose first step is ten times as long.
        radius: gamma of the ball around each start, of radius gamma d / K^2 sigma_max with d numbers in a draw.

    Raises:
        ValueError: a field out of its range.

    >>> LD3().name
    'ld3'
    """

    learning_rate: float = 0.003
    radius: float = 1e-3
    name: ClassVar[str] = "ld3"
    title: ClassVar[str] = "LD3: levels by gradient"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "learning_rate", number(self.learning_rate, "LD3.learning_rate", positive=True))
        put(self, "radius", number(self.radius, "LD3.radius", nonnegative=True))

    def _optimiser(self, unknowns: Unknowns) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(unknowns.values(), lr=self.learning_rate)

    def _begun(self, start: Array, ground: Ground) -> Unknowns:
        return {"steps": torch.as_tensor(FreeGrid.of(start, ground.reference.stopping_sigma)[1])}

    def _levels(self, unknowns: Unknowns, start: Array, ground: Ground) -> torch.Tensor:
        return FreeGrid.of(start, ground.reference.stopping_sigma)[0].levels(unknowns["steps"])

    def _output(self, unknowns: Unknowns, start: Array, ground: Ground, x: torch.Tensor) -> torch.Tensor:
        return run(ground.output, ground.reference.sampler, self._levels(unknowns, start, ground), x)

    def _solver(self, unknowns: Unknowns, start: Array, ground: Ground) -> tuple[Sampler, Array]:
        return ground.reference.sampler, self._levels(unknowns, start, ground).detach().numpy()
