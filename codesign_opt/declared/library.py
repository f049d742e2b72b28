"""Declared problems: data, prices and budgets ready to solve, one per file, with reference values.

>>> from codesign_opt import problems
>>> problems.names()[:3]
['power_law_64', 'power_law_256', 'power_law_1024']
>>> problems.load("power_law_64")
DeclaredProblem('power_law_64': Power-law spectrum, exponent 1.5, 64 dimensions)
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .problem import DeclaredProblem

__all__ = ["DeclaredProblem", "load", "names", "reference", "title"]

# name: file and the arguments of its build(); files are imported when a problem is loaded, not for a list
_REGISTRY: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{family}_{dimension}": (family, {"dimension": dimension})
        for family in ("power_law", "spiked", "banded")
        for dimension in (64, 256, 1024)
    },
    **{
        name: (name, {})
        for name in (
            "digits", "photo_patches", "fashion_mnist", "fashion_mnist_network", "clipped_allocation", "custom_cost",
            "custom_constraint", "shared_parameters",
        )
    },
}  # fmt: skip


_PACKAGE = "codesign_opt.problems"  # problems/ of the repository; a wheel holds it inside the package


def _folder() -> Path:
    found = find_spec(_PACKAGE)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def names() -> list[str]:
    """Names of all declared problems."""
    return list(_REGISTRY)


def title(name: str) -> str:
    """One line on a declared problem, read without importing its file.

    >>> title("digits")
    'Handwritten digits, 8 x 8 pixels'
    """
    module, arguments = _entry(name)
    source = _folder().joinpath(f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TITLE":
            return str(ast.literal_eval(node.value)).format(**arguments)
    raise ValueError(f"problems/{module}.py defines no TITLE.")


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
    module, arguments = _entry(text)
    return build_with(import_module(f"{_PACKAGE}.{module}"), text, {**arguments, **overrides})


def reference(name: str) -> Mapping[str, float]:
    """Reference values of a declared problem with its own arguments, and their relative tolerance `rtol`.

    Empty for a trained network: other machines round otherwise, and train to other weights.
    """
    module, arguments = _entry(name)
    values = import_module(f"{_PACKAGE}.{module}").REFERENCE
    return dict(values[arguments["dimension"]] if arguments else values)


def _entry(name: str) -> tuple[str, dict[str, Any]]:
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(name, _REGISTRY, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"problem {name!r} is unknown; {meant}Known are {', '.join(_REGISTRY)}, and paths of .py files that "
        "define build()."
    )
