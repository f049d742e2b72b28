"""The dual function of the joint program: level minimisers in closed form, gradient and curvature.

docs/theory.md section 7, P2 and P3. For multipliers p_b of the band sums, eta_j of the budgets and
nu of the examples near the stopping point, the Lagrangian is a sum over levels of

    A M(x) / T + F M(x) + (p . R) n^-q + (eta . k) n + (eta . c - nu w) T,   x = kappa / n,

minimised on each level over the examples T and the steps n. The minimum over T is explicit, the one
over n a scalar equation; what results is concave and once continuously differentiable in (p, eta, nu).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...basics.checks import Array
from .program import JointProgram

__all__ = ["LevelDual", "State", "scaled_root"]

_INNER = 60
Where = NDArray[np.bool_]
_TINY = 1e-300


@dataclass(eq=False, slots=True)
class State:
    """Everything at one set of multipliers.

    Attributes:
        theta: (D,) log p, log eta and, with a window, the logit of nu below its ceiling.
        p, eta, nu: the multipliers.
        n, total: (L,) minimisers.
        sums, cost, near: (B,) S_b, (J,) cost, window . T.
        value: dual value without the constant part of the objective.
        curvature: (D, D) minus the Hessian of the levels' part in (p, eta, nu).
    """

    theta: Array
    p: Array
    eta: Array
    nu: float
    share: float
    ceiling_slope: Array
    n: Array
    total: Array
    sums: Array
    cost: Array
    near: float
    value: float
    pieces: tuple[Any, ...]
    curvature: Array = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def multipliers(self) -> Array:
        """(D,) p, eta, nu in one vector."""
        tail = [self.nu] if self.theta.size > self.p.size + self.eta.size else []
        return np.concatenate([self.p, self.eta, tail])


class LevelDual:
    """The dual function of a program with some of its budgets; the others' multipliers are zero.

    Args:
        program: the program.
        active: budgets that may have a multiplier.
        errors: (L,) A where it differs from the program's.
    """

    def __init__(self, program: JointProgram, active: list[int], errors: Array | None = None) -> None:
        p = program
        self.program, self.active, self.q, self.form = p, active, int(p.order), p.form
        whole = len(active) == p.budgets.size
        self.c = p.examples_prices if whole else p.examples_prices[active]
        self.k = p.steps_prices if whole else p.steps_prices[active]
        self.budget = p.budgets if whole else p.budgets[active]
        self.a = p.errors if errors is None else errors
        self.rows = p.response.max(axis=1, initial=0.0) > 0
        self.r = p.response if self.rows.all() else p.response[self.rows]
        self._bounds()
        self._needs()
        self.window = p.final_window if p.final_error > 0 else None
        self.open = np.isinf(self.high) & (self.window > 0) if self.window is not None else None

    def _bounds(self) -> None:
        p = self.program
        zero = np.zeros(p.size)
        self.spent = zero if p.spent is None else p.spent
        self.low = self.spent if p.examples_low is None else np.maximum(self.spent, p.examples_low)
        self.high = np.full(p.size, np.inf) if p.examples_high is None else np.maximum(p.examples_high, self.spent)
        self.capped = p.examples_high is not None
        self.floored = p.spent is not None or p.examples_low is not None
        self.n_low = zero if p.steps_low is None else p.steps_low
        self.n_high = np.full(p.size, np.inf) if p.steps_high is None else p.steps_high
        self.boxed_steps = p.steps_low is not None or p.steps_high is not None

    def _needs(self) -> None:
        """Which levels train, which need steps for the score, and where a number of steps serves nothing."""
        p = self.program
        self.trains = self.a > 0
        # errors given only to make T unique do not depend on the steps
        bare = self.trains & (p.errors == 0)
        self.coupled = None if self.a is p.errors or not bare.any() else np.where(bare, 0.0, 1.0)
        scored = ((p.errors > 0) | (p.floors > 0)) & (p.kappa > 0)
        if self.form == "settled":
            scored = np.zeros(p.size, dtype=bool)
        self.scored = scored
        self.kink = np.where(scored, p.kappa if self.form == "max" else np.inf, 0.0)
        self.no_training = np.where(self.trains, 0.0, 1.0)  # added to T, so that 0/0 is 0
        idle = ~scored
        if idle.any():
            idle &= ~(self.r > 0).any(axis=0)
        self.idle = idle.astype(np.float64) if idle.any() else None
        self.free_steps = bool(np.any(~(self.k.max(axis=0) > 0)))

    @property
    def feasible(self) -> bool:
        """Whether the cheapest design meets every budget and no bound contradicts another."""
        p = self.program
        crossed = np.any(self.low > self.high) or np.any(self.n_low > self.n_high)
        cost = p.examples_prices @ (self.low - self.spent) + p.steps_prices @ self.n_low
        return not crossed and bool(np.all(cost <= p.budgets * (1 + 1e-12)))

    @property
    def bounded(self) -> bool:
        """Whether prices or caps limit all that helps."""
        helps_examples = self.trains if self.window is None else self.trains | (self.window > 0)
        examples = (self.c.max(axis=0) > 0) | np.isfinite(self.high) | ~helps_examples
        steps = (self.k.max(axis=0) > 0) | np.isfinite(self.n_high)
        return bool(examples.all() and steps.all())

    # ------------------------------------------------------------------ multipliers

    def split(self, theta: Array) -> tuple[Array, Array, float, float, Array]:
        """p, eta, nu, 1 - nu over its ceiling (1 where it has none), d log ceiling / d log eta."""
        bands, budgets = self.r.shape[0], self.budget.size
        values = np.exp(theta[: bands + budgets])
        p, eta = values[:bands], values[bands:]
        if self.window is None:
            return p, eta, 0.0, 1.0, np.zeros(budgets)
        place, ceiling = self.ceiling(eta)
        if place is None:
            return p, eta, float(np.exp(theta[-1])), 1.0, np.zeros(budgets)
        share = float(1 / (1 + np.exp(min(theta[-1], 700.0))))
        nu = ceiling / (1 + float(np.exp(min(-theta[-1], 700.0))))
        at = eta * self.c[:, place]
        return p, eta, nu, share, at / at.sum()

    def ceiling(self, eta: Array) -> tuple[int | None, float]:
        """The level at which nu first pays the whole price of an example, and nu there; beyond, no bound is left."""
        if self.open is None or self.window is None or not self.open.any():
            return None, np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self.open, (eta @ self.c) / self.window, np.inf)
        place = int(ratio.argmin())
        return place, float(ratio[place])

    def _example_price(self, eta: Array, nu: float, share: float) -> Array:
        price = eta[0] * self.c[0] if eta.size == 1 else eta @ self.c
        if self.window is None:
            return price
        place, ceiling = self.ceiling(eta)
        if place is None or self.open is None:
            return price - nu * self.window
        # price - nu w without cancellation at the ceiling, where a dominant last evaluation lies
        base = price - ceiling * self.window
        base = np.where(self.open, np.maximum(base, 0.0), base)
        return base + (ceiling * share) * self.window

    # ------------------------------------------------------------------ levels

    def state(self, theta: Array) -> State | None:
        """None where the Lagrangian has no minimum."""
        p, eta, nu, share, slope = self.split(theta)
        return self._state(theta, p, eta, nu, share, slope, self._example_price(eta, nu, share))

    def checked(self, state: State) -> State | None:
        """The state at the multipliers as they are reported, nu a last digit below its ceiling: what is proved."""
        if self.window is None:
            return self._state(state.theta, state.p, state.eta, 0.0, 1.0, state.ceiling_slope, state.eta @ self.c)
        nu = state.nu * (1 - 4e-15)
        price = state.eta @ self.c - nu * self.window
        return self._state(state.theta, state.p, state.eta, nu, 1.0, state.ceiling_slope, price)

    def _state(
        self, theta: Array, p: Array, eta: Array, nu: float, share: float, slope: Array, price: Array
    ) -> State | None:
        step_price = eta[0] * self.k[0] if eta.size == 1 else eta @ self.k
        if np.any((price <= 0) & self.trains & np.isinf(self.high)):
            return None
        drag = (self.q * p) @ self.r if p.size else np.zeros(self.program.size)
        n, moving = self._steps(drag, step_price, price)
        if not n.max() < np.inf:
            return None
        n_safe = n if self.idle is None else n + self.idle
        factor, excess, slope_m = self._factor(n_safe)
        weight = self.a * (factor if self.coupled is None else np.where(self.coupled > 0, factor, 1.0))
        total, free = self._examples(price, weight)
        if not total.max() < np.inf:
            return None
        power = self._power(n_safe)
        x = self.r * power
        sums = x.sum(axis=1)
        cost = self.c @ (total - self.spent) + self.k @ n
        score = weight / (total + self.no_training)
        error = float(score.sum() + self.program.floors @ excess)
        value = error + float(p @ sums - 0.25 * (p @ p) + eta @ (cost - self.budget))
        near = 0.0
        if self.window is not None:
            near = float(self.window @ total)
            value += 2 * float(np.sqrt(self.program.final_error * nu)) - nu * near
        pieces = (drag, step_price, moving, free, factor, slope_m, score, x, power)
        return State(theta, p, eta, nu, share, slope, n, total, sums, cost, near, value, pieces)

    def _power(self, n: Array) -> Array:
        inverse = 1.0 / n
        return inverse if self.q == 1 else inverse * inverse if self.q == 2 else inverse**self.q

    def _factor(self, n: Array) -> tuple[Array, Array, Array | None]:
        """M, the part of M that steps can change, and -d log M / d log n (None: zero everywhere)."""
        kappa = self.program.kappa
        if self.form == "settled":
            return np.ones(n.size), np.zeros(n.size), None
        x = kappa / n
        if self.form == "per_step":
            return x, x, np.ones(n.size)
        if self.form == "max":
            factor = np.maximum(x, 1.0)
            return factor, factor - 1.0, (x > 1.0).astype(np.float64) if x.max() > 1.0 else None
        fourth = np.minimum(x, 1e70) ** 4
        bulge = np.log1p(np.minimum(x, 1 / np.maximum(x, _TINY)) ** 4) / 4
        large = x > 1
        factor = np.where(large, x, 1.0) * np.exp(bulge)
        return factor, np.where(large, factor - 1.0, np.expm1(bulge)), fourth / (1 + fourth)

    def _examples(self, price: Array, weight: Array) -> tuple[Array, Where]:
        """T = clip(sqrt(A M / price), low, high), and where it is not clipped."""
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.sqrt(weight / price)
        if self.capped or self.window is not None:
            best = np.where(price > 0, best, np.where((price < 0) | self.trains, self.high, self.low))
        else:
            best = np.where(self.trains, best, self.low)
        if not (self.floored or self.capped):
            return best, self.trains
        total = np.minimum(np.maximum(best, self.low), self.high)
        return total, (total == best) & self.trains

    def _steps(self, drag: Array, step_price: Array, price: Array) -> tuple[Array, Where | None]:
        """n on every level, and where it moves with the multipliers (None: everywhere)."""
        if self.free_steps:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(drag > 0, drag / step_price, 0.0)
        else:
            ratio = drag / step_price
        n = self._root(ratio)
        moving: Where | None = None
        wanting = np.flatnonzero(n < self.kink)
        if wanting.size:
            long, kink = self._long(wanting, n[wanting], drag, step_price, price), self.kink[wanting]
            n = n.copy()
            n[wanting] = np.minimum(long, kink)
            moving = np.ones(n.size, dtype=bool)
            moving[wanting] = long < kink
        if self.boxed_steps:
            clipped = np.minimum(np.maximum(n, self.n_low), self.n_high)
            moving = (clipped == n) if moving is None else moving & (clipped == n)
            n = clipped
        return n, moving

    def _root(self, ratio: Array) -> Array:
        if self.q == 1:
            return np.sqrt(ratio)
        if self.q == 2:
            return np.cbrt(ratio)
        return np.sqrt(np.sqrt(ratio)) if self.q == 3 else ratio ** (1 / (self.q + 1))

    def _long(self, on: NDArray[np.intp], short: Array, drag: Array, step_price: Array, price: Array) -> Array:
        """Root of step_price n = (A/T + F) (-dM/dlog n) + q D n^-q on the levels `on`, T at its best."""
        p = self.program
        a, kappa, cost = self._score_weight()[on], p.kappa[on], np.maximum(step_price[on], _TINY)
        worth = np.maximum(price[on], 0.0)
        at_floor = p.floors[on] * kappa / cost
        half = np.cbrt(np.sqrt(a * kappa * worth) / cost) ** 2
        at_cap = np.sqrt(a * kappa / self.high[on] / cost) if self.capped else None
        n = scaled_root(self.q, short, half, np.sqrt(at_floor), at_cap)
        if self.floored:
            low = self.low[on]
            with np.errstate(divide="ignore", over="ignore"):
                below = np.flatnonzero((a > 0) & (a * kappa < low * low * worth * n))
            if below.size:
                held = np.sqrt(at_floor[below] + a[below] * kappa[below] / low[below] / cost[below])
                n[below] = scaled_root(self.q, short[below], np.zeros(below.size), held, None)
        if self.free_steps:
            n = np.where(step_price[on] > 0, n, np.inf)
        return n if self.form != "p4" else self._long_p4(on, short, n, drag[on], cost, worth)

    def _score_weight(self) -> Array:
        return self.a if self.coupled is None else self.a * self.coupled

    def _long_p4(
        self, on: NDArray[np.intp], short: Array, upper: Array, drag: Array, cost: Array, worth: Array
    ) -> Array:
        """The same for the smooth form, between the short root and the root of M(x) = x: guarded Newton."""
        p, a, kappa = self.program, self._score_weight()[on], self.program.kappa[on]
        low, high, floors = self.low[on], self.high[on], p.floors[on]

        def above(t: Array) -> tuple[Array, Array]:
            """log of the right-hand side over step_price n, and an approximate slope in t = log n."""
            n = np.exp(t)
            x4 = np.minimum(kappa / n, 1e70) ** 4
            m = x4 / (1 + x4)
            factor = (1 + x4) ** 0.25
            with np.errstate(divide="ignore", invalid="ignore"):
                total = np.where(a > 0, np.clip(np.sqrt(a * factor / worth), low, high), 1.0)
                score = (np.where(a > 0, a / total, 0.0) + floors) * factor * m
            pull = drag * np.minimum(n, 1e70) ** float(-self.q)
            right = np.maximum(score + pull, _TINY)
            return np.log(right) - np.log(cost) - t, -1 - (self.q * pull + (4 - 3.5 * m) * score) / right

        with np.errstate(divide="ignore"):
            b = np.log(np.clip(np.maximum(upper, short), 1e-150, 1e150)) + 1e-9
            t_low = np.maximum(np.log(np.minimum(upper, kappa) * 0.1), -345.0)
        t_low = np.minimum(np.maximum(t_low, np.log(np.maximum(short, 1e-150)) - 1e-9), b)
        for _ in range(_INNER):
            wrong = above(t_low)[0] < 0
            if not wrong.any():
                break
            t_low = np.where(wrong, np.maximum(t_low - 2.0, -345.0), t_low)
        t = 0.5 * (t_low + b)
        for _ in range(200):
            height, slope = above(t)
            t_low, b = np.where(height >= 0, t, t_low), np.where(height <= 0, t, b)
            trial = t - height / slope
            trial = np.where((trial > t_low) & (trial < b), trial, 0.5 * (t_low + b))
            done = float(np.abs(trial - t).max()) < 1e-13
            t = trial
            if done:
                break
        n = np.exp(t)
        return np.where(np.isinf(upper), np.inf, n)

    # ------------------------------------------------------------------ derivatives

    def add_curvature(self, state: State) -> None:
        """Minus the Hessian of the levels' minima in (p, eta, nu), by eliminating (log T, log n)."""
        drag, step_price, moving, free, factor, slope_m, score, x, power = state.pieces
        q, bands, budgets, n, total = self.q, state.p.size, self.budget.size, state.n, state.total
        size = state.theta.size
        z = np.empty((size, n.size))
        np.multiply(x, -q, out=z[:bands])
        np.multiply(self.k, n, out=z[bands : bands + budgets])
        if self.window is not None:
            z[-1] = 0.0
        y = np.empty((size - bands, n.size))
        np.multiply(self.c, total, out=y[:budgets])
        if self.window is not None:
            np.multiply(self.window, -total, out=y[-1])
        pull = drag * power
        bend = step_price * n + q * pull
        if slope_m is not None:
            tied = score if self.coupled is None else score * self.coupled
            bend = bend + (tied + self.program.floors * factor) * (slope_m * (4 - 3 * slope_m))
            half = 0.5 * slope_m * free if self.coupled is None else 0.5 * slope_m * free * self.coupled
            bend = bend - tied * slope_m * half
            z[bands:] -= half * y
        with np.errstate(divide="ignore"):
            weight = 1.0 / bend
            in_examples = 0.5 / score if self.trains.all() else np.where(self.trains, 0.5 / score, 0.0)
        weight = np.where(bend > 0, weight, 0.0) if moving is None else np.where(moving & (bend > 0), weight, 0.0)
        if self.floored or self.capped:
            in_examples = np.where(free, in_examples, 0.0)
        curvature = (z * weight) @ z.T
        curvature[bands:, bands:] += (y * in_examples) @ y.T
        state.curvature = curvature

    def root_error(self, state: State) -> float:
        """How far the level minima may lie below the values used: slope times distance on unconverged levels."""
        drag, step_price, moving, _, factor, slope_m, score, _, power = state.pieces
        right = drag * power
        if slope_m is not None:
            tied = score if self.coupled is None else score * self.coupled
            right = right + (tied + self.program.floors * factor) * slope_m
        left = step_price * state.n
        with np.errstate(divide="ignore", invalid="ignore"):
            off = np.abs(left - right) * np.abs(np.log(left / right))
        known = (left > 0) & (right > 0)
        if moving is not None:
            known &= moving
        return float(np.where(known, off, 0.0).sum())

    # ------------------------------------------------------------------ primal

    def objective(self, total: Array, n: Array) -> tuple[float, float]:
        """The objective without its constant part, and the constant part."""
        p = self.program
        n_safe = n if self.idle is None else n + self.idle
        factor, excess, _ = self._factor(n_safe)
        score = p.errors * factor / (total + np.where(p.errors > 0, 0.0, 1.0))
        sums = self.r @ self._power(n_safe)
        value = float(score.sum() + p.floors @ excess + sums @ sums)
        if self.window is not None:
            near = float(self.window @ total)
            value += p.final_error / near if near > 0 else np.inf
        return value, 0.0 if self.form == "per_step" else float(p.floors.sum())


