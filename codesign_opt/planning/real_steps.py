"""Real steps under caps: whether a grid obeys, and grids of whole steps that do (docs/theory.md sections 3.4 and 7.8).

A program bounds a density; rounding it to whole steps keeps no bound. Here every step of a grid is held against the
limits themselves, and grids are placed inside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..basics.checks import Array, Mask
from ..ingredients.evaluations import final_steps
from ..ingredients.levels import Levels
from ..modeling.step_limits import StepLimits

__all__ = ["INSIDE", "START", "RealSteps"]

INSIDE, START = "inside", "start"
_ROUNDING = 1e-9  # relative, of a length held against its limit
_MARGIN = -4e-9  # of placed steps: they obey to the last digit, whichever side of an edge they are read from
_EDGE = 1e-9  # relative, by which a limit is read beside a point: it may jump there
_CELLS = 4  # of each level, in which limits are taken to be monotone
_FINE = np.array([1.0, 1 - 1e-6, 1 - 1e-4, 1 - 1e-3])  # tried in turn where interpolation overshoots
_BISECTIONS = 45
_SEARCH = np.geomspace(1e-3, 1e3, 13)
_ROUNDS = (5, 8)  # of the search for a step length, each 12 times finer; a last step too short may not obey
_UNLIMITED = 1e6  # steps per unit log sigma that no grid has


@dataclass(frozen=True, eq=False)
class RealSteps:
    """Limits of the steps of a grid, between two noise levels.

    A step from s to t obeys, as it is read

    * "inside": its length is at most `longest` and at most sigma / `least_density` at every sigma in [t, s], and its
      density 1 / log(s / t) at most `most_density` there;
    * "start": its length is at most `longest` at s, where the step is evaluated (section 3.4), and a density is the
      mean over the step: integral of `least_density` over log sigma <= 1 <= that of `most_density`.

    The step to zero noise is the plain denoiser's and is held against nothing.

    Args:
        limits: as functions of sigma.
        levels: from the stopping point to the highest noise level.
    """

    limits: StepLimits
    levels: Levels

    def admits(self, sigmas: Array, reading: str = INSIDE) -> bool:
        """Whether every step of a grid obeys.

        >>> half = RealSteps(StepLimits(longest=lambda sigma: 0.5 * sigma), Levels.log_uniform(1.0, 8.0, 6))
        >>> grid = np.array([8.0, 4.0, 2.0, 1.0, 0.0])
        >>> half.admits(grid), half.admits(grid, "start")  # half of the upper end, all of the lower one
        (False, True)
        """
        nodes = np.asarray(sigmas, dtype=np.float64)
        nodes = nodes[nodes > 0]
        high, low = nodes[:-1], nodes[1:]
        obeys = self._short(high, low, reading) & self._long(high, low, reading)
        return bool(obeys.all()) and self._ordered(np.log(high / low))

    def _ordered(self, lengths: Array) -> bool:
        """Whether densities 1 / lengths, along falling sigma, only rise or only fall as they must."""
        change = np.diff(lengths) / np.maximum(lengths[1:], lengths[:-1])
        wrong = {"increasing": np.minimum(change, 0.0), "decreasing": np.maximum(change, 0.0)}
        return all(np.abs(wrong[direction]).max(initial=0.0) <= 1e-7 for direction in self.limits.directions)

    # one step

    def _short(self, high: Array, low: Array, reading: str, slack: float = _ROUNDING) -> Mask:
        """Whether steps from `high` to `low` are short enough."""
        most = (high - low) * (1 - slack)
        if reading == INSIDE:
            return np.asarray(most <= self._least(0, low, high))
        mean = self._mass(0, high) - self._mass(0, low)
        return np.asarray((most <= self.limits.longest(high * (1 - _EDGE))) & (mean <= 1 + 1e-7))

    def _long(self, high: Array, low: Array, reading: str) -> Mask:
        """Whether steps from `high` to `low` are long enough."""
        if reading == INSIDE:
            return np.asarray(np.log(high / low) * self._least(1, low, high) * (1 + 1e-7) >= 1)
        return np.asarray(self._mass(1, high) - self._mass(1, low) >= 1 - 1e-7)

    def _curve(self, which: int, sigma: Array) -> Array:
        if which == 1:
            return self.limits.most_density(sigma)
        with np.errstate(divide="ignore"):
            return np.minimum(self.limits.longest(sigma), sigma / self.limits.least_density(sigma))

    def _least(self, which: int, low: Array, high: Array) -> Array:
        """Smallest limit in each [low, high]: at its ends, at edges of cells and in whole cells between."""
        ends = np.minimum(self._curve(which, low * (1 + _EDGE)), self._curve(which, high * (1 - _EDGE)))
        edges = self._edges
        first = np.searchsorted(edges, low, side="right") - 1
        last = np.minimum(np.searchsorted(edges, high, side="left") - 1, edges.size - 2)
        first = np.clip(first, 0, edges.size - 2)
        below, above, smallest = self._cells[which]
        crossing = last > first
        least = np.where(crossing, np.minimum(below[first], above[last]), np.inf)
        # the smallest over whole cells first + 1 .. last - 1 from two overlapping runs of a power of two
        count = last - first - 1
        power = np.log2(np.maximum(count, 1)).astype(int)
        start = np.minimum(first + 1, edges.size - 2)
        stop = np.maximum(last - 2**power, 0)
        inner = np.minimum(smallest[power, start], smallest[power, stop])
        return np.minimum(ends, np.minimum(least, np.where(count > 0, inner, np.inf)))

    @cached_property
    def _stretches(self) -> bool:
        """Whether any step must not be too short."""
        return bool(np.any(np.isfinite(self._cells[1][2][0])))

    @cached_property
    def _edges(self) -> Array:
        logs = np.log(self.levels.edges)
        fine = np.linspace(0.0, 1.0, _CELLS, endpoint=False)
        inside = (logs[:-1, None] + np.diff(logs)[:, None] * fine).ravel()
        edges = np.exp(np.append(inside, logs[-1]))
        low, high = edges[0], edges[-1] = self.levels.edges[0], self.levels.edges[-1]
        breaks = np.array([at for at in self.limits.breaks if low < at < high])
        # a break beside an edge of a level, but for rounding, would make a cell without extent
        beside = np.abs(breaks[:, None] / edges - 1).min(axis=1, initial=np.inf) < 1e-12
        return np.union1d(edges, breaks[~beside])

    @cached_property
    def _cells(self) -> list[tuple[Array, Array, Array]]:
        """For each curve: below the upper edge of each cell, above its lower edge, and least over runs of cells."""
        edges, tables = self._edges, []
        for which in (0, 1):
            below = self._curve(which, edges[1:] * (1 - _EDGE))
            above = self._curve(which, edges[:-1] * (1 + _EDGE))
            middle = self._curve(which, np.sqrt(edges[1:] * edges[:-1]))
            runs = [np.minimum(np.minimum(below, above), middle)]
            while 2 ** len(runs) <= runs[0].size:
                shift, before = 2 ** (len(runs) - 1), runs[-1]
                later = np.append(before[shift:], np.full(shift, np.inf))
                runs.append(np.minimum(before, later))
            tables.append((below, above, np.array(runs)))
        return tables

    def _mass(self, which: int, sigma: Array) -> Array:
        """Integral over log sigma of the least (0) or most (1) density from the lowest level to `sigma`."""
        return np.interp(np.log(sigma), np.log(self._edges), self._masses[which])

    @cached_property
    def _masses(self) -> list[Array]:
        edges = self._edges
        middle, width = np.sqrt(edges[1:] * edges[:-1]), np.diff(np.log(edges))
        densities = (self.limits.least_density(middle), np.minimum(self.limits.most_density(middle), _UNLIMITED))
        return [np.concatenate([[0.0], np.cumsum(density * width)]) for density in densities]

    # placing grids

    def least_steps(self, reading: str = INSIDE) -> int:
        """Steps between noise levels of the shortest grid that is short enough everywhere; 0 where none is."""
        low, high = self.levels.edges[0], self.levels.edges[-1]
        at, count = np.array([high]), 0
        while at[0] > low * (1 + 1e-12):
            following = self._farthest(at, reading)
            if not following[0] < at[0] * (1 - 1e-9):
                return 0
            at, count = following, count + 1
        return count

    def place(self, steps: Array, number_of_steps: int, terminal: str, reading: str = INSIDE) -> Array | None:
        """A grid of so many steps that obeys, its density near that of (L,) `steps`; None where none was found.

        Steps cover equal increments of the accumulated count, shortened and lengthened to what is allowed; the
        increment is what lets the last one end at the stopping point.
        """
        count = number_of_steps - final_steps(terminal)
        if count < 1:
            return None
        accumulated = np.concatenate([[0.0], np.cumsum(steps)])
        if not accumulated[-1] > 0:
            return None
        tries = _SEARCH * accumulated[-1] / count
        for _ in range(_ROUNDS[self._stretches]):
            reached = self._walk(accumulated, tries, count, reading)[-1] <= self.levels.edges[0] * (1 + 1e-12)
            first = int(np.argmax(reached)) if reached.any() else tries.size - 1
            tries = np.geomspace(tries[max(first - 1, 0)], tries[first], _SEARCH.size)
        nodes = self._walk(accumulated, tries[-1:], count, reading)[:, 0]
        if nodes[-1] > self.levels.edges[0] * (1 + 1e-12):
            return None
        nodes = _exactly(nodes, count)
        nodes[0], nodes[-1] = self.levels.edges[-1], self.levels.edges[0]
        grid = np.append(nodes, 0.0) if terminal == "denoise" else nodes
        return grid if self.admits(grid, reading) else None

    def _walk(self, accumulated: Array, increments: Array, count: int, reading: str) -> Array:
        """(count + 1, N) nodes of N grids from the highest level down, each by its own increment."""
        edges = np.log(self.levels.edges)
        rising = accumulated + 1e-12 * accumulated[-1] * np.arange(accumulated.size)
        at = np.full(increments.size, self.levels.edges[-1])
        nodes = [at]
        for _ in range(count):
            wanted = np.interp(np.log(at), edges, rising) - increments
            following = np.exp(np.interp(wanted, rising, edges))
            following = np.minimum(following, self._nearest(at, reading))
            at = np.maximum(np.maximum(following, self._farthest(at, reading)), self.levels.edges[0])
            nodes.append(at)
        return np.array(nodes)

    def _farthest(self, high: Array, reading: str) -> Array:
        """(N,) lower ends of the longest steps from `high` that are short enough, the lowest level at most."""
        low = np.full(high.size, self.levels.edges[0])
        done = self._short(high, low, reading, _MARGIN)
        if done.all():
            return low
        guess = self._guess(high, reading, "short")
        for shrink in _FINE:
            tried = high - (high - guess) * shrink
            fits = ~done & self._short(high, tried, reading, _MARGIN)
            low, done = np.where(fits, tried, low), done | fits
            if done.all():
                return low
        return np.where(done, low, self._bisected(high, reading, "short"))

    def _nearest(self, high: Array, reading: str) -> Array:
        """(N,) lower ends of the shortest steps from `high` that are long enough, the lowest level at least."""
        if not self._stretches:
            return high
        guess = self._guess(high, reading, "long")
        low, done = guess, np.zeros(high.size, dtype=bool)
        for grow in 2 - _FINE:
            tried = np.maximum(high * (guess / high) ** grow, self.levels.edges[0])
            fits = ~done & (self._long(high, tried, reading) | (tried <= self.levels.edges[0]))
            low, done = np.where(fits, tried, low), done | fits
            if done.all():
                return low
        return np.where(done, low, self._bisected(high, reading, "long"))

    def _guess(self, high: Array, reading: str, kind: str) -> Array:
        """The lower ends of the longest short, or shortest long, steps between those from edges of cells."""
        edges = self._edges
        if (reading, kind) not in self._ends:
            self._ends[reading, kind] = np.log(np.minimum(self._bisected(edges, reading, kind), edges))
        return np.asarray(np.exp(np.interp(np.log(high), np.log(edges), self._ends[reading, kind])))

    @cached_property
    def _ends(self) -> dict[tuple[str, str], Array]:
        return {}

    def _bisected(self, high: Array, reading: str, kind: str) -> Array:
        """(N,) lower ends of steps that just are short or long enough, `kind`; the lowest level at most."""
        far, near = np.full(high.size, float(self.levels.edges[0])), high.copy()
        for _ in range(_BISECTIONS):
            middle = np.sqrt(far * near)
            if kind == "short":
                further = ~self._short(high, middle, reading, _MARGIN)
            else:
                further = self._long(high, middle, reading)
            # the end lies above `middle` where that is too far for a short step, or far enough for a long one
            far, near = np.where(further, middle, far), np.where(further, near, middle)
        return near if kind == "short" else far


def _exactly(nodes: Array, count: int) -> Array:
    """Descending nodes of exactly `count` steps: where fewer suffice the longest in log sigma are halved."""
    kept = [float(nodes[0])]
    kept += [float(node) for before, node in pairwise(nodes) if node < before * (1 - 1e-12)]
    while len(kept) < count + 1:
        k = int(np.argmax(-np.diff(np.log(kept))))
        kept.insert(k + 1, float(np.sqrt(kept[k] * kept[k + 1])))
    return np.array(kept)
