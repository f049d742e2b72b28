"""The levels of P1 as checked arrays: errors, prices, floors, caps and what is already spent.

Shared by the exact water-filling and by the rounding to whole examples (docs/theory.md section 7, P1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...basics.checks import Array, ndim, number, vector
from ...basics.errors import InfeasibleError

__all__ = ["ROUNDING", "Fill", "check_room", "error_of", "prepare"]

ROUNDING = 1e-12  # floors that cost this much more than the budget, relatively, cost the budget


@dataclass(frozen=True, eq=False)
class Fill:
    """u = clip(t rate, low, high), rate = sqrt(s/c) relative to its largest value `unit`.

    All arrays are (L,); `low` is the greater of the floor and the examples spent.
    """

    errors: Array
    prices: Array
    spent: Array
    low: Array
    high: Array
    rate: Array
    unit: float

    @property
    def slope(self) -> Array:
        """(L,) price per unit of t of a level between its bounds: sqrt(s c), relative to `unit`."""
        return self.rate * self.prices

    def breakpoints(self) -> tuple[Array, Array]:
        """(L,) values of t at which a level leaves its floor and meets its cap; infinite without error."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            leaves, meets = self.low / self.rate, self.high / self.rate
        if self.rate.min() == 0:
            leaves[self.rate == 0] = meets[self.rate == 0] = np.inf
        return leaves, meets

    def total(self, t: Array) -> Array:
        """(R, L) examples e + m at each of R values of t; the caps of all levels with an error at infinity."""
        endless = np.isinf(t)  # every cap binds; on a level without error t rate would be inf * 0
        with np.errstate(over="ignore"):
            level = np.where(endless, 0.0, t)[:, None] * self.rate
        np.clip(level, self.low, self.high, out=level)
        if endless.any():
            level[endless] = np.where(self.rate > 0, self.high, self.low)
        return level

    def price(self, new: Array) -> Array:
        """(...) price of (..., L) new examples: a sum of nonnegative terms, so that nothing cancels."""
        return np.asarray((new * self.prices).sum(axis=-1))


def prepare(errors: Any, prices: Any, low: Any, high: Any, spent: Any, *, name: str = "waterfill") -> Fill:
    """Check the data of P1, spread numbers over the levels; messages say `name`.field."""
    s = vector(errors, f"{name}.errors", nonnegative=True)

    def per_level(value: Any, field: str, **rules: Any) -> Array:
        if ndim(value) > 0:
            return vector(value, f"{name}.{field}", length=s.size, **rules)
        if rules.pop("infinite", False) and isinstance(value, (int, float, np.number)) and value == np.inf:
            return np.full(s.size, np.inf)
        return np.full(s.size, number(value, f"{name}.{field}", **rules))

    c = per_level(prices, "prices", positive=True)
    e = per_level(0.0 if spent is None else spent, "spent", nonnegative=True)
    floor = per_level(0.0 if low is None else low, "low", nonnegative=True)
    cap = per_level(np.inf if high is None else high, "high", nonnegative=True, infinite=True)
    _check_bounds(s, e, floor, cap, name)
    # the root of each, not of the quotient, which over- or underflows first; relative to the largest, so that t is of
    # the size of the examples whatever the unit of the errors
    rate = np.sqrt(s)
    rate /= np.sqrt(c)
    unit = float(rate.max()) or 1.0
    rate /= unit
    return Fill(s, c, e, np.maximum(floor, e), cap, rate, unit)


def _check_bounds(errors: Array, spent: Array, low: Array, high: Array, name: str) -> None:
    for what, lower in (("low", low), ("spent", spent)):
        bad = lower > high
        if bad.any():
            i = int(np.argmax(bad))
            said = f"{name}.{what} is {lower[i]:g} at index {i}, above high = {high[i]:g}"
            if what == "low":
                raise ValueError(f"{said}.")
            raise InfeasibleError(f"Infeasible: {said}; raise the cap.")
    barred = (high == 0) & (errors > 0)
    if barred.any():
        i = int(np.argmax(barred))
        raise InfeasibleError(f"Infeasible: {name}.high is 0 at index {i}, where the error needs examples.")


def check_room(fill: Fill, budgets: Array, floors: float) -> None:
    """Refuse budgets that the floors, which cost `floors`, exceed or leave too little of."""
    # a budget a rounding below its floors is what a user gets who adds the floors up: it is not refused
    room = budgets - floors
    short = room < -ROUNDING * budgets
    if short.any():
        budget = float(budgets[np.argmax(short)])
        record = {"name": "low", "limit": floors, "relaxed": budget, "amount": floors - budget}
        raise InfeasibleError(
            f"Infeasible: the floors cost {floors:.6g} but the budget is {budget:.6g}; raise the budget by "
            f"{floors - budget:.6g} or lower the floors.",
            [record],
        )
    if not np.any(room <= 0):
        return
    needy = (fill.low == 0) & (fill.errors > 0)
    if needy.any():
        raise InfeasibleError(
            f"Infeasible: the budget of {float(budgets[np.argmin(room)]):.6g} leaves nothing above the "
            f"floors (they cost {floors:.6g}), but the error at index {int(np.argmax(needy))} needs "
            "examples; raise the budget."
        )


def error_of(fill: Fill, total: Array) -> Array:
    """(...) sum_l s_l / u_l over the levels with an error, at (..., L) totals u."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        each = fill.errors / total
    if fill.errors.min() == 0:  # 0 / 0 on a level that needs nothing and has nothing
        each[..., fill.errors == 0] = 0.0
    return np.asarray(each.sum(axis=-1))