def scaled_root(order: int, short: Array, half: Array, floor: Array, cap: Array | None) -> Array:
    """n with (short/n)^(q+1) + max((half/n)^1.5, (cap/n)^2) + (floor/n)^2 = 1.

    Relative to the largest of the single roots every coefficient is at most 1; in s = sqrt(scale/n) the
    equation is a convex increasing polynomial, on which Newton's method from s = 1 descends to the root.
    """
    scale = np.maximum(np.maximum(short, half), floor)
    if cap is not None:
        scale = np.maximum(scale, cap)
    scale = np.maximum(scale, _TINY)
    ratio = short / scale
    a: Array | None = ratio ** (order + 1) if order > 1 else None
    b, f = half / scale, floor / scale
    b, f = b * np.sqrt(b), f * f if a is not None else f * f + ratio * ratio
    c = None if cap is None else (cap / scale) ** 2
    s = np.ones(scale.size)
    for _ in range(_INNER):
        square = s * s
        cube = square * s
        fourth = square * square
        score, rise = b * cube, 3.0 * b * square
        if c is not None:
            at_cap = c * fourth
            rise = np.where(at_cap > score, 4.0 * c * cube, rise)
            score = np.maximum(score, at_cap)
        height = score + f * fourth - 1.0
        rise = rise + 4.0 * f * cube
        if a is not None:
            top = a * (fourth * square if order == 2 else fourth * fourth if order == 3 else square ** (order + 1))
            height = height + top
            rise = rise + (2 * order + 2) * top / s
        move = height / rise
        s = s - move
        if not move.max() > 1e-9:
            break
    return scale / (s * s)
