"""A constraint at a price: what it is violated by enters the objective instead of being forbidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Array, Indices, Mask, choice
from ..basics.errors import ConvexityError
from ..certificate.lagrangian import LagrangianBound
from .algebra import Bound, Term
from .composition import Composite, Declared, declared, dual_of, tried, weighted_sensitivities
from .constraints import BoxConstraint, as_named
from .curvature import blamed, clipped
from .design import Design, Point
from .gradients import jacobians, row_size, tangent_into
from .parameters import amount
from .shapes import Monotone
from .stated_rows import stated_rows

__all__ = ["SoftConstraint"]

_NORMS = ("l1", "squared")


@dataclass(frozen=True, eq=False)
class SoftConstraint(Composite):
    """price x violation: sum over the constraint's rows of (left - right)_+, or of its square.

    Of a bound `term <= limit` the violation is term - limit, in the term's units. Of a constraint it is the sum over
    its rows as they are stated; those of Floor and Cap count examples or steps, so that a density below its floor is
    integrated over log sigma, whatever the number of levels. Squares of such rows, and of Monotone's, are squares of
    densities integrated over log sigma; of rows of one's own they are what they are, so that rows for single levels
    should be stated as sums or maxima. An equality is violated both ways. Below the shadow
    price of the constraint itself an L1 price buys a violation, above it nothing changes (exact penalty); a squared
    price always buys some.

    Args:
        what: a bound, a Constraint, a function of the design that returns cvxpy constraints, or `named(...)` of one.
        price: error per unit of violation (squared: per its square), > 0; a number or a cp.Parameter.
        norm: "l1" or "squared".

    Raises:
        TypeError: nothing that could be a constraint. ConvexityError: a row that is not convex, by name.

    >>> import numpy as np
    >>> from codesign_opt import Coefficients, Levels, Prices
    >>> from codesign_opt.modeling import Compute, ScoreError
    >>> from codesign_opt.programs.problem import Problem
    >>> table = Coefficients(Levels.log_uniform(0.01, 10.0, 2), [1.0, 1.0], np.zeros(2), np.zeros((0, 2)),
    ...                      terminal="rescale")
    >>> unit = table.example_error[0]  # error x examples of a level
    >>> soft = SoftConstraint(Compute(Prices(1.0, 1.0, 1), part="training") <= 10.0, price=unit / 100)
    >>> plan = Problem(ScoreError(table), [Compute(Prices(1.0, 1.0, 1), part="training") <= 100.0],
    ...                steps=[9.0, 9.0]).solve()
    >>> plan = Problem(ScoreError(table) + soft, steps=[9.0, 9.0]).solve()
    >>> plan.examples.round(3).tolist()  # unit / m^2 = price: 10 on each level, and the limit is passed by 10
    [10.0, 10.0]
    """

    structured: ClassVar[bool] = True
    what: Any
    price: Any
    norm: str = "l1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "what", as_named(self.what, 0))
        object.__setattr__(self, "price", amount(self.price, f"{self.name}.price", nonnegative=True))
        choice(self.norm, f"{self.name}.norm", _NORMS)

    @property
    def name(self) -> str:
        return f"SoftConstraint({self.what.name})"

    @property
    def bound(self) -> Bound | None:
        """The bound that is softened; None for another constraint."""
        return self.what.what if isinstance(self.what.what, Bound) else None

    @property
    def inside(self) -> tuple[Term, ...]:
        return () if self.bound is None else (self.bound.term,)

    @property
    def needs_examples(self) -> bool:
        return True if self.bound is None else super().needs_examples

    @property
    def nested(self) -> bool:  # type: ignore[override]
        """Violations of levels are a sum that fewer levels make smaller; that of a bound falls with its term."""
        if self.bound is not None:
            return super().nested
        what = self.what.what
        return isinstance(what, (BoxConstraint, Monotone)) and what.nested

    def violation(self, design: Design, point: Point) -> float:
        """Sum of the violations at a point (squared: their root sum of squares), in the constraint's own units."""
        found = self._amount(design, point)
        return found if self.norm == "l1" else float(np.sqrt(found))

    def _amount(self, design: Design, point: Point) -> float:
        found = np.abs(self._signed_excess(design, point)[0])
        return float(found.sum() if self.norm == "l1" else self._counts(design) @ found**2)

    def _counts(self, design: Design) -> Array:
        """(N,) what the square of each row counts: 1 / log_width of a level, which makes their sum an integral."""
        if self.bound is not None:
            return np.ones(1)
        design.set_to_reference()
        rows = [_flat(row) for row, _ in self._rows(design)]
        if not isinstance(self.what.what, (BoxConstraint, Monotone)):
            return np.ones(sum(row.size for row in rows))
        return np.concatenate([1 / design.log_width[_first_levels(row, design)] for row in rows])

    def value(self, design: Design, point: Point) -> float:
        return float(self.price * self._amount(design, point))

    def constant(self, design: Design, point: Point) -> float:
        return 0.0

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {self.name: self.value(design, point)}

    def remarks(self, design: Design, point: Point) -> list[str]:
        violation = self.violation(design, point)
        if violation <= 1e-9 * self._scale(design, point):
            return [f"'{self.what.name}' is met (its price would allow a violation)"]
        return [f"'{self.what.name}' is violated by {violation:.6g}, which costs {self.value(design, point):.6g}"]

    def _scale(self, design: Design, point: Point) -> float:
        if self.bound is not None:
            return abs(self.bound.limit) + float(self.values(design, point)[0])
        design.set(point)
        return max(float(row_size(_flat(row), 0.0).max()) for row, _ in self._rows(design))

    def _rows(self, design: Design) -> list[tuple[cp.Expression, bool]]:
        """(expression that must be <= 0, whether it must be 0) of each row of a constraint."""
        rows = stated_rows(self.what, design)
        own = {variable.id for variable in design.variables}
        for row in rows:
            if isinstance(row, cp.Constraint) and not {variable.id for variable in row.variables()} <= own:
                raise TypeError(f"{self.name} uses variables that are not the design's: {clipped(str(row))}")
        return [_standard(self.name, row) for row in rows]

    def _violations(self, design: Design) -> list[cp.Expression]:
        if self.bound is not None:
            return [cp.pos(self.bound.term.expression(design) - self.bound.limit)]
        return [cp.abs(row) if both else cp.pos(row) for row, both in self._rows(design)]

    def expression(self, design: Design) -> cp.Expression:
        found = cp.hstack([_flat(v) for v in self._violations(design)])
        if self.norm == "l1":
            return self.price * cp.sum(found)
        return self.price * cp.sum_squares(cp.multiply(np.sqrt(self._counts(design)), found))

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """v >= left - right and v >= 0 (-v <= left - right for equalities), in units of the rows' sizes."""
        inner, sizes, over, under = self._declared(design)
        v = cp.Variable(over.size, name="violation")
        if self.norm == "l1":
            return self.price * (sizes @ v), [v >= over, v >= under, *inner]
        roots = np.sqrt(self._counts(design)) * sizes
        cost = cp.sum_squares(cp.multiply(roots / roots.max(), v))
        return self.price * roots.max() ** 2 * cost, [v >= over, v >= under, *inner]

    def _declared(self, design: Design) -> tuple[tuple[cp.Constraint, ...], Array, cp.Expression, cp.Expression]:
        """Constraints of the parts, (N,) sizes, and what each violation must exceed over its size."""
        if self.bound is not None:
            part: Declared = declared(self.bound.term, design)
            size = max(abs(self.bound.limit), part.moving if np.isfinite(part.moving) else 0.0) or 1.0
            excess = cp.reshape((part.expression - self.bound.limit) / size, (1,), order="C")
            return part.auxiliary, np.array([size]), excess, cp.Constant(np.zeros(1))
        design.set_to_reference()
        rows = [(_flat(row), both) for row, both in self._rows(design)]
        sizes = [np.full(row.size, row_size(row, 0.0).max()) for row, _ in rows]
        over = cp.hstack([row / size[0] for (row, _), size in zip(rows, sizes, strict=True)])
        under = cp.hstack([
            -row / size[0] if both else np.zeros(row.size) for (row, both), size in zip(rows, sizes, strict=True)
        ])  # fmt: skip
        return (), np.concatenate(sizes), over, under

    def sensitivities(
        self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]
    ) -> list[tuple[float, Term, Mapping[str, Array]]]:
        found: dict[str, Array] = {f"{self.name} price": np.array(self.value(design, point) / (self.price or 1.0))}
        if self.bound is None:
            return [(1.0, self, found)]
        slope = self.price * self._slopes(auxiliary, design, point)[0]
        found[f"{self.name} limit"] = np.array(-slope[0])
        return [(1.0, self, found), *weighted_sensitivities(slope, self.inside, design, point, auxiliary[2:])]

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """price v >= w price (left - right) for every share w in [0, 1]; of the square, a tangent."""
        slopes, constant = self._slopes(auxiliary, design, point)
        slopes, constant = weight * self.price * slopes, weight * self.price * constant
        bound.constant += constant
        if self.bound is not None:
            bound.constant -= float(slopes[0]) * self.bound.limit
            return tried(bound, slopes, self.inside, point, design, auxiliary[2:])
        try:
            rows = cp.hstack([_flat(row) for row, _ in self._rows(design)])
            tangent_into(bound, rows, slopes, point, design)
        except ConvexityError:  # a function without a gradient
            bound.constant = -np.inf
        return True

    def _slopes(self, auxiliary: Sequence[cp.Constraint], design: Design, point: Point) -> tuple[Array, float]:
        """(N,) slope in each row and a constant, of a linear function below the penalty without its price."""
        signed, both = self._signed_excess(design, point)
        if self.norm == "squared":
            counts = self._counts(design)
            design.set(point)
            return 2 * counts * signed, -float(counts @ signed**2)
        shares = _shares(dual_of(auxiliary[0]), dual_of(auxiliary[1])) if len(auxiliary) > 1 else None
        over, under = ((signed > 0).astype(float), (signed < 0).astype(float)) if shares is None else shares
        return over - np.where(both, under, 0.0), 0.0

    def _signed_excess(self, design: Design, point: Point) -> tuple[Array, Mask]:
        """(N,) violation of each row, with the sign of the side that is too large, and whether it has two."""
        if self.bound is not None:
            return np.maximum(self.values(design, point) - self.bound.limit, 0.0), np.zeros(1, dtype=bool)
        design.set(point)
        rows = [(np.ravel(np.asarray(row.value)), both) for row, both in self._rows(design)]
        signed = [value if both else np.maximum(value, 0.0) for value, both in rows]
        return np.concatenate(signed), np.concatenate([np.full(value.size, both) for value, both in rows])


