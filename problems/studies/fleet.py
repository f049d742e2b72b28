"""Several small networks trained side by side, one per training density: the same initial weights, images and noise.

A network of a few thousand weights leaves a processor mostly waiting; fifteen at once cost about as much as four.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate.draws.streams import normal, seeded

__all__ = ["Fleet", "train_fleet"]

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Fleet:
    """Trained networks of one architecture.

    Attributes:
        network: the architecture, with the buffers that all share.
        average, last: weights, (G, ...) each: exponential average of the iterates, and the last iterate.
        kept: number of iterations -> averages as they were then.
    """

    network: nn.Module
    average: Weights
    last: Weights
    kept: dict[int, Weights] = field(default_factory=dict)

    def member(self, number: int, iterations: int | None = None) -> co.estimate.Denoiser:
        """One network with its averaged weights, at the end or after so many iterations that were kept."""
        weights = self.average if iterations is None else self.kept[iterations]
        own = {name: value[number] for name, value in weights.items()}
        return co.estimate.Denoiser(lambda x, sigma: functional_call(self.network, own, (x, sigma)), name="MLP")

    @torch.no_grad()
    def samples(self, weights: Weights, grid: Array, start: Tensor) -> Tensor:
        """(G, N, d) outputs of Heun's method on a grid, every network from the same (N, d) starts."""
        count = next(iter(weights.values())).shape[0]
        each = vmap(lambda own, x, sigma: functional_call(self.network, own, (x, sigma)), in_dims=(0, 0, None))

        def all_of_them(x: Tensor, sigma: Tensor) -> Tensor:
            rows = x.reshape(count, -1, x.shape[1])
            return each(weights, rows, sigma[: rows.shape[1]]).reshape(x.shape)

        return co.estimate.run(co.estimate.Denoiser.of(all_of_them), co.Heun(), grid, start.repeat(count, 1)).reshape(
            count, *start.shape
        )


def train_fleet(
    initial: co.testbed.MLP,
    data: Tensor,
    densities: Sequence[co.SigmaDensity | co.training.Replanner],
    *,
    iterations: int,
    optimisation: co.testbed.Optimisation,
    seed: int,
    keep: Iterable[int] = (),
) -> Fleet:
    """Denoising score matching as `co.testbed.train` does it, for one network per density.

    Every iteration draws images, noise and the quantiles of the noise levels once for all networks, so that densities
    are compared in pairs. The density of `optimisation` is not used; a Replanner is told the losses of its own network.

    Args:
        initial: untrained network; all start from its weights.
        data: (N, d).
        densities: G of them, or Replanners at the beginning of their runs.
        iterations, optimisation, seed: as in `train`; every example has EDM's weight.
        keep: numbers of iterations after which the averages are kept, too.
    """
    how, scale = optimisation, initial.sigma_data
    stacked, _ = stack_module_state([initial for _ in densities])
    weights = {name: value.detach().clone().requires_grad_(True) for name, value in stacked.items()}
    average = {name: value.detach().clone() for name, value in weights.items()}
    each = vmap(lambda own, x, sigma: functional_call(initial, own, (x, sigma)))
    wanted, kept = set(keep), dict[int, Weights]()
    drawn_from = [one.training_density if isinstance(one, co.training.Replanner) else one for one in densities]
    optimizer = torch.optim.Adam(list(weights.values()), lr=how.learning_rate)
    for step in range(iterations):
        generator = seeded(seed, "fleet", step)
        clean = data[torch.randint(len(data), (how.batch,), generator=generator)]
        inside = torch.rand(how.batch, generator=generator, dtype=torch.float64)
        strata = (torch.randperm(how.batch, generator=generator) + inside).numpy() / how.batch
        noise = normal(seed, "fleet noise", step, shape=tuple(clean.shape), like=clean)
        sigma = torch.from_numpy(np.stack([density.quantile(strata) for density in drawn_from])).to(clean)
        squares = (each(weights, clean + sigma[:, :, None] * noise, sigma) - clean).square().sum(2)
        loss = ((sigma**2 + scale**2) / (sigma * scale) ** 2 * squares).mean(1).sum() / clean.shape[1]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for density, levels, own in zip(densities, sigma, squares.detach(), strict=True):
            if isinstance(density, co.training.Replanner):
                density.record(levels, own)
        decay = min(how.ema, (step + 1) / (step + 10.0))
        with torch.no_grad():
            for mean, value in zip(average.values(), weights.values(), strict=True):
                mean.lerp_(value, 1 - decay)
        if step + 1 in wanted:
            kept[step + 1] = {name: value.clone() for name, value in average.items()}
    return Fleet(initial, average, {name: value.detach() for name, value in weights.items()}, kept)
