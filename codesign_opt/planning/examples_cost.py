"""What grids leave with the examples held: an upper bound of what the best examples leave, and its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps
from ..models.coefficients import examples_worth
from ..models.grid_descent import Cost, GridResiduals, NodeErrors, Which, positive_nodes
from ..results.plan import Plan
from .question import Study
from .saturation import density_for, saturated

__all__ = ["BestExamples", "ExamplesAt", "ExamplesCost", "HeldExamples", "along"]

_LEAST = 1e-9  # of the largest density, where 1 / density is asked for
_BELOW = 20.0  # in log sigma, how far below its levels a density goes on
_SHIFT = 1e-6
_NO_ERROR = 1e-13  # of the largest error of a step: a step without any gets examples for the last evaluation alone
_TURNS, _SOLVED = 60, 1e-7  # of Newton's method for the share of the last evaluation, until its equation holds
_WIDEST = 60.0  # of the logarithm of that share over the rest
_LEAP = 8.0


@dataclass(frozen=True, eq=False)
class ExamplesCost:
    """Score error and floor of grids with the examples of a settled one (docs/theory.md section 7.8).

    Args:
        study: the question; its model knows the errors of nodes.
        plan: the settled plan of the examples; None where none are decided and the floor alone counts.
        scale: what its new examples are multiplied with, where other money trains; those of a run stay.
    """

    study: Study
    plan: Plan | None = None
    scale: float = 1.0

    def held(self, sigmas: Array) -> HeldExamples:
        """The examples as so many per unit log sigma on each step of grids (..., K+1)."""
        logs = np.log(positive_nodes(sigmas))
        if self.plan is None:
            return HeldExamples(self.study, logs, np.zeros_like(logs[..., 1:]), np.zeros_like(logs[..., 1:]))
        edges = np.log(self.plan.levels.edges)
        density = self._examples / self.plan.levels.log_width
        inverse = 1.0 / np.maximum(density, _LEAST * float(density.max()))
        # below its levels the density goes on as on the lowest
        edges = np.concatenate([[edges[0] - _BELOW], edges])
        inverse = np.concatenate([inverse[:1], inverse])
        until = np.interp(logs, edges, np.concatenate([[0.0], np.cumsum(np.diff(edges) * inverse)]))
        inverse = (until[..., :-1] - until[..., 1:]) / (logs[..., :-1] - logs[..., 1:])
        # of the examples on a step those of a run cost nothing
        price = self.plan.tables["example_price"] * self._new / np.maximum(self._examples, 1e-300)
        worth = self.worth * np.interp(0.5 * (logs[..., :-1] + logs[..., 1:]), np.log(self.plan.levels.sigma), price)
        return HeldExamples(self.study, logs, inverse, worth)

    @property
    def _new(self) -> Array:
        """(L,) examples that are paid for."""
        assert self.plan is not None
        return np.asarray(self.scale * self.plan.new_examples)

    @property
    def _examples(self) -> Array:
        """(L,) all examples."""
        assert self.plan is not None
        return np.asarray(self.plan.examples - self.plan.new_examples + self._new)

    @property
    def worth(self) -> float:
        """Error per unit of money: what each level removes with one more, which falls as (p + m)^-2 beside a prior of
        p examples, averaged over the money; where all is new and nothing else binds, the error over the money."""
        assert self.plan is not None
        tables, prior = self.plan.tables, self.plan.tables.get("prior_examples", 0.0)
        money = tables["example_price"] * self._new
        fell = (prior + self.plan.examples) / np.maximum(prior + self._examples, 1e-300)
        bought = money > 0
        gain = tables["marginal_gain"][bought] * fell[bought] ** 2
        return float(money[bought] @ gain / money[bought].sum()) if bought.any() else 0.0

    @property
    def known_at(self) -> float | None:
        """The stopping point where the examples were worked out, far from which they say little; None without any."""
        return None if self.plan is None else float(self.plan.levels.edges[0])

    def value(self, sigmas: Array, sensitivity: Array | None = None) -> Array:
        """(...) what grids (..., K+1) leave; the sensitivity of their law where it is known."""
        return self.held(sigmas).value(sigmas, sensitivity)


@dataclass(frozen=True, eq=False)
class HeldExamples:
    """What grids leave while the density on each step is held, whatever the step's length, and its derivatives.

    At the grid that the density is the best for, this touches the error with the best examples from above, with the
    same slope: what longer steps take of the budget counts at the budget's worth. Descending it and settling the
    examples in turn never rises. (A density held as a function of sigma would jump at every node and pin it there.)

    Args:
        study: the question.
        logs: (..., P) log sigma of the positive nodes where the density is held.
        inverse: (..., P-1) 1 / density on each step.
        worth: (..., P-1) error per example on each step.
    """

    study: Study
    logs: Array
    inverse: Array
    worth: Array

    def value(self, sigmas: Array, sensitivity: Array | None = None) -> Array:
        """(...) the error that the examples and the floor leave, and what the moved steps take of the budget."""
        return self.at(sigmas, self.study.model.node_errors(sigmas, sensitivity)).values

    def of(self, sigmas: Array, which: Which, sensitivity: Array | None = None) -> ExamplesAt:
        """What grids (G, K+1) leave with those of the held examples that are named."""
        return self.among(which).at(sigmas, self.study.model.node_errors(sigmas, sensitivity), sensitivity)

    def among(self, which: Which) -> HeldExamples:
        """The examples of some of the grids."""
        return HeldExamples(self.study, self.logs[which], self.inverse[which], self.worth[which])

    def at(
        self, sigmas: Array, errors: NodeErrors, sensitivity: Array | None = None, shape: StepShape | None = None
    ) -> ExamplesAt:
        """What grids leave whose nodes have these errors, on steps of this shape where it is known."""
        shape = step_shape(self.study, np.log(positive_nodes(sigmas))) if shape is None else shape
        weights = shape.weights(self.inverse)
        if shape.ends:
            weights.reducible[..., -1] = self._last(shape.logs, shape.length[..., -1])
        values, tangent, weighed = saturated(weights, errors, ends=shape.ends)
        if self.logs is not shape.logs:  # else they are held where they are
            values = np.asarray(values + (self._taken * (np.diff(self.logs) - np.diff(shape.logs))).sum(axis=-1))
        return ExamplesAt(values, self, sigmas, sensitivity, _Tangent(shape, weights, tangent, weighed))

    @property
    def _taken(self) -> Array:
        """(..., P-1) error's worth of the examples per unit log sigma of each step."""
        return np.divide(self.worth, self.inverse, out=np.zeros(self.worth.shape), where=self.inverse > 0)

    def _last(self, logs: Array, length: Array) -> Array:
        """(...) 1 / m_r, of the examples within one correlation length above the stopping point; 0 without any."""
        overlap = _overlap(logs, length)
        near = np.divide(overlap, self.inverse, out=np.zeros(overlap.shape), where=self.inverse > 0).sum(axis=-1)
        return np.divide(1.0, near, out=np.zeros(near.shape), where=near > 0)

    def _last_slope(self, logs: Array, length: Array, weight: Array) -> Array:
        """(..., P) derivatives of `_last` by the nodes within one correlation length above the stopping point."""
        end = logs[..., -1:] + length[..., None]
        density = np.divide(1.0, self.inverse, out=np.zeros(self.inverse.shape), where=self.inverse > 0)
        by_node = np.zeros(logs.shape)
        by_node[..., :-1] += density
        by_node[..., 1:] -= density
        by_node[logs >= end] = 0.0
        reached = (logs[..., :-1] >= end) & (logs[..., 1:] < end)
        by_node[..., -1] += (density * reached).sum(axis=-1)
        return np.asarray(-(weight[..., None] ** 2) * by_node)

    def slope(self, through: Array, at: _Tangent) -> Array:
        """(..., P) derivatives by log sigma of the positive nodes, from those `through` the errors of nodes."""
        shape, errors, slope = at.shape, at.weighed, through.copy()
        by_step = self._taken + shape.by_step(errors, self.inverse)
        slope[..., :-1] += by_step
        slope[..., 1:] -= by_step
        slope += shape.by_length(errors, self.inverse)
        if shape.ends:
            last = at.weights.reducible[..., -1]
            slope += errors.reducible[..., -1:] * self._last_slope(shape.logs, shape.length[..., -1], last)
        return slope


