"""Tables of a Gaussian model for many stopping points at once, and below all tables of an interval of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array, integer, number
from ..basics.inheritance import stale
from ..ingredients.levels import MOST_LEVELS, Levels
from ..training.base import TrainingNoise
from .coefficient_batch import CUTS, CoefficientBatch, StopLevels, cut_levels, least_size
from .coefficients import Coefficients
from .gaussian_parts import GaussianParts

__all__ = ["GaussianBatch"]


class GaussianBatch(GaussianParts):
    """The part of GaussianModel that serves sweeps and the bounds between stopping points."""

    def coefficient_batch(self, stops: Array, levels: int = 200) -> CoefficientBatch | None:
        """The tables of many stopping points at once; None where a part has laws of its own at each.

        Same numbers as `coefficients`, from one evaluation of the local error and of the training noise.
        """
        form = self._batch_form(stops)
        if form is None:
            return None
        edges = self._edges(levels)
        table = StopLevels(edges, stops)
        score, floor, untrained, response = self._batch_rows(table)
        lam, n = self.bands.eigenvalues, self.valued.counts
        final, final_untrained = (np.zeros(stops.size), np.zeros(stops.size)), None
        if self.terminal == "denoise":
            final = self.training.last_evaluations(lam, n, stops)
            final_untrained = self._final_untrained(stops)
        sigma = table.bins.sigma
        lengths = self.coupling.lengths_at(sigma, float(edges[0]), float(edges[-1]))
        return CoefficientBatch(
            table,
            lengths=table.spread(lengths),
            score=score,
            floor=floor,
            response=response,
            final_score=final[0],
            final_floor=final[1],
            truncation=self.truncations(stops),
            initial=self.initial_errors(stops),
            order=self.sampler.order,
            evaluations_per_step=self.sampler.evaluations_per_step,
            terminal=self.terminal,
            form=form,
            untrained=untrained,
            final_untrained=final_untrained,
        )

    def _batch_form(self, stops: Array) -> str | None:
        """The name of M where tables of many stopping points share their levels; else None."""
        if stops.min() < self.process.sigma_min or stops.max() >= self.process.sigma_max:
            return None
        return self.coupling.form_at_every_stop if self.sampler.error_separates else None

    def _edges(self, levels: int) -> Array:
        count = integer(levels, "levels", minimum=2, maximum=MOST_LEVELS)
        return Levels.log_uniform(self.process.sigma_min, self.process.sigma_max, count).edges

    def _batch_rows(self, table: StopLevels) -> tuple[Array, Array, Array | None, Array]:
        """(R, L) score, floor and untrained error and (R, B, L) magnitudes of the response, as in `_rows`."""
        lam, n = self.bands.eigenvalues, self.valued.counts
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        sigma, stops = table.bins.sigma, table.stops
        trained = self.training.at_stops(lam, n, sigma, stops, **options)
        square, untrained = table.spread(sigma**2), None
        if trained is None:
            score, floor, start = (np.zeros(table.used.shape) for _ in range(3))
            for r, (on, stop) in enumerate(zip(table.used, stops, strict=True)):
                at = table.spread(sigma)[r, on]
                score[r, on] = self.training.reducible(lam, n, at, float(stop), **options) * at**2
                floor[r, on] = self.training.floor(lam, n, at, float(stop), **options) * at**2
                row = self._untrained_row(at, float(stop))
                if row is not None:
                    start[r, on], untrained = row, start
        else:
            score, floor = (table.spread(values) * square for values in trained[:2])
            untrained = None if trained[2] is None else table.spread(trained[2]) * square
        local, weight = self._response_at(sigma, stops)
        response = table.spread_rows(np.abs(local)) * weight[:, :, None] * table.used[:, None]
        return score, floor, untrained, response

    def _response_at(self, sigma: Array, stops: Array) -> tuple[Array, Array]:
        """(B, N) signed rows by noise level and (R, B) weights by stopping point, whose product is the response."""
        lam, n = self.bands.eigenvalues, self.valued.counts
        lowest = float(stops.min())
        local = self.sampler.local_error(lam, sigma, lowest) * sigma ** (self.sampler.order + 1)
        ends = lam + stops[:, None] ** 2
        weight = np.sqrt(n * self._end_weight(lam, ends)) * (ends / (lam + lowest**2)) ** self.sampler.eta**2
        return local, weight

    def interval_coefficients(self, low: float, high: float, levels: int = 200) -> Coefficients | None:
        """A table below every table with a stopping point in [low, high], for bounds over the interval.

        Levels from `high` up, E0 from `low`, and every weight from the end where it is smaller: each is
        monotone in the stopping point (docs/theory.md section 7). The last evaluation's reducible error is
        left out. None where monotonicity is not known.
        """
        if not self._weights_are_monotone():
            return None
        low, high = number(low, "low", nonnegative=True), number(high, "high", positive=True)
        training = self.training
        # levels below `high` exist for some stopping points of the interval only; their errors are >= 0 and left out
        table = self.levels_above(high, levels)
        ends = [self._least_rows(table, low, stop, levels) for stop in (low, high)]
        score, floor, untrained, response = (np.minimum(a, b) for a, b in zip(*ends, strict=True))
        final, final_untrained = 0.0, None
        if self.terminal == "denoise" and _known_monotone(training):
            lam, n = self.bands.eigenvalues, self.valued.counts
            final = min(training.last_evaluation(lam, n, stop)[1] for stop in (low, high))
        if self.terminal == "denoise":
            final_untrained = self._least_final_untrained(np.array([low, high]))
        return Coefficients(
            table,
            score=score,
            floor=floor,
            response=response,
            order=self.sampler.order,
            evaluations_per_step=self.sampler.evaluations_per_step,
            coupling=self.coupling,
            terminal=self.terminal,
            truncation=self.truncation(low),
            initial=min(self.initial_error(low), self.initial_error(high)),
            final_floor=final,
            untrained=None if training.prior is None else untrained,
            final_untrained=None if final_untrained is None else float(final_untrained[0]),
        )

    def _least_final_untrained(self, ends: Array) -> Array | None:
        """(R,) from (2 R,) ends, low ones first: at most `_final_untrained` anywhere between them.

        Each band's rises with the stopping point, falls, or rises and then falls, unless the skip connection is right
        on the way: the least is at an end or 0. The mean's rises.
        """
        bands = self.valued
        found = self.training.untrained_output(bands.eigenvalues, bands.counts, ends, bands.mean_power)
        if found is None:
            return None
        roots, mean = (part.reshape(*part.shape[:-1], 2, -1) for part in found)
        return np.asarray((least_size(roots, axis=1) ** 2).sum(axis=0) + mean.min(axis=0))

    def interval_batch(self, lows: Array, highs: Array, levels: int = 200) -> CoefficientBatch | None:
        """`interval_coefficients` of R intervals at once, to rounding; None where only that knows the model.

        `final_score` is the last evaluation's at the lower end of each interval, which is the smaller one.
        """
        ends = np.concatenate([lows, highs])
        form = self._batch_form(ends)
        if form is None or not self._weights_are_monotone():
            return None
        lam, n = self.bands.eigenvalues, self.valued.counts
        edges = self._edges(levels)
        table = StopLevels(edges, highs)
        sigma, rows = cut_levels(edges, table, lows)
        trained = self.training.at_stops(lam, n, sigma, ends, eta=self.sampler.eta, terminal=self.terminal)
        if trained is None:  # laws of its own at each stopping point: the caller takes the intervals one by one
            return None
        score, floor = (rows.least(values * sigma**2) for values in trained[:2])
        untrained = None if trained[2] is None else rows.least(trained[2] * sigma**2)
        final_untrained = self._least_final_untrained(ends) if self.terminal == "denoise" else None
        final = np.zeros((2, ends.size))
        if self.terminal == "denoise":
            final = np.stack(self.training.last_evaluations(lam, n, ends))
            if not _known_monotone(self.training):
                final[1] = 0.0
        sampled = table.bins.sigma
        half = lows.size
        return CoefficientBatch(
            table,
            lengths=table.spread(self.coupling.lengths_at(sampled, float(edges[0]), float(edges[-1]))),
            score=score,
            floor=floor,
            response=rows.least_bands(*self._response_at(sigma, ends)),
            final_score=final[0, :half],
            final_floor=final[1].reshape(2, half).min(axis=0),
            truncation=self.truncations(lows),
            initial=self.initial_errors(ends).reshape(2, half).min(axis=0),
            order=self.sampler.order,
            evaluations_per_step=self.sampler.evaluations_per_step,
            terminal=self.terminal,
            form=form,
            untrained=untrained,
            final_untrained=final_untrained,
        )

    def _weights_are_monotone(self) -> bool:
        """Whether every weight rises, or every weight falls, with the stopping point."""
        training, power = self.training, self.sampler.eta**2
        if training.dataset_size is not None or (training.matrix == "full" and power > 0):
            return False
        # "denoise": variances weigh v_r^(2 eta^2 - 1) and means v_r^(eta^2 - 1), which part for 1/2 < eta^2 < 1
        means = training.intercept or (self.start == "noise" and bool(np.any(self.spectrum.mean_power > 0)))
        return not (self.terminal == "denoise" and means and 0.5 < power < 1)

    def _least_rows(self, table: Levels, low: float, stop: float, levels: int) -> tuple[Array, Array, Array, Array]:
        """Magnitudes of `_rows` and the untrained error (0 without a prior); on the lowest level, which the stopping
        point may cut anywhere between `low` and its own lower edge, the least over the representatives of the cut."""
        score, floor, response = (np.abs(row).copy() for row in self._rows(table.sigma, stop))
        whole = self.levels_above(min(self.process.sigma_min, low), levels).edges
        start = max(low, float(whole[whole <= table.edges[0]].max(initial=low)))
        cuts = np.maximum(np.sqrt(np.geomspace(start, table.edges[0], CUTS) * table.edges[1]), stop)
        at_cuts = self._rows(cuts, stop)
        score[0], floor[0], response[:, 0] = at_cuts[0].min(), at_cuts[1].min(), least_size(at_cuts[2], axis=-1)
        untrained, tried = self._untrained_row(table.sigma, stop), self._untrained_row(cuts, stop)
        if untrained is None or tried is None:
            return score, floor, np.zeros(len(table)), response
        untrained[0] = tried.min()
        return score, floor, untrained, response


def _known_monotone(training: TrainingNoise) -> bool:
    """Whether the last evaluation's floor is monotone, said by the class that wrote the floor or by a later one."""
    said = not stale(type(training), ("_stationary", "last_evaluation"), ("final_floor_is_monotone",))
    return said and training.final_floor_is_monotone
