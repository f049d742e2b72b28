"""What a Gaussian model is made of, and its closed forms at one stopping point or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, noise_level, shown
from ..ingredients.coupling import Coupling, Local
from ..ingredients.levels import Levels
from ..ingredients.metrics import Metric, ValuedBands, Wasserstein
from ..ingredients.process import EDM, Process
from ..ingredients.spectrum import Spectrum
from ..samplers.members import Heun, Sampler
from ..samplers.terminal import terminal_weight
from ..training.optimisers import AveragedSGD, TrainingNoise
from ..training.sensitivity_kernel import output_sensitivity
from .base import Model
from .coefficients import Coefficients
from .model_parts import name_parts
from .unknowns import Unknowns, spectrum_unknowns

__all__ = ["BLOCK", "GaussianParts"]

_BANDS = 48
BLOCK = 2**21  # nodes times bands of one exact law held at once


@dataclass(frozen=True, eq=False)
class GaussianParts(Model):
    """Fields of GaussianModel (documented there), truncation, start, and the rows of its tables."""

    spectrum: Spectrum
    process: Process = field(default_factory=EDM)
    sampler: Sampler = field(default_factory=Heun)
    training: TrainingNoise = field(default_factory=AveragedSGD)
    coupling: Coupling = field(default_factory=Local)
    terminal: str = "denoise"
    start: str = "noise"
    metric: Metric = field(default_factory=Wasserstein)

    def __post_init__(self) -> None:
        name_parts(self)
        self.check_parts()
        if not isinstance(self.training, TrainingNoise):
            raise ValueError(
                f"{type(self).__name__}.training is {shown(self.training)}; a TrainingNoise is needed: "
                "co.AveragedSGD(), co.SGD(…), co.Adam(…), or of a network co.Measured.load('mlp_digits')."
            )
        counted = self.training.within(self.coupling, self.process.sigma_min, self.process.sigma_max)
        object.__setattr__(self, "training", counted)
        choice(self.start, f"{type(self).__name__}.start", ("noise", "mean", "marginal"))
        self._check_metric()

    def _check_metric(self) -> None:
        """Whether the metric is one that coefficients, exact laws and the training's errors are known in."""
        kind = type(self).__name__
        if not isinstance(self.metric, Metric):
            raise ValueError(f"{kind}.metric is {shown(self.metric)}; give co.Wasserstein(), co.Features or co.KL.")
        self.metric.weights(self.spectrum)
        if isinstance(self.metric, Wasserstein):
            return
        if self.training.matrix == "full":
            raise ValueError(f"{kind}.metric is {shown(self.metric)}, and training.matrix is 'full'; state 'diagonal'.")
        if not self.metric.quadratic and self.training.intercept:
            raise ValueError(f"{kind}.metric is {shown(self.metric)}, and a mean is learned; give intercept=False.")
        if not self.metric.quadratic and self.terminal == "rescale" and self.spectrum.eigenvalues.min() <= 0:
            raise ValueError(
                f"{kind}.metric is {shown(self.metric)}: it is infinite where the data have no variance and 'rescale' "
                "leaves noise; use terminal='denoise', or give those eigenvalues a floor."
            )

    @cached_property
    def valued(self) -> ValuedBands:
        """`bands` as sums of errors see them: counts and mean powers times the metric's weights."""
        return self._banded_metric.valued(self.bands)

    @cached_property
    def _banded_metric(self) -> Metric:
        """The metric of the coefficients' bands: stated weights of merged bands are averages."""
        return self.metric.merged(self.spectrum, self.bands)

    @cached_property
    def bands(self) -> Spectrum:
        """The spectrum in at most 48 log-bands, for the coefficients (exact where it has no more)."""
        return self.spectrum if len(self.spectrum) <= _BANDS else self.spectrum.in_bands(_BANDS)

    def truncation(self, stopping_sigma: float) -> float:
        """E0 = sum_b n_b (sqrt(P_b) - sqrt(lambda_b))^2, what stopping costs a perfect sampler (section 2)."""
        return float(self.truncations(np.array([noise_level(stopping_sigma, "stopping_sigma")]))[0])

    def truncations(self, stops: Array) -> Array:
        """(R,) `truncation` at many stopping points."""
        return _in_blocks(self._truncations, stops, len(self.spectrum))

    def _truncations(self, stops: Array) -> Array:
        lam = self.spectrum.eigenvalues
        ends = lam + stops[:, None] ** 2
        # sqrt(P) - sqrt(lambda) without cancellation at small sigma: (P - lambda) / (sqrt(P) + sqrt(lambda))
        excess = stops[:, None] ** 2 * (1.0 if self.terminal == "rescale" else -lam / ends)
        excess = np.broadcast_to(excess, ends.shape)
        return self.metric.truncation(self.spectrum, excess, np.sqrt(self._end_weight(lam, ends)))

    def _end_weight(self, lam: Array, ends: Array) -> Array:
        """P_b at lambda + sigma_r^2."""
        return ends if self.terminal == "rescale" else lam**2 / ends

    def initial_error(self, stopping_sigma: float) -> float:
        """E_init of starting from pure noise instead of the marginal (section 1); 0 for start="marginal"."""
        return float(self.initial_errors(np.array([noise_level(stopping_sigma, "stopping_sigma")]))[0])

    def initial_errors(self, stops: Array) -> Array:
        """(R,) `initial_error` at many stopping points."""
        if self.start == "marginal":
            return np.zeros(stops.size)
        return _in_blocks(self._initial_errors, stops, len(self.spectrum))

    def _initial_errors(self, stops: Array) -> Array:
        s, high = self.metric.valued(self.spectrum), self.process.sigma_max
        lam = s.eigenvalues
        ends, top = lam + stops[:, None] ** 2, lam + high**2
        weight, forget = self._end_weight(lam, ends), (ends / top) ** (self.sampler.eta**2)
        variance = (weight * lam**2 / (4 * high**4) * forget**2) @ s.counts
        return np.asarray(variance + ((weight * forget / top) @ s.mean_power if self.start == "noise" else 0.0))

    def coefficients(self, stopping_sigma: float | None = None, levels: int | Levels = 200) -> Coefficients:
        """The table of the programs of section 7 at one stopping point.

        Args:
            stopping_sigma: where sampling stops; process.sigma_min unless given.
            levels: number of levels over the whole range of the process, refining which changes no answer, or the
                levels themselves.
        """
        stop = self.process.sigma_min if stopping_sigma is None else stopping_sigma
        stop = noise_level(stop, "stopping_sigma")
        table = self.levels_above(stop, levels)
        score, floor, response = self._rows(table.sigma, stop)
        lam, n = self.bands.eigenvalues, self.valued.counts
        final, final_untrained = (0.0, 0.0), None
        if self.terminal == "denoise":
            final = self.training.last_evaluation(lam, n, stop)
            final_untrained = self._final_untrained(np.array([stop]))
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
            trace=self.trace,
            measure=self.metric.measure,
            speaks_of=self.training.speaks_of,
            band_variances=self.bands.eigenvalues,
            provenance=self.provenance(),
            untrained=self._untrained_row(table.sigma, stop),
            final_untrained=None if final_untrained is None else float(final_untrained[0]),
            output_sensitivity=self.output_sensitivity(table.sigma, stop),
        )

    def output_sensitivity(self, sigma: Array, stop: float) -> Array:
        """(L,) g^2 of `Coefficients` at noise levels."""
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        return output_sensitivity(self.bands.eigenvalues, self.bands.counts, sigma, stop, **options)

    def truncation_and_start(self, stop: float) -> tuple[float, float]:
        """E0 and E_init of a stopping point (section 2.3)."""
        return self.truncation(stop), self.initial_error(stop)

    @property
    def speaks_of(self) -> str:
        """Whose training it is, as a phrase."""
        return self.training.speaks_of

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
            "eigenvalues": self.spectrum.eigenvalues.tolist(),
            "counts": self.spectrum.counts.tolist(),
            "mean_power": self.spectrum.mean_power.tolist(),
            "coupling": self.coupling.to_dict(np.geomspace(self.process.sigma_min, self.process.sigma_max, 64)),
            **({"metric": self.metric.measure} if self.metric.measure else {}),
        }

    @property
    def trace(self) -> float | None:
        """The data's total variance, which errors are held against; None in another metric than theirs."""
        return None if self.metric.measure else self.spectrum.trace

    def measured_numbers(self) -> Unknowns | None:
        """The eigenvalues of the coefficients' bands, where the spectrum is that of samples."""
        banded = self if self.bands is self.spectrum else replace(self, spectrum=self.bands, metric=self._banded_metric)
        return spectrum_unknowns(banded, self.bands)

    @property
    def title(self) -> str:
        """What the model is, for tables."""
        return f"Gaussian data, {self.spectrum!r}" + (f", {self.metric.measure}" if self.metric.measure else "")

    def describe(self) -> dict[str, Any]:
        """Plain values that tell this model from others, whatever its sampler and training."""
        plain = self.provenance()
        return {name: plain[name] for name in ("band_eigenvalues", "band_counts", "process", "terminal", "start")} | {
            "mean_power": self.spectrum.mean_power.tolist(), "dimension": plain["dimension"],
            **({"metric": self.valued.counts.tolist(), "measure": self.metric.measure} if self.metric.measure else {}),
        }  # fmt: skip

    def warnings(self, table: Coefficients, examples: Array) -> tuple[str, ...]:
        """What the training noise says about levels whose burn-in is not over at (L,) planned examples."""
        within = examples / table.log_width * table.coupling.lengths(table.levels)
        return tuple(self.training.warnings_for(table.sigma, self.bands.eigenvalues, within, self.bands.counts))

    def _rows(self, sigma: Array, stop: float) -> tuple[Array, Array, Array]:
        """a sigma^2, tau b sigma^2 and rows sqrt(n P) sigma^(q+1) l at noise levels, weights taken at `stop`.

        Values at the geometric mean of a level, not averages: the optimum holds square roots of them, so
        that an average would bias every level by the square of its width, the midpoint only the ends.
        """
        lam, n = self.bands.eigenvalues, self.valued.counts
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        weight = np.sqrt(n * terminal_weight(lam, stop, self.terminal))
        local = self.sampler.local_error(lam, sigma, stop) * sigma ** (self.sampler.order + 1)
        return (
            self.training.reducible(lam, n, sigma, stop, **options) * sigma**2,
            self.training.floor(lam, n, sigma, stop, **options) * sigma**2,
            weight[:, None] * local,
        )

    def _untrained_row(self, sigma: Array, stop: float) -> Array | None:
        """e0 sigma^2 at noise levels, as the rows of `_rows`; None where training starts from nothing known."""
        lam, n, mean = self.bands.eigenvalues, self.valued.counts, self.valued.mean_power
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal, "mean_power": mean}
        row = self.training.untrained(lam, n, sigma, stop, **options)
        return None if row is None else row * sigma**2

    def _final_untrained(self, stops: Array) -> Array | None:
        """(R,) error of the last evaluation by an untrained denoiser; None likewise."""
        found = self.training.untrained_output(
            self.bands.eigenvalues, self.valued.counts, stops, self.valued.mean_power
        )
        return None if found is None else (found[0] ** 2).sum(axis=0) + found[1]


def _in_blocks(function: Callable[[Array], Array], stops: Array, width: int) -> Array:
    """(R,) values of `function` at many stopping points, so many at once that (R, width) stays small."""
    rows = max(1, BLOCK // width)
    return np.concatenate([function(stops[i : i + rows]) for i in range(0, stops.size, rows)])
