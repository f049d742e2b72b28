"""A plain joint program with user parts, stated twice: for the library, and raw in cvxpy in shares of the budget."""

import warnings

import cvxpy as cp
import numpy as np

import codesign_opt as co

N, K = 2e5, 15.0  # examples and steps in total


class Plain:
    """Score error and discretisation with a local coupling on L levels; `raw` solves the same with one user part."""

    def __init__(self, size):
        self.levels = levels = co.Levels.log_uniform(0.01, 30.0, size)
        self.width = levels.log_width
        self.error = self.width * (1 + np.sin(2 * np.log(levels.sigma)) ** 2) * N / 7.0
        self.kappa = np.full(size, 0.6 * K / size)
        self.response = 3e-2 * (K / size) * np.stack([1 + levels.sigma**0.2, np.ones(size)]) / np.sqrt(size)
        lengths = self.width / self.kappa
        self.table = co.Coefficients(
            levels, score=self.error / self.width**2, floor=np.zeros(size), response=self.response / self.width**2,
            order=1, coupling=co.Local(lambda _: lengths), terminal="rescale",
        )  # fmt: skip
        self.prices = co.Prices(1.0, 0.1 * N / K, 1)
        self.present = N / size * (1 + 0.5 * np.cos(3 * np.log(levels.sigma)))

    def problem(self, terms=(), rows=(), score=True):
        objective = co.Discretization(self.table)
        for term in ([co.ScoreError(self.table)] if score else []) + [own(term) for term in terms]:
            objective = objective + term
        return co.Problem(objective, [co.Compute(self.prices) <= N, co.Steps() <= K, *rows])

    def score(self, x, n, error):
        """sum of A/m max(1, kappa/n), by logarithms: another form than the library's."""
        share = len(error) * x
        inverse = cp.exp(-cp.log(share) - cp.log(cp.multiply(1 / self.kappa, n)))
        return cp.sum(cp.multiply(error * len(error) / N, cp.maximum(cp.inv_pos(share), inverse)))

    def raw(self, terms=(), rows=(), score=True, rounds=2):
        """The least value that raw cvxpy finds; `terms` and `rows` are functions of examples and steps as expressions.

        Variables and objective are counted in their own first answers, then anew: a level that gets a thousandth of
        the average is otherwise solved to few digits. Where the solver gives no number, in another unit of the error.
        The value is that of a point that meets every row, by the expression itself: no word of the solver's is in it.
        """
        for unit in (100.0, 1.0, 1e4):
            value = self._raw(terms, rows, score, rounds, unit)
            if np.isfinite(value):
                break
        return value

    def _raw(self, terms, rows, score, rounds, unit):
        size = len(self.width)
        examples, steps, least = np.full(size, N / size), np.full(size, K / size), np.inf
        for _ in range(rounds):
            x, y = cp.Variable(size, nonneg=True), cp.Variable(size, nonneg=True)
            m, n = cp.multiply(examples, x), cp.multiply(steps, y)
            objective = cp.sum_squares((self.response / steps) @ cp.inv_pos(y))
            objective += self.score(m / N, n, self.error) if score else 0.0
            objective += sum(term(m, n) for term in terms)
            budget = [cp.sum(m) / N + cp.sum(n) * 0.1 / K, cp.sum(n) / K]
            own_rows = [part for row in rows for part in row(m, n)]
            problem = cp.Problem(cp.Minimize(objective / unit), [used <= 1 for used in budget] + own_rows)
            if not _solved(problem):
                break
            over = max(float(used.value) for used in budget)
            for variable in (x, y):  # a solver meets the budgets to rounding
                variable.value = np.maximum(variable.value, 0.0) / max(over, 1.0)
            if all(_kept(row) for row in own_rows):
                least = min(least, float(objective.value))
            unit = abs(float(objective.value))
            examples, steps = (np.maximum(q.value, 1e-6 * q.value.max()) for q in (m, n))
        return least


def _kept(row):
    """Whether a row holds to a billionth of its limit."""
    size = 1.0 if isinstance(row, cp.constraints.PSD) else np.max(np.abs(row.args[1].value))
    return np.max(row.violation()) <= 1e-9 * max(size, 1.0)


def _solved(problem):
    """Solved to the tightest of some tolerances that the solver reaches; its "inaccurate" is judged by comparison."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tolerance in (1e-11, 1e-10, 1e-9, 1e-8, 1e-6):
            try:
                problem.solve(solver="CLARABEL", **dict.fromkeys(("tol_gap_rel", "tol_feas", "tol_gap_abs"), tolerance))
            except cp.SolverError:
                continue
            if problem.status in ("optimal", "optimal_inaccurate"):
                return True
    return False


def own(function):
    """A term of the user's from a function of the design."""
    return type("Own", (co.Term,), {"expression": lambda _, design: function(design)})()
