"""Budget: a bound on Compute or Steps as numbers, its prices and its room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..modeling.algebra import Bound
from ..modeling.design import Design
from ..modeling.terms import Compute, Steps

__all__ = ["Budget"]


@dataclass(frozen=True, eq=False)
class Budget:
    """A linear budget read off a bound on Compute or Steps: example . m + step . n <= limit - final."""

    example: Array
    step: Array
    room: float

    @classmethod
    def read(cls, bound: Bound, design: Design) -> Budget | None:
        """The budget behind `Compute(...) <= limit` or `Steps() <= limit`; None for other bounds."""
        leaves = list(bound.term.leaves())
        if len(leaves) != 1:
            return None
        weight, leaf = leaves[0]
        size = len(design)
        if isinstance(leaf, Compute):
            example, step, final = leaf.table(design)
        elif isinstance(leaf, Steps):
            example, step, final = np.zeros(size), np.ones(size), float(design.final_steps)
        else:
            return None
        return cls(weight * example, weight * step, bound.limit - weight * final)
