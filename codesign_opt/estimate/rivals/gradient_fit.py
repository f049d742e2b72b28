"""GradientRival: unknowns of a sampler lowered by gradient through the unrolled run, the start soft."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...samplers.base import Sampler
from ..steps.grid_error import GridErrors
from ..steps.grid_runs import differentiable
from .base import FittedRival, Ground, Rival

__all__ = ["GradientRival", "Unknowns"]

_BACKWARD = 3  # calls that one differentiated call is priced at: forward, and two for the way back
_CHECKS = 20  # times that the held-out draws are asked, and a killed fit can go on from

Unknowns = dict[str, torch.Tensor]


class GradientRival(Rival):
    """First-order descent through the unrolled sampler, one batch of draws an iteration; held-out draws choose.

    The start of every draw may move in a ball around it while the unknowns are learned (`radius`), as the soft teacher
    forcing of LD3 and the relaxed objective of S4S have it: a projected gradient step of the start follows every
    iteration. The solver that is returned starts where the draws do. The learning rate falls to zero as a half cosine.
    """

    learning_rate: float
    radius: float

    @abstractmethod
    def _begun(self, start: Array, ground: Ground) -> Unknowns:
        """The unknowns at a start."""

    @abstractmethod
    def _output(self, unknowns: Unknowns, start: Array, ground: Ground, x: torch.Tensor) -> torch.Tensor:
        """Terminal states, differentiable."""

    @abstractmethod
    def _solver(self, unknowns: Unknowns, start: Array, ground: Ground) -> tuple[Sampler, Array]:
        """The sampler that the unknowns are, and its grid."""

    def _moving(self, share: float) -> set[str]:
        """Names of the unknowns that move when so much of the iterations is done; all unless overridden."""
        return set()

    def _loss(self, rest: torch.Tensor) -> torch.Tensor:
        """From (n, *shape) residuals to the number that is lowered."""
        return rest.flatten(1).square().sum(dim=1).mean()

    def _optimiser(self, unknowns: Unknowns) -> torch.optim.Optimizer:
        return torch.optim.Adam(unknowns.values(), lr=self.learning_rate)

    def _begin_with(self, ground: Ground) -> Array:
        """The start to descend from."""
        return ground.best_start(ground.reference.sampler)[0]

    def _fitted(self, ground: Ground) -> FittedRival:
        if not differentiable(ground.reference.denoiser, ground.draws):
            raise ValueError(
                f"{self.name} takes gradients through the denoiser {ground.reference.denoiser.name!r}, which gives "
                "none to states and sigma; give the torch module itself, without torch.no_grad or detach."
            )
        start = self._begin_with(ground)
        descent = _Descent(self, ground, start)
        return descent.run()


@dataclass(eq=False)
class _Progress:
    """Where a descent is: unknowns, the optimiser's memory, soft starts, and the best so far."""

    unknowns: Unknowns
    optimiser: torch.optim.Optimizer
    soft: list[torch.Tensor]
    best: Unknowns
    held_out: GridErrors

    def packed(self) -> dict[str, Array]:
        """Plain arrays of everything."""
        kept = {f"now.{name}": value.detach().cpu().numpy() for name, value in self.unknowns.items()}
        kept |= {f"best.{name}": value.cpu().numpy() for name, value in self.best.items()}
        kept |= {f"soft.{chunk}": value.cpu().numpy() for chunk, value in enumerate(self.soft)}
        for number, state in self.optimiser.state_dict()["state"].items():
            kept |= {
                f"optimiser.{number}.{name}": torch.as_tensor(value).cpu().numpy() for name, value in state.items()
            }
        return {**kept, "held_out": self.held_out.errors}

    def unpack(self, kept: Mapping[str, Any]) -> None:
        """Back to where `packed` was called."""
        for name, value in self.unknowns.items():
            value.data = torch.as_tensor(kept[f"now.{name}"]).to(value)
            self.best[name] = torch.as_tensor(kept[f"best.{name}"]).to(value)
        self.soft = [torch.as_tensor(kept[f"soft.{chunk}"]).to(value) for chunk, value in enumerate(self.soft)]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in kept.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                state.setdefault(int(number), {})[name] = torch.as_tensor(value)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.held_out = GridErrors(np.asarray(kept["held_out"]))


