"""Terms: small classes with one method that returns a cvxpy expression, and their algebra.

`a + b`, `2 * a`, `a <= limit` build a problem as it is written on paper. A user's term is a frozen
dataclass with the one method `expression`; it is a function of densities or of sums over groups of
levels, never of a single level, so that the number of levels doesn't matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from .._validate import Array, Indices, choice, number, vector
from ..certificate import LagrangianBound, ScorePart, pooled_price
from ..coefficients import Coefficients
from ..prices import Prices
from .design import Design, Point

__all__ = [
    "Bound",
    "Compute",
    "Discretization",
    "ScoreError",
    "SeparableDiscretization",
    "Smooth",
    "Steps",
    "Sum",
    "Term",
    "Truncation",
]


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
    def coefficients(self) -> Coefficients | None:
        """The table behind a built-in term; None for a user's term."""
        return None

    def leaves(self) -> Iterator[tuple[float, Term]]:
        """(weight, term) for every summand."""
        yield 1.0, self

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """The expression, and constraints on auxiliary variables where a term needs some."""
        return self.expression(design), []

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


@dataclass(frozen=True, eq=False, repr=False)
class ScoreError(Term):
    """Score error at the end of sampling: sum_l (A_l/m_l + F_l) M(kappa_l/n_l), plus the last evaluation's.

    Jointly convex in (examples, steps): 1/m, 1/(m n) and their maximum are (docs/theory.md sections
    6 and 7, equation 6.1; co-design paper, Theorem 1 with the correlation length made explicit).
    Under "denoise" the last evaluation adds A_r / m_r + F_r with m_r the examples within one
    correlation length of the stopping point (section 2).

    Args:
        table: the coefficients, from `model.coefficients(...)` or from arrays.
    """

    scales_itself: ClassVar[bool] = True
    table: Coefficients

    def __post_init__(self) -> None:
        _check_table(self.table, "ScoreError")

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    def expression(self, design: Design) -> cp.Expression:
        c = self.table
        total = design.reference.examples
        kappa = c.kappa / design.reference.steps
        pooling = c.coupling.pooling(c.levels)
        served = total if pooling is None else pooling @ total
        served = np.where(served > 0, served, 1.0)
        relative = cp.multiply(design.reference.new_examples, design.new_variable) + design.reference.spent
        if pooling is not None:
            relative = pooling @ relative
        relative = cp.multiply(1 / served, relative)
        parts: list[cp.Expression] = []
        on = np.flatnonzero(c.example_error > 0)
        if on.size:
            parts.append(self._reducible(design, relative[on], (c.example_error / served)[on], kappa[on], on))
        if np.any(c.floor_error > 0):
            factor = c.coupling.expression(design.step_variable, kappa)
            parts.append(cp.sum(cp.multiply(c.floor_error, factor)))
        if c.final_score > 0:
            window = self._window(total)
            near = cp.multiply(design.reference.new_examples, design.new_variable) + design.reference.spent
            parts.append(c.final_score / window * cp.inv_pos((c.final_window / window) @ near))
        total_error: cp.Expression = cp.Constant(c.final_floor)
        for part in parts:
            total_error = total_error + part
        return total_error

    def _reducible(
        self, design: Design, examples: cp.Expression, weight: Array, kappa: Array, on: Indices
    ) -> cp.Expression:
        """sum weight/examples M(kappa/steps) over the levels `on`, in relative variables."""
        coupling = self.table.coupling
        if design.fixed_steps:
            factor = coupling.factor(self.table.kappa / design.reference.steps)[on]
            return cp.sum(cp.multiply(weight * factor, cp.inv_pos(examples)))
        steps = design.step_variable[on]
        if design.fixed_examples:
            return cp.sum(cp.multiply(weight, coupling.expression(steps, kappa)))
        return cp.sum(cp.multiply(weight, coupling.product(examples, steps, kappa)))

    def _window(self, examples: Array) -> float:
        return float(self.table.final_window @ examples)

    def levels_value(self, point: Point) -> tuple[Array, Array]:
        """(L,) reducible and (L,) irreducible score error of each level, without the last evaluation's."""
        c = self.table
        pooling = c.coupling.pooling(c.levels)
        served = point.examples if pooling is None else pooling @ point.examples
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = c.coupling.factor(c.kappa / point.steps)
            reducible = np.where(c.example_error > 0, c.example_error * factor / served, 0.0)
            floor = np.where(c.floor_error > 0, c.floor_error * factor, 0.0)
        return reducible, floor

    def final_value(self, point: Point) -> tuple[float, float]:
        """The last evaluation's reducible and irreducible error."""
        c = self.table
        if c.final_score == 0:
            return 0.0, c.final_floor
        near = self._window(point.examples)
        return (c.final_score / near if near > 0 else np.inf), c.final_floor

    def value(self, design: Design, point: Point) -> float:
        reducible, floor = self.levels_value(point)
        return float(reducible.sum() + floor.sum() + sum(self.final_value(point)))

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, _unlimited(design, point))

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        c = self.table
        pooling = c.coupling.pooling(c.levels)
        price = None
        if pooling is not None:
            served = pooling @ point.examples
            factor = c.coupling.factor(c.kappa / point.steps)
            price = weight * pooled_price(c.example_error, factor, served)
            slope = -(price @ pooling)
            bound.add_linear(float(slope @ point.spent), slope, np.zeros(len(c.levels)))
        bound.parts.append(ScorePart(weight * c.example_error, weight * c.floor_error, c.coupling, c.kappa, price))
        bound.constant += weight * c.final_floor
        near = self._window(point.examples)
        if c.final_score > 0 and near > 0:  # A/m_r by its tangent at the candidate; by 0 where there is none
            slope = -weight * c.final_score / near / near * c.final_window
            bound.add_linear(
                2 * weight * c.final_score / near + float(slope @ point.spent), slope, np.zeros(len(c.levels))
            )
        return True

    def __repr__(self) -> str:
        return f"ScoreError({self.table!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Discretization(Term):
    """Squared error of taking finite steps: sum_b (sum_l R_bl / n_l^q)^2, coherent along the path.

    Convex in the steps for every order q >= 1: a square of a nonnegative sum of convex functions
    (docs/theory.md section 3, equation 3.1 "sharp"). Response magnitudes are used: exact where a
    response keeps one sign along the path, an upper model otherwise.
    """

    scales_itself: ClassVar[bool] = True
    table: Coefficients

    def __post_init__(self) -> None:
        _check_table(self.table, "Discretization")

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    def expression(self, design: Design) -> cp.Expression:
        c = self.table
        rows = c.step_response / design.reference.steps**c.order
        rows = rows[np.any(rows > 0, axis=1)]
        if not rows.size:
            return cp.Constant(0.0)
        inverse = cp.inv_pos(design.step_variable) if c.order == 1 else cp.power(design.step_variable, -c.order)
        size = float(np.linalg.norm(rows.sum(axis=1)))  # rows of order one, whatever the unit of the error
        return size**2 * cp.sum_squares((rows / size) @ inverse)

    def band_sums(self, point: Point) -> Array:
        """(B,) S_b = sum_l R_bl / n_l^q, square root of each band's error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = self.table.step_response / point.steps**self.table.order
        return np.where(self.table.step_response > 0, terms, 0.0).sum(axis=1)

    def levels_value(self, point: Point) -> Array:
        """(L,) each level's share of the error, sum_b S_b R_bl / n_l^q."""
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = self.table.step_response / point.steps**self.table.order
        terms = np.where(self.table.step_response > 0, terms, 0.0)
        return self.band_sums(point) @ terms

    def value(self, design: Design, point: Point) -> float:
        return float((self.band_sums(point) ** 2).sum())

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point) if design.fixed_steps else 0.0

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        sums = self.band_sums(point)
        sums = np.where(np.isfinite(sums), sums, 0.0)  # a candidate without steps has no tangent; 0 is below it
        bound.powers.append((float(self.table.order), weight * 2 * sums @ self.table.step_response))
        bound.constant -= weight * float(sums @ sums)
        return True

    def __repr__(self) -> str:
        return f"Discretization({self.table!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SeparableDiscretization(Term):
    """Separable upper bound of the discretisation error, equal to it at reference steps (equation 3.2).

    sum_l D_l / n_l^(2q), D_l = sum_b S_b R_bl n_ref^q. Solve, take the solution's steps as the next
    reference, repeat: each round cannot increase the sharp error (majorise and minimise).

    Args:
        table: the coefficients.
        reference_steps: (L,) steps at which bound and error agree, > 0.
    """

    scales_itself: ClassVar[bool] = True
    table: Coefficients
    reference_steps: Array

    def __post_init__(self) -> None:
        _check_table(self.table, "SeparableDiscretization")
        name = "SeparableDiscretization.reference_steps"
        steps = vector(self.reference_steps, name, length=len(self.table.levels), positive=True)
        object.__setattr__(self, "reference_steps", steps)

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    @property
    def weights(self) -> Array:
        """(L,) D_l."""
        q = self.table.order
        sums = (self.table.step_response / self.reference_steps**q).sum(axis=1)
        return (sums @ self.table.step_response) * self.reference_steps**q

    def expression(self, design: Design) -> cp.Expression:
        power = 2 * self.table.order
        weights = self.weights / design.reference.steps**power
        return cp.sum(cp.multiply(weights, cp.power(design.step_variable, -power)))

    def value(self, design: Design, point: Point) -> float:
        return float(np.sum(self.weights / point.steps ** (2 * self.table.order)))

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        bound.powers.append((2.0 * self.table.order, weight * self.weights))
        return True


