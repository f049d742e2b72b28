"""Terms made of other terms: what they share, and how the duals of their own rows bound them.

A maximum, an average of the worst, a penalty or a distance is the largest of many combinations of its parts,
f(x) = max over w in W of sum_i w_i f_i(x). Every w in W gives a lower bound, sum_i w_i f_i, in which each part
enters as exactly as it would on its own; the duals of the rows that declare the term are the w that attain the
optimum, to more digits than a candidate shows (docs/theory.md section 8.1, 8).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..basics.errors import ConvexityError
from ..certificate.lagrangian import LagrangianBound
from .algebra import Term
from .design import Design, Point
from .extension import leaves_as_stated
from .gradients import tangent_into
from .own_variables import own_variables, stated_pair

__all__ = [
    "Composite",
    "Declared",
    "add_part",
    "declared",
    "dual_of",
    "merged_level_parts",
    "rescaled",
    "tried",
    "weighted_sensitivities",
]


class Declared(NamedTuple):
    """One part of a composite term: its expression, its own constraints, its value and constant at the reference."""

    expression: cp.Expression
    auxiliary: tuple[cp.Constraint, ...]
    value: float
    constant: float

    @property
    def base(self) -> float:
        """What the design can't change, where it is any: what 1e300 examples leave is rounding."""
        return self.constant if abs(self.constant) > 1e-12 * abs(self.value) else 0.0

    @property
    def moving(self) -> float:
        """Size of what the design can change."""
        size = abs(self.value - self.constant)
        return size if np.isfinite(size) and size > 0 else max(abs(self.value), 1e-300)


def declared(term: Term, design: Design) -> Declared:
    """A part, declared leaf by leaf in units of order one."""
    expression: cp.Expression = cp.Constant(0.0)
    auxiliary: list[cp.Constraint] = []
    for weight, leaf in leaves_as_stated(term, design):
        own, constraints = design.declared(leaf)
        expression = expression + weight * own
        auxiliary += constraints
    return Declared(expression, tuple(auxiliary), *_sizes(term, design, design.reference))


def _sizes(term: Term, design: Design, point: Point) -> tuple[float, float]:
    leaves = leaves_as_stated(term, design)
    value = sum(weight * leaf.value(design, point) for weight, leaf in leaves)
    return value, sum(weight * leaf.constant(design, point) for weight, leaf in leaves)


def dual_of(constraint: cp.Constraint) -> Array | None:
    """The multipliers of a solved row, >= 0; None where there are none."""
    dual = constraint.dual_value
    if dual is None:
        return None
    values = np.ravel(np.asarray(dual, dtype=np.float64))
    return np.maximum(values, 0.0) if np.all(np.isfinite(values)) else None


def rescaled(duals: Array | None, most: Array) -> Array | None:
    """Duals as weights that sum to 1, none above `most`: their scale, the unit of the objective, cancels."""
    if duals is None or not duals.sum() > 0:
        return None
    weights = np.minimum(duals / duals.sum(), most)
    room = most - weights
    missing = 1.0 - weights.sum()
    if missing > 0 and np.all(np.isfinite(room)) and room.sum() > 0:
        weights = weights + room * min(1.0, missing / room.sum())
    return weights


def tried(bound: LagrangianBound, weights: Array, parts: Sequence[Term], point: Point, design: Design,
          auxiliary: Sequence[cp.Constraint]) -> bool:  # fmt: skip
    """Add sum_i weights_i parts_i, each as exactly as it knows to; where one can't be, the bound is -infinity.

    A tangent of the whole would not do instead: of the variables that declare it, it knows nothing.

    Args:
        auxiliary: the constraints of all parts, one after the other; empty for none.
    """
    rest = list(auxiliary)
    try:
        for weight, part in zip(weights, parts, strict=True):
            for factor, leaf in leaves_as_stated(part, design):
                own = rest[: _length(leaf, design)] if rest else []
                del rest[: len(own)]
                add_part(bound, float(weight) * factor, leaf, point, design, own)
    except ConvexityError:
        bound.constant = -np.inf
    return True


def weighted_sensitivities(
    weights: Array,
    parts: Sequence[Term],
    design: Design,
    point: Point,
    auxiliary: Sequence[cp.Constraint],
) -> list[tuple[float, Term, Mapping[str, Array]]]:
    """What sum_i weights_i parts_i says of its coefficients, as `Term.sensitivities` does."""
    found: list[tuple[float, Term, Mapping[str, Array]]] = []
    rest = list(auxiliary)
    for weight, part in zip(weights, parts, strict=True):
        for factor, leaf in leaves_as_stated(part, design):
            own = rest[: _length(leaf, design)] if rest else []
            del rest[: len(own)]
            inner = leaf.sensitivities(design, point, own) if weight > 0 else []
            found += [(float(weight) * factor * w, term, told) for w, term, told in inner]
    return found


