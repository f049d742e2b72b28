"""read_solver: a fitted solver from wherever an export left it."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..samplers.linear_multistep import LinearMultistep
from ..schedulers.scheduler_reading import is_scheduler
from .fitted_files import FITTED_KIND, FITTED_VERSION
from .schedule_files import KIND, SCHEMA_VERSION, read_text

__all__ = ["read_solver", "solver_record"]

_PARTS = ("levels", "a", "c")
_CLASS = "LinearMultistepScheduler"
_VERSIONS = {KIND: SCHEMA_VERSION, FITTED_KIND: FITTED_VERSION}


def read_solver(source: Any) -> LinearMultistep:
    """The fitted solver of a plan or of what `export` made of one, bit for bit; `read_schedule` reads levels alone.

    Args:
        source: a Plan; a LinearMultistepScheduler; the path of a saved plan, of what `export` wrote for "json",
            "comfyui", "diffusers" (its scheduler_config.json, the folder with it, or a saved pipeline's), "python" or
            "k-diffusion". Modules are read and not run.

    Returns:
        LinearMultistep: in our states and levels, whatever the program's are.

    Raises:
        ValueError: a source without a solver (noise levels alone, another scheduler), of another version, or cut off.
        OSError: the file cannot be read.

    >>> import codesign_opt as co, tempfile
    >>> euler = co.LinearMultistep([2.0, 1.0, 0.0], a=[0.5, 0.0], c=[[0.5], [1.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = co.export(euler, "comfyui", flow=True, path=f"{folder}/euler.json")
    ...     read_solver(f"{folder}/euler.json") == euler
    True
    """
    if isinstance(source, (str, PathLike)):
        path = _file(Path(source))
        record = _of_module(path) if path.suffix == ".py" else _of_json(path)
        return _solver(record, str(path))
    if isinstance(source, LinearMultistep):
        return source
    if is_scheduler(source):
        return _solver(solver_record({"_class_name": type(source).__name__, **source.config}), type(source).__name__)
    held = getattr(source, "solver", None)
    if not isinstance(held, LinearMultistep):
        raise ValueError(
            f'{type(source).__name__} has no fitted solver; give a plan of solver="fit", or a file of one.'
        )
    return held


def solver_record(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Levels and coefficients in what a JSON file holds; None where there are none."""
    if record.get("_class_name") == _CLASS:
        return record
    kind = record.get("kind")
    held = record.get("sampler" if kind == "codesign_opt.plan" else "solver")
    return held if isinstance(held, Mapping) and all(part in held for part in _PARTS) else None


def _file(path: Path) -> Path:
    """The file itself; in a folder, the settings of its scheduler."""
    if not path.is_dir():
        return path
    places = [path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise ValueError(f"{path} has no scheduler_config.json; give the folder of a saved scheduler or pipeline.")
    return found


def _of_json(path: Path) -> Mapping[str, Any] | None:
    try:
        record = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a whole JSON file ({error}); export the solver again.") from None
    if not isinstance(record, dict):
        return None
    kind, version = record.get("kind"), record.get("schema_version")
    if kind in _VERSIONS and version != _VERSIONS[kind]:
        raise ValueError(f"{path} has schema version {version!r}; this version reads {_VERSIONS[kind]}.")
    return solver_record(record)


def _of_module(path: Path) -> Mapping[str, Any] | None:
    """The lists of a module that "python" or "k-diffusion" wrote."""
    try:
        tree = ast.parse(read_text(path))
        values = {word: ast.literal_eval(node.value) for word, node in _assigned(tree) if node.value is not None}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a whole module ({error}); export the solver again.") from None
    if "SOLVER" in values:
        return solver_record(values["SOLVER"])
    if not all(part in values for part in ("sigmas", "a", "c")):
        return None
    return {"levels": values["sigmas"], "a": values["a"], "c": values["c"], "mean": values.get("mean", 0.0)}


def _assigned(tree: ast.Module) -> list[tuple[str, Any]]:
    """Names at the top of a module with what they are assigned, those of a solver alone."""
    wanted, found = {"SOLVER", "sigmas", "a", "c", "mean"}, []
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found += [(word.id, node) for word in targets if isinstance(word, ast.Name) and word.id in wanted]
    return found


def _solver(record: Mapping[str, Any] | None, name: str) -> LinearMultistep:
    if record is None:
        raise ValueError(f"{name} has no fitted solver (levels, a, c); read_schedule reads noise levels alone.")
    try:
        return LinearMultistep(record["levels"], record["a"], record["c"], record.get("mean", 0.0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
