"""Budget: a bound on Compute or Steps as numbers, its prices and its room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..modeling.algebra import Bound
from ..modeling.design import Design

__all__ = ["Budget"]


@dataclass(frozen=True, eq=False)
class Budget:
    """A linear budget: example . m + step . n <= limit - final.

    Attributes:
        example, step: (L,) prices of a new example and of a step.
        room: what the limit leaves beside the constant part of the price.
    """

    example: Array
    step: Array
    room: float

    @classmethod
    def read(cls, bound: Bound, design: Design) -> Budget | None:
        """The budget behind a bound on linear terms, such as `Compute(...) <= limit`; None for other bounds."""
        example, step, room = np.zeros(len(design)), np.zeros(len(design)), bound.limit
        for weight, leaf in bound.term.leaves():
            prices = leaf.linear_prices(design)
            if prices is None:
                return None
            example, step, room = example + weight * prices[0], step + weight * prices[1], room - weight * prices[2]
        return cls(example, step, room)
