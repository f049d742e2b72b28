"""WhatIf: the answers to many settings of one plan, as arrays and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..basics.checks import Array, integer
from ..basics.tabular import Tabular
from ..basics.wording import aligned, percent, quantity

__all__ = ["WhatIf"]

_SHOWN = 24  # settings in the text


@dataclass(frozen=True, eq=False)
class WhatIf(Tabular):
    """Certified optima of a plan's program under other settings, each at its own stopping point.

    Attributes:
        budgets, steps, images: (B,), (S,) and (I,) settings; steps inf for no limit, nan where a side is not planned.
        error: (B, S, I) the program's least error, to leading order; nan where a setting has no plan.
        lower_bound: (B, S, I) the proof of it at that stopping point.
        stopping_sigma: (B, S, I) where it stops.
        number_of_steps: (B, S, I) sampler steps, fractions as the program has them, the last to zero included.
        examples: (B, S, I) training examples.
        training_share: (B, S, I) part of the budget that goes into training.
        base: the same numbers of the plan's own setting, by name.
        setting: that setting.
        whole_steps: exact error of the plan's whole steps over its program's error: what to expect of the others.
        price_unit: what budgets count.
    """

    budgets: Array
    steps: Array
    images: Array
    error: Array
    lower_bound: Array
    stopping_sigma: Array
    number_of_steps: Array
    examples: Array
    training_share: Array
    base: Mapping[str, float]
    setting: Mapping[str, float]
    whole_steps: float | None = None
    price_unit: str = ""

    @property
    def ratio(self) -> Array:
        """(B, S, I) error over that of the plan's own setting, by the same program."""
        return np.asarray(self.error / self.base["error"])

    def records(self) -> list[dict[str, float]]:
        """One mapping per setting, budgets slowest: the setting, and what is found for it."""
        names = ("error", "lower_bound", "stopping_sigma", "number_of_steps", "examples", "training_share")
        columns = {name: getattr(self, name).ravel().tolist() for name in names} | {
            "ratio": self.ratio.ravel().tolist()
        }
        asked = product(self.budgets.tolist(), self.steps.tolist(), self.images.tolist())
        return [
            {"budget": b, "most_steps": s, "images": i, **{name: values[row] for name, values in columns.items()}}
            for row, (b, s, i) in enumerate(asked)
        ]

    def columns(self) -> dict[str, list[float]]:
        """`records` as columns."""
        found = self.records()
        return {name: [record[name] for record in found] for name in found[0]}

    def table(self, rows: int = _SHOWN) -> str:
        """The first so many settings as aligned text."""
        rows = integer(rows, "WhatIf.table: rows", minimum=0)
        title, cells = self.cells()
        lines = aligned(title, cells[:rows], left=())
        rest = len(cells) - rows
        return "\n".join(lines + ([f"  … and {rest:,} more in records()"] if rest > 0 else []))

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Column titles and the texts of all settings; columns that do not vary and say nothing are left out."""
        rows = []
        for record in self.records():
            most = record["most_steps"]
            rows.append({
                "budget": _known(record["budget"]), "most steps": "any" if np.isinf(most) else _known(most),
                "images": _known(record["images"]), "error": _known(record["error"]) or "no plan",
                "over the plan's": _known(record["ratio"], 3), "training": _share(record["training_share"]),
                "examples": _known(record["examples"]), "steps": _known(record["number_of_steps"], 3),
                "stop sigma": _known(record["stopping_sigma"], 3),
            })  # fmt: skip
        trained = bool(np.isfinite(self.budgets).any())
        hidden = () if trained else ("budget", "images", "training", "examples")
        names = [name for name in rows[0] if name not in hidden]
        return names, [[row[name] for name in names] for row in rows]

    def __str__(self) -> str:
        lines = [f"What if: {self.error.size:,} settings, the program's least error (leading order) for each"]
        lines.append(self.table())
        if self.whole_steps is not None:
            lines.append(f"the plan's whole steps leave {quantity(self.whole_steps, 3)} times its program's error")
        return "\n".join(lines)


def _known(value: float, digits: int = 4) -> str:
    return "" if np.isnan(value) else quantity(value, digits)


def _share(value: float) -> str:
    return "" if np.isnan(value) else percent(value)
