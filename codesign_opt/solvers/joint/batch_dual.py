"""The dual functions of many joint programs at once: dual.py over arrays, one row a program.

docs/theory.md section 7, P2 and P3. The level minimisers, their sums and the direction of Newton's method are
those of LevelDual, for programs without bounds of single levels and with multipliers of some of the budgets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ...basics.checks import Array, Indices, Mask
from .climb import REACH
from .dual import scaled_root

__all__ = ["BatchDual", "BatchState", "JointBatch", "dot", "weigh"]


@dataclass(frozen=True, eq=False)
class JointBatch:
    """R programs as in JointProgram, without bounds of single levels, over L levels of which a member may lack some.

    Args:
        used: (R, L) whether the member has this level; where not, every coefficient is 0 and every price 1.
        errors, floors, kappa: (R, L).
        response: (R, B, L).
        order: q.
        examples_prices, steps_prices: (R, J, L).
        budgets: (R, J).
        spent: (R, L).
        final_error, final_window: (R,) and (R, L).
        form: "max" or "per_step".
    """

    used: Mask
    errors: Array
    floors: Array
    kappa: Array
    response: Array
    order: int
    examples_prices: Array
    steps_prices: Array
    budgets: Array
    spent: Array
    final_error: Array
    final_window: Array
    form: str

    def take(self, rows: Indices) -> JointBatch:
        """Some of the members."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays: dict[str, Any] = {name: v[rows] for name, v in values.items() if isinstance(v, np.ndarray)}
        return replace(self, **arrays)

    def usual(self, active: list[int]) -> Mask:
        """(R,) members that the batch can take with these budgets priced; the rest needs solve_joint's care."""
        trains = self.errors > 0
        windowed = self.final_error > 0
        window = np.where(windowed[:, None], self.final_window, 0.0)
        faint = self.errors < 1e-20 * (self.final_error / np.maximum(window.sum(axis=1), 1e-300))[:, None] * window
        all_train, none_train = (trains | ~self.used).all(axis=1), ~trains.any(axis=1) & ~windowed
        priced = (self.examples_prices[:, active].max(axis=1) > 0).all(axis=1)
        helped = (self.response > 0).any(axis=1) | ~self.used
        usual = helped.all(axis=1) & ((all_train & ~faint.any(axis=1) & priced) | none_train)
        usual &= (self.response.max(axis=2) > 0).all(axis=1) & (self.budgets > 0).all(axis=1)
        usual &= (self.steps_prices[:, active].max(axis=1) > 0).all(axis=1) & (windowed | ~windowed.any())
        return usual & (self.form in ("max", "per_step"))


@dataclass(eq=False)
class BatchState:
    """Everything at one set of multipliers, one row a member, as in dual.State."""

    theta: Array
    p: Array
    eta: Array
    nu: Array
    share: Array
    ceiling_slope: Array
    n: Array
    total: Array
    sums: Array
    cost: Array
    near: Array
    value: Array
    residual: Array
    worst: Array
    drag: Array
    moving: Mask
    free: Mask
    factor: Array
    slope_m: Array
    score: Array
    power: Array


