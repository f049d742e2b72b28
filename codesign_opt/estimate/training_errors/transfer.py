"""Transfer kernel T: how examples at one noise level teach its neighbours.

docs/theory.md section 6.3: the score error a / (T rho), with T a Gaussian kernel in log sigma, stays
convex in the density. The width comes from pilots at several densities, from the overlap of gradient
features, or from the information itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from ...basics.checks import Array, Indices, array, boolean, instance, matrix, number, takes, vector
from ...basics.fields import holds
from ...ingredients.levels import Levels
from ...modeling.information import InformationError
from .correlation import ErrorGram, jackknife

__all__ = ["TransferKernel", "information_overlap", "teaching_shares"]

_WIDEST = 3.0  # in units of the range of log sigma; wider kernels look the same


@dataclass(frozen=True, eq=False)
class TransferKernel:
    """Gaussian kernel in log sigma: level l learns from the density (T rho)_l, not from rho_l.

    Attributes:
        width: standard deviation in log sigma; 0 where each level learns from its own examples alone.
        standard_error: of the width; nan where it was not estimated.
        misfit: root mean square of what the kernel leaves unexplained, in the units of the fit
            (log errors for pilots, overlaps or shares otherwise).

    >>> kernel = TransferKernel(0.6)
    >>> kernel.smoothed(np.ones(5), Levels.log_uniform(0.1, 10.0, 5)).round(6).tolist()  # even stays even
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    width: float
    standard_error: float = float("nan")
    misfit: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", number(self.width, "TransferKernel.width", nonnegative=True))
        holds(self, standard_error=float, misfit=float)

    @takes(levels=Levels)
    def matrix(self, levels: Levels) -> Array:
        """(L, L) rows of weights that sum to one: (T rho)_l for densities per unit log sigma."""
        return kernel_matrix(self.width, levels)

    @takes(levels=Levels)
    def smoothed(self, density: ArrayLike, levels: Levels) -> Array:
        """(L,) T rho, the density that each level learns from."""
        name = "TransferKernel.smoothed: density"
        return self.matrix(levels) @ vector(density, name, length=len(levels), nonnegative=True)

    @takes(levels=Levels)
    def pooling(self, levels: Levels) -> Array:
        """(L, L) the same on examples per level: those that serve level l are (T m)_l."""
        return self.matrix(levels) * levels.log_width[:, None] / levels.log_width

    @classmethod
    def from_pilots(
        cls, errors: ArrayLike, densities: Any, levels: Levels, *, standard_errors: ArrayLike | None = None
    ) -> TransferKernel:
        """Width from the errors per level of pilots trained at several densities.

        Fits log e_dl = alpha_l - log (T rho_d)_l with free alpha_l by least squares: what a level costs
        to learn drops out, only how its error moves with the densities counts.

        Args:
            errors: (D, L) squared error of the denoiser per level after each of D >= 2 pilots of equal
                length (above the floor of a perfect denoiser), or (R, D, L) with R replications, which
                give the standard error by jackknife (errors of neighbouring levels are correlated, and
                only replications see that).
            densities: (D, L) examples per unit log sigma.
            levels: the L levels.
            standard_errors: of `errors`, (D, L); the scatter of the residuals unless given.

        Raises:
            ValueError: densities that are proportional to each other: nothing about the width can be seen.
        """
        values = array(errors, "TransferKernel.errors")
        count = len(instance(levels, Levels, "TransferKernel.from_pilots: levels"))
        rho = matrix(densities, "TransferKernel.densities", shape=(None, count), nonnegative=True)
        replicas = values if values.ndim == 3 else values[None]
        replicas = matrix(replicas, "TransferKernel.errors", shape=(None, len(rho), count))
        if np.any(replicas <= 0):
            raise ValueError("TransferKernel.errors must be > 0: subtract a smaller floor, or leave the level out.")
        weight = np.ones_like(rho)
        if standard_errors is not None:
            scatter = matrix(standard_errors, "TransferKernel.standard_errors", shape=rho.shape)
            weight = (replicas.mean(axis=0) / np.maximum(scatter, 1e-300)) ** 2
        _check_densities(rho)
        fit = _PilotFit(np.log(replicas), rho, weight, levels)
        if len(replicas) > 1:
            found = jackknife(lambda mean: np.asarray(fit.width(mean)), fit.logs)
            width, spread = float(found.value), float(found.standard_error)
        else:
            width = fit.width(fit.logs[0])
            spread = fit.standard_error(width, known=standard_errors is not None)
        return cls(width, spread, fit.misfit(width))

    @classmethod
    def from_features(cls, features: ArrayLike, sigma: ArrayLike, *, background: bool = False) -> TransferKernel:
        """Width from the overlap of information between levels: exp(-distance^2 / (2 width^2)).

        A feature that spreads over `width` in log sigma gives exactly this overlap (test by synthetic
        features). Needs no pilot, but says what gradients share, not what training makes of it.

        Args:
            features: (U, L, k, P) gradient features in U >= 2 independent groups of examples.
            sigma: (L,) ascending noise levels.
            background: fit a constant overlap of all levels besides (what output biases and last layers
                share everywhere); it is left out of the kernel.
        """
        levels = Levels.around(vector(sigma, "TransferKernel.sigma", minimum_length=3, positive=True, ascending=True))
        boolean(background, "TransferKernel.from_features: background")
        pairs = _overlap_pairs(features, len(levels))

        def width(kept: Indices) -> Array:
            overlap = _normalised(pairs[np.ix_(kept, kept)])
            return np.asarray(_overlap_width(overlap, levels, background))

        whole = np.arange(len(pairs))
        value = float(width(whole))
        left_out = np.array([width(np.delete(whole, u)) for u in whole]) if len(pairs) > 2 else np.full(1, np.nan)
        spread = float(np.sqrt((len(pairs) - 1) * left_out.var()))
        overlap = _normalised(pairs)
        model = _overlap_model(value, overlap, levels, background)
        return cls(value, spread, float(np.sqrt(np.mean((overlap - model)[_off(len(levels))] ** 2))))

    @classmethod
    def from_errors(cls, errors: ErrorGram) -> TransferKernel:
        """Width from the correlation C of the denoiser's errors: C^2 fitted by exp(-distance^2 / (2 width^2)).

        With shared parameters the share of level l's precision that examples at l' provide goes as
        |A_l M^-1 A_l'^T|^2 (docs/theory.md section 6.4; `teaching_shares`), and A M^-1 A^T is the covariance of the
        errors: levels whose errors are alike teach each other. One run tells it, by the difference of two of its
        checkpoints (`checkpoint_errors`), where the correlation over levels is the same for all inputs.

        Args:
            errors: of the denoiser's output on common inputs, not terminal responses.
        """
        levels = instance(errors, ErrorGram, "TransferKernel.from_errors: errors").levels

        def width(gram: Array) -> Array:
            own = np.sqrt(np.maximum(np.diagonal(gram), 1e-300))
            return np.asarray(_overlap_width((gram / own / own[:, None]) ** 2, levels, False))

        found = jackknife(width, errors.units)
        squared = errors.correlation**2
        rest = (squared - _overlap_model(float(found.value), squared, levels, False))[_off(len(levels))]
        return cls(float(found.value), float(found.standard_error), float(np.sqrt(np.mean(rest**2))))

    @classmethod
    def from_information(cls, term: InformationError, examples: ArrayLike) -> TransferKernel:
        """Width that fits `teaching_shares`: what the information says that each level learns from.

        Exact where shared parameters obey error_l = a_l / (T rho)_l. No standard error.
        """
        instance(term, InformationError, "TransferKernel.from_information: term")
        m = vector(examples, "TransferKernel.examples", length=term.sigma.size, nonnegative=True)
        shares, levels = teaching_shares(term, m), term.levels
        density = m / levels.log_width

        def model(width: float) -> Array:
            served = kernel_matrix(width, levels) * density
            return served / np.maximum(served.sum(axis=1, keepdims=True), 1e-300)

        width = _least(lambda s: float(((shares - model(s)) ** 2).sum()), levels)
        return cls(width, float("nan"), float(np.sqrt(np.mean((shares - model(width)) ** 2))))

    def __repr__(self) -> str:
        return f"TransferKernel(width {self.width:.3g} +- {self.standard_error:.2g} in log sigma)"


