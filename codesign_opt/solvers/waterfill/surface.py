"""The water level: where a sum of clipped ramps reaches a given height, by selection among breakpoints.

The price above the floors, cost(t) = sum_l slope_l (clip(t, leaves_l, meets_l) - leaves_l), rises with
t and is linear between the 2L breakpoints (docs/theory.md section 7, P1). The segment that holds the
height is found as a median is, in expected O(L): the cost is taken at breakpoints on either side of
where a sample of the levels puts it, and at the sample's median while that is inside the bracket, which
therefore halves; levels without a breakpoint inside are summed up and dropped. Few are left to sort.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...basics.checks import Array

__all__ = ["water_level"]

_SORTED = 2_048  # levels up to which the breakpoints are sorted, for all heights at once
_SAMPLE = 1_023  # levels drawn for the pivots


@dataclass(frozen=True, eq=False)
class _Bracket:
    """The cost on start <= t <= end: `paid` at the start, `steady` per unit of t, and ramps that change.

    Every part is a sum of nonnegative terms, so that nothing cancels.
    """

    leaves: Array
    meets: Array
    slopes: Array
    start: float = 0.0
    end: float = np.inf
    paid: float = 0.0
    steady: float = 0.0

    def cost(self, t: Array) -> Array:
        """(R,) cost at (R,) values of t."""
        part = np.minimum(t[:, None], self.meets)
        part -= np.maximum(self.leaves, self.start)
        np.maximum(part, 0.0, out=part)
        part *= self.slopes
        return self.paid + self.steady * (t - self.start) + part.sum(axis=1)

    def slope(self, t: Array) -> Array:
        """(R,) right derivative of the cost."""
        moving = (self.leaves <= t[:, None]) & (self.meets > t[:, None])
        return self.steady + np.where(moving, self.slopes, 0.0).sum(axis=1)

    def points(self) -> Array:
        """Breakpoints strictly inside, in no order."""
        every = np.concatenate([self.leaves, self.meets])
        return every[(every > self.start) & (every < self.end)]

    def cut(self, pivot: float, height: float) -> _Bracket:
        """The side of `pivot` on which the cost reaches `height`; itself for a pivot not inside."""
        if not self.start < pivot < self.end:
            return self
        cost = float(self.cost(np.array([pivot]))[0])
        return replace(self, start=pivot, paid=cost) if cost <= height else replace(self, end=pivot)

    def pruned(self) -> _Bracket:
        """Without the levels that have no breakpoint strictly inside: they rest or rise steadily."""
        rising, unmet = self.leaves <= self.start, self.meets >= self.end
        keep = np.flatnonzero((rising & ~unmet & (self.meets > self.start)) | (~rising & (self.leaves < self.end)))
        steady = self.steady + float((self.slopes * (rising & unmet)).sum())
        if keep.size == self.leaves.size:
            return self
        leaves, meets, slopes = (x.take(keep) for x in (self.leaves, self.meets, self.slopes))
        return replace(self, leaves=leaves, meets=meets, slopes=slopes, steady=steady)

    def pivots(self, height: float, generator: np.random.Generator) -> tuple[float, float, float]:
        """Breakpoints a little below and above the level of a drawn sample, and the sample's median.

        The bracket is pruned, so that every level drawn has a breakpoint strictly inside.
        """
        # four standard deviations of a sample's rank on either side; heavy levels may add to it, and a bracket that the
        # level escapes costs another cut, not the answer
        drawn = generator.integers(self.leaves.size, size=_SAMPLE)
        slopes = self.slopes[drawn] * (self.leaves.size / _SAMPLE)
        sample = replace(self, leaves=self.leaves[drawn], meets=self.meets[drawn], slopes=slopes)
        points = np.sort(sample.points())
        rank = int(np.searchsorted(points, _sorted(sample, np.array([height]))[0]))
        reach = int(2 * np.sqrt(points.size))
        below, above = points[max(rank - reach, 0)], points[min(rank + reach, points.size - 1)]
        return float(below), float(above), float(points[points.size // 2])


def water_level(leaves: Array, meets: Array, slopes: Array, heights: Array) -> Array:
    """(R,) values of t at which the cost equals (R,) heights >= 0; inf where it stays below for ever.

    Args:
        leaves, meets: (L,) ends of the ramps, 0 <= leaves <= meets <= inf.
        slopes: (L,) slopes of the ramps, >= 0.
        heights: (R,) costs to reach.

    >>> water_level(np.array([0.0, 1.0]), np.array([2.0, np.inf]), np.array([1.0, 3.0]), np.array([0.5, 3.0, 8.0]))
    array([0.5, 1.5, 3. ])
    """
    whole = _Bracket(leaves, meets, slopes)
    if leaves.size <= _SORTED:
        return _sorted(whole, heights)
    whole = whole.pruned()
    return np.array([_sorted(_narrowed(whole, float(h)), np.array([h]))[0] for h in heights])


def _narrowed(bracket: _Bracket, height: float) -> _Bracket:
    generator = np.random.default_rng(0)  # no order of the levels can defeat a drawn pivot
    while bracket.leaves.size > _SORTED:
        below, above, middle = bracket.pivots(height, generator)
        bracket = bracket.cut(below, height).cut(above, height).pruned()
        if bracket.start < middle < bracket.end:  # few levels may carry the cost, which the sample then misses
            bracket = bracket.cut(middle, height).pruned()
    return bracket


def _sorted(bracket: _Bracket, heights: Array) -> Array:
    """Binary search over the sorted breakpoints, for all heights at once; the exact formula on the segment."""
    # the cost is summed anew at each breakpoint tried, L log L in all: a running sum over sorted breakpoints would be
    # cheaper, but subtracts the slopes of capped levels and so loses the small ones
    points = np.unique(np.append(bracket.points(), bracket.start))
    # cost(points[left]) <= height < cost(points[right]); the index after the last stands for the end
    left = np.zeros(heights.size, dtype=np.intp)
    right = np.full(heights.size, points.size, dtype=np.intp)
    while np.any(right - left > 1):
        middle = (left + right) // 2
        fits = bracket.cost(points[middle]) <= heights
        left, right = np.where(fits, middle, left), np.where(fits, right, middle)
    start, end = points[left], np.append(points, bracket.end)[right]
    slope = bracket.slope(start)
    rest = np.maximum(heights - bracket.cost(start), 0.0)
    step = np.divide(rest, slope, out=np.zeros_like(rest), where=slope > 0)
    return np.where((slope == 0) & np.isinf(end), np.inf, np.minimum(start + step, end))
