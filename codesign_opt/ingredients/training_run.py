"""A training run already made: where it trained, and the log of its losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.checks import Array, as_path, integer, shown, takes
from ..basics.user_code import answer
from .densities import SigmaDensity, examples_of
from .levels import Levels
from .log_file import LOG_NEEDS, log_rows

__all__ = ["COLUMNS", "TrainingRun", "read_log"]

_MOST = 10**15  # iterations, and examples of one

COLUMNS = LOG_NEEDS


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A training run already made: its density over noise levels and its number of examples.

    Args:
        density: a SigmaDensity (LogNormal, TrainingDensity, any `peers.training_density`), function of sigma
            (examples per unit sigma, any scale), or array with one entry per level; None to take the histogram
            of the log's examples over sigma.
        iterations, batch: number of examples = iterations x batch, both >= 1.
        log: path of a CSV or JSON-lines file with the columns examples (how many the row averages), sigma,
            loss, or None; further columns are allowed (`LevelStatistics` writes some). It is read when it is
            asked for, with `read_log`.

    Raises:
        ValueError: iterations or batch below 1, a density of unknown form.

    >>> from codesign_opt import LogNormal
    >>> TrainingRun(density=LogNormal(-1.2, 1.2), iterations=2_000, batch=256).examples
    512000
    """

    density: Any
    iterations: int
    batch: int
    log: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch"):
            count = integer(getattr(self, name), f"TrainingRun.{name}", minimum=1, maximum=_MOST)
            object.__setattr__(self, name, count)
        if self.density is None and self.log is not None:
            self.read_log()
        elif isinstance(self.density, (str, bytes, bool)) or self.density is None:
            raise ValueError(
                f"TrainingRun.density is {shown(self.density)}; use LogNormal, a function of sigma, or an array."
            )

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return self.iterations * self.batch

    @takes(levels=Levels)
    def examples_on(self, levels: Levels) -> Array:
        """(L,) examples on each level; those outside the levels' range are lost to the plan."""
        total = float(self.examples)
        if self.density is None:
            log = self.read_log()
            counts = np.histogram(log["sigma"], levels.edges, weights=log["examples"])[0]
            return counts / float(log["examples"].sum()) * total
        if isinstance(self.density, SigmaDensity):
            return self.density.mass(levels.edges) * total
        if callable(self.density):
            return _function_mass(self.density, levels) * total
        return examples_of(self.density, levels, total)

    def read_log(self) -> dict[str, Any]:
        """The log's columns as arrays: examples, sigma, loss, and whatever else it has.

        Raises:
            ValueError: no log, a missing column, or an unreadable line, by name and line number.
        """
        if self.log is None:
            raise ValueError("TrainingRun.log is None; give the path of a CSV or JSON-lines file.")
        return read_log(self.log)


def read_log(path: str | Path, name: str = "TrainingRun.log") -> dict[str, Any]:
    """Columns of a CSV or JSON-lines log as arrays, one entry per row.

    Args:
        path: a file that ends in .jsonl or .json (one object per line), or else a CSV with a header, separated by
            commas, semicolons or tabs; spaces and capitals in names of columns do not matter.
        name: what messages call the file.

    Returns:
        float64 arrays `examples` (how many examples the row averages), `sigma` and `loss`; further columns as
        float64 (absent entries NaN) or, where an entry is not a number, as strings.

    Raises:
        ValueError: no rows, a column that is missing or there twice, an entry that is not a number, a loss that is
            negative or not finite, a noise level that is not positive, a negative number of examples; with the line.
    """
    file = as_path(path)
    rows = log_rows(file, name)
    if not rows:
        raise ValueError(f"{name} {file} has no rows.")
    table: dict[str, Any] = {column: np.empty(len(rows)) for column in COLUMNS}
    for i, (line, row) in enumerate(rows):
        for column in COLUMNS:
            table[column][i] = _entry(row, column, f"{name} {file}, line {line}")
    extra = sorted({str(key) for _, row in rows for key in row if key is not None} - set(COLUMNS))
    return table | {column: _column([row.get(column) for _, row in rows]) for column in extra}


def _entry(row: dict[str, Any], column: str, place: str) -> float:
    if row.get(column) in (None, ""):
        raise ValueError(f"{place}: '{column}' is missing; needed: {', '.join(COLUMNS)}.")
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        raise ValueError(f"{place}: '{column}' is {row[column]!r}, not a number (write decimal points).") from None
    if not math.isfinite(value):
        raise ValueError(f"{place}: '{column}' is {value}; it must be finite. Remove the row if the run went on.")
    if column == "sigma" and value <= 0:
        raise ValueError(f"{place}: 'sigma' is {value:g}; a noise level must be > 0.")
    if column == "examples" and value < 0:
        raise ValueError(f"{place}: 'examples' is {value:g}; it must be >= 0.")
    if column == "loss" and value < 0:
        raise ValueError(f"{place}: 'loss' is {value:g}; |D - x0|^2 is >= 0: log the loss itself, not its logarithm.")
    return value


def _column(values: list[Any]) -> Any:
    try:
        return np.array([np.nan if value in (None, "") else float(value) for value in values])
    except (TypeError, ValueError):
        return np.array(["" if value is None else str(value) for value in values])


def _function_mass(density: Any, levels: Levels) -> Array:
    """(L,) share of each level in a density per unit sigma, of all its mass between sigma 1e-6 and 1e6."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(np.log(1e-6), np.log(1e6), 1001)
    half = 0.5 * np.diff(edges)
    logs = 0.5 * (edges[1:] + edges[:-1])[:, None] + half[:, None] * nodes
    whole = float(half @ (_checked_density(density, np.exp(logs)) * np.exp(logs)) @ weights)
    share = levels.average(lambda sigma: _checked_density(density, sigma) * sigma, points=16) * levels.log_width
    if not whole > 0:
        raise ValueError("TrainingRun.density has no mass between sigma 1e-6 and 1e6.")
    return share / whole


def _checked_density(density: Any, sigma: Array) -> Array:
    values = answer(density, sigma, "TrainingRun.density")
    if not np.all(np.isfinite(values) & (values >= 0)):
        bad = float(sigma[~(np.isfinite(values) & (values >= 0))].flat[0])
        raise ValueError(f"TrainingRun.density(sigma) is negative or not finite at sigma = {bad:.3g}.")
    return values
