"""A fingerprint of data: what a folder of measurements is of, so that other data are refused."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from .streams import batches

__all__ = ["data_fingerprint", "digest_of"]

_NUMBERS = 1 << 24  # of a tensor: of a larger one every second example, or third, and so on
_ROWS = 64  # hashed examples of data that are read one by one
_MOMENTS = 6  # digits of moments: sums in another order differ in the eighth of float32


def data_fingerprint(data: Any, first: torch.Tensor) -> str:
    """Count, moments and a digest of examples, as far as they can be had without a pass over data on disk.

    Of tensors and arrays all numbers count, up to sixteen million. Of other data with a length, 64 examples spread
    over all of them; of lists
    of batches all numbers, or of long ones the first and the last example of each; of callables and iterators, which
    would have to be read for it, those of the first batch.

    >>> rows = torch.arange(6.0)[:, None]
    >>> changed = rows.clone()
    >>> changed[4] = 7.0
    >>> data_fingerprint(rows, rows[:1]) == data_fingerprint(changed, rows[:1])
    False
    """
    if isinstance(data, np.ndarray) or torch.is_tensor(data):
        every = max(1, -(-int(np.prod(np.shape(data))) // _NUMBERS))
        whole = torch.as_tensor(data[::every]).detach()
        values = whole.to("cpu", torch.float64) if not whole.is_complex() else whole.abs().cpu()
        moments = f"mean {float(values.mean()):.{_MOMENTS}g}, square {float(values.square().mean()):.{_MOMENTS}g}"
        return f"{len(data):,} examples, {moments}, {digest_of([whole])}"
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (list, tuple)):
        rows = np.unique(np.linspace(0, len(data) - 1, _ROWS).astype(int))
        return f"{len(data):,} examples, {digest_of([_entry(data[int(row)]) for row in rows])}"
    if isinstance(data, (list, tuple)):
        parts = list(batches(data))
        small = sum(part.numel() for part in parts) <= _NUMBERS
        return f"{len(parts):,} batches, {digest_of(parts if small else [part[[0, -1]] for part in parts])}"
    return f"a stream, {digest_of([first[[0, -1]]])}"


def _entry(item: Any) -> torch.Tensor:
    if isinstance(item, dict):
        item = next(iter(item.values()))
    return torch.as_tensor(item[0] if isinstance(item, (tuple, list)) else item)


def digest_of(parts: list[torch.Tensor]) -> str:
    """Shapes and bits of tensors in sixteen hexadecimal digits.

    >>> digest_of([torch.zeros(2)]) == digest_of([torch.zeros(1, 2)])
    False
    """
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = part.detach().cpu().contiguous()
        found.update(f"{tuple(raw.shape)}".encode())
        found.update(raw.reshape(-1).view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return found.hexdigest()
