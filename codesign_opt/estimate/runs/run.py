"""The library's samplers acting on a network: differentiable in the state and in the grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ...samplers.members import Ancestral, DPMpp2M, Euler, EulerMaruyama, Heun, Sampler
from ..denoisers.denoiser import Denoiser
from ..draws.streams import normal

__all__ = ["BrownianPath", "has_noise", "run", "trajectory"]

_CELLS = 16_384


def has_noise(sampler: Sampler) -> bool:
    """Whether the sampler injects noise."""
    return sampler.eta > 0


@dataclass(frozen=True, eq=False)
class BrownianPath:
    """Noise of stochastic samplers that is the same whatever the grid: one Brownian path in sigma^2.

    The increment over a step, divided by its standard deviation, is the step's unit normal draw. A
    coarse step's noise is the sum of the fine steps', so that two grids are compared under the same
    noise. The path is a Brownian bridge refined by halving down to 16,384 cells, uniform in log sigma,
    and linear in sigma^2 inside a cell (and down to 0); each draw is scaled to unit variance exactly.
    A draw costs at most 30 normal ones, whatever the step; those of the last place are kept.

    Args:
        seed, names: of the draws.
        sigma_max, sigma_min: range of the path.
    """

    seed: int
    names: tuple[str | int, ...]
    sigma_max: float
    sigma_min: float
    _last: dict[int, tuple[int, torch.Tensor]] = field(default_factory=dict, repr=False)

    def draw(self, high: torch.Tensor, low: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Unit normal draw of the step from `high` down to `low`, shaped like `like`."""
        edges = self._edges()
        top, base = (torch.clamp(s.to("cpu", torch.float64) ** 2, max=float(edges[-1])) for s in (high, low))
        overlap = (torch.minimum(edges[1:], top) - torch.maximum(edges[:-1], base)).clamp(min=0)
        variance = (overlap.square() / (edges[1:] - edges[:-1])).sum()
        if float(variance.detach()) <= 0:
            raise ValueError(
                f"a step from sigma {float(high.detach()):.4g} to {float(low.detach()):.4g} is outside the noise path."
            )
        change = self._value(top, edges, like) - self._value(base, edges, like)
        return change / variance.sqrt().to(like.device, like.dtype)

    def _edges(self) -> torch.Tensor:
        logs = torch.linspace(math.log(self.sigma_min), math.log(self.sigma_max), _CELLS, dtype=torch.float64)
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.exp(2 * logs)])

    def _value(self, place: torch.Tensor, edges: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The path at one sigma^2: bridges over halves of the cells around it, then linear."""
        cell = int(torch.searchsorted(edges, place.detach(), right=True)) - 1
        cell = min(max(cell, 0), _CELLS - 1)
        low, high = 0, _CELLS
        below, above = torch.zeros_like(like), float(edges[-1].sqrt()) * self._unit(0, _CELLS, like)
        depth = 0
        while high - low > 1:
            depth += 1
            middle = (low + high) // 2
            start, half, end = (float(edges[i]) for i in (low, middle, high))
            share, spread = (half - start) / (end - start), math.sqrt((half - start) * (end - half) / (end - start))
            value = below + share * (above - below) + spread * self._unit(depth, middle, like)
            low, high, below, above = (low, middle, below, value) if cell < middle else (middle, high, value, above)
        share_of_cell = (place - edges[low]) / (edges[high] - edges[low])
        return below + share_of_cell.to(like.device, like.dtype) * (above - below)

    def _unit(self, depth: int, cell: int, like: torch.Tensor) -> torch.Tensor:
        """The normal draw of one halving; the last of every depth is kept, as neighbouring places share most."""
        kept = self._last.get(depth)
        if kept is None or kept[0] != cell or kept[1].shape != like.shape or kept[1].dtype != like.dtype:
            kept = (cell, normal(self.seed, *self.names, cell, shape=tuple(like.shape), like=like.detach()))
            self._last[depth] = kept
        return kept[1]


def run(
    denoiser: Denoiser | Any,
    sampler: Sampler,
    sigmas: Any,
    x: torch.Tensor,
    noise: BrownianPath | None = None,
    *,
    before: tuple[float, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The sampler's output from states `x` at sigmas[0]: docs/theory.md section 2, on any denoiser.

    Args:
        denoiser: Denoiser or callable (x, sigma) -> x0.
        sampler: any sampler of the library.
        sigmas: (K+1,) descending noise levels; a last 0 is the plain denoiser at the level before.
        x: (N, *shape) states in x / s.
        noise: path of the injected noise, for samplers that have some.
        before: for a run that goes on from the middle of a grid: the node before sigmas[0] and the
            denoiser's output there, which a multistep sampler remembers; others ignore it.

    Returns:
        (N, *shape), differentiable in `x` and, where `sigmas` is a tensor, in the grid.

    Raises:
        ValueError: a grid that does not descend, or a stochastic sampler without noise.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import Euler
    >>> run(lambda x, sigma: x / (1 + sigma[:, None] ** 2), Euler(), [2.0, 1.0, 0.0], torch.ones(1, 1)).item()
    0.3
    """
    return trajectory(denoiser, sampler, sigmas, x, noise, before=before)[-1]


def trajectory(
    denoiser: Denoiser | Any,
    sampler: Sampler,
    sigmas: Any,
    x: torch.Tensor,
    noise: BrownianPath | None = None,
    *,
    before: tuple[float, torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The states at every node of the grid, the start included; arguments as in `run`."""
    levels = sigmas if torch.is_tensor(sigmas) else np.array(sigmas, dtype=np.float64)  # plans are read-only
    grid = torch.as_tensor(levels, dtype=torch.float64, device=x.device)
    if grid.ndim != 1 or grid.numel() < 2 or bool((grid[1:] >= grid[:-1]).any()) or bool(grid[-1] < 0):
        raise ValueError("sigmas must be at least two strictly descending noise levels, only the last may be 0.")
    if has_noise(sampler) and noise is None:
        raise ValueError(f"{sampler!r} injects noise; give noise=BrownianPath(…).")
    act = _action(Denoiser.of(denoiser), sampler, noise)
    if before is not None and isinstance(act, _TwoStep):
        act.before, act.length = before[1], torch.log(before[0] / grid[0])
    states = [x]
    for high, low in pairwise(grid):
        states.append(act(states[-1], high, low))
    return states


def _action(
    denoiser: Denoiser, sampler: Sampler, noise: BrownianPath | None
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """One step (x, high, low) -> x', holding what a multistep sampler remembers."""
    if isinstance(sampler, Heun):
        return lambda x, high, low: _heun(denoiser, x, high, low)
    if isinstance(sampler, DPMpp2M):
        return _TwoStep(denoiser)
    if isinstance(sampler, Euler):
        return lambda x, high, low: _mix(x, denoiser(x, high), low / high)
    if isinstance(sampler, (Ancestral, EulerMaruyama)):
        return lambda x, high, low: _stochastic(denoiser, sampler, noise, x, high, low)
    raise ValueError(f"{sampler!r} has no action on a network; use one of the library's samplers.")


def _mix(x: torch.Tensor, clean: torch.Tensor, carry: torch.Tensor) -> torch.Tensor:
    """carry x + (1 - carry) D, exact in both ends."""
    return clean + carry.to(x.dtype) * (x - clean)


def _heun(denoiser: Denoiser, x: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    clean = denoiser(x, high)
    if float(low.detach()) == 0:
        return clean
    ratio = (low / high).to(x.dtype)
    predicted = clean + ratio * (x - clean)
    slope, corrected = (x - clean) / high.to(x.dtype), (predicted - denoiser(predicted, low)) / low.to(x.dtype)
    return x + (low - high).to(x.dtype) * 0.5 * (slope + corrected)


class _TwoStep:
    """DPM-Solver++(2M): the data estimate extrapolated in log sigma from two nodes."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.before: torch.Tensor | None = None
        self.length: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        clean = self.denoiser(x, high)
        if float(low.detach()) == 0:
            return clean
        length = torch.log(high / low)
        used = clean
        if self.before is not None and self.length is not None:
            share = (length / (2 * self.length)).to(x.dtype)
            used = (1 + share) * clean - share * self.before
        self.before, self.length = clean, length
        return _mix(x, used, low / high)


def _stochastic(
    denoiser: Denoiser,
    sampler: Sampler,
    noise: BrownianPath | None,
    x: torch.Tensor,
    high: torch.Tensor,
    low: torch.Tensor,
) -> torch.Tensor:
    clean = denoiser(x, high)
    if float(low.detach()) == 0:
        return clean
    eta2, ratio = sampler.eta**2, low / high
    if eta2 == 0 or noise is None:
        return _mix(x, clean, ratio)
    if isinstance(sampler, Ancestral):
        up = low * torch.sqrt(torch.clamp(eta2 * (1 - ratio**2), max=1.0))
        carry = ratio * torch.sqrt(torch.clamp((1 - eta2) + eta2 * ratio**2, min=0.0))
    else:
        up = torch.sqrt(2 * eta2 * high * (high - low))
        carry = (1 + eta2) * ratio - eta2
    return _mix(x, clean, carry) + up.to(x.dtype) * noise.draw(high, low, x)
