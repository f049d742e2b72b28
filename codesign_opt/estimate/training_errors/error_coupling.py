"""Measuring how errors add: the denoiser is swapped for another on one block of noise levels at a time.

docs/theory.md section 6. The error e = D' - D of a trained denoiser at one block of noise levels moves
the terminal point by r_l; correlation.py makes lengths of the responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, choice, entries, integer, number, takes, vector
from ...basics.ledger import Ledger
from ...ingredients.levels import Levels
from ...samplers.base import Sampler
from ...samplers.network_step import Place
from ..denoisers.denoiser import Denoise, Denoiser
from ..denoisers.same_denoiser import check_same_denoiser
from ..draws.data_fingerprint import digest_of
from ..draws.streams import my_share, normal, sum_over_processes
from ..runs.fine_solution import check_like, check_mean
from ..runs.run import BrownianPath, asked_levels, run, trajectory
from .correlation import ErrorGram

__all__ = ["Starts", "Swap", "error_gram"]

_ROUND = 4  # batches per ledger item, shared by the processes


@dataclass(frozen=True, eq=False)
class Starts:
    """Where the sampler starts, x ~ mean + N(0, sigma_max^2 I): how often, and in which shape.

    Args:
        shape: of one sample.
        draws: starts, at least 2, each a unit of standard errors; 64 give errors good to a tenth.
        batch: starts that run at once.
        mean: added to every start, broadcast over `shape`.
        like: tensor whose device and dtype the states take; float32 on the CPU unless given.

    Raises:
        ValueError: a number out of range.

    >>> Starts((3, 8, 8)).draws
    64
    """

    shape: tuple[int, ...]
    draws: int = 64
    batch: int = 8
    mean: Any = 0.0
    like: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float32))

    def __post_init__(self) -> None:
        put = object.__setattr__
        sizes = entries(self.shape, "Starts.shape")
        put(self, "shape", tuple(integer(size, "Starts.shape", minimum=1, maximum=AT_ONCE) for size in sizes))
        put(self, "draws", integer(self.draws, "Starts.draws", minimum=2, maximum=AT_ONCE))
        put(self, "batch", integer(self.batch, "Starts.batch", minimum=1))
        check_like(self.like, "Starts.like")
        check_mean(self.mean, self.shape, "Starts.mean")


@dataclass(frozen=True, eq=False)
class Swap:
    """What of a denoiser is swapped for another's at a time, and over what standard errors are taken.

    Args:
        levels: blocks that cover the grid's evaluations; a number of equal ones in log sigma; or one block per node
            unless given.
        fraction: in (0, 1]: 1 swaps the denoiser, a small fraction measures the linear response (and loses digits in
            float32).
        unit: of standard errors: "draw", or "replica" where there are three other denoisers or more: the scatter of
            training itself, which draws do not see.

    Raises:
        ValueError: a field out of its range.

    >>> Swap(levels=12).fraction
    1.0
    """

    levels: Levels | int | None = None
    fraction: float = 1.0
    unit: str = "draw"

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.levels is not None and not isinstance(self.levels, Levels):
            put(self, "levels", integer(self.levels, "Swap.levels", minimum=1))
        put(self, "fraction", number(self.fraction, "Swap.fraction", positive=True, maximum=1.0))
        choice(self.unit, "Swap.unit", ("draw", "replica"))

    def blocks(self, grid: Array, sampler: Sampler) -> Levels:
        """The blocks of levels for a sampler on a grid."""
        if isinstance(self.levels, Levels):
            return self.levels
        nodes = grid[grid > 0][::-1]
        if self.levels is not None:
            return Levels.log_uniform(nodes[0], nodes[-1], self.levels)
        unasked = min(asked_levels(sampler, grid)) > nodes[0] * (1 + 1e-9)  # a last node that no step asks for
        return Levels.around(nodes[1:] if unasked else nodes)


@takes(sampler=Sampler, starts=Starts, swap=Swap)
def error_gram(
    denoiser: Denoise,
    others: Any,
    sampler: Sampler,
    sigmas: ArrayLike,
    starts: Starts,
    *,
    swap: Swap | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> ErrorGram:
    """Terminal responses to the denoiser's error on one block of levels at a time, and their Gram matrix.

    The sampler runs with `denoiser` everywhere, then, for every block, with D + f (D' - D) on the block
    alone, from the same start and under the same noise; the terminal change over the fraction f is r_l
    (docs/theory.md section 6, the measurement). A second denoiser may be another checkpoint, the
    exponential average of the weights, a replicated run or a pilot at another density; what counts is
    that D' - D is distributed like the error that planning is about. Two independent runs double R and
    leave its correlations.

    Args:
        denoiser, others: callables (x, sigma) -> x0; `others` one or a sequence of replicas.
        sampler, sigmas: the sampler and its (K+1,) descending grid.
        starts: how many, and the shape, device and dtype of a sample.
        swap: blocks of levels, fraction f, and the unit of standard errors; the whole denoiser, node by node, over
            draws unless given.
        seed: of the starts and the noise.
        folder: where finished draws are kept; a killed run goes on there.

    Raises:
        ValueError: a block without an evaluation of the denoiser, or no error in a block.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import Euler
    >>> found = error_gram(lambda x, s: 0.5 * x, lambda x, s: 0.6 * x, Euler(), [4.0, 2.0, 1.0], Starts((3,), draws=8))
    >>> found.correlation.round(6).tolist()  # both errors stretch the sample
    [[1.0, 1.0], [1.0, 1.0]]
    """
    base = Denoiser.of(denoiser)
    second = [Denoiser.of(one) for one in (others if isinstance(others, Sequence) else [others])]
    grid = np.array(vector(sigmas, "error_gram.sigmas", minimum_length=2, nonnegative=True, descending=True))
    swap = Swap() if swap is None else swap
    if swap.unit == "replica" and len(second) < 3:
        raise ValueError(f"Swap.unit is 'replica' with {len(second)} others; give at least 3, or use 'draw'.")
    blocks = swap.blocks(grid, sampler)
    work = _Swaps(base, second, sampler, grid, blocks, starts, swap.fraction, seed)
    question = {"grid": grid.tolist(), "edges": blocks.edges.tolist(), "sampler": repr(sampler), "draws": starts.draws}
    question |= {"batch": starts.batch, "swap": swap.fraction, "seed": seed, "shape": list(starts.shape)}
    question |= {"mean": digest_of([torch.as_tensor(starts.mean)])}
    ledger = Ledger(folder, {"estimate": "error_gram", **question, "replicas": len(second)})
    if ledger.folder is not None:
        states = normal(seed, "same", shape=(2, *starts.shape), like=starts.like)
        for i, one in enumerate([base, *second]):
            name, place = f"denoiser {i}", ledger.folder / "answers" / f"{i}"
            check_same_denoiser(one, grid[grid > 0], states, place, question, name=name, within=ledger.folder)
    parts = [
        ledger.item(f"draws-{rows[0].start}", lambda rows=rows: work.measure(rows))  # type: ignore[misc]
        for rows in _rounds(starts)
    ]
    axis = 0 if swap.unit == "draw" else 1
    gram = np.concatenate([part["gram"] for part in parts]).mean(axis=1 - axis)
    together = np.concatenate([part["together"] for part in parts]).mean(axis=1 - axis)
    return ErrorGram(blocks, gram, together, int(sum(float(part["evaluations"]) for part in parts)))


def _rounds(starts: Starts) -> list[list[range]]:
    """Batches of draws, a few in every item, so that the processes share an item."""
    batches = [range(low, min(low + starts.batch, starts.draws)) for low in range(0, starts.draws, starts.batch)]
    return [batches[low : low + _ROUND] for low in range(0, len(batches), _ROUND)]


@dataclass(frozen=True, eq=False)
class _Swaps:
    """The runs behind the Gram matrix, for a batch of draws at a time."""

    base: Denoiser
    others: list[Denoiser]
    sampler: Sampler
    grid: Array
    levels: Levels
    draws: Starts
    swap: float
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
        if self.sampler.stochastic:
            low = float(self.grid[self.grid > 0][-1])
            noise = BrownianPath(self.seed, ("gram noise", draws.start), float(self.grid[0]), low)
        own = self.draws
        starts = [normal(self.seed, "gram start", n, shape=own.shape, like=own.like) for n in draws]
        x = torch.stack(starts) * float(self.grid[0]) + own.mean
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
        nodes = torch.as_tensor(self.grid[self.grid > 0]).to(self.draws.like.dtype).numpy()  # as the denoiser sees them
        inside = np.flatnonzero(self._block_of(nodes) == block)
        start = max(int(inside[0]) - 1, 0) if inside.size and not self.sampler.memory else 0
        used: list[int] = []
        place = Place(self.grid.size - 1, self.grid.size - 2 - start)
        mixed = self._mixed(other, block, used)
        out = run(mixed, self.sampler, self.grid[start:], states[start], noise, place=place)
        if not used:
            low, high = self.levels.edges[block], self.levels.edges[block + 1]
            raise ValueError(
                f"Swap.levels: the sampler never evaluates the denoiser between sigma {low:.4g} and "
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
