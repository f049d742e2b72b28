"""Multipliers of floors of the steps beside measured signs, which a declared program splits in two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.checks import Array
from ..modeling.gram import GramDiscretization
from .compiled import Solved
from .proof import lagrangian
from .rows import jacobians

__all__ = ["with_floor_prices"]

_TIGHT = 1e-6  # of a row's size: a conic solver's answer lies so near to a bound that holds it


def with_floor_prices(solved: Solved) -> Solved:
    """The same with floors of steps priced by the derivative of the Lagrangian, where a signed Gram matrix is declared.

    There a floor also bounds u = n^(-q) from above, by a constraint of the term's own that keeps part of the price
    (docs/theory.md section 7.4, forms).
    """
    compiled, point = solved.compiled, solved.point
    signed = any(isinstance(leaf.term, GramDiscretization) and not leaf.term.majorised for leaf in compiled.leaves)
    if not signed or compiled.design.fixed_steps or not np.any(compiled.box.steps_low > 0):
        return solved
    with np.errstate(all="ignore"):
        slope = lagrangian(compiled, solved.multipliers, point).steps_slope(point.steps)
    held = np.isclose(point.steps, compiled.box.steps_low, rtol=_TIGHT, atol=0.0) & np.isfinite(slope)
    pull = np.where(held, np.maximum(slope, 0.0), 0.0)
    floors: list[Array | None] = []
    holding = np.zeros(len(pull))
    for row in compiled.rows:
        rise = None
        if row.box and row.levels is not None:
            by_examples, by_steps = jacobians(row.stated, compiled.design)
            falls = -np.asarray(by_steps.sum(axis=0)).ravel()
            gap = np.abs(np.ravel(np.asarray(row.stated.value)))
            tight = (falls > 0) & (gap <= 10 * _TIGHT * row.size) & held[row.levels]
            if abs(by_examples).sum() == 0 and tight.any():
                rise = np.where(tight, pull[row.levels] / np.where(falls > 0, falls, 1.0), 0.0)
                np.add.at(holding, row.levels[tight], 1.0)
        floors.append(rise)
    multipliers = [
        old if rise is None or row.levels is None else rise / np.maximum(holding[row.levels], 1.0)
        for row, old, rise in zip(compiled.rows, solved.multipliers, floors, strict=True)
    ]
    return replace(solved, multipliers=multipliers)
