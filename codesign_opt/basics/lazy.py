"""Public names that load on first use, each written once: in the package's stub, which editors and mypy read too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["attach"]


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the lines of its `__init__.pyi`.

    A line is `from .module import name as name`, or `from . import package as package`; the module is imported when
    the name is first used, so that importing the package stays quick.
    """
    homes: dict[str, str] = {}
    # os.path, not pathlib, which takes some 5 ms to import: every start of the command line would pay them
    with open(os.path.splitext(file)[0] + ".pyi", encoding="utf-8") as stub:
        for words in map(str.split, stub):
            if words[:1] == ["from"] and words[1].startswith("."):
                homes[words[5]] = words[1]

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}{_nearest(name, homes)}")
        if homes[name] == ".":
            return import_module(f".{name}", package)
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(homes), sorted(homes)


def _nearest(name: str, names: dict[str, str]) -> str:
    """The end of a message on a name that there is none of; tools that ask for names with underscores get no search."""
    if name.startswith("_"):
        return ""
    from .spelling import meant

    return meant(name, names)
