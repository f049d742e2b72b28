"""Comparison: schedules held against each other at equal evaluations, with standard errors and ranks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.checks import Array, instance, integer, shown
from ..basics.files import write_whole
from ..basics.late import later
from ..basics.tabular import Tabular
from ..basics.user_code import told_in
from ..basics.wording import aligned, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Comparison", "ComparisonRow", "read_rows", "rows_of_cell", "write_rows"]

_PLAIN = (
    "sampler", "evaluations", "peer", "steps", "used", "error", "standard_error", "geometric_mean", "excess",
    "excess_error", "rank",
)  # fmt: skip
_EQUAL = 1e-4  # relative: exact errors nearer than this are the same number, as descents stop there


@dataclass(frozen=True, eq=False)
class ComparisonRow:
    """One schedule in one cell, a cell being a sampler and a number of evaluations.

    Attributes:
        sampler: its name.
        evaluations: allowed per image; `used` of them are used.
        peer: name of the schedule; "plan" is the co-designed one.
        steps: number of steps K.
        used: evaluations per image that the grid takes.
        error: in the comparison's measure, squared data units.
        standard_error: of it; 0 where the error is exact.
        geometric_mean: of the errors of single draws, where errors are measured (they are heavy tailed).
        excess: error minus the best error of the cell.
        excess_error: standard error of the excess, from paired draws where errors are measured.
        rank: 1 for the best of the cell.
        sigmas: (K+1,) the grid.
        others: secondary measures by name, (value, standard error).
        fitting: calls of the denoiser, a batch of states each, that a fit to it made; 0 for grids.
    """

    sampler: str
    evaluations: int
    peer: str
    steps: int
    used: float
    error: float
    standard_error: float
    geometric_mean: float
    excess: float
    excess_error: float
    rank: int
    sigmas: Array
    others: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fitting: float = 0.0

    @property
    def level(self) -> bool:
        """Whether it is the best of its cell or within one standard error of it (1e-4 where errors are exact)."""
        return self.excess <= max(self.excess_error, _EQUAL * (self.error - self.excess))


@dataclass(frozen=True, eq=False)
class Comparison(Tabular):
    """Every schedule in every cell.

    Attributes:
        rows: cell by cell, by rank.
        measure: what `error` is.
        title: what was compared on.
        notes: schedules that are not in it and why.

    >>> import codesign_opt as co
    >>> from codesign_opt.comparison.compare import compare
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> found = compare(model, peers=["edm", "log_snr"], evaluations=[6])
    >>> [(row.peer, row.rank) for row in found.rows][0], found.share_level("plan")
    (('plan', 1), 1.0)
    """

    rows: tuple[ComparisonRow, ...]
    measure: str
    title: str = ""
    notes: tuple[str, ...] = ()

    @property
    def peers(self) -> list[str]:
        """Names of all schedules, "plan" first, then by mean rank."""
        names = list(dict.fromkeys(row.peer for row in self.rows))
        mean = {name: np.mean([row.rank for row in self.rows if row.peer == name]) for name in names}
        return sorted(names, key=lambda name: (name != "plan", mean[name]))

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(sampler, evaluations) of all cells."""
        return list(dict.fromkeys((row.sampler, row.evaluations) for row in self.rows))

    def cell(self, sampler: str, evaluations: int) -> list[ComparisonRow]:
        """The rows of one cell, by rank."""
        sampler, evaluations = _name(sampler, "sampler"), integer(evaluations, "evaluations")
        return [row for row in self.rows if (row.sampler, row.evaluations) == (sampler, evaluations)]

    def row(self, peer: str, sampler: str, evaluations: int) -> ComparisonRow | None:
        """One schedule in one cell; None where it could not be made."""
        peer = _name(peer, "peer")
        return next((row for row in self.cell(sampler, evaluations) if row.peer == peer), None)

    def ranks(self) -> dict[str, list[int]]:
        """Ranks of every schedule over the cells that it is in."""
        return {name: [row.rank for row in self.rows if row.peer == name] for name in self.peers}

    def share_level(self, peer: str = "plan") -> float:
        """Share of its cells where a schedule is best or within one standard error of the best."""
        own = [row.level for row in self.rows if row.peer == _name(peer, "peer")]
        if not own:
            raise ValueError(f"peer is {shown(peer)}, which is not in this comparison: {', '.join(self.peers)}.")
        return float(np.mean(own))

    def losses(self, peer: str = "plan") -> list[tuple[ComparisonRow, ComparisonRow]]:
        """(its row, the best row) of the cells where a schedule is more than one standard error from the best."""
        own = [row for row in self.rows if row.peer == _name(peer, "peer") and not row.level]
        return [(row, self.cell(row.sampler, row.evaluations)[0]) for row in own]

    def plot(self, axes: Sequence[Axes] | None = None) -> list[Axes]:
        """Error over the plan's against evaluations, one panel per sampler; returns the figure's axes.

        Raises:
            ValueError: another number of axes than samplers; a comparison without a schedule.
        """
        from .figure import plot_ratios

        if not self.rows:
            said = "; ".join(self.notes) or "nothing was compared"
            raise ValueError(f"the comparison has no schedule to draw: {said}.")
        base = "plan" if "plan" in self.peers else ""
        return plot_ratios(self.cells, self.ratios(base), base, axes)

    def ratios(self, base: str = "plan") -> dict[str, list[float]]:
        """Error of every schedule over that of `base` (of the cell's best where that is ""), cell by cell.

        nan where one of the two could not be made or the divisor is zero.
        """
        base = _name(base, "base")
        return {name: [self._ratio(name, cell, base) for cell in self.cells] for name in self.peers}

    def _ratio(self, name: str, cell: tuple[str, int], base: str) -> float:
        row, other = self.row(name, *cell), self.row(base, *cell) if base else self.cell(*cell)[0]
        return float("nan") if row is None or other is None or other.error <= 0 else row.error / other.error

    def geometric_mean_ratio(self, peer: str, base: str = "") -> float:
        """Geometric mean, over the cells that both are in, of a schedule's error over `base`'s (the best's for "").

        Raises:
            ValueError: a schedule that is in no cell with it.

        >>> import codesign_opt as co
        >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
        >>> found = co.compare(model, peers=["edm"], evaluations=[6, 9])
        >>> found.geometric_mean_ratio("plan") == 1.0 < found.geometric_mean_ratio("edm")
        True
        """
        ratios = np.array(self.ratios(base).get(_name(peer, "peer"), []), dtype=np.float64)
        known = ratios[np.isfinite(ratios) & (ratios > 0)]
        if not known.size:
            raise ValueError(
                f"peer is {shown(peer)}, which is in no cell with {base or 'another'}: {', '.join(self.peers)}."
            )
        return float(np.exp(np.log(known).mean()))

    @classmethod
    def read(cls, file: Any, *, title: str = "") -> Comparison:
        """The rows that `to_csv` wrote, of six digits, from an open file; the measure and the notes are not in it.

        Raises:
            ValueError: a column is missing, or an entry is not a number.
        """
        return cls(tuple(read_rows(file)), "error, as stated in the file", title)

    def to_csv(self, path: str | Path) -> Path:
        """All rows with their grids, six digits."""
        text = io.StringIO(newline="")
        write_rows(text, self.rows)
        return write_whole(path, text.getvalue())

    def report(self, path: str | Path) -> Path:
        """One self-contained HTML page; see `codesign_opt.report`."""
        written: Path = later("reports.report", "report")(self, path)
        return written

    def table(self) -> str:
        """Aligned text: one line per schedule and cell, errors with standard errors, ranks, and what fits took."""
        title = ["sampler", "schedule", "evaluations", "steps", "error", "+-", "above the best", "+-", "rank"]
        rows = [
            [row.sampler, row.peer, f"{row.used:g} of {row.evaluations}", str(row.steps), quantity(row.error),
             quantity(row.standard_error, 2), quantity(row.excess, 3), quantity(row.excess_error, 2), str(row.rank)]
            for row in self.rows
        ]  # fmt: skip
        if any(row.fitting for row in self.rows):
            title.append("fitting")
            rows = [[*texts, f"{row.fitting:,.0f}"] for texts, row in zip(rows, self.rows, strict=True)]
        return "\n".join(aligned(title, rows))

    def markdown(self) -> str:
        """One table: schedules down, cells across, errors over the best of the cell; the best in bold.

        The last column is the geometric mean over the cells that a schedule is in.
        """
        cells = self.cells
        lines = [
            "| schedule | "
            + " | ".join(f"{sampler} {evaluations}" for sampler, evaluations in cells)
            + " | geometric mean |",
            "|---|" + "---:|" * (len(cells) + 1),
            "| *smallest error* | " + " | ".join(f"*{self.cell(*cell)[0].error:.2e}*" for cell in cells) + " | |",
        ]
        for peer in self.peers:
            entries = [_entry(self.row(peer, *cell), self.cell(*cell)[0].error) for cell in cells]
            lines.append(f"| {peer} | " + " | ".join(entries) + f" | {self.geometric_mean_ratio(peer):.3g} |")
        return "\n".join(lines)

    def columns(self) -> dict[str, list[Any]]:
        """By row: the schedule, its cell, its error with standard errors, and its rank."""
        return {name: [getattr(row, name) for row in self.rows] for name in _PLAIN}

    def __str__(self) -> str:
        head = [f"Comparison on {self.title}: {self.measure}" if self.title else f"Comparison: {self.measure}"]
        said = []
        if "plan" in self.peers:
            said = [f"plan: best or within one standard error of the best in {self.share_level():.0%} of its cells"]
        return "\n".join([*head, self.table(), *said, *(f"note: {note}" for note in self.notes)])


