"""SigmaSampler: noise levels of a plan for every step of a training loop, on every process, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...basics.checks import AT_ONCE, Array, choice, integer, shown
from ...basics.devices import device_of
from ...basics.user_code import answer
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ...schedulers.noise_table import NoiseTable, flow_time

__all__ = ["Drawn", "SigmaSampler"]

_GIVES = ("sigma", "time", "timestep")
_STATE = ("seed", "ranks", "batches")


class Drawn(NamedTuple):
    """What a training step needs of its noise levels, tensors of (N,).

    Attributes:
        value: what was asked for: sigma, flow time t, or whole timesteps (int64).
        weight: factor of each example's loss.
        sigma: the noise levels themselves, for `LevelStatistics.record`.
    """

    value: Any
    weight: Any
    sigma: Any


class SigmaSampler:
    """Noise levels drawn from a plan's training density, stratified over a step's examples on all processes.

        sampler = co.training.SigmaSampler(plan, seed=0)                 # before the loop
        sigma, weight, _ = sampler(images.shape[0], device=images.device)    # in it
        loss = (weight * loss_of_each_example).mean()

    A step of N examples on each of R processes cuts [0, 1] into N R equal strata, draws once in each and deals them
    out: every process has its own. The draws of a step follow from the seed and the number of steps alone, so that
    state is two numbers, a resumed run goes on to the same bits, and no global generator is touched.

    Weights are 1 unless `base` is given: then they are base / plan, so that the mean of the loss is that under the
    density in use, with its own loss weight, and only the noise of its gradients is the plan's. `weight` multiplies
    them: the ratio of a wanted loss weight to the trainer's own.

    Args:
        density: a Plan (its new examples) or a SigmaDensity.
        seed: >= 0, the same on all processes.
        rank, ranks: this process among how many.
        gives: "sigma", "time" (flow matching, t = sigma / (1 + sigma)) or "timestep" (of `table`).
        table: for "timestep": a diffusers scheduler with alphas_cumprod or (T,) ascending noise levels; sigma is then
            that of the timestep, the one nearest in log sigma.
        base: density whose expected loss is kept; None: train on this density.
        weight: function of sigma (N,) -> (N,), or None.

    Raises:
        ValueError: an option out of range, a plan that trains nothing.

    >>> from codesign_opt import LogNormal
    >>> first = SigmaSampler(LogNormal(-1.2, 1.2), seed=3, gives="time")
    >>> again = SigmaSampler(LogNormal(-1.2, 1.2), seed=3, gives="time")
    >>> _ = first(4)
    >>> again.load_state_dict(first.state_dict())
    >>> bool((first(4).value == again(4).value).all())
    True
    """

    def __init__(
        self,
        density: Any,
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        gives: str = "sigma",
        table: Any = None,
        base: SigmaDensity | None = None,
        weight: Callable[[Array], Any] | None = None,
    ) -> None:
        self.density = density.training_density if hasattr(density, "training_density") else density
        if not isinstance(self.density, SigmaDensity):
            raise ValueError(f"SigmaSampler.density is {type(density).__name__}; a Plan or a SigmaDensity is needed.")
        self.density.quantile(np.array([0.5]))  # a plan that trains nothing says so here
        self.seed = integer(seed, "SigmaSampler.seed", minimum=0)
        self.ranks = integer(ranks, "SigmaSampler.ranks", minimum=1)
        self.rank = integer(rank, "SigmaSampler.rank", minimum=0)
        if self.rank >= self.ranks:
            raise ValueError(f"SigmaSampler.rank is {self.rank}; it must be < ranks = {self.ranks}.")
        self.gives = choice(gives, "SigmaSampler.gives", _GIVES)
        self.table = _table(table) if self.gives == "timestep" else None
        self.base, self.weight = base, weight
        self.batches = 0

    def __call__(self, batch: int, *, device: Any = None, dtype: Any = None) -> Drawn:
        """The noise levels of this process's next `batch` examples.

        Args:
            batch: examples of this process in this step, >= 1; strata are those of equal batches on all processes.
            device, dtype: of the tensors; float32 on the CPU unless given. Whole timesteps are int64.
        """
        import torch

        device = device_of(device, "SigmaSampler: device", holds=False)
        if not (dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)):
            raise ValueError(f"SigmaSampler: dtype is {shown(dtype)}; a floating-point dtype of torch is needed.")
        sigma = self.levels(batch)
        weight = self._weights(sigma)
        value: Any = flow_time(sigma) if self.gives == "time" else sigma
        kind = torch.float32 if dtype is None else dtype
        drawn, factor, noise = (torch.from_numpy(part).to(device=device, dtype=kind) for part in (value, weight, sigma))
        if self.table is not None:
            drawn = torch.from_numpy(self.table.nearest(sigma).astype(np.int64)).to(device=device)
        return Drawn(drawn, factor, noise)

    def levels(self, batch: int) -> Array:
        """The same noise levels as a float64 array; `__call__` gives tensors of them."""
        count = integer(batch, "SigmaSampler: batch", minimum=1, maximum=AT_ONCE) * self.ranks
        own = np.random.default_rng((self.seed, self.batches))
        strata = own.permutation(count)[self.rank :: self.ranks]
        sigma = self.density.quantile((strata + own.random(count)[strata]) / count)
        self.batches += 1
        return sigma if self.table is None else self.table.level(self.table.nearest(sigma))

    def _weights(self, sigma: Array) -> Array:
        weight = np.ones(sigma.size)
        if self.base is not None:
            weight = self.density.importance(sigma, self.base) if self.table is None else self._of_timesteps(sigma)
        return weight if self.weight is None else weight * answer(self.weight, sigma, "SigmaSampler.weight")

    def _of_timesteps(self, sigma: Array) -> Array:
        """Ratio of the probabilities of whole timesteps, base / own."""
        assert self.table is not None
        assert self.base is not None
        edges = np.concatenate([[0.0], Levels.around(self.table.sigmas).edges[1:-1], [np.inf]])
        with np.errstate(divide="ignore", invalid="ignore"):  # timesteps that are never drawn
            ratio = self.base.mass(edges) / self.density.mass(edges)
        return np.asarray(ratio[self.table.nearest(sigma)])

    def state_dict(self) -> dict[str, int]:
        """Everything that is needed to go on to the same bits."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a `state_dict`; the rank stays this process's own.

        Raises:
            ValueError: the state of another number of processes, whose strata would not fit together, or no state.
        """
        if set(state) != set(_STATE):
            raise ValueError(f"SigmaSampler.load_state_dict: {sorted(state)} given; {sorted(_STATE)} are needed.")
        if state["ranks"] != self.ranks:
            raise ValueError(
                f"SigmaSampler.load_state_dict: the state is of {state['ranks']} processes and this sampler of "
                f"{self.ranks}; give a fresh sampler another seed instead."
            )
        self.seed = integer(state["seed"], "SigmaSampler.load_state_dict: seed", minimum=0)
        self.batches = integer(state["batches"], "SigmaSampler.load_state_dict: batches", minimum=0)

    def __repr__(self) -> str:
        where = f"rank {self.rank} of {self.ranks}, {self.batches} batches drawn"
        return f"SigmaSampler({self.density!r}, seed={self.seed}, {where})"


def _table(table: Any) -> NoiseTable:
    if table is None:
        raise ValueError("SigmaSampler.table is None; timesteps need a diffusers scheduler or (T,) noise levels.")
    if isinstance(table, NoiseTable):
        return table
    found = NoiseTable.of(table) if hasattr(table, "config") else NoiseTable(table)
    if found is None:
        raise ValueError(
            f"SigmaSampler.table is {type(table).__name__}, which has no alphas_cumprod; give noise levels."
        )
    return found
