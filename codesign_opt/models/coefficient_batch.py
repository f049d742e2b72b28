"""The tables of many stopping points at once: they share all levels but the lowest, which each stop cuts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..basics.checks import Array, Indices, Mask
from ..ingredients.evaluations import final_steps
from ..ingredients.levels import Bins, Levels
from .coefficients import examples_worth

__all__ = ["CUTS", "CoefficientBatch", "IntervalRows", "StopLevels", "cut_levels", "least_size"]

# Representatives tried of a level that the stopping point may cut anywhere. A band's row is sigma^p / v^k in its
# variance v = lambda + sigma^2, whose logarithm is concave in log sigma: between two representatives it is nowhere
# below both, so that the two ends would do (where it changes sign the least is 0, see `least_size`). A sum of such
# rows, the score of a diagonal matrix, can dip between two, for eta = 0 by less than half the square of their
# distance: slopes of its terms lie within +-2 in log sigma, so that where the sum is flat its relative curvature is at
# most 4. That is 1e-5 at 200 levels over EDM's range; with 385 representatives the scores of 2,880 random intervals
# were the same.
CUTS = 7


class StopLevels:
    """Levels of R stopping points as one (R, L) table over shared edges; a stop lacks the levels below it.

    Every value is computed once on N = L + R bins: the shared levels, then the cut level of each stop.

    Args:
        edges: edges common to all stops, from at or below the lowest stop.
        stops: (R,) stopping points, each below the last edge.
    """

    def __init__(self, edges: Array, stops: Array) -> None:
        # the bin that each stop cuts; a stop that is an edge but for rounding cuts the one above it, not a sliver below
        cut = np.searchsorted(edges, stops * (1 + 1e-9), side="right") - 1
        begin = int(cut.min())
        self.stops, self._edges, cut = stops, edges[begin:], cut - begin
        low = np.maximum(self._edges[:-1], stops.min())
        self.bins = Bins(np.append(low, stops), np.append(self._edges[1:], self._edges[cut + 1]))
        place = np.arange(low.size)
        self.used: Mask = place >= cut[:, None]
        self.first: Indices = cut
        self._column = np.where(place == cut[:, None], low.size + np.arange(stops.size)[:, None], place)

    def spread(self, values: Array) -> Array:
        """(R, L) from (N,) values of the bins, or from (R, N) ones; 0 where a stop lacks the level."""
        found = values[self._column] if values.ndim == 1 else np.take_along_axis(values, self._column, axis=1)
        return np.where(self.used, found, 0.0)

    def next_edge(self) -> Array:
        """(R,) upper edge of the level that each stop cuts."""
        return self._edges[self.first + 1]

    def spread_rows(self, values: Array) -> Array:
        """(R, B, L) from (B, N) values of the bins, not masked."""
        return np.ascontiguousarray(values.T[self._column].transpose(0, 2, 1))

    def levels(self, stop: int) -> Levels:
        """The levels of one stop."""
        return Levels(np.append(self.stops[stop], self._edges[self.first[stop] + 1 :]))

    @cached_property
    def log_width(self) -> Array:
        """(R, L) extent in log sigma."""
        return self.spread(self.bins.log_width)

    def window(self, length: Array) -> Array:
        """(R, L) fraction of each level between the stop and `length` (R,) in log sigma above it."""
        low, high = self.spread(np.log(self.bins.low)), self.spread(np.log(self.bins.high))
        shared = np.minimum(high, (np.log(self.stops) + length)[:, None]) - low
        return np.where(self.used, np.maximum(shared, 0.0) / np.where(self.used, self.log_width, 1.0), 0.0)


@dataclass(frozen=True, eq=False)
class IntervalRows:
    """Which noise levels belong to the tables of R intervals of stopping points: see `cut_levels`.

    Args:
        table: levels above each interval's upper end.
        cuts: (2, R, CUTS) the places of the cut level's representatives, for weights at either end.
    """

    table: StopLevels
    cuts: Indices

    def least(self, values: Array) -> Array:
        """(R, L) the least over both ends and over the cut level's representatives, from (2 R, N) values."""
        count = self.table.stops.size
        pair = values.reshape(2, count, -1)
        whole = self.table.spread(np.minimum(pair[0], pair[1])[:, : len(self.table.bins)])
        at_cuts = np.take_along_axis(pair, self.cuts, axis=2).min(axis=(0, 2))
        np.put_along_axis(whole, self.table.first[:, None], at_cuts[:, None], axis=1)
        return whole

    def least_bands(self, local: Array, weight: Array) -> Array:
        """(R, B, L) the least magnitude of local (B, N) times weight (2 R, B), likewise."""
        count = self.table.stops.size
        pair = weight.reshape(2, count, -1)
        response = self.table.spread_rows(np.abs(local)) * np.minimum(pair[0], pair[1])[:, :, None]
        response *= self.table.used[:, None]
        at_cuts = (least_size(local.T[self.cuts], axis=2) * pair).min(axis=0)
        response[np.arange(count), :, self.table.first] = at_cuts
        return response


