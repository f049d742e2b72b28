"""Multistep solvers as tensors: unrolled runs that gradients pass through, and grids by unconstrained numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...basics.checks import Array

__all__ = ["FreeGrid", "unrolled"]


def unrolled(
    output: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    levels: torch.Tensor,
    a: torch.Tensor,
    c: torch.Tensor,
    x: torch.Tensor,
) -> torch.Tensor:
    """Terminal states of x_{k+1} = a_k x_k + sum_j c_kj D_{k-j}, differentiable in everything.

    Args:
        output: the denoiser.
        levels: (K+1,) noise levels.
        a: (K,) weights of the state.
        c: (K, h) weights of D_k, D_{k-1}, …; those before the first are not read.
        x: (N, *shape) states at levels[0].

    >>> euler = torch.tensor([0.5, 0.0]), torch.tensor([[0.5], [1.0]])
    >>> shrunk = lambda x, sigma: x / (1 + sigma**2)
    >>> unrolled(shrunk, torch.tensor([2.0, 1.0, 0.0]), *euler, torch.ones(1, 1)).item()
    0.3
    """
    outputs: list[torch.Tensor] = []
    for k in range(a.shape[0]):
        outputs.append(output(x, levels[k]))
        moved = a[k] * x
        for j in range(min(c.shape[1], k + 1)):
            moved = moved + c[k, j] * outputs[k - j]
        x = moved
    return x


@dataclass(frozen=True, eq=False)
class FreeGrid:
    """Noise levels by unconstrained numbers: logarithms of their steps in log sigma, from a first level on.

    Under "denoise" the last positive level moves with the others, down to `lowest`: the step below it is the
    denoiser's. Under "rescale" the grid ends at `lowest`, its steps being shares of the range (a softmax).

    Args:
        top: the first level, data units.
        lowest: least level.
        zero: whether a last level 0 follows.
    """

    top: float
    lowest: float
    zero: bool

    @classmethod
    def of(cls, grid: Array, lowest: float) -> tuple[FreeGrid, Array]:
        """The family of a grid, and its numbers there."""
        positive, zero = grid[grid > 0], bool(grid[-1] == 0)
        low = min(lowest, float(positive[-1])) if zero else float(positive[-1])
        return cls(float(positive[0]), low, zero), np.log(-np.diff(np.log(positive)))

    def levels(self, numbers: torch.Tensor) -> torch.Tensor:
        """(K+1,) levels, differentiable."""
        steps, span = torch.exp(numbers), float(np.log(self.top / self.lowest))
        if not self.zero or float(steps.detach().sum()) > span:
            steps = steps * (span / steps.sum())
        positive = self.top * torch.exp(-torch.cumsum(steps, 0))
        first = positive.new_tensor([self.top])
        return torch.cat([first, positive, positive.new_zeros(1)] if self.zero else [first, positive])
