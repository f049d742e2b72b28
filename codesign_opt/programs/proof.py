"""From a solver's answer to a proof: collect the leaves of the Lagrangian and ask the certificate."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..basics.checks import Array
from ..basics.errors import ConvexityError
from ..certificate.lagrangian import LagrangianBound
from ..certificate.verdict import Certificate
from ..modeling.design import Box, Design, Point
from ..modeling.gradients import tangent_into
from ..modeling.own_variables import own_variables
from .budget import Budget
from .compiled import Compiled, Leaf
from .information_proof import equivalence_bound
from .rows import PLACEHOLDER, Row
from .scaling import as_stated, scaled_expression

__all__ = ["add_leaf", "certify", "empty_bound", "lagrangian", "raised", "relative_gap", "tighten_box", "valued"]

_RESOLVED = 1e-6  # of the whole: a part below is not resolved to a millionth of itself
_DIGITS, _CHANGED, _NOTICED = 1e-4, 0.01, 0.1  # see _noticed
_NEAR = 1e-2  # of the objective's size: further from what is needed a bound is not for roundings
_RAISED = (1e-7, 4e-7)  # relative errors of a conic solver's multipliers, below the tolerance that answers are given


@dataclass(frozen=True, eq=False)
class Value:
    """Objective at the candidate, and the part of it that no design changes."""

    total: float
    constant: float
    resolution: float = 0.0

    @property
    def scale(self) -> float:
        # relative to what a design can change; times a tolerance of 1e-6 the share of 1e-6 is 1e-12 of the whole:
        # smaller differences are rounding of sums and of multipliers, and no certificate can resolve them
        return max(abs(self.total - self.constant), _RESOLVED * abs(self.total), self.resolution, 1e-300)


def certify(
    compiled: Compiled,
    multipliers: Sequence[Array],
    point: Point,
    tolerance: float,
    *,
    tangent: Point | None = None,
    conic: float = -np.inf,
) -> Certificate:
    """The better of the bounds that apply, with the candidate's feasibility in user units.

    Tangents of the terms are taken at `tangent`, at the candidate unless given; `conic` is a bound from the conic dual.
    """
    compiled.set(point)
    infeasibility = compiled.infeasibility(point)
    pairs = list(zip(compiled.rows, multipliers, strict=True))
    price = sum(float(np.abs(y) @ row.excess(point)) for row, y in pairs if not row.box)
    value = valued(compiled, point)
    bounds = [(conic, "conic dual")]
    design = compiled.design
    alone = design.fixed_steps and not design.samplings  # only examples are decided
    if alone and any(leaf.term.as_information is not None for leaf in compiled.leaves):
        bounds.append((_equivalence(compiled, point), "equivalence theorem"))
    enough = value.total + price - tolerance * value.scale
    if not max(bounds)[0] >= enough:
        near = enough - _NEAR * value.scale
        separable = _separable(compiled, multipliers, point if tangent is None else tangent, enough, near)
        bounds.append((separable, "separable Lagrangian"))
    lower, method = max(bounds)
    if all(_at_least_constant(leaf) for leaf in compiled.leaves):
        lower = max(lower, value.constant)
    lower = max(lower, _least_cost(compiled, point))
    gap = relative_gap(value.total, lower, value.scale, price=price, tolerance=tolerance)
    return Certificate(value.total, lower, gap, infeasibility, tolerance, method)


def _at_least_constant(leaf: Leaf) -> bool:
    """Whether a leaf is nowhere below its constant: an error, or a function of the user's that is nowhere negative."""
    return leaf.term.monotone or (not leaf.term.scales_itself and leaf.weight >= 0 and leaf.expression.is_nonneg())


def _least_cost(compiled: Compiled, point: Point) -> float:
    """What the floors alone cost, where the objective is a price of each thing; -inf for any other.

    Where the optimum is to buy nothing a gap relative to its cost leaves no room for a rounding of the bound.
    """
    design, box, least = compiled.design, compiled.box, 0.0
    low = (np.maximum(box.examples_low - point.spent, 0.0), box.steps_low)
    for weight, term in compiled.terms:
        prices = term.linear_prices(design)
        if prices is None or any(np.any(weight * price < 0) for price in prices[:2]):
            return -np.inf
        amounts = (
            point.new_examples if design.fixed_examples else low[0],
            point.steps if design.fixed_steps else low[1],
        )
        least += weight * float(prices[2] + prices[0] @ amounts[0] + prices[1] @ amounts[1])
    return least


