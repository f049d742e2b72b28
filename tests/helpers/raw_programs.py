"""Programs over examples and steps written in cvxpy by hand, in a scaling of their own: truths for the language."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np

import codesign_opt as co

PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)
BUDGET, STEPS = 1e6, 18.0
SPECTRA = (0.8, 1.2, 1.5, 2.0, 2.5)  # exponents of power laws: five data sets


def tables(levels, count=5, **options):
    """One table per spectrum, on the same levels."""
    made = [co.GaussianModel(co.Spectrum.power_law(64, exponent=e), co.EDM(0.002, 80.0), **options) for e in SPECTRA]
    return [model.coefficients(levels=levels) for model in made[:count]]


class Raw:
    """Variables relative to the square-root rule and to equal steps, and the terms of a table as functions of them."""

    def __init__(self, table, spent=None, steps=None, around=None):
        size = len(table.levels)
        root = np.sqrt(table.example_error)
        self.table = table
        self.m0 = np.maximum(root / root.sum(), 1e-4 / size) * 0.6 * BUDGET / 3.0
        self.n0 = np.full(size, STEPS / size) if steps is None else steps
        if around is not None:
            self.m0 = np.maximum(around.new.value, 1e-2 * around.new.value.max())
            self.n0 = self.n0 if steps is not None else np.maximum(around.steps.value, 1e-6 * around.steps.value.max())
        self.x = cp.Variable(size, nonneg=True)
        self.y = cp.Variable(size, nonneg=True) if steps is None else cp.Constant(np.ones(size))
        self.spent = np.zeros(size) if spent is None else spent
        self.new = cp.multiply(self.m0, self.x)
        self.examples = self.new + self.spent
        self.steps = cp.multiply(self.n0, self.y)

    def score(self, table):
        """sum_l (A_l / (m_l + p_l) + F_l) max(1, kappa_l / n_l) + A_r / (m_r + p_r) + F_r, p = A / E untrained."""
        width, length = table.log_width, table.coupling.log_width
        prior, final = (0.0 if table.untrained is None else width * table.score / (length * table.untrained)), 0.0
        if table.final_untrained is not None and table.final_score > 0:
            final = table.final_score / table.final_untrained
        known = self.m0 + self.spent + prior
        share = cp.multiply(1 / known, self.examples + prior)
        weight = table.example_error / known
        kappa = table.kappa / self.n0
        product = cp.exp(-cp.log(share) - cp.log(self.y))
        reducible = cp.maximum(cp.inv_pos(share), cp.multiply(kappa, product))
        floor = cp.maximum(1.0, cp.multiply(kappa, cp.inv_pos(self.y)))
        found = cp.sum(cp.multiply(weight, reducible)) + table.floor_error @ floor + table.final_floor
        if table.final_score > 0:
            near = float(table.final_window @ (self.m0 + self.spent)) + final
            found = found + table.final_score / near * cp.inv_pos((table.final_window @ self.examples + final) / near)
        return found

    def discretization(self, table):
        """sum_b (sum_l R_bl / n_l^q)^2."""
        rows = table.step_response / self.n0**table.order
        return cp.sum_squares(rows @ cp.power(self.y, -table.order))

    def error(self, table):
        return self.score(table) + self.discretization(table)

    def compute(self):
        per_step = PRICES.evaluation_price(self.table.levels) * self.table.evaluations_per_step
        final = self.table.final_steps * PRICES.final_price(float(self.table.levels.edges[0]))
        return 3.0 * cp.sum(self.new) + per_step @ self.steps + final

    def budgets(self):
        return [self.compute() / BUDGET <= 1.0, (cp.sum(self.steps) + self.table.final_steps) / STEPS <= 1.0]

    def minimum(self, objective, constraints=None, unit=1e-3):
        """Least value, solved to 1e-10 of `unit`."""
        rows = self.budgets() if constraints is None else constraints
        problem = cp.Problem(cp.Minimize(objective / unit), rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the last digits, which no test asks for
            problem.solve(solver="CLARABEL", **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10))
        assert problem.status in ("optimal", "optimal_inaccurate")
        return float(problem.value) * unit


def least(kind, made, spent=None, steps=None):
    """The optimum of one of KINDS by hand, scaled anew around its own first answer."""
    around, values = None, []
    for _ in range(2):
        raw = Raw(made[2], spent, steps, around)
        rows = raw.budgets() if steps is None else raw.budgets()[:1]
        try:
            values.append(raw.minimum(KINDS[kind][1](raw, made), rows))
        except cp.SolverError:
            break
        around = raw
    return min(values)


def by_hand(kind, made, plan, spent=None):
    """The objective of one of KINDS at a plan, by its formula."""
    raw = Raw(made[2], spent)
    raw.new, raw.steps = cp.Constant(plan.new_examples), cp.Constant(plan.steps)
    raw.x, raw.y = cp.Constant(plan.new_examples / raw.m0), cp.Constant(plan.steps / raw.n0)
    raw.examples = raw.new + raw.spent
    return raw.minimum(KINDS[kind][1](raw, made), [])


def budgets():
    """The same limits in the language."""
    return [co.Compute(PRICES) <= BUDGET, co.Steps() <= STEPS]


# ------------------------------------------------------------------ kinds of objectives: in the language, and by hand


def own(table):
    return co.ScoreError(table) + co.Discretization(table)


def cvar_by_hand(values, share, probabilities=None):
    size = len(values)
    weights = np.full(size, 1 / size) if probabilities is None else np.array(probabilities) / np.sum(probabilities)
    level = cp.Variable()
    return level + sum(w * cp.pos(v - level) for w, v in zip(weights, values, strict=True)) / share


TODAY = co.LogNormal(-1.2, 1.2)
TOTAL = 1.5e5


def today(table):
    return TODAY.on_levels(table.levels) * TOTAL


def _kl_shape(raw):
    q = TODAY.on_levels(raw.table.levels)
    unit = 1e5
    m = raw.examples / unit
    return unit * cp.sum(cp.rel_entr(m, q * cp.sum(m)))


def _kl_amounts(raw):
    unit, there = 1e5, today(raw.table)
    m = raw.examples / unit
    return unit * (-cp.sum(cp.entr(m)) - m @ np.log(there / unit) - cp.sum(m)) + there.sum()


def _low(table):
    return table.sigma < 0.1


def _floor_by_hand(raw, t):
    return cp.sum(cp.pos((2e4 * t.log_width - raw.examples)[t.sigma <= 1.0]))


KINDS = {
    "worst of five": (
        lambda T: co.WorstCase([own(t) for t in T]), lambda r, T: cp.max(cp.hstack(list(map(r.error, T))))
    ),
    "worst of scores and the mean discretization": (
        lambda T: co.WorstCase([co.ScoreError(t) for t in T]) + 0.2 * sum(co.Discretization(t) for t in T),
        lambda r, T: cp.max(cp.hstack(list(map(r.score, T)))) + 0.2 * sum(map(r.discretization, T)),
    ),
    "mean of the worst half": (
        lambda T: co.CVaR([own(t) for t in T], 0.5), lambda r, T: cvar_by_hand(list(map(r.error, T)), 0.5)
    ),
    "mean of the worst, unequal": (
        lambda T: 2 * co.CVaR([own(t) for t in T], 0.3, probabilities=[5, 1, 1, 2, 1]),
        lambda r, T: 2 * cvar_by_hand(list(map(r.error, T)), 0.3, [5, 1, 1, 2, 1]),
    ),
    "worst of a mean and another": (
        lambda T: co.WorstCase({"a": co.CVaR([own(t) for t in T[:3]], 0.4), "b": own(T[3]) + own(T[4]) / 4}),
        lambda r, T: cp.maximum(cvar_by_hand(list(map(r.error, T[:3])), 0.4), r.error(T[3]) + r.error(T[4]) / 4),
    ),
    "turnover": (
        lambda T: own(T[2]) + co.Turnover(TODAY, 3e-10, total=TOTAL),
        lambda r, T: r.error(T[2]) + 3e-10 * cp.norm1(r.examples - today(T[2])),
    ),
    "dear turnover": (
        lambda T: own(T[2]) + 2 * co.Turnover(today(T[2]), 1e-8),
        lambda r, T: r.error(T[2]) + 2e-8 * cp.norm1(r.examples - today(T[2])),
    ),
    "turnover of steps": (
        lambda T: own(T[2]) + co.Turnover(17.0 * T[2].log_width / T[2].log_width.sum(), 2e-5, quantity="steps"),
        lambda r, T: r.error(T[2]) + 2e-5 * cp.norm1(r.steps - 17.0 * T[2].log_width / T[2].log_width.sum()),
    ),
    "divergence of shapes": (
        lambda T: own(T[2]) + co.KLDivergence(TODAY, 1e-9), lambda r, T: r.error(T[2]) + 1e-9 * _kl_shape(r)
    ),
    "divergence of amounts": (
        lambda T: own(T[2]) + co.KLDivergence(TODAY, 1e-9, total=TOTAL),
        lambda r, T: r.error(T[2]) + 1e-9 * _kl_amounts(r),
    ),
    "soft price": (
        lambda T: own(T[2]) + co.SoftConstraint(co.Compute(PRICES) <= 3e5, 1e-9),
        lambda r, T: r.error(T[2]) + 1e-9 * cp.pos(r.compute() - 3e5),
    ),
    "soft price, squared": (
        lambda T: own(T[2]) + co.SoftConstraint(co.Compute(PRICES) <= 3e5, 1e-14, norm="squared"),
        lambda r, T: r.error(T[2]) + 1e-14 * cp.square(cp.pos(r.compute() - 3e5)),
    ),
    "soft error of another": (
        lambda T: own(T[2]) + co.SoftConstraint(own(T[0]) <= 1e-3, 0.3),
        lambda r, T: r.error(T[2]) + 0.3 * cp.pos(r.error(T[0]) - 1e-3),
    ),
    "soft floor": (
        lambda T: own(T[2]) + co.SoftConstraint(co.Floor(2e4, high=1.0), 2e-10),
        lambda r, T: r.error(T[2]) + 2e-10 * _floor_by_hand(r, T[2]),
    ),
    "soft share of the user's, both ways": (
        lambda T: own(T[2]) + co.SoftConstraint(
            co.named("low", lambda d: cp.sum(d.examples[_low(T[2])]) == 1.5e5), 1e-9, norm="l1"),
        lambda r, T: r.error(T[2]) + 1e-9 * cp.abs(cp.sum(r.examples[_low(T[2])]) - 1.5e5),
    ),
    "soft monotone density": (
        lambda T: own(T[2]) + co.SoftConstraint(co.Monotone("increasing"), 1e-10),
        lambda r, T: r.error(T[2]) + 1e-10 * cp.sum(cp.pos(-cp.diff(cp.multiply(1 / T[2].log_width, r.examples)))),
    ),
}  # fmt: skip
