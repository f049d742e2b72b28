"""A trained network instead of a spectrum: the testbed's U-Net on Fashion-MNIST, measured by estimate.network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import codesign_opt as co

TITLE = "U-Net trained on Fashion-MNIST, 28 x 28 pixels"
PROVENANCE = (
    "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, MIT licence: the 60,000 training images of "
    "Debian's package dataset-fashion-mnist, grey values scaled to [-1, 1]; a U-Net of 0.5 M parameters trained on "
    "them by `python -m codesign_opt.testbed fashion_mnist`, measured by codesign_opt.estimate.network."
)
# of weights trained on one machine; another machine's rounding gives other weights, and another error
REFERENCE: dict[str, float] = {}
_NETWORK = "fashion_mnist"


def build(
    *,
    cache: str | os.PathLike[str] | None = None,
    steps: int | None = 18,
    training: bool = False,
    budget: float | None = None,
    images: float | None = None,
    draws: int = 64,
    evaluations: int | None = None,
    progress: bool | Callable[[str], None] | None = None,
) -> co.problems.DeclaredProblem:
    """Where to step, and with `training` also where to train, for a network and not for its data's spectrum.

    Nothing is trained here. The measurement takes minutes the first time; every finished part stays in the cache.

    Args:
        cache: folder of the weights and of the measurement; CODESIGN_OPT_CACHE or ~/.cache/codesign_opt unless given.
        steps: of the sampler; None leaves them to prices.
        training: measure what training gains too, from two checkpoints of the run, and plan with prices.
        budget, images: with `training`; in evaluations of the denoiser, 1e6 and 10,000 unless given.
        draws, progress: of the measurement, as in `estimate.network`.
        evaluations: batch evaluations of the measurement; 6,000, or 10,000 with `training`, unless given.

    Raises:
        ValueError: a budget or images without `training`, whose gain is not measured then.
        FileNotFoundError: no trained weights, or no images; the message has the command.
        ImportError: torch is not there.
    """
    if not training and (budget is not None or images is not None):
        raise ValueError("fashion_mnist_network: budget and images buy training, too; give training=True with them.")
    try:
        recipe = co.testbed.RECIPES[_NETWORK]
    except ImportError as error:
        raise ImportError(
            f"fashion_mnist_network measures a network with torch, which is not there ({error}); pip install "
            '"codesign_opt[torch]"'
        ) from None
    network, data = co.testbed.cached(_NETWORK, folder=cache), recipe.data()
    if evaluations is None:
        evaluations = 10_000 if training else 6_000
    asked: dict[str, Any] = {
        "measurement": co.estimate.Measurement(evaluations=evaluations, draws=draws, progress=progress)
    }
    if training:
        half = max(k for k in network.snapshots() if 2 * k <= network.iterations)
        run = co.TrainingRun(co.LogNormal(-1.2, 1.2), network.iterations, network.batch)
        growth = network.iterations / half
        asked["training"] = co.estimate.TrainingHistory(run, other=network.at(half), growth=growth)
    place = co.testbed.cache_folder(cache) / "problems" / f"fashion_mnist_network{'-training' if training else ''}"
    model = co.estimate.network(network.model, data, sampler=co.Heun(), seed=0, folder=place, **asked)
    if training and budget is None:
        budget = 1e6
    prices = co.Prices(example=3.0, evaluation=1.0, images=10_000 if images is None else images) if training else None
    return co.problems.DeclaredProblem(
        "fashion_mnist_network",
        TITLE,
        PROVENANCE,
        model=model,
        prices=prices,
        budget=budget,
        options={} if steps is None else {"steps": steps},
    )