def raised(certificate: Certificate, compiled: Compiled, point: Point, lower: float) -> Certificate:
    """The same candidate against a higher lower bound of the same program."""
    gap = certificate.relative_gap - (lower - certificate.lower_bound) / valued(compiled, point).scale
    return replace(certificate, lower_bound=lower, relative_gap=float(gap))


def relative_gap(value: float, lower: float, scale: float, *, price: float = 0.0, tolerance: float) -> float:
    """(value + price of violations - lower bound) / scale; inf where one of them is not finite.

    Below the bound by more than the tolerance lies no feasible point, however dear the violations are that made it
    so: then the gap is the negative one, without their price.
    """
    if not (np.isfinite(value) and np.isfinite(lower)):
        return np.inf
    bare = (value - lower) / scale
    return float(bare if bare < -tolerance else bare + price / scale)


def valued(compiled: Compiled, point: Point) -> Value:
    """The objective at a point, and what its gap is held against."""
    design = compiled.design
    found = Value(
        _objective(compiled, point),
        sum(leaf.weight * leaf.term.constant(design, point) for leaf in compiled.leaves),
        sum(leaf.weight * leaf.term.resolution(design, point) for leaf in compiled.leaves),
    )
    most = _DIGITS * abs(found.total)
    return (
        found if found.scale >= most else replace(found, resolution=min(_noticed(compiled, point, found.total), most))
    )


def _objective(compiled: Compiled, point: Point) -> float:
    return sum(leaf.weight * compiled.value(leaf.term, point) for leaf in compiled.leaves)


def _noticed(compiled: Compiled, point: Point, total: float) -> float:
    """A tenth of what the objective changes where every amount is a per cent off, up or down in turn.

    A penalty that can be avoided altogether, beside an error that no design changes, leaves nothing at the optimum that
    a gap could be relative to. Then it is held against what a small change of the design costs, and ten digits of the
    whole are enough. Elsewhere this is some thousandths of what the design can change, and counts for nothing.
    """
    design = compiled.design
    signs = np.where(np.arange(len(design)) % 2 == 0, 1.0, -1.0)
    found = []
    for sign in (signs, -signs):
        factor = 1 + _CHANGED * sign
        changed = Point(
            point.new_examples if design.fixed_examples else factor * point.new_examples,
            point.spent,
            point.steps if design.fixed_steps else factor * point.steps,
            {name: factor * steps for name, steps in point.samplings.items()},
        )
        found.append(abs(_objective(compiled, changed) - total))
    compiled.set(point)
    return _NOTICED * min((change for change in found if np.isfinite(change)), default=0.0)


def _separable(compiled: Compiled, multipliers: Sequence[Array], point: Point, enough: float, near: float) -> float:
    """The Lagrangian's bound, with multipliers raised by as much as a conic solver rounds where they fall short.

    Where a part is linear, by its tangent, a multiplier too small by a rounding makes every level too dear to leave
    alone, and each costs the bound that rounding; raised multipliers cost it once. -inf where something has no
    gradient at the point: the conic dual needs none. Where the tangent at a kink leaves a bound that is not `near`
    what is needed, roundings are not what is missing.
    """
    lower = -np.inf
    for rounding in (0.0, *_RAISED):
        raised = [multiplier * (1 + rounding) for multiplier in multipliers]
        with contextlib.suppress(ConvexityError):
            lower = max(lower, lagrangian(compiled, raised, point).value())
        if lower >= enough or (compiled.kinked and not lower >= near):
            break
    return lower


