"""Runs of a grid and their slopes in the noise levels, by one backward pass or by differences; kept when finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...basics.ledger import Ledger
from ...ingredients.grids import check_grid
from ...samplers.network_step import Place
from ..denoisers.denoiser import Denoiser
from ..draws.precision import asked
from ..draws.statistics import squares
from ..draws.streams import agreed, my_share, normal, sum_over_processes
from ..runs.fine_solution import Draws, Reference, gathered
from ..runs.run import Before, BrownianPath, run, trajectory
from .grid_error import batches_of_run, residual

__all__ = ["GridRuns", "differentiable", "rounding_of"]

_AUTOGRAD = 4  # runs in one backward pass: forward, forward again call by call, and backward for two
_NUDGE = 0.01  # of the shorter neighbouring step, for forward differences
_SHAKE = 2.0**-9  # of the states, to find what a network rounds: more than a number of half precision resolves
_ROUNDED = 5e-5  # relative rounding of a network that differences must be kept from


class _Again(torch.autograd.Function):
    """A call that keeps its arguments alone and is made again on the way back (torch's own takes seconds to load)."""

    @staticmethod
    def forward(ctx: Any, denoiser: Denoiser, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        ctx.denoiser = denoiser
        ctx.save_for_backward(x, sigma)
        return denoiser(x, sigma)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor | None, torch.Tensor | None]:
        x, sigma = (saved.detach().requires_grad_(True) for saved in ctx.saved_tensors)
        with torch.enable_grad():
            product = (ctx.denoiser(x, sigma) * gradients[0]).sum()  # gradients given to torch load sympy: a second
        by_x, by_sigma = torch.autograd.grad(product, (x, sigma), allow_unused=True)
        return None, by_x, by_sigma


@dataclass(eq=False)
class GridRuns:
    """Runs of grids and their slopes, each kept in the ledger under its number: a killed descent replays them."""

    reference: Reference
    others: Reference
    ledger: Ledger
    autograd: bool
    batches: int = 0
    number: int = 0

    @cached_property
    def nudge(self) -> float:
        """Share of a step that differences go by: wider where the network rounds, as in half precision.

        A difference over h errs by the rounding over h, and, to both sides, by a power of h.
        """
        found = self.ledger.item("rounding", lambda: {"share": np.array([rounding_of(self.reference)])})
        share = float(agreed(found["share"])[0])
        return _NUDGE if share < _ROUNDED else min(0.5, 8 * share**0.5)

    @property
    def rounds(self) -> bool:
        """Whether differences go to both sides, and by more than a little."""
        return self.nudge > _NUDGE

    def cost(self, grid: Array) -> int:
        """Calls of one run on the descended draws; as many per chunk on the others."""
        one = batches_of_run(self.reference.sampler, grid.size - 1, check_grid(grid).terminal)
        return self.reference.draws.chunks * one

    def other_cost(self, grid: Array) -> int:
        return self.cost(grid) // self.reference.draws.chunks * self.others.draws.chunks

    def fine_cost(self) -> int:
        return (self.reference.draws.chunks + self.others.draws.chunks) * self.reference.path().calls()

    def differences_cost(self, grid: Array) -> int:
        sampler, terminal = self.reference.sampler, check_grid(grid).terminal
        tails = sum(batches_of_run(sampler, steps, terminal) for steps in range(1, grid.size))
        memory = int((grid > 0).sum()) if sampler.memory else 0
        sides = 2 if self.rounds else 1
        return self.reference.draws.chunks * (sides * tails + memory) + self.cost(grid)

    def slope_cost(self, grid: Array) -> int:
        return _AUTOGRAD * self.cost(grid) if self.autograd else self.differences_cost(grid)

    def fine(self, solution: Reference, chunk: int) -> torch.Tensor:
        def compute() -> dict[str, Any]:
            return {"end": solution.terminal_states(chunk).cpu().numpy()}

        found = self.ledger.item(f"fine/{solution.draws.name}{chunk}", compute)["end"]
        return torch.as_tensor(found).to(solution.draws.like.device)

    def errors(self, grid: Array, *, held_out: bool = False) -> Array:
        """Squared distances of a grid's outputs on the descended or the held-out draws."""
        solution = self.others if held_out else self.reference
        self.batches += self.other_cost(grid) if held_out else self.cost(grid)

        def compute(chunk: int) -> dict[str, Any]:
            return {"errors": squares(residual(solution, grid, chunk, self.fine(solution, chunk))).numpy()}

        parts = self._items("errors", solution, compute)
        return gathered(solution.draws, {chunk: torch.as_tensor(part["errors"]) for chunk, part in parts.items()})

    def slope(self, grid: Array, weights: Array) -> Array:
        """(nodes,) derivative of sum_i weights_i errors_i by the logarithm of every positive node but the first."""
        if not self.autograd:
            return self.differences(grid, weights)[0]
        self.batches += self.slope_cost(grid)

        def compute(chunk: int) -> dict[str, Any]:
            return {"slope": self._back(grid, weights, chunk)}

        return self._sum("slope", int((grid > 0).sum()) - 1, self._items("slope", self.reference, compute))

    def differences(self, grid: Array, weights: Array) -> tuple[Array, Array]:
        """The same derivative by differences, and the Gauss-Newton matrix (nodes, nodes)."""
        self.batches += self.differences_cost(grid)

        def compute(chunk: int) -> dict[str, Any]:
            return {"both": self._columns(grid, weights, chunk)}

        size = int((grid > 0).sum()) - 1
        total = self._sum("both", (size, size + 1), self._items("both", self.reference, compute))
        return total[:, -1], total[:, :-1]

    def _items(
        self, what: str, solution: Reference, compute: Callable[[int], dict[str, Any]]
    ) -> dict[int, dict[str, Any]]:
        self.number += 1
        name = f"{self.number}-{what}/{solution.draws.name}"
        return {
            chunk: self.ledger.item(f"{name}{chunk}", partial(compute, chunk))
            for chunk in my_share(solution.draws.chunks)
        }

    def _sum(self, what: str, shape: int | tuple[int, ...], parts: dict[int, dict[str, Any]]) -> Array:
        total = torch.zeros(shape, dtype=torch.float64)
        for part in parts.values():
            total += torch.as_tensor(part[what])
        return sum_over_processes(total).numpy()

    def _noise(self, chunk: int) -> BrownianPath:
        return self.reference.draws.noise(chunk, self.reference.stopping_sigma)

    def _back(self, grid: Array, weights: Array, chunk: int) -> Array:
        """One backward pass; activations are made again call by call, so that memory stays that of one call."""
        solution, count = self.reference, int((grid > 0).sum())
        x = solution.draws.start(chunk)

        def recomputed(state: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return _Again.apply(solution.denoiser, state, sigma)

        logs = torch.log(torch.as_tensor(grid[1:count], device=x.device)).requires_grad_(True)
        first, tail = (torch.as_tensor(part, device=x.device) for part in (grid[:1], grid[count:]))
        with torch.enable_grad():
            nodes = torch.cat([first, torch.exp(logs), tail])
            rest = run(recomputed, solution.sampler, nodes, x, self._noise(chunk)) - self.fine(solution, chunk)
            own = torch.as_tensor(weights[solution.draws.rows(chunk)]).to(x)
            (slope,) = torch.autograd.grad((own * rest.flatten(1).square().sum(dim=1)).sum(), logs)
        return slope.cpu().numpy()

    @torch.no_grad()
    def _columns(self, grid: Array, weights: Array, chunk: int) -> Array:
        solution, positive = self.reference, grid[grid > 0]
        gaps, noise = -np.diff(np.log(positive)), self._noise(chunk)
        act = (solution.denoiser, solution.sampler)
        states = trajectory(*act, grid, solution.draws.start(chunk), noise)
        outputs: list[Before] = []
        if solution.sampler.memory:
            outputs = [(float(s), x, solution.denoiser(x, float(s))) for s, x in zip(positive, states, strict=False)]
        columns = []
        for k in range(1, positive.size):
            nudge, ends = self.nudge * float(gaps[k - 1 : k + 1].min()), [states[-1]]
            for side in (-1, 1) if self.rounds else (1,):
                moved = grid[k - 1 :].copy()
                moved[1] *= np.exp(side * nudge)
                place = Place(grid.size - 1, moved.size - 2)
                ends.append(run(*act, moved, states[k - 1], noise, before=outputs[: k - 1], place=place))
            columns.append((ends[-1] - ends[-2]).flatten(1).double() / ((len(ends) - 1) * nudge))
        slopes = torch.stack(columns)
        own = torch.as_tensor(weights[solution.draws.rows(chunk)]).to(slopes.device)
        rest = (states[-1] - self.fine(solution, chunk)).flatten(1).double()
        both = torch.cat([slopes, rest[None]])
        return 2 * torch.einsum("knp,n,lnp->kl", slopes, own, both).cpu().numpy()


@torch.no_grad()
@torch.no_grad()
def rounding_of(reference: Reference) -> float:
    """Relative rounding of the network's answers: second differences over tiny moves, small for smooth functions."""
    draws = reference.draws
    sigma = float((reference.stopping_sigma * draws.sigma_max) ** 0.5)
    x = normal(draws.seed, "rounding", shape=(4, *draws.shape), like=draws.like) * (1 + sigma**2) ** 0.5
    low, middle, high = (reference.denoiser((1 + k * _SHAKE) * x, sigma).double() for k in (-1, 0, 1))
    size = float(middle.square().mean())
    return (float((low - 2 * middle + high).square().mean()) / (6 * size)) ** 0.5 if size > 0 else 0.0


def differentiable(denoiser: Denoiser, draws: Draws) -> bool:
    """Whether gradients pass through the denoiser to the states and to sigma; a detached input has none."""
    x = torch.ones((1, *draws.shape)).to(draws.like).requires_grad_(True)
    sigma = x.detach().new_full((1,), draws.sigma_max).requires_grad_(True)
    with torch.enable_grad():
        out = asked(denoiser.function, x, sigma)
        if not out.requires_grad:
            return False
        return all(part is not None for part in torch.autograd.grad(out.sum(), (x, sigma), allow_unused=True))
