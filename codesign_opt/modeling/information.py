"""Shared parameters: one network for all noise levels, its error through the Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, matrix, ndim, number, scales_of, vector
from ..certificate.lagrangian import InformationPart, LagrangianBound
from ..ingredients.levels import Levels
from .algebra import Term
from .design import Design, Point

__all__ = ["InformationError"]

_FAR = 1e60  # of features: sums of their squares times examples are floats
_CUT = 1e-11  # directions whose information is below this fraction, squared, of the largest are undetermined


@dataclass(frozen=True, eq=False, repr=False)
class InformationError(Term):
    """Terminal error of shared parameters: <G G^T, (M0 + sum_l m_l F_l)^-1>, F_l = phi_l^T phi_l / s_l.

    Declared in second-order cone form, min sum_l |Z_l|^2 / m_l + |Z_0|^2 subject to
    sum_l A_l^T Z_l + M0^(1/2) Z_0 = G, jointly convex in (Z, m), so that any convex constraint on m
    can be added (docs/theory.md sections 6 and 7, P4). The covariance is that of efficient loss
    weights, proportional to 1 / s_l; the value for unit weights (a sandwich covariance, neither
    convex nor monotone) is reported beside.

    Parameters in independent blocks (block-diagonal information, say one block per band of the data)
    are a sum of terms on the same noise levels, each with its own features, response and prior:
    `InformationError(f1, g1, sigma=s) + 0.5 * InformationError(f2, g2, sigma=s)`. The examples of a
    level serve all of them.

    Args:
        features: (L, k, P) derivative of the denoiser's k outputs by the P shared parameters.
        response: (P, r) derivative of the r terminal outputs by the parameters.
        sigma: (L,) ascending noise levels.
        prior: (P, P) positive semidefinite information already there, or None.
        residual_variance: s_l, variance of the training target per output; a number or (L,).

    Raises:
        ValueError: shapes that do not fit, a prior that is not positive semidefinite, or a response
            outside what the features and the prior can determine.
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    features: Array
    response: Array
    sigma: Array
    prior: Array | None = None
    residual_variance: float | Array = 1.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        sigma = vector(self.sigma, "InformationError.sigma", positive=True, ascending=True)
        features = matrix(self.features, "InformationError.features", shape=(sigma.size, None, None))
        size = features.shape[2]
        put(self, "sigma", sigma)
        put(self, "features", features)
        response = matrix(self.response, "InformationError.response", shape=(size, None))
        for field, values in (("features", features), ("response", response)):
            if np.abs(values).max() > _FAR:
                raise ValueError(
                    f"InformationError.{field} reaches {np.abs(values).max():g}; {_FAR:g} at most: take other units."
                )
        if response.shape[1] > size:  # only G G^T matters: a square factor of it does
            response = np.asarray(np.linalg.qr(response.T, mode="r")).T
        put(self, "response", response)
        variance = self.residual_variance
        if ndim(variance) == 0:
            variance = np.full(sigma.size, number(variance, "InformationError.residual_variance", positive=True))
        name = "InformationError.residual_variance"
        put(self, "residual_variance", scales_of(variance, name, length=sigma.size))
        if self.prior is not None:
            prior = matrix(self.prior, "InformationError.prior", shape=(size, size))
            low = float(np.linalg.eigvalsh((prior + prior.T) / 2).min())
            if not np.allclose(prior, prior.T) or low < -1e-9 * np.abs(prior).max():
                raise ValueError(
                    f"InformationError.prior must be symmetric positive semidefinite; its smallest eigenvalue "
                    f"is {low:.3g}."
                )
            put(self, "prior", prior)
        self._check_range()

    def _check_range(self) -> None:
        basis, _, unit = self._spectrum(np.ones(self.sigma.size))
        wanted = self.response / unit[:, None]
        size = float(np.linalg.norm(wanted))
        missing = float(np.linalg.norm(wanted - basis @ (basis.T @ wanted))) / (size or 1.0)
        if missing > 1e-8:
            raise ValueError(
                "InformationError.response lies outside what the features and the prior determine (by "
                f"{missing:.2g} of its norm); add a prior or features."
            )

    @cached_property
    def levels(self) -> Levels:
        """Bins around the given noise levels."""
        return Levels.around(self.sigma)

    @property
    def stated_levels(self) -> Levels:
        return self.levels

    @property
    def as_information(self) -> InformationError:
        return self

    @cached_property
    def roots(self) -> Array:
        """(L, k, P) A_l = phi_l / sqrt(s_l), so that F_l = A_l^T A_l."""
        return self.features / np.sqrt(np.asarray(self.residual_variance))[:, None, None]

    def information(self, examples: Array) -> Array:
        """(P, P) M0 + sum_l m_l F_l."""
        scaled = self.roots * np.sqrt(examples)[:, None, None]
        flat = scaled.reshape(-1, scaled.shape[2])
        total = flat.T @ flat
        return total if self.prior is None else total + self.prior

    def solution(self, examples: Array) -> Array:
        """(P, r) Y = M^-1 G, on the range of M."""
        return self.inverse_times(examples, self.response)

    def inverse_times(self, examples: Array, right: Array) -> Array:
        """(P, r) M^-1 times any (P, r) in the range of M."""
        whitening = self._whitening(examples)
        return whitening @ (whitening.T @ right)

    def dual_solution(self, auxiliary: Sequence[cp.Constraint], reference: Array) -> Array | None:
        """(P, r) Y from the dual of the declared equality, times the term's weight in the program solved.

        Up to a factor that is common to all terms of one program; None where there is no dual.
        """
        dual = auxiliary[0].dual_value if auxiliary else None
        if dual is None or not np.all(np.isfinite(dual)):
            return None
        whitening = self._whitening(reference)
        if whitening.shape[1] == 0:  # nothing is asked of the parameters
            return np.zeros_like(self.response)
        solution = whitening @ np.asarray(dual).reshape(whitening.shape[1], -1) / self._unit(whitening)
        return solution if np.sum(self.response * solution) > 0 else -solution

    def gains(self, solution: Array) -> Array:
        """(L,) g_l = |A_l Y|^2, minus the derivative of the error by the examples of level l."""
        seen = np.einsum("lkp,pr->lkr", self.roots, solution).reshape(len(self.roots), -1)
        return (seen**2).sum(axis=1)

    def value(self, design: Design, point: Point) -> float:
        return self.error(point.examples)

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        self._add(bound, weight, point, [self.solution(point.examples)])
        return True

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """With Y from the dual of the declared equality too: near-singular information moves Y at the candidate."""
        found = self.dual_solution(auxiliary, design.reference.examples)
        self._add(bound, weight, point, [self.solution(point.examples), *([] if found is None else [found])])
        return True

    def _add(self, bound: LagrangianBound, weight: float, point: Point, solutions: Sequence[Array]) -> None:
        """The bounds of these Y, each in the multiple that is best at the candidate."""
        overlap, prior, gains = [], [], []
        for solution in solutions:
            seen, gain = float(np.sum(self.response * solution)), self.gains(solution)
            known = 0.0 if self.prior is None else float(np.sum(solution * (self.prior @ solution)))
            size = known + float(gain @ point.examples)
            scale = seen / size if size > 0 else 0.0
            overlap.append(weight * scale * seen)
            prior.append(weight * scale**2 * known)
            gains.append(weight * scale**2 * gain)
        bound.information.append(InformationPart(np.array(overlap), np.array(prior), np.array(gains)))

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        return {"information_gain": self.gains(self.solution(point.examples))}

    def error(self, examples: Array) -> float:
        """<G G^T, M^-1> at these examples; inf where they do not determine the response."""
        basis, values, unit = self._spectrum(examples)
        wanted = self.response / unit[:, None]
        seen = basis.T @ wanted
        value = float(np.sum((seen / values[:, None]) ** 2))
        missing = np.sum((wanted - basis @ seen) ** 2)  # it would cost missing / (a value below the cut)^2
        if missing > 1e-7 * value * (_CUT * values.max(initial=0.0)) ** 2:
            return float("inf")
        return value

    def sandwich_error(self, examples: Array, loss_weight: Array | None = None) -> float:
        """Terminal error for loss weights that are not 1 / s_l: (sum m w H)^-1 (sum m w^2 S) (sum m w H)^-1.

        H_l = phi_l^T phi_l, S_l = s_l H_l; unit weights unless given. The prior counts as curvature and noise.
        """
        weight = np.ones(self.sigma.size) if loss_weight is None else np.asarray(loss_weight, dtype=np.float64)

        def total(per_level: Array) -> Array:
            scaled = self.features * np.sqrt(per_level)[:, None, None]
            flat = scaled.reshape(-1, scaled.shape[2])
            summed = flat.T @ flat
            return summed if self.prior is None else summed + self.prior

        curvature = total(examples * weight)
        noise = total(examples * weight**2 * np.asarray(self.residual_variance))
        unit = np.sqrt(np.where(np.diag(curvature) > 0, np.diag(curvature), 1.0))  # the parameters' units
        scaled = curvature / unit / unit[:, None]
        solution = np.linalg.lstsq(scaled, self.response / unit[:, None], rcond=1e-13)[0] / unit[:, None]
        return float(np.sum(solution * (noise @ solution)))

    def expression(self, design: Design) -> cp.Expression:
        raise TypeError("InformationError has auxiliary variables; it enters a problem's objective as a term.")

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        total = design.reference.examples
        left = self._whitening(total)  # M_ref^(-1/2) on its range
        size, outputs = self.roots.shape[1], self.response.shape[1]
        count = len(total)
        scaled = (self.roots * np.sqrt(total)[:, None, None]).reshape(count * size, -1) @ left
        w = cp.Variable((count * size, outputs))
        equality = scaled.T @ w
        objective: cp.Expression = cp.Constant(0.0)
        if self.prior is not None:
            root = left.T @ _root(self.prior)
            w0 = cp.Variable((root.shape[1], outputs))
            equality = equality + root @ w0
            objective = objective + cp.sum_squares(w0)
        relative = cp.multiply(
            1 / total,
            cp.multiply(design.reference.new_examples, design.new_variable) + design.reference.spent,
        )
        t = cp.Variable(count, nonneg=True)  # the cone says so too, but cvxpy's rules of sign don't read it
        stacked = cp.reshape(w, (count, size * outputs), order="C").T
        cone = cp.SOC(t + relative, cp.vstack([2 * stacked, cp.reshape(t - relative, (1, count), order="C")]), axis=0)
        unit = self._unit(left)
        return unit**2 * (objective + cp.sum(t)), [equality == left.T @ self.response / unit, cone]

    def _unit(self, whitening: Array) -> float:
        """What the declared cones are divided by: they hold numbers of order one, whatever the error's unit."""
        return float(np.linalg.norm(whitening.T @ self.response)) or 1.0

    def _whitening(self, examples: Array) -> Array:
        """(P, rank) W with W^T M W = 1 on the range of M."""
        basis, values, unit = self._spectrum(examples)
        return basis / values / unit[:, None]

    def _spectrum(self, examples: Array) -> tuple[Array, Array, Array]:
        """Right singular vectors and values of M^(1/2) with columns of length one, and those lengths.

        The columns' lengths are the parameters' units, which change no answer; singular values of the
        root resolve twice as many decades as eigenvalues of M.
        """
        scaled = self.roots * np.sqrt(examples)[:, None, None]
        root = scaled.reshape(-1, scaled.shape[2])
        if self.prior is not None:
            root = np.vstack([root, _root(self.prior).T])
        lengths = np.sqrt((root**2).sum(axis=0))
        unit = np.where(lengths > 0, lengths, 1.0)
        triangle = np.linalg.qr(root / unit, mode="r")
        _, values, vectors = np.linalg.svd(triangle, full_matrices=False)
        keep = values > _CUT * values.max()
        return vectors[keep].T, values[keep], unit

    def __repr__(self) -> str:
        count, outputs, parameters = self.features.shape
        return f"InformationError({count} levels, {outputs} outputs, {parameters} parameters)"


def _root(prior: Array) -> Array:
    values, vectors = np.linalg.eigh(prior)
    return vectors * np.sqrt(np.maximum(values, 0.0))