def lagrangian(compiled: Compiled, multipliers: Sequence[Array], point: Point) -> LagrangianBound:
    """The Lagrangian at these multipliers, each leaf exact or by its tangent at `point` (section 8)."""
    design = compiled.design
    bound = empty_bound(compiled.box, design, point)
    for leaf in compiled.leaves:
        add_leaf(bound, leaf, design, point)
    for row, multiplier in zip(compiled.rows, multipliers, strict=True):
        tighten_box(bound, row, design)
        if row.box:
            continue
        if row.budget is not None and not design.samplings:
            _add_budget(bound, row.budget, float(multiplier[0]))
            continue
        if row.bound is None:
            if own_variables([row.stated], design):
                continue  # no tangent without the values of its own variables; a row left out is a bound too
            tangent_into(bound, row.expression, multiplier, point, design)
            continue
        for index, (weight, term) in enumerate(row.bound.term.leaves()):
            own = row.own[index] if row.own else ()
            add_leaf(bound, Leaf(float(multiplier[0]) * weight, term, PLACEHOLDER, own), design, point)
        bound.constant -= float(multiplier[0]) * row.bound.limit
    return bound


def _add_budget(bound: LagrangianBound, budget: Budget, multiplier: float) -> None:
    """The price of a design less the limit, around the candidate, where what is left is known to all digits."""
    examples, steps = bound.origin
    left = budget.left(examples, steps)
    bound.add_around(-multiplier * left, multiplier * budget.example, multiplier * budget.step)


def empty_bound(box: Box, design: Design, point: Point) -> LagrangianBound:
    bound = LagrangianBound(
        len(design),
        point.spent,
        fixed_examples=point.new_examples if design.fixed_examples else None,
        fixed_steps=point.steps if design.fixed_steps else None,
    )
    low = np.maximum(box.examples_low - point.spent, 0.0)
    bound.examples_box = (low, np.maximum(box.examples_high - point.spent, low))
    bound.steps_box = (box.steps_low, box.steps_high)
    for name in design.samplings:
        own = LagrangianBound(len(design), point.spent, fixed_examples=bound.fixed_examples)
        own.examples_box, own.candidate = bound.examples_box, (point.new_examples, point.of(name).steps)
        bound.samplings[name] = own
    bound.candidate = (point.new_examples, point.steps)
    return bound


def add_leaf(bound: LagrangianBound, leaf: Leaf, design: Design, point: Point) -> None:
    """A weighted term: exact where it is linear or knows a bound of its own, else by its tangent."""
    weight, term, expression, auxiliary = leaf
    if weight == 0:
        return
    prices = term.linear_prices(design)
    if prices is not None:
        example, step, final = prices
        bound.add_linear(weight * final, weight * example, weight * step)
    elif not term.add_solved(bound, weight, point, design, auxiliary):
        if expression is PLACEHOLDER:
            expression = scaled_expression(term, design)[0]
        stated = as_stated(term, expression, design)
        if own_variables([stated], design):
            bound.constant = -np.inf  # no tangent without the values of its own variables
            return
        try:
            tangent_into(bound, stated, np.array([weight]), point, design)
        except ConvexityError as error:
            raise ConvexityError(f"{term.name}: {error}") from None


def tighten_box(bound: LagrangianBound, row: Row, design: Design) -> None:
    """What a budget alone implies for one level: m <= room / c, n <= room / k."""
    budget = row.budget
    if budget is None:
        return
    room = budget.left(
        design.reference.new_examples if design.fixed_examples else None,
        design.reference.steps if design.fixed_steps else None,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        most_examples = np.where(budget.example > 0, max(room, 0.0) / budget.example, np.inf)
        most_steps = np.where(budget.step > 0, max(room, 0.0) / budget.step, np.inf)
    bound.examples_box = (bound.examples_box[0], np.minimum(bound.examples_box[1], most_examples))
    for own in bound.samplings.values():
        own.examples_box = bound.examples_box
    bound.steps_box = (bound.steps_box[0], np.minimum(bound.steps_box[1], most_steps))


def _equivalence(compiled: Compiled, point: Point) -> float:
    """Bound for shared parameters where only examples are decided: the other terms apart, then a linear program."""
    design = compiled.design
    others = empty_bound(compiled.box, design, point)
    for leaf in compiled.leaves:
        if leaf.term.as_information is None:
            add_leaf(others, leaf._replace(auxiliary=()), design, point)
    for row in compiled.rows:
        tighten_box(others, row, design)
    return equivalence_bound(compiled, others, point)
