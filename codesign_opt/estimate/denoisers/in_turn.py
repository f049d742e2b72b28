"""Denoisers of several conditions or guidance weights, which the draws of a batch take in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import lcm
from typing import Any

import numpy as np
import torch

from ..draws.precision import asked
from .denoiser import Denoise, Denoiser

__all__ = ["conditioned", "mixed"]


def conditioned(network: Callable[..., torch.Tensor], **conditions: Any) -> Denoiser:
    """D(x, sigma) of image i in a batch is network(x, sigma, c)[i] with condition c number i mod M.

    A plan or a fit made for it is one for the mixture of conditions: every batch of draws has each of them, in turn.
    `network` holds a denoiser against examples, which have conditions of their own: give it check=False.

    Args:
        network: takes (N, *shape) states, (N,) noise levels and keywords of N rows each, gives (N, *shape) estimates
            of the clean data.
        conditions: arrays or tensors of M rows each, such as label=torch.arange(10).

    Raises:
        ValueError: no conditions, or of different numbers of rows.

    >>> scaled = conditioned(lambda x, sigma, scale: scale[:, None] * x, scale=torch.tensor([1.0, 2.0]))
    >>> scaled(torch.ones(3, 1), 1.0).flatten().tolist()
    [1.0, 2.0, 1.0]
    """
    tables = {name: torch.as_tensor(np.asarray(v) if not torch.is_tensor(v) else v) for name, v in conditions.items()}
    sizes = {name: len(table) if table.ndim else 0 for name, table in tables.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"conditioned: conditions have {sizes} rows; give at least one, all of as many rows.")
    count = next(iter(sizes.values()))

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        turns = torch.arange(x.shape[0]) % count
        rows = {name: table[turns.to(table.device)].to(x.device) for name, table in tables.items()}
        return asked(network, x, sigma, **rows)

    result = Denoiser(denoise, name=f"{getattr(network, '__name__', type(network).__name__)}, {count} conditions")
    result.conditions = count
    return result


def mixed(denoisers: Sequence[Denoise]) -> Denoiser:
    """D(x, sigma) of image i in a batch is that of denoiser number i mod M.

    For one network under several guidance weights or conditions: what is planned or fitted for it does well on all of
    them on the mean. `guided` of each weight, and `conditioned`, may be among them. Few evaluations are fitted so
    closely that weights between distant ones can lose: give those in between, too (docs/solvers.md).

    Args:
        denoisers: M denoisers or callables (x, sigma) -> x0 of states of one shape.

    Raises:
        ValueError: there are none.

    >>> mixed([lambda x, s: x, lambda x, s: 0 * x])(torch.ones(3, 1), 1.0).flatten().tolist()
    [1.0, 0.0, 1.0]
    """
    parts = tuple(Denoiser.of(each) for each in denoisers)
    if not parts:
        raise ValueError("mixed: denoisers is empty; give at least one.")

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        clean = torch.empty_like(x)
        for number, part in enumerate(parts[: x.shape[0]]):
            before, turns = part.evaluations, torch.arange(number, x.shape[0], len(parts), device=x.device)
            clean = clean.index_copy(0, turns, part(x[turns], sigma[turns]))
            result.evaluations += part.evaluations - before - len(turns)  # guidance asks twice
        return clean

    result = Denoiser(denoise, name=f"mixed({', '.join(part.name for part in parts[:3])}{', …' * (len(parts) > 3)})")
    leaves = tuple(leaf for part in parts for leaf in part.parts or (part,))
    result.parts, result.conditions = leaves, len(parts) * reduce(lcm, (part.conditions for part in parts))
    ranges = [part.sigma_range for part in parts if part.sigma_range is not None]
    if ranges:
        result.sigma_range = (max(low for low, _ in ranges), min(high for _, high in ranges))
    return result
