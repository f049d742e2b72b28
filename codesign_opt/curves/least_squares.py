"""Least squares with coefficients that cannot be negative, for one noise level's losses: docs/theory.md section 5."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..basics.checks import AT_ONCE, Array, Mask, choice, integer

__all__ = ["Bootstrap", "LevelFit", "fit_level", "nonnegative_least_squares"]

_WEBB = np.sqrt(np.array([0.5, 1.0, 1.5]))  # six-point multipliers: few runs still give many resamples


@dataclass(frozen=True)
class Bootstrap:
    """How losses are resampled for standard errors.

    Args:
        unit: "rows" (independent windows of one level) or "runs" (whole runs, three or more, with what their windows
            have in common).
        repeats: at least 2; 200 give errors good to a twentieth.

    Raises:
        ValueError: an unknown unit, too few repeats.

    >>> Bootstrap("runs").repeats
    200
    """

    unit: str = "rows"
    repeats: int = 200

    def __post_init__(self) -> None:
        choice(self.unit, "bootstrap", ("rows", "runs"))
        object.__setattr__(self, "repeats", integer(self.repeats, "Bootstrap.repeats", minimum=2, maximum=AT_ONCE))


@dataclass(frozen=True, eq=False)
class LevelFit:
    """loss = L + kappa1 / m + kappa2 tau of one level.

    Attributes:
        coefficients: (3,) L, kappa1, kappa2; a column that is not used is 0.
        used: (3,) which of them the rows tell apart.
        residual: (N,) loss minus fit.
        chi2, freedom: weighted sum of squared residuals and its degrees of freedom.
    """

    coefficients: Array
    used: Mask
    residual: Array
    chi2: float
    freedom: int


def nonnegative_least_squares(design: Array, target: Array, weight: Array) -> Array:
    """argmin over coefficients >= 0 of sum_n weight_n (target_n - design_n . coefficients)^2, exactly.

    The best of the feasible unconstrained fits to every subset of the columns: for a convex problem that is the
    constrained optimum.

    Args:
        design: (N, P), P <= 4.
        target: (B, N), B problems with the same design.
        weight: (N,), >= 0.

    Returns:
        (B, P).

    >>> nonnegative_least_squares(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 1.0]]), np.ones(2))
    array([[1.5, 0. ]])
    """
    root = np.sqrt(weight)
    columns, values = design * root[:, None], target * root
    scale = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    columns = columns / scale
    best, error = np.zeros((target.shape[0], design.shape[1])), np.sum(values**2, axis=1)
    for count in range(1, design.shape[1] + 1):
        for subset in map(list, combinations(range(design.shape[1]), count)):
            if np.linalg.matrix_rank(columns[:, subset], tol=1e-10) < count:
                continue
            found = np.linalg.lstsq(columns[:, subset], values.T, rcond=None)[0].T
            rest = np.sum((values - found @ columns[:, subset].T) ** 2, axis=1)
            better = np.all(found >= 0, axis=1) & (rest < error)
            best[better] = 0.0
            best[np.ix_(better, subset)] = found[better] / scale[subset]
            error = np.where(better, rest, error)
    return best


def fit_level(design: Array, loss: Array, weight: Array, tolerance: float = 1e-4) -> LevelFit:
    """Fit the columns (1, 1/m, tau) that the rows tell apart, in that order; the others are left at 0."""
    root = np.sqrt(weight)
    used = np.zeros(design.shape[1], dtype=bool)
    basis = np.zeros((loss.size, 0))
    for i in range(design.shape[1]):
        column = design[:, i] * root
        length = float(np.linalg.norm(column))
        rest = column - basis @ (basis.T @ column)
        if length > 0 and float(np.linalg.norm(rest)) > tolerance * length and basis.shape[1] < loss.size:
            used[i] = True
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    coefficients = np.zeros(design.shape[1])
    coefficients[used] = nonnegative_least_squares(design[:, used], loss[None], weight)[0]
    residual = loss - design @ coefficients
    return LevelFit(coefficients, used, residual, float(weight @ residual**2), loss.size - int(used.sum()))


def bootstrap_errors(
    design: Array, fit: LevelFit, weight: Array, scale: float, noise: Array, run: Array | None
) -> Array:
    """(3,) standard deviations of refits to resampled losses.

    Args:
        design, weight: of the level's rows.
        fit: the level's fit.
        scale: variance of a row in units of 1 / weight.
        noise: (B, N) standard normal draws, or (B, R) multipliers of whole runs.
        run: (N,) index of each row's run, to multiply whole runs' residuals; None: rows are independent.
    """
    if run is None:
        spread = noise * np.sqrt(scale / weight)
    else:
        groups = np.unique(run).size
        spread = fit.residual * noise[:, run] * np.sqrt(groups / max(groups - 1, 1))
    found = np.zeros((noise.shape[0], design.shape[1]))
    target = design @ fit.coefficients + spread
    found[:, fit.used] = nonnegative_least_squares(design[:, fit.used], target, weight)
    return np.std(found, axis=0, ddof=1)


def run_multipliers(rng: np.random.Generator, repeats: int, runs: int) -> Array:
    """(B, R) multipliers of unit variance for a wild bootstrap over runs."""
    return rng.choice(np.concatenate([-_WEBB, _WEBB]), size=(repeats, runs))
