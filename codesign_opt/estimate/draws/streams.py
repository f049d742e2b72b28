"""Where samples come from: seeded draws that no order or device changes, shares of processes, batches of data."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ...basics.checks import integer, shown
from ...basics.devices import device_of
from ...basics.user_code import told_in
from .precision import full

__all__ = [
    "UNTOLD",
    "Stream",
    "agreed",
    "batches",
    "example_draws",
    "examples_at_hand",
    "finite",
    "first_of",
    "my_share",
    "normal",
    "processes",
    "rademacher",
    "seed_of",
    "seeded",
    "sum_over_processes",
    "told",
]

_END = object()
UNTOLD = 1 << 18  # examples that are read of data without a length where no number is given


@dataclass(frozen=True)
class Stream:
    """How examples are read: how many of them, in which batches, on which device.

    Args:
        examples: use the first so many, at least 2; None: all (an endless stream needs a number).
        batch: examples at once where the data are not in batches already; None: as many as the function takes by
            itself, since batches bound the memory and are no question of accuracy.
        device: where to compute; None: where the data are.
        checkpoint: batches that are summed together and, by functions with a `folder`, kept there together: what a
            kill costs at most. With 64 the writing takes far less time than the reading.

    Raises:
        ValueError: a number out of range, or a device that torch does not know or this machine does not have.

    >>> Stream(examples=1000, batch=100)
    Stream(examples=1000, batch=100, device=None, checkpoint=64)
    """

    examples: int | None = None
    batch: int | None = None
    device: Any = None
    checkpoint: int = 64

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, least in (("examples", 2), ("batch", 1)):
            if getattr(self, name) is not None:
                put(self, name, integer(getattr(self, name), f"Stream.{name}", minimum=least))
        put(self, "checkpoint", integer(self.checkpoint, "Stream.checkpoint", minimum=1))
        put(self, "device", device_of(self.device, "Stream.device"))

    def placed(self, examples: torch.Tensor) -> torch.Tensor:
        """Examples on the device of this stream."""
        return examples if self.device is None else examples.to(self.device)


def seed_of(value: Any, name: str) -> int:
    """A whole number of any size as it is, or raise ValueError.

    >>> seed_of(2**63 - 1, "seed") == 2**63 - 1
    True
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))
    return int(value) if whole else integer(value, name)


