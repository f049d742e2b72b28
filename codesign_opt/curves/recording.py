"""Losses by noise level, recorded inside a training loop: what the learning-curve route reads."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, as_path, boolean, instance, integer, number
from ..basics.files import locked, write_whole
from ..ingredients.levels import Levels
from ..ingredients.log_file import log_rows
from ..ingredients.training_run import read_log
from .batches import as_batch, check_sizes, on_host, refused, two_rows

__all__ = ["LOG_COLUMNS", "LevelStatistics"]

LOG_COLUMNS = (
    "run", "start", "end", "level", "sigma", "examples", "loss", "variance", "learning_rate", "batch", "averaged",
    "ema",
)  # fmt: skip
_FLUSH = 32  # batches kept where they were made, so that a device is not waited for at every step
_OCTAVES = 10  # below and above sigma = 1, of the default levels
_LARGEST = 1e150  # of a loss: its square has a number
_OPTIONS = ("run", "learning_rate", "batch", "averaged", "ema", "windows_per_doubling")
_SUMS = ("count", "log_sigma", "loss", "square")


class LevelStatistics:
    """Count, mean and variance of the loss on every noise level, by windows of examples: three lines in a loop.

        stats = co.LevelStatistics()               # before the loop
        stats.record(sigma, loss)                  # in it: (N,) noise levels, (N,) losses |D - x0|^2
        stats.save("log.csv")                      # now and then, and at the end

    Of flow matching the loss is |v_hat - v|^2 and D = x_t - t v_hat, so that |D - x0|^2 = t^2 |v_hat - v|^2: hand both
    to `record_flow(t, loss)`.

    Windows end at equal ratios of the examples seen, so that loss against examples is even on a logarithmic
    axis and the log stays short: rows grow with the logarithm of the run. The file is the whole state: it is
    replaced atomically, holds several runs side by side, and `resume` goes on from it. `TrainingRun(log=...)`
    and `learning_curves` read it (docs/theory.md section 5).

    On several processes each has its own: `merged` joins their `state()`s.

    Args:
        levels: Levels, or ascending edges of the bins, data units; six per octave from 2^-10 to 2^10 unless given.
            Examples outside are kept apart.
        run: name of this run among those in the file.
        learning_rate: of the optimiser, or None; a change given to `record` begins a new window.
        batch: examples per step; None: the size of what is recorded.
        averaged: the losses are those of weights averaged over the run, not of the last iterate.
        ema: decay per step of an exponential moving average whose losses these are, in [0, 1); 0: none.
        windows_per_doubling: windows each time the number of examples doubles, >= 1.

    Raises:
        ValueError: a field out of its range.

    >>> stats = LevelStatistics([0.1, 1.0, 10.0])
    >>> stats.record(np.array([0.5, 0.5, 2.0]), np.array([0.1, 0.3, 0.7]))
    >>> [(row["examples"], round(row["loss"], 3)) for row in stats.rows()]
    [(2, 0.2), (1, 0.7)]
    """

    def __init__(
        self,
        levels: Any = None,
        *,
        run: str = "0",
        learning_rate: float | None = None,
        batch: int | None = None,
        averaged: bool = False,
        ema: float = 0.0,
        windows_per_doubling: int = 2,
    ) -> None:
        found = Levels.log_uniform(2.0**-_OCTAVES, 2.0**_OCTAVES, 12 * _OCTAVES) if levels is None else levels
        self.levels = found if isinstance(found, Levels) else Levels(found)
        self.run = str(instance(run, (str, int, np.integer), "LevelStatistics.run"))
        self.learning_rate = _rate(learning_rate)
        self.batch = None if batch is None else integer(batch, "LevelStatistics.batch", minimum=1)
        self.averaged = boolean(averaged, "LevelStatistics.averaged")
        self.ema = number(ema, "LevelStatistics.ema", nonnegative=True)
        if self.ema >= 1:
            raise ValueError(f"LevelStatistics.ema is {self.ema:g}; it must be < 1.")
        self.windows_per_doubling = integer(windows_per_doubling, "LevelStatistics.windows_per_doubling", minimum=1)
        self.examples = 0
        self.rejected = 0
        self._edges = np.log(self.levels.edges)
        self._windows: list[_Window] = []
        self._pending: list[tuple[Any, Any, float | None]] = []

    def record(self, sigma: Any, loss: Any, *, learning_rate: float | None = None) -> None:
        """Take in one batch; arrays or tensors on any device, read in one transfer some batches later.

        Args:
            sigma: (N,), (N, 1, 1, 1) or one number: noise levels sigma = sigma_t / s_t, data units, > 0.
            loss: (N,) |D - x0|^2 per example, or (N, ...) squared differences, which are summed.
            learning_rate: of this step, where it is not the one given at the start.

        Raises:
            ValueError: shapes that do not match; at the latest 32 batches later or on `save`, a noise level
                that is not positive or a loss that is negative. Losses that are not finite are left out, with a
                warning.
        """
        rate = self.learning_rate if learning_rate is None else _rate(learning_rate)
        self._pending.append((*two_rows(sigma, loss), rate))
        if len(self._pending) >= _FLUSH:
            self._flush()

    def record_flow(self, time: Any, loss: Any, *, learning_rate: float | None = None) -> None:
        """Take in one batch of flow matching x_t = (1 - t) x0 + t z, v = z - x0; see `record`.

        Args:
            time: (N,) flow times in (0, 1], arrays or tensors.
            loss: (N,) |v_hat - v|^2 per example, or (N, ...) squared differences, which are summed.
            learning_rate: of this step.

        >>> stats = LevelStatistics([0.1, 1.0, 10.0])
        >>> stats.record_flow(np.array([0.75, 0.75]), np.array([0.2, 0.4]))
        >>> [(row["sigma"].__round__(9), row["loss"].__round__(9)) for row in stats.rows()]
        [(3.0, 0.16875)]
        """
        whole = as_batch(loss, "LevelStatistics.record_flow: loss")
        at = as_batch(time, "LevelStatistics.record_flow: time")
        whole = whole.reshape(len(whole), int(np.prod(whole.shape[1:]))).sum(1)
        at = at.reshape(-1)
        if hasattr(whole, "new_tensor") != hasattr(at, "new_tensor"):  # one of them lies on a device: both do
            whole, at = (x if hasattr(x, "new_tensor") else y.new_tensor(x) for x, y in ((whole, at), (at, whole)))
        check_sizes(len(at), len(whole))
        with np.errstate(all="ignore"):  # times beyond 1 are refused as noise levels
            self.record(at / (1 - at), at**2 * whole, learning_rate=learning_rate)

    def rows(self) -> list[dict[str, Any]]:
        """One record per window and level with examples in it, in order of training: the file's rows."""
        self._flush()
        return [row for window in self._windows for row in self._rows_of(window)]

    def columns(self) -> dict[str, Array]:
        """`rows` by column, as `read_log` gives a file's: float64 arrays, NaN where an entry is absent.

        Raises:
            ValueError: nothing was recorded.
        """
        rows = self.rows()
        if not rows:
            raise ValueError("LevelStatistics.columns: nothing was recorded yet.")
        numbers = {name: np.array([np.nan if row[name] is None else float(row[name]) for row in rows])
                   for name in LOG_COLUMNS if name != "run"}  # fmt: skip
        return numbers | {"run": np.array([row["run"] for row in rows])}

    def save(self, path: str | Path) -> None:
        """Write the log, CSV or (.jsonl, .json) JSON lines; rows of other runs in the file are kept.

        Raises:
            ValueError: the file has rows that were not written by a `LevelStatistics`.
        """
        file, own = as_path(path), self.rows()
        with locked(file):  # another run may save into it
            kept = [row for row in _existing(file) if row["run"] != self.run] if file.exists() else []
            write_whole(file, _text(kept + own, json_lines=file.suffix in (".jsonl", ".json")))

    @classmethod
    def resume(cls, path: str | Path, levels: Any = None, **options: Any) -> LevelStatistics:
        """Go on from a saved log; a fresh recorder where there is no file. Options as at the start.

        Raises:
            ValueError: the log's levels are others, or the file was not written by a `LevelStatistics`.
        """
        stats = cls(levels, **options)
        if as_path(path).exists():
            for row in _existing(Path(path)):
                if row["run"] == stats.run:
                    stats._restore(row, Path(path))
        return stats

    def state(self) -> dict[str, Any]:
        """Everything needed to go on to the same bits, in plain numbers; batches that are not counted yet included.

        The file of `save` is enough to go on from, too, up to the last digit of its means.
        """
        pending = [(*on_host(sigma, loss), rate) for sigma, loss, rate in self._pending]
        return {
            "edges": self.levels.edges.tolist(),
            "options": {name: getattr(self, name) for name in _OPTIONS},
            "examples": self.examples,
            "rejected": self.rejected,
            "windows": [window.state() for window in self._windows],
            "pending": [(sigma.tolist(), loss.tolist(), rate) for sigma, loss, rate in pending],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LevelStatistics:
        """The recorder as it was when `state()` was taken."""
        stats = cls(state["edges"], **state["options"])
        stats.examples, stats.rejected = state["examples"], state["rejected"]
        stats._windows = [_Window.from_state(window) for window in state["windows"]]
        stats._pending = [(np.array(sigma), np.array(loss), rate) for sigma, loss, rate in state["pending"]]
        return stats

    @classmethod
    def merged(cls, states: Sequence[dict[str, Any]]) -> LevelStatistics:
        """One recorder from the `state()` of every process of a run, as if one process had seen all examples.

        With torch.distributed: `all_gather_object(states, stats.state())`, then `LevelStatistics.merged(states)`.

        Raises:
            ValueError: no state, other levels or options, or processes that did not take the same steps.
        """
        parts = [cls.from_state(state) for state in states]
        if not parts:
            raise ValueError("LevelStatistics.merged: no state is given.")
        for part in parts:
            part._flush()
        first = parts[0]
        whole = cls(first.levels, **{name: getattr(first, name) for name in _OPTIONS})
        for i, part in enumerate(parts):
            steps = [(window.start, window.end, window.rate, window.batch) for window in part._windows]
            if steps != [(window.start, window.end, window.rate, window.batch) for window in first._windows] or not (
                np.array_equal(part.levels.edges, first.levels.edges)
            ):
                raise ValueError(
                    f"LevelStatistics.merged: process {i} has other levels or took other steps than process 0; record "
                    "on all processes alike, and merge after the same step."
                )
        whole.examples, whole.rejected = (
            sum(getattr(part, name) for part in parts) for name in ("examples", "rejected")
        )
        whole._windows = [_Window.of_ranks(windows) for windows in zip(*(part._windows for part in parts), strict=True)]
        return whole

    def _flush(self) -> None:
        pending = [(*on_host(sigma, loss), rate) for sigma, loss, rate in self._pending]
        wrong = [refused(sigma, loss) for sigma, loss, _ in pending]
        self._pending = [item for item, said in zip(pending, wrong, strict=True) if not said]  # it costs no other
        if any(wrong):
            raise ValueError(f"LevelStatistics.record: {next(filter(None, wrong))}")
        self._pending = []
        batches = []
        for levels, losses, rate in pending:
            self.examples += losses.size
            batches.append((self._key(losses.size, rate), levels, losses))
        for (index, rate, batch), group in groupby(batches, key=lambda item: item[0]):
            members = list(group)
            levels = np.concatenate([item[1] for item in members])
            self._add(index, rate, batch, levels, np.concatenate([item[2] for item in members]))

    def _key(self, size: int, rate: float | None) -> tuple[int, float | None, int]:
        index = int(self.windows_per_doubling * math.log2(max(self.examples, 1)))
        return index, rate, self.batch or size

    def _add(self, index: int, rate: float | None, batch: int, sigma: Array, loss: Array) -> None:
        window = self._window(index, rate, batch)
        window.end += loss.size
        # pure noise (flow matching at t = 1) has no finite level; what a sum overflows with can't be read back
        good = np.isfinite(sigma) & (loss < _LARGEST)
        if not good.all():
            self.rejected += int((~good).sum())
            warnings.warn(
                f"LevelStatistics.record: {int((~good).sum())} noise levels or losses are not finite, the first at "
                f"sigma = {float(sigma[~good][0]):.3g} around example {window.end}; they are left out.",
                stacklevel=4,
            )
            sigma, loss = sigma[good], loss[good]
        logs = np.log(sigma)
        level = np.searchsorted(self._edges, logs, side="right")
        level[logs == self._edges[-1]] -= 1  # the last bin holds its upper edge
        window.add(level, logs, loss)

    def _window(self, index: int, rate: float | None, batch: int) -> _Window:
        """The window in progress, or a new one where the index, the rate or the batch has changed."""
        last = self._windows[-1] if self._windows else None
        if last is None or (last.rate, last.batch) != (rate, batch) or self._index(last.end) < index:
            start = 0 if last is None else last.end
            self._windows.append(_Window(start, rate, batch, len(self.levels) + 2))
        return self._windows[-1]

    def _index(self, examples: int) -> int:
        return int(self.windows_per_doubling * math.log2(max(examples, 1)))

    def _rows_of(self, window: _Window) -> list[dict[str, Any]]:
        fixed = {"run": self.run, "start": window.start, "end": window.end, "learning_rate": window.rate}
        fixed |= {"batch": window.batch, "averaged": int(self.averaged), "ema": self.ema}
        rows = []
        for i in np.flatnonzero(window.count):
            count, square = int(window.count[i]), float(window.square[i])
            variance = square / (count - 1) if count > 1 and math.isfinite(square) else None
            values = {"level": int(i) - 1, "sigma": float(np.exp(window.log_sigma[i])), "examples": count}
            row = fixed | values | {"loss": float(window.loss[i]), "variance": variance}
            rows.append({column: row[column] for column in LOG_COLUMNS})
        return rows

    def _restore(self, row: dict[str, Any], path: Path) -> None:
        i, log_sigma = row["level"] + 1, math.log(row["sigma"])
        bounds = np.concatenate([[-np.inf], self._edges, [np.inf]])
        if not (0 <= i < bounds.size - 1 and bounds[i] - 1e-9 <= log_sigma <= bounds[i + 1] + 1e-9):
            raise ValueError(
                f"LevelStatistics.resume: {path} has sigma = {row['sigma']:.6g} on level {row['level']}, which is "
                "not so on these levels; give the edges that the log was begun with."
            )
        if not self._windows or self._windows[-1].start != row["start"]:
            self._windows.append(_Window(row["start"], row["learning_rate"], row["batch"], len(self.levels) + 2))
        window = self._windows[-1]
        window.end, self.examples = row["end"], row["end"]
        square = (row["variance"] or 0.0) * (row["examples"] - 1)
        for name, value in (("count", row["examples"]), ("log_sigma", log_sigma), ("loss", row["loss"])):
            getattr(window, name)[i] = value
        window.square[i] = square


class _Window:
    """Running moments by level of one stretch of training, both ends in examples seen at all levels.

    `square` is the sum of squared deviations; NaN where only means were logged.
    """

    def __init__(self, start: int, rate: float | None, batch: int, size: int) -> None:
        self.start, self.end, self.rate, self.batch = start, start, rate, batch
        self.count, self.log_sigma, self.loss, self.square = (np.zeros(size) for _ in range(4))

    def state(self) -> dict[str, Any]:
        fixed = {"start": self.start, "end": self.end, "rate": self.rate, "batch": self.batch}
        return fixed | {name: getattr(self, name).tolist() for name in _SUMS}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> _Window:
        window = cls(state["start"], state["rate"], state["batch"], len(state["count"]))
        window.end = state["end"]
        for name in _SUMS:
            setattr(window, name, np.array(state[name]))
        return window

    @classmethod
    def of_ranks(cls, windows: Sequence[_Window]) -> _Window:
        """The same stretch of training on several processes, as one."""
        first, many = windows[0], len(windows)
        whole = cls(first.start * many, first.rate, first.batch * many, first.count.size)
        whole.end = first.end * many
        for window in windows:
            whole._join(window.count, window.log_sigma, window.loss, window.square)
        return whole

    def add(self, level: Any, log_sigma: Array, loss: Array) -> None:
        """Take in examples."""
        size = self.count.size
        count = np.bincount(level, minlength=size).astype(np.float64)
        safe = np.maximum(count, 1.0)
        mean = np.bincount(level, loss, size) / safe
        square = np.bincount(level, (loss - mean[level]) ** 2, size).astype(np.float64)
        self._join(count, np.bincount(level, log_sigma, size) / safe, mean, square)

    def _join(self, count: Array, logs: Array, mean: Array, square: Array) -> None:
        """Merge means and sums of squared deviations, pairwise, so that nothing cancels."""
        total = np.maximum(self.count + count, 1.0)
        self.square += square + (mean - self.loss) ** 2 * self.count * count / total
        self.loss += (mean - self.loss) * count / total
        self.log_sigma += (logs - self.log_sigma) * count / total
        self.count += count


def _rate(value: float | None) -> float | None:
    return None if value is None else number(value, "LevelStatistics.learning_rate", positive=True)


def _existing(path: Path) -> list[dict[str, Any]]:
    """Rows of a log that a `LevelStatistics` wrote, with Python's own types."""
    if path.stat().st_size == 0:
        return []
    log = read_log(path, "LevelStatistics log")
    absent = [column for column in LOG_COLUMNS if column not in log]
    if absent:
        raise ValueError(
            f"LevelStatistics: {path} has no column {absent[0]!r}; it was written otherwise, name another."
        )
    whole = ("start", "end", "level", "examples", "batch", "averaged")
    names = [str(row["run"]) for _, row in log_rows(path)]  # as they were written: "01" is not "1"
    rows = []
    for i, name in enumerate(names):
        row: dict[str, Any] = {column: float(log[column][i]) for column in LOG_COLUMNS if column != "run"}
        row |= {column: int(row[column]) for column in whole} | {"run": name}
        row |= {column: None for column in ("learning_rate", "variance") if math.isnan(row[column])}
        rows.append(row)
    return rows


def _text(rows: list[dict[str, Any]], *, json_lines: bool) -> str:
    if json_lines:
        return "".join(json.dumps(row) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, LOG_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: repr(v) if isinstance(v, float) else v for key, v in row.items()} for row in rows])
    return out.getvalue()
