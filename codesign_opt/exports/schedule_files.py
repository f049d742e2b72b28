"""Noise levels in files: JSON, CSV with a count that shows truncation, and plain lists of numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, as_path, shown
from ..basics.files import write_whole
from ..basics.json_text import json_text as read_json
from ..ingredients.grids import check_grid

__all__ = ["csv_text", "json_text", "list_text", "read_file", "read_text", "write_text"]

KIND = "codesign_opt.schedule"
SCHEMA_VERSION = 1


def json_text(sigmas: Array, solver: Mapping[str, Any] | None = None) -> str:
    """The grid as JSON: kind, schema version, number of steps, terminal map, and sigmas with every digit.

    With the record of a multistep sampler of its own, where one belongs to it: `Sampler.from_dict` reads that back.

    >>> json.loads(json_text(np.array([2.0, 1.0, 0.0])))["steps"]
    2
    """
    grid = check_grid(sigmas)
    record = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "convention": "sigma = noise standard deviation over data scale (EDM), descending",
        "steps": grid.sigmas.size - 1,
        "terminal": grid.terminal,
        "sigmas": grid.sigmas.tolist(),
    } | ({} if solver is None else {"solver": dict(solver)})
    return json.dumps(record, indent=1) + "\n"


def csv_text(sigmas: Array) -> str:
    """The grid as CSV, one row for each noise level; the last column counts down to 0.

    >>> print(csv_text(np.array([2.0, 1.0, 0.0])), end="")
    step,sigma,steps_left
    0,2.0,2
    1,1.0,1
    2,0.0,0
    """
    grid = check_grid(sigmas).sigmas
    rows = [f"{i},{value!r},{grid.size - 1 - i}" for i, value in enumerate(grid.tolist())]
    return "\n".join(["step,sigma,steps_left", *rows]) + "\n"


def list_text(values: Any) -> str:
    """Numbers between commas on one line, every digit: what a text field of a user interface takes.

    >>> list_text([14.6, 1.0, 0.0])
    '14.6, 1.0, 0.0\\n'
    """
    return ", ".join(repr(float(value)) for value in values) + "\n"


def write_text(path: str | Path, text: str) -> Path:
    """Write a whole file or none: an interrupted write leaves the old one."""
    return write_whole(path, text)


def read_text(path: str | Path) -> str:
    """What a text file holds.

    Raises:
        ValueError: an empty file, or bytes that are no text.
        OSError: the file cannot be read.
    """
    source = as_path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not a text file ({error.reason} at byte {error.start}).") from None
    if not text.strip():
        raise ValueError(f"{source} is empty; export the schedule again.")
    return text


def read_file(path: str | Path) -> Array:
    """The numbers of a schedule's file, unchecked but for completeness: .json, .csv, else numbers in plain text.

    Raises:
        ValueError: a file that is cut off, without a column or key of noise levels, or with other things than numbers.
        OSError: the file cannot be read.
    """
    source = as_path(path)
    text = read_text(source)
    if source.suffix.lower() == ".json":
        return _from_json(text, source)
    if source.suffix.lower() == ".csv":
        return _from_csv(text, source)
    words = [word for word in re.split(r"[\s,;\[\]()]+", text) if word]
    if _cut_off(text, words):
        raise ValueError(f"{source} ends in {text[-12:]!r}: the list is cut off. Export the schedule again.")
    return _numbers(words, source)


def _cut_off(text: str, words: list[str]) -> bool:
    """Whether a list ends within a number, after a comma or within brackets; lists of ours end in a new line."""
    opened = any(text.count(left) > text.count(right) for left, right in ("[]", "()"))
    unfinished = text[-1] in ".eE+-" and not any(word.endswith(".") for word in words[:-1])
    return opened or unfinished or text.rstrip(" ")[-1] in ",;"


def _from_json(text: str, source: Path) -> Array:
    try:
        record = read_json(text, str(source))
    except ValueError as error:
        raise ValueError(f"{error} Export the schedule again.") from None
    if isinstance(record, dict):
        version = record.get("schema_version")
        if record.get("kind") == KIND and version != SCHEMA_VERSION:
            raise ValueError(f"{source} has schema version {version!r}; this version reads {SCHEMA_VERSION}.")
        levels = _own_levels(record)
        if levels is None:
            raise ValueError(f"{source} has no 'sigmas' (its keys: {', '.join(map(repr, list(record)[:8]))}).")
        steps = record.get("steps")
        if isinstance(steps, int) and isinstance(levels, list) and len(levels) != steps + 1:
            raise ValueError(f"{source} states {steps} steps but has {len(levels)} noise levels; export it again.")
        record = levels
    if not isinstance(record, list):
        raise ValueError(f"{source} holds {type(record).__name__}; a list of noise levels is needed.")
    return _numbers(record, source)


def _own_levels(record: Mapping[str, Any]) -> Any:
    """Noise levels as this package has them: those of a solver, where the file's own are another program's."""
    solver = record if record.get("_class_name") == "LinearMultistepScheduler" else record.get("solver")
    if isinstance(solver, Mapping) and "levels" in solver:
        return solver["levels"]
    return record.get("used", record.get("sigmas"))


def _from_csv(text: str, source: Path) -> Array:
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row and not row[0].lstrip().startswith("#")]
    except csv.Error as error:
        raise ValueError(f"{source} is no table of comma-separated values ({error}).") from None
    names = [name.strip().lower() for name in rows[0]] if rows else []
    titled = [i for i, name in enumerate(names) if name in ("sigma", "sigmas")]
    if not titled:
        if len(rows) == 1 or all(len(row) == 1 for row in rows):  # bare numbers, in one row or in one column
            return _numbers([cell for row in rows for cell in row], source)
        raise ValueError(f"{source} has no column 'sigma' (its first row: {', '.join(rows[0])}).")
    short = [i + 2 for i, row in enumerate(rows[1:]) if len(row) < len(names)]
    if short:
        raise ValueError(f"{source}: row {short[0]} has fewer than {len(names)} columns; the file is cut off.")
    levels = _numbers([row[titled[0]] for row in rows[1:]], source)
    if "steps_left" in names:
        left = _numbers([row[names.index("steps_left")] for row in rows[1:]], source)
        if not np.array_equal(left, np.arange(left.size)[::-1]):
            raise ValueError(f"{source}: 'steps_left' must count down to 0 row by row; rows are missing or cut off.")
    return levels


def _numbers(words: list[Any], source: Path) -> Array:
    found = []
    for i, word in enumerate(words):
        try:
            found.append(float(word if not isinstance(word, bool) else str(word)))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{source}: entry {i} is {shown(word)}, not a number.") from None
    if len(found) < 2:
        raise ValueError(f"{source} has {len(found)} noise levels; at least 2 are needed.")
    return np.array(found, dtype=np.float64)
