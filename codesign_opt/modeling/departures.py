"""How far a plan departs from what is there: L1 distance from present amounts, divergence from a density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, choice, number, scale_of, takes, vector
from ..certificate.lagrangian import LagrangianBound
from ..ingredients.densities import SigmaDensity, examples_of
from ..ingredients.levels import Levels
from .algebra import Term
from .composition import dual_of
from .design import Design, Point
from .parameters import amount

__all__ = ["KLDivergence", "Turnover"]

_QUANTITIES = ("examples", "new_examples", "steps")


@dataclass(frozen=True, eq=False)
class Turnover(Term):
    """price x L1 distance from present amounts: price x integral of |density - present| over log sigma.

    In examples: sum_l |m_l - p_l|, m_l the examples of a level and p_l those of today; every number of levels gives the
    same. With quantity="steps" the steps of a sampler in use. A bound `Turnover(...) <= limit` limits the change.

    Args:
        present: (L,) amounts on each level, or, with `total`, a density in any form that TrainingRun takes: a
            SigmaDensity, a function of sigma (per unit sigma, any scale), an array of any scale.
        price: error per example (or step) of difference, >= 0; a number or a cp.Parameter.
        total: amounts altogether; None: `present` is in amounts already.
        quantity: "examples" (spent ones included), "new_examples" or "steps".

    Raises:
        ValueError: a density without `total`, a negative amount, a wrong length (in a problem).

    >>> import numpy as np
    >>> from codesign_opt import Coefficients, Levels, LogNormal, Prices
    >>> from codesign_opt.modeling import Compute, ScoreError
    >>> from codesign_opt.programs.problem import Problem
    >>> table = Coefficients(Levels.log_uniform(0.01, 10.0, 2), [1.0, 9.0], np.zeros(2), np.zeros((0, 2)),
    ...                      terminal="rescale")
    >>> budget = [Compute(Prices(1.0, 1.0, 1), part="training") <= 100.0]
    >>> plan = Problem(ScoreError(table) + Turnover([50.0, 50.0], price=1.0), budget, steps=[9.0, 9.0]).solve()
    >>> plan.examples.round(3).tolist()  # dear: today's; free, it would be 25 and 75
    [50.0, 50.0]
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    bounded_by_duals: ClassVar[bool] = True
    present: Any
    price: Any = 1.0
    total: float | None = None
    quantity: str = "examples"

    def __post_init__(self) -> None:
        choice(self.quantity, "Turnover.quantity", _QUANTITIES)
        object.__setattr__(self, "price", amount(self.price, "Turnover.price", nonnegative=True))
        if self.total is not None:
            object.__setattr__(self, "total", number(self.total, "Turnover.total", nonnegative=True))
        elif isinstance(self.present, SigmaDensity) or callable(self.present):
            raise ValueError("Turnover.present is a density; say of how many examples in all: total=...")
        else:
            object.__setattr__(self, "present", vector(self.present, "Turnover.present", nonnegative=True))

    @property
    def needs_examples(self) -> bool:
        return self.quantity != "steps"

    @property
    def nested(self) -> bool:  # type: ignore[override]
        """A density of so many examples in all has more of them on each level where a stop leaves fewer levels."""
        return self.total is None

    @takes(levels=Levels)
    def amounts(self, levels: Levels) -> Array:
        """(L,) present amounts on the levels."""
        if self.total is None:
            return vector(self.present, "Turnover.present", length=len(levels), nonnegative=True)
        return examples_of(self.present, levels, self.total)

    def _difference(self, design: Design) -> cp.Expression:
        return getattr(design, self.quantity) - self.amounts(design.levels)

    def value(self, design: Design, point: Point) -> float:
        return float(self.price * np.abs(getattr(point, self.quantity) - self.amounts(design.levels)).sum())

    def expression(self, design: Design) -> cp.Expression:
        return self.price * cp.norm1(self._difference(design))

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """t >= difference and t >= -difference, whose duals say which way each level departs."""
        size = (
            max(float(self.amounts(design.levels).max()), float(getattr(design.reference, self.quantity).max())) or 1.0
        )
        difference = self._difference(design) / size
        t = cp.Variable(len(design), name="departure")
        return (self.price * size) * cp.sum(t), [t >= difference, t >= -difference]

    def remarks(self, design: Design, point: Point) -> list[str]:
        moved = np.abs(getattr(point, self.quantity) - self.amounts(design.levels)).sum()
        return [f"{moved:.6g} {self.quantity.replace('_', ' ')} differ from today's, level by level"]

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        return {f"{self.name} price": np.array(self.value(design, point) / self.price if self.price else 0.0)}

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """|difference| >= s difference for every s in [-1, 1]: s from the duals, and exact."""
        duals = [dual_of(row) for row in auxiliary]
        side = np.sign(getattr(point, self.quantity) - self.amounts(design.levels))
        if len(duals) == 2 and duals[0] is not None and duals[1] is not None:
            total = duals[0] + duals[1]
            side = (duals[0] - duals[1]) / np.where(total > 0, total, 1.0)
        side = weight * self.price * side
        before = point.spent if self.quantity == "examples" else 0.0
        offset, zero = float(side @ (before - self.amounts(design.levels))), np.zeros(len(design))
        on_steps = self.quantity == "steps"
        bound.add_linear(offset, zero if on_steps else side, side if on_steps else zero)
        return True


