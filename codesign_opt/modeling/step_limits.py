"""What a constraint says of one real step: as functions of sigma, not of the levels' averages.

A program bounds a density of steps level by level. A grid has steps of finite length, each of which crosses many
levels; whether it obeys is asked of the step itself (docs/theory.md section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..ingredients.levels import Levels
from ..models.coefficients import Coefficients
from .design import Box

__all__ = ["StepLimits", "smallest_variance", "variance_limit"]

_Curve = Callable[[Array], Array]
_BISECTIONS = 200  # of log variance over 600 decades at most: to the last digit


def _infinite(sigma: Array) -> Array:
    return np.full(np.shape(sigma), np.inf)


def _nothing(sigma: Array) -> Array:
    return np.zeros(np.shape(sigma))


@dataclass(frozen=True, eq=False)
class StepLimits:
    """Limits of real steps, all functions of (N,) noise levels that return (N,).

    Args:
        longest: longest step in sigma, data units; inf where there is none.
        least_density, most_density: steps per unit log sigma; 0 and inf where there is no limit.
        breaks: noise levels at which a limit may jump.
        directions: "increasing", "decreasing": the density of steps only rises, only falls with sigma.

    >>> half = StepLimits(longest=lambda sigma: 0.5 * sigma)
    >>> (half & StepLimits(longest=lambda sigma: 0.1 + 0 * sigma)).longest(np.array([0.1, 1.0])).tolist()
    [0.05, 0.1]
    """

    longest: _Curve = _infinite
    least_density: _Curve = _nothing
    most_density: _Curve = _infinite
    directions: frozenset[str] = frozenset()
    breaks: frozenset[float] = frozenset()

    @classmethod
    def of_box(cls, box: Box, levels: Levels) -> StepLimits | None:
        """Bounds of single levels as densities, constant on each level; None where the steps are free."""
        low, high = box.steps_low / levels.log_width, box.steps_high / levels.log_width
        if not (np.any(low > 0) or np.any(np.isfinite(high))):
            return None
        least, most = _on_levels(levels, low, 0.0), _on_levels(levels, high, np.inf)
        return cls(least_density=least, most_density=most, breaks=frozenset(levels.edges.tolist()))

    @classmethod
    def of_lengths(cls, steps_low: Array, levels: Levels) -> StepLimits | None:
        """Least steps of single levels as longest steps width / steps_low; None where there are none.

        A length is known at the levels' own sigma: between two it is interpolated in logarithms, exact for powers.
        """
        capped = np.asarray(steps_low) > 0
        if not capped.any():
            return None
        with np.errstate(divide="ignore"):
            lengths = np.where(capped, levels.width / steps_low, np.inf)
        starts = np.flatnonzero(capped & ~np.append(False, capped[:-1]))
        ends = np.flatnonzero(capped & ~np.append(capped[1:], False))
        runs = [_along(levels, lengths, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]

        def longest(sigma: Array) -> Array:
            return np.min([run(sigma) for run in runs], axis=0)

        marks = np.concatenate([levels.edges[starts], levels.edges[ends + 1]])
        return cls(longest=longest, breaks=frozenset(marks.tolist()))

    def within(self, low: float, high: float) -> StepLimits:
        """The same limits between two noise levels, and none elsewhere."""

        def inside(curve: _Curve, free: float) -> _Curve:
            return lambda sigma: np.where((sigma >= low) & (sigma <= high), curve(sigma), free)

        return StepLimits(
            inside(self.longest, np.inf),
            inside(self.least_density, 0.0),
            inside(self.most_density, np.inf),
            self.directions,
            self.breaks | {low, high},
        )

    def __and__(self, other: StepLimits) -> StepLimits:
        """Both limits at once."""
        return StepLimits(
            lambda sigma: np.minimum(self.longest(sigma), other.longest(sigma)),
            lambda sigma: np.maximum(self.least_density(sigma), other.least_density(sigma)),
            lambda sigma: np.minimum(self.most_density(sigma), other.most_density(sigma)),
            self.directions | other.directions,
            self.breaks | other.breaks,
        )


def _along(levels: Levels, lengths: Array, first: int, last: int) -> _Curve:
    """Lengths on neighbouring levels as a function of sigma between their outer edges; infinite outside."""
    logs, values = np.log(levels.sigma[first : last + 1]), np.log(lengths[first : last + 1])
    low, high = levels.edges[first], levels.edges[last + 1]
    if first < last:  # on to the edges at the slope of the last two
        outer = np.log([low, high])
        slopes = np.diff(values)[[0, -1]] / np.diff(logs)[[0, -1]]
        values = np.concatenate([
            [values[0] + slopes[0] * (outer[0] - logs[0])], values, [values[-1] + slopes[1] * (outer[1] - logs[-1])]
        ])  # fmt: skip
        logs = np.concatenate([outer[:1], logs, outer[1:]])

    def curve(sigma: Array) -> Array:
        inside = (sigma >= low) & (sigma <= high)
        return np.where(inside, np.exp(np.interp(np.log(sigma), logs, values)), np.inf)

    return curve


def _on_levels(levels: Levels, values: Array, outside: float) -> _Curve:
    def curve(sigma: Array) -> Array:
        index = np.searchsorted(levels.edges, sigma, side="right") - 1
        index = np.where(sigma == levels.edges[-1], len(levels) - 1, index)
        known = (index >= 0) & (index < len(levels))
        return np.where(known, values[np.clip(index, 0, len(levels) - 1)], outside)

    return curve


def variance_limit(table: Coefficients, multiple: float) -> StepLimits:
    """Steps of at most `multiple` v_min / sigma, v_min = smallest variance + sigma^2 (docs/theory.md section 3.4)."""
    smallest = smallest_variance(table)
    if smallest is not None:
        return StepLimits(longest=lambda sigma: multiple * (smallest + sigma**2) / sigma)
    ratio = np.asarray(table.variance_ratio)
    # a ratio that is of no one variance: on each level the strictest of it and its neighbours
    strict = np.maximum(ratio, np.maximum(np.append(ratio[1:], 0.0), np.append(0.0, ratio[:-1])))
    return StepLimits(least_density=_on_levels(table.levels, strict / multiple, 0.0))


def smallest_variance(table: Coefficients) -> float | None:
    """The variance lambda behind `variance_ratio` = <sigma^2 / (lambda + sigma^2)>; None where it is of no one.

    Read off the lowest level, where sigma^2 is smallest beside lambda, and checked against all.
    """
    ratio, levels = np.asarray(table.variance_ratio), table.levels

    def averages(variance: float) -> Array:
        return levels.average(lambda sigma: sigma**2 / (variance + sigma**2))

    if np.all(ratio >= 1 - 1e-12):
        return 0.0
    low, high = 1e-300, 1e300
    for _ in range(_BISECTIONS):
        middle = float(np.sqrt(low) * np.sqrt(high))
        low, high = (middle, high) if averages(middle)[0] > ratio[0] else (low, middle)
    return high if np.allclose(averages(high), ratio, rtol=1e-8, atol=0.0) else None
