"""Exact laws of a Gaussian model: what a concrete grid makes of the data, and what schedules may know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..basics.checks import Array, boolean, instance, shown
from ..ingredients.grids import check_grid, edm_grid, family_grids, steps_on_levels
from ..ingredients.metrics import Wasserstein
from ..ingredients.spectrum import Spectrum
from ..samplers.affine_steps import Numbers, unchecked
from ..samplers.node_gradient import NodeGradient, node_gradient
from ..samplers.terminal import terminal_weight
from .evidence import DenoiserGaps, Evidence, RiskCurve, ScoreCost, Trajectories
from .gaussian_parts import BLOCK, GaussianParts
from .grid_descent import GridResiduals, positive_nodes
from .polish import polish_grid

__all__ = ["GaussianExact"]

_NUDGE = 1e-30
_FAR = 1e60  # of noise levels, as checks have it
_TEACHER = 60  # steps of the teacher's trajectory, as in GITS


class GaussianExact(GaussianParts):
    """The part of GaussianModel that knows the law of any grid's output (docs/theory.md section 2)."""

    def terminal_std(self, sigmas: Any, spectrum: Spectrum | None = None) -> Numbers:
        """(..., B) standard deviation of the sampler's output in every band; grids may be batched or complex."""
        return self._law(sigmas, spectrum)[0]

    def _law(self, sigmas: Any, spectrum: Spectrum | None = None) -> tuple[Numbers, Numbers]:
        """Standard deviation and squared error of the mean, band by band."""
        s = self.spectrum if spectrum is None else spectrum
        instance(s, Spectrum, "spectrum")
        grid = _grids(sigmas)
        rows = max(1, BLOCK // max(grid.size, 1))  # bands are independent: long grids of large spectra in blocks
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
        s = self.spectrum if spectrum is None else instance(spectrum, Spectrum, "spectrum")
        std, mean = self._law(sigmas, s)
        return (std - np.sqrt(s.eigenvalues)) ** 2 @ s.counts + mean.sum(axis=-1)

    def distance(self, sigmas: Any, spectrum: Spectrum | None = None) -> Numbers:
        """Exact error of the sampler's output in the model's metric, as `wasserstein2` in its own (section 2.5)."""
        if isinstance(self.metric, Wasserstein):
            return self.wasserstein2(sigmas, spectrum)
        s = self.spectrum if spectrum is None else spectrum
        metric = self.metric if s is self.spectrum else self._banded_metric
        return metric.distance(s, *self._law(sigmas, s))

    def polish(self, sigmas: Array, *, free_stop: bool = False) -> Array:
        """A grid of as many steps between the same ends at a local minimum of the exact error.

        `free_stop` is for models whose stopping point moves in a descent; here `codesign` searches it.

        The best of three descents: from the given grid and from the two usual families.
        """
        positive = sigmas[sigmas > 0]
        low, high, steps = float(positive[-1]), float(positive[0]), sigmas.size - 1
        usual = family_grids(steps, low, high, self.terminal).values()
        return min((polish_grid(self.exact_error, start) for start in [sigmas, *usual]), key=lambda p: p.after).sigmas

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
        if boolean(reverse, "kl_divergence: reverse"):
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
        grid = check_grid(sigmas)
        table = self.coefficients(grid.stopping_sigma).levels
        _, _, response = self._rows(table.sigma, grid.stopping_sigma)
        steps = steps_on_levels(table, grid.sigmas)
        terms = np.abs(response) * table.log_width ** (self.sampler.order + 1) / steps**self.sampler.order
        return float((terms.sum(axis=1) ** 2).sum())

    @property
    def exact_error(self) -> Callable[[Numbers], Numbers]:
        """`distance` on the coefficients' bands, at most 48 of them, so that descents are fast."""
        return lambda grids: self.distance(grids, self.bands)

    @property
    def exact_residuals(self) -> Callable[[Array], GridResiduals] | None:
        """`exact_error` of grids as a sum of squares; None where it is none, or a step sees distant nodes."""
        if not self.metric.quadratic or self.sampler.own_levels is not None:
            return None
        return self._residuals if self._steps_see_neighbours else None

    def exact_values(self, sigmas: Array, *, sensitive: bool = False) -> tuple[Array, Array | None]:
        """(...) `exact_error` of grids that are not checked, and the law's sensitivity to the denoiser's weights."""
        s = self.valued
        given = unchecked(sigmas, s.eigenvalues, self._start(sigmas))
        steps, sensitivity = self.sampler._closed_steps(given), None
        if sensitive:
            law, by_steps = steps.law_and_gradient(given.initial_variance)
            sensitivity = self.sampler._pulled_back(given, by_steps)
        else:
            law = steps.law(given.initial_variance)
        errors = (law.std - np.sqrt(s.eigenvalues)) ** 2 @ s.counts
        if self.start == "noise":
            errors = errors + law.amplitude**2 @ s.mean_power
        return errors, sensitivity

    def _start(self, sigmas: Array) -> Array:
        """(..., B) variance that grids start from."""
        lam = self.bands.eigenvalues
        return sigmas[..., :1] ** 2 + (lam if self.start == "marginal" else np.zeros(lam.size))

    @cached_property
    def _steps_see_neighbours(self) -> bool:
        """Whether the derivative through the nodes that a step sees is that of the law: a sampler of one's own may
        look farther than its `memory` says."""
        grid = edm_grid(9, self.process.sigma_min, self.process.sigma_max, terminal=self.terminal)
        found = self._residuals(grid)
        toward = np.zeros(grid.size, dtype=complex)
        toward[1 : found.by_node.shape[1]] = 1j * _NUDGE * np.cos(np.arange(1, found.by_node.shape[1]))
        slope = float(np.imag(self.exact_error(grid * np.exp(toward)))) / _NUDGE
        own = 2 * found.values @ found.by_node @ np.cos(np.arange(found.by_node.shape[1]))
        own -= 2 * float(found.values @ found.by_node[:, 0])
        return bool(abs(own - slope) <= 1e-6 * (abs(own) + abs(slope)))

    def _residuals(self, sigmas: Array) -> GridResiduals:
        """sqrt(n) (std - sqrt(lambda)) of every band, and the error of its mean, with derivatives.

        The curvature is that of the leading order: a step of length h in log sigma adds -std l_b (sigma h)^(q+1) to
        the std of band b, whose second derivative by h is (q+1) q / h^2 times that (docs/theory.md section 7.8).
        """
        law = node_gradient(self.sampler, sigmas, self.valued.eigenvalues, self._start(sigmas), gain=self._shifted)
        return self._as_residuals(sigmas, law)

    @cached_property
    def _shifted(self) -> bool:
        """Whether the mean of the output is off."""
        return self.start == "noise" and bool(self.valued.mean_power.any())

    def _as_residuals(self, sigmas: Array, law: NodeGradient) -> GridResiduals:
        s = self.valued
        root = np.sqrt(s.counts)
        values, by_node = root * (law.std - np.sqrt(s.eigenvalues)), root[:, None] * law.std_by_node
        curvature = self._curvature(sigmas, values * root * law.std)
        if self._shifted:
            assert law.gain_by_node is not None
            mean = np.sqrt(s.mean_power)
            values = np.concatenate([values, mean * law.gain], axis=-1)
            by_node = np.concatenate([by_node, mean[:, None] * law.gain_by_node], axis=-2)
        return GridResiduals(values, by_node, curvature)

    def _curvature(self, sigmas: Array, weights: Array) -> Array:
        """(..., P-1) minus the sum over bands of weights (..., B) times (l_b (sigma h)^(q+1))'' by h."""
        lam, q = self.bands.eigenvalues, self.sampler.order
        logs = np.log(positive_nodes(sigmas))
        middle, length = np.exp(0.5 * (logs[..., 1:] + logs[..., :-1])), logs[..., :-1] - logs[..., 1:]
        stops = np.exp(logs[..., -1:])
        if self.sampler.error_separates:  # the one written in the library: nothing to check in a descent
            flat, ends = middle.reshape(-1), np.repeat(stops.reshape(-1), middle.shape[-1])
            local = self.sampler.unchecked_local_error(lam[:, None], flat, ends).reshape(lam.size, *middle.shape)
            summed = np.einsum("...b,b...k->...k", weights, local)
        else:
            rows = zip(middle.reshape(-1, middle.shape[-1]), stops.reshape(-1), strict=True)
            local = np.array([self.sampler.local_error(lam, row, float(stop)) for row, stop in rows])
            summed = np.einsum("...b,...bk->...k", weights, local.reshape(*middle.shape[:-1], lam.size, -1))
        return np.asarray(-summed * (q + 1) * q * middle ** (q + 1) * length ** (q - 1))

    @property
    def error_measure(self) -> str:
        """What `bias` measures, for tables."""
        return (
            f"exact {self.metric.measure}"
            if self.metric.measure
            else "exact squared Wasserstein-2 distance to the data"
        )

    def bias(self, sigmas: Any) -> float:
        """`distance` of one grid."""
        return float(self.distance(sigmas))

    def evidence(self) -> Evidence:
        """Everything that schedules of the literature may know, in closed form.

        With v = lambda + sigma^2, summed over directions: risk lambda sigma^2 / v; score cost
        4 sigma^4 / v^3; gaps are differences of risks; trajectories x(sigma) proportional to sqrt(v).
        """
        known = super().evidence()
        sigma = known.fine()
        lam, n = self.spectrum.eigenvalues, self.spectrum.counts
        v = lam + sigma[:, None] ** 2
        risk = (lam * sigma[:, None] ** 2 / v) @ n
        cost = 4 * sigma**4 * ((1 / v**3) @ n)
        teacher = edm_grid(_TEACHER, known.sigma_min, known.sigma_max, terminal="rescale")
        spread = lam + teacher[:, None] ** 2
        states = np.sqrt(n * spread)[:, None, :]
        slopes = states * (teacher[:, None] / spread)[:, None, :]
        return replace(
            known,
            risk=RiskCurve(sigma, risk, floor=risk),
            score_cost=ScoreCost(sigma, cost),
            gaps=DenoiserGaps(sigma, np.abs(risk[:, None] - risk)),
            trajectories=Trajectories(teacher, states, slopes),
            provenance={"source": "closed form, Gaussian data with the spectrum"},
        )


def _grids(sigmas: Any) -> Numbers:
    """Grids of noise levels along the last axis, batched over leading ones, real or complex (to differentiate)."""
    try:
        grid = np.asarray(sigmas)
    except Exception:  # ragged lists, tensors with gradients, objects whose own methods fail
        grid = np.array(None)
    if grid.dtype.kind not in "iufc" or grid.ndim < 1 or grid.shape[-1] < 2:
        raise ValueError(f"sigmas is {shown(sigmas)}; descending noise levels along the last axis are needed.")
    furthest = float(np.abs(grid).max(initial=0.0))
    if not furthest <= _FAR:
        raise ValueError(f"sigmas reach {furthest:g}; finite noise levels up to {_FAR:g} are needed.")
    return grid
