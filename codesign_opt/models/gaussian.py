"""GaussianModel: data known by their spectrum. Exact laws of any grid, and the optimizer's coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, integer, number
from ..ingredients.coupling import Coupling, Local, PerStep, Settled
from ..ingredients.grids import check_grid, edm_grid, log_snr_grid
from ..ingredients.levels import Levels
from ..ingredients.process import EDM, Process
from ..ingredients.spectrum import Spectrum
from ..samplers.affine_steps import Numbers
from ..samplers.members import Heun, Sampler
from ..samplers.terminal import terminal_weight
from ..training.optimisers import AveragedSGD, TrainingNoise
from .coefficient_batch import CUTS, CoefficientBatch, StopLevels, cut_levels
from .coefficients import Coefficients
from .polish import polish_grid

__all__ = ["GaussianModel"]

_BANDS = 48
_BLOCK = 2**21  # nodes times bands of one exact law held at once


@dataclass(frozen=True, eq=False)
class GaussianModel:
    """Everything the planner asks of data that are known by their covariance (docs/theory.md sections 2 to 6).

    Args:
        spectrum: eigenvalues of the data covariance, with the mean where it matters.
        process: forward process; only its range of sigma enters the plan.
        sampler: how one step acts.
        training: what training leaves in the score.
        coupling: over which stretch of log sigma one error of the denoiser persists.
        terminal: "denoise" (the last step goes to zero noise, as real samplers do) or "rescale".
        start: "noise" begins at N(0, sigma_max^2 I), as real samplers do; "mean" shifts that to the data's
            mean, which is free and often worth much (section 1); "marginal" begins at the exact law.

    Raises:
        ValueError: a field of the wrong type or an unknown name.

    >>> model = GaussianModel(Spectrum.power_law(8, exponent=1.5), terminal="rescale", start="marginal")
    >>> round(model.truncation(0.1), 6) == round(float(np.sum((np.sqrt(model.spectrum.eigenvalues + 0.01)
    ...     - np.sqrt(model.spectrum.eigenvalues)) ** 2)), 6)
    True
    """

    spectrum: Spectrum
    process: Process = field(default_factory=EDM)
    sampler: Sampler = field(default_factory=Heun)
    training: TrainingNoise = field(default_factory=AveragedSGD)
    coupling: Coupling = field(default_factory=Local)
    terminal: str = "denoise"
    start: str = "noise"

    def __post_init__(self) -> None:
        for name, kind in (
            ("spectrum", Spectrum),
            ("process", Process),
            ("sampler", Sampler),
            ("training", TrainingNoise),
            ("coupling", Coupling),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"GaussianModel.{name} is {value!r}; a {kind.__name__} is needed.")
        choice(self.terminal, "GaussianModel.terminal", ("denoise", "rescale"))
        choice(self.start, "GaussianModel.start", ("noise", "mean", "marginal"))

    @cached_property
    def bands(self) -> Spectrum:
        """The spectrum in at most 48 log-bands, for the coefficients (exact where it has no more)."""
        return self.spectrum if len(self.spectrum) <= _BANDS else self.spectrum.in_bands(_BANDS)

    def truncation(self, stopping_sigma: float) -> float:
        """E0 = sum_b n_b (sqrt(P_b) - sqrt(lambda_b))^2, what stopping costs a perfect sampler (section 2)."""
        return float(self.truncations(np.array([number(stopping_sigma, "stopping_sigma", positive=True)]))[0])

    def truncations(self, stops: Array) -> Array:
        """(R,) `truncation` at many stopping points."""
        return _in_blocks(self._truncations, stops, len(self.spectrum))

    def _truncations(self, stops: Array) -> Array:
        lam, n = self.spectrum.eigenvalues, self.spectrum.counts
        ends = lam + stops[:, None] ** 2
        # sqrt(P) - sqrt(lambda) without cancellation at small sigma: (P - lambda) / (sqrt(P) + sqrt(lambda))
        excess = stops[:, None] ** 2 * (1.0 if self.terminal == "rescale" else -lam / ends)
        total = np.sqrt(self._end_weight(lam, ends)) + np.sqrt(lam)
        return np.asarray(np.where(total > 0, excess / np.where(total > 0, total, 1.0), 0.0) ** 2 @ n)

    def _end_weight(self, lam: Array, ends: Array) -> Array:
        """P_b at lambda + sigma_r^2."""
        return ends if self.terminal == "rescale" else lam**2 / ends

    def initial_error(self, stopping_sigma: float) -> float:
        """E_init of starting from pure noise instead of the marginal (section 1); 0 for start="marginal"."""
        return float(self.initial_errors(np.array([number(stopping_sigma, "stopping_sigma", positive=True)]))[0])

    def initial_errors(self, stops: Array) -> Array:
        """(R,) `initial_error` at many stopping points."""
        if self.start == "marginal":
            return np.zeros(stops.size)
        return _in_blocks(self._initial_errors, stops, len(self.spectrum))

    def _initial_errors(self, stops: Array) -> Array:
        s, high = self.spectrum, self.process.sigma_max
        lam = s.eigenvalues
        ends, top = lam + stops[:, None] ** 2, lam + high**2
        weight, forget = self._end_weight(lam, ends), (ends / top) ** (self.sampler.eta**2)
        variance = (weight * lam**2 / (4 * high**4) * forget**2) @ s.counts
        return np.asarray(variance + ((weight * forget / top) @ s.mean_power if self.start == "noise" else 0.0))

    def coefficients(self, stopping_sigma: float | None = None, levels: int = 200) -> Coefficients:
        """The table of the programs of section 7 at one stopping point.

        Args:
            stopping_sigma: where sampling stops; process.sigma_min unless given.
            levels: number of levels over the whole range of the process; refining changes no answer.
        """
        stop = self.process.sigma_min if stopping_sigma is None else stopping_sigma
        stop = number(stop, "stopping_sigma", positive=True)
        table = self._levels(stop, levels)
        score, floor, response = self._rows(table.sigma, stop)
        lam, n = self.bands.eigenvalues, self.bands.counts
        final = (0.0, 0.0)
        if self.terminal == "denoise":
            final = self.training.last_evaluation(lam, n, stop)
        smallest = float(self.spectrum.eigenvalues.min())
        return Coefficients(
            table,
            score=score,
            floor=floor,
            response=response,
            order=self.sampler.order,
            evaluations_per_step=self.sampler.evaluations_per_step,
            coupling=self.coupling,
            terminal=self.terminal,
            truncation=self.truncation(stop),
            initial=self.initial_error(stop),
            final_score=final[0],
            final_floor=final[1],
            variance_ratio=table.average(lambda sigma: sigma**2 / (smallest + sigma**2)),
            positivity=self.sampler.positivity,
            sampler=self.sampler.to_dict(),
            trace=self.spectrum.trace,
            band_variances=self.bands.eigenvalues,
            provenance=self.provenance(),
        )

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
        if type(self.sampler).local_error is not Sampler.local_error:
            return None
        return {Local: getattr(self.coupling, "form", ""), PerStep: "per_step"}.get(type(self.coupling))

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
        return score * square, floor * square, table.spread_rows(local) * weight[:, :, None] * table.used[:, None]

    def _response_at(self, sigma: Array, stops: Array) -> tuple[Array, Array]:
        """(B, N) magnitudes by noise level and (R, B) weights by stopping point, whose product is the response."""
        lam, n = self.bands.eigenvalues, self.bands.counts
        lowest = float(stops.min())
        local = np.abs(self.sampler.local_error(lam, sigma, lowest)) * sigma ** (self.sampler.order + 1)
        ends = lam + stops[:, None] ** 2
        weight = np.sqrt(n * self._end_weight(lam, ends)) * (ends / (lam + lowest**2)) ** self.sampler.eta**2
        return local, weight

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from, as plain values."""
        return {
            "spectrum": self.spectrum.provenance,
            "dimension": self.spectrum.dimension,
            "trace": self.spectrum.trace,
            "band_eigenvalues": self.bands.eigenvalues.tolist(),
            "band_counts": self.bands.counts.tolist(),
            "process": self.process.to_dict(),
            "sampler": self.sampler.to_dict(),
            "training": self.training.to_dict(np.geomspace(self.process.sigma_min, self.process.sigma_max, 64)),
            "terminal": self.terminal,
            "start": self.start,
        }

    def _levels(self, stop: float, levels: int) -> Levels:
        count = integer(levels, "levels", minimum=2)
        low = min(self.process.sigma_min, stop)
        return self.coupling.aligned(Levels.log_uniform(low, self.process.sigma_max, count, stopping_sigma=stop))

    def _rows(self, sigma: Array, stop: float) -> tuple[Array, Array, Array]:
        """a sigma^2, tau b sigma^2 and rows sqrt(n P) sigma^(q+1) l at noise levels, weights taken at `stop`.

        Values at the geometric mean of a level, not averages: the optimum holds square roots of them, so
        that an average would bias every level by the square of its width, the midpoint only the ends.
        """
        lam, n = self.bands.eigenvalues, self.bands.counts
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        weight = np.sqrt(n * terminal_weight(lam, stop, self.terminal))
        local = self.sampler.local_error(lam, sigma, stop) * sigma ** (self.sampler.order + 1)
        return (
            self.training.reducible(lam, n, sigma, stop, **options) * sigma**2,
            self.training.floor(lam, n, sigma, stop, **options) * sigma**2,
            weight[:, None] * local,
        )

    def interval_coefficients(self, low: float, high: float, levels: int = 200) -> Coefficients | None:
        """A table below every table with a stopping point in [low, high], for bounds over the interval.

        Levels from `high` up, E0 from `low`, and every weight from the end where it is smaller: each is
        monotone in the stopping point (docs/theory.md section 7). The last evaluation's reducible error is
        left out. None where monotonicity is not known.
        """
        if not self._weights_are_monotone():
            return None
        training = self.training
        table = self._levels(high, levels)
        ends = [self._least_rows(table, low, stop, levels) for stop in (low, high)]
        score, floor, response = (np.minimum(a, b) for a, b in zip(*ends, strict=True))
        final = 0.0
        if self.terminal == "denoise" and getattr(training, "weight", None) is None:
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
        if trained is None:
            return None
        score, floor = (rows.least(values * sigma**2) for values in trained)
        final = np.zeros((2, ends.size))
        if self.terminal == "denoise":
            final = np.stack(self.training.last_evaluations(lam, n, ends))
            if getattr(self.training, "weight", None) is not None:
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
        whole = self._levels(min(self.process.sigma_min, low), levels).edges
        start = max(low, float(whole[whole <= table.edges[0]].max(initial=low)))
        cuts = np.maximum(np.sqrt(np.geomspace(start, table.edges[0], CUTS) * table.edges[1]), stop)
        at_cuts = [np.abs(row) for row in self._rows(cuts, stop)]
        score[0], floor[0], response[:, 0] = at_cuts[0].min(), at_cuts[1].min(), at_cuts[2].min(axis=-1)
        return score, floor, response

    # exact laws of a concrete grid

    def terminal_std(self, sigmas: Any, spectrum: Spectrum | None = None) -> Numbers:
        """(..., B) standard deviation of the sampler's output in every band; grids may be batched or complex."""
        return self._law(sigmas, spectrum)[0]

    def _law(self, sigmas: Any, spectrum: Spectrum | None = None) -> tuple[Numbers, Numbers]:
        """Standard deviation and squared error of the mean, band by band."""
        s = self.spectrum if spectrum is None else spectrum
        grid = np.asarray(sigmas)
        rows = max(1, _BLOCK // max(grid.size, 1))  # bands are independent: long grids of large spectra in blocks
        blocks = [self._law_of(grid, s, slice(i, i + rows)) for i in range(0, len(s), rows)]
        std, mean = (np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True))
        return std, mean

    def _law_of(self, grid: Numbers, spectrum: Spectrum, bands: slice) -> tuple[Numbers, Numbers]:
        lam = spectrum.eigenvalues[bands]
        first = grid[..., :1] ** 2
        start = first + lam if self.start == "marginal" else np.broadcast_to(first, (*grid.shape[:-1], lam.size))
        law = self.sampler.terminal_law(grid, lam, initial_variance=start)
        mean = law.amplitude**2 * spectrum.mean_power[bands] if self.start == "noise" else 0.0 * law.amplitude
        return law.std, mean

    def wasserstein2(self, sigmas: Any, spectrum: Spectrum | None = None) -> Numbers:
        """Exact squared Wasserstein distance of the sampler's output to the data (no score error).

        sum_b n_b (std_b - sqrt(lambda_b))^2 plus the error of the mean, for any grid, batched over
        leading axes: truncation, discretisation and start with all their signs (section 2).
        """
        s = self.spectrum if spectrum is None else spectrum
        std, mean = self._law(sigmas, s)
        return (std - np.sqrt(s.eigenvalues)) ** 2 @ s.counts + mean.sum(axis=-1)

    def polish(self, sigmas: Array, *, free_stop: bool = False) -> Array:
        """A grid of as many steps between the same ends at a local minimum of the exact error.

        `free_stop` is for models whose stopping point moves in a descent; here `codesign` searches it.

        The best of three descents: from the given grid and from the two usual families.
        """
        positive = sigmas[sigmas > 0]
        low, high, steps = float(positive[-1]), float(positive[0]), sigmas.size - 1
        usual = [family(steps, low, high, terminal=self.terminal) for family in (edm_grid, log_snr_grid)]

        def error(grids: Any) -> Any:
            return self.wasserstein2(grids, self.bands)

        return min((polish_grid(error, start) for start in [sigmas, *usual]), key=lambda p: p.after).sigmas

    def band_errors(self, sigmas: Any) -> Array:
        """(B,) signed error of each band's standard deviation, in data units; positive: too wide."""
        return np.asarray(self.terminal_std(check_grid(sigmas).sigmas) - np.sqrt(self.spectrum.eigenvalues))

    def kl_divergence(self, sigmas: Any, *, reverse: bool = False) -> float:
        """Exact KL(data | output), or KL(output | data) for `reverse`, in nats (section 2).

        Raises:
            ValueError: a direction without variance under "rescale", where KL is infinite.
        """
        grid = check_grid(sigmas)
        s = self.spectrum
        keep = s.eigenvalues > 0
        if not keep.all() and grid.terminal == "rescale":
            raise ValueError(
                "kl_divergence is infinite: the spectrum has directions of zero variance and 'rescale' leaves "
                "noise in them; use terminal='denoise', or give those eigenvalues a floor."
            )
        std, mean = self._law(grid.sigmas)
        lam, n, power = s.eigenvalues[keep], s.counts[keep], mean[keep]
        ratio = std[keep] ** 2 / lam
        if reverse:
            return float(0.5 * (n @ (ratio - 1 - np.log(ratio)) + (power / lam).sum()))
        return float(0.5 * (n @ (1 / ratio - 1 + np.log(ratio)) + (power / (lam * ratio)).sum()))

    def discretization(self, sigmas: Any) -> float:
        """Exact E_disc = sum_b n_b (std_b - sqrt(P_b))^2 of a grid, from the exact marginal at its start."""
        grid = check_grid(sigmas)
        s = self.spectrum
        std = self.sampler.terminal_law(grid.sigmas, s.eigenvalues).std
        weight = terminal_weight(s.eigenvalues, grid.stopping_sigma, grid.terminal)
        return float(s.counts @ (std - np.sqrt(weight)) ** 2)

    def sharp_discretization(self, sigmas: Any) -> float:
        """Leading-order E_disc of a grid, sum_b n_b P_b (int step^q |l_b| d sigma)^2 (equation 3.1)."""
        from ..ingredients.grids import steps_on_levels

        grid = check_grid(sigmas)
        table = self.coefficients(grid.stopping_sigma).levels
        _, _, response = self._rows(table.sigma, grid.stopping_sigma)
        steps = steps_on_levels(table, grid.sigmas)
        terms = np.abs(response) * table.log_width ** (self.sampler.order + 1) / steps**self.sampler.order
        return float((terms.sum(axis=1) ** 2).sum())

    # the score error on a concrete grid

    def settled_coefficients(self, sigmas: Any, levels: int = 200, *, smooth: bool = False) -> Coefficients:
        """The table for a grid that is given: discrete kernel, exact bias (docs/theory.md section 4).

        The error of node k, max(1, l/g_k) kappa_k (A/(rho l) + F) with g_k its step in log sigma, is
        spread over the node's step, so that only the examples are left to decide. `truncation` is the
        grid's exact bias, start included.

        Args:
            sigmas: (K+1,) grid.
            levels: number of levels over the whole range.
            smooth: spread evenly over each step (False), or interpolate between the steps' centres with
                the same total, which gives a training density without stairs.
        """
        return self._settled_tables(sigmas, levels, [smooth])[0]

    def settled_pair(self, sigmas: Any, levels: int = 200) -> tuple[Coefficients, Coefficients]:
        """`settled_coefficients` of one grid both ways, smooth and even, from one evaluation of its errors."""
        smooth, even = self._settled_tables(sigmas, levels, [True, False])
        return smooth, even

    def _settled_tables(self, sigmas: Any, levels: int, smooth: list[bool]) -> list[Coefficients]:
        grid = check_grid(sigmas)
        if grid.terminal != self.terminal:
            raise ValueError(
                f"sigmas ends with {grid.sigmas[-1]:g}, which is terminal='{grid.terminal}', but the model's terminal "
                f"is '{self.terminal}'; change one of them."
            )
        stop = grid.stopping_sigma
        positive = grid.sigmas[grid.sigmas > 0]
        table = self._grid_levels(positive, levels)
        reducible, floor = self._node_errors(grid.sigmas)
        log_steps = -np.diff(np.log(positive))
        length = self._lengths_at(positive)
        last = positive.size - 1
        used = last if self.terminal == "denoise" else positive.size
        step = np.append(log_steps, log_steps[-1])[:used]
        longer = step / length[:used]
        share = self.coupling.factor(longer) / longer  # max(1, length / step) for the default coupling
        score_density = share * reducible[:used] / length[:used] / step
        floor_density = share * floor[:used] / step
        if used > last:  # Heun's corrector under "rescale" evaluates the last node: its cell is the last step
            score_density[last - 1] += score_density[last]
            floor_density[last - 1] += floor_density[last]
        lengths = self.coupling.lengths(table)
        first = Coefficients(
            table,
            score=np.zeros(len(table)),
            floor=np.zeros(len(table)),
            response=np.zeros((0, len(table))),
            order=self.sampler.order,
            evaluations_per_step=self.sampler.evaluations_per_step,
            coupling=Settled(lengths, self.coupling.pooling(table)),
            terminal=self.terminal,
            truncation=float(self.wasserstein2(grid.sigmas)),
            final_score=float(reducible[last]) if self.terminal == "denoise" else 0.0,
            final_floor=float(floor[last]) if self.terminal == "denoise" else 0.0,
            sampler=self.sampler.to_dict(),
            trace=self.spectrum.trace,
            band_variances=self.bands.eigenvalues,
            provenance={**self.provenance(), "stopping_sigma": stop},
        )
        tables = []
        for spread in (_interpolated if interpolated else _stepwise for interpolated in smooth):
            score, floor_rows = (spread(density[:last], positive, table) for density in (score_density, floor_density))
            tables.append(replace(first, score=score, floor=floor_rows / lengths))
        return tables

    def _node_errors(self, sigmas: Array) -> tuple[Array, Array]:
        """(K,) squared terminal error per unit A/m and the floor, of each positive node's denoiser."""
        lam, n = self.bands.eigenvalues, self.bands.counts
        positive = sigmas[sigmas > 0]
        start = positive[0] ** 2 + (lam if self.start == "marginal" else np.zeros(lam.size))
        sensitivity = self.sampler.weight_sensitivity(sigmas, lam, initial_variance=start)[: positive.size]
        reducible, floor = self.training.weight_variance(lam, positive)
        kernel = n * np.real(sensitivity) ** 2
        plain = replace(self.training, matrix="diagonal", intercept=False)  # type: ignore[type-var]
        arguments = (lam, n, positive, float(positive[-1]))
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        # the discrete kernel is diagonal; off-diagonal errors and intercepts enter by their continuous ratio
        ratio = _ratio(self.training.reducible(*arguments, **options), plain.reducible(*arguments, **options))
        floor_ratio = _ratio(self.training.floor(*arguments, **options), plain.floor(*arguments, **options))
        return (kernel * reducible.T).sum(axis=1) * ratio, (kernel * floor.T).sum(axis=1) * floor_ratio

    def _grid_levels(self, positive: Array, levels: int) -> Levels:
        low = min(self.process.sigma_min, float(positive[-1]))
        high = float(positive[0])
        count = integer(levels, "levels", minimum=2)
        return self.coupling.aligned(Levels.log_uniform(low, high, count, stopping_sigma=float(positive[-1])))

    def _lengths_at(self, sigma: Array) -> Array:
        return self.coupling.lengths_at(sigma, float(sigma[-1]), float(sigma[0]))


