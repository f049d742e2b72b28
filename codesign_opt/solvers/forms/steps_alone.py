"""Newton's method for signed rows under one budget of steps alone, in the multipliers of the rows, docs/theory.md 3.3.

|R u|^2 >= 2 p.R u - |p|^2 for every p, and for c = 2 R'p > 0 the least of c.n^-q under a.n <= K is
(sum_l (c_l a_l^q)^(1/(q+1)))^(q+1) / K^q, so that the best p maximises a concave function of as many variables as
there are rows. Its curvature is at least that of |p|^2; where c_l goes to 0 its slope grows without end, so that it
needs no constraint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import nnls

from ...basics.checks import Array
from .program import FormProgram, FormSolution

__all__ = ["steps_alone"]

_MOST = 60  # iterations: programs take 5 to 12
_ENOUGH = 1e-13  # of the error: what is left between it and its bound
_USEFUL = 1e-9  # worse than that the method has failed
_TO_BOUNDARY, _HALVINGS = 0.9, 30


def steps_alone(program: FormProgram) -> FormSolution | None:
    """The optimum to about 1e-12 where signed rows and one budget of steps are all there is; None elsewhere.

    >>> from ..joint.program import JointProgram
    >>> none, one = np.zeros(2), np.ones((1, 2))
    >>> joint = JointProgram(none, none, np.ones(2), np.zeros((0, 2)), 1, 0 * one, one, np.array([3.0]))
    >>> steps_alone(FormProgram(joint, signed_rows=np.array([[4.0, 1.0]]))).steps  # (4/n_1 + 1/n_2)^2
    array([2., 1.])
    """
    read = _StepsAlone.read(program)
    with np.errstate(all="ignore"):
        shares = None if read is None else read.shares()
    if read is None or shares is None:
        return None
    joint, on = program.joint, program.needs_steps
    prices, budget = joint.steps_prices[0], float(joint.budgets[0])
    steps = np.zeros(program.size)
    steps[on] = shares * budget / prices[on]
    sums = read.rows @ shares**-read.order
    multiplier = 2 * read.order * read.size**2 * float(sums @ sums) / budget  # the error is of degree -2 q in steps
    none = np.zeros(program.size)
    examples = none if joint.spent is None else joint.spent
    gradient = np.where(on, 0.0, multiplier * prices)
    return FormSolution(examples, steps, np.array([multiplier]), none, gradient, "Newton")


@dataclass(frozen=True, eq=False)
class _StepsAlone:
    """min |R u|^2 over u = n^-q, a.n = K, in units where the steps are K / a times a share of one.

    Attributes:
        rows: (B, L) R of the levels that need steps, times what u is where one level has all steps, over `size`.
        size: norm of those rows.
        order: q.
    """

    rows: Array
    size: float
    order: float

    @classmethod
    def read(cls, program: FormProgram) -> _StepsAlone | None:
        """None where anything but signed rows and one budget of steps is there."""
        joint, rows = program.joint, program.signed_rows
        others = (program.examples_form, program.steps_form, joint.steps_low, joint.steps_high)
        if rows is None or any(other is not None for other in others) or joint.budgets.size != 1:
            return None
        if np.any(joint.errors > 0) or np.any(joint.floors > 0) or joint.final_error > 0:
            return None
        on = program.needs_steps
        if not on.any() or not np.all(joint.steps_prices[0, on] > 0):
            return None
        alone = (joint.steps_prices[0, on] / joint.budgets[0]) ** float(joint.order)
        scaled = rows[:, on] * alone
        size = float(np.linalg.norm(scaled))
        return None if size == 0 else cls(scaled / size, size, float(joint.order))

    def shares(self) -> Array | None:
        """(L,) the shares of the budget that the levels get; None where errors cancel or the method fails."""
        with np.errstate(all="ignore"):
            p = self._start()
            return None if p is None else self._climbed(p)

    def _start(self) -> Array | None:
        """(B,) p whose c is positive; None where no such p is found: then steps of some levels only cancel others."""
        norms = np.linalg.norm(self.rows, axis=0)
        shares = norms ** (1 / (self.order + 1))
        p = self.rows @ (shares / shares.sum()) ** -self.order
        if np.all(p @ self.rows > 0):
            return np.asarray(p)
        # least distance programming: min |p| with R_l.p >= |R_l|
        unit = self.rows / norms
        system = np.vstack([unit, np.ones(norms.size)])
        target = np.zeros(len(system))
        target[-1] = 1.0
        residual = system @ nnls(system, target, maxiter=50 * norms.size)[0] - target
        if not residual[-1] < -1e-12:
            return None
        p = residual[:-1] / -residual[-1]
        return self._lengthened(p) if np.all(p @ self.rows > 0) else None

    def _lengthened(self, p: Array) -> Array:
        """The best multiple of p: its bound is linear in the length, less its square."""
        linear = self._seen(p)[1] + float(p @ p)
        return p * (linear / (2 * float(p @ p)))

    def _seen(self, p: Array) -> tuple[Array, float, float]:
        """Shares at p, the bound, and w's sum."""
        c = 2 * (p @ self.rows)
        w = c ** (1 / (self.order + 1))
        total = float(w.sum())
        return w / total, total ** (self.order + 1) - float(p @ p), total

    def _climbed(self, p: Array) -> Array | None:
        shares, bound, total = self._seen(p)
        for _ in range(_MOST):
            u = shares**-self.order
            sums = self.rows @ u
            error = float(sums @ sums)
            if error - bound <= _ENOUGH * error:
                return shares
            step = self._step(p, sums - p, u, total)
            following = None if step is None else self._risen(p, step, bound)
            if following is None:
                return shares if error - bound <= _USEFUL * error else None
            p = following
            shares, bound, total = self._seen(p)
        return None

    def _step(self, p: Array, slope: Array, u: Array, total: float) -> Array | None:
        """Newton's step: half the slope over half the curvature."""
        q, c = self.order, 2 * (p @ self.rows)
        sums = self.rows @ u
        curved = (self.rows * (u / c)) @ self.rows.T - np.outer(sums, sums) / total ** (q + 1)
        curved *= 2 * q / (q + 1)
        curved.flat[:: p.size + 1] += 1.0
        try:
            return np.asarray(cho_solve(cho_factor(curved), slope))
        except (LinAlgError, ValueError):
            return None

    def _risen(self, p: Array, step: Array, bound: float) -> Array | None:
        """p + step, shortened until every c is positive and the bound is higher; None where it does not rise."""
        c, change = p @ self.rows, step @ self.rows
        falling = change < 0
        length = min(1.0, float(np.min(-_TO_BOUNDARY * c[falling] / change[falling], initial=1.0)))
        for _ in range(_HALVINGS):
            found = p + length * step
            if self._seen(found)[1] > bound:
                return found
            length *= 0.5
        return None
