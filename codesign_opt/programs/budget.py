"""Budget: a bound on Compute or Steps as numbers, its prices and its room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..basics.exact_sums import sum_of_products
from ..modeling.algebra import Bound
from ..modeling.design import Design

__all__ = ["Budget"]

_MOST = 1e100  # of a limit: squares of what it buys have to be numbers


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
        example, step, finals = np.zeros(len(design)), np.zeros(len(design)), list[float]()
        for weight, leaf in bound.term.leaves():
            prices = leaf.linear_prices(design)
            if prices is None:
                return None
            example, step = example + weight * prices[0], step + weight * prices[1]
            finals.append(weight * prices[2])
        if abs(bound.limit) > _MOST or 0 < abs(bound.limit) < 1 / _MOST:
            raise ValueError(
                f"the limit of '{bound.name}' is {bound.limit:g}; its size must lie between {1 / _MOST:g} and "
                f"{_MOST:g}: state prices and limit in another unit."
            )
        return cls(example, step, sum_of_products(bound.limit, (-np.ones(len(finals)), np.array(finals))))

    def left(self, new_examples: Array | None = None, steps: Array | None = None) -> float:
        """What the limit leaves beside so many new examples and steps (L,), rounded once; negative where exceeded."""
        pairs = [(-self.example, new_examples), (-self.step, steps)]
        return sum_of_products(self.room, *((price, amount) for price, amount in pairs if amount is not None))