def seeded(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator of its own for one item of work, from the seed and the item's names.

    Draws do not depend on what else was drawn: a resumed run, another order, another device or another
    number of processes sees the same numbers.

    >>> float(torch.rand((), generator=seeded(0, "probe", 3))) == float(torch.rand((), generator=seeded(0, "probe", 3)))
    True
    """
    text = "/".join([str(seed_of(seed, "seed")), *(str(name) for name in names)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(seed: int, *names: str | int, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Standard normal draws on the device and in the dtype of `like`."""
    return torch.randn(shape, generator=seeded(seed, *names), dtype=torch.float64).to(like.device, like.dtype)


def rademacher(seed: int, *names: str | int, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Signs -1 and +1 on the device and in the dtype of `like`."""
    draws = torch.randint(0, 2, shape, generator=seeded(seed, *names))
    return (2 * draws - 1).to(like.device, like.dtype)


def processes() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def my_share(count: int) -> range:
    """Indices of the items that this process works on: every world-th from its rank."""
    rank, world = processes()
    return range(rank, count, world)


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, in float64 and in the same order everywhere."""
    if processes()[1] == 1:
        return values
    backend = dist.get_backend()
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    total = values.detach().to(device, torch.float64).clone()
    dist.all_reduce(total)
    return total.to(values.device, values.dtype if values.is_floating_point() else torch.float64)


def agreed(values: np.ndarray) -> np.ndarray:
    """The first process's numbers, for all: what decides how they go on must not differ in the last digit."""
    rank, world = processes()
    if world == 1:
        return values
    own = torch.as_tensor(np.array(values, dtype=np.float64))
    return sum_over_processes(own if rank == 0 else torch.zeros_like(own)).numpy()


def check_dense(data: Any) -> None:
    """Refuse tensors and arrays without real numbers: what is done with examples has no sparse form, for one.

    Raises:
        ValueError: `data` is a sparse tensor, one on "meta", complex, or an array of something else than numbers.
    """
    if isinstance(data, np.ndarray) and data.dtype.kind not in "biuf":
        raise ValueError(f"data is an array of dtype {data.dtype}; real numbers are needed.")
    if torch.is_tensor(data) and (data.is_meta or data.is_complex()):
        raise ValueError(f"data is a tensor of {data.dtype} on {data.device}; real numbers are needed.")
    if torch.is_tensor(data) and data.layout is not torch.strided:
        raise ValueError(f"data is a tensor of layout {data.layout}; give a dense one, data.to_dense().")


def tensor_of(data: np.ndarray | torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the same memory; a copy of one that runs backwards, which torch does not take."""
    if isinstance(data, np.ndarray) and any(stride < 0 for stride in data.strides):
        return torch.as_tensor(data.copy())
    return torch.as_tensor(data)


def batches(data: Any, batch: int = 256) -> Iterator[torch.Tensor]:
    """(N, *shape) tensors from a tensor, an array, a Dataset, a DataLoader or any iterable of batches.

    Examples in half precision come in float32: what is done with them, states and sums, has its digits. A callable
    is called for a fresh iterator. Of a batch that is a tuple, list or dict the first entry is taken. Data without a
    length, iterators and callables, may be endless: they are read up to `UNTOLD` examples.

    Raises:
        ValueError: data of another form, a batch of another shape than the first, or one that is not
            finite, by the batch's number.

    >>> [part.shape[0] for part in batches(np.zeros((5, 2)), batch=2)]
    [2, 2, 1]
    """
    check_dense(data)
    expected: tuple[int, ...] | None = None
    left = None if finite(data) else UNTOLD
    for number, part in enumerate(_parts(data, batch)):
        check_dense(part)
        if part.ndim < 2:
            raise ValueError(f"data: batch {number} has shape {tuple(part.shape)}; (examples, …) is needed.")
        if part.shape[0] == 0:
            continue
        if expected is None:
            expected = tuple(part.shape[1:])
            if 0 in expected:
                raise ValueError(f"data: examples of shape {expected} hold no numbers.")
        if tuple(part.shape[1:]) != expected:
            raise ValueError(f"data: batch {number} has shape {tuple(part.shape)}; examples of {expected} came before.")
        if not bool(torch.isfinite(part).all()):
            bad = int((~torch.isfinite(part)).sum())
            raise ValueError(f"data: batch {number} has {bad} entries that are not finite; clean the data first.")
        yield full(part[:left])
        left = None if left is None else left - part.shape[0]
        if left is not None and left <= 0:
            return
    if expected is None:
        raise ValueError("data: there are no examples.")


def finite(data: Any) -> bool:
    """Whether data have a length, as those that end have: iterators and callables may go on for ever."""
    try:
        return len(data) >= 0
    except TypeError:  # no length, or a DataLoader of an iterable dataset
        return False
    except Exception as error:  # whatever the object's own method raises
        raise ValueError(f"data is {shown(data)}, whose length cannot be read: {type(error).__name__}.") from error


def told(data: Any) -> Iterator[Any]:
    """The batches of a user's iterable; an error inside it is told as one of the data, the original as its cause."""
    with told_in("data"):
        rest = iter(data)
    while True:
        with told_in("data"):
            part = next(rest, _END)
        if part is _END:
            return
        yield part


def _parts(data: Any, batch: int) -> Iterator[torch.Tensor]:
    if callable(data) and not torch.is_tensor(data) and not hasattr(data, "__getitem__"):
        data = _called(data)
    if isinstance(data, np.ndarray) or torch.is_tensor(data):
        whole = tensor_of(data)
        whole = whole if whole.is_floating_point() else whole.to(torch.float32)
        if whole.ndim < 2:
            raise ValueError(f"data has shape {tuple(whole.shape)}; (examples, …) is needed.")
        for start in range(0, whole.shape[0], batch):
            yield whole[start : start + batch]
        return
    if _indexed(data):
        for start in range(0, len(data), batch):
            yield torch.stack([_first(data[i]) for i in range(start, min(start + batch, len(data)))])
        return
    if not hasattr(data, "__iter__"):
        raise ValueError(
            f"data is {type(data).__name__}; give a tensor, an array, a Dataset or an iterable of batches."
        )
    for part in told(data):
        yield _first(part)


def first_of(data: Any) -> tuple[torch.Tensor, Any]:
    """The first batch, and the data as they were: an iterator gets its batch back.

    >>> first, whole = first_of(iter([torch.zeros(2, 1), torch.ones(3, 1)]))
    >>> first.shape[0], [part.shape[0] for part in batches(whole)]
    (2, [2, 3])
    """
    first = next(batches(data))
    return first, itertools.chain([first], data) if hasattr(data, "__next__") else data


def example_draws(data: Any, first: torch.Tensor, count: int, *, seed: int, like: torch.Tensor) -> torch.Tensor:
    """`count` examples at random, some twice where there are fewer, on the device and in the dtype of `like`.

    Of data that can be indexed all are eligible; of others those of the `first` batch, so that nothing is read twice.

    >>> example_draws(torch.arange(6.0)[:, None], torch.zeros(1, 1), 4, seed=0, like=torch.zeros(())).shape
    torch.Size([4, 1])
    """
    indexed, size = _indexed(data), examples_at_hand(data, first)
    rounds = [torch.randperm(size, generator=seeded(seed, "examples", turn)) for turn in range(-(-count // size))]
    rows = torch.cat(rounds)[:count]
    if not indexed:
        drawn = first[rows.to(first.device)]
    elif isinstance(data, np.ndarray) or torch.is_tensor(data):
        drawn = tensor_of(data)[rows]
    else:
        drawn = torch.stack([_first(data[int(row)]) for row in rows])
    return drawn.to(like.device, like.dtype)


def examples_at_hand(data: Any, first: torch.Tensor) -> int:
    """From how many examples `example_draws` draws."""
    return len(data) if _indexed(data) else int(first.shape[0])


def _indexed(data: Any) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (list, tuple, Mapping))


def _called(data: Callable[[], Any]) -> Any:
    with told_in("data()"):
        return data()


def _first(part: Any) -> torch.Tensor:
    if isinstance(part, dict):
        part = next(iter(part.values()))
    if isinstance(part, (tuple, list)):
        part = part[0]
    try:
        tensor = torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"data: a batch is {type(part).__name__}, not a tensor of examples.") from None
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)
