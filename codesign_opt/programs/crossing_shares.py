"""Shares of everything that add up to less than everything: nothing at all meets them, and nobody asks for that.

docs/theory.md section 8.4. sum_l x_l <= sum_k (inside_k . x) <= sum_k s_k sum_l x_l where the ranges cover all levels.
"""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..basics.errors import InfeasibleError
from ..basics.wording import quantity as shown
from ..modeling.shapes import Share
from .declaration import Declaration
from .needs import needs_of

__all__ = ["refuse_crossing_shares"]

_ROUNDING = 1e-9  # of the whole


def refuse_crossing_shares(program: Declaration) -> None:
    """Raise InfeasibleError where shares over all levels add up to less than one, of what is decided from nothing.

    Where the error needs some, the rows are proved to leave none there; this is for errors finite without any. With
    spent examples there is something to have a share of, and the rows speak for themselves.
    """
    decided = {
        "examples": program.decides_examples and not np.any(program.spent > 0),
        "steps": program.decides_steps and not program.samplings,
    }
    design = program.design(program.neutral)
    for quantity in (name for name, free in decided.items() if free):
        shares = {
            item.name: (item.what.inside(design), float(item.what.at_most))
            for item in program.constraints
            if isinstance(item.what, Share) and item.what.quantity == quantity
        }
        for name in sorted(shares, key=lambda key: -shares[key][1]):  # as few as cover all levels
            others = {key: share for key, share in shares.items() if key != name}
            shares = others if _covers(others) else shares
        total = sum(at_most for _, at_most in shares.values())
        if _covers(shares) and total < 1 - _ROUNDING and not needs_of(program).of(quantity).any():
            raise _crossing({name: at_most for name, (_, at_most) in shares.items()}, quantity, total)


def _covers(shares: dict[str, tuple[Array, float]]) -> bool:
    """Whether every level lies in the ranges, whole."""
    inside = [part for part, _ in shares.values()]
    return bool(inside) and bool(np.all(np.sum(inside, axis=0) >= 1 - _ROUNDING))


def _crossing(shares: dict[str, float], quantity: str, total: float) -> InfeasibleError:
    missing = 1.0 - total
    conflicts = [
        {"name": name, "limit": at_most, "relaxed": at_most + missing, "amount": missing, "amounts": (missing,),
         "together": None} for name, at_most in shares.items()
    ]  # fmt: skip
    said = " and ".join(f"'{name}' (limit {shown(at_most)})" for name, at_most in shares.items())
    advice = " or ".join(
        f"raise at_most of '{name}' to {shown(at_most + missing)} share of all {quantity} (by {shown(missing)})"
        for name, at_most in shares.items()
    )
    return InfeasibleError(
        f"Infeasible: {said} leave no {quantity} at all: together they admit {shown(total)} of the whole; {advice}.",
        conflicts,
    )
