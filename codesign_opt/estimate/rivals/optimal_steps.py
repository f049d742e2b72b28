"""Optimal stepsize (OSS): nodes of a teacher's grid by dynamic programming on the student's own states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from ...basics.checks import AT_ONCE, Array, integer
from ...ingredients.grids import edm_grid
from ...samplers.members import Euler
from .base import FittedRival, Ground, Rival

__all__ = ["OptimalSteps"]


@dataclass(frozen=True)
class OptimalSteps(Rival):
    """K steps among the nodes of a fine teacher, so that the student's states stray least from the teacher's.

    Forward over the nodes: z_j^k is Euler's step from the z_i^{k-1}, i before j, that comes nearest to the teacher's
    state at node j in the mean over draws; the path to the last node is the grid. The student's own states are stepped,
    so that the cost is the distance of states and no sum of step errors. Pei, Hu, Gu 2025 (OSS, arXiv 2503.21774).

    The paper leaves to choose, or we chose: the teacher is Euler's method on EDM's rho = 7 grid between the reference's
    ends; the grid is handed out with the reference's sampler or with Euler's, whichever does better on held-out draws.

    Args:
        teacher_steps: of the teacher; fewer where the budget does not pay for K calls at every node.

    Raises:
        ValueError: fewer than 2 teacher steps; from `fit`, a budget that pays for no more than K of them.

    >>> OptimalSteps().name
    'oss'
    """

    teacher_steps: int = 100
    name: ClassVar[str] = "oss"
    title: ClassVar[str] = "OSS: steps of a teacher by dynamic programming"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(
            self, "teacher_steps", integer(self.teacher_steps, "OptimalSteps.teacher_steps", minimum=2, maximum=AT_ONCE)
        )

    def _fitted(self, ground: Ground) -> FittedRival:
        reference, count = ground.reference, ground.steps
        samplers = [reference.sampler] if isinstance(reference.sampler, Euler) else [reference.sampler, Euler()]
        tests = sum(ground.run_cost(sampler, ground.starts[0]) for sampler in samplers)
        steps = min(self.teacher_steps, (ground.budget - ground.batches - tests) // (ground.draws.chunks * count))
        if steps <= count:
            ground.check(tests + ground.draws.chunks * count * (count + 1))
        teacher = edm_grid(steps, reference.stopping_sigma, ground.draws.sigma_max, terminal=reference.terminal)
        grid = teacher[self._path(ground, teacher)]
        tried = [(sampler, ground.held_out_errors(sampler, grid)) for sampler in samplers]
        sampler, errors = min(tried, key=lambda pair: float(pair[1].mean.value))
        return ground.result(self.name, sampler, grid, errors, reason=f"{steps} teacher steps")

    def _path(self, ground: Ground, teacher: Array) -> list[int]:
        """Indices of the teacher's nodes on the best path of K steps, both ends included."""
        found = ground.ledger.item("path", lambda: self._searched(ground, teacher))
        ground.batches = int(found["batches"])
        return [int(node) for node in found["path"]]

    @torch.no_grad()
    def _searched(self, ground: Ground, teacher: Array) -> dict[str, Array]:
        starts = torch.cat([ground.start(chunk) for chunk in range(ground.draws.chunks)])
        ahead = [starts]
        for high, low in pairwise(teacher):
            ahead.append(self._stepped(ground, ahead[-1], float(high), [float(low)])[0])
        states: dict[int, torch.Tensor] = {0: starts}
        origins: list[dict[int, int]] = []
        last = teacher.size - 1
        for step in range(ground.steps):
            left = ground.steps - 1 - step  # steps that follow: as many nodes must stay below
            targets = [last] if not left else list(range(step + 1, last - left + 1))
            states, origin = self._layer(ground, teacher, states, targets, ahead)
            origins.append(origin)
        path = [last]
        for origin in reversed(origins):
            path.append(origin[path[-1]])
        return {"path": np.array(path[::-1]), "batches": np.array(ground.batches)}

    def _layer(
        self,
        ground: Ground,
        teacher: Array,
        states: dict[int, torch.Tensor],
        targets: list[int],
        ahead: list[torch.Tensor],
    ) -> tuple[dict[int, torch.Tensor], dict[int, int]]:
        """The best states at the targets after one step more, and the nodes that they came from."""
        best: dict[int, tuple[float, int, torch.Tensor]] = {}
        for node, x in states.items():
            below = [j for j in targets if j > node]
            reached = self._stepped(ground, x, float(teacher[node]), [float(teacher[j]) for j in below])
            for j, there in zip(below, reached, strict=True):
                away = float((there - ahead[j]).square().mean())
                if j not in best or away < best[j][0]:
                    best[j] = (away, node, there)
        return {j: found[2] for j, found in best.items()}, {j: found[1] for j, found in best.items()}

    def _stepped(self, ground: Ground, x: torch.Tensor, high: float, lows: list[float]) -> list[torch.Tensor]:
        """Euler's steps from one level to several lower ones, one call of the denoiser a batch."""
        if not lows:
            return []
        ground.batches += ground.draws.chunks
        clean = torch.cat([ground.output(part, high) for part in x.split(ground.draws.chunk)])
        return [clean + low / high * (x - clean) for low in lows]
