"""Logs of losses as windows of training: what each level saw, lost and cost, run by run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, Mask, choice, ndim, number, shown
from ..basics.user_code import answer
from ..ingredients.levels import Levels
from ..ingredients.training_run import TrainingRun, read_log
from .recording import LevelStatistics

__all__ = ["LogReading", "Windows", "inverse_examples", "read_windows", "transfer_matrix"]

_PER_DOUBLING = 2
_WIDEST = 20.0  # of a bin in log sigma: its edges are floats
_COUNTS = ("per_row", "cumulative", "validation")
Weight = Callable[[Array], Any] | float | None


@dataclass(frozen=True, eq=False)
class LogReading:
    """What a log does not say of itself: how it counts examples, which loss it holds, where its start ends.

    Args:
        examples: the column counts the examples of its row ("per_row") or all that were trained on so far; then the
            loss is an average over those since the row before ("cumulative") or was measured at that point, on other
            examples ("validation"). In a log of validation losses with a column `end`, that one has the examples
            trained on, and `examples` those that the row averages. On which noise levels it trained is read from
            `TrainingRun.density`; without one it is taken as even over the rows.
        learning_rate, batch: of each run, a number or one for every run, where the log does not hold them.
        weight: the logged loss is weight(sigma) |D - x0|^2, summed over dimensions; a function or a number
            (1 / d for a mean over d dimensions). None: 1.
        burn_in: fraction of each run's examples before which rows are dropped, in [0, 1): the law of the curves is
            that of a long run, and a tenth costs few rows, which are spaced by the logarithm of the examples.

    Raises:
        ValueError: a field out of its range.

    >>> LogReading(burn_in=0.05).examples
    'per_row'
    """

    examples: str = "per_row"
    learning_rate: Any = None
    batch: Any = None
    weight: Weight = None
    burn_in: float = 0.1

    def __post_init__(self) -> None:
        choice(self.examples, "LogReading.examples", _COUNTS)
        if number(self.burn_in, "LogReading.burn_in", nonnegative=True) >= 1:
            raise ValueError(f"LogReading.burn_in is {self.burn_in:g}; it is a fraction of each run's examples, < 1.")


@dataclass(frozen=True, eq=False)
class Windows:
    """One run, W windows in order of training by L levels.

    Attributes:
        name: of the run.
        count: (W, L) examples recorded.
        seen: (W, L) examples trained on since the window before: those recorded, unless losses are of validation.
        loss: (W, L) mean |D - x0|^2, 0 where nothing was recorded.
        log_sigma: (W, L) mean log sigma of the examples, 0 where nothing was recorded.
        square, freedom: (W, L) sum of squared deviations of single examples and its degrees of freedom.
        start, end: (W,) examples at all levels before and after the window.
        rate, batch: (W,) learning rate and examples per step, NaN where unknown.
        averaged: (W,) whether the losses are those of averaged weights.
        ema: largest decay of an exponential moving average in the log.
        point: losses are those at the end of each window, not averages over it.
        notes: what was assumed in reading.
    """

    name: str
    count: Array
    seen: Array
    loss: Array
    log_sigma: Array
    square: Array
    freedom: Array
    start: Array
    end: Array
    rate: Array
    batch: Array
    averaged: Mask
    ema: float
    point: bool
    notes: tuple[str, ...]


def read_windows(
    runs: Any, levels: Levels | int, reading: LogReading, log_width: float | None = None
) -> tuple[Levels, list[Windows]]:
    """Read all logs; a file with a column `run` holds one run per name. Arguments as in `learning_curves`."""
    listed = list(runs) if isinstance(runs, (list, tuple)) else [runs]
    if not listed:
        raise ValueError("learning_curves: no runs; give a path, a TrainingRun, or a list of them.")
    rates = _each(reading.learning_rate, len(listed), "learning_rate")
    sizes = _each(reading.batch, len(listed), "batch")
    logs = []
    for source, rate, size in zip(listed, rates, sizes, strict=True):
        log = _columns(source, rate, size)
        _unweigh(log, reading.weight)
        logs += [(*_part(log, name, source), source) for name in dict.fromkeys(log["run"].tolist())]
    if not isinstance(levels, Levels):
        levels = _levels(np.concatenate([log["sigma"] for _, log, _ in logs]), levels, log_width)
    return levels, [_windows(name, log, levels, reading.examples, source) for name, log, source in logs]


def _levels(sigma: Array, count: int, log_width: float | None) -> Levels:
    """Bins around the noise levels of a log that has few; else `count` bins of equal width over its range.

    One noise level alone has no density: its bin is a correlation length wide, so that m counts all its examples.
    """
    distinct = np.unique(sigma)
    distinct = distinct[np.concatenate([[True], np.diff(np.log(distinct)) > 1e-6])]
    if distinct.size == 1:
        reach = 0.5 * min(log_width or 1.0, _WIDEST)
        return Levels(distinct[0] * np.exp([-reach, reach]))
    if distinct.size <= count:
        return Levels.around(distinct)
    return Levels.log_uniform(float(distinct[0]) / (1 + 1e-9), float(distinct[-1]) * (1 + 1e-9), count)


def _each(value: Any, count: int, name: str) -> list[Any]:
    if value is None or ndim(value) == 0:
        return [value] * count
    if len(value) != count:
        raise ValueError(f"LogReading.{name} has {len(value)} entries for {count} runs.")
    return list(value)


def _columns(source: Any, rate: float | None, batch: int | None) -> dict[str, Any]:
    if isinstance(source, TrainingRun):
        log, size = source.read_log(), float(source.batch)
    elif isinstance(source, (str, Path)):
        log, size = read_log(source, "learning_curves: log"), np.nan
    elif isinstance(source, LevelStatistics):
        log, size = source.columns(), np.nan
    else:
        raise ValueError(
            f"learning_curves: {shown(source)} is no run; give the path of a log, a TrainingRun with one, or a "
            "LevelStatistics."
        )
    rows = log["sigma"].size
    log.setdefault("run", np.zeros(rows))
    for name, given, default in (("learning_rate", rate, np.nan), ("batch", batch, size)):
        if given is not None or name not in log:
            log[name] = np.full(rows, default if given is None else float(given))
        elif log[name].dtype.kind != "f":
            raise ValueError(f"learning_curves: the log's column '{name}' holds entries that are not numbers.")
    for name in ("averaged", "ema"):
        column = log.get(name, np.zeros(rows))
        if column.dtype.kind != "f":
            raise ValueError(f"learning_curves: the log's column '{name}' must hold numbers (averaged: 0 or 1).")
        log[name] = np.nan_to_num(column)
    return log


def _unweigh(log: dict[str, Any], weight: Weight) -> None:
    """Turn the logged loss weight(sigma) |D - x0|^2 into |D - x0|^2."""
    if weight is None:
        return
    value = (
        answer(weight, log["sigma"], "LogReading.weight") if callable(weight) else np.asarray(weight, dtype=np.float64)
    )
    if not np.all(np.isfinite(value) & (value > 0)):
        raise ValueError("LogReading.weight must be positive and finite at every noise level of the log.")
    log["loss"] = log["loss"] / value
    if "variance" in log:
        log["variance"] = log["variance"] / value**2


def _part(log: dict[str, Any], name: Any, source: Any) -> tuple[str, dict[str, Array]]:
    mine = log["run"] == name
    if isinstance(source, LevelStatistics):
        return f"run {source.run}", {key: column[mine] for key, column in log.items()}
    path = Path(str(source.log if isinstance(source, TrainingRun) else source)).name
    label = path if np.all(mine) else f"{path}, run {name:g}" if isinstance(name, float) else f"{path}, run {name}"
    return label, {key: column[mine] for key, column in log.items()}


def _windows(name: str, log: dict[str, Array], levels: Levels, examples: str, source: Any) -> Windows:
    start, end, count = _positions(name, log, examples)
    point = examples == "validation"
    index = end if point else np.floor(_PER_DOUBLING * np.log2(np.maximum(end, 1.0)))
    keys = np.stack([index, np.nan_to_num(log["learning_rate"], nan=-1.0), log["averaged"], log["batch"]], axis=1)
    keys[:, 3] = np.nan_to_num(keys[:, 3], nan=-1.0)
    unique, window = np.unique(keys, axis=0, return_inverse=True)
    window = window.ravel()
    size = unique.shape[0]
    first, last = np.full(size, np.inf), np.zeros(size)
    np.minimum.at(first, window, start)
    np.maximum.at(last, window, end)
    order = np.argsort(last, kind="stable")
    rank = np.argsort(order)[window]
    level = np.searchsorted(levels.edges, log["sigma"], side="right") - 1
    level[log["sigma"] == levels.edges[-1]] -= 1
    inside = (level >= 0) & (level < len(levels)) & (count > 0)
    mine = {k: v[inside] for k, v in log.items()}
    table = _moments(rank[inside], level[inside], mine, count[inside], (size, len(levels)), scatter=not point)
    unique, first, last = unique[order], first[order], last[order]
    rate, batch = (np.where(unique[:, i] < 0, np.nan, unique[:, i]) for i in (1, 3))
    seen, notes = table[0], _doubts(name, log, examples)
    if point:
        rows = np.bincount(level[inside], minlength=len(levels)) / level.size
        share, said = _training_share(name, source, levels, rows)
        seen, notes = np.diff(last, prepend=0.0)[:, None] * share, [*notes, *said]
    ema = float(log["ema"].max(initial=0.0))
    return Windows(
        name, table[0], seen, *table[1:], first, last, rate, batch, unique[:, 2] > 0, ema, point, tuple(notes)
    )


def _training_share(name: str, source: Any, levels: Levels, rows: Array) -> tuple[Array, list[str]]:
    """(L,) of all examples that were trained on, those on each level: a log of validation losses does not say."""
    if isinstance(source, TrainingRun) and source.density is not None:
        return source.examples_on(levels) / source.examples, []
    return rows, [
        f"{name}: losses of validation do not say on which noise levels training ran; its examples are taken as even "
        "over the log's rows. Give TrainingRun(density=…, log=…) where they were not."
    ]


def _doubts(name: str, log: dict[str, Array], examples: str) -> list[str]:
    """A column that only grows may count all examples so far, which a row by itself does not tell."""
    column = log["examples"]
    if examples != "per_row" or ("start" in log and "end" in log) or np.any(np.diff(column) < 0):
        return []
    if np.unique(column).size < 3:
        return []
    return [
        f"{name}: examples never falls along the log and was taken as counts of single rows; where it counts all so "
        "far, read it with LogReading('cumulative'), or LogReading('validation') for losses of validation."
    ]


def _positions(name: str, log: dict[str, Array], examples: str) -> tuple[Array, Array, Array]:
    """Examples at all levels before and after each row, and the examples of the row itself."""
    if examples == "validation":
        place = log.get("end", log["examples"])
        return place, place, log["examples"] if "end" in log else np.ones(place.size)
    if "start" in log and "end" in log:
        return log["start"], log["end"], log["examples"]
    column = log["examples"]
    if examples == "per_row":
        end = np.cumsum(column)
        return end - column, end, column
    if np.any(np.diff(column) < 0):
        raise ValueError(
            f"learning_curves: {name}: examples falls, so it is not cumulative; use LogReading('per_row')."
        )
    place, at, rows = np.unique(column, return_inverse=True, return_counts=True)
    before = np.concatenate([[0.0], place[:-1]])
    return before[at], column, ((place - before) / rows)[at]


def _moments(
    window: Any, level: Any, log: dict[str, Array], count: Array, shape: tuple[int, int], *, scatter: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """Counts, means and squares by window and level; rows of one cell scatter by the noise of examples, or by sigma."""

    def total(values: Any) -> Array:
        out = np.zeros(shape)
        np.add.at(out, (window, level), values)
        return out

    counts = total(count)
    loss = total(count * log["loss"]) / np.maximum(counts, 1e-300)
    place = total(count * np.log(log["sigma"])) / np.maximum(counts, 1e-300)
    variance = log.get("variance", np.full(count.size, np.nan))
    known = np.isfinite(variance) & (count > 1)
    within = np.where(known, variance, 0.0) * (count - 1)
    square, freedom = total(within), total(np.where(known, count - 1, 0.0))
    if scatter:
        square = square + total(count * (log["loss"] - loss[window, level]) ** 2)
        freedom = freedom + total(np.ones(count.size)) - (counts > 0)
    return counts, loss, place, square, freedom


def transfer_matrix(levels: Levels, width: float) -> Array:
    """T, (L, L): a density per unit log sigma averaged by a Gaussian of this width in log sigma; 0: the identity.

    Rows do not sum to one near the ends: beyond the levels nothing was trained (docs/theory.md section 6).
    """
    if width < 1e-9:  # far below any level's extent
        return np.eye(len(levels))
    steps = (np.log(levels.edges)[None, :] - np.log(levels.sigma)[:, None]) / (width * sqrt(2.0))
    return np.diff(np.vectorize(erf)(steps), axis=1) / 2


def inverse_examples(windows: Windows, levels: Levels, log_width: float | None, width: float) -> Array:
    """(W, L) mean over each window of 1 / m, or 1 / m at its end for losses of validation; NaN where m is zero.

    m = (density per unit log sigma, averaged over the transfer width) x (correlation length), or the examples
    of the level itself where `log_width` is None.
    """
    after = np.cumsum(windows.seen, axis=0)
    before = np.vstack([np.zeros((1, after.shape[1])), after[:-1]])
    scale = levels.log_width if log_width is None else np.full(len(levels), log_width)
    matrix = transfer_matrix(levels, width)
    low, high = ((seen / levels.log_width) @ matrix.T * scale for seen in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        if windows.point:
            return np.where(high > 0, 1 / high, np.nan)
        mean = np.where(high > low * (1 + 1e-12), np.log(high / low) / (high - low), 1 / low)
    return np.where(low > 0, mean, np.nan)
