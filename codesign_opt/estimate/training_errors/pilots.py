"""Short trainings of a given module by plain SGD: pilots for the learning-curve and the replicated-runs route."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import AT_ONCE, Array, integer, number, shown, vector
from ...basics.user_code import answer
from ...curves.recording import LevelStatistics
from ...ingredients.densities import SigmaDensity
from ..draws.streams import seeded
from .gradient_noise import clean_examples

__all__ = ["SGDPilot"]


@dataclass(frozen=True, eq=False)
class SGDPilot:
    """Train a copy of a module by constant-step SGD on omega(sigma) |D - x0|^2 / 2; call it with a seed.

    The loss is summed over dimensions and averaged over the batch, as in docs/theory.md section 5, so that the
    learning rate is that page's tau.

    Args:
        module: nn.Module (x, sigma) -> x0; a copy is trained, from its present weights.
        data: clean examples.
        density: of training noise levels: a SigmaDensity such as LogNormal(), (M,) levels visited equally often, or a
            function u in (0, 1) -> sigma.
        iterations, batch, learning_rate: of the training.
        average: fraction of the iterations, at the end, whose weights are averaged; 0: the last iterate.
        weight: omega(sigma) on arrays, or None for 1.
        statistics: edges or Levels and path of a log of the losses along the way, `(edges, "log.csv")`; runs are
            named by their seed.

    Raises:
        ValueError: an argument out of range.

    >>> from codesign_opt import LogNormal
    >>> pilot = SGDPilot(torch.nn.Identity(), torch.randn(9, 2), LogNormal(), iterations=1, batch=1, learning_rate=0.1)
    Traceback (most recent call last):
    ValueError: SGDPilot.module has no parameter that requires a gradient.
    """

    module: torch.nn.Module
    data: Any
    density: Any
    iterations: int
    batch: int
    learning_rate: float
    average: float = 0.0
    weight: Callable[[Array], Any] | None = None
    statistics: tuple[Any, str | Path] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.module, torch.nn.Module):
            raise ValueError(f"SGDPilot.module is {shown(self.module)}; an nn.Module is needed.")
        if not any(p.requires_grad for p in self.module.parameters()):
            raise ValueError("SGDPilot.module has no parameter that requires a gradient.")
        put = object.__setattr__
        put(self, "iterations", integer(self.iterations, "SGDPilot.iterations", minimum=1, maximum=AT_ONCE))
        put(self, "batch", integer(self.batch, "SGDPilot.batch", minimum=1, maximum=AT_ONCE))
        put(self, "learning_rate", number(self.learning_rate, "SGDPilot.learning_rate", positive=True))
        put(self, "average", number(self.average, "SGDPilot.average", nonnegative=True, maximum=1.0))
        if not callable(self.density) and not isinstance(self.density, SigmaDensity):
            vector(self.density, "SGDPilot.density", positive=True)
        object.__setattr__(self, "data", clean_examples(self.data, self.iterations * self.batch))

    @property
    def examples(self) -> int:
        """Examples of one run that the returned weights average over (all of them for the last iterate)."""
        return (self._averaged() or self.iterations) * self.batch

    def _averaged(self) -> int:
        return round(self.average * self.iterations)

    def __call__(self, seed: int) -> torch.nn.Module:
        """The trained copy, in evaluation mode."""
        module = deepcopy(self.module).train()
        trained = [p for p in module.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(trained, lr=self.learning_rate)
        mean = [torch.zeros_like(p) for p in trained]
        stats = self._recorder(seed)
        window = self._averaged()
        for step in range(self.iterations):
            sigma, loss = self._losses(module, trained[0], seed, step)
            if stats is not None:
                stats.record(sigma, loss)
            optimiser.zero_grad()
            (self._weights(sigma) * loss).mean().mul(0.5).backward()
            optimiser.step()
            if step >= self.iterations - window:
                for total, p in zip(mean, trained, strict=True):
                    total += p.detach() / window
        if stats is not None and self.statistics is not None:
            stats.save(self.statistics[1])
        if window:
            with torch.no_grad():
                for total, p in zip(mean, trained, strict=True):
                    p.copy_(total)
        return module.eval()

    def _recorder(self, seed: int) -> LevelStatistics | None:
        if self.statistics is None:
            return None
        options: dict[str, Any] = {"learning_rate": self.learning_rate, "batch": self.batch}
        return LevelStatistics(self.statistics[0], run=str(seed), **options)

    def _losses(
        self, module: torch.nn.Module, like: torch.Tensor, seed: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        generator = seeded(seed, "pilot", step)
        rows = torch.randint(0, self.data.shape[0], (self.batch,), generator=generator)
        x0 = self.data[rows.to(self.data.device)].to(like.device, like.dtype)
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(like.device, like.dtype)
        levels = self._levels(torch.rand(self.batch, generator=generator, dtype=torch.float64).numpy())
        sigma = torch.as_tensor(levels).to(like.device, like.dtype)
        out = module(x0 + sigma.view(-1, *[1] * (x0.ndim - 1)) * noise, sigma)
        return sigma, ((out - x0) ** 2).flatten(1).sum(1)

    def _levels(self, u: Array) -> Array:
        if isinstance(self.density, SigmaDensity):
            return np.asarray(self.density.quantile(u))
        if callable(self.density):
            return vector(
                answer(self.density, u, "SGDPilot.density", what="u"),
                "SGDPilot.density(u)",
                length=u.size,
                positive=True,
            )
        levels = np.asarray(self.density, dtype=np.float64)
        return levels[np.minimum((u * levels.size).astype(int), levels.size - 1)]

    def _weights(self, sigma: torch.Tensor) -> torch.Tensor:
        if self.weight is None:
            return torch.ones_like(sigma)
        values = answer(self.weight, sigma.detach().to("cpu", torch.float64).numpy(), "SGDPilot.weight")
        return torch.as_tensor(values).to(sigma.device, sigma.dtype)
