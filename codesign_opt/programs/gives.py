"""What constraints give: the amounts that admit a point, in the units that their authors wrote."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..modeling.constraints import Constraint, Number
from ..modeling.design import Design, Point
from ..modeling.own_variables import OwnProgram, own_variables
from .declaration import Declaration
from .rows import Row, row_size
from .scaling import rows_of

__all__ = ["EXACT", "Give", "Relaxation", "read_gives", "sizes_of"]

EXACT = 1e-8  # relative violation where amounts of a ten-thousandth of their limits are right to far below a per cent


@dataclass(frozen=True)
class Give:
    """How far one constraint gives way.

    Attributes:
        name: of the constraint.
        amounts: of its one number, or of the right-hand side of each of its rows, >= 0, in the user's units.
        sizes: what each amount is held against.
        limits: what each amount moves; None where it is no single number.
        directions: +1 where the limit is raised, -1 where it is lowered, 0 for both (an equality).
        number: the number, where the constraint is written with one.
    """

    name: str
    amounts: tuple[float, ...]
    sizes: tuple[float, ...]
    limits: tuple[float | None, ...]
    directions: tuple[float, ...]
    number: Number | None = None

    @property
    def relative(self) -> float:
        """The largest amount over its size."""
        return self.against(self)

    def against(self, other: Give) -> float:
        """The largest amount over its size in another: sizes of rows move with the point they are read at."""
        return max((a / s for a, s in zip(self.amounts, other.sizes, strict=True)), default=0.0)


@dataclass(frozen=True)
class Relaxation:
    """The least that the soft constraints have to give, and a point that is admitted then.

    `broken` is the largest relative violation at it of a row that does not give: what a solver leaves there it saves in
    the amounts.
    """

    gives: dict[str, Give]
    point: Point
    broken: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether what does not give holds to so many digits that the amounts are right."""
        return self.broken <= EXACT

    def against(self, other: Relaxation) -> float:
        """The largest amount over its size in another."""
        return max((give.against(other.gives[name]) for name, give in self.gives.items()), default=0.0)


def sizes_of(program: Declaration, design: Design, soft: Collection[str]) -> dict[str, float]:
    """What the number of each constraint that has one is held against: itself, or the size of what it bounds."""
    found = {}
    for item in program.constraints:
        number = item.what.written_number if isinstance(item.what, Constraint) else None
        if item.name in soft and isinstance(item.what, Constraint) and number is not None:
            found[item.name] = abs(number.value) if number.value else _natural_size(item.what, design)
    return found


def _natural_size(what: Constraint, design: Design) -> float:
    """The largest size of a row at the reference over its slope in the number."""
    amount = cp.Variable()
    amount.value = 0.0
    design.set_to_reference()
    size = 0.0
    for constraint in what.relaxed(design, amount) or []:
        flat = cp.reshape(constraint.args[0] - constraint.args[1], (constraint.size,), order="C")
        if amount in flat.grad:
            slope = np.abs(np.ravel(_dense(flat.grad[amount])))
            size = max(size, float(np.max(row_size(flat, 0.0) / np.maximum(slope, 1e-300))))
    return size if np.isfinite(size) and size > 0 else 1.0


def _dense(gradient: Any) -> Array:
    return np.asarray(gradient.toarray() if hasattr(gradient, "toarray") else gradient, dtype=np.float64)


def read_gives(
    program: Declaration, point: Point, broken: float, soft: Collection[str], sizes: dict[str, float]
) -> Relaxation:
    """What every soft constraint must give for `point` to be admitted."""
    design = program.design(program.recentred(point))
    gives = {}
    for item in program.constraints:
        if item.name not in soft:
            continue
        what = item.what
        number = what.written_number if isinstance(what, Constraint) else None
        if isinstance(what, Constraint) and number is not None:
            amount, size = what.shortfall(design, point), sizes[item.name]
            gives[item.name] = Give(item.name, (amount,), (size,), (number.value,), (number.relaxing,), number)
            continue
        rows = rows_of(item, design, program.budgets.get(item.name))
        design.set(point)
        _settle(rows, design)
        gives[item.name] = Give(
            item.name,
            tuple(float(row.excess(point).max()) for row in rows),
            tuple(float(row.size.max()) for row in rows),
            tuple(row.limit for row in rows),
            tuple(_direction(row) for row in rows),
        )
    return Relaxation(gives, point, broken)


def _settle(rows: list[Row], design: Design) -> None:
    """Give variables of the rows' own, if there are any, the values that ask for the least sum of relative amounts."""
    stated = [row.stated for row in rows]
    if not own_variables(stated, design):
        return
    slacks = [cp.Variable(nonneg=True) for _ in rows]
    sides = [sign * r.stated <= float(r.size.max()) * s for r, s in zip(rows, slacks, strict=True)
             for sign in ((1, -1) if r.equality else (1,))]  # fmt: skip
    own = [constraint for row in rows for constraint in row.auxiliary]
    OwnProgram.of(design, cp.sum(cp.hstack(slacks)), [*sides, *own], []).settle()


def _direction(row: Row) -> float:
    """The side to which the row's limit moves; for an equality that on which the point lies."""
    if not row.equality:
        return -row.price_sign
    value = np.ravel(np.asarray(row.stated.value, dtype=np.float64))
    return float(-row.price_sign * np.sign(value[int(np.argmax(np.abs(value)))]) or 1.0)