def kernel_matrix(width: float, levels: Levels) -> Array:
    """(L, L) Gaussian kernel between levels, integrated over each bin, rows summing to one."""
    if width <= 0:
        return np.eye(len(levels))
    place = (np.log(levels.edges) - np.log(levels.sigma)[:, None]) / width
    # differences of the smaller tail: far bins keep their digits
    tails = np.where(place[:, :-1] > 0, ndtr(-place[:, :-1]) - ndtr(-place[:, 1:]), np.diff(ndtr(place), axis=1))
    return tails / tails.sum(axis=1, keepdims=True)


def teaching_shares(term: InformationError, examples: Any) -> Array:
    """(L, L) share of level l's precision that examples of level l' provide: -d log error_l / d log m_l'.

    m_l' |A_l' M^-1 A_l^T|^2 / tr A_l M^-1 A_l^T, with M = M0 + sum m F (docs/theory.md section 6.4). Rows
    sum to one without a prior; the identity means that levels share nothing.
    """
    m = vector(examples, "teaching_shares.examples", length=term.sigma.size, nonnegative=True)
    seen = term.roots @ term._whitening(m)  # (L, k, rank): A_l M^(-1/2)
    own = (seen**2).sum(axis=(1, 2))
    between = np.array([[((a @ b.T) ** 2).sum() for b in seen] for a in seen])
    return between * m / np.maximum(own, 1e-300)[:, None]