class _Tangent(NamedTuple):
    """Of grids whose examples are held: the shape of their steps, what R, F and U of each node count, the same for the
    slope of the saturating law, and the errors to weigh with it."""

    shape: StepShape
    weights: NodeErrors
    tangent: NodeErrors
    weighed: NodeErrors

    def among(self, rows: Which) -> _Tangent:
        """Those of some of the grids."""
        return _Tangent(self.shape.among(rows), *(errors.among(rows) for errors in self[1:]))


@dataclass(frozen=True, eq=False)
class ExamplesAt:
    """What grids leave with examples that are held at their own densities; its derivatives where they are asked for.

    Args:
        values: (...) the error that examples and floor leave.
        held: the densities.
        sigmas, sensitivity: the grids (..., K+1), and the sensitivity of their law, or None.
        tangent: what the slope is made of.
    """

    values: Array
    held: HeldExamples
    sigmas: Array
    sensitivity: Array | None
    tangent: _Tangent

    def slopes(self, rows: Which) -> Array:
        """(R, P) derivatives by log sigma of the positive nodes, of some of grids (G, K+1)."""
        return self.with_residuals(rows)[1]

    def with_residuals(self, rows: Which) -> tuple[GridResiduals | None, Array]:
        """The residuals of those grids, which one gradient of the law tells beside the slopes."""
        sensitivity = None if self.sensitivity is None else self.sensitivity[rows]
        sigmas, tangent = self.sigmas[rows], self.tangent.among(rows)
        found, through = self.held.study.model.residuals_and_slope(sigmas, tangent.tangent, sensitivity)
        return found, self.held.among(rows).slope(through, tangent)


