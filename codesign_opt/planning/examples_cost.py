"""What a grid leaves with the examples held: an upper bound of what the best examples leave, and its derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps
from ..models.grid_descent import Cost, NodeErrors
from ..results.plan import Plan
from .question import Study

__all__ = ["ExamplesCost", "HeldExamples"]

_LEAST = 1e-9  # of the largest density, where 1 / density is asked for
_BELOW = 20.0  # in log sigma, how far below its levels a density goes on
_SHIFT = 1e-6


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
        logs = np.log(sigmas[sigmas > 0])
        errors, weights = self.study.model.node_errors(sigmas), self._weights(logs)
        value = float(weights.reducible @ errors.reducible + weights.floor @ errors.floor)
        return value + float(self._taken @ (np.diff(self.logs) - np.diff(logs)))

    def __call__(self, sigmas: Array) -> tuple[float, Array]:
        """`value` of a grid (K+1,) and its derivatives by log sigma of the positive nodes."""
        model = self.study.model
        logs = np.log(sigmas[sigmas > 0])
        errors, weights = model.node_errors(sigmas), self._weights(logs)
        value = float(weights.reducible @ errors.reducible + weights.floor @ errors.floor)
        value += float(self._taken @ (np.diff(self.logs) - np.diff(logs)))
        slope = np.array(model.node_errors_gradient(sigmas, weights))
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
        after = self._weights(logs)
        if final_steps(self.study.model.terminal):  # `_last_slope` has that of the last evaluation
            after.reducible[-1] = weights.reducible[-1]
        change = (after.reducible - weights.reducible) * errors.reducible
        return np.asarray((change + (after.floor - weights.floor) * errors.floor) / _SHIFT)

    def along(self, sigmas: Array) -> Cost:
        """The cost from its value c and slope g at one grid: c exp(g (x - x0) / c), powers of the nodes."""
        value, slope = self(sigmas)
        logs = np.log(sigmas[sigmas > 0])

        def cost(moved: Array) -> tuple[float, Array]:
            ratio = float(np.exp(np.clip(slope @ (np.log(moved[moved > 0]) - logs) / value, -50.0, 50.0)))
            return value * ratio, slope * ratio

        return cost if value > 0 else self

    @property
    def _taken(self) -> Array:
        """(P-1,) error's worth of the examples per unit log sigma of each step."""
        return np.divide(self.worth, self.inverse, out=np.zeros_like(self.worth), where=self.inverse > 0)

    def _weights(self, logs: Array) -> NodeErrors:
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
