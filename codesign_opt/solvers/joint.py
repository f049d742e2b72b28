"""Joint allocation of examples and steps by Newton's method on the dual, one dimension per band and budget.

docs/theory.md section 7, P2 and P3. For multipliers eta_j of the budgets and p_b of the band sums
the Lagrangian separates over levels; on each level the examples follow in closed form and the steps
from one scalar equation, solved for all levels at once. What remains, p_b = 2 S_b and cost = budget,
has bands + budgets unknowns, whatever the number of levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._validate import Array

__all__ = ["JointProgram", "JointSolution", "solve_joint"]

_INNER = 60
_OUTER = 60


@dataclass(frozen=True, eq=False)
class JointProgram:
    """min sum_l (A/T + F) M(kappa/n) + A_r/(window . T) + sum_b (sum_l R_bl n^-q)^2 under linear budgets.

    T = spent + new examples. Budgets: examples_prices[j] . new + steps_prices[j] . n <= budgets[j].

    Args:
        errors, floors, kappa: (L,) A, F and kappa of the score term.
        response: (B, L) nonnegative R.
        order: q.
        per_step: M(x) = x instead of max(1, x).
        examples_prices, steps_prices: (J, L) >= 0.
        budgets: (J,) > 0.
        spent: (L,) examples already spent.
        examples_low, examples_high, steps_low, steps_high: (L,) bounds of T and n.
        final_error, final_window: the last evaluation's A_r and (L,) window.
    """

    errors: Array
    floors: Array
    kappa: Array
    response: Array
    order: int
    examples_prices: Array
    steps_prices: Array
    budgets: Array
    per_step: bool = False
    spent: Array | None = None
    examples_low: Array | None = None
    examples_high: Array | None = None
    steps_low: Array | None = None
    steps_high: Array | None = None
    final_error: float = 0.0
    final_window: Array | None = None

    @property
    def size(self) -> int:
        return self.errors.size


@dataclass(frozen=True, eq=False)
class JointSolution:
    """A primal point, the dual bound that proves it, and the multipliers.

    Attributes:
        examples: (L,) new examples.
        steps: (L,) steps.
        value: objective at the point, which meets every budget.
        lower_bound: dual value at the multipliers; no design does better.
        relative_gap: (value - lower_bound) / value.
        budget_multipliers: (J,) eta_j = - d value / d budget_j.
        band_multipliers: (B,) p_b.
        iterations: Newton iterations.
    """

    examples: Array
    steps: Array
    value: float
    lower_bound: float
    relative_gap: float
    budget_multipliers: Array
    band_multipliers: Array
    iterations: int


@dataclass(eq=False)
class _State:
    """Everything at one set of multipliers."""

    t: Array
    total: Array
    step_price: Array
    example_price: Array
    sums: Array
    cost: Array
    residual: Array
    jacobian: Array = field(default_factory=lambda: np.empty((0, 0)))  # of the residual, by the log multipliers


class _Dual:
    """Level minimisers, residuals and Jacobian of the optimality conditions in log multipliers."""

    def __init__(self, program: JointProgram, active: list[int]) -> None:
        p = program
        self.program = p
        size = p.size
        self.c = p.examples_prices[active]
        self.k = p.steps_prices[active]
        self.budget = p.budgets[active]
        zero = np.zeros(size)
        self.spent = zero if p.spent is None else p.spent
        self.low = np.maximum(self.spent, zero if p.examples_low is None else p.examples_low)
        self.high = np.full(size, np.inf) if p.examples_high is None else p.examples_high
        self.boxed = bool(np.any(self.low > 0) or np.any(np.isfinite(self.high)))
        self.n_low = None if p.steps_low is None else np.log(np.maximum(p.steps_low, 1e-300))
        self.n_high = None if p.steps_high is None else np.log(np.maximum(p.steps_high, 1e-300))
        with np.errstate(divide="ignore"):
            self.log_kappa = np.log(p.kappa)
            self.log_error = np.log(p.errors)
        rows = np.any(p.response > 0, axis=1)
        self.response = p.response[rows]
        self.rows = rows
        self.trains = bool(np.any(p.errors > 0))
        has_window = p.final_error > 0 and p.final_window is not None
        self.window = p.final_window if has_window else None

    def split(self, theta: Array) -> tuple[Array, Array, float]:
        """Band multipliers p, budget multipliers eta, and the price nu of examples near the stopping point."""
        bands, budgets = self.response.shape[0], self.budget.size
        values = np.exp(theta)
        return values[:bands], values[bands : bands + budgets], float(values[-1]) if self.window is not None else 0.0

    def state(self, theta: Array) -> _State | None:
        """None where an example would have a negative price."""
        p, eta, nu = self.split(theta)
        step_price, example_price = eta @ self.k, eta @ self.c
        if self.window is not None:
            example_price = example_price - nu * self.window
            if np.any(example_price[self.program.errors > 0] <= 0):
                return None
        if not self.trains:
            example_price = np.ones_like(step_price)  # nothing is bought at any price
        bands = p.size
        drag = self.program.order * (p @ self.response) if bands else np.zeros(self.program.size)
        t, inside, long = self._roots(drag, step_price, example_price)
        total, free = self._total(t, example_price, long)
        n = np.exp(t)
        powers = n**-self.program.order
        scaled = self.response * powers
        sums = scaled.sum(axis=1)
        cost = self.c @ (total - self.spent) + self.k @ n
        residual = np.concatenate([np.log(2 * sums / p), np.log(cost / self.budget)])
        if self.window is not None:
            near = float(self.window @ total)
            residual = np.append(residual, np.log(near) - 0.5 * np.log(self.program.final_error / nu))
        state = _State(t, total, step_price, example_price, sums, cost, residual)
        state.jacobian = self._jacobian(state, theta, drag, scaled, inside, long, free)
        return state

    def _total(self, t: Array, price: Array, long: Array) -> tuple[Array, Array]:
        """T = clip(sqrt(A M / price), low, high), and where it is not clipped."""
        if not self.trains:
            return self.spent + 0.0, np.zeros(t.size, dtype=bool)
        log_factor = np.where(long, self.log_kappa - t, 0.0)
        best = np.exp(0.5 * (self.log_error + log_factor - np.log(price)))
        if not self.boxed:
            return best, self.program.errors > 0
        total = np.minimum(np.maximum(best, self.low), self.high)
        return total, (total == best) & (self.program.errors > 0)

    def _roots(self, drag: Array, step_price: Array, example_price: Array) -> tuple[Array, Array, Array]:
        """log n of every level, whether it moves with the multipliers, whether its steps are long (n < kappa)."""
        q = self.program.order
        with np.errstate(divide="ignore"):
            log_step, log_drag = np.log(step_price), np.log(drag)
        short_root = (log_drag - log_step) / (q + 1)
        long_root = self._long_roots(log_drag, log_step, drag, example_price)
        if self.program.per_step:
            t, long = long_root, np.ones(drag.size, dtype=bool)
            inside = np.ones(drag.size, dtype=bool)
        else:
            short, long = short_root >= self.log_kappa, long_root < self.log_kappa
            t = np.where(short, short_root, np.where(long, long_root, self.log_kappa))
            long = long & ~short
            inside = short | long
        t = np.maximum(t, -690.0)
        for bound, sense in ((self.n_low, np.maximum), (self.n_high, np.minimum)):
            if bound is not None:
                clipped = sense(t, bound)
                inside = inside & (clipped == t)
                t = clipped
        if self.n_low is not None or self.n_high is not None:
            long = np.ones_like(long) if self.program.per_step else t < self.log_kappa
        return t, inside, long

    def _long_roots(self, log_drag: Array, log_step: Array, drag: Array, price: Array) -> Array:
        """Root of step_price n = (A/T + F) kappa/n + q D n^-q by Newton on the difference of logarithms.

        The left side rises with slope 1 in log n, the right falls with a slope between 1/2 and
        max(q, 1), so that Newton on the logarithms converges from anywhere.
        """
        p, q = self.program, self.program.order
        log_price = np.log(price)
        with np.errstate(divide="ignore"):
            log_floor = np.log(p.floors) + self.log_kappa
            log_half = 0.5 * (self.log_error + self.log_kappa + log_price)  # sqrt(A price kappa) n^(-1/2)
        start = np.maximum(
            np.maximum((log_drag - log_step) / (q + 1), (log_half - log_step) / 1.5), (log_floor - log_step) / 2
        )
        t = np.where(np.isfinite(start), start, -690.0)
        if self.boxed:
            return self._long_roots_boxed(t, log_drag, log_step, log_price, log_floor)
        none = ~np.isfinite(start)
        for _ in range(_INNER):
            a, b, f = (
                np.exp(log_drag - (q + 1) * t - log_step),
                np.exp(log_half - 1.5 * t - log_step),
                np.exp(log_floor - 2 * t - log_step),
            )
            right = a + b + f
            right = np.where(none, 1.0, right)
            slope = (q + 1) * a + 1.5 * b + 2 * f
            move = np.where(none, 0.0, np.log(right) * right / np.where(none, 1.0, slope))
            t = t + move
            if np.abs(move).max() < 1e-13:
                break
        return t

    def _long_roots_boxed(
        self, t: Array, log_drag: Array, log_step: Array, log_price: Array, log_floor: Array
    ) -> Array:
        """The same with T clipped: bisection on the monotone difference, which no kink can upset."""
        p, q = self.program, self.program.order

        def excess(u: Array) -> Array:
            total = np.clip(np.exp(0.5 * (self.log_error + self.log_kappa - u - log_price)), self.low, self.high)
            with np.errstate(divide="ignore", over="ignore", under="ignore"):
                score = np.where(p.errors > 0, p.errors / np.maximum(total, 1e-300), 0.0)
                right = np.exp(log_drag - (q + 1) * u - log_step) + (score * p.kappa) * np.exp(-2 * u - log_step)
                right = right + np.exp(log_floor - 2 * u - log_step)
            return 1.0 - right

        low, high = t - 1.0, t + 1.0
        for _ in range(60):
            bad = excess(low) > 0
            if not bad.any():
                break
            low = np.where(bad, np.maximum(low - 8.0, -690.0), low)
            if np.all(low[bad] <= -690.0):
                break
        for _ in range(60):
            bad = excess(high) < 0
            if not bad.any():
                break
            high = np.where(bad, high + 8.0, high)
        for _ in range(64):
            middle = 0.5 * (low + high)
            positive = excess(middle) > 0
            low, high = np.where(positive, low, middle), np.where(positive, middle, high)
        return 0.5 * (low + high)

    def _jacobian(
        self,
        state: _State,
        theta: Array,
        drag: Array,
        scaled: Array,
        inside: Array,
        long: Array,
        free: Array,
    ) -> Array:
        """d residual / d (log p, log eta, log nu) by implicit differentiation of the level equations."""
        program, q = self.program, self.program.order
        p, eta, nu = self.split(theta)
        bands, n = p.size, np.exp(state.t)
        with np.errstate(divide="ignore", invalid="ignore"):
            per_example = np.where(program.errors > 0, program.errors / np.maximum(state.total, 1e-300), 0.0)
            share_band = np.where(drag > 0, q * p[:, None] * self.response / drag, 0.0)
        score = np.where(long, per_example * program.kappa / n, 0.0)
        floor = np.where(long, program.floors * program.kappa / n, 0.0)
        pull = drag * n**-q
        right = np.maximum(score + floor + pull, 1e-300)
        w_score, w_floor, w_pull = score / right, floor / right, pull / right
        slope = 1 + q * w_pull + w_floor + np.where(free, 0.5, 1.0) * w_score
        # relative change of the prices of a step and of an example by each logarithmic multiplier
        by_step = eta[:, None] * self.k / state.step_price
        by_example = eta[:, None] * self.c / state.example_price
        if self.window is not None:
            by_step = np.concatenate([by_step, np.zeros((1, n.size))])
            by_example = np.concatenate([by_example, -nu * self.window[None] / state.example_price])
        moved = by_step - np.where(free, 0.5 * w_score, 0.0) * by_example
        dt = np.concatenate([w_pull * share_band, -moved]) / slope * inside
        dtotal = np.where(free, -0.5 * np.where(long, dt, 0.0), 0.0)
        dtotal[bands:] -= np.where(free, 0.5 * by_example, 0.0)
        top = -q * (scaled / state.sums[:, None]) @ dt.T - np.eye(bands, dt.shape[0])
        middle = ((self.c * state.total) @ dtotal.T + (self.k * n) @ dt.T) / state.cost[:, None]
        if self.window is None:
            return np.concatenate([top, middle])
        last = (self.window * state.total) @ dtotal.T / float(self.window @ state.total)
        last[-1] += 0.5
        return np.concatenate([top, middle, last[None]])


def solve_joint(
    program: JointProgram,
    *,
    tolerance: float = 1e-11,
    start: tuple[Array, Array] | None = None,
) -> JointSolution | None:
    """The certified optimum, or None where Newton's method could not certify one.

    Args:
        program: the program; see JointProgram.
        tolerance: relative gap at which iteration stops.
        start: (band multipliers, budget multipliers) of a similar program.

    With several budgets each is tried alone first; one that the others' solution meets anyway is slack.
    """
    count = program.budgets.size
    subsets = [[j] for j in range(count)] + ([list(range(count))] if count > 1 else [])
    for active in subsets:
        if not _limits_everything(program, active):
            continue
        found = _newton(program, active, tolerance, start if len(active) == count else None)
        if found is not None and _meets(program, found):
            return found
    return None


def _limits_everything(program: JointProgram, active: list[int]) -> bool:
    priced = program.examples_prices[active].sum(axis=0) > 0
    examples = np.all(priced | (program.errors == 0))
    return bool(examples and np.all(program.steps_prices[active].sum(axis=0) > 0))


def _meets(program: JointProgram, found: JointSolution) -> bool:
    cost = program.examples_prices @ found.examples + program.steps_prices @ found.steps
    return bool(np.all(cost <= program.budgets * (1 + 1e-9)))


def _newton(
    program: JointProgram, active: list[int], tolerance: float, start: tuple[Array, Array] | None
) -> JointSolution | None:
    """Damped Newton on the logarithms of the multipliers; the best certified iterate."""
    dual = _Dual(program, active)
    theta = _first_guess(dual, start)
    state = dual.state(theta)
    best: JointSolution | None = None
    for iteration in range(_OUTER):
        if state is None:
            return best
        worst = float(np.abs(state.residual).max())
        if worst < 1e-5 or iteration == _OUTER - 1:
            candidate = _conclude(dual, active, theta, state, iteration)
            if best is None or candidate.relative_gap < best.relative_gap:
                best = candidate
            if best.relative_gap <= tolerance or worst < 1e-14:
                return best
        if not np.all(np.isfinite(state.jacobian)):
            return best
        move = np.linalg.lstsq(state.jacobian, -state.residual, rcond=1e-15)[0]
        move = move * min(1.0, 4.0 / max(float(np.abs(move).max()), 1e-300))
        for _ in range(12):
            trial = dual.state(theta + move)
            if trial is not None and np.abs(trial.residual).max() <= worst * (1 - 1e-4) + 1e-13:
                break
            move = 0.5 * move
        theta, state = theta + move, trial
    return best


def _first_guess(dual: _Dual, start: tuple[Array, Array] | None) -> Array:
    """Logarithmic multipliers at a plain design: steps by the discretisation rows, half the budget a side."""
    p, q = dual.program, dual.program.order
    row_norm = np.sqrt((dual.response**2).sum(axis=0))
    shape = (row_norm / dual.k.sum(axis=0)) ** (1 / (q + 1)) if row_norm.any() else p.kappa
    shape = np.maximum(shape, 1e-6 * shape.max())
    share = 0.5 if dual.trains and np.any(dual.c > 0) else 1.0
    n = shape * float(np.min(share * dual.budget / np.maximum(dual.k @ shape, 1e-300)))
    if start is not None:
        theta = np.log(np.concatenate([start[0][dual.rows], start[1]]))
    else:
        sums = (dual.response * n**-q).sum(axis=1)
        factor = p.kappa / n if p.per_step else np.maximum(1.0, p.kappa / n)
        etas = [_budget_guess(dual, j, n, sums, factor, share) for j in range(dual.budget.size)]
        theta = np.log(np.concatenate([2 * sums, np.array(etas)]))
    if dual.window is None:
        return theta
    bands = dual.response.shape[0]
    price = np.exp(theta[bands:]) @ dual.c
    with np.errstate(divide="ignore"):
        total = np.maximum(np.sqrt(p.errors / price), dual.low)
        ceiling = float(np.min(np.where(dual.window > 0, price / dual.window, np.inf)))
    near = max(float(dual.window @ total), 1e-300)
    return np.append(theta, np.log(min(p.final_error / near**2, 0.5 * ceiling)))


def _budget_guess(dual: _Dual, j: int, n: Array, sums: Array, factor: Array, share: float) -> float:
    p, steps_cost = dual.program, max(float(dual.k[j] @ n), 1e-300)
    spend = float(np.sqrt(p.errors * factor * dual.c[j]).sum())
    from_training = (spend / (share * dual.budget[j])) ** 2
    from_steps = 2 * p.order * float(sums @ sums) / steps_cost
    from_floor = float((p.floors * factor)[factor > 1].sum()) / steps_cost
    return max(from_training, from_steps, from_floor, 1e-300)


def _conclude(dual: _Dual, active: list[int], theta: Array, state: _State, iteration: int) -> JointSolution:
    """Primal point scaled into the budgets, its value, and the dual value at these multipliers."""
    program = dual.program
    p, eta, nu = dual.split(theta)
    n, total = np.exp(state.t), state.total
    excess = max(float(np.max(state.cost / dual.budget)), 1.0)
    new, steps = (total - dual.spent) / excess, n / excess
    value = _objective(dual, dual.spent + new, steps)
    factor = _factor(program, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(program.errors > 0, program.errors * factor / total, 0.0)
    levels = score + program.floors * factor + (p @ dual.response) * n**-program.order
    levels = levels + state.step_price * n + state.example_price * (total - dual.spent)
    lower = float(levels.sum() - eta @ dual.budget - p @ p / 4)
    if dual.window is not None:  # min over z of A_r/z + nu z, and nu (window . spent) which is there already
        lower += 2 * float(np.sqrt(program.final_error * nu)) - nu * float(dual.window @ dual.spent)
    multipliers, bands = np.zeros(program.budgets.size), np.zeros(program.response.shape[0])
    multipliers[active], bands[dual.rows] = eta, p
    return JointSolution(new, steps, value, lower, (value - lower) / value, multipliers, bands, iteration)


def _factor(program: JointProgram, n: Array) -> Array:
    return program.kappa / n if program.per_step else np.maximum(1.0, program.kappa / n)


def _objective(dual: _Dual, total: Array, n: Array) -> float:
    program = dual.program
    factor = _factor(program, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(program.errors > 0, program.errors * factor / total, 0.0)
    sums = (dual.response * n**-program.order).sum(axis=1)
    value = float(score.sum() + (program.floors * factor).sum() + sums @ sums)
    if dual.window is not None:
        value += program.final_error / float(dual.window @ total)
    return value
