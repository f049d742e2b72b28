"""Registry: what a name stands for, the user's own included. Everything that is asked for by name has one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from .checks import instance, shown
from .spelling import meant

__all__ = ["Registry", "temporarily"]

Entry = TypeVar("Entry")

_LIBRARY = __name__.partition(".")[0] + "."
_REGISTRIES: WeakSet[Registry[Any]] = WeakSet()  # read by `temporarily` alone


class Registry(Generic[Entry]):
    """Classes, functions or values by name: the library's enter when they are defined, and so do the user's.

    Args:
        asked: what messages call a name that is asked for, such as "Sampler.name".
        kind: what they call the thing; `asked` unless given.

    >>> areas = Registry("area")
    >>> square = areas.add("square", lambda side=1.0: side**2)
    >>> areas.make("square", {"side": 3.0})
    9.0
    >>> areas.find("squares")
    Traceback (most recent call last):
    ValueError: area is 'squares'; it must be one of 'square'; did you mean 'square'?
    """

    def __init__(self, asked: str, kind: str | None = None) -> None:
        self.asked, self.kind = asked, asked if kind is None else kind
        self._entries: dict[str, Entry] = {}
        self._owners: dict[str, Any] = {}
        _REGISTRIES.add(self)

    def add(self, name: Any, entry: Entry, *, owner: Any = None) -> Entry:
        """Enter something under a name; the same definition may enter again, as a notebook's cell does.

        Args:
            owner: the class or function that claims the name; the entry itself unless given.

        Raises:
            ValueError: no text, or a name that another class or function has.
        """
        owner = entry if owner is None else owner
        said = f"{owner.__name__}.name" if isinstance(owner, type) else f"the name of {_place(owner)[1]}"
        if not isinstance(name, str) or not name:
            raise ValueError(f"{said} is {shown(name)}; a text that is not empty is needed.")
        taken = self._owners.get(name, owner)
        if _place(taken) != _place(owner):
            raise ValueError(f"{said} is {shown(name)}, which is taken by {_place(taken)[1]}.")
        self._entries[name], self._owners[name] = entry, owner
        return entry

    def find(self, name: Any) -> Entry:
        """What goes by a name.

        Raises:
            ValueError: an unknown name; the message lists the known ones and says which is nearest.
        """
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        listed = ", ".join(map(repr, self._entries))
        raise ValueError(f"{self.asked} is {shown(name)}; it must be one of {listed}{meant(name, self._entries)}")

    def named(self, value: Any, kind: type, what: str) -> Any:
        """A value of a class, or, for a text, that of the name with its own defaults.

        Args:
            value: what was given.
            kind: the class that is needed.
            what: whose argument it is, for messages.

        Raises:
            ValueError: another object, a class in place of its instance, or an unknown name, with the nearest.

        >>> import codesign_opt as co
        >>> co.GaussianModel(co.Spectrum.power_law(2, 1.0), sampler="heun").sampler
        Heun()
        """
        instance(what, str, "named: what")
        if isinstance(value, kind):
            return value
        if isinstance(value, type) and issubclass(value, kind):
            raise ValueError(f"{what} is the class {value.__name__}; a {kind.__name__} is needed: {value.__name__}().")
        if isinstance(value, str) and value in self._entries:
            return self.make(value, {})
        names = ", ".join(map(repr, self.names()))
        raise ValueError(
            f"{what} is {shown(value)}; a {kind.__name__} is needed, or one of the names {names}"
            f"{meant(value, self._entries)}"
        )

    def parameters(self, name: Any) -> dict[str, inspect.Parameter]:
        """The parameters of the class or function that goes by a name."""
        given = inspect.signature(self.find(name)).parameters  # type: ignore[arg-type]
        return {key: p for key, p in given.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    def make(self, name: Any, parameters: Mapping[str, Any]) -> Any:
        """Call the class or function that goes by a name.

        Raises:
            ValueError: an unknown name, a parameter that it does not have, or one that it needs.
        """
        known = self.parameters(name)
        if unknown := set(parameters) - set(known):
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{self.kind} {name} has no parameter {', '.join(sorted(map(str, unknown)))}; {has}.")
        missing = [key for key, p in known.items() if p.default is p.empty and key not in parameters]
        if missing:
            raise ValueError(f"{self.kind} {name} needs {', '.join(missing)}.")
        return self.find(name)(**parameters)  # type: ignore[operator]

    def names(self) -> list[str]:
        """All names in use, sorted, the user's own included."""
        return sorted(self._entries)


def _place(owner: Any) -> tuple[str, str]:
    """Where a class or function is defined: its module and its name there."""
    return owner.__module__, getattr(owner, "__qualname__", repr(owner))


def _is_the_library_s(owner: Any) -> bool:
    """Whether something stands in a module of the package; what an example of a docstring defines does not."""
    module, name = _place(owner)
    return module.startswith(_LIBRARY) and name.partition(".")[0] in vars(sys.modules[module])


@contextmanager
def temporarily() -> Iterator[None]:
    """What enters a registry inside is forgotten afterwards: for tests that define classes of their own.

    What modules of the library enter stays, since they are loaded once.

    >>> colours = Registry("colour")
    >>> with temporarily():
    ...     red = colours.add("red", lambda: 0xFF0000)
    >>> colours.names()
    []
    """
    before = [(registry, dict(registry._entries), dict(registry._owners)) for registry in _REGISTRIES]
    try:
        yield
    finally:
        for registry, entries, owners in before:
            for name, owner in registry._owners.items():
                if _is_the_library_s(owner):
                    entries.setdefault(name, registry._entries[name])
                    owners.setdefault(name, owner)
            registry._entries, registry._owners = entries, owners