@dataclass(frozen=True, eq=False)
class KLDivergence(Term):
    """price x examples x KL divergence of the training density from a given one.

    With m_l the examples of a level, M their sum and q_l the given density's probability of the level,

        sum_l m_l log(m_l / (M q_l)) = M KL(m / M || q)    nats x examples,

    jointly convex in all m (it is homogeneous: the divergence alone, without the M, is not convex in amounts). With
    `total` amounts are compared, not shapes: sum_l m_l log(m_l / r_l) - m_l + r_l, r_l = total x q_l, which is 0 for
    m = r alone. Both are integrals over log sigma of densities: the number of levels does not matter.

    Args:
        density: a SigmaDensity, a function of sigma (examples per unit sigma, any scale), or an array with one entry
            per level (any scale); > 0 on every level.
        price: error per nat and example, >= 0; a number or a cp.Parameter.
        total: number of examples of the given density, where amounts are compared; None: shapes alone.
        quantity: "examples" (spent ones included) or "new_examples".

    Raises:
        ValueError: a density without mass on a level, by its sigma (in a problem).

    >>> from codesign_opt import LogNormal
    >>> KLDivergence(LogNormal(-1.2, 1.2), price=1e-9) + KLDivergence([1.0, 2.0], price=1.0, total=3.0)
    KLDivergence + KLDivergence
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    density: Any
    price: Any = 1.0
    total: float | None = None
    quantity: str = "examples"

    def __post_init__(self) -> None:
        choice(self.quantity, "KLDivergence.quantity", ("examples", "new_examples"))
        object.__setattr__(self, "price", amount(self.price, "KLDivergence.price", nonnegative=True))
        if self.total is not None:
            object.__setattr__(self, "total", scale_of(self.total, "KLDivergence.total"))

    @property
    def nested(self) -> bool:  # type: ignore[override]
        """By the chain rule of the divergence, which has that of the upper levels as a summand; not of amounts."""
        return self.total is None

    @takes(levels=Levels)
    def shares(self, levels: Levels) -> Array:
        """(L,) probability of each level under the given density."""
        shares = examples_of(self.density, levels, 1.0)
        empty = np.flatnonzero(shares <= 0)
        if empty.size:
            raise ValueError(
                f"KLDivergence.density has no mass at sigma = {levels.sigma[empty[0]]:.3g}, where the divergence would "
                "be infinite; widen it, or mix in a little of a wider one."
            )
        return shares

    def value(self, design: Design, point: Point) -> float:
        examples, given = getattr(point, self.quantity), self.shares(design.levels)
        total = examples.sum() if self.total is None else self.total
        ratio = np.divide(examples, total * given, out=np.ones_like(examples), where=examples > 0)
        beside = 0.0 if self.total is None else total - examples.sum()
        return float(self.price * (examples @ np.log(ratio) + beside))

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        return {f"{self.name} price": np.array(self.value(design, point) / self.price if self.price else 0.0)}

    def expression(self, design: Design) -> cp.Expression:
        examples, given = getattr(design, self.quantity), self.shares(design.levels)
        size = float(getattr(design.reference, self.quantity).sum()) or 1.0
        relative = examples / size
        if self.total is None:
            divergence = cp.sum(cp.rel_entr(relative, cp.multiply(given, cp.sum(relative))))
        else:
            divergence = cp.sum(cp.kl_div(relative, given * (self.total / size)))
        return (self.price * size) * divergence

    def remarks(self, design: Design, point: Point) -> list[str]:
        examples = getattr(point, self.quantity)
        total = examples.sum()
        if not total > 0:
            return []
        shares = np.maximum(examples / total, 1e-300)
        nats = float(examples / total @ np.log(shares / self.shares(design.levels)))
        return [f"the training density diverges from the given one by {nats:.4g} nats (KL)"]
