"""Problems from a user's file: a Python file that defines build()."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..basics.errors import CodesignError
from .problem import DeclaredProblem

__all__ = ["build_with", "module_from"]


def module_from(path: Path) -> ModuleType:
    """Run a user's file as a module.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file fails, with the line.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give the path of a .py file that defines build(), or of data: .npy, .csv, or a "
            "folder of images"
        )
    name = f"_codesign_opt_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    with _blaming(path):
        spec.loader.exec_module(module)
    return module


def build_with(
    module: ModuleType, where: str, overrides: dict[str, Any], *, title: str | None = None
) -> DeclaredProblem:
    """Call build() with the overrides that it takes; the declared problem takes the others.

    Args:
        module: the problem's file.
        where: the name or path that it was asked for by.
        overrides: arguments of build(), and limits and options of the declared problem.
        title: of a problem whose build() states none; the file's TITLE or docstring unless given.

    Raises:
        ValueError: the file defines no build(), or it fails.
    """
    if not callable(getattr(module, "build", None)):
        raise ValueError(
            f"{where} defines no build(); add `def build(): …` that returns (model, prices, budget), a co.Problem or "
            "a DeclaredProblem."
        )
    parameters = inspect.signature(module.build).parameters.values()
    everything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    taken = {p.name for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}
    here = {k: v for k, v in overrides.items() if everything or k in taken}
    path = Path(where) if where.endswith(".py") else None
    with _blaming(path):
        result = module.build(**here)
    declared = _declare(result, module, where, title)
    return declared.with_limits(**{k: v for k, v in overrides.items() if k not in here})


def _declare(result: Any, module: ModuleType, where: str, title: str | None) -> DeclaredProblem:
    """What build() returned, as a declared problem."""
    from ..programs.problem import Problem

    if isinstance(result, DeclaredProblem):
        return result
    name = Path(where).stem
    title = title or str(getattr(module, "TITLE", ((module.__doc__ or "").strip() or name).splitlines()[0]))
    provenance = str(getattr(module, "PROVENANCE", f"declared in {where}"))
    if isinstance(result, Problem):
        return DeclaredProblem(name, title, provenance, problem=result)
    if isinstance(result, tuple) and len(result) == 3:
        model, prices, budget = result
        return DeclaredProblem(name, title, provenance, model=model, prices=prices, budget=budget)
    raise ValueError(
        f"{where}: build() returned {type(result).__name__}; (model, prices, budget), a co.Problem or a "
        "DeclaredProblem is needed."
    )


@contextmanager
def _blaming(path: Path | None) -> Iterator[None]:
    """Modules beside the user's file can be imported, and its failures name the file and the line."""
    if path is None:
        yield
        return
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except CodesignError:
        raise
    except Exception as error:
        raise ValueError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file an error came up."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {own[-1].lineno}" if own else ""
