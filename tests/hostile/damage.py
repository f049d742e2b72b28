"""Damage to files, each from one seed: a cut, flipped bits, a changed byte, an edited number of a JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

NUMBERS = (-1.0, float("nan"), float("inf"), 0.0, 5.0, 1e300, 10**30, None, "many", [], {}, [1.0], True, "\x1b[2J")


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def byte(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(data)


def doubled(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = np.sort(rng.integers(len(content), size=2))
    return content[:stop] + content[start:]


DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "cut": cut,
    "flip": flip,
    "byte": byte,
    "doubled": doubled,
}


def edit(data: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one entry, anywhere in it, replaced or removed."""
    copy = json.loads(json.dumps(data))
    where, name = copy, None
    for _ in range(6):
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            break
        name = keys[int(rng.integers(len(keys)))]
        deeper = where[name]
        if not isinstance(deeper, (dict, list)) or not deeper or rng.random() < 0.3:
            break
        where = deeper
    if name is not None and rng.random() < 0.2:
        del where[name]
    elif name is not None:
        where[name] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return copy
