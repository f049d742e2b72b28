"""What a grid leaves with the examples held: an upper bound of what the best examples leave, and its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps
from ..models.grid_descent import NodeErrors
from ..results.plan import Plan
from .question import Study

__all__ = ["ExamplesCost"]

_LEAST = 1e-9  # of the largest density, where 1 / density is asked for
_BELOW = 20.0  # in log sigma, how far below its levels a density goes on
_SHIFT = 1e-6


@dataclass(frozen=True, eq=False)
class ExamplesCost:
    """Score error and floor of a grid for examples that are held (docs/theory.md section 7.8).

    With m held the error is above that with the best examples, and touches it at the grid m is best for, with the
    same slope: descending it and settling the examples in turn never rises. Levels below the stopping point go on at
    the density of the lowest; what examples there cost or free counts at the price of the budget.

    Args:
        study: the question; its model knows the errors of nodes.
        plan: the settled plan of the examples; None where none are decided and the floor alone counts.
        scale: what the density is multiplied with, where other money trains.
        worth: error per unit of money, for examples below the settled stopping point.
    """

    study: Study
    plan: Plan | None = None
    scale: float = 1.0
    worth: float = 0.0

    @cached_property
    def _edges(self) -> Array:
        assert self.plan is not None
        edges = np.log(self.plan.levels.edges)
        return np.concatenate([[edges[0] - _BELOW], edges])

    @cached_property
    def _density(self) -> Array:
        """Examples per unit log sigma between the edges."""
        assert self.plan is not None
        density = self.scale * self.plan.examples / self.plan.levels.log_width
        return np.concatenate([density[:1], density])

    @cached_property
    def _accumulated(self) -> tuple[Array, Array]:
        """Integrals of the density and of its inverse up to the edges."""
        width, least = np.diff(self._edges), _LEAST * float(self._density.max())
        one = np.concatenate([[0.0], np.cumsum(width * self._density)])
        return one, np.concatenate([[0.0], np.cumsum(width / np.maximum(self._density, least))])

    def __call__(self, sigmas: Array) -> tuple[float, Array]:
        """The cost of a grid (K+1,) and its derivatives by log sigma of the positive nodes."""
        model = self.study.model
        positive = sigmas[sigmas > 0]
        logs = np.log(positive)
        errors, weights = model.node_errors(sigmas), self._weights(logs)
        value = float(weights.reducible @ errors.reducible + weights.floor @ errors.floor)
        slope = np.array(model.node_errors_gradient(sigmas, weights))
        for start in (0, 1):  # the weight of a node depends on it and the next: every other node at once
            moved = np.arange(logs.size) % 2 == start
            after = self._weights(logs + _SHIFT * moved)
            change = (after.reducible - weights.reducible) * errors.reducible
            change = (change + (after.floor - weights.floor) * errors.floor) / _SHIFT
            own = change * moved
            slope += own
            slope[1:] += (change - own)[:-1]
            slope[-2] += (change - own)[-1]  # the last node counts over the last step
        if self.worth > 0:
            below = self._spent_to(float(logs[-1]))
            value += below
            slope[-1] += (self._spent_to(float(logs[-1]) + _SHIFT) - below) / _SHIFT
        return value, slope

    def _spent_to(self, stop: float) -> float:
        """Error's worth of the money that examples from the settled stopping point down to this one take."""
        assert self.plan is not None
        one, _ = self._accumulated
        until = float(np.interp(self._edges[1], self._edges, one) - np.interp(stop, self._edges, one))
        return self.worth * float(self.plan.tables["example_price"][0]) * until

    def _weights(self, logs: Array) -> NodeErrors:
        """What R_k and F_k of each node count: max(1, l/h) / l times the step's mean of 1/density, and max(1, l/h).

        Under "denoise" the last node is the last evaluation, which counts 1 / m_r and 1.
        """
        model = self.study.model
        coupling, sigma = model.coupling, np.exp(logs)
        length = coupling.lengths_at(sigma, float(sigma[-1]), float(sigma[0]))
        steps = logs[:-1] - logs[1:]
        longer = np.append(steps, steps[-1]) / length
        floor = coupling.factor(longer) / longer
        if self.plan is None:
            inverse = np.zeros(logs.size)
        else:
            _, over = self._accumulated
            until = np.interp(logs, self._edges, over)
            mean = (until[:-1] - until[1:]) / steps
            inverse = np.append(mean, mean[-1]) * floor / length
        if final_steps(model.terminal):
            floor[-1] = 1.0
            inverse[-1] = 0.0 if self.plan is None else 1.0 / self._near(logs[-1], float(length[-1]))
        return NodeErrors(inverse, floor)

    def _near(self, stop: float, length: float) -> float:
        """m_r, the examples within one correlation length above the stopping point."""
        one, _ = self._accumulated
        ends = np.interp([stop, stop + length], self._edges, one)
        return max(float(ends[1] - ends[0]), 1e-300)
