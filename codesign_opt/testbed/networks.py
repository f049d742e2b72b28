"""Recipes of the small networks: data, architecture and length of training by name, and a cache of the results."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import choice
from .fashion_mnist import fashion_mnist
from .training import TrainedDenoiser, train
from .unet import UNet

__all__ = ["RECIPES", "Recipe", "cache_folder", "trained"]


@dataclass(frozen=True)
class Recipe:
    """How a network of the testbed is made.

    Args:
        title: one line for lists.
        data: function () -> (N, *shape) tensor.
        model: function () -> untrained network; its weights are drawn under the recipe's seed.
        options: arguments of `train`.
    """

    title: str
    data: Callable[[], Tensor]
    model: Callable[[], nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def initial(self) -> nn.Module:
        """The untrained network, the same at every call; the caller's random state stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model()


def _clothes() -> Tensor:
    return torch.from_numpy(fashion_mnist("train")[0])


RECIPES: dict[str, Recipe] = {
    "fashion_mnist": Recipe(
        "U-Net of 0.5 M parameters on Fashion-MNIST, 28 x 28 pixels",
        _clothes,
        # 0.706: standard deviation of all pixels of the training images
        lambda: UNet(sigma_data=0.706),
        {"iterations": 9_000, "batch": 64, "learning_rate": 1e-3, "ema": 0.999, "keep": 500, "every": 100},
    ),
}


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where trained weights are kept: `folder`, else CODESIGN_OPT_CACHE, else ~/.cache/codesign_opt."""
    if folder is not None:
        return Path(folder)
    named = os.environ.get("CODESIGN_OPT_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "codesign_opt"


def trained(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> TrainedDenoiser:
    """A network of the testbed: loaded from the cache, or trained now (resuming where a call was killed)."""
    recipe = RECIPES[choice(name, "name", RECIPES)]
    home = cache_folder(folder) / "testbed" / name
    return train(recipe.initial(), recipe.data(), folder=home, seed=recipe.seed, progress=progress, **recipe.options)
