"""What grids leave with the examples of a run, after which nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..basics.checks import Array
from ..ingredients.levels import Levels
from ..models.grid_descent import GridResiduals, NodeErrors, Which, positive_nodes
from .examples_cost import BestExamples, StepShape, of_steps, step_shape
from .question import Study

__all__ = ["RunExamples", "RunMass"]

_LEVELS = 4000  # on which a run is counted: a part of a step holds several
_LEAST = 1e-9  # of the largest density, where 1 / density is asked for
_FEWEST, _MOST = 4, 64  # parts of a step


@dataclass(frozen=True, eq=False)
class RunMass:
    """Examples of a run below each noise level.

    Args:
        logs: (N+1,) log sigma, ascending.
        below: (N+1,) examples below them.
    """

    logs: Array
    below: Array

    @classmethod
    def of(cls, study: Study, low: float, high: float) -> RunMass:
        """Of a question's run between two noise levels."""
        assert study.run is not None
        levels = Levels.log_uniform(low, high, _LEVELS)
        return cls(np.log(levels.edges), np.concatenate([[0.0], np.cumsum(study.run.examples_on(levels))]))

    def until(self, logs: Array) -> Array:
        """(...) examples below these logarithms."""
        return np.interp(logs, self.logs, self.below)

    def density(self, logs: Array) -> Array:
        """(...) examples per unit log sigma there; 0 beyond the ends."""
        slopes = np.concatenate([[0.0], self._slopes, [0.0]])
        return np.asarray(slopes[np.searchsorted(self.logs, logs, side="right")])

    @property
    def _slopes(self) -> Array:
        return np.asarray(np.diff(self.below) / np.diff(self.logs))

    @cached_property
    def least(self) -> float:
        """The least density that counts as one."""
        return _LEAST * float(self._slopes.max())


@dataclass(frozen=True, eq=False)
class RunExamples(BestExamples):
    """What grids leave with the examples of a run, the best there are where none can be bought (money 0).

    With C_k what 1 / density is multiplied with on step k and Y_k what the untrained denoiser would leave there, the
    step leaves the average over its parts of 1 / (density / C_k + 1 / Y_k), and the last evaluation
    1 / (m_r / R + 1 / Y): no density is held, and the slope is that of the whole (docs/theory.md section 7.8).

    Args:
        mass: of the question's run.
    """

    mass: RunMass

    def at(self, sigmas: Array, sensitivity: Array | None = None) -> RunExamplesAt:  # type: ignore[override]
        """What grids (..., K+1) leave; the sensitivity of their law where it is known."""
        errors, logs = self.study.model.node_errors(sigmas, sensitivity), np.log(positive_nodes(sigmas))
        return RunExamplesAt(self, sigmas, sensitivity, _Grids(logs, step_shape(self.study, logs), errors))

    def of(  # type: ignore[override]
        self, sigmas: Array, which: Which, sensitivity: Array | None = None
    ) -> RunExamplesAt:
        """What grids (G, K+1) leave."""
        return self.at(sigmas, sensitivity)


class _Grids(NamedTuple):
    """(..., P) log sigma of the nodes of grids, the shape of their steps, and the errors of their nodes."""

    logs: Array
    shape: StepShape
    errors: NodeErrors

    def among(self, rows: Which) -> _Grids:
        """Those of some of the grids."""
        return _Grids(self.logs[rows], self.shape.among(rows), self.errors.among(rows))

    def left_on_steps(self, density: Array) -> _Left:
        """Of examples so dense on each part of each step."""
        phi, start = self.shape.phi, self.errors.untrained
        rate = of_steps(phi / self.shape.length * self.errors.reducible, self.shape.ends)
        worst = None if start is None else of_steps(phi * start, self.shape.ends)[..., None]
        return _Left(density, rate[..., None], worst)

    def left_at_the_end(self, near: Array) -> _Left:
        """Of so many examples within one correlation length above the stopping point."""
        start = self.errors.untrained
        return _Left(near, self.errors.reducible[..., -1], None if start is None else start[..., -1])


class _Left(NamedTuple):
    """1 / (m / C + 1 / Y) and its derivatives: of examples, what they are divided into, the error without any."""

    examples: Array
    rate: Array
    untrained: Array | None

    @property
    def share(self) -> Array | float:
        """Y / (C / m + Y): 1 where nothing is known of the untrained denoiser."""
        if self.untrained is None:
            return 1.0
        both = self.rate / self.examples + self.untrained
        return np.divide(self.untrained, both, out=np.zeros_like(both), where=both > 0)

    @property
    def value(self) -> Array:
        return np.asarray(self.rate / self.examples * self.share)

    @property
    def by_rate(self) -> Array:
        return np.asarray(self.share**2 / self.examples)

    @property
    def by_untrained(self) -> Array:
        return np.asarray((1 - self.share) ** 2 + 0 * self.examples)

    @property
    def by_examples(self) -> Array:
        return -self.rate / self.examples * self.by_rate


