"""Ledger: finished items of long work on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checks import as_path, function, instance
from .files import locked, replacing, write_whole
from .json_text import json_file
from .npz import read_npz

__all__ = ["Ledger"]

_QUESTION = "question.json"
Item = dict[str, Any]


class Ledger:
    """A folder with one npz per finished item of one question.

    Every item is written to a temporary file and then renamed, so that a reader sees a whole item or
    none; an item that cannot be read is computed again. The question (data, seed, sampler, …) is kept
    beside: items of another question are refused instead of mixed. Processes open a folder one after another.

    Args:
        folder: where items are kept; None keeps them in memory.
        question: plain values that the items depend on.

    Raises:
        ValueError: the folder holds items of another question (the message names the difference) or of none.

    >>> ledger = Ledger(None, {"seed": 0})
    >>> float(ledger.item("half", lambda: {"value": np.array(0.5)})["value"]), "half" in ledger
    (0.5, True)
    """

    def __init__(self, folder: str | Path | None, question: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else as_path(folder, "folder")
        self._memory: dict[str, Item] = {}
        instance(question, Mapping, "question")
        self.question = json.loads(json.dumps(question, default=str))
        if self.folder is not None:
            self._open(self.folder)

    def _open(self, folder: Path) -> None:
        """Take the folder for this question: one process at a time, so that no two of them write theirs."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _QUESTION
        with locked(path):
            if path.exists():
                self._check_question(path)
            elif any(folder.glob("*.npz")):
                raise ValueError(f"{folder} holds results, but not of which question ({_QUESTION} is gone); delete it.")
            else:
                write_whole(path, json.dumps(self.question, indent=1))
            self._as_opened = path.read_bytes()

    def _still_ours(self, folder: Path) -> None:
        """Open the folder anew where its question is gone or another since: somebody deleted it during the run."""
        path = folder / _QUESTION
        if not path.exists() or path.read_bytes() != self._as_opened:
            self._open(folder)

    def _check_question(self, path: Path) -> None:
        try:
            kept = json_file(path)
        except ValueError as error:
            raise ValueError(
                f"{path.parent} holds results of nobody knows which question: {error} Delete it."
            ) from None
        if not isinstance(kept, dict):
            raise ValueError(f"{path} is {str(kept)[:40]!r}, not a question of this library; delete {path.parent}.")
        for name in sorted({*kept, *self.question}):
            if kept.get(name) != self.question.get(name):
                raise ValueError(
                    f"{path.parent} holds results for {name} = {kept.get(name)!r}, not {self.question.get(name)!r}; "
                    "give another folder, or delete it."
                )

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Item | None:
        """The arrays of a finished item; None where it is missing, was cut off or is damaged.

        Raises:
            ValueError: the folder was given to another question in the meantime.
        """
        instance(name, str, "name")
        if self.folder is None:
            return self._memory.get(name)
        self._still_ours(self.folder)
        try:
            return read_npz(self._path(name))
        except (OSError, ValueError):
            return None

    def put(self, name: str, **arrays: Any) -> None:
        """Keep an item; processes that have the same one write the same whole file.

        Raises:
            ValueError: the folder was given to another question in the meantime.
        """
        instance(name, str, "name")
        values = {key: np.asarray(value) for key, value in arrays.items()}
        if self.folder is None:
            self._memory[name] = values
            return
        self._still_ours(self.folder)
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **values)  # type: ignore[arg-type]

    def item(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> Item:
        """The stored item, or the computed one, stored."""
        found = self.get(name)
        if found is None:
            values = instance(function(compute, "compute")(), Mapping, "compute()")
            self.put(name, **values)
            found = {key: np.asarray(value) for key, value in values.items()}
        return found

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.npz"
