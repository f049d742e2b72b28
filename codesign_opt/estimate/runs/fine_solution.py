"""The fine solution that coarse samplers are held against: the same starts, the same noise, many small steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import (
    AT_ONCE,
    Array,
    array,
    as_path,
    choice,
    entries,
    instance,
    integer,
    noise_level,
    noise_levels,
    number,
    shown,
)
from ...basics.ledger import Ledger
from ...ingredients.evaluations import evaluations
from ...ingredients.grids import ended
from ...samplers.base import Sampler
from ...samplers.network_step import Place
from ..denoisers.denoiser import Denoiser
from ..denoisers.same_denoiser import check_same_denoiser
from ..draws.statistics import Estimate, squares
from ..draws.streams import my_share, normal, seed_of, sum_over_processes
from .run import BrownianPath, SteppedSampler, run
from .runge_kutta import RungeKutta

__all__ = ["Draws", "FinePath", "Reference", "gathered", "mean_of_draws"]

_RHO = 7.0
_OWN_PARTS = 6  # small steps of a stochastic sampler in a coarse one that is held against them
_ASKED = 4  # levels at which a folder's denoiser is asked whether it is this one


@dataclass(frozen=True, eq=False)
class Draws:
    """Starts x ~ mean + N(0, sigma_max^2 I) and the samplers' noise, drawn by seed, name and chunk.

    Args:
        shape: of one sample.
        count: independent draws.
        sigma_max: noise level of the start, data units.
        seed, name: of the draws; another name gives draws independent of these.
        chunk: draws in one batch, the unit of work that processes share and ledgers keep.
        mean: added to every start, broadcast over `shape`; None for zero.
        like: a tensor whose device and dtype the states take.

    Raises:
        ValueError: a count, chunk or level that is not positive.

    >>> draws = Draws((2,), 5, 80.0, chunk=3)
    >>> [tuple(draws.start(i).shape) for i in range(draws.chunks)]
    [(3, 2), (2, 2)]
    """

    shape: tuple[int, ...]
    count: int
    sigma_max: float
    seed: int = 0
    name: str = "draws"
    chunk: int = 64
    mean: Any = None
    like: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    def __post_init__(self) -> None:
        put = object.__setattr__
        sizes = entries(self.shape, "Draws.shape")
        put(self, "shape", tuple(integer(size, "Draws.shape", minimum=1, maximum=AT_ONCE) for size in sizes))
        put(self, "count", integer(self.count, "Draws.count", minimum=1, maximum=AT_ONCE))
        put(self, "chunk", integer(self.chunk, "Draws.chunk", minimum=1, maximum=AT_ONCE))
        put(self, "sigma_max", noise_level(self.sigma_max, "Draws.sigma_max"))
        put(self, "seed", seed_of(self.seed, "Draws.seed"))
        instance(self.name, str, "Draws.name")
        check_like(self.like, "Draws.like")
        check_mean(self.mean, self.shape, "Draws.mean")

    @property
    def chunks(self) -> int:
        """Number of batches."""
        return -(-self.count // self.chunk)

    def rows(self, chunk: int) -> slice:
        """Which draws a chunk holds."""
        chunk = integer(chunk, "Draws: chunk", minimum=0, maximum=self.chunks - 1)
        return slice(chunk * self.chunk, min((chunk + 1) * self.chunk, self.count))

    def start(self, chunk: int) -> torch.Tensor:
        """(n, *shape) states at sigma_max."""
        part = self.rows(chunk)
        shape = (part.stop - part.start, *self.shape)
        states = self.sigma_max * normal(self.seed, self.name, "start", chunk, shape=shape, like=self.like)
        return states if self.mean is None else states + torch.as_tensor(self.mean).to(states)

    def noise(self, chunk: int, stopping_sigma: float) -> BrownianPath:
        """The path of injected noise of a chunk, the same for every grid."""
        chunk = integer(chunk, "Draws: chunk", minimum=0, maximum=self.chunks - 1)
        return BrownianPath(self.seed, (self.name, "noise", chunk), self.sigma_max, stopping_sigma)

    def describe(self) -> dict[str, Any]:
        """Plain values that tell these draws from others."""
        mean = None if self.mean is None else float(torch.as_tensor(self.mean).double().square().mean())
        plain = {name: getattr(self, name) for name in ("shape", "count", "sigma_max", "seed", "name", "chunk")}
        return {**plain, "mean_square": mean, "dtype": str(self.like.dtype)}


@dataclass(frozen=True, eq=False)
class Reference:
    """The sampler's own limit of small steps, with what the estimators of section 3 share.

    ODE samplers have the probability-flow ODE as their limit, here by the classical Runge-Kutta method; a stochastic
    sampler runs itself on small steps of the same noise path. docs/theory.md sections 3.3 and 3.5.

    Args:
        denoiser: Denoiser or callable (x, sigma) -> x0.
        sampler: the sampler to be planned.
        draws: starts and noise.
        stopping_sigma: last positive noise level of the fine solution, data units.
        terminal: "denoise" (a last step to zero) or "rescale".
        steps: of the fine solution, of four calls each and equal in sigma^(1/7); nodes asked for are put in between. A
            stochastic sampler takes as many calls on steps of its own.

    Raises:
        ValueError: a malformed field, a stopping point that is not below the start, or a sampler without a step on
            networks.

    >>> from codesign_opt import Euler
    >>> reference = Reference(lambda x, sigma: 0 * x, Euler(), Draws((1,), 2, 10.0), 0.1, terminal="rescale")
    >>> path = reference.path([1.0])
    >>> states, end = path.states(0)
    >>> bool(torch.allclose(end, 0.1 * states[0]))
    True
    """

    denoiser: Denoiser
    sampler: Sampler
    draws: Draws
    stopping_sigma: float
    terminal: str = "denoise"
    steps: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "denoiser", Denoiser.of(self.denoiser))
        if not isinstance(self.sampler, Sampler):
            raise ValueError(f"Reference.sampler is {shown(self.sampler)}; a Sampler is needed.")
        self.sampler.check_network_step()
        if not isinstance(self.draws, Draws):
            raise ValueError(f"Reference.draws is {shown(self.draws)}; a Draws object is needed.")
        object.__setattr__(self, "stopping_sigma", noise_level(self.stopping_sigma, "Reference.stopping_sigma"))
        choice(self.terminal, "Reference.terminal", ("denoise", "rescale"))
        object.__setattr__(self, "steps", integer(self.steps, "Reference.steps", minimum=2, maximum=AT_ONCE))
        if (conditions := self.denoiser.conditions) > min(self.draws.chunk, self.draws.count):
            raise ValueError(
                f"Draws.chunk is {self.draws.chunk} and count {self.draws.count}, and the denoiser has {conditions} "
                "conditions that the draws of a batch take in turn; give as many draws at least."
            )
        if not self.stopping_sigma < self.draws.sigma_max:
            raise ValueError(
                f"Reference.stopping_sigma is {self.stopping_sigma:g}; it must be below Draws.sigma_max = "
                f"{self.draws.sigma_max:g}."
            )

    @property
    def fine(self) -> SteppedSampler:
        """The one-step method of the fine solution."""
        return self.sampler if self.sampler.stochastic else RungeKutta()

    @property
    def small_steps(self) -> int:
        """Steps of that method: as many calls for every sampler."""
        return -(-self.steps * RungeKutta.evaluations_per_step // self.fine.evaluations_per_step)

    @property
    def parts(self) -> int:
        """Least steps of that method in a coarse step: one has a few per cent of the error of an order up to 2."""
        if self.sampler.stochastic:
            return _OWN_PARTS
        return 1 if self.sampler.order <= 2 else 2

    def path(self, levels: Any = (), coarse: Any = ()) -> FinePath:
        """The fine solution through given noise levels, in any order, between stop and start.

        `coarse` are pairs (high, low) of those levels with a coarse step between, which is compared
        with this solution: it takes at least as many steps there as tell its error from theirs.
        """
        pairs = array(coarse, "coarse", "Give pairs (high, low) of noise levels.")
        if pairs.size % 2:
            raise ValueError(f"coarse has {pairs.size} entries; pairs (high, low) of noise levels are needed.")
        return FinePath(self, _inside(levels, self), pairs.reshape(-1, 2))

    def terminal_states(self, chunk: int) -> torch.Tensor:
        """(n, *shape) output of the fine solution."""
        return self.path().states(chunk)[1]

    def with_draws(self, draws: Draws) -> Reference:
        """The same solution from other starts."""
        return replace(self, draws=draws)

    def accuracy(self, *, chunks: int = 1, folder: str | Path | None = None) -> Estimate:
        """Mean squared terminal distance between this solution and the one of half the steps.

        For Heun's method the error of the finer of the two is about a ninth of it. Finished chunks
        are kept in `folder`.
        """
        half, values = replace(self, steps=self.steps // 2), {}
        count = min(integer(chunks, "Reference.accuracy: chunks", minimum=1), self.draws.chunks)
        ledger = self.items_in(folder, {"what": "accuracy"})

        def gap(chunk: int) -> dict[str, Array]:
            return {"squares": squares(self.terminal_states(chunk) - half.terminal_states(chunk)).cpu().numpy()}

        for chunk in my_share(count):
            values[chunk] = torch.as_tensor(ledger.item(f"chunk{chunk}", partial(gap, chunk))["squares"])
        return mean_of_draws(gathered(self.draws, values)[: self.draws.rows(count - 1).stop])

    def items_in(self, folder: str | Path | None, question: Mapping[str, Any]) -> Ledger:
        """The folder of a measurement on this solution; refused where the denoiser there answered otherwise.

        A denoiser is known by its answers, not by its name: the same function may have another one.
        """
        instance(question, Mapping, "question")
        kept = Ledger(folder, {**self.describe(), **question})
        if kept.folder is not None:
            self.check_same(self.denoiser, "denoiser", kept.folder)
        return kept

    def check_same(self, function: Denoiser, name: str, folder: Path, *, most: float | None = None) -> None:
        """A function of (x, sigma) answers at some levels of this solution as the one did that `folder` is of.

        Raises:
            ValueError: it is further than `most` (relative; by its precision unless given) from it.
        """
        draws, function, place = self.draws, Denoiser.of(function), as_path(folder, "folder")
        instance(name, str, "name")
        bound = None if most is None else number(most, "most", nonnegative=True)
        levels = np.geomspace(self.stopping_sigma, draws.sigma_max, _ASKED)
        states = normal(draws.seed, "same", shape=(2, *draws.shape), like=draws.like)
        question = {"levels": levels.tolist(), "seed": draws.seed}
        check_same_denoiser(
            function, levels, states, place / "answers" / name, question, name=name, within=place, most=bound
        )

    def describe(self) -> dict[str, Any]:
        """Plain values that tell this solution from others; its denoiser is known by its answers, see `items_in`."""
        return {
            "sampler": self.sampler.to_dict(),
            "draws": self.draws.describe(),
            "stopping_sigma": self.stopping_sigma,
            "terminal": self.terminal,
            "steps": self.steps,
        }


@dataclass(frozen=True, eq=False)
class FinePath:
    """The fine solution through `levels` (descending): states there, and the way on from any of them."""

    reference: Reference
    levels: Array
    coarse: Array

    @cached_property
    def _legs(self) -> list[Array]:
        """Nodes of the fine grid, leg by leg: start to the first level, …, the last level to the stop."""
        ends = [self.reference.draws.sigma_max, *self.levels.tolist(), self.reference.stopping_sigma]
        legs = []
        for high, low in pairwise(ends):
            parts = max(int(np.ceil(self._density(high, low) * (_place(high) - _place(low)) - 1e-9)), 1)
            nodes = np.linspace(_place(high), _place(low), parts + 1) ** _RHO
            nodes[0], nodes[-1] = high, low
            legs.append(nodes[:1] if high == low else nodes)
        return legs

    def _density(self, high: float, low: float) -> float:
        """Fine steps per unit sigma^(1/7) on a leg."""
        whole = _place(self.reference.draws.sigma_max) - _place(self.reference.stopping_sigma)
        over = (self.coarse[:, 0] >= high * (1 - 1e-9)) & (self.coarse[:, 1] <= low * (1 + 1e-9))
        extents = _place(self.coarse[over, 0]) - _place(self.coarse[over, 1])
        return max(self.reference.small_steps / whole, self.reference.parts / float(extents.min(initial=np.inf)))

    def leg(self, number: int) -> Array:
        """Nodes of one leg: 0 from the start to levels[0], and so on; one node where both ends are the same."""
        return self._legs[number]

    def grid(self, level: int = -1) -> Array:
        """Nodes from levels[level] (from the start for -1) to the end, with the last zero of "denoise"."""
        legs = self._legs[level + 1 :]
        nodes = np.concatenate([legs[0], *(leg[1:] for leg in legs[1:])])
        return ended(nodes, self.reference.terminal)

    def calls(self, level: int = -1) -> int:
        """Calls of the denoiser that a run from levels[level] (from the start for -1) to the end makes."""
        return evaluations(self.grid(level).size - 1, self.reference.fine.evaluations_per_step, self.reference.terminal)

    @torch.no_grad()
    def states(self, chunk: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The (n, *shape) states of a chunk at every level, and its terminal output."""
        x, found = self.reference.draws.start(chunk), []
        noise = self._noise(chunk)
        for leg in self._legs[:-1]:
            x = self._advance(leg, x, noise)
            found.append(x)
        return found, self.finish(chunk, self.levels.size - 1, x)

    @torch.no_grad()
    def finish(self, chunk: int, level: int, x: torch.Tensor) -> torch.Tensor:
        """Terminal output from states `x` at levels[level], along the rest of the fine grid."""
        return self._advance(self.grid(level), x, self._noise(chunk))

    def _advance(self, nodes: Array, x: torch.Tensor, noise: BrownianPath) -> torch.Tensor:
        if nodes.size < 2:
            return x
        return run(self.reference.denoiser, self.reference.fine, nodes, x, noise, place=self.place)

    @property
    def place(self) -> Place:
        """That of any step: fine samplers are the same at the end, and share something among all steps at most."""
        count = self.grid().size - 1
        return Place(count, count)

    def _noise(self, chunk: int) -> BrownianPath:
        return self.reference.draws.noise(chunk, self.reference.stopping_sigma)

    def index(self, sigma: float) -> int:
        """Position of a level that the path was made with."""
        return int(np.argmin(np.abs(np.log(self.levels / sigma))))


