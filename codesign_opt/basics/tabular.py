"""Results as tables: a pandas DataFrame where pandas is installed, and a card in a notebook."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Mapping
from html import escape
from typing import Any

from .frames import data_frame
from .wording import quantity

__all__ = ["Tabular"]

_ROWS, _COLUMNS = 12, 9  # of a card; the frame and the text have all
_CELL = "padding:.15em .8em .15em 0;text-align:right;border-bottom:1px solid rgba(128,128,128,.35)"


class Tabular:
    """A value with columns of equal length: `to_frame()`, and its card in a notebook.

    >>> class Squares(Tabular):
    ...     def columns(self): return {"n": [1, 2], "square": [1.0, 4.0]}
    ...     def __str__(self): return "Squares: two"
    >>> print(Squares()._repr_html_()) # doctest: +ELLIPSIS
    <div><p><b>Squares: two</b></p><table...<td style="...">4</td></tr></tbody></table>...
    """

    @abstractmethod
    def columns(self) -> Mapping[str, Any]:
        """Columns by name, all of one length."""

    def to_frame(self) -> Any:
        """The columns as a pandas DataFrame; ImportError with the pip command where pandas is missing."""
        return data_frame(self.columns())

    def heading(self) -> list[str]:
        """The first lines of a card; the first of the text unless a class knows better."""
        return str(self).splitlines()[:1]

    def _repr_html_(self) -> str:
        first, *others = self.heading() or [type(self).__name__]
        lines = "".join(f"<br>{escape(line)}" for line in others)
        text = f"<details><summary>as text</summary><pre>{escape(str(self))}</pre></details>"
        return f"<div><p><b>{escape(first)}</b>{lines}</p>{_table(self.columns())}{text}</div>"


def _table(columns: Mapping[str, Any]) -> str:
    """At most twelve rows, evenly taken, of at most nine columns."""
    names = list(columns)[:_COLUMNS]
    if not names or not len(columns[names[0]]):
        return ""
    count = len(columns[names[0]])
    rows = range(count) if count <= _ROWS else sorted({round(i * (count - 1) / (_ROWS - 1)) for i in range(_ROWS)})
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(_cell(columns[name][row]) for name in names)}</tr>" for row in rows)
    left = [f"{len(rows)} of {count:,} rows"] if count > len(rows) else []
    left += [f"{len(names)} of {len(columns)} columns"] if len(columns) > len(names) else []
    said = f"<p><small>{', '.join(left)}; to_frame() has all</small></p>" if left else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


def _cell(value: Any) -> str:
    text = quantity(float(value)) if isinstance(value, numbers.Real) else str(value)
    return f'<td style="{_CELL}">{escape(text)}</td>'
