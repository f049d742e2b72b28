"""DenoiserCheck: what a denoiser leaves of the data at several noise levels, beside what it may leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...basics.checks import Array, choice, integer, numbers, vector
from ...basics.fields import holds
from ...basics.wording import aligned, quantity
from .denoiser import DenoiserError

__all__ = ["DenoiserCheck"]

_SAID = {
    "right": "It leaves no more than a linear denoiser of these data.",
    "unclear": "It leaves more than a linear denoiser: trained too little, guided, answering with samples, given "
    "another condition than the data's, or read wrongly in a way that was not tried.",
    "wrong": "It is no denoiser of these data as it was read",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class DenoiserCheck:
    """Errors of a denoiser against those of the identity, of the mean alone and of the Wiener filter.

    docs/theory.md section 1.5. All errors are E|D(x0 + sigma z) - x0|^2 summed over a state, squared data units.

    Attributes:
        denoiser: its name.
        sigma: (M,) noise levels.
        seen: (M,) its errors, with `standard_error`.
        identity, wiener: (M,) errors of D = x and of the best linear denoiser; `mean`: of the mean alone.
        verdict: "right", "unclear" (it may be planned with, with this note) or "wrong".
        cause: the mistake that explains what is seen; empty where none does.
        explained: (M,) errors where that is put right; NaN without a cause.
        evaluations: batch evaluations that the check took.
        note: what its adapter found out: levels that its scheduler tells it alike, for one.

    >>> print(DenoiserCheck("net", [1.0], [1.9], [0.1], [2.0], [1.0], 2.0, "unclear"))  # doctest: +ELLIPSIS
    denoiser 'net', E|D(x0 + sigma z) - x0|^2:
      sigma  seen  +-   identity  mean alone  Wiener
          1  1.9   0.1         2           2       1
    It leaves more than a linear denoiser: ...
    """

    denoiser: str
    sigma: Array
    seen: Array
    standard_error: Array
    identity: Array
    wiener: Array
    mean: float
    verdict: str
    cause: str = ""
    explained: Array = None  # type: ignore[assignment]
    evaluations: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        put, levels = object.__setattr__, vector(self.sigma, "DenoiserCheck.sigma").size
        holds(self, denoiser=str, mean=float, cause=str, note=str)
        if self.explained is None:
            put(self, "explained", np.full(levels, np.nan))
        for name in ("sigma", "seen", "standard_error", "identity", "wiener"):
            put(self, name, vector(getattr(self, name), f"DenoiserCheck.{name}", length=levels, nonnegative=True))
        put(self, "explained", numbers(self.explained, "DenoiserCheck.explained"))
        if self.explained.shape != (levels,):
            raise ValueError(f"DenoiserCheck.explained has shape {self.explained.shape}; {levels} numbers are needed.")
        choice(self.verdict, "DenoiserCheck.verdict", _SAID)
        put(self, "evaluations", integer(self.evaluations, "DenoiserCheck.evaluations", minimum=0))

    @property
    def passed(self) -> bool:
        """Whether a plan may be made with it."""
        return self.verdict != "wrong"

    @property
    def line(self) -> str:
        """The verdict in one line."""
        ratio = self.seen / np.maximum(self.wiener, 1e-300)
        worst = int(np.argmax(ratio))
        return (
            f"{self.verdict}: E|D - x0|^2 is at most {quantity(float(ratio[worst]), 3)} times a linear denoiser's, at "
            f"sigma = {self.sigma[worst]:.3g} ({self.sigma.size} levels, {self.evaluations} batch evaluations)"
        )

    @property
    def lines(self) -> list[str]:
        """The verdict, and the table of levels."""
        return [f"denoiser check, {self.line}", *self._table]

    def check(self) -> None:
        """Refuses a wrong denoiser.

        Raises:
            DenoiserError: with the table, and the cause where one was found.
        """
        if not self.passed:
            raise DenoiserError(f"{self}\nPut it right, or pass check=False to plan with it as it is.")

    @property
    def _table(self) -> list[str]:
        title = ["  sigma", "seen", "+-", "identity", "mean alone", "Wiener"]
        columns = [self.sigma, self.seen, self.standard_error, self.identity, self.mean + 0 * self.sigma, self.wiener]
        if self.cause:
            title, columns = [*title, "put right"], [*columns, self.explained]
        rows = [[quantity(float(value), 3) for value in row] for row in zip(*columns, strict=True)]
        return aligned([title[0].strip().rjust(7), *title[1:]], rows, left=(1, 2))

    def __str__(self) -> str:
        said = _SAID[self.verdict]
        if not self.passed:
            said += f": {self.cause} explains it." if self.cause else "; no usual mistake explains it" + _OTHERS
        notes = [f"note: {self.note}"] if self.note else []
        return "\n".join([f"denoiser {self.denoiser!r}, E|D(x0 + sigma z) - x0|^2:", *self._table, said, *notes])

    def __repr__(self) -> str:
        return f"DenoiserCheck({self.denoiser}, {self.line})"

    def record(self) -> dict[str, Any]:
        """Plain arrays, as a Ledger keeps them."""
        return {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DenoiserCheck:
        """What `record` wrote."""
        words = {name: str(record.get(name, "")) for name in ("denoiser", "verdict", "cause", "note")}
        numbers = {"mean": float(record["mean"]), "evaluations": int(record["evaluations"])}
        return cls(**{**record, **words, **numbers})


_OTHERS = (
    ". Look at the time that it is told, the prediction, the scale and range of the data, and whether the data are of "
    "its condition."
)  # fmt: skip
