"""A loss log: mean squared denoising error by noise level along a training."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, integer

__all__ = ["LossLog"]


class LossLog:
    """Rows of (examples so far, sigma, mean of |D - x0|^2 over the examples near that sigma).

    A row is written for every filled bin of log sigma once per `every` batches: sigma is the geometric
    mean of the bin's levels, examples the middle of the batches that it averages. The loss is summed over the
    dimensions, in squared data units, without any weight: docs/theory.md section 5, learning curves.

    >>> import numpy as np
    >>> log = LossLog(every=2)
    >>> for examples in (4, 8):
    ...     log.add(examples, np.full(4, 0.5), np.array([1.0, 2.0, 3.0, 4.0]))
    >>> log.rows.tolist()
    [[4.0, 0.5, 2.5]]
    """

    def __init__(self, *, every: int = 50, bins_per_decade: int = 5) -> None:
        self.every = integer(every, "LossLog.every", minimum=1)
        self.bins_per_decade = integer(bins_per_decade, "LossLog.bins_per_decade", minimum=1)
        self._rows: list[list[float]] = []
        self._pending: dict[int, list[float]] = {}  # bin: number, sum of log sigma, sum of the loss
        self._batches, self._before, self._last = 0, 0.0, 0.0

    @property
    def rows(self) -> Array:
        """(R, 3) finished rows: examples, sigma, loss."""
        return np.array(self._rows, dtype=np.float64).reshape(-1, 3)

    def add(self, examples: int, sigma: Array, squares: Array) -> None:
        """One batch: number of examples seen with it, its levels (N,), its squared errors (N,)."""
        logs, squares = np.log(np.asarray(sigma, np.float64)), np.asarray(squares, np.float64)
        bins = np.floor(logs / np.log(10.0) * self.bins_per_decade).astype(np.intp)
        found, of = np.unique(bins, return_inverse=True)
        sums = np.stack([np.bincount(of), np.bincount(of, logs), np.bincount(of, squares)], axis=1)
        for key, here in zip(found.tolist(), sums, strict=True):
            self._pending[key] = (np.asarray(self._pending.get(key, np.zeros(3))) + here).tolist()
        self._batches, self._last = self._batches + 1, float(examples)
        if self._batches == self.every:
            self._flush()

    def _flush(self) -> None:
        middle = 0.5 * (self._before + self._last)
        for _, (number, logs, squares) in sorted(self._pending.items()):
            self._rows.append([middle, float(np.exp(logs / number)), squares / number])
        self._pending, self._batches, self._before = {}, 0, self._last

    def save(self, path: str | os.PathLike[str]) -> None:
        """CSV with the columns examples, sigma, loss, written completely or not at all."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["examples", "sigma", "loss"])
            writer.writerows([f"{e:.1f}", f"{s:.6g}", f"{loss:.8g}"] for e, s, loss in self._rows)
        os.replace(temporary, path)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, in plain numbers."""
        return {
            "options": [self.every, self.bins_per_decade],
            "rows": [list(row) for row in self._rows],
            "pending": {key: list(value) for key, value in self._pending.items()},
            "position": [self._batches, self._before, self._last],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LossLog:
        """The log as it was when `state()` was taken."""
        log = cls(every=state["options"][0], bins_per_decade=state["options"][1])
        log._rows = [list(row) for row in state["rows"]]
        log._pending = {int(key): list(value) for key, value in state["pending"].items()}
        log._batches, log._before, log._last = state["position"]
        return log
