"""A cost of one's own: guidance that doubles evaluations on an interval, and a price that grows with density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

import codesign_opt as co

Array = NDArray[np.float64]

TITLE = "Guidance on an interval, and a superlinear price of examples"
PROVENANCE = "Stated, no data: power-law spectrum of exponent 1.5 in 64 dimensions."
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {"error": 2.467192e-4, "rtol": 1e-3}


@dataclass(frozen=True, eq=False)
class Congestion(co.Term):
    """Superlinear price of many examples at one noise level: integral of price (density / usual)^power over log sigma.

    Args:
        price: error per unit log sigma where the density is the usual one, >= 0.
        usual: a usual density, examples per unit log sigma, > 0.
        power: >= 1, so that the term is convex.
    """

    price: float
    usual: float
    power: float = 1.5

    def __post_init__(self) -> None:
        if not 0 <= self.price < math.inf:
            raise ValueError(f"custom_cost.price is {self.price:g}; it must be finite and >= 0.")
        if not 1 <= self.power < math.inf:
            raise ValueError(f"custom_cost.power is {self.power:g}; it must be finite and >= 1.")

    def expression(self, design: co.Design) -> cp.Expression:
        crowding = cp.power(design.density / self.usual, self.power)
        return self.price * cp.sum(cp.multiply(design.log_width, crowding))


def guided(sigma: Array) -> Array:
    """Evaluations of the denoiser per step's evaluation: two where guidance is on, 0.3 < sigma < 5."""
    return np.where((sigma > 0.3) & (sigma < 5.0), 2.0, 1.0)


def build(
    *, price: float = 4e-6, power: float = 1.5, budget: float = 1e6, images: float = 10_000, **options: Any
) -> co.problems.DeclaredProblem:
    """Plan everything with the price of an evaluation as a function of sigma and a term of one's own."""
    model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun())
    congestion = Congestion(price, usual=25_000.0, power=power)
    prices = co.Prices(example=3.0, evaluation=guided, images=images)
    return co.problems.DeclaredProblem(
        "custom_cost", TITLE, PROVENANCE, model=model, prices=prices, budget=budget,
        options={"terms": (congestion,), **options},
    )  # fmt: skip
