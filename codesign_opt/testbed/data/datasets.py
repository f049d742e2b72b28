"""Small data sets as float32 tensors of rows; the images of clothes are in `testbed.fashion_mnist`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...basics.checks import AT_ONCE, integer
from ...basics.optional import needs

__all__ = ["digits", "photo_patches"]

_PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee")
_MOST = 10 * AT_ONCE  # numbers of one photograph's patches
_LUMA = np.array([0.2125, 0.7154, 0.0721])


def digits() -> Tensor:
    """(1797, 64) handwritten digits of scikit-learn, 8 x 8 pixels, grey values in [-1, 1]."""
    images = needs("sklearn.datasets", "scikit-learn", "digits").load_digits().data
    return torch.from_numpy((images / 8.0 - 1.0).astype(np.float32))


def photo_patches(*, side: int = 8, stride: int = 8) -> Tensor:
    """(N, side^2) grey patches at every `stride`-th pixel of four photographs of scikit-image, in [-1, 1]."""
    side, stride = integer(side, "side", minimum=1), integer(stride, "stride", minimum=1)
    library = needs("skimage.data", "scikit-image", "photo_patches")
    parts = []
    for name in _PHOTOGRAPHS:
        photograph = getattr(library, name)()
        if side > min(photograph.shape[:2]):
            raise ValueError(f"side is {side}; the photograph {name!r} has {min(photograph.shape[:2])} pixels.")
        count = side**2 * math.prod(-(-(size - side + 1) // stride) for size in photograph.shape[:2])
        if count > _MOST:
            raise ValueError(
                f"side {side} and stride {stride} make patches of {count:,} numbers of the photograph {name!r}; raise "
                f"stride: {_MOST:,} are made at most."
            )
        grey = photograph @ _LUMA if photograph.ndim == 3 else photograph
        windows = np.lib.stride_tricks.sliding_window_view(grey / 127.5 - 1.0, (side, side))
        parts.append(windows[::stride, ::stride].reshape(-1, side * side).astype(np.float32))
    return torch.from_numpy(np.concatenate(parts))
