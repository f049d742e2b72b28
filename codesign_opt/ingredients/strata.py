"""Stratified uniform draws from the caller's generator, numpy's or torch's, without importing torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array

__all__ = ["given_back", "shuffled_strata"]


def shuffled_strata(count: int, generator: Any) -> Array:
    """(count,) uniform draws, one in each of `count` equal strata of [0, 1], in random order.

    Args:
        count: number of draws.
        generator: numpy.random.Generator or torch.Generator; nothing else is touched.

    Raises:
        TypeError: another generator.

    >>> np.floor(np.sort(shuffled_strata(4, np.random.default_rng(0))) * 4).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    torch = _torch_of(generator)
    if torch is not None:
        device = generator.device
        uniform = torch.rand(count, generator=generator, device=device, dtype=torch.float64).cpu().numpy()
        order = torch.randperm(count, generator=generator, device=device).cpu().numpy()
    elif isinstance(generator, np.random.Generator):
        uniform, order = generator.random(count), generator.permutation(count)
    else:
        raise TypeError(
            f"generator is {type(generator).__name__}; give numpy.random.default_rng(0) or a torch.Generator."
        )
    return np.asarray(((np.arange(count) + uniform) / count)[order])


def given_back(values: Array, generator: Any) -> Any:
    """The values in the generator's own kind: the array itself, or a float32 tensor on the generator's device."""
    torch = _torch_of(generator)
    return values if torch is None else torch.as_tensor(values, dtype=torch.float32, device=generator.device)


def _torch_of(generator: Any) -> Any:
    """The torch module when `generator` is one of its generators, without importing torch otherwise."""
    if type(generator).__module__.split(".")[0] != "torch":
        return None
    import torch

    return torch if isinstance(generator, torch.Generator) else None
