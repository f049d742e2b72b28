"""World: what schedules are compared on, and how many evaluations a grid takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..basics.checks import Array
from ..peers import Evidence
from ..samplers.members import Sampler

__all__ = ["ChecksFolder", "Prepares", "World", "calls_of"]


@runtime_checkable
class World(Protocol):
    """Where schedules can be compared: it knows the error of any grid, and what a grid costs."""

    @property
    def title(self) -> str:
        """What it is, for tables."""

    @property
    def measure(self) -> str:
        """What its errors are."""

    @property
    def terminal(self) -> str:
        """The last step: "denoise" or "rescale"."""

    @property
    def sampler(self) -> Sampler:
        """The one compared where none is named."""

    def evidence(self, sampler: Sampler) -> Evidence:
        """What schedules may know."""

    def plan(self, sampler: Sampler, steps: int) -> Array:
        """(K+1,) grid of the co-designed plan."""

    def cost(self, sampler: Sampler, sigmas: Array) -> float:
        """Evaluations per image of a grid."""

    def measured(self, sampler: Sampler, sigmas: Array, seed: int) -> Mapping[str, Any]:
        """ "errors" (N,) of single draws, the same draws for every grid; secondary measures as (value, s.e.)."""

    def describe(self) -> dict[str, Any]:
        """Plain values that tell this world from others."""


@runtime_checkable
class ChecksFolder(Protocol):
    """A world that `describe` does not tell from all others: it asks the folder itself."""

    def check_folder(self, folder: Path) -> None:
        """Raise ValueError where the folder holds results of another world."""


@runtime_checkable
class Prepares(Protocol):
    """A world that keeps what its cells share: made before workers take copies of it."""

    def prepare(self, samplers: Sequence[Sampler], seeds: Sequence[int]) -> None:
        """Make what cells of these samplers and seeds share."""


def calls_of(sampler: Sampler, sigmas: Array) -> Array:
    """Noise levels at which one run of a grid calls the denoiser, in order.

    >>> from codesign_opt.samplers.members import Heun
    >>> calls_of(Heun(), np.array([4.0, 1.0, 0.0])).tolist()
    [4.0, 1.0, 1.0]
    """
    before, after = sigmas[:-1], sigmas[1:]
    if sampler.evaluations_per_step == 1:
        return before
    both = np.stack([before, after], axis=1).ravel()
    return both[both > 0]
