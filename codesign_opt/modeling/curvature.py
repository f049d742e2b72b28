"""Which part of an expression is not convex, in a few words: what an error shows of it."""

from __future__ import annotations

import re
from typing import Any

import cvxpy as cp

__all__ = ["blamed", "clipped"]

_SHOWN = 60  # characters of a part


def blamed(expression: cp.Expression) -> str:
    """The smallest part of an expression that keeps it from being convex, and what cvxpy finds it to be.

    >>> x = cp.Variable(3, name="x")
    >>> blamed(cp.sum_squares(x) + cp.sum(cp.sqrt(x)))
    'its part PowerApprox(x, 0.5) is concave'
    """
    part = _part(expression)
    found = "of no known curvature" if part.curvature == "UNKNOWN" else part.curvature.lower()
    return f"its part {clipped(str(part))} is {found}"


def clipped(text: str, most: int = _SHOWN) -> str:
    """A text in one line of at most so many characters, without the numbers of its arrays."""
    line = " ".join(re.sub(r"\[[^\[\]]{12,}\]", "[…]", text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _part(expression: Any) -> Any:
    broken = next((inner for inner in expression.args if not inner.is_dcp()), None)
    if broken is not None:
        return _part(broken)
    if isinstance(expression, cp.atoms.affine.affine_atom.AffAtom):  # curved by what is in it, not by itself
        curved = [inner for inner in expression.args if inner.variables() and not inner.is_affine()]
        guilty = next((inner for inner in curved if not inner.is_convex()), curved[0] if len(curved) == 1 else None)
        return expression if guilty is None else _part(guilty)
    return expression
