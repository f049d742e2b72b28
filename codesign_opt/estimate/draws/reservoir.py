"""A uniform sample of the examples of a stream, the same whatever the order, the processes or a restart."""

from __future__ import annotations

from typing import Any

import torch

from .streams import processes, seeded, sum_over_processes

__all__ = ["Reservoir"]


class Reservoir:
    """The `size` examples with the smallest random priorities, kept in the order of priority.

    A priority depends on the seed, the number of the batch and the place in it. Every leading part of the
    reservoir is a uniform sample too. Docs: docs/theory.md section 1.

    >>> reservoir = Reservoir(2, 3, seed=0)
    >>> reservoir.add(0, torch.eye(3, dtype=torch.float64))
    >>> reservoir.rows.shape
    torch.Size([2, 3])
    """

    def __init__(self, size: int, dimension: int, *, seed: int, like: torch.Tensor | None = None) -> None:
        self.seed = seed
        like = torch.zeros((), dtype=torch.float64) if like is None else like
        self._rows = torch.zeros((size, dimension), dtype=like.dtype, device=like.device)
        self._priority = torch.full((size,), torch.inf, dtype=torch.float64)

    @property
    def rows(self) -> torch.Tensor:
        """(M, d) examples kept, M at most `size`."""
        return self._rows[: int(torch.isfinite(self._priority).sum())]

    def fresh(self) -> Reservoir:
        """An empty one of the same form."""
        return Reservoir(*self._rows.shape, seed=self.seed, like=self._rows)

    def add(self, number: int, rows: torch.Tensor) -> None:
        """Offer the (N, d) examples of batch `number`."""
        draws = torch.rand(rows.shape[0], generator=seeded(self.seed, "reservoir", number), dtype=torch.float64)
        self._offer(draws, rows)

    def absorb(self, part: Reservoir) -> None:
        """Offer the examples kept by all processes."""
        rank, world = processes()
        if world == 1:
            self._offer(part._priority, part._rows)
            return
        size = part._priority.numel()
        table = torch.zeros((world, size), dtype=torch.float64)
        table[rank] = torch.where(torch.isfinite(part._priority), part._priority, 2.0)  # absent: above every priority
        everywhere = sum_over_processes(table).reshape(-1)
        best = torch.argsort(everywhere, stable=True)[:size]
        rows = torch.zeros_like(part._rows)
        mine = best // size == rank
        rows[mine.to(rows.device)] = part._rows[(best[mine] % size).to(rows.device)]
        priority = everywhere[best]
        self._offer(torch.where(priority < 1.5, priority, torch.inf), sum_over_processes(rows))

    def _offer(self, priority: torch.Tensor, rows: torch.Tensor) -> None:
        size = self._priority.numel()
        everything = torch.cat([self._priority, priority])
        best = torch.argsort(everything, stable=True)[:size]
        old = best < size
        kept = self._rows[best[old].to(rows.device)]
        self._rows[old.to(rows.device)] = kept
        self._rows[(~old).to(rows.device)] = rows[(best[~old] - size).to(rows.device)]
        self._priority = everything[best]

    def state(self) -> dict[str, Any]:
        """Arrays from which `load` goes on."""
        return {"reservoir": self._rows.cpu().numpy(), "priority": self._priority.numpy()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` wrote."""
        self._rows.copy_(torch.as_tensor(state["reservoir"]))
        self._priority = torch.as_tensor(state["priority"]).clone()
