"""The scalar equations of one level's best number of steps, over arrays (docs/theory.md section 7.4).

Setting the derivative of the level's Lagrangian by log n to zero balances what a step costs, k n, against what it
saves: q D n^-q of the discretisation and, where the score still depends on steps, (A M / T + F M) times the
elasticity of M. Divided by k n every summand is a power of (its own root alone) / n, and the roots below sum to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...basics.checks import Array

__all__ = ["SmoothEquation", "scaled_root", "smooth_root"]

_ROUNDS = 60  # of a Newton iteration that takes 1 to 6: only NaN would go on
_GUARDED = 200  # of a Newton iteration in a bracket that takes 3 to 40
_TINY = 1e-300


def scaled_root(order: int, short: Array, half: Array, floor: Array, cap: Array | None) -> Array:
    """n with (short/n)^(q+1) + max((half/n)^1.5, (cap/n)^2) + (floor/n)^2 = 1.

    Relative to the largest of the single roots every coefficient is at most 1; in s = sqrt(scale/n) the
    equation is a convex increasing polynomial, on which Newton's method from s = 1 descends to the root.

    Args:
        order: q.
        short: (N,) root of the discretisation's part alone.
        half: (N,) root of the score's part alone, T at its best: A M / T is then proportional to sqrt(M).
        floor: (N,) root of the part alone that no example changes.
        cap: (N,) root of the score's part alone where a cap holds T, or None. The smaller T has the larger
            score, hence the maximum of the two.

    >>> none = np.zeros(1)
    >>> scaled_root(1, np.array([3.0]), none, np.array([4.0]), None).tolist()    # (3/5)^2 + (4/5)^2 = 1
    [5.0]
    """
    scale = np.maximum(np.maximum(short, half), floor)
    if cap is not None:
        scale = np.maximum(scale, cap)
    scale = np.maximum(scale, _TINY)
    ratio = short / scale
    # with q = 1 the first summand is a square like the last one: one coefficient less in the loop
    a: Array | None = ratio ** (order + 1) if order > 1 else None
    b, f = half / scale, floor / scale
    b, f = b * np.sqrt(b), f * f if a is not None else f * f + ratio * ratio
    c = None if cap is None else (cap / scale) ** 2
    # s = sqrt and not n or log n: all exponents, 1.5 among them, become whole, and no power or logarithm is taken
    s = np.ones(scale.size)
    for _ in range(_ROUNDS):
        square = s * s
        cube = square * s
        fourth = square * square
        score, rise = b * cube, 3.0 * b * square
        if c is not None:
            at_cap = c * fourth
            rise = np.where(at_cap > score, 4.0 * c * cube, rise)
            score = np.maximum(score, at_cap)
        height = score + f * fourth - 1.0
        rise = rise + 4.0 * f * cube
        if a is not None:
            top = a * (fourth * square if order == 2 else fourth * fourth if order == 3 else square ** (order + 1))
            height = height + top
            rise = rise + (2 * order + 2) * top / s
        move = height / rise
        s = s - move
        # Newton doubles the digits: a move of 1e-9 was the last that could be seen
        if not move.max() > 1e-9:
            break
    return scale / (s * s)


class SmoothEquation(NamedTuple):
    """The levels on which the form (1 + x^4)^(1/4) asks for steps: everything (N,)."""

    order: int
    errors: Array
    floors: Array
    kappa: Array
    low: Array
    high: Array
    drag: Array
    step_price: Array
    price: Array

    def above(self, t: Array) -> tuple[Array, Array]:
        """log of what a step saves over what it costs at t = log n, and an approximate slope of that.

        The slope leaves out where T stops at a bound: Newton is guarded, and only its speed depends on it.
        """
        n = np.exp(t)
        x4 = np.minimum(self.kappa / n, 1e70) ** 4  # beyond, the fourth power overflows
        m = x4 / (1 + x4)
        factor = (1 + x4) ** 0.25
        best = np.clip(np.sqrt(self.errors * factor / self.price), self.low, self.high)
        total = np.where(self.errors > 0, best, 1.0)
        score = (np.where(self.errors > 0, self.errors / total, 0.0) + self.floors) * factor * m
        pull = self.drag * np.minimum(n, 1e70) ** float(-self.order)
        right = np.maximum(score + pull, _TINY)
        return np.log(right) - np.log(self.step_price) - t, -1 - (self.order * pull + (4 - 3.5 * m) * score) / right


def smooth_root(equation: SmoothEquation, short: Array, upper: Array) -> Array:
    """n at the optimality condition of the smooth form: Newton in log n inside a bracket, (N,).

    For the smooth form M m <= x and sqrt(M) m <= sqrt(x), m its elasticity: more steps save less than they would for
    M(x) = x, whose root therefore lies above. The root without a score lies below.

    Args:
        equation: the levels.
        short: (N,) root without a score.
        upper: (N,) root for M(x) = x; inf where steps are free.
    """
    # 1e-9 of room on both sides: a root at an end must not be lost to the rounding of the logarithm
    high = np.log(np.clip(np.maximum(upper, short), 1e-150, 1e150)) + 1e-9
    low = np.maximum(np.log(np.minimum(upper, equation.kappa) * 0.1), -345.0)
    low = np.minimum(np.maximum(low, np.log(np.maximum(short, 1e-150)) - 1e-9), high)
    # a tenth of kappa is a guess, and falls until the condition has the sign of a lower end
    for _ in range(_ROUNDS):
        wrong = equation.above(low)[0] < 0
        if not wrong.any():
            break
        low = np.where(wrong, np.maximum(low - 2.0, -345.0), low)
    t = 0.5 * (low + high)
    for _ in range(_GUARDED):
        height, slope = equation.above(t)
        low, high = np.where(height >= 0, t, low), np.where(height <= 0, t, high)
        trial = t - height / slope
        trial = np.where((trial > low) & (trial < high), trial, 0.5 * (low + high))
        done = float(np.abs(trial - t).max()) < 1e-13
        t = trial
        if done:
            break
    return np.where(np.isinf(upper), np.inf, np.exp(t))
