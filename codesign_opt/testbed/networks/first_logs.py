"""Logs inside checkpoints of version 0.1.0, as what a `LevelStatistics` goes on from.

They held rows (examples, sigma, mean loss) of every bin of log sigma once per so many batches, without the number of
examples behind each.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np

__all__ = ["is_first_log", "read_first_log"]


def is_first_log(log: dict[str, Any]) -> bool:
    """Whether the log of a checkpoint is one of version 0.1.0."""
    return "position" in log


def read_first_log(log: dict[str, Any], empty: dict[str, Any]) -> dict[str, Any]:
    """`LevelStatistics.state()` with one window for each time that rows were written, and one for what was pending.

    The examples of a window are shared evenly among its rows, as `learning_curves` does with cumulative logs;
    the variance of single examples is not known.

    Args:
        log: of the checkpoint.
        empty: the state of a recorder that has seen nothing.
    """
    windows: list[dict[str, Any]] = []
    start = 0.0
    for middle, group in groupby(log["rows"], key=lambda row: row[0]):
        rows = list(group)
        end = 2 * middle - start  # rows were written at the middle of their batches
        share = (end - start) / len(rows)
        windows.append(_window(empty, start, end, [(share, np.log(sigma), loss) for _, sigma, loss in rows]))
        start = end
    _, before, last = log["position"]
    if log["pending"]:
        sums = [(count, logs / count, loss / count) for count, logs, loss in log["pending"].values()]
        windows.append(_window(empty, before, last, sums))
    return {**empty, "examples": round(last), "windows": windows}


def _window(
    empty: dict[str, Any], start: float, end: float, rows: Iterable[tuple[float, float, float]]
) -> dict[str, Any]:
    """One window from (examples, mean log sigma, mean loss) of its levels."""
    edges = np.log(empty["edges"])
    table = np.zeros((4, edges.size + 1))
    for count, logs, loss in rows:
        level = int(np.searchsorted(edges, logs, side="right"))
        total = table[0, level] + count
        for i, value in ((1, logs), (2, loss)):  # several of their bins may fall on one level
            table[i, level] += (value - table[i, level]) * count / total
        table[0, level], table[3, level] = total, np.nan
    options = empty["options"]
    fixed = {"start": round(start), "end": round(end), "rate": options["learning_rate"], "batch": options["batch"]}
    return fixed | dict(zip(("count", "log_sigma", "loss", "square"), table.tolist(), strict=True))