@dataclass(eq=False)
class _Descent:
    """The loop of a `GradientRival`."""

    rival: GradientRival
    ground: Ground
    start: Array

    @property
    def _price(self) -> int:
        """Calls of an iteration."""
        ground = self.ground
        return _BACKWARD * ground.run_cost(ground.reference.sampler, self.start) // ground.held_out.chunks

    def run(self) -> FittedRival:
        """The descent, as far as the budget goes."""
        ground = self.ground
        now = self._begun()
        check = ground.run_cost(*self.rival._solver(now.best, self.start, ground))
        left = ground.budget - ground.batches - _CHECKS * check
        count = max(left // self._price, 0)
        edges = np.linspace(0, count, min(_CHECKS, count) + 1).astype(int) if count else np.zeros(1, dtype=int)
        for block, (first, last) in enumerate(pairwise(edges)):
            self._block(now, block, int(first), int(last), count)
        sampler, sigmas = self.rival._solver(now.best, self.start, ground)
        reason = f"{count} iterations" if count else "budget"
        return ground.result(self.rival.name, sampler, sigmas, now.held_out, iterations=count, reason=reason)

    def _begun(self) -> _Progress:
        ground = self.ground
        unknowns = {
            name: value.double().clone().requires_grad_(True)
            for name, value in self.rival._begun(self.start, ground).items()
        }
        soft = [torch.zeros_like(ground.start(chunk)) for chunk in range(ground.draws.chunks)]
        best = {name: value.detach().clone() for name, value in unknowns.items()}
        errors = ground.held_out_errors(*self.rival._solver(best, self.start, ground))
        return _Progress(unknowns, self.rival._optimiser(unknowns), soft, best, errors)

    def _block(self, now: _Progress, block: int, first: int, last: int, count: int) -> None:
        """Some iterations, then a look at the held-out draws; kept in the ledger."""
        ground = self.ground
        kept = ground.ledger.get(f"block/{block}")
        if kept is not None:
            now.unpack(kept)
            ground.batches = int(kept["batches"])
            return
        for number in range(first, last):
            self._iteration(now, number, count)
        there = {name: value.detach().clone() for name, value in now.unknowns.items()}
        errors = ground.held_out_errors(*self.rival._solver(there, self.start, ground))
        if float(errors.mean.value) < float(now.held_out.mean.value):
            now.best, now.held_out = there, errors
        ground.ledger.put(f"block/{block}", **now.packed(), batches=np.array(ground.batches))

    def _iteration(self, now: _Progress, number: int, count: int) -> None:
        rival, ground, chunk = self.rival, self.ground, number % self.ground.draws.chunks
        x = (ground.start(chunk) + now.soft[chunk]).requires_grad_(rival.radius > 0)
        moving = rival._moving(number / count)
        with torch.enable_grad():
            loss = rival._loss(rival._output(now.unknowns, self.start, ground, x) - ground.end(ground.draws, chunk))
        wanted = {name: value for name, value in now.unknowns.items() if not moving or name in moving}
        inputs = [*wanted.values(), *([x] if rival.radius > 0 else [])]
        slopes = torch.autograd.grad(loss, inputs, allow_unused=True)
        ground.batches += self._price
        for value in now.unknowns.values():
            value.grad = None
        for value, slope in zip(wanted.values(), slopes, strict=False):
            value.grad = slope
        for group in now.optimiser.param_groups:
            group["lr"] = rival.learning_rate * 0.5 * (1 + np.cos(np.pi * number / count))
        now.optimiser.step()
        if rival.radius > 0:
            now.soft[chunk] = self._moved(now.soft[chunk], slopes[-1])

    def _moved(self, soft: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """A step of half the radius against the slope, back into the ball."""
        draws = self.ground.draws
        radius = self.rival.radius * draws.sigma_max * float(np.prod(draws.shape)) / self.ground.steps**2
        flat, down = soft.flatten(1), slope.flatten(1)
        flat = flat - 0.5 * radius * down / down.norm(dim=1, keepdim=True).clamp(min=1e-300)
        flat = flat * (radius / flat.norm(dim=1, keepdim=True).clamp(min=1e-300)).clamp(max=1.0)
        return flat.reshape(soft.shape)
