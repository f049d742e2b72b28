"""What a grid leaves with the examples held: an upper bound of what the best examples leave, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps
from ..models.coefficients import examples_worth
from ..models.grid_descent import Cost, NodeErrors
from ..results.plan import Plan
from .question import Study
from .saturation import density_for, saturated

__all__ = ["BestExamples", "ExamplesCost", "HeldExamples", "along"]

Slope = Callable[[NodeErrors], Array]

_LEAST = 1e-9  # of the largest density, where 1 / density is asked for
_BELOW = 20.0  # in log sigma, how far below its levels a density goes on
_SHIFT = 1e-6
_NO_ERROR = 1e-13  # of the largest error of a step: a step without any gets examples for the last evaluation alone
_INSIDE = 1e-13


@dataclass(frozen=True, eq=False)
class ExamplesCost:
    """Score error and floor of grids with the examples of a settled one (docs/theory.md section 7.8).

    Args:
        study: the question; its model knows the errors of nodes.
        plan: the settled plan of the examples; None where none are decided and the floor alone counts.
        scale: what the density is multiplied with, where other money trains.
        worth: error per unit of money.
    """

    study: Study
    plan: Plan | None = None
    scale: float = 1.0
    worth: float = 0.0

    def held(self, sigmas: Array) -> HeldExamples:
        """The examples as so many per unit log sigma on each step of a grid (K+1,)."""
        logs = np.log(sigmas[sigmas > 0])
        if self.plan is None:
            return HeldExamples(self.study, logs, np.zeros(logs.size - 1), np.zeros(logs.size - 1))
        edges = np.log(self.plan.levels.edges)
        density = self.scale * self.plan.examples / self.plan.levels.log_width
        inverse = 1.0 / np.maximum(density, _LEAST * float(density.max()))
        # below its levels the density goes on as on the lowest
        edges = np.concatenate([[edges[0] - _BELOW], edges])
        inverse = np.concatenate([inverse[:1], inverse])
        until = np.interp(logs, edges, np.concatenate([[0.0], np.cumsum(np.diff(edges) * inverse)]))
        inverse = (until[:-1] - until[1:]) / (logs[:-1] - logs[1:])
        middle = 0.5 * (logs[:-1] + logs[1:])
        price = np.interp(middle, np.log(self.plan.levels.sigma), self.plan.tables["example_price"])
        return HeldExamples(self.study, logs, inverse, self.worth * price)

    def stopping_sigma(self, sigmas: Array, linear: bool) -> float | None:
        """Where the examples were worked out, far from which they say little; None where there are none."""
        return None if self.plan is None else float(self.plan.levels.edges[0])

    def value(self, sigmas: Array) -> float:
        """What a grid leaves."""
        return self.held(sigmas).value(sigmas)


@dataclass(frozen=True, eq=False)
class HeldExamples:
    """What a grid leaves while the density on each step is held, whatever the step's length, and its derivatives.

    At the grid that the density is the best for, this touches the error with the best examples from above, with the
    same slope: what longer steps take of the budget counts at the budget's worth. Descending it and settling the
    examples in turn never rises. (A density held as a function of sigma would jump at every node and pin it there.)

    Args:
        study: the question.
        logs: (P,) log sigma of the positive nodes where the density is held.
        inverse: (P-1,) 1 / density on each step.
        worth: (P-1,) error per example on each step.
    """

    study: Study
    logs: Array
    inverse: Array
    worth: Array

    def value(self, sigmas: Array) -> float:
        """The error that the examples and the floor leave, and what the moved steps take of the budget."""
        return self.of_errors(sigmas, self.study.model.node_errors(sigmas))

    def of_errors(self, sigmas: Array, errors: NodeErrors) -> float:
        """`value` where the errors of the grid's nodes are known."""
        logs = np.log(sigmas[sigmas > 0])
        return self._sum(logs, self.weights(logs), errors)

    def _sum(self, logs: Array, weights: NodeErrors, errors: NodeErrors) -> float:
        return float(self._saturated(weights, errors)[0]) + self._moved(logs)

    def _saturated(self, weights: NodeErrors, errors: NodeErrors) -> tuple[Array, NodeErrors, NodeErrors]:
        return saturated(weights, errors, ends=bool(final_steps(self.study.model.terminal)))

    def _moved(self, logs: Array) -> float:
        """What longer or shorter steps take of the budget, at its worth."""
        return float(self._taken @ (np.diff(self.logs) - np.diff(logs)))

    def __call__(self, sigmas: Array) -> tuple[float, Array]:
        """`value` of a grid (K+1,) and its derivatives by log sigma of the positive nodes."""
        return self.with_slope(sigmas, *self.study.model.node_errors_and_slope(sigmas))

    def with_slope(self, sigmas: Array, errors: NodeErrors, by_weights: Slope) -> tuple[float, Array]:
        """The same where the errors of the grid's nodes are known."""
        model = self.study.model
        logs = np.log(sigmas[sigmas > 0])
        weights = self.weights(logs)
        value = self._sum(logs, weights, errors)
        _, tangent, errors = self._saturated(weights, errors)
        slope = np.array(by_weights(tangent))
        slope[:-1] += self._taken
        slope[1:] -= self._taken
        # the weight of a node depends on it and the next alone, that of the last on the one before: every other at once
        for start in (0, 1):
            moved = np.arange(logs.size) % 2 == start
            change = self._changed(logs + _SHIFT * moved, errors, weights)
            own = change * moved
            slope += own
            slope[1:] += (change - own)[:-1]
            slope[-2] += (change - own)[-1]
        if final_steps(model.terminal):
            slope += errors.reducible[-1] * self._last_slope(logs)
        return value, slope

    def _changed(self, logs: Array, errors: NodeErrors, weights: NodeErrors) -> Array:
        after = self.weights(logs)
        if final_steps(self.study.model.terminal):  # `_last_slope` has that of the last evaluation
            after.reducible[-1] = weights.reducible[-1]
        change = (after.reducible - weights.reducible) * errors.reducible
        return np.asarray((change + (after.floor - weights.floor) * errors.floor) / _SHIFT)

    @property
    def _taken(self) -> Array:
        """(P-1,) error's worth of the examples per unit log sigma of each step."""
        return np.divide(self.worth, self.inverse, out=np.zeros_like(self.worth), where=self.inverse > 0)

    def weights(self, logs: Array) -> NodeErrors:
        """What R_k and F_k of each node count: max(1, l/h) / (l density) of its step, and max(1, l/h).

        Under "denoise" the last node is the last evaluation, which counts 1 / m_r and 1.
        """
        model = self.study.model
        coupling, sigma = model.coupling, np.exp(logs)
        length = coupling.lengths_at(sigma, float(sigma[-1]), float(sigma[0]))
        steps = logs[:-1] - logs[1:]
        longer = np.append(steps, steps[-1]) / length
        floor = coupling.factor(longer) / longer
        inverse = np.append(self.inverse, self.inverse[-1]) * floor / length
        if final_steps(model.terminal):
            floor[-1] = 1.0
            inverse[-1] = self._last(logs, float(length[-1]))
        return NodeErrors(inverse, floor)

    def _last(self, logs: Array, length: float) -> float:
        """1 / m_r, of the examples within one correlation length above the stopping point; 0 where there are none."""
        overlap = np.minimum(logs[:-1], logs[-1] + length) - np.minimum(logs[1:], logs[-1] + length)
        near = float(np.divide(overlap, self.inverse, out=np.zeros_like(overlap), where=self.inverse > 0).sum())
        return 1.0 / near if near > 0 else 0.0

    def _last_slope(self, logs: Array) -> Array:
        """(P,) derivatives of `_last` by the nodes within one correlation length above the stopping point."""
        sigma = np.exp(logs)
        end = logs[-1] + float(self.study.model.coupling.lengths_at(sigma, float(sigma[-1]), float(sigma[0]))[-1])
        density = np.divide(1.0, self.inverse, out=np.zeros_like(self.inverse), where=self.inverse > 0)
        by_node = np.append(density, 0.0) - np.append(0.0, density)
        by_node[logs >= end] = 0.0
        reached = np.flatnonzero((logs[:-1] >= end) & (logs[1:] < end))
        by_node[-1] += float(density[reached].sum())
        return np.asarray(-(self._last(logs, end - logs[-1]) ** 2) * by_node)


