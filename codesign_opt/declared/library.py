"""Declared problems by name: found by listing the files of problems/, read for lists, imported when one is loaded.

>>> names()[:3], names()[-1]
(['banded_64', 'banded_256', 'banded_1024'], 'spiked_1024')
>>> load("power_law_64")
DeclaredProblem('power_law_64': Power-law spectrum, exponent 1.5, 64 dimensions)
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ..basics.checks import shown
from .problem import DeclaredProblem

__all__ = ["load", "names", "reference", "title"]

_PACKAGE = "codesign_opt.problems"  # problems/ of the repository; a wheel holds it inside the package


@dataclass(frozen=True)
class _Entry:
    """One name of the list: a file, and the argument of build() that tells it from other names of the file."""

    path: Path
    argument: str | None = None
    value: Any = None

    @property
    def name(self) -> str:
        return self.path.stem if self.argument is None else f"{self.path.stem}_{self.value}"

    @property
    def arguments(self) -> dict[str, Any]:
        return {} if self.argument is None else {self.argument: self.value}

    @property
    def title(self) -> str:
        found = _constants(self.path).get("TITLE")
        if not isinstance(found, str):
            raise ValueError(f"{self.path} states no TITLE; a problem's file has one line of text under this name.")
        return found.format(**self.arguments)

    def module(self) -> ModuleType:
        """The file, imported."""
        return import_module(f"{_PACKAGE}.{self.path.stem}")


def names() -> list[str]:
    """Names of all declared problems: their files in alphabetical order, the members of a family in its own."""
    return list(_entries())


def title(name: str) -> str:
    """One line on a declared problem, read without importing its file.

    Raises:
        ValueError: an unknown name (the message suggests the nearest).

    >>> title("digits")
    'Handwritten digits, 8 x 8 pixels'
    """
    return _entry(name).title


def load(name_or_path: str | Path, **overrides: Any) -> DeclaredProblem:
    """A declared problem by its name, or by the path of a .py file that defines build().

    Args:
        name_or_path: one of `names()`, or a path; a file's build() returns (model, prices, budget), a
            `co.Problem` or a DeclaredProblem.
        overrides: arguments of the file's build(), such as budget and images; what it does not take
            is an option of `co.codesign`.

    Raises:
        ValueError: an unknown name (the message suggests the nearest), a file that fails or defines
            no build(), an override out of range.
        FileNotFoundError: no such file.
        ImportError, FileNotFoundError: the data come from a package that is not installed; the message has
            the command.
    """
    from .user_file import build_with, module_from

    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".py") or Path(text).name != text:
        return build_with(module_from(Path(text)), text, overrides)
    entry = _entry(text)
    return build_with(entry.module(), text, {**entry.arguments, **overrides}, title=entry.title)


def reference(name: str) -> Mapping[str, float]:
    """Reference values of a declared problem with its own arguments, and their relative tolerance `rtol`.

    Empty where the file has no REFERENCE, and for a trained network: other machines round otherwise, and train to
    other weights.
    """
    entry = _entry(name)
    values = getattr(entry.module(), "REFERENCE", {})
    return dict(values if entry.argument is None else values.get(entry.value, {}))


def _entry(name: str) -> _Entry:
    entries = _entries()
    if name in entries:
        return entries[name]
    from difflib import get_close_matches  # for a wrong name alone: 2 ms that a list need not wait for

    near = get_close_matches(name, entries, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(entries)
    raise ValueError(
        f"problem {name!r} is unknown; {meant}Known are {known}, and paths of .py files that define build()."
    )


@cache
def _entries() -> dict[str, _Entry]:
    found = find_spec(_PACKAGE)
    assert found is not None
    assert found.origin is not None
    files = sorted(path for path in Path(found.origin).parent.glob("*.py") if not path.name.startswith("_"))
    return {entry.name: entry for path in files for entry in _read(path)}


def _read(path: Path) -> list[_Entry]:
    """What a file declares: one problem, or one for every value of the argument in its VARIANTS."""
    # a list of names starts at once: files without this word need not be parsed
    variants = _constants(path).get("VARIANTS") if "VARIANTS" in path.read_text(encoding="utf-8") else None
    if variants is None:
        return [_Entry(path)]
    if not isinstance(variants, dict) or len(variants) != 1:
        raise ValueError(
            f'{path}: VARIANTS is {shown(variants)}; one argument and its values are needed, {{"d": (8, 16)}}.'
        )
    ((argument, values),) = variants.items()
    return [_Entry(path, argument, value) for value in values]


@cache
def _constants(path: Path) -> dict[str, Any]:
    """TITLE and VARIANTS as a file states them, literals at its top level; the file isn't run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}.") from None
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("TITLE", "VARIANTS"):
                found[name] = ast.literal_eval(node.value)
    return found
