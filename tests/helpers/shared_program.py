"""Shared parameters beside a sampler, written a second time: the semidefinite program, in a scaling of its own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np

import codesign_opt as co
from tests.helpers.information import smooth_features


@dataclass(frozen=True, eq=False)
class SharedProgram:
    """min tr G^T M(m)^-1 G + sum_b (sum_l R_bl n_l^-q)^2 + sum_l w_l / n_l, c.m + k.n <= budget, and what is random."""

    table: co.Coefficients
    features: np.ndarray  # (L, k, P)
    response: np.ndarray  # (P, r)
    variance: np.ndarray  # (L,)
    prior: np.ndarray | None
    example: np.ndarray
    evaluation: np.ndarray
    budget: float
    own: float = 0.0  # weight of the user's term, sum_l own / n_l
    spent: np.ndarray | None = None
    floor: np.ndarray | None = None  # (L,) least examples
    cap: np.ndarray | None = None  # (L,) most examples
    share: tuple[np.ndarray, float] | None = None  # at least this share of the new examples within a mask
    count: float | None = None  # most steps
    steps: np.ndarray | None = None
    boxes: bool = False  # floor and cap as the library's Floor and Cap instead of rows

    @classmethod
    def random(cls, seed, *, parameters=None, size=None, decades=2.0, bands=3, plain=False):
        rng = np.random.default_rng(seed)
        size = size or int(rng.choice([6, 15, 40]))
        count = parameters or int(rng.choice([1, 4, 12]))
        outputs, order = int(rng.choice([1, 2])), int(rng.choice([1, 2, 3]))
        levels = co.Levels.log_uniform(0.01, 20.0, size)

        def spread(*shape):
            return 10 ** rng.uniform(-decades / 2, decades / 2, shape)

        rows = 0.3 * spread(bands, size) * rng.choice([1.0, -1.0], (bands, size))
        table = co.Coefficients(levels, np.zeros(size), np.zeros(size), rows, order=order, terminal="rescale")
        features = smooth_features(count, size, outputs, seed) * spread(size, 1, 1) ** 0.3
        response = np.einsum("lkp,lkr->pr", features, rng.standard_normal((size, outputs, int(rng.choice([1, 3])))))
        example, evaluation, budget = spread(size), 100 * spread(size), 1e4 * size
        half = rng.standard_normal((count, count))
        prior = 0.1 * half @ half.T * budget / size if rng.random() < 0.3 or count > size * outputs else None
        made = cls(table, features, response, spread(size) ** 0.5, prior, example, evaluation, budget)
        return made if plain else made._with_extras(rng)

    def _with_extras(self, rng):
        size, share = len(self.table.levels), self.budget / self.example / len(self.table.levels)
        changes = {"boxes": bool(rng.random() < 0.5)}
        if rng.random() < 0.3:
            changes["spent"] = share * rng.uniform(0, 1, size) * (rng.random(size) < 0.5)
        if rng.random() < 0.3:
            changes["floor"] = share * rng.uniform(0, 0.4, size) * (rng.random(size) < 0.5)
        if rng.random() < 0.3:
            changes["cap"] = (
                changes.get("floor", 0) + changes.get("spent", 0) + share * 10 ** rng.uniform(-0.5, 1, size)
            )
        if rng.random() < 0.3:
            mask = np.zeros(size, dtype=bool)
            mask[: int(rng.integers(1, size))] = True
            changes["share"] = mask, float(rng.uniform(0.1, 0.5))
        if rng.random() < 0.3:
            changes["count"] = float(rng.uniform(5, 60))
        if rng.random() < 0.3:
            changes["own"] = 10 ** rng.uniform(-4, 0)
        if rng.random() < 0.2:
            changes["steps"] = rng.uniform(0.2, 3, size) * 20 / size
            changes.pop("count", None)
        return replace(self, **changes)

    # as a user states it

    @property
    def information(self):
        return co.InformationError(
            self.features, self.response, sigma=self.table.sigma, prior=self.prior, residual_variance=self.variance
        )

    @property
    def objective(self):
        terms = self.information + co.Discretization(self.table)
        return terms + Slowness(self.own) if self.own else terms

    @property
    def prices(self):
        return co.Prices(self.example, self.evaluation, 1)

    @property
    def constraints(self):
        made = []
        if self.floor is not None:
            made.append(co.Floor(self.floor, "examples") if self.boxes else lambda d: d.examples >= self.floor)
        if self.cap is not None:
            made.append(co.Cap(self.cap, "examples") if self.boxes else lambda d: d.examples <= self.cap)
        if self.share is not None:
            mask, share = self.share
            made.append(co.named("share", lambda d: cp.sum(d.new_examples[mask]) >= share * cp.sum(d.new_examples)))
        if self.count is not None:
            made.append(co.Steps() <= self.count)
        return made

    def problem(self):
        budget = co.Compute(self.prices) <= self.budget
        return co.Problem(self.objective, [budget, *self.constraints], steps=self.steps, spent=self.spent)

    def cheapest(self, error):
        """The least compute for an error."""
        return co.Problem(
            co.Compute(self.prices), [self.objective <= error, *self.constraints], steps=self.steps, spent=self.spent
        )

    # as it is

    def value(self, m, n):
        total = m if self.spent is None else m + self.spent
        roots = self.features / np.sqrt(self.variance)[:, None, None]
        matrix = np.einsum("l,lkp,lkq->pq", total, roots, roots) + (0 if self.prior is None else self.prior)
        unit = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        solved = np.linalg.lstsq(matrix * unit * unit[:, None], self.response * unit[:, None], rcond=1e-15)[0]
        rows = np.abs(self.table.response) * self.table.log_width ** (self.table.order + 1)
        sums = rows @ n ** -float(self.table.order)
        return float(np.sum(self.response * unit[:, None] * solved) + sums @ sums + self.own * np.sum(1 / n))

    def truth(self, rounds=3, cost_at=None):
        """(value, m, n) by the semidefinite program, each round scaled by the last one's answer.

        With `cost_at` an error, the least compute for it instead.
        """
        size = len(self.table.levels)
        m, n = 0.5 * self.budget / self.example / size, 0.5 * self.budget / self.evaluation / size
        n = n if self.count is None else n * min(1.0, 0.9 * self.count / n.sum())
        n = n if self.steps is None else self.steps
        best = None
        for _ in range(rounds):
            u = cp.Variable(size, nonneg=True)
            v = cp.Variable(size, nonneg=True) if self.steps is None else np.ones(size)
            error, unit = self._raw_error(u, v, m, n)
            paid = ((self.example * m) @ u + (self.evaluation * n) @ v) / self.budget
            rows = self._raw_rows(u, v, m, n)
            if cost_at is None:
                program = cp.Problem(cp.Minimize(error), [*rows, paid <= 1])
            else:
                program = cp.Problem(cp.Minimize(paid), [*rows, error <= cost_at / unit])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    program.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
                except cp.SolverError:
                    break
            if program.status not in ("optimal", "optimal_inaccurate"):
                break
            m, n = m * np.maximum(u.value, 1e-9), n if self.steps is not None else n * np.maximum(v.value, 1e-9)
            best = program.value * (unit if cost_at is None else self.budget), m, n
        return best

    def _raw_error(self, u, v, m, n):
        spent = 0 if self.spent is None else self.spent
        roots = self.features / np.sqrt(self.variance)[:, None, None]
        prior = 0 if self.prior is None else self.prior
        at = np.einsum("l,lkp,lkq->pq", spent + m, roots, roots) + prior
        values, vectors = np.linalg.eigh(at)
        keep = values > 1e-14 * values[-1]
        white = vectors[:, keep] / np.sqrt(values[keep])
        seen = roots @ white
        each = np.einsum("l,lkp,lkq->lpq", m, seen, seen)
        fixed = white.T @ (np.einsum("l,lkp,lkq->pq", spent + 0 * m, roots, roots) + prior) @ white
        rank = white.shape[1]
        matrix = fixed + cp.reshape(each.reshape(len(m), -1).T @ u, (rank, rank), order="C")
        right = white.T @ self.response
        rows = np.abs(self.table.response) * self.table.log_width ** (self.table.order + 1)
        rows = rows * n ** -float(self.table.order)
        unit = float((right**2).sum() + (rows.sum(axis=1) ** 2).sum()) or 1.0
        error = cp.matrix_frac(right / np.sqrt(unit), (matrix + matrix.T) / 2)
        error += cp.sum_squares((rows / np.sqrt(unit)) @ cp.power(v, -self.table.order))
        if self.own:
            error += cp.sum(cp.multiply(self.own / n / unit, cp.inv_pos(v)))
        return error, unit

    def _raw_rows(self, u, v, m, n):
        spent, rows = np.zeros(m.size) if self.spent is None else self.spent, []
        if self.floor is not None:
            rows.append(u >= (self.floor - spent) / m)
        if self.cap is not None:
            rows.append(u <= (self.cap - spent) / m)
        if self.share is not None:
            mask, share = self.share
            rows.append((m * mask / m.sum()) @ u >= share * ((m / m.sum()) @ u))
        if self.count is not None:
            rows.append(n @ v <= self.count)
        return rows


@dataclass(frozen=True, eq=False)
class Slowness(co.Term):
    """A user's term: weight times the sum of 1 / steps over the levels."""

    weight: float

    def expression(self, design):
        return self.weight * cp.sum(cp.inv_pos(design.steps))
