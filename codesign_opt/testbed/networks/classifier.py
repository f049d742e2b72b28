"""A small classifier of Fashion-MNIST, trained here, whose features measure how far samples are from the images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...basics.checks import integer
from ...basics.files import replacing
from ...basics.progress import Progress, teller
from ...estimate.draws.statistics import Estimate
from ...estimate.draws.streams import seeded
from ..data.fashion_mnist import fashion_mnist
from ..metrics import frechet_distance

__all__ = ["Classifier", "feature_distance", "trained_classifier"]

_BATCH, _RATE, _ITERATIONS, _EVERY = 128, 2e-3, 1_500, 250
_FILE = "classifier.pt"


class Classifier(nn.Module):
    """Two strided convolutions and two layers: (N, 1, 28, 28) in [-1, 1] to ten logits; 64 features before them.

    >>> Classifier().features(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def features(self, images: Tensor) -> Tensor:
        """(N, 64) activations of the last hidden layer."""
        found: Tensor = self.body(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(N, 10) logits."""
        found: Tensor = self.head(self.features(images))
        return found


def trained_classifier(
    *,
    folder: str | os.PathLike[str] | None = None,
    iterations: int = _ITERATIONS,
    data: tuple[Any, Any] | None = None,
    progress: Progress = None,
) -> Classifier:
    """The classifier, from the cache or trained now; a killed training goes on to the same bits.

    Adam at 2e-3 on batches of 128, three passes over the 60,000 images: under a minute of one thread.

    Args:
        folder: cache of the testbed; see `networks.cache_folder`. The file lies in testbed/classifier inside it.
        iterations: batches in all.
        data: (images, labels) instead of Fashion-MNIST's training set.
        progress: every 250 batches: True, False, None (in a terminal or notebook, after 2 s), or a function of (done,
            total, text).

    Raises:
        ValueError: the cached file is of a longer training.
        FileNotFoundError: nothing cached and no data; the message has the install command.
    """
    from .recipes import cache_folder

    total = integer(iterations, "iterations", minimum=1)
    path = cache_folder(folder) / "testbed" / "classifier" / _FILE
    state = _State.fresh()
    if path.exists():
        state.load(torch.load(path, weights_only=True))
    if state.iteration > total:
        raise ValueError(f"{path} holds {state.iteration:,} iterations, more than iterations = {total:,}.")
    if state.iteration < total:
        images, labels = (
            torch.as_tensor(np.array(part)) for part in (fashion_mnist("train") if data is None else data)
        )
        tell = teller(progress)
        while state.iteration < total:
            loss = state.step(images, labels)
            if state.iteration % _EVERY == 0 or state.iteration == total:
                state.save(path)
                tell(f"classifier: loss {loss:.3f}", state.iteration, total)
        tell.close()
    return state.model.eval().requires_grad_(False)


@dataclass(eq=False)
class _State:
    """Everything the training carries from one batch to the next; every batch draws from a generator of its own."""

    model: Classifier
    optimizer: torch.optim.Adam
    iteration: int = 0

    @classmethod
    def fresh(cls) -> _State:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Classifier()
        return cls(model, torch.optim.Adam(model.parameters(), lr=_RATE))

    def step(self, images: Tensor, labels: Tensor) -> float:
        rows = torch.randint(len(images), (_BATCH,), generator=seeded(0, "classifier", self.iteration))
        loss = nn.functional.cross_entropy(self.model(images[rows]), labels[rows])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "iteration": self.iteration, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        with replacing(path) as file:
            torch.save(content, file)

    def load(self, content: dict[str, Any]) -> None:
        self.iteration = content["iteration"]
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])


def feature_distance(classifier: Classifier, images: Tensor) -> Callable[[Tensor], Estimate]:
    """A measure of samples: their Fréchet distance to `images` in the classifier's features (this is not FID).

    Biased upwards by the number of samples: compare equal numbers only.

    Args:
        classifier: `trained_classifier()`.
        images: (M, 1, 28, 28) of the data.

    Returns:
        Function of (N, 1, 28, 28) samples; its standard error is by bootstrap over the samples.
    """
    truth = _features(classifier, images)
    return lambda samples: frechet_distance(_features(classifier, samples), truth)


@torch.no_grad()
def _features(classifier: Classifier, images: Tensor) -> Tensor:
    parts = [classifier.features(images[i : i + 500].float()) for i in range(0, len(images), 500)]
    return torch.cat(parts).double()
