"""Random programs of built-in, smooth and kinked parts, each around a point that is feasible by construction."""

import cvxpy as cp
import numpy as np

import codesign_opt as co
from codesign_opt.modeling.design import Design, Point
from tests.helpers.raw_user_programs import own


class Instance:
    """One program with its feasible point; sizes, units and error coefficients span twelve decades."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng([seed, 7])
        self.size = size = int(rng.choice([8, 12, 20, 30]))
        self.levels = co.Levels.log_uniform(10 ** rng.uniform(-3, -1), 10 ** rng.uniform(0.5, 2), size)
        self.width = self.levels.log_width
        self.total, self.count, self.error = (
            10 ** rng.uniform(0, 12),
            10 ** rng.uniform(0.5, 2.5),
            10 ** rng.uniform(-9, 6),
        )
        self.new, self.steps = self._amounts(0.7, self.total), self._amounts(0.5, self.count)
        self.spent = (
            self._amounts(1.0, self.total * 10 ** rng.uniform(-2, 4)) if rng.random() < 0.35 else np.zeros(size)
        )
        self.table = self._table()
        self.examples = self.new + self.spent
        self.point = Point(self.new, self.spent, self.steps)
        self.problem = self._problem()

    def _amounts(self, spread, total):
        shape = np.exp(spread * self.rng.normal(size=self.size))
        return shape / shape.sum() * total

    def _table(self):
        rng, size, w = self.rng, self.size, self.width
        shape = np.exp(rng.normal(size=size)) * 10 ** (rng.choice([0, 2, 6, 12]) * rng.uniform(-0.5, 0.5, size))
        if rng.random() < 0.3:
            shape[rng.random(size) < 0.3] = 0.0
        shape[0] = max(shape[0], 1e-3 * shape.max(initial=1.0))
        ratio, order = 10 ** rng.uniform(-1, 0.5), int(rng.integers(1, 3))
        coupling = (co.PerStep(lambda _: w), co.Local(lambda _: w * ratio), co.Local(lambda _: w * ratio, form="p4"))
        scale = np.sqrt(self.error) * self.steps.mean() ** order / size * 10 ** rng.uniform(-1, 0.5)
        response = np.exp(0.5 * rng.normal(size=(2, size))) * scale
        return co.Coefficients(
            self.levels, score=shape / shape.sum() * self.error * self.total / size / w**2, floor=np.zeros(size),
            response=response / w ** (order + 1), order=order, coupling=coupling[int(rng.integers(3))],
            terminal="rescale",
        )  # fmt: skip

    def _loose(self):
        return 10 ** self.rng.uniform(0, 0.5) if self.rng.random() < 0.7 else 1 + 1e-6

    def _near(self):
        return 1.0 + 10 ** self.rng.uniform(-6, 0)

    def _problem(self):
        rng, x = self.rng, self.examples
        example, step = np.exp(rng.normal(size=self.size)), np.exp(0.3 * rng.normal(size=self.size))
        prices = co.Prices(example, step * self.total / self.count * 10 ** rng.uniform(-2, 1), 1)
        cost = prices.example_price(self.levels) @ self.new + prices.evaluation_price(self.levels) @ self.steps
        rows = [co.Compute(prices) <= cost * self._loose()]
        rows += [co.Steps() <= self.count * self._loose()] if rng.random() < 0.5 else []
        rows += [co.Floor(x * rng.uniform(0.01, 0.9, self.size), "examples")] if rng.random() < 0.3 else []
        rows += [co.Cap(x * rng.uniform(1.2, 5, self.size), "examples")] if rng.random() < 0.2 else []
        center, unit = x * np.exp(0.5 * rng.normal(size=self.size)), 10 ** rng.uniform(-6, 6)
        objective = co.ScoreError(self.table) + co.Discretization(self.table)
        target = rng.random() < 0.12
        for _ in range(int(rng.integers(0, 3))):
            objective = objective + own(self._pick(self._terms(center, unit)))
        for index in range(int(rng.integers(0, 3))):
            rows.append(co.named(f"row {index}", self._pick(self._rows(center, unit))))
        if target:
            errors = co.ScoreError(self.table) + co.Discretization(self.table)
            rows = [*rows[1:], co.named("target", errors <= self.value(errors) * self._loose())]
            objective = co.Compute(prices) + 0 * co.Discretization(self.table)
        return co.Problem(objective, rows, spent=self.spent if self.spent.any() else None)

    def _pick(self, kinds):
        return kinds[int(self.rng.integers(len(kinds)))]

    def _terms(self, center, unit):
        x, w, n, total = self.examples, self.width, self.steps, self.examples.sum()
        weight = self.error * 10 ** self.rng.uniform(-3, 0.5)
        factors = np.exp(self.rng.normal(size=(3, self.size)))
        tables = [co.Coefficients(self.levels, score=self.table.score * f, floor=np.zeros(self.size),
                                  response=np.zeros((0, self.size)), order=self.table.order,
                                  coupling=self.table.coupling, terminal="rescale") for f in factors]  # fmt: skip

        def scores(d, count):
            return cp.hstack([co.ScoreError(table).expression(d) for table in tables[:count]])

        def turnover(d):
            above = cp.Variable(self.size)
            return weight / total * cp.sum(above), [above >= d.examples - center, above >= 0.5 * (center - d.examples)]

        def tail(d):
            level = cp.Variable()
            return level + cp.sum(cp.pos(scores(d, 3) - level)) / 1.5

        return [
            lambda d: weight / total * cp.norm1(d.examples - center),
            lambda d: weight / np.sum(x / w) * cp.tv(d.density),
            lambda d: cp.max(scores(d, 2)),
            lambda d: cp.max(scores(d, 3)),
            lambda d: weight * cp.sum(cp.power(unit * d.density, -1.5)) / np.sum((unit * x / w) ** -1.5),
            lambda d: weight * cp.sum(cp.power(unit * d.density, 1.3)) / np.sum((unit * x / w) ** 1.3),
            lambda d: weight * cp.sum(cp.inv_pos(d.steps)) / np.sum(1 / n),
            lambda d: weight * cp.sum(cp.exp(d.steps / n - 2)),
            lambda d: -weight / self.size * cp.sum(cp.log(d.density * unit)),
            lambda d: weight * cp.sum(cp.huber((d.examples - center) / total * self.size, 1)),
            lambda d: weight / total * cp.sum(cp.kl_div(d.examples, center)),
            lambda d: weight * cp.sum_squares((d.examples - center) / total),
            turnover,
            tail,
        ]

    def _rows(self, center, unit):
        x, w, n, near = self.examples, self.width, self.steps, self._near()
        part = np.array_split(np.arange(self.size), 3)[int(self.rng.integers(3))]
        far, top, away = np.linalg.norm(x - center), np.sort(x)[-3:].sum(), np.abs(x - center).sum()
        divergence = np.sum(x * np.log(x / center) - x + center)

        def turnover(d):
            above = cp.Variable(self.size)
            return [d.examples - center <= above, center - d.examples <= above, cp.sum(above) <= away * near]

        return [
            lambda d: cp.norm(d.examples - center) <= far * near,
            lambda d: cp.sum_squares(d.examples - center) <= far**2 * near,
            lambda d: cp.sum_squares(unit * (d.examples - center)) <= (unit * far) ** 2 * near,
            lambda d: cp.sum(cp.kl_div(d.examples, center)) <= divergence * near,
            lambda d: cp.max(d.density) <= np.max(x / w) * near,
            lambda d: cp.sum_largest(d.examples, 3) <= top * near,
            lambda d: cp.norm1(d.examples - center) <= away * near,
            lambda d: cp.sum(d.examples[part]) >= x[part].sum() / near,
            lambda d: cp.sum(d.new_examples[part]) >= self.new[part].sum() / near,
            lambda d: cp.sum(d.examples[part]) >= x[part].sum() / x.sum() / near * cp.sum(d.examples),
            lambda d: cp.sum(d.examples[part]) == x[part].sum(),
            lambda d: cp.sum(cp.exp(d.steps / n.max())) <= np.sum(np.exp(n / n.max())) * near,
            lambda d: cp.sum(cp.inv_pos(d.steps)) <= np.sum(1 / n) * 1.01,
            turnover,
        ]

    def value(self, objective):
        """The objective at the feasible point."""
        design = Design.declare(self.levels, reference=self.point)
        return float(sum(weight * term.value(design, self.point) for weight, term in objective.leaves()))