def _in_blocks(function: Callable[[Array], Array], stops: Array, width: int) -> Array:
    """(R,) values of `function` at many stopping points, so many at once that (R, width) stays small."""
    rows = max(1, _BLOCK // width)
    return np.concatenate([function(stops[i : i + rows]) for i in range(0, stops.size, rows)])


def _stepwise(density: Array, positive: Array, table: Levels) -> Array:
    """(L,) a density that is constant over each step of a grid, averaged over the levels."""
    nodes, edges = np.log(positive[::-1]), np.log(table.edges)
    cuts = np.unique(np.concatenate([nodes, edges]))
    cuts = cuts[(cuts >= max(nodes[0], edges[0])) & (cuts <= min(nodes[-1], edges[-1]))]
    step = np.searchsorted(nodes, cuts[:-1], side="right") - 1
    level = np.searchsorted(edges, cuts[:-1], side="right") - 1
    pieces = np.diff(cuts) * density[::-1][step]  # each lies within one step and one level
    return np.bincount(level, pieces, minlength=len(table)) / table.log_width


def _interpolated(density: Array, positive: Array, table: Levels) -> Array:
    """(L,) the same total, interpolated in logarithms between the steps' centres."""
    stepwise = _stepwise(density, positive, table)
    if density.size < 2 or np.any(density <= 0):
        return stepwise
    centres = 0.5 * (np.log(positive[1:]) + np.log(positive[:-1]))[::-1]
    smooth = np.exp(np.interp(np.log(table.sigma), centres, np.log(density)[::-1]))
    return smooth * float(stepwise @ table.log_width) / float(smooth @ table.log_width)


def _ratio(value: Array, base: Array) -> Array:
    return np.where(base > 0, value / np.where(base > 0, base, 1.0), 1.0)
