"""How errors of different noise levels add: Gram matrix of terminal responses, correlation length.

docs/theory.md section 6. r_l is the terminal change by the denoiser's error at the levels of block l; the
Gram matrix R_jk = E<r_j, r_k> says which errors add coherently. The two-sided integral of the correlation
over log sigma is the length l_log of equation (6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...basics.checks import Array, array, choice, instance, matrix, number, vector
from ...ingredients.coupling import Local
from ...ingredients.levels import Levels
from ..draws.statistics import Estimate

__all__ = ["CorrelationLength", "ErrorGram", "jackknife"]

_TINY = 1e-300


def jackknife(statistic: Callable[[Array], Array], units: Array) -> Estimate:
    """A function of the mean of independent units, with the standard error of leaving each out in turn.

    Args:
        statistic: smooth function of the mean over the first axis.
        units: (U, ...) independent and alike, at least 2.

    >>> jackknife(lambda mean: mean**2, np.array([1.0, 2.0, 3.0])).value.item()
    4.0
    """
    count = units.shape[0]
    if count < 2:
        raise ValueError(f"jackknife: {count} independent unit; at least 2 are needed for a standard error.")
    total = units.sum(axis=0)
    left_out = np.array([statistic((total - unit) / (count - 1)) for unit in units])
    spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0) * (count - 1) / count
    return Estimate(np.asarray(statistic(total / count)), np.sqrt(spread), count)


@dataclass(frozen=True, eq=False)
class CorrelationLength:
    """Two-sided integral of the correlation of errors over log sigma, l_log of equation (6.1).

    Attributes:
        sigma: (L,) noise levels.
        local: (L,) sum_k C_lk w_k at each level; near the ends of the range the integral is cut with
            the range, as the score error itself is.
        overall: mean of `local`, weighted with each level's squared response per unit log sigma.
        gram: Gram sum over sum of squares, sum_jk R_jk / sum_l (R_ll / w_l): the one number with which
            (6.1) gives the coherent sum of all errors. Below `overall` where amplitudes vary within a length.
        resolution: widest level over `overall`; averaging over wide levels lengthens the estimate (by about
            a sixth of it for a correlation with a kink, much less for a smooth one).
    """

    sigma: Array
    local: Estimate
    overall: Estimate
    gram: Estimate
    resolution: float

    def coupling(self, kind: str = "gram", *, form: str = "max") -> Local:
        """`Local(log_width=…)` from "gram" or "overall" (one number) or "local" (a function of sigma).

        The function interpolates log l_log linearly in log sigma, with lengths below a thirtieth of the
        overall one (noise) raised to that.
        """
        choice(kind, "CorrelationLength.coupling: kind", ("gram", "overall", "local"))
        if kind != "local":
            value = float(getattr(self, kind).value)
            return Local(log_width=number(value, f"CorrelationLength.{kind}", positive=True), form=form)
        place, least = np.log(self.sigma), float(self.overall.value) / 30
        logs = np.log(np.maximum(self.local.value, number(least, "CorrelationLength.overall", positive=True)))
        return Local(log_width=lambda sigma: np.exp(np.interp(np.log(sigma), place, logs)), form=form)

    def __repr__(self) -> str:
        return f"CorrelationLength(gram {self.gram!r}, overall {self.overall!r}, {self.sigma.size} levels)"


@dataclass(frozen=True, eq=False)
class ErrorGram:
    """Gram matrices of the errors of L levels, one per independent unit (a draw of the sampler's start).

    Args:
        levels: the blocks of noise levels; responses are those of whole blocks.
        units: (U, L, L) <r_j, r_k> of each unit, squared data units.
        together: (U,) squared terminal change with all levels in error at once, or None.
        evaluations: images denoised to get it.

    >>> levels = Levels.log_uniform(0.1, 10.0, 8)
    >>> fields = np.ones((3, 8, 2)) * np.arange(1, 4)[:, None, None]
    >>> ErrorGram.from_fields(fields, levels).correlation_length().gram.value.round(3).item()  # one error for all
    4.605
    """

    levels: Levels
    units: Array
    together: Array | None = None
    evaluations: int = 0

    def __post_init__(self) -> None:
        put, count = object.__setattr__, len(instance(self.levels, Levels, "ErrorGram.levels"))
        put(self, "units", matrix(self.units, "ErrorGram.units", shape=(None, count, count)))
        if self.together is not None:
            put(self, "together", vector(self.together, "ErrorGram.together", length=len(self.units)))
        dead = np.flatnonzero(np.diagonal(self.units.mean(axis=0)) <= 0)
        if dead.size:
            raise ValueError(
                f"ErrorGram: the error at sigma {self.levels.sigma[dead[0]]:.4g} has no terminal response "
                f"({dead.size} of {count} levels); the two denoisers agree there, leave the level out."
            )

    @classmethod
    def from_fields(cls, fields: Any, levels: Levels) -> ErrorGram:
        """From error or response fields per unit log sigma: (U, L, ...), one vector per unit and level.

        The units must be independent, the levels of one unit on common inputs. A field at a level's
        representative stands for the level: narrow levels.
        """
        instance(levels, Levels, "ErrorGram: levels")
        values = array(fields, "ErrorGram: fields")
        if values.ndim < 3 or values.shape[1] != len(levels):
            raise ValueError(f"ErrorGram: fields have shape {values.shape}; (units, {len(levels)}, …) is needed.")
        flat = values.reshape(*values.shape[:2], -1) * levels.log_width[:, None]
        return cls(levels, flat @ flat.transpose(0, 2, 1))

    @property
    def gram(self) -> Array:
        """(L, L) R, mean over the units."""
        return self.units.mean(axis=0)

    @property
    def correlation(self) -> Array:
        """(L, L) R_jk / sqrt(R_jj R_kk)."""
        return _correlation(self.gram)

    def sums(self) -> dict[str, Estimate]:
        """Squared terminal error by rules of addition: squares of single levels, linear Gram sum, all at once.

        "single" = sum R_ll, "linear" = sum R_jk, "together" = measured with every level in error.
        """
        parts = {"single": np.trace(self.units, axis1=1, axis2=2), "linear": self.units.sum(axis=(1, 2))}
        if self.together is not None:
            parts["together"] = self.together
        return {name: jackknife(lambda mean: mean, values) for name, values in parts.items()}

    def correlation_length(self) -> CorrelationLength:
        """l_log with jackknife standard errors over the units."""
        width, count = self.levels.log_width, len(self.levels)

        def lengths(gram: Array) -> Array:
            local = _correlation(gram) @ width
            squares = np.diagonal(gram) / width  # squared response density times width: its integral's summand
            return np.concatenate([local, [local @ squares / squares.sum(), gram.sum() / squares.sum()]])

        found = jackknife(lengths, self.units)
        local, overall, gram = (
            Estimate(found.value[part], found.standard_error[part], found.count)
            for part in (slice(0, count), count, count + 1)
        )
        return CorrelationLength(self.levels.sigma, local, overall, gram, float(width.max() / overall.value))

    def by_distance(self) -> tuple[Array, Estimate]:
        """Correlation against distance in log sigma: sum R_jk / sum sqrt(R_jj R_kk) over pairs at that distance.

        Returns:
            (B,) distances, multiples of the median level width, and the (B,) correlations.
        """
        place = np.log(self.levels.sigma)
        unit = float(np.median(self.levels.log_width))
        lag = np.rint(np.abs(place[:, None] - place) / unit).astype(int).ravel()
        lags = np.unique(lag)

        def curve(gram: Array) -> Array:
            own = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
            most = np.bincount(lag, np.outer(own, own).ravel())[lags]
            return np.bincount(lag, gram.ravel())[lags] / np.maximum(most, _TINY)

        return lags * unit, jackknife(curve, self.units)

    def __repr__(self) -> str:
        return f"ErrorGram({len(self.levels)} levels, {len(self.units)} units)"


def _correlation(gram: Array) -> Array:
    own = np.sqrt(np.maximum(np.diagonal(gram), _TINY))
    return gram / own / own[:, None]
