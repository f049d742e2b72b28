"""Tables of a Gaussian model for a grid that is given: discrete kernel, exact bias (docs/theory.md section 4)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..basics.checks import Array, boolean
from ..ingredients.coupling import Settled
from ..ingredients.levels import Levels
from ..ingredients.parameterization import unchecked_skip
from ..samplers.affine_steps import denoiser_weights, unchecked
from ..samplers.node_gradient import NodeGradient, node_gradient
from ..training.base import TrainingNoise
from ..training.optimiser_runs import OptimiserRun
from .coefficients import Coefficients
from .gaussian_exact import GaussianExact
from .grid_descent import GridResiduals, NodeErrors, positive_nodes
from .node_sums import NodeTerms

__all__ = ["GaussianSettled"]

_SHIFT = 1e-5  # of weights and of log sigma, for central differences
_NEARBY = np.array([1.0, np.exp(_SHIFT), np.exp(-_SHIFT)])


class GaussianSettled(GaussianExact):
    """The part of GaussianModel that knows the score error on a concrete grid."""

    def settled(self, sigmas: Any, levels: int | Levels = 200, *, smooth: bool = False) -> Coefficients:
        """The table for a grid that is given: discrete kernel, exact bias (docs/theory.md section 4).

        The error of node k, max(1, l/g_k) kappa_k (A/(m0 + rho l) + F) with g_k its step in log sigma, is
        spread over the node's step, so that only the examples are left to decide. `truncation` is the
        grid's exact bias, start included.

        Args:
            sigmas: (K+1,) grid.
            levels: number of levels over the whole range, or the levels themselves.
            smooth: spread evenly over each step (False), or interpolate between the steps' centres with
                the same total, which gives a training density without stairs.
        """
        return self._settled_tables(sigmas, levels, [boolean(smooth, "settled: smooth")])[0]

    def settled_pair(self, sigmas: Any, levels: int | Levels = 200) -> tuple[Coefficients, Coefficients]:
        """`settled` of one grid both ways, smooth and even, from one evaluation of its errors."""
        smooth, even = self._settled_tables(sigmas, levels, [True, False])
        return smooth, even

    def _settled_tables(self, sigmas: Any, levels: int | Levels, smooth: list[bool]) -> list[Coefficients]:
        grid = self.own_grid(sigmas)
        stop = grid.stopping_sigma
        positive = grid.sigmas[grid.sigmas > 0]
        table = self.levels_above(stop, levels, float(positive[0]))
        reducible, floor, untrained = self.node_errors(grid.sigmas)
        log_steps = -np.diff(np.log(positive))
        length = self._lengths_at(positive)
        last = positive.size - 1
        used = last if self.terminal == "denoise" else positive.size
        step = np.append(log_steps, log_steps[-1])[:used]
        longer = step / length[:used]
        share = self.coupling.factor(longer) / longer  # max(1, length / step) for the default coupling
        score_density = share * reducible[:used] / length[:used] / step
        floor_density = share * floor[:used] / step
        start_density = share * (0.0 if untrained is None else untrained[:used]) / step
        if used > last:  # Heun's corrector under "rescale" evaluates the last node: its cell is the last step
            for density in (score_density, floor_density, start_density):
                density[last - 1] += density[last]
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
            truncation=self.bias(grid.sigmas),
            final_score=float(reducible[last]) if self.terminal == "denoise" else 0.0,
            final_floor=float(floor[last]) if self.terminal == "denoise" else 0.0,
            sampler=self.sampler.to_dict(),
            trace=self.trace,
            measure=self.metric.measure,
            speaks_of=self.training.speaks_of,
            band_variances=self.bands.eigenvalues,
            output_sensitivity=self.output_sensitivity(table.sigma, stop),
            provenance={**self.provenance(), "stopping_sigma": stop},
            final_untrained=None if untrained is None or self.terminal != "denoise" else float(untrained[last]),
        )
        tables = []
        for spread in (_interpolated if interpolated else _stepwise for interpolated in smooth):
            densities = (score_density, floor_density, start_density)
            score, floor_rows, start = (spread(density[:last], positive, table) for density in densities)
            known = None if untrained is None else start / lengths
            tables.append(replace(first, score=score, floor=floor_rows / lengths, untrained=known))
        return tables

    def node_errors(self, sigmas: Array, sensitivity: Array | None = None) -> NodeErrors:
        """(..., P) what an error of each positive node's denoiser adds to the error of the output (section 4.2)."""
        positive = positive_nodes(sigmas)
        if sensitivity is None:
            start = self._start(sigmas)
            sensitivity = self.sampler._sensitivity(unchecked(sigmas, self.bands.eigenvalues, start))
        kernel = self.valued.counts * sensitivity[..., : positive.shape[-1], :] ** 2
        reducible, floor, untrained = self._node_variances(positive)
        start_error = None if untrained is None else (kernel * untrained).sum(axis=-1)
        return NodeErrors((kernel * reducible).sum(axis=-1), (kernel * floor).sum(axis=-1), start_error)

    def node_terms(self, sigmas: Array) -> NodeTerms:
        """Signed sensitivity of every node's denoiser and the variances of its weights (sections 4.2 and 5)."""
        positive = positive_nodes(sigmas)
        found = self.sampler._sensitivity(unchecked(sigmas, self.bands.eigenvalues, self._start(sigmas)))
        regressors = 1 if self.training.matrix == "diagonal" else int(self.spectrum.counts.sum())
        regressors += int(self.training.intercept)
        reducible, floor, untrained = self._node_variances(positive)
        lacking = None
        if untrained is not None:
            skip = unchecked_skip(self.training.parameterization, self.training.sigma_data, positive)
            below = skip[:, None] < denoiser_weights(self.bands.eigenvalues, positive)
            lacking = np.sqrt(untrained) * np.where(below, -1.0, 1.0)
        ends, left = self.terminal == "denoise", None
        if isinstance(self.training, OptimiserRun):  # its floor is what burn-in has not forgotten, signs and all
            skip = unchecked_skip(self.training.parameterization, self.training.sigma_data, positive)
            below = skip[:, None] < denoiser_weights(self.bands.eigenvalues, positive)
            left, floor = np.sqrt(floor) * np.where(below, -1.0, 1.0), np.zeros_like(floor)
        terms = (found[: positive.size], self.valued.counts, reducible, floor, lacking)
        curvature = None
        if not self.metric.quadratic:
            curvature = self._banded_metric.curvature(self.bands, np.asarray(self.terminal_std(sigmas, self.bands)))
        return NodeTerms(positive, *terms, regressors, ends, left, curvature)

    def shifted_error(self, sigmas: Array, shift: Array) -> Array:
        """(...) exact error of a grid whose denoiser's weights are off by (..., P, B)."""
        lam, positive = self.bands.eigenvalues, positive_nodes(sigmas)
        weights = denoiser_weights(lam, positive) + shift
        if positive.size < sigmas.size:
            weights = np.concatenate([weights, np.zeros_like(weights[..., :1, :])], axis=-2)
        law = self.sampler.terminal_law(sigmas, lam, denoiser=weights, initial_variance=self._start(sigmas))
        mean = law.amplitude**2 * self.bands.mean_power if self.start == "noise" else 0.0 * law.amplitude
        return np.asarray(self._banded_metric.distance(self.bands, law.std, mean))

    def node_errors_slope(self, sigmas: Array, weights: NodeErrors, sensitivity: Array | None = None) -> Array:
        """(..., P) derivatives by log sigma of the positive nodes of sum_k w_k R_k + f_k F_k + u_k U_k, in O(K B).

        The sum is s' T s with s = d std / d W and T diagonal. With v = T s held, its derivative through s is twice
        that of v' d std / d W, which is the change of the node gradient of std along v (section 7.8): two node
        gradients with the denoiser off by plus and minus a little v. T itself is local in the nodes.
        """
        return self._along(sigmas, weights, sensitivity).slope

    def residuals_and_slope(
        self, sigmas: Array, weights: NodeErrors, sensitivity: Array | None = None
    ) -> tuple[GridResiduals, Array]:
        """Both from one gradient, of three sets of bands: with the denoiser as it is, and off by both sides of v."""
        found = self._along(sigmas, weights, sensitivity, still=True)
        assert found.still is not None
        return self._as_residuals(sigmas, found.still), found.slope

    def _along(
        self, sigmas: Array, weights: NodeErrors, sensitivity: Array | None, *, still: bool = False
    ) -> _AlongErrors:
        lam, n, start = self.bands.eigenvalues, self.valued.counts, self._start(sigmas)
        if sensitivity is None:
            sensitivity = self.sampler._sensitivity(unchecked(sigmas, lam, start))
        positive = positive_nodes(sigmas)
        size, bands = positive.shape[-1], lam.size
        off = np.zeros((*sensitivity.shape[:-1], (2 + still) * bands))
        here, ahead, behind = self._nearby_variances(positive, weights)
        toward = n * here * sensitivity[..., :size, :]
        scale = _SHIFT / np.maximum(np.abs(toward).max(axis=-2), 1e-300)
        # both sides, and none, as bands of one gradient: short grids cost calls, not numbers
        off[..., :size, :bands] = scale[..., None, :] * toward
        off[..., :size, bands : 2 * bands] = -off[..., :size, :bands]
        starts = np.concatenate([start] * (2 + still), axis=-1)
        gain = still and self._shifted
        law = node_gradient(self.sampler, sigmas, np.concatenate([lam] * (2 + still)), starts, off, gain=gain)
        moved = law.std_by_node
        through = ((moved[..., :bands, :] - moved[..., bands : 2 * bands, :]) / scale[..., None]).sum(axis=-2)
        local = (n * sensitivity[..., :size, :] ** 2 * (ahead - behind)).sum(axis=-1) / (2 * _SHIFT)
        return _AlongErrors(np.asarray(through + local), law.of_bands(slice(2 * bands, None)) if still else None)

    def _node_variance(self, positive: Array, weights: NodeErrors) -> Array:
        reducible, floor, untrained = self._node_variances(positive)
        found = weights.reducible[..., None] * reducible + weights.floor[..., None] * floor
        if untrained is not None and weights.untrained is not None:
            found = found + weights.untrained[..., None] * untrained
        return np.asarray(found)

    def _nearby_variances(self, positive: Array, weights: NodeErrors) -> tuple[Array, Array, Array]:
        """`_node_variance` of the nodes, with every one a little above, and a little below."""
        here, ahead, behind = self._node_variance(np.multiply.outer(_NEARBY, positive), weights)
        return here, ahead, behind

    def _node_variances(self, positive: Array) -> tuple[Array, Array, Array | None]:
        """(..., P, B) variance of the weight at each node per unit A/m, its floor, and its square untrained."""
        lam, flat = self.bands.eigenvalues, positive.reshape(-1)
        told = (*self.training.unchecked_weight_variance(lam, flat), self.training.untrained_slopes(lam, flat))
        reducible, floor, untrained = (
            None if part is None else part.T.reshape(*positive.shape, lam.size) for part in told
        )
        assert reducible is not None
        assert floor is not None
        if self._plain_training == self.training:
            return reducible, floor, untrained
        beside = [self._beside_plain(each) for each in positive.reshape(-1, positive.shape[-1])]
        ratios = [np.array(part).reshape(*positive.shape, 1) for part in zip(*beside, strict=True)]
        return reducible * ratios[0], floor * ratios[1], None if untrained is None else untrained * ratios[2]

    def _beside_plain(self, positive: Array) -> tuple[Array, Array, Array]:
        """(P,) what off-diagonal errors and intercepts add: the discrete kernel is diagonal, so by their continuous
        ratio."""
        plain = self._plain_training
        arguments = (self.bands.eigenvalues, self.valued.counts, positive, float(positive[-1]))
        options: dict[str, Any] = {"eta": self.sampler.eta, "terminal": self.terminal}
        own, alone = self._untrained_row(positive, float(positive[-1])), plain.untrained(*arguments, **options)
        return (
            _ratio(self.training.reducible(*arguments, **options), plain.reducible(*arguments, **options)),
            _ratio(self.training.floor(*arguments, **options), plain.floor(*arguments, **options)),
            np.ones(positive.size) if own is None or alone is None else _ratio(own / positive**2, alone),
        )

    @cached_property
    def _plain_training(self) -> TrainingNoise:
        return self.training.plain()

    def _lengths_at(self, sigma: Array) -> Array:
        return self.coupling.lengths_at(sigma, float(sigma[-1]), float(sigma[0]))


class _AlongErrors(NamedTuple):
    """(..., P) the slope of what nodes leave, and the law with the denoiser as it is where that is asked for."""

    slope: Array
    still: NodeGradient | None


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