@dataclass(frozen=True, eq=False)
class RunExamplesAt:
    """What grids leave with the examples of a run; its derivatives where they are asked for.

    Args:
        cost: the run and the question.
        sigmas, sensitivity: the grids (..., K+1), and the sensitivity of their law, or None.
        grids: their steps and errors.
    """

    cost: RunExamples
    sigmas: Array
    sensitivity: Array | None
    grids: _Grids

    @cached_property
    def values(self) -> Array:
        """(...) the error that examples and floor leave."""
        grids = self.grids
        left = grids.left_on_steps(_Parts.of(self.cost, grids.logs).density).value.mean(axis=-1).sum(axis=-1)
        floor = (grids.shape.phi * grids.errors.floor).sum(axis=-1)
        last = grids.left_at_the_end(self._near(grids)).value if grids.shape.ends else 0.0
        return np.asarray(left + floor + last)

    def slopes(self, rows: Which) -> Array:
        """(R, P) derivatives by log sigma of the positive nodes, of some of grids (G, K+1)."""
        return self.with_residuals(rows)[1]

    def with_residuals(self, rows: Which) -> tuple[GridResiduals | None, Array]:
        """The residuals of those grids, which one gradient of the law tells beside the slopes."""
        grids, sigmas = self.grids.among(rows), self.sigmas[rows]
        sensitivity = None if self.sensitivity is None else self.sensitivity[rows]
        logs, shape, errors = grids
        parts = _Parts.of(self.cost, logs)
        left = grids.left_on_steps(parts.density)
        by_rate, by_start = left.by_rate.mean(axis=-1), _of_nodes(left.by_untrained.mean(axis=-1))
        weights = NodeErrors(_of_nodes(by_rate) / shape.length * shape.phi, shape.phi.copy(), by_start * shape.phi)
        stays = errors.floor + (0.0 if errors.untrained is None else by_start * errors.untrained)
        last = None
        if shape.ends:
            last = grids.left_at_the_end(self._near(grids))
            weights.reducible[..., -1] = last.by_rate
            assert weights.untrained is not None
            weights.untrained[..., -1] = last.by_untrained
        found, through = self.cost.study.model.residuals_and_slope(sigmas, weights, sensitivity)
        slope = through.copy()
        by_step = shape.by_step(NodeErrors(errors.reducible, stays), by_rate)
        slope[..., :-1] += by_step
        slope[..., 1:] -= by_step
        slope += shape.by_length(NodeErrors(errors.reducible, stays), by_rate)
        slope += parts.slope(left.by_examples / parts.density.shape[-1])
        if last is not None:
            slope += last.by_examples[..., None] * self._near_slope(grids)
        return found, slope

    def _near(self, grids: _Grids) -> Array:
        """(...) examples within one correlation length above the stopping point."""
        mass, end = self.cost.mass, grids.logs[..., -1]
        found = mass.until(end + grids.shape.length[..., -1]) - mass.until(end)
        return np.maximum(found, mass.least)

    def _near_slope(self, grids: _Grids) -> Array:
        """(..., P) its derivatives by the nodes."""
        mass, end, shape = self.cost.mass, grids.logs[..., -1], grids.shape
        length = shape.length[..., -1]
        lengthens = 0.0 if shape.lengthens is None else length * shape.lengthens[..., -1]
        slope = np.zeros_like(grids.logs)
        slope[..., -1] = mass.density(end + length) * (1 + lengthens) - mass.density(end)
        return slope


@dataclass(frozen=True, eq=False)
class _Parts:
    """Steps cut into equal parts, and the density of a run on each.

    Args:
        mass: of the run.
        edges: (..., P-1, N+1) log sigma of the ends of the parts, descending.
        density: (..., P-1, N) examples per unit log sigma.
    """

    mass: RunMass
    edges: Array
    density: Array

    @classmethod
    def of(cls, cost: RunExamples, logs: Array) -> _Parts:
        """Of the nodes of grids (..., P); about as many parts in all as the question has levels."""
        count = int(np.clip(np.ceil(cost.study.levels / logs.shape[-1]), _FEWEST, _MOST))
        steps = (logs[..., :-1] - logs[..., 1:])[..., None]
        edges = logs[..., :-1, None] - np.linspace(0.0, 1.0, count + 1) * steps
        found = -np.diff(cost.mass.until(edges), axis=-1) * count / steps
        return cls(cost.mass, edges, np.maximum(found, cost.mass.least))

    def slope(self, by_density: Array) -> Array:
        """(..., P) derivatives by the nodes, from those by the density of each part."""
        count = self.density.shape[-1]
        shares, steps = np.linspace(0.0, 1.0, count + 1), self.edges[..., :1] - self.edges[..., -1:]
        there = self.mass.density(self.edges) * count / steps
        by_high, by_low = -np.diff((1 - shares) * there, axis=-1), -np.diff(shares * there, axis=-1)
        slope = np.zeros((*self.edges.shape[:-2], self.edges.shape[-2] + 1))
        slope[..., :-1] += (by_density * (by_high - self.density / steps)).sum(axis=-1)
        slope[..., 1:] += (by_density * (by_low + self.density / steps)).sum(axis=-1)
        return slope


def _of_nodes(steps: Array) -> Array:
    """(..., P) from (..., P-1): the last node shares the step before it."""
    return np.concatenate([steps, steps[..., -1:]], axis=-1)
