"""Measuring how errors add: the denoiser is swapped for another on one block of noise levels at a time.

docs/theory.md section 6. The error e = D' - D of a trained denoiser at one block of noise levels moves
the terminal point by r_l; correlation.py makes lengths of the responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array, choice, integer, number, vector
from ...basics.ledger import Ledger
from ...ingredients.levels import Levels
from ...samplers.members import DPMpp2M, Sampler
from ..denoisers.denoiser import Denoiser
from ..draws.streams import my_share, normal, sum_over_processes
from ..runs.run import BrownianPath, has_noise, run, trajectory
from .correlation import ErrorGram

__all__ = ["error_gram"]

_ROUND = 4  # batches per ledger item, shared by the processes


def error_gram(
    denoiser: Any,
    others: Any,
    sampler: Sampler,
    sigmas: Any,
    *,
    shape: tuple[int, ...],
    levels: Levels | int | None = None,
    draws: int = 64,
    batch: int = 8,
    swap: float = 1.0,
    unit: str = "draw",
    mean: Any = 0.0,
    like: torch.Tensor | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> ErrorGram:
    """Terminal responses to the denoiser's error on one block of levels at a time, and their Gram matrix.

    The sampler runs with `denoiser` everywhere, then, for every block, with D + swap (D' - D) on the
    block alone, from the same start and under the same noise; the terminal change over `swap` is r_l
    (docs/theory.md section 6, the measurement). A second denoiser may be another checkpoint, the
    exponential average of the weights, a replicated run or a pilot at another density; what counts is
    that D' - D is distributed like the error that planning is about. Two independent runs double R and
    leave its correlations.

    Args:
        denoiser, others: callables (x, sigma) -> x0; `others` one or a sequence of replicas.
        sampler, sigmas: the sampler and its (K+1,) descending grid.
        shape: of one example.
        levels: blocks that cover the grid's evaluations; a number of equal ones in log sigma; or one block
            per node unless given.
        draws, batch: starts, and how many run at once.
        swap: in (0, 1]; 1 swaps the denoiser, a small fraction measures the linear response (and loses
            digits in float32).
        unit: what standard errors are over: "draw", or "replica" where there are several others: the
            scatter of training itself, which draws do not see.
        mean: of the start, N(mean, sigma_max^2).
        like: tensor whose device and dtype are used; float32 on the CPU unless given.
        seed: of the starts and the noise.
        folder: where finished draws are kept; a killed run goes on there.

    Raises:
        ValueError: a block without an evaluation of the denoiser, or no error in a block.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import Euler
    >>> found = error_gram(lambda x, s: 0.5 * x, lambda x, s: 0.6 * x, Euler(), [4.0, 2.0, 1.0], shape=(3,), draws=8)
    >>> found.correlation.round(6).tolist()  # both errors stretch the sample
    [[1.0, 1.0], [1.0, 1.0]]
    """
    base = Denoiser.of(denoiser)
    second = [Denoiser.of(one) for one in (others if isinstance(others, Sequence) else [others])]
    grid = np.array(vector(sigmas, "error_gram.sigmas", minimum_length=2, nonnegative=True, descending=True))
    count, size = integer(draws, "error_gram.draws", minimum=2), integer(batch, "error_gram.batch", minimum=1)
    number(swap, "error_gram.swap", positive=True, maximum=1.0)
    choice(unit, "error_gram.unit", ("draw", "replica"))
    if unit == "replica" and len(second) < 3:
        raise ValueError(f"error_gram.unit is 'replica' with {len(second)} others; give at least 3, or use 'draw'.")
    blocks = _blocks(levels, grid, sampler)
    work = _Swaps(base, second, sampler, grid, blocks, tuple(shape), swap, mean, _tensor(like), seed)
    question = {"grid": grid.tolist(), "edges": blocks.edges.tolist(), "sampler": repr(sampler), "draws": count}
    question |= {"batch": size, "swap": swap, "seed": seed, "shape": list(shape), "replicas": len(second)}
    ledger, parts = Ledger(folder, {"estimate": "error_gram", **question}), []
    for start in range(0, count, _ROUND * size):
        rows = [range(low, min(low + size, count)) for low in range(start, min(start + _ROUND * size, count), size)]
        parts.append(ledger.item(f"draws-{start}", lambda rows=rows: work.measure(rows)))  # type: ignore[misc]
    axis = 0 if unit == "draw" else 1
    gram = np.concatenate([part["gram"] for part in parts]).mean(axis=1 - axis)
    together = np.concatenate([part["together"] for part in parts]).mean(axis=1 - axis)
    return ErrorGram(blocks, gram, together, int(sum(float(part["evaluations"]) for part in parts)))


def _tensor(like: torch.Tensor | None) -> torch.Tensor:
    return torch.zeros((), dtype=torch.float32) if like is None else like


def _blocks(levels: Levels | int | None, grid: Array, sampler: Sampler) -> Levels:
    nodes = grid[grid > 0][::-1]
    if isinstance(levels, Levels):
        return levels
    if levels is not None:
        return Levels.log_uniform(nodes[0], nodes[-1], integer(levels, "error_gram.levels", minimum=1))
    last = grid[-1] > 0 and sampler.evaluations_per_step == 1  # the last node is never evaluated
    return Levels.around(nodes[1:] if last else nodes)


@dataclass(frozen=True, eq=False)
class _Swaps:
    """The runs behind the Gram matrix, for a batch of draws at a time."""

    base: Denoiser
    others: list[Denoiser]
    sampler: Sampler
    grid: Array
    levels: Levels
    shape: tuple[int, ...]
    swap: float
    mean: Any
    like: torch.Tensor
    seed: int

    def measure(self, rows: list[range]) -> dict[str, Any]:
        """(draws, replicas, L, L) Gram matrices of these batches; the processes share them."""
        first, count, size = rows[0].start, rows[-1].stop - rows[0].start, len(self.levels)
        gram = torch.zeros(count, len(self.others), size, size, dtype=torch.float64)
        together = torch.zeros(count, len(self.others), dtype=torch.float64)
        before = self._spent()
        for index in my_share(len(rows)):
            part = slice(rows[index].start - first, rows[index].stop - first)
            gram[part], together[part] = self._batch(rows[index])
        spent = sum_over_processes(torch.tensor(float(self._spent() - before), dtype=torch.float64))
        return {
            "gram": sum_over_processes(gram).numpy(),
            "together": sum_over_processes(together).numpy(),
            "evaluations": spent.numpy(),
        }

    def _spent(self) -> int:
        return self.base.evaluations + sum(other.evaluations for other in self.others)

    @torch.no_grad()
    def _batch(self, draws: range) -> tuple[torch.Tensor, torch.Tensor]:
        noise = None
        if has_noise(self.sampler):
            low = float(self.grid[self.grid > 0][-1])
            noise = BrownianPath(self.seed, ("gram noise", draws.start), float(self.grid[0]), low)
        starts = [normal(self.seed, "gram start", n, shape=self.shape, like=self.like) for n in draws]
        x = torch.stack(starts) * float(self.grid[0]) + self.mean
        states = trajectory(self.base, self.sampler, self.grid, x, noise)
        grams, totals = [], []
        for other in self.others:
            rows = [self._response(other, block, states, noise) for block in range(len(self.levels))]
            fields = torch.stack(rows, dim=1)
            grams.append(fields @ fields.transpose(1, 2))
            everywhere = run(self._mixed(other, None, []), self.sampler, self.grid, x, noise)
            totals.append(((everywhere - states[-1]) / self.swap).to("cpu", torch.float64).flatten(1).square().sum(1))
        return torch.stack(grams, dim=1), torch.stack(totals, dim=1)

    def _response(
        self, other: Denoiser, block: int, states: list[torch.Tensor], noise: BrownianPath | None
    ) -> torch.Tensor:
        """(N, d) terminal change per unit swap; the run starts where the block can first be felt."""
        nodes = torch.as_tensor(self.grid[self.grid > 0]).to(self.like.dtype).numpy()  # as the denoiser sees them
        inside = np.flatnonzero(self._block_of(nodes) == block)
        start = max(int(inside[0]) - 1, 0) if inside.size and not isinstance(self.sampler, DPMpp2M) else 0
        used: list[int] = []
        out = run(self._mixed(other, block, used), self.sampler, self.grid[start:], states[start], noise)
        if not used:
            low, high = self.levels.edges[block], self.levels.edges[block + 1]
            raise ValueError(
                f"error_gram.levels: the sampler never evaluates the denoiser between sigma {low:.4g} and "
                f"{high:.4g}; use fewer levels or more steps."
            )
        return ((out - states[-1]) / self.swap).to("cpu", torch.float64).flatten(1)

    def _block_of(self, sigma: Any) -> Any:
        return np.searchsorted(self.levels.edges[1:-1], sigma, side="right")

    def _mixed(self, other: Denoiser, block: int | None, used: list[int]) -> Callable[..., torch.Tensor]:
        """D with D + swap (D' - D) in one block, or everywhere; notes in `used` that it was called there."""

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            if block is not None and int(self._block_of(float(sigma[0]))) != block:
                return self.base(x, sigma)
            used.append(1)
            if self.swap == 1:
                return other(x, sigma)
            clean = self.base(x, sigma)
            return clean + self.swap * (other(x, sigma) - clean)

        return denoise
