"""Extensions as users write them, each with its raw twin: name -> (terms, rows, raw terms, raw rows, score or not)."""

import cvxpy as cp
import numpy as np

import codesign_opt as co
from tests.helpers.raw_user_programs import N

SIZE = 0.02  # of a user's term, of the order of what the plain program leaves


def extensions(plain):
    """All of them, on one plain program."""
    m0, w, size = plain.present, plain.width, len(plain.width)
    half, groups = slice(0, size // 2), np.array_split(np.arange(size), 5)
    errors = [plain.error * (1 + 0.8 * np.sin(k + 2 * np.log(plain.levels.sigma))) for k in range(8)]
    tables = [co.Coefficients(plain.levels, score=error / w**2, floor=np.zeros(size), response=np.zeros((0, size)),
                              coupling=plain.table.coupling, terminal="rescale") for error in errors]  # fmt: skip

    def scores(d, count):
        return cp.hstack([co.ScoreError(table).expression(d) for table in tables[:count]])

    def raw_scores(m, n, count):
        return cp.hstack([plain.score(m / N, n, error) for error in errors[:count]])

    def tail(values, count):
        level = cp.Variable()
        return level + cp.sum(cp.pos(values - level)) / (0.5 * count)

    def epigraph(d):
        above = cp.Variable(size)
        return SIZE / N * cp.sum(above), [above >= d.examples - m0, above >= m0 - d.examples]

    both = {
        "L1 turnover": lambda m, n: SIZE / N * cp.norm1(m - m0),
        "total variation": lambda m, n: SIZE / N * w[0] * cp.tv(cp.multiply(1 / w, m)),
        "group lasso": lambda m, n: SIZE / N * sum(cp.norm(m[g] - m0[g]) for g in groups),
        "maximum of two stages": lambda m, n: SIZE / N * cp.maximum(cp.sum(m[half]), 1.3 * cp.sum(m[size // 2 :])),
        "kl": lambda m, n: SIZE / N * cp.sum(cp.kl_div(m, m0)),
        "huber": lambda m, n: SIZE * cp.sum(cp.huber((m - m0) * size / N, 0.2)) / size,
        "power 1.5": lambda m, n: SIZE / size * cp.sum(cp.power(m * size / N, 1.5)),
        "exponential": lambda m, n: SIZE / size * cp.sum(cp.exp(n * size / 15 - 1)),
        "inverse": lambda m, n: SIZE / size**2 * cp.sum(cp.inv_pos(n)),
    }
    found = {name: ([on_design(f)], [], [f], [], True) for name, f in both.items()}
    alone = {
        f"power -{a}": lambda m, n, a=a: SIZE / size * cp.sum(cp.power(m * size / N, -a)) for a in (0.5, 0.75, 1.0, 1.5)
    }
    found |= {name: ([on_design(f)], [], [f], [], False) for name, f in alone.items()}
    for count in (2, 3, 8):
        found[f"max of {count}"] = (
            [lambda d, c=count: cp.max(scores(d, c))], [],
            [lambda m, n, c=count: cp.max(raw_scores(m, n, c))], [], False,
        )  # fmt: skip
    found["CVaR"] = ([lambda d: tail(scores(d, 6), 6)], [], [lambda m, n: tail(raw_scores(m, n, 6), 6)], [], False)
    found["log-sum-exp"] = (
        [lambda d: 0.1 * cp.log_sum_exp(10 * scores(d, 3))], [],
        [lambda m, n: 0.1 * cp.log_sum_exp(10 * raw_scores(m, n, 3))], [], False,
    )  # fmt: skip
    found["epigraph of one's own"] = ([epigraph], [], [both["L1 turnover"]], [], True)
    rows = {
        "largest density": lambda m, n: [cp.max(cp.multiply(1 / w, m)) <= 1.05 * 0.9 * N / w.sum()],
        "largest five": lambda m, n: [cp.sum_largest(m, max(size // 12, 2)) <= 0.085 * N],
        "norm": lambda m, n: [cp.norm(m - m0) <= 0.8 * np.linalg.norm(0.9 * N / size - m0)],
        "squares": lambda m, n: [cp.sum_squares(m - m0) <= 0.6 * np.sum((0.9 * N / size - m0) ** 2)],
        "kl row": lambda m, n: [cp.sum(cp.kl_div(m, m0)) <= 0.1 * N],
        "semidefinite": lambda m, n: [cp.bmat([[cp.sum(m[half]) / N, 0.46], [0.46, cp.sum(m[size // 2 :]) / N]]) >> 0],
    }
    found |= {name: ([], [row_on_design(f)], [], [f], True) for name, f in rows.items()}
    return found


def on_design(function):
    return lambda d: function(d.examples, d.steps)


def row_on_design(function):
    return lambda d: function(d.examples, d.steps)
