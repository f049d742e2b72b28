"""Samples from whatever holds them: arrays and tensors as they are, Datasets, DataLoaders and iterators gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..basics.checks import shown
from ..basics.user_code import told_in

__all__ = ["gathered_samples"]

_UNTOLD = 1 << 18  # examples that are read of data without a length, which may be endless, as `estimate.network` does


def gathered_samples(samples: Any, name: str) -> Any:
    """One array, or what numpy makes one of, from samples in any form that `estimate.network` takes.

    Args:
        samples: array, list or tensor; Dataset (of examples, or of tuples and dicts that begin with one); DataLoader or
            iterator of batches; a function without arguments that returns one of these.
        name: of the argument, for messages.

    Raises:
        ValueError: batches of several shapes, data that fail while they are read, or of another form.

    >>> gathered_samples(iter([(np.zeros((2, 3)), "labels"), (np.ones((1, 3)), "labels")]), "data").shape
    (3, 3)
    """
    if callable(samples) and not hasattr(samples, "__getitem__") and not hasattr(samples, "__array__"):
        with told_in(name):
            samples = samples()
    if isinstance(samples, (np.ndarray, list, tuple, str, bytes, Mapping)) or samples is None:
        return samples
    if hasattr(samples, "__array__"):
        return _plain(samples)
    if hasattr(samples, "__getitem__") and hasattr(samples, "__len__"):
        parts: Iterator[Any] = (_first(samples[i])[None] for i in range(len(samples)))
    elif hasattr(samples, "__iter__"):
        with told_in(name):
            batches = iter(samples)
        parts = (_first(part) for part in batches)
    else:
        return samples
    return _joined(parts, _UNTOLD if not _has_length(samples) else None, name)


def _joined(parts: Iterator[Any], most: int | None, name: str) -> Any:
    """Batches on top of each other, up to so many examples."""
    found: list[Any] = []
    count = 0
    while most is None or count < most:
        with told_in(name):
            part = next(parts, None)
        if part is None:
            break
        if part.ndim < 2 or (found and part.shape[1:] != found[0].shape[1:]):
            before = f" after batches of examples {found[0].shape[1:]}" if found else ""
            raise ValueError(f"{name}: batch {len(found)} has shape {part.shape}{before}; (examples, …) is needed.")
        part = part if most is None else part[: most - count]
        found, count = [*found, part] if len(found) < 64 else [np.concatenate([*found, part])], count + part.shape[0]
    if not found:
        raise ValueError(f"{name}: there are no examples.")
    return np.concatenate(found)


def _first(part: Any) -> Any:
    """The examples of a batch, without labels."""
    while isinstance(part, (tuple, list, Mapping)) and len(part):
        part = next(iter(part.values())) if isinstance(part, Mapping) else part[0]
    found = np.asarray(_plain(part))
    if found.dtype.kind not in "iuf":
        raise ValueError(f"an example is {shown(part)}; an array of real numbers is needed.")
    return found


def _plain(value: Any) -> Any:
    """A tensor on any device, with a gradient or in half precision, as numpy can take it."""
    if not str(getattr(value, "dtype", "")).startswith("torch."):
        return value
    if value.is_meta:
        raise ValueError(f"an example is {shown(value)}; an array of real numbers is needed.")
    if str(value.layout) != "torch.strided":
        raise ValueError(f"an example is a tensor of layout {value.layout}; give a dense one, by to_dense().")
    moved = value.detach().cpu()
    return (moved.float() if str(moved.dtype) == "torch.bfloat16" else moved).numpy()


def _has_length(samples: Any) -> bool:
    size: Callable[[], int] | None = getattr(samples, "__len__", None)
    try:
        return size is not None and size() >= 0
    except TypeError:  # a DataLoader of an iterable dataset
        return False
