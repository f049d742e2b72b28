"""FittedSampler: a sampler with the noise levels that it runs on, and what finding them took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array, number, shown
from ..ingredients.grids import check_grid
from .base import Sampler

__all__ = ["FittedSampler"]


@dataclass(frozen=True, eq=False)
class FittedSampler:
    """A sampler on levels of its own, found by a fit to a denoiser: what `co.compare` holds beside grids.

    Args:
        sampler: any, such as `LinearMultistep`.
        sigmas: (K+1,) its noise levels, descending, data units.
        fitting: calls of the denoiser with one batch of states that the fit made.

    Raises:
        ValueError: no Sampler, levels that it does not take, a negative count.

    >>> from codesign_opt.samplers.members import Euler
    >>> FittedSampler(Euler(), [2.0, 1.0, 0.0], fitting=100).sigmas.tolist()
    [2.0, 1.0, 0.0]
    """

    sampler: Sampler
    sigmas: Array
    fitting: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.sampler, Sampler):
            raise ValueError(f"{type(self).__name__}.sampler is {shown(self.sampler)}; a Sampler is needed.")
        object.__setattr__(self, "sigmas", np.array(check_grid(self.sigmas, f"{type(self).__name__}.sigmas").sigmas))
        self.sampler.check_levels(self.sigmas)
        object.__setattr__(self, "fitting", number(self.fitting, f"{type(self).__name__}.fitting", nonnegative=True))
