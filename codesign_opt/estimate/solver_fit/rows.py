"""Rows: levels and coefficients of a linear multistep solver, each row consistent, as the unknowns of a fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...basics.checks import Array

__all__ = ["Rows", "two_step_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """x_{k+1} = D_k + a_k (x_k - D_k) + sum_{1 <= j < h} c_kj (D_{k-j} - D_k), on descending levels.

    The weights of every row sum to one, so that a shift of data, states and outputs shifts the samples: the mean of
    the data needs no place in the solver. A row reaches no further back than the first step.

    Args:
        levels: (K+1,) noise levels, descending; the last may be 0.
        a: (K,) weights of the state.
        c: (K, h) weights of the outputs D_k, D_{k-1}, …; c[:, 0] is what the others leave of one.
    """

    levels: Array
    a: Array
    c: Array

    @property
    def steps(self) -> int:
        """K."""
        return self.a.size

    @property
    def history(self) -> int:
        """h, outputs that a row takes."""
        return self.c.shape[1]

    def reach(self, step: int) -> int:
        """Former outputs that a row can take."""
        return min(self.history - 1, step)

    def free(self, step: int) -> Array:
        """(1 + reach,) the free numbers of a row: a_k, c_k1, …"""
        return np.concatenate([[self.a[step]], self.c[step, 1 : 1 + self.reach(step)]])

    def widened(self, history: int) -> Rows:
        """The same rows with room for more outputs."""
        return replace(self, c=np.pad(self.c, ((0, 0), (0, max(history - self.history, 0)))))

    def with_row(self, step: int, free: Array) -> Rows:
        """The same with one row's free numbers replaced."""
        a, c = self.a.copy(), self.c.copy()
        a[step], c[step] = free[0], 0.0
        c[step, 1 : free.size] = free[1:]
        c[step, 0] = 1.0 - free.sum()
        return replace(self, a=a, c=c)

    def moved(self, log_levels: Array) -> Rows:
        """The same corrections to the two-step rows of other levels: log sigma of the positive levels but the first.

        The coefficients of a step follow its size; what the fit adds to them stays.
        """
        levels = self.levels.copy()
        levels[1 : 1 + log_levels.size] = np.exp(log_levels)
        before, after = two_step_rows(self.levels, self.history), two_step_rows(levels, self.history)
        return Rows(levels, self.a - before.a + after.a, self.c - before.c + after.c)


def two_step_rows(levels: Array, history: int) -> Rows:
    """DPM-Solver++(2M) on these levels (Lu et al. 2022, algorithm 2), or Euler's steps where history is 1.

    With r = sigma_{k+1} / sigma_k and q = h_{k-1} / h_k, steps in log sigma: a = r, c_1 = -(1 - r) / (2 q). The first
    step is Euler's, and so is the last one to zero, where a step in log sigma has no length.

    >>> two_step_rows(np.array([4.0, 2.0, 1.0]), 2).c.tolist()
    [[0.5, 0.0], [0.75, -0.25]]
    """
    count = levels.size - 1
    a, c = levels[1:] / levels[:-1], np.zeros((count, history))
    if history > 1:
        for k in range(1, count):
            if levels[k + 1] > 0:
                now, before = np.log(levels[k] / levels[k + 1]), np.log(levels[k - 1] / levels[k])
                c[k, 1] = -(1 - a[k]) * now / (2 * before)
    c[:, 0] = 1.0 - a - c[:, 1:].sum(axis=1)
    return Rows(np.array(levels, dtype=np.float64), a, c)
