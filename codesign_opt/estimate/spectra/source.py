"""Data of a spectrum: numbered batches in float64, of which every process computes its share."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from ...basics.user_code import told_in
from ..draws.streams import UNTOLD, Stream, check_dense, finite, processes, sum_over_processes, told

__all__ = ["Source"]

_BATCH_NUMBERS = 1 << 20
_FORMS = "a tensor, an array, a Dataset, a DataLoader, a list of batches, or a callable that returns an iterator"
_RANDOM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class Source:
    """Batches of examples, or of features phi(x) of them, checked and numbered.

    Batch `i` belongs to process i mod world. Data with a length are read by index, so that a batch of
    another process or before a checkpoint is never loaded; iterators are run through.

    Args:
        data: a tensor, an array, a Dataset, a DataLoader, a list of batches, a callable that returns an
            iterator over batches, or an iterator (one pass only). Of a batch that is a tuple, list or
            dict the first entry is taken; integers count as numbers.
        stream: how many examples, on which device, and in which batches where the data are not in batches
            already: about a million numbers each unless given. Of data without a length, which may be endless, the
            first 262,144 examples unless a number is given.
        features: callable on a batch (N, ...) that returns (N, ...), e.g. a torch module.

    Raises:
        ValueError: data of another form, without examples, or differing between processes; batches of
            different shapes, not finite or complex, by their number; features of the wrong shape.
    """

    def __init__(
        self,
        data: Any,
        stream: Stream | None = None,
        *,
        features: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        check_dense(data)
        self.stream = Stream() if stream is None else stream
        self.examples = self.stream.examples
        self.features = _checked_features(features)
        self._data = torch.as_tensor(data) if isinstance(data, np.ndarray) else data
        self.length = _length(self._data)
        self.most = UNTOLD if self.examples is None and not finite(self._data) else None
        self.batch = self.stream.batch or _batch(self._data)
        self.seen = 0  # batches of the latest pass, those before its start included
        self._once: Iterator[Any] | None = told(data) if hasattr(data, "__next__") else None
        self._shape: tuple[int, ...] | None = None
        self.first = self._first_batch()
        self.shape = tuple(self.first.shape[1:])
        self.dimension = int(np.prod(self.shape))
        self.digest = _digest(self.first)
        _check_same_everywhere(self.digest)

    def note(self, count: int) -> str:
        """What is to be said where reading stopped by itself, after `count` examples; else nothing."""
        if count != self.most:
            return ""
        return f"the first {count:,} examples of data without a length; give examples= to read another number."

    @property
    def repeatable(self) -> bool:
        """Whether several passes over the data are possible."""
        return self._once is None

    def batches(self, start: int = 0) -> Iterator[tuple[int, torch.Tensor | None]]:
        """(number, float64 examples) of every batch from `start`; None for batches of other processes."""
        rank, world = processes()
        for number, load in self._loaders(start):
            yield number, self._ready(load(), number) if number % world == rank else None

    def _first_batch(self) -> torch.Tensor:
        stream = self._once
        for number, load in self._loaders(0):
            part = load()
            if self._once is not None:  # put back what was taken from an iterator
                self._once = itertools.chain([part], stream or ())
            return self._ready(part, number)
        raise ValueError("data: there are no examples.")

    def _loaders(self, start: int) -> Iterator[tuple[int, Callable[[], torch.Tensor]]]:
        """Batch numbers from `start` with functions that load them."""
        if self.length is not None:
            total = min(self.length, self.examples or self.length)
            self.seen = -(-total // self.batch)
            for number in range(start, self.seen):
                low = number * self.batch
                yield number, lambda low=low: self._slice(low, min(low + self.batch, total))  # type: ignore[misc]
            return
        left, self.seen = self.examples or self.most, 0
        for part in self._iterator():
            tensor = _tensor(part, self.seen)[:left]
            if tensor.shape[0] == 0:
                continue
            self.seen += 1
            if self.seen > start:
                yield self.seen - 1, lambda tensor=tensor: tensor  # type: ignore[misc]
            left = None if left is None else left - tensor.shape[0]
            if left == 0:
                return

    def _iterator(self) -> Iterator[Any]:
        if self._once is not None:
            return self._once
        with told_in("data()"):
            data = self._data() if callable(self._data) else self._data
        if not hasattr(data, "__iter__"):
            raise ValueError(f"data is {type(data).__name__}; give {_FORMS}.")
        return told(data)

    def _slice(self, low: int, high: int) -> torch.Tensor:
        if torch.is_tensor(self._data):
            return _tensor(self._data[low:high], low // self.batch)
        return _tensor(torch.stack([_entry(self._data[i]) for i in range(low, high)]), low // self.batch)

    def _ready(self, part: torch.Tensor, number: int) -> torch.Tensor:
        """Check a batch, bring it to the device, apply the features and convert to float64."""
        if part.is_complex():
            raise ValueError(f"data: batch {number} has dtype {part.dtype}; real numbers are needed.")
        self._shape = self._shape or tuple(part.shape[1:])
        if tuple(part.shape[1:]) != self._shape:
            raise ValueError(
                f"data: batch {number} has shape {tuple(part.shape)}; examples of {self._shape} came before."
            )
        part = self.stream.placed(part)
        _check_finite(part, f"data: batch {number}", "clean the data first")
        if self.features is not None:
            part = self._featured(part, number)
        # float64 does not exist on Apple's GPUs
        return part.to(torch.float32 if part.device.type == "mps" else torch.float64)

    def _featured(self, part: torch.Tensor, number: int) -> torch.Tensor:
        assert self.features is not None
        with torch.no_grad(), told_in("features(batch)"):
            result = self.features(part if part.is_floating_point() else part.to(torch.float32))
        if not torch.is_tensor(result) or result.ndim < 2 or result.shape[0] != part.shape[0]:
            got = tuple(result.shape) if torch.is_tensor(result) else type(result).__name__
            raise ValueError(f"features gave {got} for a batch of {part.shape[0]}; ({part.shape[0]}, ...) is needed.")
        _check_finite(result, f"features of batch {number}", "check the module in evaluation mode")
        return result


def _length(data: Any) -> int | None:
    if torch.is_tensor(data) and data.ndim < 2:
        raise ValueError(f"data has shape {tuple(data.shape)}; (examples, ...) is needed.")
    if isinstance(data, (str, bytes, dict)) or not (
        callable(data) or hasattr(data, "__iter__") or hasattr(data, "__getitem__")
    ):
        raise ValueError(f"data is {type(data).__name__}; give {_FORMS}.")
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (list, tuple))
    return len(data) if indexed else None


def _batch(data: Any) -> int:
    """Examples of about 2^20 numbers together, from 16 to 2,048."""
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (list, tuple))
    size = max(1, _entry(data[0]).numel()) if indexed and len(data) else 1
    return int(min(max(_BATCH_NUMBERS // size, 16), 2048))


def _entry(item: Any) -> torch.Tensor:
    if isinstance(item, dict):
        item = next(iter(item.values()))
    return torch.as_tensor(item[0] if isinstance(item, (tuple, list)) else item)


def _tensor(part: Any, number: int) -> torch.Tensor:
    try:
        result = _entry(part)
    except (TypeError, ValueError, RuntimeError, StopIteration):
        raise ValueError(f"data: batch {number} is {type(part).__name__}, not a tensor of examples.") from None
    check_dense(result)
    if result.ndim < 2 or 0 in result.shape[1:]:
        raise ValueError(f"data: batch {number} has shape {tuple(result.shape)}; (examples, ...) is needed.")
    return result


def _check_finite(values: torch.Tensor, name: str, remedy: str) -> None:
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"{name} has {bad} entries that are not finite; {remedy}.")


def _checked_features(features: Any) -> Any:
    if features is None:
        return None
    if not callable(features):
        raise ValueError(f"features is {type(features).__name__}; a callable on batches (N, ...) is needed.")
    if isinstance(features, nn.Module):
        for name, layer in features.named_modules():
            if layer.training and isinstance(layer, _RANDOM_LAYERS):
                raise ValueError(f"features.{name} is {type(layer).__name__} in training mode; call features.eval().")
    return features


def _digest(first: torch.Tensor) -> int:
    """48 bits of the first and the last example of the first batch: exact in float64."""
    ends = first[[0, -1]].cpu().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(ends, digest_size=6).digest(), "little")


def _check_same_everywhere(digest: int) -> None:
    world = processes()[1]
    total = sum_over_processes(torch.tensor(float(digest), dtype=torch.float64))
    if float(total) != float(world * digest):
        raise ValueError(
            "data: the processes see different first batches; give every process the same data in the same "
            "order (shares are taken inside; seed a shuffle)."
        )
