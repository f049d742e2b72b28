"""Recipes of the small networks: data, architecture and length of training by name, and a cache of the results."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ...basics.checks import as_path, choice, integer
from ...basics.fields import holds
from ...basics.progress import Progress
from ...ingredients.densities import LogNormal
from ..data.datasets import digits, photo_patches
from ..data.fashion_mnist import fashion_mnist
from ..data.mixtures import circle8, grid8
from .mlp import MLP
from .training import Optimisation, Records, TrainedDenoiser, finished, train
from .unet import UNet

__all__ = ["RECIPES", "Recipe", "cache_folder", "cached", "trained"]


@dataclass(frozen=True)
class Recipe:
    """How a network of the testbed is made.

    Args:
        title: one line for lists.
        data: function () -> (N, *shape) tensor.
        model: function () -> untrained network; its weights are drawn under the recipe's seed.
        iterations, optimisation, records, seed: of `train`.
    """

    title: str
    data: Callable[[], Tensor]
    model: Callable[[], nn.Module]
    iterations: int
    optimisation: Optimisation = field(default_factory=Optimisation)
    records: Records = field(default_factory=Records)
    seed: int = 0

    def __post_init__(self) -> None:
        holds(self, title=str, data=callable, model=callable, optimisation=Optimisation, records=Records, seed=int)
        object.__setattr__(self, "iterations", integer(self.iterations, "Recipe.iterations", minimum=1))

    def initial(self) -> nn.Module:
        """The untrained network, the same at every call; the caller's random state stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model()

    def finished(self, home: Path) -> TrainedDenoiser | None:
        """The network trained to the end in this folder, or None."""
        return finished(
            self.initial(), home, iterations=self.iterations, optimisation=self.optimisation, seed=self.seed
        )


def _clothes() -> Tensor:
    return torch.from_numpy(fashion_mnist("train")[0])


_OFTEN = Records(every=1_000, keep=1_000)  # a thousand iterations of a perceptron take seconds
# sigma_data: standard deviation of all pooled coordinates of the training data
RECIPES: dict[str, Recipe] = {
    "fashion_mnist": Recipe(
        "U-Net of 0.5 M parameters on Fashion-MNIST, 28 x 28 pixels",
        _clothes,
        lambda: UNet(sigma_data=0.706),
        5_100,
        Optimisation(batch=64),
        Records(every=100, keep=500),
    ),
    "digits": Recipe(
        "perceptron on handwritten digits, 8 x 8 pixels",
        digits,
        lambda: MLP(64, sigma_data=0.752),
        6_000,
        records=_OFTEN,
    ),
    "photo_patches": Recipe(
        "perceptron on patches of four photographs, 8 x 8 pixels",
        photo_patches,
        lambda: MLP(64, sigma_data=0.524),
        6_000,
        records=_OFTEN,
    ),
    **{
        mixture.__name__: Recipe(
            f"perceptron on the 2-D mixture {mixture.__name__}",
            lambda mixture=mixture: mixture().sample(50_000),  # type: ignore[misc]
            lambda spread=spread: MLP(2, sigma_data=spread, width=64),  # type: ignore[misc]
            6_000,
            Optimisation(LogNormal(-0.6, 1.4)),
            _OFTEN,
        )
        for mixture, spread in ((circle8, 1.43), (grid8, 1.34))
    },
}


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where trained weights are kept: `folder`, else CODESIGN_OPT_CACHE, else ~/.cache/codesign_opt."""
    if folder is not None:
        return as_path(folder, "folder")
    named = os.environ.get("CODESIGN_OPT_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "codesign_opt"


def cached(name: str, *, folder: str | os.PathLike[str] | None = None) -> TrainedDenoiser:
    """A network of the testbed that was trained before; nothing is trained here.

    Args:
        name, folder: as in `trained`.

    Raises:
        ValueError: unknown name; files of another recipe.
        FileNotFoundError: nothing cached, or not to the end; the message has the command that trains it.
    """
    recipe = RECIPES[choice(name, "name", RECIPES)]
    home = cache_folder(folder) / "testbed" / name
    stored = recipe.finished(home)
    if stored is None:
        place = "" if folder is None else f" --cache {as_path(folder, 'folder')}"
        raise FileNotFoundError(
            f"{home} holds no finished weights of the {recipe.title}; train it first, or go on where it was stopped, "
            f"with `python -m codesign_opt.testbed {name}{place}`, or name the folder of a cache that has them by the "
            "environment variable CODESIGN_OPT_CACHE."
        )
    return stored


def trained(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> TrainedDenoiser:
    """A network of the testbed: loaded from the cache, or trained now (going on where a call was killed).

    Args:
        name: one of `RECIPES`.
        folder: cache; see `cache_folder`. The files of a network lie in testbed/NAME inside it.
        progress: as in `train`.

    Raises:
        ValueError: unknown name; files of another recipe.
        FileNotFoundError, ImportError: nothing cached and no data; the message has the command.
    """
    recipe = RECIPES[choice(name, "name", RECIPES)]
    home = cache_folder(folder) / "testbed" / name
    return recipe.finished(home) or train(
        recipe.initial(), recipe.data(), iterations=recipe.iterations, optimisation=recipe.optimisation,
        records=recipe.records, seed=recipe.seed, folder=home, progress=progress,
    )  # fmt: skip
