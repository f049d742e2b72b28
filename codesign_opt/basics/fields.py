"""Fields of results, checked where a result is made: what is read of it later, or printed, does not fail inside."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from .checks import array, boolean, function, instance, integer, number, numbers

__all__ = ["holds"]

_ANY = "*"  # an axis of any size, even none


def holds(made: Any, finite: Collection[str] = (), /, **kinds: Any) -> None:
    """Fields of a dataclass are what they must be: called in `__post_init__`.

    Args:
        made: the instance. Arrays stay as they are; lists and tensors become arrays.
        finite: fields whose numbers must be finite; others may hold NaN, where something is unknown.
        kinds: by field: the axes of an array of numbers ("level example", those of one name have one size, none is
            empty but "*"; "" for one number, "..." for any shape), int, float, bool, `callable` or a class; a tuple
            with None at the end where the field may be None.

    Raises:
        ValueError: a field of another kind or shape, by name.

    >>> from types import SimpleNamespace
    >>> holds(SimpleNamespace(sigma=[1.0, 2.0], gain=np.ones(3)), sigma="level", gain="level")
    Traceback (most recent call last):
    ValueError: SimpleNamespace.gain has shape (3,); axis 0 must have 2 entries, as SimpleNamespace.sigma has.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, kind in kinds.items():
        value, title = getattr(made, name), f"{type(made).__name__}.{name}"
        if isinstance(kind, tuple):
            if value is None:
                continue
            kind = kind[0]
        checked = (
            _axes(value, title, kind, name in finite, sizes) if isinstance(kind, str) else _one(value, title, kind)
        )
        if checked is not value:
            object.__setattr__(made, name, checked)


def _one(value: Any, title: str, kind: Any) -> Any:
    if kind is float:
        return value if isinstance(value, float) else number(value, title)
    if kind is int:
        return integer(value, title)
    if kind is bool:
        return boolean(value, title)
    return function(value, title) if kind is callable else instance(value, kind, title)


def _axes(value: Any, title: str, kind: str, finite: bool, sizes: dict[str, tuple[int, str]]) -> Any:
    """An array of numbers on these axes, noting their sizes."""
    checked = array(value, title) if finite else numbers(value, title)
    if kind != "...":
        axes = kind.split()
        if checked.ndim != len(axes):
            raise ValueError(f"{title} has shape {checked.shape}; {len(axes)} dimension(s) are needed.")
        for place, (axis, size) in enumerate(zip(axes, checked.shape, strict=True)):
            wanted, first = sizes.setdefault(axis, (size, title)) if axis != _ANY else (size, title)
            if size != wanted:
                raise ValueError(
                    f"{title} has shape {checked.shape}; axis {place} must have {wanted} entries, as {first} has."
                )
            if size == 0 and axis != _ANY:
                raise ValueError(f"{title} has shape {checked.shape}; axis {place} must not be empty.")
    return value if isinstance(value, (np.ndarray, np.generic)) and not np.ma.isMaskedArray(value) else checked
