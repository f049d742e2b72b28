"""Where a step from any noise level ends and where the one before it began: by a grid, or by a step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...basics.checks import function, integer, noise_level, number
from ...basics.user_code import told_in
from ...ingredients.grids import check_grid

__all__ = ["StepRule"]

_SHORTEST_HISTORY = 0.25
_MOST = 1_000  # former steps that a sampler asks for


@dataclass(frozen=True, eq=False)
class StepRule:
    """A grid's steps at noise levels between its nodes too, so that levels need not be the grid's.

    Args:
        next: level to the level where its step ends.
        previous: (level, start) to the level where the step before began; None without one.

    >>> rule = StepRule.of_grid([8.0, 4.0, 2.0, 1.0, 0.0])
    >>> round(rule.next(4.0), 12), round(rule.previous(4.0, 8.0), 12), rule.previous(8.0, 8.0)
    (2.0, 8.0, None)
    """

    next: Callable[[float], float]
    previous: Callable[[float, float], float | None]

    def __post_init__(self) -> None:
        function(self.next, "StepRule.next")
        function(self.previous, "StepRule.previous")

    def history(self, sigma: float, start: float, count: int) -> list[float]:
        """Levels where the last `count` steps before the one from `sigma` began, descending; fewer at the start.

        >>> StepRule.relative(0.5).history(1.0, 5.0, 3)
        [4.0, 2.0]
        """
        at, first = noise_level(sigma, "StepRule.history: sigma"), noise_level(start, "StepRule.history: start")
        found: list[float] = []
        for _ in range(integer(count, "StepRule.history: count", minimum=0, maximum=_MOST)):
            with told_in("StepRule.previous(level, start)"):
                before = self.previous(at, first)
            if before is None:
                break
            level = noise_level(before, "StepRule.previous(level, start)")
            if level < at:
                raise ValueError(
                    f"StepRule.previous(level, start) is {level:g} at level {at:g}; the step before began no lower."
                )
            found.insert(0, at := level)
        return found

    @classmethod
    def of_grid(cls, sigmas: ArrayLike) -> StepRule:
        """Steps of a grid: log sigma is linear in the node's number between nodes and past the last.

        A level within a quarter of the first step of the start has no step before it; in the rest
        of the first step the one before began at the start.
        """
        grid = check_grid(sigmas).sigmas
        logs = np.log(grid[grid > 0])
        if logs.size < 2:
            raise ValueError("sigmas has one positive level; at least two are needed to define steps.")
        numbers = np.arange(logs.size, dtype=np.float64)

        def place(sigma: float) -> float:
            log = float(np.log(sigma))
            if log < logs[-1]:
                return float(numbers[-1] + (log - logs[-1]) / (logs[-1] - logs[-2]))
            return float(np.interp(-log, -logs, numbers))

        def level(place: float) -> float:
            if place > numbers[-1]:
                return float(np.exp(logs[-1] + (place - numbers[-1]) * (logs[-1] - logs[-2])))
            return float(np.exp(np.interp(place, numbers, logs)))

        def previous(sigma: float, start: float) -> float | None:
            at = place(sigma)
            return min(level(max(at - 1, 0.0)), start) if at >= _SHORTEST_HISTORY else None

        return cls(lambda sigma: level(place(sigma) + 1), previous)

    @classmethod
    def relative(cls, fraction: float) -> StepRule:
        """Steps from sigma to (1 - fraction) sigma.

        >>> StepRule.relative(0.5).next(1.0), StepRule.relative(0.5).previous(1.0, 80.0)
        (0.5, 2.0)
        """
        kept = 1 - number(fraction, "fraction", positive=True, maximum=1 - 1e-9)
        return cls(lambda sigma: sigma * kept, lambda sigma, start: sigma / kept if sigma / kept <= start else None)

    @classmethod
    def of_size(cls, size: Callable[[float], float]) -> StepRule:
        """Steps of size(sigma), data units; the step before is found by bisection.

        >>> round(StepRule.of_size(lambda sigma: 0.5 * sigma).previous(1.0, 80.0), 9)
        2.0
        """

        def end(sigma: float) -> float:
            return sigma - number(size(sigma), f"step size at sigma {sigma:g}", positive=True)

        def previous(sigma: float, start: float) -> float | None:
            low, high = sigma, start
            if start <= sigma or end(start) < sigma:
                return None
            for _ in range(100):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if end(middle) < sigma else (low, middle)
            return high

        return cls(end, previous)
