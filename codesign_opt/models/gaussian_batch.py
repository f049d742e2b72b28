"""Tables of a Gaussian model for many stopping points at once, and below all tables of an interval of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array, integer
from ..basics.inheritance import stale
from ..ingredients.levels import Levels
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
        score, floor, response = self._batch_rows(table)
        lam, n = self.bands.eigenvalues, self.bands.counts
        final = (np.zeros(stops.size), np.zeros(stops.size))
        if self.terminal == "denoise":
            final = self.training.last_evaluations(lam, n, stops)
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
        )

    def _batch_form(self, stops: Array) -> str | None:
        """The name of M where tables of many stopping points share their levels; else None."""
        if stops.min() < self.process.sigma_min or stops.max() >= self.process.sigma_max:
            return None
        return self.coupling.form_at_every_stop if self.sampler.error_separates else None

    def _edges(self, levels: int) -> Array:
        count = integer(levels, "levels", minimum=2)
        return Levels.log_uniform(self.process.sigma_min, self.process.sigma_max, count).edges

    def _batch_rows(self, table: StopLevels) -> tuple[Array, Array, Array]:
        """(R, L) score and floor and (R, B, L) magnitudes of the response, as in `_rows`."""
        lam, n = self.bands.eigenvalues, self.bands.counts
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        sigma, stops = table.bins.sigma, table.stops
        trained = self.training.at_stops(lam, n, sigma, stops, **options)
        if trained is None:
            score, floor = (np.zeros(table.used.shape) for _ in range(2))
            for r, (on, stop) in enumerate(zip(table.used, stops, strict=True)):
                at = table.spread(sigma)[r, on]
                score[r, on] = self.training.reducible(lam, n, at, float(stop), **options)
                floor[r, on] = self.training.floor(lam, n, at, float(stop), **options)
        else:
            score, floor = (table.spread(values) for values in trained)
        square = table.spread(sigma**2)
        local, weight = self._response_at(sigma, stops)
        return (
            score * square,
            floor * square,
            table.spread_rows(np.abs(local)) * weight[:, :, None] * table.used[:, None],
        )

    def _response_at(self, sigma: Array, stops: Array) -> tuple[Array, Array]:
        """(B, N) signed rows by noise level and (R, B) weights by stopping point, whose product is the response."""
        lam, n = self.bands.eigenvalues, self.bands.counts
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
        training = self.training
        # levels below `high` exist for some stopping points of the interval only; their errors are >= 0 and left out
        table = self.levels_above(high, levels)
        ends = [self._least_rows(table, low, stop, levels) for stop in (low, high)]
        score, floor, response = (np.minimum(a, b) for a, b in zip(*ends, strict=True))
        final = 0.0
        if self.terminal == "denoise" and _known_monotone(training):
            lam, n = self.bands.eigenvalues, self.bands.counts
            final = min(training.last_evaluation(lam, n, stop)[1] for stop in (low, high))
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
        )

    def interval_batch(self, lows: Array, highs: Array, levels: int = 200) -> CoefficientBatch | None:
        """`interval_coefficients` of R intervals at once, to rounding; None where only that knows the model.

        `final_score` is the last evaluation's at the lower end of each interval, which is the smaller one.
        """
        ends = np.concatenate([lows, highs])
        form = self._batch_form(ends)
        if form is None or not self._weights_are_monotone():
            return None
        lam, n = self.bands.eigenvalues, self.bands.counts
        edges = self._edges(levels)
        table = StopLevels(edges, highs)
        sigma, rows = cut_levels(edges, table, lows)
        trained = self.training.at_stops(lam, n, sigma, ends, eta=self.sampler.eta, terminal=self.terminal)
        if trained is None:  # laws of its own at each stopping point: the caller takes the intervals one by one
            return None
        score, floor = (rows.least(values * sigma**2) for values in trained)
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
        )

    def _weights_are_monotone(self) -> bool:
        """Whether every weight rises, or every weight falls, with the stopping point."""
        training, power = self.training, self.sampler.eta**2
        if training.dataset_size is not None or (training.matrix == "full" and power > 0):
            return False
        # "denoise": variances weigh v_r^(2 eta^2 - 1) and means v_r^(eta^2 - 1), which part for 1/2 < eta^2 < 1
        means = training.intercept or (self.start == "noise" and bool(np.any(self.spectrum.mean_power > 0)))
        return not (self.terminal == "denoise" and means and 0.5 < power < 1)

    def _least_rows(self, table: Levels, low: float, stop: float, levels: int) -> tuple[Array, Array, Array]:
        """Magnitudes of `_rows`; on the lowest level, which the stopping point may cut anywhere between `low`
        and its own lower edge, the least over the representatives that the cut can have."""
        score, floor, response = (np.abs(row).copy() for row in self._rows(table.sigma, stop))
        whole = self.levels_above(min(self.process.sigma_min, low), levels).edges
        start = max(low, float(whole[whole <= table.edges[0]].max(initial=low)))
        cuts = np.maximum(np.sqrt(np.geomspace(start, table.edges[0], CUTS) * table.edges[1]), stop)
        at_cuts = self._rows(cuts, stop)
        score[0], floor[0], response[:, 0] = at_cuts[0].min(), at_cuts[1].min(), least_size(at_cuts[2], axis=-1)
        return score, floor, response


def _known_monotone(training: TrainingNoise) -> bool:
    """Whether the last evaluation's floor is monotone, said by the class that wrote the floor or by a later one."""
    said = not stale(type(training), ("_stationary", "last_evaluation"), ("final_floor_is_monotone",))
    return said and training.final_floor_is_monotone
