"""Several small networks trained side by side, one per training density: the same initial weights, images and noise.

A network of a few thousand weights leaves a processor mostly waiting; fifteen at once cost about as much as four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    network: nn.Module
    average: Weights
    last: Weights

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
) -> Fleet:
    """Denoising score matching as `co.testbed.train` does it, for one network per density.

    Every iteration draws images, noise and the quantiles of the noise levels once for all networks, so that densities
    are compared in pairs. The density of `optimisation` is not used; a Replanner is told the losses of its own network.

    Args:
        initial: untrained network; all start from its weights.
        data: (N, d).
        densities: G of them, or Replanners at the beginning of their runs.
        iterations, optimisation, seed: as in `train`; every example has EDM's weight.
    """
    how, scale = optimisation, initial.sigma_data
    stacked, _ = stack_module_state([initial for _ in densities])
    weights = {name: value.detach().clone().requires_grad_(True) for name, value in stacked.items()}
    average = {name: value.detach().clone() for name, value in weights.items()}
    each = vmap(lambda own, x, sigma: functional_call(initial, own, (x, sigma)))
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
    return Fleet(initial, average, {name: value.detach() for name, value in weights.items()})
