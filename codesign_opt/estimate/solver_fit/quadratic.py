"""Strictly convex quadratic programs of a fit, solved and certified: docs/theory.md section 7.11."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ...basics.checks import Array

__all__ = ["QuadraticStep", "damped_step"]


@dataclass(frozen=True, eq=False)
class QuadraticStep:
    """The minimiser of g'd + d'(G + mu S)d / 2, and how far from the minimum it is proved to be.

    Attributes:
        move: (P,) d.
        value: of the program at d, at most 0.
        gap: |gradient at d|^2 / (2 mu) in the coordinates S^(1/2) d, where the program's curvature is at least mu
            whatever G is: no solver is trusted.
    """

    move: Array
    value: float
    gap: float

    @property
    def relative_gap(self) -> float:
        """`gap` as a share of what the step gains in the program."""
        return self.gap / -self.value if self.value < 0 else 0.0


def damped_step(gram: Array, slope: Array, damping: float) -> QuadraticStep:
    """min g'd + d'(G + mu S)d / 2 with S = diag(G): a step of Levenberg and Marquardt.

    Args:
        gram: (P, P) G, positive semidefinite.
        slope: (P,) g.
        damping: mu > 0.

    >>> found = damped_step(np.diag([4.0, 1.0]), np.array([4.0, -1.0]), 1e-9)
    >>> found.move.round(6).tolist(), found.relative_gap < 1e-12
    ([-1.0, 1.0], True)
    """
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300 + 1e-14 * np.diag(gram).max(initial=0.0)))
    matrix = gram / np.outer(scale, scale)
    matrix = 0.5 * (matrix + matrix.T) + damping * np.eye(slope.size)
    right = slope / scale
    factor = cho_factor(matrix)
    move = -cho_solve(factor, right)
    move -= cho_solve(factor, matrix @ move + right)  # one refinement: the certificate sees what rounding left
    rest = matrix @ move + right
    value = float(right @ move + 0.5 * move @ matrix @ move)
    return QuadraticStep(move / scale, value, float(rest @ rest) / (2 * damping))
