"""Which methods of a parent still speak of a subclass that states its own mathematics."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getattr_static

__all__ = ["changed", "stale"]


def stale(kind: type, statement: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of `names` that `kind` inherits from behind the class that wrote any of its `statement`.

    A class states what it is in one or more methods; others follow from these (a closed form, a bound, a
    name for a solver). Where a subclass states something else, what its parent derived is about the parent.

    >>> class Square:
    ...     def area(self): return 1.0
    ...     def perimeter(self): return 4.0
    >>> class Wide(Square):
    ...     def area(self): return 2.0
    >>> stale(Wide, ["area"], ["perimeter"]), stale(Square, ["area"], ["perimeter"])
    (['perimeter'], [])
    """
    stated = min(_place(kind, name) for name in statement)
    return [name for name in names if _place(kind, name) > stated]


def changed(kind: type, statement: str, harmless: Iterable[str]) -> bool:
    """Whether `kind` inherits `statement` and replaces any other method of the class that wrote it."""
    author = kind.__mro__[_place(kind, statement)]
    ignored = set(harmless)
    return any(
        getattr_static(kind, name) is not value
        for name, value in ((name, getattr_static(author, name)) for name in dir(author))
        if hasattr(type(value), "__get__") and name not in ignored and not name.startswith("__")
    )


def _place(kind: type, name: str) -> int:
    """How far up the line of classes a name is defined; 0 is the class itself."""
    return next(i for i, parent in enumerate(kind.__mro__) if name in vars(parent))