class StepShape(NamedTuple):
    """The steps of nodes beside their correlation lengths: with x the one over the other and phi = M(x) / x, an error
    counts phi / (length density), a floor phi.

    Args:
        logs: (..., P) log sigma of the nodes.
        length: (..., P) correlation lengths, and `lengthens` their relative derivatives by log sigma.
        longer: (..., P) x; the last node shares the step before it.
        phi, falls: (..., P) phi, and d phi / d x.
        ends: whether the last node is the last evaluation, which counts 1 / m_r and 1 whatever its step.
    """

    logs: Array
    length: Array
    lengthens: Array | None
    longer: Array
    phi: Array
    falls: Array
    ends: bool

    def among(self, rows: Which) -> StepShape:
        """Those of some of the grids."""
        lengthens = None if self.lengthens is None else self.lengthens[rows]
        longer, phi, falls = self.longer[rows], self.phi[rows], self.falls[rows]
        return StepShape(self.logs[rows], self.length[rows], lengthens, longer, phi, falls, self.ends)

    def weights(self, inverse: Array) -> NodeErrors:
        """What R and F of each node count; that of a last evaluation's R is not its own."""
        return NodeErrors(self._shared(inverse) * self.phi, self.phi)

    def by_step(self, errors: NodeErrors, inverse: Array) -> Array:
        """(..., P-1) derivatives by the lengths of the steps in log sigma."""
        each = (self._shared(inverse) * errors.reducible + errors.floor) * self.falls / self.length
        return of_steps(each, self.ends)

    def by_length(self, errors: NodeErrors, inverse: Array) -> Array | float:
        """(..., P) derivatives through the correlation lengths, where these depend on sigma."""
        if self.lengthens is None:
            return 0.0
        shared, rises = self._shared(inverse), self.falls * self.longer
        slope = -(shared * errors.reducible * (self.phi + rises) + errors.floor * rises) * self.lengthens
        if self.ends:
            slope[..., -1] = 0.0
        return np.asarray(slope)

    def _shared(self, inverse: Array) -> Array:
        return np.asarray(_with_last(inverse) / self.length)


def step_shape(study: Study, logs: Array) -> StepShape:
    """The shape of the steps of grids."""
    coupling, ends = study.model.coupling, bool(final_steps(study.model.terminal))
    length = _lengths(study, logs)
    lengthens = None
    if coupling.constant_length is None:
        lengthens = (np.log(_lengths(study, logs, _SHIFT)) - np.log(length)) / _SHIFT
    longer = _with_last(logs[..., :-1] - logs[..., 1:]) / length
    phi = coupling.factor(longer) / longer
    falls = (coupling.slope(longer) - phi) / longer
    if ends:
        phi[..., -1] = 1.0
    return StepShape(logs, length, lengthens, longer, phi, falls, ends)


