"""What a given grid and given examples lead to, by cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..modeling import ScoreError
from ..modeling.design import Point
from ..models.coefficients import Coefficients

__all__ = ["predict"]


def predict(
    model: Any, sigmas: Array, examples: Array | None, levels: int = 200, *, table: Coefficients | None = None
) -> dict[str, float]:
    """Error by cause of any grid and any allocation of examples: exact bias, discrete score kernel.

    Args:
        model: GaussianModel.
        sigmas: (K+1,) grid.
        examples: (L,) examples on the levels of `model.settled_coefficients(sigmas, levels)`; None for
            a trained model whose reducible error is not asked for.
        table: those coefficients, where they are known already.
    """
    if table is None:
        table = model.settled_coefficients(sigmas, levels)
    if examples is None:
        table = replace(table, score=np.zeros(len(table.levels)), final_score=0.0)
    size = len(table.levels)
    point = Point(np.ones(size) if examples is None else examples, np.zeros(size), np.ones(size))
    term = ScoreError(table)
    reducible, floor = term.levels_value(point)
    last, last_floor = term.final_value(point)
    parts = {
        "bias": table.truncation,
        "score": float(reducible.sum()),
        "floor": float(floor.sum()),
        "last evaluation": last + last_floor,
    }
    window = table.final_window
    near = float(window @ (reducible + floor))
    return {**parts, "total": sum(parts.values()), "cross term at most": 2 * float(np.sqrt(near * (last + last_floor)))}
