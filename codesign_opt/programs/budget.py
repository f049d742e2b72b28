"""Budget: a bound on Compute or Steps as numbers, its prices and its room."""

from __future__ import annotations

from dataclasses import dataclass

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
        """The budget behind a bound on one linear term, such as `Compute(...) <= limit`; None for other bounds."""
        leaves = list(bound.term.leaves())
        prices = leaves[0][1].linear_prices(design) if len(leaves) == 1 else None
        if prices is None:
            return None
        weight, (example, step, final) = leaves[0][0], prices
        return cls(weight * example, weight * step, bound.limit - weight * final)