class BatchDual:
    """The dual functions of a batch, with multipliers of some of its budgets."""

    def __init__(self, batch: JointBatch, active: list[int]) -> None:
        self.batch, self.active, self.q = batch, active, batch.order
        self.bands = batch.response.shape[1]
        self.c, self.k = batch.examples_prices[:, active], batch.steps_prices[:, active]
        self.budget = batch.budgets[:, active]
        self.trains = batch.errors > 0
        self.idle = np.where(batch.used, 0.0, 1.0)  # added to n and T on levels a member lacks, so that 0/0 is 0
        self.no_training = np.where(self.trains, 0.0, 1.0)
        scored = ((batch.errors > 0) | (batch.floors > 0)) & (batch.kappa > 0)
        self.kink = np.where(scored, batch.kappa if batch.form == "max" else np.inf, 0.0)
        self.window = batch.final_window if bool((batch.final_error > 0).all()) else None

    # ------------------------------------------------------------------ levels

    def state(self, theta: Array) -> BatchState:
        """The state at log p, log eta and, with a window, the logit of nu below its ceiling."""
        etas = slice(self.bands, self.bands + self.budget.shape[1])
        p, eta = np.exp(theta[:, : self.bands]), np.exp(theta[:, etas])
        price = _mix(eta, self.c)
        if self.window is None:
            zero = np.zeros(len(eta))
            return self.at(theta, p, eta, zero, zero + 1, 0 * eta, price)
        ceiling, slope = self.ceiling(eta, price)
        place = np.clip(theta[:, -1], -700.0, 700.0)
        share = 1 / (1 + np.exp(place))
        nu = ceiling / (1 + np.exp(-place))
        # price - nu w without cancellation at the ceiling, where a dominant last evaluation lies
        base = price - ceiling[:, None] * self.window
        base = np.where(self.window > 0, np.maximum(base, 0.0), base)
        return self.at(theta, p, eta, nu, share, slope, base + (ceiling * share)[:, None] * self.window)

    def ceiling(self, eta: Array, price: Array) -> tuple[Array, Array]:
        """nu at which an example pays its whole price on some level, and d log of it / d log eta."""
        assert self.window is not None
        ratio = np.where(self.window > 0, price / self.window, np.inf)
        place = ratio.argmin(axis=1)
        rows = np.arange(len(eta))
        at = eta * self.c[rows, :, place]
        return ratio[rows, place], at / at.sum(axis=1, keepdims=True)

    def at(self, theta: Array, p: Array, eta: Array, nu: Array, share: Array, slope: Array, price: Array) -> BatchState:
        """The level minimisers and what follows from them."""
        b = self.batch
        drag = _mix(self.q * p, b.response)
        n, moving = self._steps(drag, _mix(eta, self.k), price)
        safe = n + self.idle
        factor, excess, slope_m = self.factor(safe)
        weight = b.errors * factor
        best = np.where(self.trains, np.sqrt(weight / price), b.spent)
        total = np.maximum(best, b.spent)
        power = self.power(safe)
        sums = weigh(b.response, power)
        cost = self.paid(total, n)
        score = weight / (total + self.no_training)
        value = score.sum(axis=1) + dot(b.floors, excess) + dot(p, sums - 0.25 * p)
        value += dot(eta, cost - self.budget)
        near = np.zeros(len(eta))
        parts = [2 * sums / p, cost / self.budget]
        if self.window is not None:
            near = dot(self.window, total)
            value += 2 * np.sqrt(b.final_error * nu) - nu * near
            parts.append((np.sqrt(b.final_error / nu) / near)[:, None])
        residual = np.log(np.concatenate(parts, axis=1))
        worst = np.abs(residual).max(axis=1)
        bad = ~np.isfinite(worst) | ~np.isfinite(value) | ((price <= 0) & self.trains).any(axis=1)
        worst[bad], value[bad] = np.inf, -np.inf
        free = self.trains & (total == best)
        return BatchState(
            theta, p, eta, nu, share, slope, n, total, sums, cost, near, value, residual, worst,
            drag, moving, free, factor, slope_m, score, power,
        )  # fmt: skip

    def paid(self, total: Array, n: Array) -> Array:
        """(R, J) what examples and steps cost in the priced budgets."""
        return weigh(self.c, total - self.batch.spent) + weigh(self.k, n)

    def _steps(self, drag: Array, step_price: Array, price: Array) -> tuple[Array, Mask]:
        """n on every level, and where it moves with the multipliers: the same closed forms as LevelDual's."""
        b, q = self.batch, self.q
        n = self._root(drag / step_price)
        want = np.nonzero(n < self.kink)
        moving = b.used.copy()
        if want[0].size:
            a, kappa, cost, worth = b.errors[want], b.kappa[want], step_price[want], np.maximum(price[want], 0.0)
            short, at_floor, low = n[want], b.floors[want] * kappa / cost, b.spent[want]
            half = np.cbrt(np.sqrt(a * kappa * worth) / cost) ** 2
            long = scaled_root(q, short, half, np.sqrt(at_floor), None)
            below = np.flatnonzero((a > 0) & (a * kappa < low * low * worth * long))
            if below.size:
                held = np.sqrt(at_floor[below] + a[below] * kappa[below] / low[below] / cost[below])
                long[below] = scaled_root(q, short[below], np.zeros(below.size), held, None)
            n[want] = np.minimum(long, self.kink[want])
            moving[want] = long < self.kink[want]
        return n, moving

    def _root(self, ratio: Array) -> Array:
        return np.sqrt(ratio) if self.q == 1 else np.cbrt(ratio) if self.q == 2 else ratio ** (1 / (self.q + 1))

    def power(self, n: Array) -> Array:
        inverse = 1.0 / n
        return inverse if self.q == 1 else inverse * inverse if self.q == 2 else inverse**self.q

    def factor(self, n: Array) -> tuple[Array, Array, Array]:
        """M, the part of M that steps can change, and -d log M / d log n."""
        x = self.batch.kappa / n
        if self.batch.form == "per_step":
            return x, x, np.ones_like(x)
        factor = np.maximum(x, 1.0)
        return factor, factor - 1.0, (x > 1.0).astype(np.float64)

    # ------------------------------------------------------------------ Newton's direction

    def move(self, state: BatchState) -> Array:
        """Change of (log p, log eta, log nu) by the linearised optimality conditions; 0 where there is none."""
        s, bands, size = state, self.bands, state.theta.shape[1]
        last = bands + self.budget.shape[1]
        z = np.zeros((len(s.eta), size, s.n.shape[1]))
        np.multiply(self.batch.response, (-self.q * s.power)[:, None], out=z[:, :bands])
        np.multiply(self.k, s.n[:, None], out=z[:, bands:last])
        y = np.zeros((len(s.eta), size - bands, s.n.shape[1]))
        np.multiply(self.c, s.total[:, None], out=y[:, : last - bands])
        if self.window is not None:
            y[:, -1] = -self.window * s.total
        half = 0.5 * s.slope_m * s.free
        bend = _mix(s.eta, self.k) * s.n + self.q * s.drag * s.power - s.score * s.slope_m * half
        bend += (s.score + self.batch.floors * s.factor) * (s.slope_m * (4 - 3 * s.slope_m))
        if half.any():
            z[:, bands:] -= half[:, None] * y
        weight = np.where(s.moving & (bend > 0), 1.0 / bend, 0.0)
        matrix = np.matmul(z * weight[:, None], z.transpose(0, 2, 1))
        in_examples = np.where(s.free, 0.5 / s.score, 0.0)
        matrix[:, bands:, bands:] += np.matmul(y * in_examples[:, None], y.transpose(0, 2, 1))
        tail = [] if self.window is None else [(s.nu, s.near)]
        multipliers = np.concatenate([s.p, s.eta, *[nu[:, None] for nu, _ in tail]], axis=1)
        base = np.concatenate([s.sums, s.cost, *[near[:, None] for _, near in tail]], axis=1)
        matrix *= multipliers[:, None] / base[:, :, None]
        matrix += np.diag([1.0] * bands + [0.0] * (last - bands) + [0.5] * len(tail))
        return _direction(matrix, s.residual)

    def moved(self, state: BatchState, move: Array) -> Array:
        """theta after a change of the logarithms; its last entry is the logit of nu below its ceiling."""
        theta = state.theta + move
        if self.window is not None:
            rise = move[:, -1] - dot(state.ceiling_slope, move[:, self.bands : -1])
            rise /= np.maximum(state.share, 1e-300)
            theta[:, -1] = state.theta[:, -1] + np.clip(rise, -REACH, REACH)
        return theta

    def first_guess(self) -> Array:
        """Logarithmic multipliers at a plain design: steps by the discretisation rows, half the budget a side."""
        b = self.batch
        both = self.trains.any(axis=1) & (self.c > 0).any(axis=(1, 2))
        share = np.where(both, 0.5, 1.0)[:, None] * self.budget
        shape = self._root(np.sqrt((b.response**2).sum(axis=1)) / self.k.sum(axis=1))
        shape = np.where(b.used, np.maximum(shape, 1e-6 * shape.max(axis=1, keepdims=True)), 0.0)
        n = shape * (share / np.maximum(weigh(self.k, shape), 1e-300)).min(axis=1, keepdims=True)
        safe = n + self.idle
        factor, excess, _ = self.factor(safe)
        sums = weigh(b.response, self.power(safe))
        total = np.sqrt(b.errors * factor / np.maximum(self.c.sum(axis=1), 1e-300))
        paid = weigh(self.c, total)
        total *= np.where(paid > 0, share / np.maximum(paid, 1e-300), 1e100).min(axis=1, keepdims=True)
        total = np.maximum(np.maximum(total, b.spent), 1e-300)
        score = np.where(self.trains, b.errors * factor / total, 0.0)
        slowed = score if b.form == "per_step" else np.where(factor > 1, score, 0.0)
        by_steps = (2 * self.q * dot(sums, sums) + dot(b.floors, excess))[:, None] + weigh(self.k > 0, slowed)
        by_steps /= np.maximum(weigh(self.k, n), 1e-300)
        eta = np.clip(np.maximum(weigh(self.c > 0, score) / share, by_steps), 1e-100, 1e280)
        theta = np.log(np.concatenate([2 * sums, eta], axis=1))
        if self.window is not None:
            price = _mix(eta, self.c)
            total = np.maximum(np.sqrt(b.errors / np.maximum(price, 1e-300)), b.spent)
            ratio = b.final_error / np.maximum(dot(self.window, total), 1e-140) ** 2 / self.ceiling(eta, price)[0]
            place = np.where(ratio < 0.5, np.log(np.maximum(ratio, 1e-300)), np.minimum(np.log(2 * ratio), 60.0))
            theta = np.concatenate([theta, place[:, None]], axis=1)
        return np.clip(theta, -690.0, 690.0)

    def bound(self, state: BatchState) -> tuple[Array, Array]:
        """The dual value at the multipliers as reported, less what unconverged roots may take off; and that nu."""
        s = state
        if self.window is not None:  # nu a last digit below its ceiling
            nu = s.nu * (1 - 4e-15)
            price = _mix(s.eta, self.c) - nu[:, None] * self.window
            s = self.at(s.theta, s.p, s.eta, nu, np.ones_like(nu), s.ceiling_slope, price)
        right = s.drag * s.power + (s.score + self.batch.floors * s.factor) * s.slope_m
        left = _mix(s.eta, self.k) * s.n
        off = np.abs(left - right) * np.abs(np.log(left / right))
        known = s.moving & (left > 0) & (right > 0)
        return s.value - np.where(known, off, 0.0).sum(axis=1), s.nu


def _direction(matrix: Array, residual: Array) -> Array:
    good = np.all(np.isfinite(residual), axis=1) & np.all(np.isfinite(matrix), axis=(1, 2))
    matrix[~good] = np.eye(matrix.shape[1])
    right = np.where(good[:, None], residual, 0.0)[:, :, None]
    try:
        found = np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)[:, :, 0]
    except np.linalg.LinAlgError:
        return np.zeros(residual.shape)
    move = np.where(np.isfinite(found), found, 0.0)
    return move * np.minimum(1.0, REACH / np.maximum(np.abs(move).max(axis=1, keepdims=True), 1e-300))


def dot(left: Array, right: Array) -> Array:
    return np.asarray(np.matmul(left[:, None], right[:, :, None])[:, 0, 0])


def _mix(weights: Array, rows: Array) -> Array:
    """(R, L) sums over the middle axis of `rows` (R, J, L) with `weights` (R, J)."""
    return np.asarray(np.matmul(weights[:, None], rows)[:, 0])


def weigh(rows: Array | Mask, values: Array) -> Array:
    """(R, J) sums over the levels of `rows` (R, J, L) times `values` (R, L)."""
    return np.asarray(np.matmul(rows, values[:, :, None])[:, :, 0])