@dataclass(frozen=True, eq=False, repr=False)
class Truncation(Term):
    """What no design at this stopping point can change: E0 + E_init (docs/theory.md sections 1 and 2)."""

    scales_itself: ClassVar[bool] = True
    table: Coefficients

    def __post_init__(self) -> None:
        _check_table(self.table, "Truncation")

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    def expression(self, design: Design) -> cp.Expression:
        return cp.Constant(self.table.truncation + self.table.initial)

    def value(self, design: Design, point: Point) -> float:
        return self.table.truncation + self.table.initial

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point)

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        bound.constant += weight * (self.table.truncation + self.table.initial)
        return True


@dataclass(frozen=True, eq=False)
class Compute(Term):
    """Price of a design: sum_l c_l m_l for training plus sum_l k_l n_l for sampling, the last step included.

    Args:
        prices: what an example and an evaluation cost, and how many images will be drawn.
        part: "training" or "sampling" for one side only; None for both.
    """

    scales_itself: ClassVar[bool] = True
    prices: Prices
    part: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prices, Prices):
            raise ValueError(f"Compute.prices is {self.prices!r}; a Prices object is needed.")
        if self.part is not None:
            choice(self.part, "Compute.part", ("training", "sampling"))

    @property
    def name(self) -> str:
        return "Compute" if self.part is None else f"Compute({self.part})"

    def table(self, design: Design) -> tuple[Array, Array, float]:
        """Price of an example (L,), of a step (L,), and of the last step to zero noise."""
        size = len(design)
        example, step, final = np.zeros(size), np.zeros(size), 0.0
        if self.part != "sampling":
            example = self.prices.example_price(design.levels)
        if self.part != "training":
            step = self.prices.evaluation_price(design.levels) * design.evaluations_per_step
            final = design.final_steps * self.prices.final_price(float(design.levels.edges[0]))
        return example, step, final

    def expression(self, design: Design) -> cp.Expression:
        example, step, final = self.table(design)
        reference = design.reference
        return (
            (example * reference.new_examples) @ design.new_variable
            + (step * reference.steps) @ design.step_variable
            + final
        )

    def value(self, design: Design, point: Point) -> float:
        example, step, final = self.table(design)
        return float(example @ point.new_examples + step @ point.steps + final)


