"""Strictly convex quadratic programs of a fit, solved and certified: docs/theory.md section 7.11."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import nnls

from ...basics.checks import Array

__all__ = ["Bounds", "QuadraticStep", "damped_step"]

_DEPENDENT = 1e-11


@dataclass(frozen=True, eq=False)
class Bounds:
    """Linear bounds A d >= b on a move, which d = 0 keeps: b <= 0.

    Args:
        rows: (M, P) A, no row of it zero.
        least: (M,) b.
    """

    rows: Array
    least: Array


@dataclass(frozen=True, eq=False)
class QuadraticStep:
    """The minimiser of g'd + d'(G + mu S)d / 2 within bounds, and how far from the minimum it is proved to be.

    Attributes:
        move: (P,) d.
        value: of the program at d, at most 0.
        gap: y'(A d - b) + |gradient at d - A'y|^2 / (2 mu) in the coordinates S^(1/2) d, where the curvature is
            at least mu whatever G is, for some multipliers y >= 0: no solver is trusted.
    """

    move: Array
    value: float
    gap: float

    @property
    def relative_gap(self) -> float:
        """`gap` as a share of what the step gains in the program."""
        return self.gap / -self.value if self.value < 0 else 0.0


def damped_step(gram: Array, slope: Array, damping: float, bounds: Bounds | None = None) -> QuadraticStep:
    """min g'd + d'(G + mu S)d / 2 with S = diag(G), A d >= b: a step of Levenberg and Marquardt within bounds.

    With L L' = G + mu S in the coordinates S^(1/2) d, the multipliers y >= 0 minimise |L^-1 (A'y - g)|^2 / 2 - b'y,
    nonnegative least squares in as many unknowns as there are bounds, and d = (G + mu S)^-1 (A'y - g).

    Args:
        gram: (P, P) G, positive semidefinite.
        slope: (P,) g.
        damping: mu > 0.
        bounds: A and b; none unless given.

    >>> found = damped_step(np.diag([4.0, 1.0]), np.array([4.0, -1.0]), 1e-9)
    >>> found.move.round(6).tolist(), found.relative_gap < 1e-12
    ([-1.0, 1.0], True)
    >>> held = Bounds(np.array([[1.0, 0.0]]), np.array([-0.5]))
    >>> damped_step(np.diag([4.0, 1.0]), np.array([4.0, -1.0]), 1e-9, held).move.round(6).tolist()
    [-0.5, 1.0]
    """
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300 + 1e-14 * np.diag(gram).max(initial=0.0)))
    matrix = gram / np.outer(scale, scale)
    matrix = 0.5 * (matrix + matrix.T) + damping * np.eye(slope.size)
    right = slope / scale
    factor = cho_factor(matrix)
    multipliers, rows, least = np.zeros(0), np.zeros((0, slope.size)), np.zeros(0)
    if bounds is not None and bounds.least.size:
        rows, least = bounds.rows / scale, bounds.least
        multipliers = _multipliers(rows, least, factor, right)
    pull = right - rows.T @ multipliers
    move = -cho_solve(factor, pull)
    move -= cho_solve(factor, matrix @ move + pull)  # one refinement: the certificate sees what rounding left
    move *= _share_within(rows @ move, least)
    rest = matrix @ move + pull
    value = float(right @ move + 0.5 * move @ matrix @ move)
    slack = float(multipliers @ np.maximum(rows @ move - least, 0.0))
    return QuadraticStep(move / scale, value, slack + float(rest @ rest) / (2 * damping))


def _share_within(reached: Array, least: Array) -> float:
    """How much of a move, at most all of it, keeps the bounds below zero, which rounding may have passed."""
    passed = (reached < least) & (least < 0)
    return float(np.min(least[passed] / reached[passed], initial=1.0))


def _multipliers(rows: Array, least: Array, factor: Any, right: Array) -> Array:
    """(M,) y of the dual program."""
    inner = rows @ cho_solve(factor, rows.T)
    wanted = least + rows @ cho_solve(factor, right)
    size = np.sqrt(np.diag(inner))
    # bounds may depend on each other: a ridge says which of them hold, those are met without it
    scaled, wanted = inner / np.outer(size, size), wanted / size
    upper = np.linalg.cholesky(scaled + _DEPENDENT * np.eye(size.size)).T
    found, _ = nnls(upper, solve_triangular(upper.T, wanted, lower=True))
    held = np.flatnonzero(found)
    exact = np.zeros(size.size)
    exact[held] = np.linalg.lstsq(scaled[np.ix_(held, held)], wanted[held], rcond=None)[0]
    return np.asarray((exact if np.all(exact >= 0) else found) / size)
