"""JSON from files that anybody may have written: read with limits, every failure a ValueError that names the place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .checks import as_path

__all__ = ["json_file", "json_text"]

_DIGITS = 300  # of a whole number; longer ones are no float64


def json_file(path: str | Path, place: str | None = None) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: no text in UTF-8, no whole JSON, nested too deeply, or with a number that float64 can't hold.
        OSError: the file cannot be read.
    """
    return json_text(as_path(path).read_bytes(), place or str(path))


def json_text(content: str | bytes, place: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a text of JSON says; see `json_file`.

    Args:
        content: text, or bytes in UTF-8.
        place: what messages call the text.
        pairs: what an object's names and values become; a dict unless given.

    >>> json_text('{"a": [1, 2.5]}', "my file")
    {'a': [1, 2.5]}
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        return json.loads(text, parse_int=_whole, object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not JSON in UTF-8 ({error.reason} at byte {error.start}).") from None
    except RecursionError:
        raise ValueError(f"{place} is nested too deeply; no file of this library is.") from None
    except ValueError as error:  # json.JSONDecodeError is one
        raise ValueError(f"{place} is not a whole JSON file ({error}).") from None


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits, which is no 64-bit float")
    return int(digits)
