"""Samplers acting on a network along a grid: differentiable in the state and in the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import Array, entries, noise_level, numbers, shown, takes
from ...samplers.base import Sampler
from ...samplers.network_step import DenoiserCall, NoisePath, Place, Remembered, SigmaStep
from ..denoisers.denoiser import Denoise, Denoiser
from ..draws.streams import normal, seed_of

__all__ = ["BrownianPath", "SteppedSampler", "asked_levels", "run", "trajectory"]

_CELLS = 16_384

Before = tuple[float, torch.Tensor, torch.Tensor]
"""A node before a run's start, the state there and the denoiser's output."""


class SteppedSampler(Protocol):
    """What a run asks of a sampler: every `Sampler` has it, and the method of fine solutions."""

    @property
    def evaluations_per_step(self) -> int:
        """Calls of the denoiser in a step."""

    @property
    def memory(self) -> int:
        """Former outputs that a step asks for."""

    @property
    def stochastic(self) -> bool:
        """Whether a step draws noise."""

    @property
    def own_levels(self) -> Array | None:
        """The only noise levels it has steps on, the last to zero among them; None: any."""

    def check_network_step(self) -> None:
        """Raises where it has no step on networks."""

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """The states at the lower level."""


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

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "BrownianPath"
        put(self, "seed", seed_of(self.seed, f"{name}.seed"))
        put(self, "names", entries(self.names, f"{name}.names", hint='Such as ("noise", 3).'))
        put(self, "sigma_max", noise_level(self.sigma_max, f"{name}.sigma_max"))
        put(self, "sigma_min", noise_level(self.sigma_min, f"{name}.sigma_min"))
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"{name}.sigma_min is {self.sigma_min:g}; it must be <= sigma_max = {self.sigma_max:g}.")

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


@takes(x=torch.Tensor, place=Place)
def run(
    denoiser: Denoise,
    sampler: SteppedSampler | str,
    sigmas: ArrayLike,
    x: torch.Tensor,
    noise: BrownianPath | None = None,
    *,
    before: Sequence[Before] = (),
    place: Place | None = None,
) -> torch.Tensor:
    """The sampler's output from states `x` at sigmas[0]: docs/theory.md section 2, on any denoiser.

    Args:
        denoiser: Denoiser or callable (x, sigma) -> x0.
        sampler: any sampler with a `step` on networks, or its name.
        sigmas: (K+1,) descending noise levels; a last 0 is the plain denoiser at the level before.
        x: (N, *shape) states in x / s.
        noise: path of the injected noise, for samplers that have some.
        before: for a run that goes on from the middle of a grid: the nodes before sigmas[0], descending, each with
            the state and the denoiser's output there, of which a multistep sampler remembers the last; others ignore
            them.
        place: of the first step in a grid that `sigmas` is a part of; that of a whole grid unless given.

    Returns:
        (N, *shape), differentiable in `x` and, where `sigmas` is a tensor, in the grid.

    Raises:
        ValueError: a grid that does not descend, a stochastic sampler without noise, one without a step on networks.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import Euler
    >>> run(lambda x, sigma: x / (1 + sigma[:, None] ** 2), Euler(), [2.0, 1.0, 0.0], torch.ones(1, 1)).item()
    0.3
    """
    return trajectory(denoiser, sampler, sigmas, x, noise, before=before, place=place)[-1]


@takes(x=torch.Tensor, place=Place)
def trajectory(
    denoiser: Denoise,
    sampler: SteppedSampler | str,
    sigmas: ArrayLike,
    x: torch.Tensor,
    noise: BrownianPath | None = None,
    *,
    before: Sequence[Before] = (),
    place: Place | None = None,
) -> list[torch.Tensor]:
    """The states at every node of the grid, the start included; arguments as in `run`."""
    check_states(x)  # first: levels are compared on its device
    told = numbers(sigmas, "sigmas")
    levels = sigmas if torch.is_tensor(sigmas) else np.array(told)  # plans are read-only
    grid = torch.as_tensor(levels, dtype=torch.float64, device=x.device)
    if grid.ndim != 1 or grid.numel() < 2 or bool((grid[1:] >= grid[:-1]).any()) or not bool(grid[-1] >= 0):
        raise ValueError("sigmas must be at least two strictly descending noise levels, only the last may be 0.")
    if isinstance(sampler, str):
        sampler = Sampler.named(sampler, "run: sampler")
    if isinstance(sampler, type) or not hasattr(sampler, "check_network_step"):
        raise ValueError(f"run: sampler is {shown(sampler)}; a Sampler is needed, such as co.Heun().")
    sampler.check_network_step()
    if noise is not None and (isinstance(noise, type) or not hasattr(noise, "draw")):
        raise ValueError(f"run: noise is {shown(noise)}; a BrownianPath is needed.")
    if sampler.stochastic and noise is None:
        raise ValueError(f"{sampler!r} injects noise; give noise=BrownianPath(…).")
    asked, memory, states = _FirstOutput(Denoiser.of(denoiser)), _begun(before, grid[0], sampler.memory), [x]
    first = Place(grid.numel() - 1, grid.numel() - 2) if place is None else place
    for number, (high, low) in enumerate(pairwise(grid)):
        if float(low.detach()) == 0 and sampler.own_levels is None:  # the last step to zero is the plain denoiser
            states.append(asked(states[-1], high))
            continue
        step = SigmaStep(high, low, first._replace(left=first.left - number))
        states.append(sampler.step(asked, states[-1], step, memory, noise))
        output = asked.taken()
        if sampler.memory and output is not None:
            memory = [*memory, Remembered(step, output, states[-2])][-sampler.memory :]
    return states


@torch.no_grad()
def asked_levels(sampler: SteppedSampler, sigmas: Any) -> list[float]:
    """Noise levels at which a sampler asks the denoiser along a grid, in order: nodes, or levels between them.

    >>> from codesign_opt import Heun
    >>> asked_levels(Heun(), [4.0, 1.0, 0.0])
    [4.0, 1.0, 1.0]
    """
    levels: list[float] = []

    def noting(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        levels.append(float(sigma[0]))
        return torch.zeros_like(x)

    grid = np.asarray(sigmas, dtype=np.float64)
    noise = BrownianPath(0, ("asked levels",), float(grid[0]), float(grid[grid > 0][-1]))
    run(noting, sampler, grid, torch.zeros(1, 1, dtype=torch.float64), noise)
    return levels


class _FirstOutput:
    """A denoiser whose first output in every step is kept: what a multistep sampler asks for later."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.output: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        found = self.denoiser(x, sigma)
        self.output = found if self.output is None else self.output
        return found

    def taken(self) -> torch.Tensor | None:
        """The output that was kept, which is then forgotten."""
        output, self.output = self.output, None
        return output


def check_states(x: torch.Tensor) -> None:
    """Refuse what no sampler steps: states are (N, ...) finite floats."""
    if x.ndim < 1 or not x.is_floating_point() or x.is_meta or x.layout is not torch.strided:
        raise ValueError(f"x is {shown(x)}; (N, *shape) states of floats are needed.")


def _begun(before: Sequence[Before], start: torch.Tensor, count: int) -> list[Remembered]:
    """What a sampler remembers of the steps from the nodes before a run's start."""
    for each in (before := entries(before, "before", hint="Give (sigma, state, output) of each node before.")):
        if not (isinstance(each, (tuple, list)) and len(each) == 3 and all(torch.is_tensor(one) for one in each[1:])):
            raise ValueError(f"before has {shown(each)}; (sigma, state, output) of each node before is needed.")
    kept = before[max(len(before) - count, 0) :]
    ends = [*(start.new_tensor(node) for node, _, _ in kept[1:]), start]
    # a node's number as it is: torch divides a tensor into a number by its reciprocal, and kept results were made so
    pairs = zip(kept, ends, strict=False)
    return [Remembered(SigmaStep(node, end), output, state) for (node, state, output), end in pairs]
