"""A network and an earlier checkpoint of its run, on common images: how far it learns from neighbours, what is left.

The training side of `network` where checkpoints are at hand: docs/theory.md section 6.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...basics.ledger import Ledger
from ...ingredients.levels import Levels
from ..denoisers.denoiser import Denoiser
from ..draws.reservoir import Reservoir
from ..draws.statistics import Estimate
from ..draws.streams import batches
from .checkpoint_curve import checkpoint_errors, left_between
from .transfer import TransferKernel

__all__ = ["CheckpointPair", "sampled_images"]

_BATCH = 64  # states in one call of the denoiser
_WIDTH_IMAGES = 512  # the transfer width of a network on photo patches has a standard error of 1 % with so many


@dataclass(frozen=True, eq=False)
class CheckpointPair:
    """Two checkpoints of one run and the images that both see.

    Args:
        earlier, final: the checkpoints.
        images: function () -> (N, *shape) examples, read when they are needed.
        count: N, how many that will be, for the costs.
        seed: of the noise.
        folder: where finished items of these two checkpoints are kept; who gives it has checked that.

    >>> from codesign_opt.testbed import LinearDenoiser
    >>> x = torch.randn(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> worse = Denoiser(LinearDenoiser([1.0, 1.0], perturbation=0.1 * np.eye(2)))
    >>> pair = CheckpointPair(worse, Denoiser(LinearDenoiser([1.0, 1.0])), lambda: x, 400)
    >>> left = pair.left(np.array([1.0]), growth=2.0)  # 2 x 0.1^2 (1 + 1)
    >>> bool(abs(left.value[0] - 0.04) < 3 * left.standard_error[0])
    True
    """

    earlier: Denoiser
    final: Denoiser
    images: Callable[[], torch.Tensor]
    count: int
    seed: int = 0
    folder: Path | None = None

    def width(self, low: float, high: float, levels: int) -> TransferKernel:
        """Width in log sigma of what examples teach their neighbours, from the correlation of the pair's errors."""
        table = Levels.log_uniform(low, high, levels)

        def compute() -> dict[str, Array]:
            seen = self.images()
            errors = checkpoint_errors(
                self.earlier, self.final, seen, table, images=self._width_images, seed=self.seed, batch=_BATCH
            )
            found = TransferKernel.from_errors(errors)
            return {name: np.array(getattr(found, name)) for name in ("width", "standard_error", "misfit")}

        question = {"estimate": "transfer width", "low": low, "high": high, "levels": levels, **self._question}
        found = Ledger(self._place("transfer"), question).item("width", compute)
        return TransferKernel(*(float(found[name]) for name in ("width", "standard_error", "misfit")))

    def left(self, sigma: Array, growth: float) -> Estimate:
        """(M,) reducible squared error left at the end of the run; see `left_between`."""
        images: list[torch.Tensor] = []

        def seen() -> Any:  # read once, and only where a level is missing
            if not images:
                images.append(self.images())
            return iter(images[0].split(_BATCH))

        ledger = Ledger(self._place("left"), {**self._question, "growth": growth, "sigma": sigma.tolist()})
        return left_between((self.earlier, self.final), seen, sigma, growth, _BATCH, self.seed, ledger)

    def calls_of_width(self, levels: int) -> int:
        """Batch evaluations of `width`."""
        return 2 * levels * -(-self._width_images // _BATCH)

    def calls_of_left(self, levels: int) -> int:
        """Batch evaluations of `left`."""
        return 2 * levels * -(-self.count // _BATCH)

    @property
    def _width_images(self) -> int:
        return min(self.count, _WIDTH_IMAGES)

    @property
    def _question(self) -> dict[str, Any]:
        return {"images": self.count, "seed": self.seed}

    def _place(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name


def sampled_images(data: Any, count: int, *, seed: int, like: torch.Tensor) -> torch.Tensor:
    """A uniform sample of `count` examples, or all where there are fewer, on the device and in the dtype of `like`.

    Raises:
        ValueError: malformed data.

    >>> sampled_images(torch.arange(6.0)[:, None], 3, seed=0, like=torch.zeros(())).shape
    torch.Size([3, 1])
    """
    kept: Reservoir | None = None
    shape: tuple[int, ...] = ()
    for number, part in enumerate(batches(data)):
        if kept is None:
            shape = tuple(part.shape[1:])
            kept = Reservoir(count, part[0].numel(), seed=seed, like=like)
        kept.add(number, part.flatten(1).to(like.device, like.dtype))
    assert kept is not None  # batches refuses data without examples
    return kept.rows.reshape(-1, *shape)
