"""Real data that come with a package: 16 x 16 patches of four photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import codesign_opt as co

from ._gaussian import gaussian_problem

TITLE = "Grey patches of four photographs, 16 x 16 pixels"
PROVENANCE = (
    "The photographs astronaut (NASA, public domain), camera (L. Varshney, CC0), chelsea (S. van der Walt, CC0) and "
    "coffee (R. Michetti, CC0), shipped with scikit-image, no download. Luma 0.2125 R + 0.7154 G + 0.0721 B, "
    "scaled to [-1, 1]; patches at every eighth pixel, a seeded choice of 8,000."
)
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {"error": 5.018326e-3, "rtol": 1e-3}
_PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee")
_LUMA = np.array([0.2125, 0.7154, 0.0721])
_SIDE, _STRIDE = 16, 8


def build(
    *, patches: int = 8_000, seed: int = 0, budget: float = 1e6, images: float = 10_000
) -> co.problems.DeclaredProblem:
    """Plan everything for the covariance of the patches."""
    library = co.problems.needs("skimage.data", "scikit-image", "photo_patches")
    every = np.concatenate([_patches(getattr(library, name)()) for name in _PHOTOGRAPHS])
    if not 2 <= patches <= len(every):
        raise ValueError(f"photo_patches.patches is {patches}; it must be from 2 to {len(every)}.")
    chosen = np.random.default_rng(seed).permutation(len(every))[:patches]
    spectrum = co.Spectrum.from_samples(every[chosen])
    return gaussian_problem("photo_patches", TITLE, PROVENANCE, spectrum, budget=budget, images=images)


def _patches(photograph: Any) -> NDArray[np.float64]:
    """(N, 16, 16) patches on a fixed grid, from bytes to [-1, 1]."""
    grey = photograph @ _LUMA if photograph.ndim == 3 else photograph
    windows = np.lib.stride_tricks.sliding_window_view(grey / 127.5 - 1.0, (_SIDE, _SIDE))
    return windows[::_STRIDE, ::_STRIDE].reshape(-1, _SIDE, _SIDE)
