"""Score error whose levels add coherently: a quadratic form of inverse square roots of the densities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import cvxpy as cp
import numpy as np

from ..basics.causes import COHERENT_SCORE
from ..basics.checks import Array, matrix
from ..certificate.lagrangian import LagrangianBound
from ..models.coefficients import Coefficients
from .algebra import Term, check_table
from .design import Design, Point
from .positive_form import declared_form, form_as_written, form_gradient, positive_part

__all__ = ["CoherentScore"]


@dataclass(frozen=True, eq=False, repr=False)
class CoherentScore(Term):
    """Coherent score error, double integral of R+(s, s') / sqrt(d(s) d(s')) over log sigma, d examples per log sigma.

    sum_jk delta_j delta_k R+_jk (d_j d_k)^(-1/2), R+ = max(R, 0), end of section 6 in docs/theory.md: offered
    beside `ScoreError` (6.1), of which it is the limit of many steps where R has the correlation length as its
    width: R_jk = sqrt(score_j score_k) correlation_jk / length. Jointly convex in the densities. It does not
    depend on the steps and holds no irreducible part. A density as spiky as its optimum may be is tamed by `Smooth`.

    Args:
        table: the coefficients; only the levels are used, `score` is not.
        gram: (L, L) R, symmetric: Gram matrix of the responses at the end of sampling to the error that one example
            per unit log sigma leaves at each level, squared data units per unit log sigma squared.

    Raises:
        ValueError: `gram` is not finite, not symmetric, of another shape, or zero on its diagonal where it is not
            zero elsewhere; the table's coupling pools examples.

    >>> from codesign_opt import Coefficients, Levels, Prices
    >>> from codesign_opt.modeling import Compute
    >>> from codesign_opt.programs.problem import Problem
    >>> levels = Levels(np.exp([0.0, 1.0, 2.0]))
    >>> table = Coefficients(levels, np.zeros(2), np.zeros(2), np.zeros((0, 2)), terminal="rescale")
    >>> score = CoherentScore(table, [[1.0, 1.0], [1.0, 1.0]])  # (1/sqrt(m_1) + 1/sqrt(m_2))^2
    >>> paid = Compute(Prices(1.0, 1.0, 1), part="training") <= 8.0
    >>> plan = Problem(score, [paid], steps=np.ones(2)).solve()
    >>> round(plan.error, 6), plan.examples.round(3).tolist()
    (1.0, [4.0, 4.0])
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    couples: ClassVar[bool] = False
    table: Coefficients
    gram: Array

    def __post_init__(self) -> None:
        check_table(self.table, "CoherentScore")
        size = len(self.table.levels)
        gram = matrix(self.gram, "CoherentScore.gram", shape=(size, size))
        difference = float(np.abs(gram - gram.T).max())
        if difference > 1e-9 * float(np.abs(gram).max()):
            raise ValueError(
                f"CoherentScore.gram differs from its transpose by {difference:.3g}; a Gram matrix is symmetric, "
                "give (R + R.T) / 2."
            )
        lost = np.flatnonzero((np.diag(gram) <= 0) & np.any(gram != 0, axis=1))
        if lost.size:
            raise ValueError(
                f"CoherentScore.gram has {gram[lost[0], lost[0]]:g} on its diagonal at level {lost[0]}, whose row is "
                "not zero; no Gram matrix has that."
            )
        if self.table.pooling is not None:
            raise ValueError(
                f"CoherentScore.table pools examples over levels ({type(self.table.coupling).__name__}); put what "
                "levels share into `gram` and use Local."
            )
        object.__setattr__(self, "gram", gram)

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    @property
    def majorised(self) -> bool:
        return True

    @cached_property
    def form(self) -> Array:
        """(L, L) H, so that the error is sum_jk H_jk (m_j m_k)^(-1/2), m examples on each level."""
        unit = self.table.log_width**1.5
        return positive_part(self.gram) * unit * unit[:, None]

    @cached_property
    def separable(self) -> Array:
        """(L,) A, so that sum_l A_l / m_l is an upper bound that is exact at a constant density."""
        root = np.sqrt(self.table.log_width)
        return root * (self.form @ (1 / root))

    def inverse(self, examples: Array) -> Array:
        """(L,) m^(-1/2)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.maximum(examples, 0.0) ** -0.5)

    def levels_value(self, point: Point) -> Array:
        """(L,) each level's share of the error."""
        return form_gradient(self.form, self.inverse(point.examples))

    def value(self, design: Design, point: Point) -> float:
        return float(self.levels_value(point).sum())

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point) if design.fixed_examples else 0.0

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {COHERENT_SCORE: self.value(design, point)}

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        share, examples = self.levels_value(point), point.examples
        return {
            "score": share,
            "score_weight": share * examples,
            "served_weight": np.where(share > 0, share * examples, 0.0),
            "gain": np.divide(share, examples, out=np.zeros_like(share), where=share > 0),
        }

    def expression(self, design: Design) -> cp.Expression:
        """The form itself, pair by pair."""
        return form_as_written(*self._relative(design))

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        if design.fixed_examples:
            return cp.Constant(self.value(design, design.reference)), []
        return declared_form(*self._relative(design))

    def _relative(self, design: Design) -> tuple[Array, float, cp.Expression]:
        total = design.reference.examples
        unit = np.where(np.any(self.form > 0, axis=1), self.inverse(total), 0.0)
        bought = cp.multiply(design.reference.new_examples / total, design.new_variable)
        return self.form * unit * unit[:, None], 0.5, bought + design.reference.spent / total

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        """The tangent in log m: the form is convex in log m, too."""
        share = weight * self.levels_value(point)
        if not np.all(np.isfinite(share)):
            return True  # a level without examples: zero is a bound of the form
        logs = np.log(np.where(share > 0, point.examples, 1.0))
        bound.add_logarithms(float(share.sum() + share @ logs), share, np.zeros_like(share))
        return True

    def __repr__(self) -> str:
        return f"CoherentScore({self.table!r})"
