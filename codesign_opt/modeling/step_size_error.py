"""The error of step sizes as the paper states it: integral of a gamma + d gamma^q (docs/theory.md section 7.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, ndim, number, takes, vector
from ..basics.user_code import answer
from ..certificate.lagrangian import LagrangianBound
from ..ingredients.levels import Levels
from ..models.coefficients import Coefficients
from .algebra import Term, check_table
from .design import Design, Point

__all__ = ["StepSizeError"]

_FAR = 1e60  # of amounts: their products with powers of noise levels are floats
_HIGHEST = 20.0  # order of a sampler: the levels' powers are floats

_Amount = float | Array | Callable[[Array], Array]


@dataclass(frozen=True, eq=False, repr=False)
class StepSizeError(Term):
    """Error that is a sum over sigma of powers of the step size: integral of (a gamma + d gamma^q) dsigma.

    The co-design paper's problem for gamma with its surrogate E_disc = integral of d gamma^q (its equation 19) and a
    training that is given, a = <K, A/m + tau B>. With the step density constant in log sigma on each level, gamma =
    sigma delta / n, and the term is sum_l delta^2 <a sigma^2> / n + delta^(q+1) <d sigma^(q+1)> / n^q: convex in the
    steps, separable, and certified exactly. Its price is `Compute` or `Steps`, its stability cap
    `Cap(gamma_max, "step_size")`.

    Args:
        score: a, error per sigma^2: a number, an array per level or a function of sigma, >= 0.
        local: d, error per sigma^(q+1); likewise.
        order: q > 0; 1, 2 and 4 are those of Euler, Heun and the classical Runge-Kutta method.
        table: coefficients whose levels and sampler it is about; None where other terms state them.

    Raises:
        ValueError: a negative amount, an array of another length than the levels, an order that is not positive.

    >>> import codesign_opt as co
    >>> table = co.Coefficients(co.Levels.log_uniform(0.01, 10.0, 40), np.zeros(40), np.zeros(40), np.zeros((0, 40)),
    ...                         terminal="rescale")
    >>> term = StepSizeError(score=0.0, local=lambda sigma: sigma**-3, order=2, table=table)
    >>> plan = co.Problem(term, [co.Steps() <= 20]).solve()  # gamma ~ sigma: equal steps in log sigma
    >>> plan.certificate.optimal, round(float(plan.error * 20**2 / np.log(1000) ** 3), 9)
    (True, 1.0)
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    couples: ClassVar[bool] = False
    nested: ClassVar[bool] = True
    score: _Amount
    local: _Amount
    order: float = 1.0
    table: Coefficients | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.table is not None:
            check_table(self.table, "StepSizeError")
        for name in ("score", "local"):
            put(self, name, _checked(getattr(self, name), f"StepSizeError.{name}"))
        put(self, "order", number(self.order, "StepSizeError.order", positive=True, maximum=_HIGHEST))

    @property
    def coefficients(self) -> Coefficients | None:
        return self.table

    @property
    def needs_examples(self) -> bool:
        return False

    @takes(levels=Levels)
    def weights(self, levels: Levels) -> list[tuple[float, Array]]:
        """(p, (L,) weight) of each power: the term is the sum of weight / steps^p."""
        return [
            (power, levels.log_width ** (power + 1) * _moments(amount, levels, power + 1, name))
            for power, amount, name in ((1.0, self.score, "score"), (self.order, self.local, "local"))
        ]

    def expression(self, design: Design) -> cp.Expression:
        total: cp.Expression = cp.Constant(0.0)
        for power, weight in self.weights(design.levels):
            on = np.flatnonzero(weight > 0)
            if on.size:
                steps = design.step_variable[on]
                falling = cp.inv_pos(steps) if power == 1 else cp.power(steps, -power)
                total = total + cp.sum(cp.multiply(weight[on] / design.reference.steps[on] ** power, falling))
        return total

    def value(self, design: Design, point: Point) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.where(w > 0, w / point.steps**p, 0.0) for p, w in self.weights(design.levels)]
        return float(np.sum(parts))

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point) if design.fixed_steps else 0.0

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        return False

    def add_solved(self, bound: LagrangianBound, weight: float, point: Point, design: Design, auxiliary: Any) -> bool:
        bound.powers += [(power, weight * each) for power, each in self.weights(design.levels)]
        return True

    def __repr__(self) -> str:
        return f"StepSizeError(order {self.order:g})"


def _checked(value: Any, name: str) -> _Amount:
    if callable(value):
        checked: _Amount = value
        return checked
    if ndim(value) == 0:
        return number(value, name, nonnegative=True, maximum=_FAR)
    found = vector(value, name, nonnegative=True)
    if found.max() > _FAR:
        raise ValueError(f"{name} is {found.max():g} at most; it must be <= {_FAR:g}.")
    return found


def _moments(amount: _Amount, levels: Levels, power: float, name: str) -> Array:
    """(L,) <amount sigma^power> over each level."""
    if callable(amount):
        with np.errstate(over="ignore"):  # refused as not finite
            values = levels.average(lambda sigma: answer(amount, sigma, f"StepSizeError.{name}") * sigma**power)
        return vector(values, f"StepSizeError.{name}(sigma)", length=len(levels), nonnegative=True)
    given = amount if ndim(amount) else np.full(len(levels), float(np.asarray(amount)))
    return vector(given, f"StepSizeError.{name}", length=len(levels)) * levels.average(lambda sigma: sigma**power)
