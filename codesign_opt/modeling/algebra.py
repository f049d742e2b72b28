"""Algebra of terms: small classes with one method that returns a cvxpy expression.

`a + b`, `2 * a`, `a <= limit` build a problem as it is written on paper. A user's term is a frozen
dataclass with the one method `expression`; it is a function of densities or of sums over groups of
levels, never of a single level, so that the number of levels doesn't matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, instance, number, shown
from ..basics.inheritance import changed, stale
from ..certificate.lagrangian import LagrangianBound
from ..ingredients.levels import Levels
from ..models.coefficients import Coefficients
from .design import Design, Point
from .own_variables import OwnProgram, own_variables, stated_pair
from .parameters import amount

__all__ = ["Bound", "Constant", "Fixed", "Sum", "Term", "check_table"]

# what follows from a term's `expression`: a subclass that states another expression inherits none of it
_DERIVED = (
    "scales_itself", "bounded_by_duals", "majorised", "monotone", "known_convex", "fixed", "needs_examples",
    "as_compute", "as_information", "nested", "leaves", "at_levels", "components", "stand_in", "formulation",
    "nonnegative", "recovered", "resolution", "value", "constant", "add_to", "add_solved", "linear_prices", "parts",
    "level_parts", "sensitivities", "derivatives", "remarks",
)  # fmt: skip
_TEXT = ("name", "advice", "parts", "level_parts", "remarks", "couples", "structured")  # free to replace


class Term(ABC):
    """A convex function of the design; subclass it with one method, `expression`.

    Every other method has a default that follows from `expression`; a class may write any of them down where it
    knows better (a closed form, an exact lower bound, its parts). What a class wrote is about its own `expression`:
    a subclass that states another one, or replaces a method behind it, gets the defaults back for whatever it does
    not write itself, and no structured solver takes it for its parent, unless it says `structured = True`.

    Attributes:
        structured: set to True in the body of a class, and for that class alone: the structured solvers may take it
            for the library's term that it is or derives from, whose function of the design it is exactly.
        scales_itself: whether `expression` is declared in relative units already; others are probed and rescaled.
        monotone: whether more examples or steps never hurt: what unlimited ones leave is a bound too.
        couples: whether the coupling of the term's table is part of what it says.
        nested: whether the term of a design on some levels is never less than the term of the same design on the
            levels above any of their edges alone, as of integrals over sigma of something nonnegative, of maxima and of
            norms; then it bounds the error between stopping points (docs/theory.md section 7.7).
        bounded_by_duals: whether `add_solved` needs the duals of the rows that `formulation` declares, in bounds too.

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

    __array_ufunc__ = None  # numbers of numpy leave `2 * term` to the term
    structured: ClassVar[bool] = False
    scales_itself: ClassVar[bool] = False
    monotone: ClassVar[bool] = False
    couples: ClassVar[bool] = True
    nested: ClassVar[bool] = False
    bounded_by_duals: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).get("structured"):
            return
        names = [name for name in _DERIVED if name not in vars(cls)] if changed(cls, "expression", _TEXT) else []
        for name in {*names, *stale(cls, ["expression"], _DERIVED)}:
            setattr(cls, name, vars(Term)[name])

    @abstractmethod
    def expression(self, design: Design) -> cp.Expression:
        """The term as a scalar convex cvxpy expression of the design's quantities, in user units.

        It may have variables of its own (`cp.Variable`), over which it is minimised; with constraints on them, return
        (expression, [constraints]).
        """

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

    @property
    def owner(self) -> Any:
        """What the term's coefficients belong to: its table, its prices, or the term itself."""
        return self if self.coefficients is None else self.coefficients

    @property
    def stated_levels(self) -> Levels | None:
        """The noise levels that the term is about; None for one that takes any."""
        return None if self.coefficients is None else self.coefficients.levels

    @property
    def whose(self) -> Any:
        """The one of several samplers that the term is about (a Sampling); None for others."""
        return None

    def over(self, samplings: Sequence[Any]) -> Iterator[tuple[float, Term]]:
        """(weight, term) of what the term is where several samplers share the training: itself, for most."""
        yield 1.0, self

    @property
    def is_structured(self) -> bool:
        """Whether the very class of this term says `structured = True`."""
        return bool(vars(type(self)).get("structured", False))

    @property
    def known_convex(self) -> bool:
        """Whether the term is convex by construction and `add_to` proves it from numbers: nothing is to check."""
        return False

    @property
    def fixed(self) -> bool:
        """Whether no design changes the term."""
        return False

    @property
    def needs_examples(self) -> bool:
        """Whether the term depends on training examples, as far as is known."""
        return True

    @property
    def as_compute(self) -> Any:
        """The term itself where it is a price of compute, whose prices a plan reports; None for others."""
        return None

    @property
    def as_information(self) -> Any:
        """The term itself where it is an error through an information matrix, with a bound of its own; else None."""
        return None

    def leaves(self) -> Iterator[tuple[float, Term]]:
        """(weight, term) for every summand."""
        yield 1.0, self

    def at_levels(self, levels: Levels) -> Term:
        """The term that this one is on the levels of a program: itself, unless it is a family of terms."""
        return self

    def components(self) -> Iterator[Term]:
        """Terms inside this one, whose levels and samplers must be the problem's, too."""
        return iter(())

    def stand_in(self) -> Iterator[tuple[float, Term]]:
        """(weight, term) of what a structured solver may take in this term's place to find a first reference."""
        yield 1.0, self

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """The expression, and constraints on auxiliary variables where a term needs some."""
        return stated_pair(self, design)

    def nonnegative(self, design: Design) -> bool:
        """Whether cvxpy's rules show that the term is at least 0, whatever this design turns out to be."""
        return bool(self.formulation(design)[0].is_nonneg())

    def recovered(self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]) -> Point:
        """A better point that the solved auxiliary variables show, `point` itself where there is none."""
        return point

    def resolution(self, design: Design, point: Point) -> float:
        """Size below which differences of the term mean nothing: large numbers that cancel leave rounding."""
        return 0.0

    def value(self, design: Design, point: Point) -> float:
        """The term at `point`, in user units; the least over variables of its own."""
        design.set(point)
        expression, constraints = stated_pair(self, design)
        if own_variables([expression, *constraints], design):
            given = design.at(point)  # what the design decides is a number then, and the own variables alone are sought
            expression, constraints = stated_pair(self, given)
            OwnProgram.of(given, expression, constraints, []).settle()
        return float(np.asarray(expression.value, dtype=np.float64).item())

    def constant(self, design: Design, point: Point) -> float:
        """The part of `value` that no design changes: what is left at unlimited examples and steps."""
        return 0.0

    def linear_prices(self, design: Design) -> tuple[Array, Array, float] | None:
        """(L,) price of an example, (L,) of a step, and a constant, where the term is linear in them; else None."""
        return None

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        """The term by cause, as plans break an error down; the parts sum to `value`."""
        return {self.name: self.value(design, point)}

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        """What the term says of each level, for a plan's tables; all (L,), any of these:

        "score", "floor", "discretization": a level's share of the error by cause; "score_weight": error times
        examples, in its separable bound; "served_weight" and "pooling" (L, L): the same for pooled examples;
        "gain": decrease of the error per example; "information_gain": the same through an information matrix;
        "bands" (B,): error of each band; "final_window": examples that serve the last evaluation; "prior_examples":
        those that the untrained denoiser is worth.
        """
        return {}

    def sensitivities(
        self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]
    ) -> list[tuple[float, Term, Mapping[str, Array]]]:
        """(weight, term, derivatives of that term by its coefficients) of the term and of all inside it."""
        found = self.derivatives(design, point)
        return [(1.0, self, found)] if found else []

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        """The term's derivatives by its coefficients at a fixed design, by name (docs/theory.md section 8.2)."""
        return {}

    def remarks(self, design: Design, point: Point) -> list[str]:
        """What a reader of the plan should know of the term."""
        return []

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

    def __add__(self, other: Any) -> Term:
        return _added(self, other, "{term} + {other}")

    def __radd__(self, other: Any) -> Term:
        return _added(self, other, "{other} + {term}")

    def __sub__(self, other: Any) -> Term:
        if isinstance(other, Term):
            raise TypeError(
                f"{self.name} - {other.name} is not convex (minus a convex term is concave); subtract a number, or "
                "state one of the two as a bound."
            )
        return _added(self, -1.0 * other, "{term} - {other}", other)

    def __rsub__(self, other: Any) -> Term:
        raise TypeError(f"{other!r} - {self.name} is concave; a problem minimises convex terms. State it as a bound.")

    def __neg__(self) -> Term:
        raise TypeError(f"-{self.name} is concave; a problem minimises convex terms. State it as a bound.")

    def __mul__(self, scalar: Any) -> Sum:
        hint = "A negative multiple of a convex term is concave; state it as a bound instead."
        weight = amount(scalar, f"the multiple of {self.name}", nonnegative=True, hint=hint)
        return Sum(
            tuple((weight if isinstance(w, float) and w == 1 else weight * w, leaf) for w, leaf in self.leaves())
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Sum:
        return self * (1.0 / number(divisor, f"the divisor of {self.name}", positive=True))

    def __le__(self, limit: Any) -> Bound:
        return Bound(self, amount(limit, f"the limit of {self.name}"))

    def __ge__(self, limit: Any) -> Bound:
        raise TypeError(
            f"{self.name} >= {limit!r} is not convex unless the term is linear; give an upper bound, or state what is "
            "linear as a row, such as co.named('at least 9', lambda design: cp.sum(design.steps) + design.final_steps "
            ">= 9)."
        )

    def __array__(self, *args: Any, **options: Any) -> Any:
        """Refused: cvxpy asks for it where an expression of its own stands before a term, as in p * term."""
        raise TypeError(
            f"{self.name} is a term, no number or expression of cvxpy; write the term first, as in {self.name} * p, "
            f"{self.name} + p or {self.name} <= p with p a cp.Parameter."
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
        return " + ".join(_weighted_name(w, leaf) for w, leaf in self.summands).replace("+ -", "- ")

    def leaves(self) -> Iterator[tuple[float, Term]]:
        return iter(self.summands)

    def expression(self, design: Design) -> cp.Expression:
        return sum(w * leaf.expression(design) for w, leaf in self.summands)

    def value(self, design: Design, point: Point) -> float:
        return float(sum(w * leaf.value(design, point) for w, leaf in self.summands))

    def __repr__(self) -> str:
        return self.name


class Fixed(Term):
    """A term that no design changes."""

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    @property
    def known_convex(self) -> bool:
        return True

    @property
    def fixed(self) -> bool:
        return True

    @property
    def needs_examples(self) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class Constant(Fixed):
    """A number: what `term + 3` adds. It moves the objective, or what a bound leaves, and nothing else."""

    structured: ClassVar[bool] = True
    amount: float

    @property
    def name(self) -> str:
        return _shown(self.amount)

    def expression(self, design: Design) -> cp.Expression:
        return cp.Constant(self.amount)

    def value(self, design: Design, point: Point) -> float:
        return self.amount

    def constant(self, design: Design, point: Point) -> float:
        return self.amount

    def linear_prices(self, design: Design) -> tuple[Array, Array, float]:
        return np.zeros(len(design)), np.zeros(len(design)), self.amount

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {"constant": self.amount}


@dataclass(frozen=True, eq=False)
class Bound:
    """`term <= limit`: a named constraint. The limit may be a `cp.Parameter`, whose value is read at every solve."""

    term: Term
    limit: Any
    label: str | None = None

    def __post_init__(self) -> None:
        instance(self.term, Term, "Bound.term", "Write term <= limit.")
        instance(self.label, (str, type(None)), "Bound.label")
        object.__setattr__(self, "limit", amount(self.limit, f"the limit of {self.term.name}"))

    @property
    def name(self) -> str:
        return self.label if self.label is not None else self.term.name

    def __repr__(self) -> str:
        return f"{self.name} <= {_shown(self.limit)}"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value; write each bound on its own.")


def check_table(table: Any, owner: str) -> None:
    """Refuse anything but Coefficients, naming the term."""
    if not isinstance(table, Coefficients):
        raise ValueError(f"{owner}.table is {shown(table)}; give Coefficients, from model.coefficients(...) or arrays.")


def _added(term: Term, other: Any, shown: str, written: Any = None) -> Term:
    """term + other, a term or a number; nothing for zero, since sum([...]) starts from it."""
    if isinstance(other, Term):
        return Sum((*term.leaves(), *other.leaves()))
    if isinstance(other, (int, float)) and not isinstance(other, bool) and other == 0:
        return term
    try:
        constant = Constant(amount(other, f"the constant beside {term.name}"))
    except ValueError as error:
        sum_of = shown.format(term=term.name, other=repr(other if written is None else written))
        raise TypeError(f"{sum_of}: only terms and numbers can be added ({error})") from None
    return Sum((*term.leaves(), (1.0, constant)))


def _product(weight: Any, other: Any) -> Any:
    return weight if isinstance(other, float) and other == 1 else weight * other


def _weighted_name(weight: Any, leaf: Term) -> str:
    return leaf.name if isinstance(weight, float) and weight == 1 else f"{_shown(weight)} {leaf.name}"


def _shown(value: Any) -> str:
    """A number, or the name of the parameter that stands for it."""
    return str(value) if isinstance(value, cp.Expression) else f"{value:g}"
