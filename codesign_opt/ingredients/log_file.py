"""Rows of a log of losses as its file has them, CSV or JSON lines, with the names of columns read as they are meant."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..basics.checks import as_path, shown
from ..basics.json_text import json_text

__all__ = ["LOG_NEEDS", "log_rows"]

LOG_NEEDS = ("examples", "sigma", "loss")
_SEPARATORS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how files begin that spreadsheets and shells write in UTF-16

Row = tuple[int, dict[str, Any]]


def log_rows(path: str | Path, name: str = "log") -> list[Row]:
    """(line number, entries by column) of every row, entries as they were written.

    Names of columns are taken in lower case without spaces around them, those inside as underscores: " Learning Rate"
    is learning_rate. A byte order mark is dropped; CSV may be separated by commas, semicolons or tabs.

    Args:
        path: a file that ends in .jsonl or .json (one object per line), or else a CSV with a header.
        name: what messages call the file.

    Raises:
        ValueError: a column twice, or missing, with those that were found; a row with more entries than the header;
            a line that is no object of JSON; text in no Unicode.
    """
    file = as_path(path)
    place = f"{name} {file}"
    lines = _text(file, place)
    return _json_rows(lines, place) if file.suffix in (".jsonl", ".json") else _csv_rows(lines, place)


def _text(path: Path, place: str) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None


def _csv_rows(text: str, place: str) -> list[Row]:
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)  # the first of them where there is none
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header, lines = next(reader, None), list(_numbered(reader))
    except csv.Error as error:  # a field of more than 131,072 characters, for one
        raise ValueError(f"{place}, line {reader.line_num} is no row of comma-separated values ({error}).") from None
    if header is None:
        return []
    names = _names(header, place)
    _check_needed(names, header, place)
    rows = []
    for line, entries in lines:
        if not entries:
            continue
        if len(entries) > len(names) and any(entries[len(names) :]):
            raise ValueError(
                f"{place}, line {line} has {len(entries)} entries for {len(names)} columns; write decimal "
                f"points, not commas, and no {separator!r} inside an entry."
            )
        rows.append((line, {key: value for key, value in zip(names, entries, strict=False) if key}))
    return rows


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    for entries in reader:
        yield reader.line_num, entries


def _json_rows(text: str, place: str) -> list[Row]:
    rows = []
    for i, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        try:
            pairs = json_text(line, f"{place}, line {i + 1}", _Pairs)
        except ValueError as error:
            raise ValueError(str(error).replace("a whole JSON file", "JSON")) from None
        if not isinstance(pairs, _Pairs):
            raise ValueError(f"{place}, line {i + 1} is {shown(pairs)}; an object with named columns is needed.")
        names = _names([key for key, _ in pairs], f"{place}, line {i + 1}")
        rows.append((i + 1, {key: value for key, (_, value) in zip(names, pairs, strict=True) if key}))
    return rows


class _Pairs(list[Any]):
    """Names and values of a JSON object in order, so that a name that comes twice is seen."""


def _names(written: Iterable[str], place: str) -> list[str]:
    """Names as they are meant; those without one (an index that was written along) stay empty."""
    names: list[str] = []
    as_written: dict[str, str] = {}
    for text in written:
        name = "_".join(text.strip().strip("\ufeff").casefold().split())
        if name and name in as_written:
            raise ValueError(
                f"{place} has column {name!r} twice ({as_written[name]!r} and {text!r}); rename or remove one of them."
            )
        as_written[name] = text
        names.append(name)
    return names


def _check_needed(names: list[str], header: list[str], place: str) -> None:
    absent = [name for name in LOG_NEEDS if name not in names]
    if absent:
        losses = [name for name in names if name.endswith("loss")] if absent == ["loss"] else []
        remedy = f" Rename {losses[0]!r} to 'loss'" if losses else ""
        if losses and any(word in losses[0] for word in ("val", "eval", "test")):
            remedy += ", and read losses of validation with LogReading('validation')"
        raise ValueError(
            f"{place}: {absent[0]!r} is missing; needed: {', '.join(LOG_NEEDS)}; found: "
            f"{', '.join(map(repr, header)) or 'no column'}.{remedy + '.' if remedy else ''}"
        )
