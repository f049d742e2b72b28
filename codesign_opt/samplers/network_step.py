"""What one step of a sampler on a network is given: the two noise levels, what it remembers, and the noise.

States and levels are torch tensors, of which only methods and operators are used: no torch is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["DenoiserCall", "NoisePath", "Place", "Remembered", "SigmaStep", "mixed", "trapezoid"]

DenoiserCall = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(x, sigma) -> x0: (N, *shape) states and one noise level for all of them."""


class Place(NamedTuple):
    """Where a step stands: its whole grid has `steps`, the last to zero counted in, and `left` of them follow."""

    steps: int
    left: int


_ALONE = Place(1, 0)


@dataclass(frozen=True, eq=False)
class SigmaStep:
    """One step of a grid, from noise level `high` down to `low` > 0.

    Attributes:
        high, low: float64 tensors without axes, data units; gradients pass through them to the grid. Take them to the
            dtype of the states (`.to(x.dtype)`) before they meet. `high` of a step before the run's start is a number.
            `low` is 0 only for samplers with levels of their own.
        place: of the step in its grid, for samplers that change near the end or share something among all steps.
    """

    high: Any
    low: torch.Tensor
    place: Place = _ALONE

    @cached_property
    def log_ratio(self) -> torch.Tensor:
        """log(high / low), computed once: a multistep sampler asks for it in this step and in the next."""
        return (self.high / self.low).log()


class Remembered(NamedTuple):
    """A former step, and at its start the denoiser's output, the first that the sampler asked for, and the state.

    Both are (N, *shape).
    """

    step: SigmaStep
    output: torch.Tensor
    state: torch.Tensor


class NoisePath(Protocol):
    """Where a stochastic sampler takes its noise from, the same noise whatever the grid."""

    def draw(self, high: torch.Tensor, low: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Unit normal draw for the noise between two levels, shaped like `like`; disjoint ranges are independent."""


def trapezoid(denoiser: DenoiserCall, x: torch.Tensor, high: Any, low: torch.Tensor) -> torch.Tensor:
    """An Euler step from `high` to `low`, and the mean of the slopes at both its ends: Heun's."""
    clean = denoiser(x, high)
    predicted = mixed(x, clean, low / high)
    slope = (x - clean) / high.to(x.dtype)
    corrected = (predicted - denoiser(predicted, low)) / low.to(x.dtype)
    return x + (low - high).to(x.dtype) * 0.5 * (slope + corrected)


def mixed(x: torch.Tensor, clean: torch.Tensor, carry: torch.Tensor) -> torch.Tensor:
    """carry x + (1 - carry) clean, exact in both ends; `carry` in float64 without axes."""
    return clean + carry.to(x.dtype) * (x - clean)
