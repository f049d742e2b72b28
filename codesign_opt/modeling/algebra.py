"""Algebra of terms: small classes with one method that returns a cvxpy expression.

`a + b`, `2 * a`, `a <= limit` build a problem as it is written on paper. A user's term is a frozen
dataclass with the one method `expression`; it is a function of densities or of sums over groups of
levels, never of a single level, so that the number of levels doesn't matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import number
from ..certificate.lagrangian import LagrangianBound
from ..models.coefficients import Coefficients
from .design import Design, Point

__all__ = ["Bound", "Sum", "Term", "check_table"]


class Term(ABC):
    """A convex function of the design; subclass it with one method, `expression`.

    >>> import cvxpy as cp
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False)
    ... class Congestion(Term):
    ...     price: float
    ...     def expression(self, design):
    ...         return self.price * cp.sum(cp.multiply(design.log_width, cp.power(design.density, 1.5)))
    >>> Congestion(2.0) <= 3.0
    Congestion <= 3
    """

    scales_itself: ClassVar[bool] = False  # declared in relative units already; others are probed and rescaled

    @abstractmethod
    def expression(self, design: Design) -> cp.Expression:
        """The term as a scalar convex cvxpy expression of the design's quantities, in user units."""

    @property
    def name(self) -> str:
        """How messages, shadow prices and breakdowns call the term."""
        return type(self).__name__

    @property
    def majorised(self) -> bool:
        """Whether the declaration only touches the term at the reference, so that solving is repeated."""
        return False

    @property
    def advice(self) -> str:
        """What to try where a problem with this term could not be proved optimal; empty for nothing."""
        return ""

    @property
    def coefficients(self) -> Coefficients | None:
        """The table behind a built-in term; None for a user's term."""
        return None

    def leaves(self) -> Iterator[tuple[float, Term]]:
        """(weight, term) for every summand."""
        yield 1.0, self

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """The expression, and constraints on auxiliary variables where a term needs some."""
        return self.expression(design), []

    def recovered(self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]) -> Point:
        """A better point that the solved auxiliary variables show, `point` itself where there is none."""
        return point

    def resolution(self, design: Design, point: Point) -> float:
        """Size below which differences of the term mean nothing: large numbers that cancel leave rounding."""
        return 0.0

    def value(self, design: Design, point: Point) -> float:
        """The term at `point`, in user units."""
        design.set(point)
        return float(np.asarray(self.expression(design).value).item())

    def constant(self, design: Design, point: Point) -> float:
        """The part of `value` that no design changes: what is left at unlimited examples and steps."""
        return 0.0

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        """Add `weight` times a lower bound of the term that is exact at `point`; False: linearise it."""
        return False

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """`add_to` where the declared program was solved: duals of a term's own constraints may serve the bound."""
        return self.add_to(bound, weight, point)

    def __add__(self, other: Any) -> Sum:
        if not isinstance(other, Term):
            raise TypeError(f"{self.name} + {other!r}: only terms can be added.")
        return Sum((*self.leaves(), *other.leaves()))

    def __radd__(self, other: Any) -> Term:
        if isinstance(other, (int, float)) and other == 0:  # sum([...]) starts from 0
            return self
        raise TypeError(f"{other!r} + {self.name}: only terms can be added.")

    def __mul__(self, scalar: Any) -> Sum:
        hint = "A negative multiple of a convex term is concave; state it as a bound instead."
        weight = number(scalar, f"the multiple of {self.name}", nonnegative=True, hint=hint)
        return Sum(tuple((weight * w, leaf) for w, leaf in self.leaves()))

    __rmul__ = __mul__

    def __le__(self, limit: Any) -> Bound:
        return Bound(self, number(limit, f"the limit of {self.name}"))

    def __ge__(self, limit: Any) -> Bound:
        raise TypeError(
            f"{self.name} >= {limit!r} is not convex; give an upper bound, or a linear row with named(...)."
        )

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self.name} has no truth value; write each bound on its own (1 <= term <= 2 would drop a half)."
        )


@dataclass(frozen=True, eq=False)
class Sum(Term):
    """A weighted sum of terms."""

    summands: tuple[tuple[float, Term], ...]

    @property
    def name(self) -> str:
        return " + ".join(leaf.name if w == 1 else f"{w:g} {leaf.name}" for w, leaf in self.summands)

    def leaves(self) -> Iterator[tuple[float, Term]]:
        return iter(self.summands)

    def expression(self, design: Design) -> cp.Expression:
        return sum(w * leaf.expression(design) for w, leaf in self.summands)

    def value(self, design: Design, point: Point) -> float:
        return float(sum(w * leaf.value(design, point) for w, leaf in self.summands))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Bound:
    """`term <= limit`: a named constraint."""

    term: Term
    limit: float
    label: str | None = None

    @property
    def name(self) -> str:
        return self.label if self.label is not None else self.term.name

    def __repr__(self) -> str:
        return f"{self.name} <= {self.limit:g}"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value; write each bound on its own.")


def check_table(table: Any, owner: str) -> None:
    """Refuse anything but Coefficients, naming the term."""
    if not isinstance(table, Coefficients):
        raise ValueError(f"{owner}.table is {table!r}; give Coefficients, from model.coefficients(...) or arrays.")