def least_size(signed: Array, axis: int) -> Array:
    """The least magnitude along an axis of samples of a continuous function: 0 where its sign changes between them.

    >>> least_size(np.array([[1.0, 2.0], [-1.0, 2.0]]), axis=1).tolist()
    [1.0, 0.0]
    """
    crosses = (signed.min(axis=axis) < 0) & (signed.max(axis=axis) > 0)
    return np.where(crosses, 0.0, np.abs(signed).min(axis=axis))


def cut_levels(edges: Array, table: StopLevels, lows: Array) -> tuple[Array, IntervalRows]:
    """Noise levels of the tables of intervals [lows, table.stops]: the bins', then the cut levels' representatives.

    The lowest level may be cut anywhere from its own lower edge or `lows` up to the interval's end; where the
    weights are those of the upper end, no representative lies below it.
    """
    highs = table.stops
    start = np.maximum(lows, edges[np.searchsorted(edges, highs, side="right") - 1])
    place = np.linspace(0.0, 1.0, CUTS)
    tried = np.sqrt(start[:, None] * (highs / start)[:, None] ** place * table.next_edge()[:, None])
    cuts = np.stack([tried, np.maximum(tried, highs[:, None])])
    first = len(table.bins)
    return np.concatenate([table.bins.sigma, cuts.ravel()]), IntervalRows(
        table, first + np.arange(cuts.size).reshape(cuts.shape)
    )


@dataclass(frozen=True, eq=False)
class CoefficientBatch:
    """What `Coefficients` holds for R stopping points, as far as the joint program needs it.

    Args:
        levels: the R levels.
        lengths: (R, L) correlation lengths.
        score, floor: (R, L) as in Coefficients.
        response: (R, B, L) magnitudes.
        final_score, final_floor, truncation, initial: (R,).
        order, evaluations_per_step, terminal: as in Coefficients.
        form: the name of M in the structured solver.
        untrained, final_untrained: (R, L) and (R,) as in Coefficients; None where not known.
        given: (R, L) what a training that is over left on each level, inside `floor_error`; None where there is none.
    """

    levels: StopLevels
    lengths: Array
    score: Array
    floor: Array
    response: Array
    final_score: Array
    final_floor: Array
    truncation: Array
    initial: Array
    order: int
    evaluations_per_step: int
    terminal: str
    form: str
    untrained: Array | None = None
    final_untrained: Array | None = None
    given: Array | None = None

    def after(self, examples: Array, near: Array) -> CoefficientBatch | None:
        """The tables after trainings that are over, as `Coefficients.after`; None where one left no bounded error.

        Args:
            examples: (R, L) of each training, and near: (R,) those that serve the last evaluation.
        """
        served, near = examples + self.prior_examples, near + self.final_prior
        on, ends = self.example_error > 0, self.final_score > 0
        if np.any(on & (served <= 0)) or np.any(ends & (near <= 0)):
            return None
        left = np.divide(self.example_error, served, out=np.zeros_like(served), where=on)
        last = np.divide(self.final_score, near, out=np.zeros_like(near), where=ends)
        stretch = np.where(self.levels.used, self.levels.log_width * self.lengths, 1.0)
        return replace(
            self,
            score=np.zeros_like(self.score),
            floor=self.floor + left / stretch,
            final_score=np.zeros_like(near),
            final_floor=self.final_floor + last,
            given=left,
        )

    @property
    def final_steps(self) -> int:
        """1 where the last step goes to zero noise ("denoise"), else 0."""
        return final_steps(self.terminal)

    @property
    def example_error(self) -> Array:
        """(R, L) A_l."""
        return self.levels.log_width**2 * self.score

    @property
    def floor_error(self) -> Array:
        """(R, L) F_l."""
        return self.levels.log_width * self.lengths * self.floor

    @property
    def prior_examples(self) -> Array:
        """(R, L) examples that the untrained denoiser is worth on each level."""
        if self.untrained is None:
            return np.zeros(self.levels.used.shape)
        return examples_worth(self.example_error, self.levels.log_width * self.lengths * self.untrained)

    @property
    def final_prior(self) -> Array:
        """(R,) examples that it is worth to the last evaluation."""
        return (
            np.zeros(len(self.truncation))
            if self.final_untrained is None
            else examples_worth(self.final_score, self.final_untrained)
        )

    @property
    def kappa(self) -> Array:
        """(R, L) log width over correlation length."""
        return self.levels.log_width / np.where(self.levels.used, self.lengths, 1.0)

    @property
    def step_response(self) -> Array:
        """(R, B, L) R_bl."""
        return self.response * (self.levels.log_width ** (self.order + 1))[:, None]

    @property
    def final_window(self) -> Array:
        """(R, L) fraction of each level within one correlation length of the stopping point."""
        return self.levels.window(np.take_along_axis(self.lengths, self.levels.first[:, None], axis=1)[:, 0])
