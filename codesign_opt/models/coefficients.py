"""Coefficients: the table that the optimizer sees, one row per noise level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..basics.checks import Array, Mask, choice, integer, matrix, ndim, number, shown, vector
from ..ingredients.coupling import Coupling, Local
from ..ingredients.estimation_record import EstimationRecord
from ..ingredients.evaluations import final_steps
from ..ingredients.levels import Levels

__all__ = ["Coefficients", "examples_worth"]

_MOST_WORTH = 1e18  # examples that an untrained denoiser may be worth: of more nothing is left to see in the error


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Everything the programs of docs/theory.md section 7 need, per unit log sigma.

    Densities and averages are taken in log sigma, so that the number of levels does not matter:
    with delta the log width, m examples and n steps on a level, kappa = delta / correlation length,

        score error     sum_l (delta^2 score / (m + m0) + delta length floor) M(kappa / n)
        discretisation  sum_b (sum_l delta^(q+1) |response_bl| / n^q)^2

    Args:
        levels: the L bins.
        score: (L,) reducible score error, <a sigma^2>: error times examples per unit log sigma.
        floor: (L,) irreducible score error, <tau b sigma^2>.
        untrained: (L,) score error of a denoiser that has seen no example, <e0 sigma^2>: it is worth
            m0 = delta score / (length untrained) examples (section 5.6); None: m0 = 0, and a level
            without examples has an infinite error.
        response: (B, L) signed rows sqrt(n_b P_b) <sigma^(q+1) l_b>; empty (0, L) for no
            discretisation error.
        order: order q of the sampler.
        evaluations_per_step: calls of the denoiser per step.
        coupling: how score errors of neighbouring levels add (section 6).
        terminal: "denoise" (one more call of the denoiser at the last level) or "rescale".
        truncation: E0, what stopping here costs a perfect sampler.
        initial: E_init, what starting from pure noise costs; reported, part of the error.
        final_score, final_floor: A and F of the denoise map's own error A / m_r + F, where m_r are
            the examples within one correlation length of the stopping point.
        final_untrained: the same error of an untrained denoiser, which makes it A / (m_r + A / that) + F.
        variance_ratio: (L,) <sigma^2 / v_min>, for trust caps; None where the spectrum is unknown.
        positivity: steps per unit log sigma that positivity needs, as a multiple of
            variance_ratio: 1 + eta^2 for Euler-Maruyama, 0 where there is nothing to impose.
        measured: whether `response` is a factor of a measured Gram matrix (equation 3.4), whose rows
            may change sign along the path; else rows are bands, each with its own local error.
        sampler: name and settings of the sampler (its `to_dict`); empty where unknown.
        trace: the data's total variance, which errors are held against; None where unknown.
        band_variances: (B,) variance of the data along each row of `response`; None where unknown.
        estimation: how the numbers were estimated on a denoiser; None where they are exact.
        output_sensitivity: (L,) g^2, squared terminal error per squared error of the denoiser's output and per squared
            step in log sigma (docs/theory.md section 4.4); None where unknown.
        measure: the error in words where it is no squared Wasserstein distance.
        speaks_of: which learner the score error holds for, as a phrase (a training law's `speaks_of`); empty: not said.
        provenance: where the numbers come from, for people: nothing is computed from it.

    Raises:
        ValueError: a field that is not finite, negative where it must not be, or of wrong shape.
    """

    levels: Levels
    score: Array
    floor: Array
    response: Array
    order: int = 1
    evaluations_per_step: int = 1
    coupling: Coupling = field(default_factory=Local)
    terminal: str = "denoise"
    truncation: float = 0.0
    initial: float = 0.0
    final_score: float = 0.0
    final_floor: float = 0.0
    variance_ratio: Array | None = None
    positivity: float = 0.0
    measured: bool = False
    sampler: Mapping[str, Any] = field(default_factory=dict)
    trace: float | None = None
    band_variances: Array | None = None
    estimation: EstimationRecord | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    untrained: Array | None = None
    final_untrained: float | None = None
    speaks_of: str = ""
    output_sensitivity: Array | None = None
    measure: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.levels, Levels):
            raise ValueError(f"Coefficients.levels is {shown(self.levels)}; a Levels object is needed.")
        size = len(self.levels)
        put = object.__setattr__
        for name in ("score", "floor"):
            value = vector(getattr(self, name), f"Coefficients.{name}", length=size, nonnegative=True)
            put(self, name, value)
        if self.output_sensitivity is not None:
            gain = vector(self.output_sensitivity, "Coefficients.output_sensitivity", length=size, nonnegative=True)
            put(self, "output_sensitivity", gain)
        if self.untrained is not None:
            value = vector(self.untrained, "Coefficients.untrained", length=size, nonnegative=True)
            put(self, "untrained", value)
        if self.final_untrained is not None:
            final = number(self.final_untrained, "Coefficients.final_untrained", nonnegative=True)
            put(self, "final_untrained", final)
        if ndim(self.response) == 2 and np.shape(self.response) == (0, size):
            put(self, "response", np.zeros((0, size)))
        else:
            put(self, "response", matrix(self.response, "Coefficients.response", shape=(None, size)))
        put(self, "order", integer(self.order, "Coefficients.order", minimum=1))
        evaluations = integer(self.evaluations_per_step, "Coefficients.evaluations_per_step", minimum=1)
        put(self, "evaluations_per_step", evaluations)
        if not isinstance(self.coupling, Coupling):
            raise ValueError(
                f"Coefficients.coupling is {shown(self.coupling)}; use Local, PerStep, PerLevel or Transfer."
            )
        choice(self.terminal, "Coefficients.terminal", ("denoise", "rescale"))
        for name in ("truncation", "initial", "final_score", "final_floor", "positivity"):
            put(self, name, number(getattr(self, name), f"Coefficients.{name}", nonnegative=True))
        if self.variance_ratio is not None:
            ratio = vector(self.variance_ratio, "Coefficients.variance_ratio", length=size, nonnegative=True)
            put(self, "variance_ratio", ratio)
        if not isinstance(self.sampler, Mapping):
            raise ValueError(
                f"Coefficients.sampler is {shown(self.sampler)}; give the sampler's record, sampler.to_dict()."
            )
        if self.estimation is not None and not isinstance(self.estimation, EstimationRecord):
            raise ValueError(f"Coefficients.estimation is {shown(self.estimation)}; an EstimationRecord is needed.")
        if self.trace is not None:
            put(self, "trace", number(self.trace, "Coefficients.trace", nonnegative=True))
        if self.band_variances is not None:
            variances = vector(self.band_variances, "Coefficients.band_variances", nonnegative=True)
            put(self, "band_variances", variances)

    @property
    def sigma(self) -> Array:
        """(L,) representative noise level of each bin, ascending."""
        return self.levels.sigma

    @property
    def width(self) -> Array:
        """(L,) extent of each level in sigma."""
        return self.levels.width

    @property
    def log_width(self) -> Array:
        """(L,) extent of each level in log sigma."""
        return self.levels.log_width

    @property
    def stopping_sigma(self) -> float:
        """The noise level where sampling stops: the lowest edge."""
        return float(self.levels.edges[0])

    @property
    def final_steps(self) -> int:
        """1 where the last step goes to zero noise ("denoise"), else 0."""
        return final_steps(self.terminal)

    @cached_property
    def example_error(self) -> Array:
        """(L,) A_l: score error times examples of each level, delta^2 <a sigma^2>."""
        return self.log_width**2 * self.score

    @cached_property
    def floor_error(self) -> Array:
        """(L,) F_l: score error of each level that no example removes, delta length <tau b sigma^2>."""
        return self.log_width * self.coupling.lengths(self.levels) * self.floor

    @cached_property
    def prior_examples(self) -> Array:
        """(L,) examples m0 that the untrained denoiser is worth on each level; 0 where it is not known."""
        if self.untrained is None:
            return np.zeros(len(self.levels))
        untrained = self.log_width * self.coupling.lengths(self.levels) * self.untrained
        return examples_worth(self.example_error, untrained)

    @cached_property
    def final_prior(self) -> float:
        """Examples that the untrained denoiser is worth to the last evaluation."""
        if self.final_untrained is None:
            return 0.0
        return float(examples_worth(np.array([self.final_score]), np.array([self.final_untrained]))[0])

    def served(self, examples: Array) -> Array:
        """(L,) examples that serve each level with these, and those that the untrained denoiser is worth."""
        return (examples if self.pooling is None else self.pooling @ examples) + self.prior_examples

    def untaught(self, examples: Array) -> Mask:
        """(L,) levels whose score error has no bound with these examples."""
        return np.asarray((self.score > 0) & (self.served(examples) <= 0))

    def after(self, examples: Array) -> Coefficients:
        """The table after a training that is over: what its (L,) examples leave no design changes, as a floor.

        A / (m + m0) M is a floor F M for an m that is given (docs/theory.md section 7.3); likewise at the end.

        >>> table = Coefficients(Levels.log_uniform(0.1, 1.0, 2), score=[2.0, 2.0], floor=[0.0, 0.0],
        ...                      response=np.zeros((0, 2)), coupling=Local(0.5), terminal="rescale")
        >>> trained = table.after(np.array([10.0, 20.0]))
        >>> trained.score.tolist(), (trained.floor_error * [10.0, 20.0] / table.example_error).round(12).tolist()
        ([0.0, 0.0], [1.0, 1.0])
        """
        served, stretch = self.served(examples), self.log_width * self.coupling.lengths(self.levels)
        left = np.divide(self.example_error, served, out=np.zeros(len(self.levels)), where=self.score > 0)
        last, near = 0.0, float(self.final_window @ examples) + self.final_prior
        if self.final_score > 0:
            last = self.final_score / near
        return replace(
            self,
            score=np.zeros(len(self.levels)),
            floor=self.floor + left / stretch,
            final_score=0.0,
            final_floor=self.final_floor + last,
        )

    @cached_property
    def kappa(self) -> Array:
        """(L,) log width over correlation length: steps below which M exceeds 1."""
        return self.log_width / self.coupling.lengths(self.levels)

    @cached_property
    def pooling(self) -> Array | None:
        """(L, L) examples that serve each level per example of each; None where a level serves itself alone."""
        return self.coupling.pooling(self.levels)

    @cached_property
    def step_response(self) -> Array:
        """(B, L) magnitudes R_bl of the rows of the discretisation error (equation 3.1)."""
        return np.abs(self.response) * self.log_width ** (self.order + 1)

    @cached_property
    def final_window(self) -> Array:
        """(L,) fraction of each level that serves within one correlation length of the stopping point."""
        length = float(self.coupling.lengths(self.levels)[0])
        low = self.stopping_sigma
        window = self.levels.overlap(low, low * np.exp(min(length, 600.0))) / self.log_width
        pooling = self.pooling
        return window if pooling is None else window @ pooling

    def __repr__(self) -> str:
        return (
            f"Coefficients({len(self.levels)} levels, sigma {self.levels.edges[0]:.4g} to "
            f"{self.levels.edges[-1]:.4g}, {self.response.shape[0]} bands, order {self.order}, "
            f"{self.terminal})"
        )


def examples_worth(score: Array, untrained: Array) -> Array:
    """Examples m0 with score / m0 = untrained error, at most 1e18 of them; 0 where there is no score error."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        worth = np.where(untrained > 0, score / untrained, np.inf)
    return np.where(score > 0, np.minimum(worth, _MOST_WORTH), 0.0)
