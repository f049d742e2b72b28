"""One set of parameters for all noise levels: no level has a training error of its own (docs/theory.md section 6.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, noise_levels, variances
from .base import TrainingNoise

__all__ = ["SharedTraining"]


@dataclass(frozen=True)
class SharedTraining(TrainingNoise):
    """Training whose whole error a term of shared parameters tells: a level by itself has none.

    For a model that `codesign(terms=[co.SharedParameters(...)])` plans; without such a term nothing asks for examples.

    >>> SharedTraining().reducible([1.0], [1.0], [1.0, 2.0], 0.5)
    array([0., 0.])
    """

    # what training noise is asked about a level's own matrix and data: nothing depends on it here
    matrix = "diagonal"
    intercept = False
    dataset_size = None
    replacement = True

    def plain(self) -> SharedTraining:
        return self

    @property
    def speaks_of(self) -> str:
        return "networks with the stated shared parameters"

    @property
    def final_floor_is_monotone(self) -> bool:
        return True  # there is none

    def _stationary(self, eigenvalues: Array, counts: Array | None, sigma: Array) -> None:
        return None

    def reducible(
        self,
        eigenvalues: ArrayLike,
        counts: ArrayLike,
        sigma: ArrayLike,
        stopping_sigma: float,
        *,
        eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:
        return np.zeros(noise_levels(sigma, "sigma").size)

    def floor(
        self,
        eigenvalues: ArrayLike,
        counts: ArrayLike,
        sigma: ArrayLike,
        stopping_sigma: float,
        *,
        eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:
        return np.zeros(noise_levels(sigma, "sigma").size)

    def weight_variance(self, eigenvalues: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
        none = np.zeros((variances(eigenvalues, "eigenvalues").size, noise_levels(sigma, "sigma").size))
        return none, none.copy()

    def intercept_variance(self, eigenvalues: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
        return self.weight_variance(eigenvalues, sigma)

    def last_evaluation(self, eigenvalues: ArrayLike, counts: ArrayLike, stopping_sigma: float) -> tuple[float, float]:
        return 0.0, 0.0