def _lengths(study: Study, logs: Array, above: float = 0.0) -> Array:
    """(..., P) correlation lengths a little above the nodes of grids."""
    coupling = study.model.coupling
    if coupling.constant_length is not None:
        return np.full_like(logs, coupling.constant_length)
    rows = np.exp(logs.reshape(-1, logs.shape[-1]))
    moved = [coupling.lengths_at(row * np.exp(above), float(row[-1]), float(row[0])) for row in rows]
    return np.array(moved).reshape(logs.shape)


def _with_last(steps: Array) -> Array:
    """(..., P) from (..., P-1): the last node shares the step before it."""
    return np.concatenate([steps, steps[..., -1:]], axis=-1)


def _overlap(logs: Array, length: Array) -> Array:
    """(..., P-1) the part of each step within a length (...) above the last node, in log sigma."""
    below = np.minimum(logs, logs[..., -1:] + length[..., None])
    return np.asarray(below[..., :-1] - below[..., 1:])


@dataclass(frozen=True, eq=False)
class BestExamples:
    """What grids leave with the best examples for them, one density on each step, and its derivatives.

    With g_j the error of step j per 1 / density, o_j its part within one correlation length above the stopping point
    and p_j the price of a unit of density on it, least sum_j g_j / rho_j + R / sum_j o_j rho_j with
    sum_j p_j rho_j = money is at rho_j proportional to sqrt(g_j / (p_j - tau o_j)), where tau (sum_j o_j sqrt(...))^2
    = R: one root. The slope is that with the examples held (envelope theorem; docs/theory.md section 7.8).

    Args:
        study: the question, without constraints and examples of a run, at constant prices.
        money: what is left for training.
    """

    study: Study
    money: float

    def value(self, sigmas: Array, sensitivity: Array | None = None) -> Array:
        """(...) the least score error and the floor of grids (..., K+1); the sensitivity of their law where known."""
        return self.at(sigmas, sensitivity).values

    def held(self, sigmas: Array) -> Cost:
        """What descends from grids: itself, as the best examples are known for any."""
        return self

    @property
    def known_at(self) -> None:
        """None: the best examples are known at every stopping point."""
        return None

    def of(self, sigmas: Array, which: Which, sensitivity: Array | None = None) -> ExamplesAt:
        """What grids (G, K+1) leave."""
        return self.at(sigmas, sensitivity)

    def at(self, sigmas: Array, sensitivity: Array | None = None) -> ExamplesAt:
        """What grids (..., K+1) leave; the sensitivity of their law where it is known."""
        errors = self.study.model.node_errors(sigmas, sensitivity)
        shape = step_shape(self.study, np.log(positive_nodes(sigmas)))
        return self._best(errors, shape).at(sigmas, errors, sensitivity, shape)

    def _best(self, errors: NodeErrors, shape: StepShape) -> HeldExamples:
        logs, steps = shape.logs, shape.logs[..., :-1] - shape.logs[..., 1:]
        assert self.study.prices is not None
        price = float(self.study.prices.example) * steps  # type: ignore[arg-type]
        counted = shape.phi / shape.length * errors.reducible
        each, last, near = counted[..., :-1].copy(), np.zeros(logs.shape[:-1]), np.zeros(steps.shape)
        if shape.ends:
            last, near = errors.reducible[..., -1], _overlap(logs, shape.length[..., -1])
        else:
            each[..., -1] += counted[..., -1]
        least = _NO_ERROR * np.maximum(each.max(axis=-1), last)
        each = np.maximum(each, np.maximum(least, 1e-300)[..., None])
        if errors.untrained is not None:
            start = shape.phi * errors.untrained
            priors = of_steps(start, shape.ends), errors.untrained[..., -1]
            return self._beside_prior(logs, priors, (each, price, near), last)
        shares = _shares(each, price, near, last)
        spent = (price * shares).sum(axis=-1, keepdims=True)
        density = shares * self.money / spent
        return HeldExamples(self.study, logs, 1.0 / density, price / steps * (spent / self.money) ** 2)

    def _beside_prior(
        self, logs: Array, priors: tuple[Array, Array], terms: tuple[Array, Array, Array], last: Array
    ) -> HeldExamples:
        """The same where the untrained denoiser, of these errors on steps and at the end, is worth some density."""
        each, price, near = terms
        errors, untrained = (np.append(steps, end[..., None], axis=-1) for steps, end in ((each, last), priors))
        worth = examples_worth(errors, untrained)
        density, gain = density_for(each, worth[..., :-1], price, near, last, worth[..., -1], self.money)
        least = _LEAST * density.max(axis=-1, keepdims=True, initial=0.0)
        inverse = 1.0 / np.maximum(density, least)
        return HeldExamples(self.study, logs, inverse, price / (logs[..., :-1] - logs[..., 1:]) * gain[..., None])