@dataclass(frozen=True, eq=False)
class BestExamples:
    """What a grid leaves with the best examples for it, one density on each step, and its derivatives.

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

    def value(self, sigmas: Array) -> float:
        """The least score error and the floor of a grid (K+1,)."""
        errors = self.study.model.node_errors(sigmas)
        return self._best(sigmas, errors).of_errors(sigmas, errors)

    def held(self, sigmas: Array) -> Cost:
        """What descends from a grid: itself, as the best examples are known for any."""
        return self

    def stopping_sigma(self, sigmas: Array, linear: bool) -> float | None:
        """Far from where its slope says little; None for the whole range."""
        return float(sigmas[sigmas > 0][-1]) if linear else None

    def __call__(self, sigmas: Array) -> tuple[float, Array]:
        """`value`, and its derivatives by log sigma of the positive nodes."""
        errors, by_weights = self.study.model.node_errors_and_slope(sigmas)
        return self._best(sigmas, errors).with_slope(sigmas, errors, by_weights)

    def _best(self, sigmas: Array, errors: NodeErrors) -> HeldExamples:
        model = self.study.model
        logs = np.log(sigmas[sigmas > 0])
        steps, ones = logs[:-1] - logs[1:], np.ones(logs.size - 1)
        assert self.study.prices is not None
        price = float(self.study.prices.example) * steps  # type: ignore[arg-type]
        counted = HeldExamples(self.study, logs, ones, ones).weights(logs).reducible * errors.reducible
        each, last, near = counted[:-1].copy(), 0.0, np.zeros(steps.size)
        if final_steps(model.terminal):
            last = float(errors.reducible[-1])
            sigma = np.exp(logs)
            end = logs[-1] + float(model.coupling.lengths_at(sigma, float(sigma[-1]), float(sigma[0]))[-1])
            near = np.minimum(logs[:-1], end) - np.minimum(logs[1:], end)
        else:
            each[-1] += counted[-1]
        each = np.maximum(each, max(_NO_ERROR * float(each.max(initial=last)), 1e-300))
        if errors.untrained is not None:
            return self._beside_prior(logs, errors, (each, price, near), last)
        shares = _shares(each, price, near, last)
        spent = float(price @ shares)
        density = shares * self.money / spent
        return HeldExamples(self.study, logs, 1.0 / density, price / steps * (spent / self.money) ** 2)

    def _beside_prior(
        self, logs: Array, errors: NodeErrors, terms: tuple[Array, Array, Array], last: float
    ) -> HeldExamples:
        """The same where the untrained denoiser is worth some density on each step."""
        each, price, near = terms
        assert errors.untrained is not None
        ones = np.ones(price.size)
        start = HeldExamples(self.study, logs, ones, ones).weights(logs).floor * errors.untrained
        worth = examples_worth(each, _of_steps(start, last > 0))
        final = examples_worth(np.array(last), errors.untrained[-1])
        density, gain = density_for(each, worth, price, near, np.array(last), final, self.money)
        most = float(density.max(initial=0.0))
        return HeldExamples(self.study, logs, 1.0 / np.maximum(density, _LEAST * most), price / -np.diff(logs) * gain)


def _of_steps(nodes: Array, ends: bool) -> Array:
    """(P-1,) from the nodes' (P,): the last one's own, or on the last step with that of the node before."""
    steps = nodes[:-1].copy()
    steps[-1] += 0.0 if ends else nodes[-1]
    return steps


def _shares(each: Array, price: Array, near: Array, last: float) -> Array:
    """(P-1,) sqrt(g / (p - tau o)), what the densities are proportional to."""
    if last <= 0 or not near.any():
        return np.sqrt(each / price)
    most = float((price[near > 0] / near[near > 0]).min())

    def at(share: float) -> Array:
        return np.asarray(np.sqrt(each / (price - share * most * near)))

    def excess(share: float) -> float:
        return float(np.log(share * most / last) + 2 * np.log(near @ at(share)))

    if excess(1 - _INSIDE) <= 0:
        return at(1 - _INSIDE)
    low = 0.5
    while excess(low) > 0:
        low *= 1e-3
    return at(brentq(excess, low, 1 - _INSIDE, xtol=1e-14, rtol=1e-12))


def along(cost: Cost, sigmas: Array) -> Cost:
    """A cost from its value c and slope g at one grid: c exp(g (x - x0) / c), powers of the nodes."""
    value, slope = cost(sigmas)
    logs = np.log(sigmas[sigmas > 0])

    def moved(grid: Array) -> tuple[float, Array]:
        ratio = float(np.exp(np.clip(slope @ (np.log(grid[grid > 0]) - logs) / value, -50.0, 50.0)))
        return value * ratio, slope * ratio

    return moved if value > 0 else cost
