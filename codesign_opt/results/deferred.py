"""A mapping that is worked out when it is first read: what few readers of a plan ask for costs the others nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

__all__ = ["Deferred"]


class Deferred(Mapping[str, Any]):
    """The mapping that `work` returns, once someone reads it; copies and pickles are plain dictionaries.

    >>> later = Deferred(lambda: {"score": 2.0})
    >>> later["score"], later == {"score": 2.0}
    (2.0, True)
    """

    def __init__(self, work: Callable[[], Mapping[str, Any]]) -> None:
        self._work = work

    @cached_property
    def _found(self) -> dict[str, Any]:
        return dict(self._work())

    def __getitem__(self, name: str) -> Any:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(self._found)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self._found,)
