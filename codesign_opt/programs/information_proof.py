"""Lower bound for shared parameters where only examples are decided: the equivalence theorem and a linear program.

docs/theory.md sections 7.5 and 8.1. It needs no multipliers and finds the best that the tangents of the information
errors at one Y prove over all feasible examples. Where steps are decided too, or examples enter other terms than
these, the errors join the separable Lagrangian instead (certificate/lagrangian.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from ..basics.checks import Array
from ..certificate.lagrangian import LagrangianBound
from ..modeling.design import Design, Point
from ..modeling.information import InformationError
from .compiled import Compiled, Leaf
from .rows import linearise

__all__ = ["equivalence_bound"]


class Trial(NamedTuple):
    """One information error of the objective: its weight, the term, and the (P, r) Y that its bound is made of."""

    weight: float
    term: InformationError
    solution: Array


def equivalence_bound(compiled: Compiled, others: LagrangianBound, point: Point) -> float:
    """The better bound of the Y there are; -inf where the program is not one over examples alone.

    Args:
        compiled: the program, whose variables are moved.
        others: its other terms; the linear ones enter, any other makes the bound -inf.
        point: the candidate.
    """
    curved = others.parts or others.powers or others.has_logs or others.information
    if curved or not compiled.design.fixed_steps or any(row.auxiliary for row in compiled.rows):
        return -np.inf
    polyhedron = _polyhedron(compiled, point)
    examples, steps = others.origin
    before = float(others.steps_price @ (point.steps - steps)) - float(others.examples_price @ examples)
    tangent = (others.constant + before, others.examples_price)
    return max(
        _bound(trials, point, tangent, polyhedron, others.examples_box)
        for trials in _trials(compiled.leaves, compiled.design, point)
    )


def _polyhedron(compiled: Compiled, point: Point) -> tuple[Array, Array]:
    """(J, limit) with J m <= limit for every feasible m: the rows by their tangents at the candidate."""
    design = compiled.design
    jacobian, limits = [], []
    for row in compiled.rows:
        if row.box:
            continue
        for index in range(row.size.size):
            unit = np.zeros(row.size.size)
            unit[index] = 1 / row.size[index]
            design.set(point)
            value, slope, _ = linearise(row.stated, design, unit)
            for sign in (1.0, -1.0) if row.equality else (1.0,):
                jacobian.append(sign * slope)
                limits.append(sign * (float(slope @ point.new_examples) - value))
    return np.array(jacobian).reshape(-1, len(design)), np.array(limits)


def _trials(leaves: Sequence[Leaf], design: Design, point: Point) -> list[list[Trial]]:
    """Y of every information error at the candidate, and from the duals of the declared equalities where there are."""
    at_candidate, from_duals = [], []
    for leaf in leaves:
        term = leaf.term.as_information
        if term is None or leaf.weight == 0:
            continue
        at_candidate.append(Trial(leaf.weight, term, term.solution(point.examples)))
        dual = term.dual_solution(leaf.auxiliary, design.reference.examples)
        if dual is not None:
            from_duals.append(Trial(leaf.weight, term, dual / leaf.weight))
    return [at_candidate, from_duals] if len(from_duals) == len(at_candidate) else [at_candidate]


def _bound(
    trials: Sequence[Trial],
    point: Point,
    tangent: tuple[float, Array],
    polyhedron: tuple[Array, Array],
    box: tuple[Array, Array],
) -> float:
    """Lower bound for shared parameters: tangents of the errors, then a linear program over the examples.

    For any Y and t, f(m) >= 2 t <G,Y> - t^2 (<Y,M0 Y> + sum m_l g_l): linear in m. The best t gives
    f >= <G,Y>^2 / (<Y,M0 Y> + max sum m_l g_l), the equivalence theorem's bound (docs/theory.md section 7).
    A weighted sum of errors has weighted sums in the place of each of these.

    Args:
        trials: every information error with its Y: M^-1 G at the candidate, or the dual of the declared
            equality. They count up to a factor common to all.
        point: the candidate.
        tangent: constant and gradient of the objective's other terms.
        polyhedron: (J, limit) with J m <= limit for every feasible m.
        box: bounds of the new examples.
    """
    gains, overlap, prior = np.zeros(point.spent.size), 0.0, 0.0
    for weight, term, solution in trials:
        gains = gains + weight * term.gains(solution)
        overlap += weight * float(np.sum(term.response * solution))
        if term.prior is not None:
            prior += weight * float(np.sum(solution * (term.prior @ solution)))
    prior += float(gains @ point.spent)
    constant, gradient = tangent
    if np.any(gradient != 0):
        seen = prior + float(gains @ point.new_examples)
        t = overlap / seen if seen > 0 else 0.0
        least = _linear_minimum(gradient - t**2 * gains, polyhedron, box)
        return constant + 2 * t * overlap - t**2 * prior + least
    most = -_linear_minimum(-gains, polyhedron, box)
    return constant + (overlap**2 / (prior + most) if overlap > 0 else 0.0)


def _linear_minimum(cost: Array, polyhedron: tuple[Array, Array], box: tuple[Array, Array]) -> float:
    """Rigorous lower bound of min cost . m over J m <= limit and the box, from the program's own duals."""
    jacobian, limit = polyhedron
    low, high = box
    unit = np.where(np.isfinite(high), np.maximum(high, 1e-300), 1.0)
    scale = float(np.max(np.abs(cost * unit))) or 1.0
    bounds = [(lo / u, None if not np.isfinite(hi) else hi / u) for lo, hi, u in zip(low, high, unit, strict=True)]
    solved = linprog(cost * unit / scale, A_ub=jacobian * unit, b_ub=limit, bounds=bounds, method="highs")
    if solved.status != 0 or solved.ineqlin is None:
        return -np.inf
    price = np.maximum(-np.asarray(solved.ineqlin.marginals), 0.0) * scale
    reduced = cost + price @ jacobian
    corner = np.where(reduced >= 0, low, high)
    with np.errstate(invalid="ignore"):
        per_level = np.where(reduced == 0, 0.0, reduced * corner)
    return float(per_level.sum() - price @ limit)