def _length(leaf: Term, design: Design) -> int:
    """How many constraints a leaf declares."""
    return len(design.declared(leaf)[1])


def add_part(bound: LagrangianBound, weight: float, leaf: Term, point: Point, design: Design,
             auxiliary: Sequence[cp.Constraint]) -> None:  # fmt: skip
    """Add a weighted leaf as exactly as it knows to, else by its tangent.

    Raises:
        ConvexityError: neither can be done.
    """
    if weight == 0:
        return
    prices = leaf.linear_prices(design)
    if prices is not None:
        bound.add_linear(weight * prices[2], weight * prices[0], weight * prices[1])
    elif not leaf.add_solved(bound, weight, point, design, auxiliary):
        stated, rows = stated_pair(leaf, design)
        if own_variables([stated, *rows], design):
            raise ConvexityError(f"{leaf.name} has variables of its own; no tangent bounds it")
        tangent_into(bound, stated, np.array([weight]), point, design)


class Composite(Term):
    """A convex function of other terms, that rises with every one of them.

    A class states how its parts combine (`expression`, `formulation`, `add_solved`) and which they are (`inside`).
    """

    structured: ClassVar[bool] = True  # what is written here holds for the classes that derive from it
    scales_itself: ClassVar[bool] = True
    bounded_by_duals: ClassVar[bool] = True

    @property
    @abstractmethod
    def inside(self) -> tuple[Term, ...]:
        """The terms of which this one is made."""

    def components(self) -> Iterator[Term]:
        for term in self.inside:
            for _, leaf in term.leaves():
                yield leaf
                yield from leaf.components()

    @property
    def needs_examples(self) -> bool:
        return any(leaf.needs_examples for leaf in self.components())

    @property
    def nested(self) -> bool:  # type: ignore[override]
        """It rises with every part, so that it is nested where all are; a last step's price moves with the stop."""
        moving = (leaf.as_compute for leaf in self.components())
        return all(leaf.nested for leaf in self.components()) and not any(
            compute is not None and compute.part != "training" and callable(compute.prices.evaluation)
            for compute in moving
        )

    @property
    def majorised(self) -> bool:
        return any(leaf.majorised for leaf in self.components())

    @property
    def advice(self) -> str:
        return next((leaf.advice for leaf in self.components() if leaf.advice), "")

    def resolution(self, design: Design, point: Point) -> float:
        return max((leaf.resolution(design, point) for leaf in self.components()), default=0.0)

    def values(self, design: Design, point: Point) -> Array:
        """(N,) value of each term inside."""
        return np.array([_sizes(term, design, point)[0] for term in self.inside])

    def constants(self, design: Design, point: Point) -> Array:
        """(N,) what unlimited examples and steps leave of each."""
        return np.array([_sizes(term, design, point)[1] for term in self.inside])


def merged_level_parts(terms: Sequence[tuple[float, Term]], point: Point) -> Mapping[str, Array]:
    """What a weighted sum of terms says of each level; `served_weight` and `pooling` one below the other."""
    told: dict[str, Array] = {}
    served: list[Array] = []
    pools: list[Array | None] = []
    priors: list[Array] = []
    for weight, leaf in terms:
        parts = leaf.level_parts(point)
        for name in ("score", "floor", "discretization", "score_weight", "gain", "information_gain"):
            if name in parts:
                told[name] = told.get(name, 0.0) + weight * parts[name]
        for name in ("final_window", "prior_examples"):
            if name in parts:
                told[name] = parts[name]
        if "served_weight" in parts:
            served.append(weight * parts["served_weight"])
            pools.append(parts.get("pooling"))
            priors.append(parts.get("prior_examples", np.zeros(point.steps.size)))
    if any(pool is not None for pool in pools):
        told["served_weight"] = np.concatenate(served)
        told["served_prior"] = np.concatenate(priors)
        told["pooling"] = np.vstack([np.eye(point.steps.size) if pool is None else pool for pool in pools])
    elif served:
        told["served_weight"] = np.sum(served, axis=0)
    if any(np.any(prior != priors[0]) for prior in priors):
        told["prior_examples"] = one_prior(told["score_weight"], told["score"], point.examples)
    return told


def one_prior(weights: Array, errors: Array, examples: Array) -> Array:
    """(L,) m0 with weights / (m0 + examples) = errors: of terms whose own m0 differ, at these examples."""
    served = np.divide(weights, errors, out=np.zeros_like(weights), where=errors > 0)
    return np.maximum(served - examples, 0.0)
