"""Methods of values whose work a higher package does: it is loaded when the method is called, never before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["later"]

_PACKAGE = __name__.rsplit(".", 2)[0]


def later(module: str, name: str) -> Any:
    """A function of a package that builds on the caller's, by its module's name below `codesign_opt`.

    >>> later("basics.wording", "percent")(0.5)
    '50 %'
    """
    return getattr(import_module(f"{_PACKAGE}.{module}"), name)