@dataclass(frozen=True, eq=False)
class Steps(Term):
    """Number of sampler steps, the last step to zero noise included."""

    scales_itself: ClassVar[bool] = True

    def expression(self, design: Design) -> cp.Expression:
        return design.reference.steps @ design.step_variable + design.final_steps

    def value(self, design: Design, point: Point) -> float:
        return float(point.steps.sum() + design.final_steps)


@dataclass(frozen=True, eq=False)
class Smooth(Term):
    """Roughness of a density: integral of its squared slope over log sigma.

    Args:
        quantity: "density" (examples per unit log sigma) or "step_density".
        weight: multiplies the integral; in error per (density squared per unit log sigma).
    """

    quantity: str = "density"
    weight: float = field(default=1.0)

    def __post_init__(self) -> None:
        choice(self.quantity, "Smooth.quantity", ("density", "step_density"))
        object.__setattr__(self, "weight", number(self.weight, "Smooth.weight", positive=True))

    def expression(self, design: Design) -> cp.Expression:
        if len(design) < 2:
            return cp.Constant(0.0)
        gaps = np.diff(np.log(design.sigma))
        slopes = cp.multiply(1 / np.sqrt(gaps), cp.diff(getattr(design, self.quantity)))
        return self.weight * cp.sum_squares(slopes)


def _unlimited(design: Design, point: Point) -> Point:
    """`point` with as much as anyone could want of every quantity that is decided."""
    plenty = np.full(len(design), 1e300)
    return Point(
        point.new_examples if design.fixed_examples else plenty,
        point.spent,
        point.steps if design.fixed_steps else plenty,
    )


def _check_table(table: Any, owner: str) -> None:
    if not isinstance(table, Coefficients):
        raise ValueError(f"{owner}.table is {table!r}; give Coefficients, from model.coefficients(...) or arrays.")