def _entry(row: ComparisonRow | None, best: float) -> str:
    """Error over the best, in bold where that is within one standard error; its standard error where there is one."""
    if row is None:
        return "–"
    ratio = row.error / best if best > 0 else float("inf")
    digits = ".3f" if ratio < 1.1 else (".2f" if ratio < 100 else (".0f" if ratio < 1e4 else ".0e"))
    text = f"{ratio:{digits}}"
    if row.excess_error > 0 and best > 0:
        text += f" ± {row.excess_error / best:.2g}"
    return f"**{text}**" if row.level else text


def rows_of_cell(
    sampler: str, evaluations: int, measured: Mapping[str, Mapping[str, Any]], grids: Mapping[str, tuple[Array, float]]
) -> list[ComparisonRow]:
    """The rows of a cell, by rank; errors that are not finite come last and share the last rank.

    Args:
        measured: by schedule: "errors" (N,) of the same draws for all (N = 1 where they are exact), and
            secondary measures as (value, standard error).
        grids: by schedule: the grid and the evaluations per image that it takes.
    """
    errors = {name: np.asarray(found["errors"], dtype=np.float64) for name, found in measured.items()}
    means = {name: float(values.mean()) for name, values in errors.items()}
    order = sorted(errors, key=lambda name: means[name] if np.isfinite(means[name]) else np.inf)
    finite = sum(map(np.isfinite, means.values()))
    best = errors[order[0]] if order else np.zeros(0)
    rows = []
    for rank, name in enumerate(order, start=1):
        own, (sigmas, used) = errors[name], grids[name]
        others = {key: (float(value[0]), float(value[1])) for key, value in measured[name].items() if key != "errors"}
        rows.append(
            ComparisonRow(
                sampler, evaluations, name, sigmas.size - 1, used, float(own.mean()), _standard_error(own),
                float(np.exp(np.log(np.maximum(own, 1e-300)).mean())), float(own.mean() - best.mean()),
                _standard_error(own - best), min(rank, finite + 1), sigmas, others,
            )
        )  # fmt: skip
    return rows


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0