def of_steps(nodes: Array, ends: bool) -> Array:
    """(..., P-1) from the nodes' (..., P): the last one's own, or on the last step with that of the node before."""
    steps = nodes[..., :-1].copy()
    steps[..., -1] += 0.0 if ends else nodes[..., -1]
    return steps


def _shares(each: Array, price: Array, near: Array, last: Array) -> Array:
    """(..., P-1) sqrt(g / (p - tau o)), what the densities are proportional to.

    With tau = s times the least p / o, log(tau (sum o sqrt(...))^2 / R) is nearly a straight line of slope one in
    log(s / (1 - s)), from one end to the other: Newton's method, kept between the ends that are known.
    """
    if not near.any():
        return np.sqrt(each / price)
    ratio = np.divide(price, near, out=np.full_like(price, np.inf), where=near > 0)
    taken = near * ratio.min(axis=-1, keepdims=True)  # of the price, at the largest tau
    left = np.maximum(price - taken, 0.0)
    scale = np.log(ratio.min(axis=-1) / np.maximum(last, 1e-300))
    at, low, high = np.zeros_like(scale), np.full_like(scale, -_WIDEST), np.full_like(scale, _WIDEST)
    for _ in range(_TURNS):
        share, rest = 1 / (1 + np.exp(-at)), 1 / (1 + np.exp(at))
        prices = left + rest[..., None] * taken
        roots = near * np.sqrt(each / prices)
        total = roots.sum(axis=-1)
        excess = scale + np.log(share) + 2 * np.log(total)
        solved = np.abs(excess) < _SOLVED
        if solved.all():
            break
        slope = rest + share * rest * (roots * taken / prices).sum(axis=-1) / total
        low, high = np.where(excess < 0, at, low), np.where(excess < 0, high, at)
        moved = at - np.minimum(np.maximum(excess / np.maximum(slope, 1e-300), -_LEAP), _LEAP)
        moved = np.where((moved <= low) | (moved >= high), 0.5 * (low + high), moved)
        at = np.where(solved, at, moved)
    found = np.sqrt(each / prices)
    return np.where(last[..., None] > 0, found, np.sqrt(each / price))


@dataclass(frozen=True, eq=False)
class _Along:
    """Costs c exp(g (x - x0) / c) from values c and slopes g at logs x0, powers of the nodes."""

    logs: Array
    at: Array
    rates: Array

    def of(self, sigmas: Array, which: Which, sensitivity: Array | None = None) -> _AlongAt:
        """Those of grids (G, K+1)."""
        steps = np.log(positive_nodes(sigmas)) - self.logs[which]
        rise = (self.rates[which] * steps).sum(axis=-1) / self.at[which]
        grown = np.exp(np.clip(rise, -50.0, 50.0))
        return _AlongAt(self.at[which] * grown, self.rates[which] * grown[:, None])


class _AlongAt(NamedTuple):
    values: Array
    rates: Array

    def slopes(self, rows: Which) -> Array:
        return self.rates[rows]

    def with_residuals(self, rows: Which) -> tuple[None, Array]:
        return None, self.rates[rows]


def along(cost: Cost, sigmas: Array) -> Cost:
    """A cost from its values and slopes at grids (G, K+1), in powers of the nodes."""
    everyone = np.arange(len(sigmas))
    found = cost.of(sigmas, everyone, None)
    known = _Along(np.log(positive_nodes(sigmas)), found.values, found.slopes(everyone))
    return known if (found.values > 0).all() else cost
