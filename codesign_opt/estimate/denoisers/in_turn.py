"""Denoisers of several conditions or guidance weights, which the draws of a batch take in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import count, pairwise
from math import lcm
from typing import Any

import numpy as np
import torch

from ...basics.checks import entries
from ..draws.precision import asked
from .adapters import guided
from .denoiser import Denoise, Denoiser

__all__ = ["conditioned", "filled", "mixed"]


def conditioned(network: Callable[..., torch.Tensor], **conditions: Any) -> Denoiser:
    """D(x, sigma) of image i in a batch is network(x, sigma, c)[i] with condition c number i mod M.

    A plan or a fit made for it is one for the mixture of conditions: every batch of draws has each of them, in turn.
    `network` holds a denoiser against examples, which have conditions of their own: give it check=False.

    A condition of one floating-point number a row is a quantity, such as a guidance weight: a solver is fitted between
    neighbouring values too, so that it holds there (docs/solvers.md). Labels are integers.

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
    rows = next(iter(sizes.values()))

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        turns = torch.arange(x.shape[0]) % rows
        given = {name: table[turns.to(table.device)].to(x.device) for name, table in tables.items()}
        return asked(network, x, sigma, **given)

    result = Denoiser(denoise, name=f"{getattr(network, '__name__', type(network).__name__)}, {rows} conditions")
    result.conditions, result.between = rows, partial(_between_rows, network, tables)
    return result


def mixed(denoisers: Sequence[Denoise]) -> Denoiser:
    """D(x, sigma) of image i in a batch is that of denoiser number i mod M.

    For one network under several guidance weights or conditions: what is planned or fitted for it does well on all of
    them on the mean. `guided` of each weight, and `conditioned`, may be among them; a solver is fitted between
    neighbouring weights of one pair of denoisers, too, so that it holds there (docs/solvers.md).

    Args:
        denoisers: M denoisers or callables (x, sigma) -> x0 of states of one shape.

    Raises:
        ValueError: there are none.

    >>> mixed([lambda x, s: x, lambda x, s: 0 * x])(torch.ones(3, 1), 1.0).flatten().tolist()
    [1.0, 0.0, 1.0]
    """
    parts = tuple(Denoiser.of(each) for each in entries(denoisers, "mixed: denoisers"))
    if not parts:
        raise ValueError("mixed: denoisers is empty; give at least one.")
    result = _in_turn(parts, [1] * len(parts))
    result.conditions = len(parts) * reduce(lcm, (part.conditions for part in parts))
    result.name = f"mixed({', '.join(part.name for part in parts[:3])}{', …' * (len(parts) > 3)})"
    result.between = partial(_between_parts, parts)
    return result


def filled(denoiser: Denoiser, most: int) -> Denoiser:
    """The denoiser with conditions between its own, in turn with them: on these few evaluations are fitted.

    A fit of few evaluations follows its conditions so closely that weights between distant ones can lose
    (docs/solvers.md). One more condition lies between each two neighbours, at another part of the way for each.

    Args:
        denoiser: of any conditions.
        most: conditions in all that there may be; the denoiser itself is given where they would be more, or where
            none lie between.

    >>> scaled = conditioned(lambda x, sigma, scale: scale[:, None] * x, scale=torch.tensor([1.0, 2.0]))
    >>> filled(scaled, 8)(torch.ones(4, 1), 1.0).flatten().tolist()
    [1.0, 2.0, 1.5, 1.0]
    """
    between = denoiser.between()
    if between is None or denoiser.conditions + between.conditions > most:
        return denoiser
    return _in_turn((denoiser, between), [denoiser.conditions, between.conditions])


def _in_turn(parts: Sequence[Denoiser], counts: Sequence[int]) -> Denoiser:
    """Images of a batch go to the parts in turn, `counts` of them to each, in order."""
    ends = np.cumsum(counts)
    period = int(ends[-1])
    places = [torch.arange(end - size, end) for end, size in zip(ends, counts, strict=True)]

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        clean = torch.empty_like(x)
        number = torch.arange(x.shape[0]) % period
        for part, place in zip(parts, places, strict=True):
            turns = torch.isin(number, place).nonzero().flatten().to(x.device)
            if len(turns):
                before = part.evaluations
                clean = clean.index_copy(0, turns, part(x[turns], sigma[turns]))
                result.evaluations += part.evaluations - before - len(turns)  # guidance asks twice
        return clean

    result = Denoiser(denoise, name=" and ".join(part.name for part in parts))
    result.parts = tuple(leaf for part in parts for leaf in part.parts or (part,))
    result.conditions = period
    ranges = [part.sigma_range for part in parts if part.sigma_range is not None]
    if ranges:
        result.sigma_range = (max(low for low, _ in ranges), min(high for _, high in ranges))
    return result


def _between_rows(network: Callable[..., torch.Tensor], tables: dict[str, torch.Tensor]) -> Denoiser | None:
    """The network at one more row between each two that differ in one quantity alone and are neighbours in it."""
    ways, rows = _ways(), []
    for name, table in tables.items():
        if table.ndim == 1 and table.is_floating_point():
            others = {other: value for other, value in tables.items() if other != name}
            for low, high in _neighbours(table, list(others.values())):
                far = table[low] + next(ways) * (table[high] - table[low])
                rows.append({**{other: value[low] for other, value in others.items()}, name: far})
    if not rows:
        return None
    return conditioned(network, **{name: torch.stack([row[name] for row in rows]) for name in tables})


def _neighbours(table: torch.Tensor, others: Sequence[torch.Tensor]) -> Iterator[tuple[int, int]]:
    """Pairs of rows whose other conditions are the same and between whose values of this one lies no third."""
    groups = [torch.unique(other.reshape(len(other), -1), dim=0, return_inverse=True)[1].cpu() for other in others]
    values = table.detach().double().cpu().numpy()
    keys = np.stack([group.numpy() for group in groups] or [np.zeros(len(table), dtype=int)])
    order = np.lexsort((values, *keys))
    for low, high in pairwise(order.tolist()):
        if (keys[:, low] == keys[:, high]).all() and values[low] < values[high]:
            yield low, high


def _between_parts(parts: Sequence[Denoiser]) -> Denoiser | None:
    """What lies between guidance weights of one pair of denoisers, and between the conditions of each part."""
    ways, found = _ways(), [inner for part in parts if (inner := part.between()) is not None]
    left = sorted((part.guidance for part in parts if part.guidance is not None), key=lambda guide: guide.weight)
    while left:
        first = left[0]
        for low, high in pairwise(guide.weight for guide in left if first.pairs(guide)):
            if low < high:
                weight = low + next(ways) * (high - low)
                found.append(guided(*first.denoisers, weight, interval=first.interval))
        left = [guide for guide in left if not first.pairs(guide)]
    return _in_turn(found, [part.conditions for part in found]) if found else None


def _ways() -> Iterator[float]:
    """1/2, 1/4, 3/4, 1/8, …: van der Corput's sequence, so that gaps alike are not all met at one place."""
    for number in count(1):
        digits = f"{number:b}"[::-1]
        yield int(digits, 2) / 2 ** len(digits)