def _shares(first: Array | None, second: Array | None) -> tuple[Array, Array] | None:
    """Two duals as shares of their sum, which is the price in the solver's unit."""
    if first is None or second is None:
        return None
    total = first + second
    total = np.where(total > 0, total, 1.0)
    return first / total, second / total


def _first_levels(row: cp.Expression, design: Design) -> Indices:
    """(N,) the first level that each entry of an affine row speaks of."""
    touched = sum(abs(sparse.csr_array(slopes)) for slopes in jacobians(row, design))
    return np.asarray((touched.toarray() > 0).argmax(axis=0), dtype=np.intp)


def _flat(expression: cp.Expression) -> cp.Expression:
    return cp.reshape(expression, (expression.size,), order="C")


def _standard(name: str, row: Any) -> tuple[cp.Expression, bool]:
    """Expression that must be <= 0, and whether it must be 0."""
    if isinstance(row, cp.constraints.Inequality):
        expression, both = row.args[0] - row.args[1], False
    elif isinstance(row, cp.constraints.Equality):
        expression, both = row.args[0] - row.args[1], True
    elif isinstance(row, cp.constraints.SOC):
        expression, both = cp.norm(row.args[1], 2, axis=row.axis) - row.args[0], False
    else:
        raise TypeError(
            f"{name}: {row!r} has no violation to price; state it with <=, >=, == or as a second-order cone."
        )
    if not row.is_dcp():
        raise ConvexityError(f"{clipped(name)} is not convex in (examples, steps): {blamed(expression)}.")
    return expression, both
