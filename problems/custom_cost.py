"""A cost of one's own: guidance that doubles evaluations on an interval, and a price that grows with density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

import codesign_opt as co
from codesign_opt.basics.checks import Array, number
from codesign_opt.declared.problem import DeclaredProblem

TITLE = "Guidance on an interval, and a superlinear price of examples"
PROVENANCE = "Stated, no data: power-law spectrum of exponent 1.5 in 64 dimensions."
# found with 400 levels and 40 stopping points; 200 and 24 must agree
REFERENCE = {"error": 2.482482e-4, "rtol": 1e-3}


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

    def expression(self, design: co.Design) -> cp.Expression:
        crowding = cp.power(design.density / self.usual, self.power)
        return self.price * cp.sum(cp.multiply(design.log_width, crowding))


def guided(sigma: Array) -> Array:
    """Evaluations of the denoiser per step's evaluation: two where guidance is on, 0.3 < sigma < 5."""
    return np.where((sigma > 0.3) & (sigma < 5.0), 2.0, 1.0)


def build(
    *, price: float = 4e-6, power: float = 1.5, budget: float = 1e6, images: float = 10_000, **options: Any
) -> DeclaredProblem:
    """Plan everything with the price of an evaluation as a function of sigma and a term of one's own."""
    model = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), process=co.EDM(0.002, 80.0), sampler=co.Heun())
    congestion = Congestion(
        number(price, "custom_cost.price", nonnegative=True),
        usual=25_000.0,
        power=number(power, "custom_cost.power", positive=True),
    )
    prices = co.Prices(example=3.0, evaluation=guided, images=images)
    return DeclaredProblem(
        "custom_cost", TITLE, PROVENANCE, model=model, prices=prices, budget=budget,
        options={"terms": (congestion,), **options},
    )  # fmt: skip