def _place(sigma: Any) -> Any:
    return sigma ** (1 / _RHO)


def _inside(levels: Any, reference: Reference) -> Array:
    """Distinct levels, descending; within rounding of an end they are the end."""
    values = np.atleast_1d(array(levels, "levels"))
    if values.size == 0:
        return np.zeros(0)
    values = noise_levels(values, "levels")
    low, high = reference.stopping_sigma, reference.draws.sigma_max
    bad = values[(values < low * (1 - 1e-9)) | (values > high * (1 + 1e-9))]
    if bad.size:
        raise ValueError(
            f"levels contains {bad[0]:g}, outside the fine solution's range {low:g} to {high:g}; "
            "lower stopping_sigma or drop the level."
        )
    distinct = np.unique(np.clip(values, low, high))[::-1]
    keep = np.concatenate([[True], np.diff(np.log(distinct)) < -1e-9])
    return distinct[keep]


def check_like(like: Any, name: str) -> None:
    """A tensor whose dtype and device states take."""
    if not torch.is_tensor(like) or not like.is_floating_point() or like.is_meta:
        raise ValueError(f"{name} is {shown(like)}; a tensor of floats is needed, whose dtype and device states take.")


def check_mean(mean: Any, shape: tuple[int, ...], name: str) -> None:
    """Numbers that are added to states of a shape."""
    if mean is None:
        return
    own = array(mean, name).shape
    if len(own) > len(shape) or any(a not in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{name} has shape {own}; one that broadcasts over {shape} is needed.")


def gathered(draws: Draws, values: Mapping[int, torch.Tensor], shape: tuple[int, ...] = ()) -> Array:
    """(count, *shape) table of all draws from the chunks of all processes: sums with zeros, so exactly equal."""
    table = torch.zeros((draws.count, *shape), dtype=torch.float64)
    for chunk, part in values.items():
        table[draws.rows(chunk)] = torch.as_tensor(part).to("cpu", torch.float64)
    return sum_over_processes(table).numpy()


def mean_of_draws(values: Array) -> Estimate:
    """Mean over the first axis with its standard error."""
    count = values.shape[0]
    with np.errstate(over="ignore", invalid="ignore"):  # of errors without end
        spread = values.std(axis=0, ddof=1) if count > 1 else np.full(values.shape[1:], np.inf)
        return Estimate(values.mean(axis=0), spread / np.sqrt(count), count)
