"""What a given grid and given examples lead to, by cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.causes import BIAS, CROSS_TERM, FLOOR, LAST_EVALUATION, SCORE, TOTAL
from ..basics.checks import Array
from ..ingredients.levels import Levels
from ..models.base import Model
from ..models.coefficients import Coefficients
from .design import Point
from .terms import ScoreError

__all__ = ["predict"]


def predict(
    model: Model,
    sigmas: Array,
    examples: Array | None,
    levels: int | Levels = 200,
    *,
    table: Coefficients | None = None,
) -> dict[str, float]:
    """Error by cause of any grid and any allocation of examples: exact bias, discrete score kernel.

    Args:
        model: any.
        sigmas: (K+1,) grid.
        examples: (L,) examples on the levels of `model.settled(sigmas, levels)`; None for
            a trained model whose reducible error is not asked for.
        levels: number over the whole range, or those of the examples (`plan.levels`).
        table: those coefficients, where they are known already.
    """
    if table is None:
        table = model.settled(sigmas, levels)
    table = model.ended(table)
    if examples is None:
        table = replace(table, score=np.zeros(len(table.levels)), final_score=0.0)
    size = len(table.levels)
    point = Point(np.ones(size) if examples is None else examples, np.zeros(size), np.ones(size))
    term = ScoreError(table)
    reducible, floor = term.levels_value(point)
    last, last_floor = term.final_value(point)
    parts = {
        BIAS: table.truncation,
        SCORE: float(reducible.sum()),
        FLOOR: float(floor.sum()),
        LAST_EVALUATION: last + last_floor,
    }
    window = table.final_window
    near = float(window @ (reducible + floor))
    return {**parts, TOTAL: sum(parts.values()), CROSS_TERM: 2 * float(np.sqrt(near * (last + last_floor)))}
