"""GITS: nodes of a teacher's trajectory chosen so that straight steps between them stray little (Chen et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...basics.checks import Array, choice, number, takes
from ...models.evidence import Evidence, Trajectories
from ..paths.interval_cost import shortest_path
from .base import Schedule

__all__ = ["GITS", "step_errors"]

METRICS = ("l1", "l2", "dev")


@takes(teacher=Trajectories)
def step_errors(teacher: Trajectories, metric: str = "l1") -> Array:
    """Error of one Euler step between any two levels of a teacher's trajectory, from the teacher's own state.

    "l1", "l2": mean norm of x_i + (sigma_j - sigma_i) d_i - x_j. "dev": mean distance of that point from the straight
    line through the trajectory's ends, less the teacher's own; it may be negative.

    Args:
        teacher: T levels, N draws.
        metric: "l1", "l2" or "dev".

    Returns:
        (T, T), data units; entries not above the diagonal are 0.

    Raises:
        ValueError: an unknown metric.

    >>> straight = Trajectories(np.array([3.0, 2.0, 1.0]), np.array([[[3.0]], [[2.0]], [[1.0]]]), np.ones((3, 1, 1)))
    >>> float(step_errors(straight).max())
    0.0
    """
    choice(metric, "metric", METRICS)
    sigma, states, slopes = teacher.sigma, teacher.states, teacher.slopes
    line = states[-1] - states[0]
    length = np.linalg.norm(line, axis=-1, keepdims=True)
    line = line / np.where(length > 0, length, 1.0)

    def astray(x: Array) -> Array:
        away = states[-1] - x
        return np.linalg.norm(away - (away * line).sum(axis=-1, keepdims=True) * line, axis=-1).mean(axis=-1)

    own = astray(states) if metric == "dev" else None
    errors = np.zeros((sigma.size, sigma.size))
    for i in range(sigma.size - 1):
        reached = states[i] + (sigma[i + 1 :] - sigma[i])[:, None, None] * slopes[i]
        if own is None:
            norm = np.linalg.norm(reached - states[i + 1 :], ord=1 if metric == "l1" else 2, axis=-1)
            errors[i, i + 1 :] = norm.mean(axis=-1)
        else:
            errors[i, i + 1 :] = astray(reached) - own[i + 1 :]
    return errors


@dataclass(frozen=True)
class GITS(Schedule):
    """Levels of the teacher with the least sum_k coefficient^k error(k), by dynamic programming.

    Each step's error is that of one Euler step from the teacher's state, whatever sampler the grid is for; a
    coefficient above 1 makes up for errors that grow on their way. Released code: cost-to-go V_k(i) = min_j error(i, j)
    + coefficient V_(k-1)(j), l1 and 1.15, on 61 levels. Its options for a free first step are not here.

    Args:
        metric: "l1", "l2" or "dev" (see `step_errors`).
        coefficient: > 0.

    Raises:
        ValueError: a field out of its range; from `sigmas`, more nodes than the teacher has levels or a teacher that
            does not cover the evidence's range.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.from_eigenvalues([0.25]), terminal="rescale")
    >>> GITS().sigmas(4, Evidence.of(model)).round(3).tolist()
    [80.0, 0.812, 0.388, 0.17, 0.002]
    """

    metric: str = "l1"
    coefficient: float = 1.15
    name: ClassVar[str] = "gits"
    title: ClassVar[str] = "GITS, steps along a teacher's trajectories"
    needs: ClassVar[tuple[str, ...]] = ("trajectories",)

    def __post_init__(self) -> None:
        choice(self.metric, "GITS.metric", METRICS)
        coefficient = number(self.coefficient, "GITS.coefficient", positive=True)
        object.__setattr__(self, "coefficient", coefficient)

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        teacher = evidence.trajectories
        assert teacher is not None  # held by `needs`
        ends = float(teacher.sigma[0]), float(teacher.sigma[-1])
        if not np.allclose(ends, (evidence.sigma_max, evidence.sigma_min), rtol=1e-6, atol=0):
            raise ValueError(
                f"Evidence.trajectories run from {ends[0]:g} to {ends[1]:g}, but the range is from "
                f"{evidence.sigma_max:g} to {evidence.sigma_min:g}; solve the teacher on that range."
            )
        if count > teacher.sigma.size:
            raise ValueError(
                f"{count} levels are asked of a teacher with {teacher.sigma.size}; take fewer steps or a finer teacher."
            )
        if count == 1:
            return np.array([evidence.sigma_max])
        path = shortest_path(step_errors(teacher, self.metric), count - 1, growth=self.coefficient)
        return evidence.between(teacher.sigma[path])
