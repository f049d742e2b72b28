"""Programs for the tests, written a second time from the formulas: nothing here calls the library's solvers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize

import codesign_opt as co


@dataclass(frozen=True, eq=False)
class Joint:
    """Densities per unit sigma of docs/theory.md sections 6 and 7, constant on each level.

    Error: int [M a/rho + M l tau_b] dsigma + sum_b (int gamma^q |l_b|)^2, M = M(gamma / l).
    Price: int c rho dsigma + int k / gamma dsigma <= budget.
    """

    levels: co.Levels
    a: np.ndarray
    tau_b: np.ndarray
    rows: np.ndarray  # (B, L) sqrt(n_b P_b) l_b
    order: int
    coupling: co.Local | co.PerStep
    log_length: np.ndarray
    example: np.ndarray
    evaluation: np.ndarray
    budget: float

    @classmethod
    def random(cls, size, seed, *, order=1, coupling=None, decades=2.0, scale=1.0, floor=1.0, bands=3):
        rng = np.random.default_rng(seed)
        levels = co.Levels.log_uniform(0.02, 20.0, size)
        sigma = levels.sigma
        coupling = co.Local(1.2) if coupling is None else coupling

        def spread(*shape):
            return 10 ** rng.uniform(-decades / 2, decades / 2, shape)

        a = spread(size) / sigma**2
        tau_b = 1e-3 * floor * spread(size) / sigma**2
        rows = 0.03 * spread(bands, size) / sigma ** (order + 1) * rng.choice([1.0, -1.0], (bands, size))
        example, evaluation = 0.1 * scale * spread(size), 400 * scale * spread(size)
        return cls(
            levels, a, tau_b, rows, order, coupling, coupling.lengths(levels), example, evaluation, 3e3 * scale
        )  # fmt: skip

    @property
    def table(self):
        sigma = self.levels.sigma
        return co.Coefficients(
            self.levels,
            score=self.a * sigma**2,
            floor=self.tau_b * sigma**2,
            response=self.rows * sigma ** (self.order + 1),
            order=self.order,
            coupling=self.coupling,
            terminal="rescale",
        )

    @property
    def prices(self):
        return co.Prices(self.example, self.evaluation, 1)

    def problem(self, constraints=(), **given):
        terms = co.ScoreError(self.table) + co.Discretization(self.table)
        budget = co.named("budget", co.Compute(self.prices) <= self.budget)
        return co.Problem(terms, [budget, *constraints], **given)

    # ---- the same program in (gamma, rho); w is the level's extent with sigma held at its representative
    @property
    def width(self):
        return self.levels.sigma * self.levels.log_width

    @property
    def length(self):
        return self.levels.sigma * self.log_length

    def factor(self, x):
        if isinstance(self.coupling, co.PerStep):
            return x
        return np.maximum(1, x) if self.coupling.form == "max" else (1 + x**4) ** 0.25

    def parts(self, m, n):
        """(score, floor) per level and the discretisation error, at examples m and steps n."""
        rho, gamma = m / self.width, self.width / n
        factor = self.factor(gamma / self.length)
        score = self.width * factor * self.a / rho
        floor = self.width * factor * self.length * self.tau_b
        return score, floor, float(((np.abs(self.rows) @ (self.width * gamma**self.order)) ** 2).sum())

    def value(self, m, n):
        score, floor, steps = self.parts(m, n)
        return float(score.sum() + floor.sum() + steps)

    def cost(self, m, n):
        return float(self.example @ m + self.evaluation @ n)

    def geometric(self):
        """(value, multiplier of the budget) of the geometric program in (gamma, rho)."""
        size = len(self.levels)
        gamma, rho, t = (cp.Variable(size, pos=True) for _ in range(3))
        w, x = self.width, cp.multiply(gamma, 1 / self.length)
        if isinstance(self.coupling, co.PerStep):
            links = [t >= x]
        elif self.coupling.form == "max":
            links = [t >= x, t >= 1]
        else:
            links = [t >= cp.power(1 + cp.power(x, 4), 0.25)]
        error = sum(t[l] * (w[l] * self.a[l] / rho[l] + w[l] * self.length[l] * self.tau_b[l]) for l in range(size))
        for row in np.abs(self.rows):
            error = error + cp.power(sum(w[l] * row[l] * gamma[l] ** self.order for l in range(size) if row[l] > 0), 2)
        price = sum(self.example[l] * w[l] * rho[l] + self.evaluation[l] * w[l] / gamma[l] for l in range(size))
        budget = price <= self.budget
        program = cp.Problem(cp.Minimize(error), [budget, *links])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says "inaccurate" at extreme scales; the caller compares values
            program.solve(gp=True, solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
        value = float(program.value)
        # the dual of a geometric program is d log value / d log budget
        return value, float(np.asarray(budget.dual_value).item()) * value / self.budget

    def nonlinear(self, seed=0):
        """Best value of SLSQP in logarithms, from three random starts."""
        size, rng = len(self.levels), np.random.default_rng(seed)
        kappa = self.levels.log_width / self.log_length
        floor_of_t = -np.inf if isinstance(self.coupling, co.PerStep) else 0.0
        smooth = isinstance(self.coupling, co.Local) and self.coupling.form == "p4"
        big_a, big_f = self.width**2 * self.a, self.width * self.length * self.tau_b
        big_r = np.abs(self.rows) * self.width ** (self.order + 1)

        def split(z):
            return np.exp(z[:size]), np.exp(z[size : 2 * size]), np.exp(z[2 * size :])

        def objective(z):
            m, n, t = split(z)
            if smooth:
                t = (1 + (kappa / n) ** 4) ** 0.25
            per_t = (big_a / m + big_f) * t
            sums = big_r @ n**-self.order
            value = per_t.sum() + sums @ sums
            by_n = -2 * self.order * (sums @ big_r) * n**-self.order
            by_t = per_t
            if smooth:
                by_n = by_n - per_t * (kappa / n) ** 4 / (1 + (kappa / n) ** 4)
                by_t = np.zeros(size)
            gradient = np.concatenate([-big_a / m * t, by_n, by_t])
            return np.log(value), gradient / value

        def room(z):
            m, n, _ = split(z)
            return np.log(self.budget) - np.log(self.cost(m, n))

        def room_slope(z):
            m, n, _ = split(z)
            return -np.concatenate([self.example * m, self.evaluation * n, np.zeros(size)]) / self.cost(m, n)

        eye, zero = np.eye(size), np.zeros((size, size))
        rows = np.hstack([zero, eye, eye])
        best = np.inf
        for _ in range(3):
            share = rng.dirichlet(np.ones(2 * size))
            m, n = share[:size] * self.budget / self.example, share[size:] * self.budget / self.evaluation
            z = np.concatenate([np.log(m), np.log(n), np.maximum(np.log(kappa / n), 0.0)])
            constraints = [{"type": "ineq", "fun": room, "jac": room_slope}]
            if not smooth:
                constraints.append({"type": "ineq", "fun": lambda z: rows @ z - np.log(kappa), "jac": lambda z: rows})
            bounds = [(-40, 40)] * (2 * size) + [(max(floor_of_t, -40), 40)] * size
            found = minimize(
                objective, z, jac=True, bounds=bounds, constraints=constraints, method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 3000},
            )  # fmt: skip
            if room(found.x) > -1e-9:
                best = min(best, float(np.exp(found.fun)))
        return best


def boxed_training(size, decades, budget_scale, price_scale, seed, *, spent=False):
    """P1: (table, steps, s, c, budget, low, high, spent), coefficients over the given decades."""
    rng = np.random.default_rng(seed)
    levels = co.Levels.log_uniform(0.01, 100.0, size)
    score = 10 ** rng.uniform(-decades / 2, decades / 2, size) / levels.log_width**2
    c = price_scale * 10 ** rng.uniform(-decades / 4, decades / 4, size)
    table = co.Coefficients(levels, score=score, floor=np.zeros(size), response=np.zeros((0, size)), terminal="rescale")
    steps = rng.uniform(0.01, 5, size)
    s = levels.log_width**2 * score * np.maximum(1.0, levels.log_width / 2.7 / steps)  # Local(2.7)
    budget = 1e6 * budget_scale
    free = np.sqrt(s / c) * budget / np.sqrt(s * c).sum()
    low = np.where(rng.random(size) < 0.3, free * rng.uniform(0.2, 2, size), 0.0)
    low *= min(1.0, 0.5 * budget / max(float(c @ low), 1e-3 * budget))
    high = np.where(rng.random(size) < 0.3, low + free * rng.uniform(0.1, 1, size), np.inf)
    e = np.where(rng.random(size) < 0.5, free * rng.uniform(0, 1.5, size), 0.0) if spent else None
    return table, steps, s, c, budget, low, high, None if e is None else np.minimum(e, high)