def information_overlap(features: Any) -> Array:
    """(L, L) cosine <F_l, F_l'> / (|F_l| |F_l'|) of the levels' information, from independent groups.

    Products are taken between different groups only, so that the sampling noise of F_l does not enter its
    own norm.

    Args:
        features: (U, L, k, P), U >= 2 groups.
    """
    values = np.asarray(features, dtype=np.float64)
    return _normalised(_overlap_pairs(values, values.shape[1] if values.ndim == 4 else 0))


def _overlap_pairs(features: Any, count: int) -> Array:
    """(U, U, L, L) |A_ul A_vk^T|^2."""
    a = matrix(features, "features", shape=(None, count or None, None, None))
    if len(a) < 2:
        raise ValueError("features have 1 group; at least 2 independent groups of examples are needed.")
    flat = a.reshape(-1, *a.shape[2:])
    size = len(flat)
    result = np.empty((size, size))
    for i in range(size):
        for j in range(i, size):
            result[i, j] = result[j, i] = ((flat[i] @ flat[j].T) ** 2).sum()
    return result.reshape(a.shape[0], a.shape[1], a.shape[0], a.shape[1]).transpose(0, 2, 1, 3)


def _normalised(pairs: Array) -> Array:
    units = np.arange(len(pairs))
    between = pairs.sum(axis=(0, 1)) - pairs[units, units].sum(axis=0)
    own = np.sqrt(np.maximum(np.diagonal(between), 1e-300))
    return between / own / own[:, None]


def _off(count: int) -> Array:
    return ~np.eye(count, dtype=bool)


def _overlap_model(width: float, overlap: Array, levels: Levels, background: bool) -> Array:
    place = np.log(levels.sigma)
    bump = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    if not background:
        return bump
    off = _off(len(levels))
    rest = (1 - bump)[off]
    floor = float(np.clip(rest @ (overlap - bump)[off] / max(rest @ rest, 1e-300), 0.0, 1.0))
    return bump + floor * (1 - bump)


def _overlap_width(overlap: Array, levels: Levels, background: bool) -> float:
    off = _off(len(levels))

    def loss(width: float) -> float:
        return float(((overlap - _overlap_model(width, overlap, levels, background))[off] ** 2).sum())

    return _least(loss, levels)


def _least(loss: Callable[[float], float], levels: Levels) -> float:
    """Global minimiser over widths from a tenth of the finest level to a few ranges: a scan, then Brent."""
    low, high = np.log(0.1 * levels.log_width.min()), np.log(_WIDEST * levels.log_width.sum())
    scan = np.linspace(low, high, 49)
    best = int(np.argmin([loss(float(np.exp(s))) for s in scan]))
    bounds = (scan[max(best - 1, 0)], scan[min(best + 1, 48)])
    found = minimize_scalar(lambda s: loss(float(np.exp(s))), bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def _check_densities(rho: Array) -> None:
    if len(rho) < 2:
        raise ValueError(f"TransferKernel.densities: {len(rho)} density; at least 2 different ones are needed.")
    shares = rho / np.maximum(rho.sum(axis=1, keepdims=True), 1e-300)
    if np.abs(shares - shares[0]).sum(axis=1).max() < 1e-6:
        raise ValueError("TransferKernel.densities are proportional to each other: nothing about the width is seen.")


@dataclass(frozen=True, eq=False)
class _PilotFit:
    """log e_dl = alpha_l - log (T rho_d)_l, alpha profiled out."""

    logs: Array  # (R, D, L)
    rho: Array
    weight: Array
    levels: Levels

    def _centred(self, values: Array) -> Array:
        return values - (self.weight * values).sum(axis=0) / self.weight.sum(axis=0)

    def _model(self, width: float) -> Array:
        return self._centred(-np.log(np.maximum(self.rho @ kernel_matrix(width, self.levels).T, 1e-300)))

    def _loss(self, width: float, logs: Array) -> float:
        return float((self.weight * (self._centred(logs) - self._model(width)) ** 2).sum())

    def width(self, logs: Array) -> float:
        return _least(lambda s: self._loss(s, logs), self.levels)

    def standard_error(self, width: float, *, known: bool) -> float:
        """Delta method; the scatter is that of the residuals unless the weights say it."""
        step = 1e-4 * width
        slope = (self._model(width + step) - self._model(width - step)) / (2 * step)
        curvature = float((self.weight * slope**2).sum())
        freedom = self.rho.size - self.rho.shape[1] - 1
        scatter = 1.0 if known else self._loss(width, self.logs[0]) / max(freedom, 1)
        return float(np.sqrt(scatter / curvature)) if curvature > 0 and (known or freedom > 0) else float("inf")

    def misfit(self, width: float) -> float:
        rest = self._centred(self.logs.mean(axis=0)) - self._model(width)
        return float(np.sqrt(np.mean(rest**2)))
