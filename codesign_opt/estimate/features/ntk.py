"""Empirical tangent kernel: its spectrum and effective rank per level, and what treating levels apart costs.

docs/theory.md sections 6.4 and 7.5. Treating the levels as if each had parameters of its own gives the
square-root rule; with shared parameters its density is not optimal, and P4 says by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...basics.checks import Array, matrix, ndim, number, scale_of, scales_of, takes, vector
from ...basics.fields import holds
from ...modeling.information import InformationError
from ...solvers.information.shares import solve_information
from ..draws.statistics import Estimate
from ..training_errors.correlation import jackknife
from .shared_features import SharedFeatures

__all__ = ["Decoupling", "TangentSpectrum", "decoupled_scores", "decoupling", "entropy_rank", "tangent_spectrum"]


@dataclass(frozen=True, eq=False)
class TangentSpectrum:
    """Spectrum of the empirical tangent kernel at each level: the nonzero eigenvalues of E[J^T J].

    Attributes:
        sigma: (L,) noise levels.
        eigenvalues: (L, P) descending; of the sketched kernel, so that no rank exceeds P.
        participation: (sum of eigenvalues)^2 / sum of their squares, with the sum of squares from products
            of different groups of examples (no bias from few examples).
        entropy_rank: exp of the entropy of the normalised eigenvalues; few examples lower it.
    """

    sigma: Array
    eigenvalues: Array
    participation: Estimate
    entropy_rank: Estimate

    def __repr__(self) -> str:
        ranks = ", ".join(f"{rank:.1f}" for rank in self.participation.value)
        return f"TangentSpectrum({self.sigma.size} levels, participation ratio {ranks})"


def tangent_spectrum(features: SharedFeatures) -> TangentSpectrum:
    """Eigenvalues and effective ranks of E[J^T J] per level, with jackknife standard errors over the groups.

    Raises:
        ValueError: features of fewer than 2 groups of examples.
    """
    groups = features.information
    count = len(groups)
    values = np.maximum(np.linalg.eigvalsh(groups.mean(axis=0))[:, ::-1], 0.0)
    entropy = jackknife(lambda mean: entropy_rank(np.asarray(np.linalg.eigvalsh(mean), dtype=np.float64)), groups)
    # tr F^2 from different groups: (|sum F_u|^2 - sum |F_u|^2) / (U (U - 1)), left out one at a time by its parts
    traces = np.trace(groups, axis1=2, axis2=3)
    inner = np.einsum("ulpq,vlpq->uvl", groups, groups, optimize=True)

    def participation(kept: Any) -> Array:
        between = inner[np.ix_(kept, kept)].sum(axis=(0, 1)) - inner[kept, kept].sum(axis=0)
        return np.asarray(traces[kept].mean(axis=0) ** 2 / (between / (len(kept) * (len(kept) - 1))))

    whole = np.arange(count)
    left_out = np.array([participation(np.delete(whole, u)) for u in whole]) if count > 2 else np.full((2, 1), np.inf)
    spread = np.sqrt((count - 1) * left_out.var(axis=0)) if count > 2 else np.full(traces.shape[1], np.inf)
    return TangentSpectrum(features.sigma, values, Estimate(participation(whole), spread, count), entropy)


def entropy_rank(eigenvalues: Array) -> Array:
    """Effective rank exp(-sum p ln p) of eigenvalues p normalised along the last axis (Roy and Vetterli 2007).

    >>> entropy_rank(np.array([3.0, 3.0, 0.0])).round(12).item()
    2.0
    """
    share = np.maximum(eigenvalues, 0.0)
    share = share / share.sum(axis=-1, keepdims=True)
    return np.asarray(np.exp(-(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1)))


@dataclass(frozen=True, eq=False)
class Decoupling:
    """What a density planned level by level costs when the parameters are shared.

    Attributes:
        ratio: its error over the shared optimum's, >= 1.
        bound: the same over the certified lower bound: the true ratio lies in [ratio', bound] with ratio'
            within the solver's gap of `ratio`.
        even_ratio: the same for equal spending on all levels, as a measure of how much the density matters.
        examples, optimum: (L,) both densities, as examples for the budget.
        threshold: ratio up to which the decoupled rule counts as good enough.
    """

    ratio: float
    bound: float
    even_ratio: float
    examples: Array
    optimum: Array
    threshold: float = 1.1

    def __post_init__(self) -> None:
        numbers = dict.fromkeys(("ratio", "bound", "even_ratio", "threshold"), float)
        holds(self, examples="level", optimum="level", **numbers)

    @property
    def good_enough(self) -> bool:
        """Whether the certified ratio is within the threshold."""
        return self.bound <= self.threshold

    def __str__(self) -> str:
        verdict = "is good enough" if self.good_enough else "is not good enough: plan with InformationError"
        return (
            f"The decoupled density's terminal error is {self.ratio:.4g} times the shared optimum's (at most "
            f"{self.bound:.4g}, proved; equal spending {self.even_ratio:.4g}): up to {self.threshold:g} allowed, the "
            f"decoupled rule {verdict}."
        )


def decoupled_scores(term: InformationError, level_response: Any, *, cut: float = 1e-6) -> Array:
    """(L,) tr G_l^T F_l^+ G_l: error per 1 / m_l if each level had the same parameters to itself.

    Args:
        term: the shared error.
        level_response: (L, P, r) response through each level alone; they sum to the term's response.
        cut: directions with less than this fraction of a level's largest information are left out: a
            level alone can't learn them.
    """
    count, _, size = term.roots.shape
    response = matrix(level_response, "decoupled_scores.level_response", shape=(count, size, None))
    cut = number(cut, "decoupled_scores.cut", positive=True, maximum=1.0)
    scores = np.zeros(count)
    for level in range(count):
        _, values, rows = np.linalg.svd(term.roots[level], full_matrices=False)
        keep = values > np.sqrt(cut) * values[0]
        scores[level] = float((((rows[keep] @ response[level]) / values[keep, None]) ** 2).sum())
    return scores


@takes(term=InformationError)
def decoupling(
    term: InformationError,
    *,
    level_response: ArrayLike | None = None,
    examples: ArrayLike | None = None,
    price: ArrayLike = 1.0,
    budget: float = 1.0,
    threshold: float = 1.1,
) -> Decoupling:
    """Error of a decoupled density under shared parameters, over the certified optimum (P4).

    Args:
        term: the shared error, for instance SharedFeatures.term().
        level_response: (L, P, r), SharedFeatures.level_response: the density is the square-root rule on
            `decoupled_scores`.
        examples: or any density to judge, (L,) examples; scaled to the budget.
        price: (L,) or a number, per example.
        budget: total price; it matters only beside a prior.
        threshold: what still counts as good enough.

    Raises:
        ValueError: neither or both of level_response and examples.

    >>> apart = InformationError(np.eye(2)[:, None, :], [[3.0], [1.0]], sigma=[0.1, 1.0])
    >>> print(decoupling(apart, level_response=np.array([[[3.0], [0.0]], [[0.0], [1.0]]])))
    The decoupled density's terminal error is 1 times the shared optimum's (at most 1, proved; equal spending 1.25):
    up to 1.1 allowed, the decoupled rule is good enough.
    """
    if (level_response is None) == (examples is None):
        raise ValueError("decoupling: give one of level_response and examples.")
    count = term.sigma.size
    prices = np.full(count, scale_of(price, "decoupling.price")) if ndim(price) == 0 else price
    c = scales_of(prices, "decoupling.price", length=count)
    threshold = number(threshold, "decoupling.threshold", positive=True)
    if examples is None:
        chosen = np.sqrt(decoupled_scores(term, level_response) / c)
    else:
        chosen = vector(examples, "decoupling.examples", length=count, nonnegative=True)
    if not chosen.max(initial=0.0) > 0:
        raise ValueError("decoupling: the density is 0 at every level; nothing can be judged.")
    scales_of(np.where(chosen > 0, chosen, 1.0), "decoupling.examples")
    spent = scale_of(budget, "decoupling.budget")
    chosen = chosen * spent / float(c @ chosen)
    best = solve_information(term.roots, term.response, c, spent, prior=term.prior)
    value, even = term.error(chosen), term.error(spent / (c * count))
    lower = max(best.lower_bound, 1e-300)
    return Decoupling(value / best.value, value / lower, even / best.value, chosen, best.examples, threshold)