def write_rows(file: Any, rows: Sequence[ComparisonRow]) -> None:
    """CSV of rows, six digits; `read_rows` reads it back."""
    others = list(dict.fromkeys(key for row in rows for key in row.others))
    plain = [*_PLAIN, *(["fitting"] if any(row.fitting for row in rows) else [])]
    columns = [*plain, *(part for key in others for part in (key, f"{key}_standard_error")), "sigmas"]
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        record: dict[str, Any] = {key: getattr(row, key) for key in plain}
        for key in others:
            record[key], record[f"{key}_standard_error"] = row.others.get(key, ("", ""))
        record["sigmas"] = " ".join(f"{sigma:.5g}" for sigma in row.sigmas)
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()})


def read_rows(file: Any) -> list[ComparisonRow]:
    """Rows that `write_rows` wrote.

    Raises:
        ValueError: a column is missing, or an entry is not a number; the message names it.
    """
    if isinstance(file, (str, bytes)) or not isinstance(file, Iterable):
        raise ValueError(f"Comparison.read: file is {shown(file)}; an open file is needed.")
    with told_in("Comparison.read: file"):
        lines = iter(file)
    try:
        reader = csv.DictReader(lines)
        columns = list(reader.fieldnames or ())
    except (csv.Error, TypeError):
        raise ValueError(f"Comparison.read: file is {shown(file)}; an open file of text is needed.") from None
    missing = [name for name in (*_PLAIN, "sigmas") if name not in columns]
    if missing:
        raise ValueError(f"the table of a comparison lacks the column {missing[0]!r}; it is not whole.")
    others = [name for name in columns if f"{name}_standard_error" in columns and name != "error"]
    rows = []
    for record in reader:
        values: dict[str, Any] = {"sampler": record["sampler"], "peer": record["peer"]}
        values |= {name: int(record[name]) for name in ("evaluations", "steps", "rank")}
        values |= {name: float(record[name]) for name in _PLAIN if name not in values}
        values["fitting"] = float(record.get("fitting") or 0.0)
        values["sigmas"] = np.array([float(word) for word in record["sigmas"].split()])
        values["others"] = {
            name: (float(record[name]), float(record[f"{name}_standard_error"])) for name in others if record[name]
        }
        rows.append(ComparisonRow(**values))
    return rows


def _name(value: Any, what: str) -> str:
    name: str = instance(value, str, f"Comparison: {what}", "Give the name of one.")
    return name
