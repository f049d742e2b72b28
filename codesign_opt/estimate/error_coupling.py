"""How errors of different noise levels add: Gram matrix of terminal responses, correlation length.

docs/theory.md section 6. The error e = D' - D of a trained denoiser at one block of noise levels moves
the terminal point by r_l; the Gram matrix R_jk = E<r_j, r_k> over sampler trajectories says which
errors add coherently. The two-sided integral of the correlation over log sigma is the length l_log
of equation (6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._validate import Array, choice, integer, matrix, number, vector
from ..coupling import Local
from ..levels import Levels
from ..samplers import DPMpp2M, Sampler
from .denoiser import Denoiser
from .ledger import Ledger
from .sampling import BrownianPath, has_noise, run, trajectory
from .statistics import Estimate
from .streams import my_share, normal, sum_over_processes

__all__ = ["CorrelationLength", "ErrorGram", "error_gram", "jackknife"]

_ROUND = 4  # batches per ledger item, shared by the processes
_TINY = 1e-300


def jackknife(statistic: Callable[[Array], Array], units: Array) -> Estimate:
    """A function of the mean of independent units, with the standard error of leaving each out in turn.

    Args:
        statistic: smooth function of the mean over the first axis.
        units: (U, ...) independent and alike, at least 2.

    >>> jackknife(lambda mean: mean**2, np.array([1.0, 2.0, 3.0])).value.item()
    4.0
    """
    count = units.shape[0]
    if count < 2:
        raise ValueError(f"jackknife: {count} independent unit; at least 2 are needed for a standard error.")
    total = units.sum(axis=0)
    left_out = np.array([statistic((total - unit) / (count - 1)) for unit in units])
    spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0) * (count - 1) / count
    return Estimate(np.asarray(statistic(total / count)), np.sqrt(spread), count)


@dataclass(frozen=True, eq=False)
class CorrelationLength:
    """Two-sided integral of the correlation of errors over log sigma, l_log of equation (6.1).

    Attributes:
        sigma: (L,) noise levels.
        local: (L,) sum_k C_lk w_k at each level; near the ends of the range the integral is cut with
            the range, as the score error itself is.
        overall: mean of `local`, weighted with each level's squared response per unit log sigma.
        gram: Gram sum over sum of squares, sum_jk R_jk / sum_l (R_ll / w_l): the one number with which
            (6.1) gives the coherent sum of all errors. Below `overall` where amplitudes vary within a length.
        resolution: widest level over `overall`; averaging over wide levels lengthens the estimate (by about
            a sixth of it for a correlation with a kink, much less for a smooth one).
    """

    sigma: Array
    local: Estimate
    overall: Estimate
    gram: Estimate
    resolution: float

    def coupling(self, kind: str = "gram", *, form: str = "max") -> Local:
        """`Local(log_width=…)` from "gram" or "overall" (one number) or "local" (a function of sigma).

        The function interpolates log l_log linearly in log sigma, with lengths below a thirtieth of the
        overall one (noise) raised to that.
        """
        choice(kind, "CorrelationLength.coupling: kind", ("gram", "overall", "local"))
        if kind != "local":
            value = float(getattr(self, kind).value)
            return Local(log_width=number(value, f"CorrelationLength.{kind}", positive=True), form=form)
        place, least = np.log(self.sigma), float(self.overall.value) / 30
        logs = np.log(np.maximum(self.local.value, number(least, "CorrelationLength.overall", positive=True)))
        return Local(log_width=lambda sigma: np.exp(np.interp(np.log(sigma), place, logs)), form=form)

    def __repr__(self) -> str:
        return f"CorrelationLength(gram {self.gram!r}, overall {self.overall!r}, {self.sigma.size} levels)"


@dataclass(frozen=True, eq=False)
class ErrorGram:
    """Gram matrices of the errors of L levels, one per independent unit (a draw of the sampler's start).

    Args:
        levels: the blocks of noise levels; responses are those of whole blocks.
        units: (U, L, L) <r_j, r_k> of each unit, squared data units.
        together: (U,) squared terminal change with all levels in error at once, or None.
        evaluations: images denoised to get it.

    >>> levels = Levels.log_uniform(0.1, 10.0, 8)
    >>> fields = np.ones((3, 8, 2)) * np.arange(1, 4)[:, None, None]
    >>> ErrorGram.from_fields(fields, levels).correlation_length().gram.value.round(3).item()  # one error for all
    4.605
    """

    levels: Levels
    units: Array
    together: Array | None = None
    evaluations: int = 0

    def __post_init__(self) -> None:
        put, count = object.__setattr__, len(self.levels)
        put(self, "units", matrix(self.units, "ErrorGram.units", shape=(None, count, count)))
        if self.together is not None:
            put(self, "together", vector(self.together, "ErrorGram.together", length=len(self.units)))
        dead = np.flatnonzero(np.diagonal(self.units.mean(axis=0)) <= 0)
        if dead.size:
            raise ValueError(
                f"ErrorGram: the error at sigma {self.levels.sigma[dead[0]]:.4g} has no terminal response "
                f"({dead.size} of {count} levels); the two denoisers agree there, leave the level out."
            )

    @classmethod
    def from_fields(cls, fields: Any, levels: Levels) -> ErrorGram:
        """From error or response fields per unit log sigma: (U, L, ...), one vector per unit and level.

        The units must be independent, the levels of one unit on common inputs. A field at a level's
        representative stands for the level: narrow levels.
        """
        values = np.asarray(fields, dtype=np.float64)
        if values.ndim < 3 or values.shape[1] != len(levels):
            raise ValueError(f"ErrorGram: fields have shape {values.shape}; (units, {len(levels)}, …) is needed.")
        flat = values.reshape(*values.shape[:2], -1) * levels.log_width[:, None]
        return cls(levels, flat @ flat.transpose(0, 2, 1))

    @property
    def gram(self) -> Array:
        """(L, L) R, mean over the units."""
        return self.units.mean(axis=0)

    @property
    def correlation(self) -> Array:
        """(L, L) R_jk / sqrt(R_jj R_kk)."""
        return _correlation(self.gram)

    def sums(self) -> dict[str, Estimate]:
        """Squared terminal error by rules of addition: squares of single levels, linear Gram sum, all at once.

        "single" = sum R_ll, "linear" = sum R_jk, "together" = measured with every level in error.
        """
        parts = {"single": np.trace(self.units, axis1=1, axis2=2), "linear": self.units.sum(axis=(1, 2))}
        if self.together is not None:
            parts["together"] = self.together
        return {name: jackknife(lambda mean: mean, values) for name, values in parts.items()}

    def correlation_length(self) -> CorrelationLength:
        """l_log with jackknife standard errors over the units."""
        width, count = self.levels.log_width, len(self.levels)

        def lengths(gram: Array) -> Array:
            local = _correlation(gram) @ width
            squares = np.diagonal(gram) / width  # squared response density times width: its integral's summand
            return np.concatenate([local, [local @ squares / squares.sum(), gram.sum() / squares.sum()]])

        found = jackknife(lengths, self.units)
        local, overall, gram = (
            Estimate(found.value[part], found.standard_error[part], found.count)
            for part in (slice(0, count), count, count + 1)
        )
        return CorrelationLength(self.levels.sigma, local, overall, gram, float(width.max() / overall.value))

    def by_distance(self) -> tuple[Array, Estimate]:
        """Correlation against distance in log sigma: sum R_jk / sum sqrt(R_jj R_kk) over pairs at that distance.

        Returns:
            (B,) distances, multiples of the median level width, and the (B,) correlations.
        """
        place = np.log(self.levels.sigma)
        unit = float(np.median(self.levels.log_width))
        lag = np.rint(np.abs(place[:, None] - place) / unit).astype(int).ravel()
        lags = np.unique(lag)

        def curve(gram: Array) -> Array:
            own = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
            most = np.bincount(lag, np.outer(own, own).ravel())[lags]
            return np.bincount(lag, gram.ravel())[lags] / np.maximum(most, _TINY)

        return lags * unit, jackknife(curve, self.units)

    def __repr__(self) -> str:
        return f"ErrorGram({len(self.levels)} levels, {len(self.units)} units)"


def _correlation(gram: Array) -> Array:
    own = np.sqrt(np.maximum(np.diagonal(gram), _TINY))
    return gram / own / own[:, None]


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
