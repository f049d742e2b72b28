"""One level of the joint program at given prices, in closed form: the best examples and steps, value, derivatives.

docs/theory.md section 7.4. For multipliers p_b of the band sums, eta_j of the budgets and nu of the examples near
the stopping point, the Lagrangian of one level is

    A M(x) / T + F M(x) + D n^-q + k n + c T,   x = kappa / n,   D = p . R,   k = eta . k_j,   c = eta . c_j - nu w,

minimised over T and n inside their bounds. The best T is explicit at every n, and what remains is one scalar
equation in n (roots.py), or the kink of M where its derivative changes sign there.

Everything is elementwise over arrays (..., L): a program is (L,), many programs of one shape are (R, L).
Divisions by zero are met on purpose and sorted out afterwards, so that callers silence numpy's warnings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ...basics.checks import Array, Indices, Mask
from .roots import SmoothEquation, scaled_root, smooth_root

__all__ = ["LevelForms", "LevelMinimum"]

_TINY = 1e-300
_EVERYWHERE = {"moving": True, "slope": 0.0}  # what None stands for


@dataclass(eq=False, slots=True)
class LevelMinimum:
    """The minimum over T and n on every level, and what its derivatives need; all (..., L).

    Attributes:
        n, total: steps and examples T.
        moving: where n changes with the prices; None: everywhere.
        free: where T changes with the prices.
        factor: M.
        excess: the part of M that steps can change.
        slope: - d log M / d log n, at a kink from the right; None: zero everywhere.
        score: A M / T.
        power: n^-q.
        drag, step_price: q D and k at which it was found.
    """

    n: Array
    total: Array
    moving: Mask | None
    free: Mask
    factor: Array
    excess: Array
    slope: Array | None
    score: Array
    power: Array
    drag: Array
    step_price: Array

    def __getitem__(self, rows: Indices | Mask | slice) -> LevelMinimum:
        """Some of the programs."""
        taken: list[Any] = [None if v is None else v[rows] for v in self._values()]
        return LevelMinimum(*taken)

    def __setitem__(self, rows: Indices | Mask | slice, other: LevelMinimum) -> None:
        for f, mine, theirs in zip(fields(self), self._values(), other._values(), strict=True):
            if mine is None and theirs is not None:
                mine = np.full(self.n.shape, _EVERYWHERE[f.name])
                setattr(self, f.name, mine)
            if mine is not None:
                mine[rows] = _EVERYWHERE[f.name] if theirs is None else theirs

    def _values(self) -> list[Any]:
        return [getattr(self, f.name) for f in fields(self)]


@dataclass(eq=False)
class LevelForms:
    """Everything about the levels that the prices do not change.

    Args:
        form: M(x) = max(1, x) for "max", x for "per_step", 1 for "settled", (1 + x^4)^(1/4) for "p4".
        order: q.
        errors, floors, kappa: (..., L) A, F, kappa.
        low: (..., L) least T.
        high: (..., L) greatest T; None: no caps.
        steps_low, steps_high: (..., L) bounds of n; None: no bounds.
        tied: (..., L) 0 where A is there only to make T unique and M does not multiply it, else 1; None: 1.
        floored: whether some low is positive.
        windowed: whether the last evaluation lowers prices of examples, to zero or below perhaps.
        free_steps: whether steps cost nothing on some level.
    """

    form: str
    order: int
    errors: Array
    floors: Array
    kappa: Array
    low: Array
    high: Array | None = None
    steps_low: Array | None = None
    steps_high: Array | None = None
    tied: Array | None = None
    floored: bool = True
    windowed: bool = False
    free_steps: bool = False
    trains: Mask = field(init=False)
    scored: Mask = field(init=False)
    kink: Array = field(init=False)
    idle: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.trains = self.errors > 0
        self._no_training = np.where(self.trains, 0.0, 1.0)  # added to T, so that 0/0 is 0
        if self.form == "settled":  # no score depends on the steps
            self.scored, self.kink = np.zeros(self.kappa.shape, dtype=bool), np.zeros(self.kappa.shape)
            return
        tied = self.trains if self.tied is None else self.trains & (self.tied > 0)
        self.scored = (tied | (self.floors > 0)) & (self.kappa > 0)
        # number of steps below which more of them lower the score: always for M = x and for the smooth form
        self.kink = np.where(self.scored, self.kappa if self.form == "max" else np.inf, 0.0)

    def rest(self, responds: Mask) -> None:
        """Say where the discretisation depends on the steps; where nothing does, the best number of them is 0."""
        idle = ~(self.scored | responds)
        self.idle = idle.astype(np.float64) if idle.any() else None

    # ------------------------------------------------------------------ the minimum

    def minimum(self, drag: Array, step_price: Array, price: Array) -> LevelMinimum:
        """The minimum on every level at q D, k and c (..., L); inf where nothing bounds it."""
        n, moving = self.steps(drag, step_price, price)
        safe = self.safe(n)
        factor, excess, slope = self.factor(safe)
        weight = self.errors * (factor if self.tied is None else np.where(self.tied > 0, factor, 1.0))
        total, free = self.examples(price, weight)
        score = weight / (total + self._no_training)
        return LevelMinimum(
            n, total, moving, free, factor, excess, slope, score, self.power(safe), drag, step_price
        )  # fmt: skip

    def safe(self, n: Array) -> Array:
        """n, and 1 in place of 0 on levels where steps serve nothing, so that no power of it is infinite."""
        return n if self.idle is None else n + self.idle

    def factor(self, n: Array) -> tuple[Array, Array, Array | None]:
        """M, the part of M that steps can change, and - d log M / d log n (None: zero everywhere)."""
        if self.form == "settled":
            return np.ones(n.shape), np.zeros(n.shape), None
        x = self.kappa / n
        if self.form == "per_step":
            return x, x, np.ones(n.shape)
        if self.form == "max":
            factor = np.maximum(x, 1.0)
            return factor, factor - 1.0, (x > 1.0).astype(np.float64) if x.max() > 1.0 else None
        # M = max(1, x) times the bulge (1 + min(x, 1/x)^4)^(1/4): x^4 itself overflows, and M - 1 for small x would
        # have no digit left without expm1
        fourth = np.minimum(x, 1e70) ** 4
        bulge = np.log1p(np.minimum(x, 1 / np.maximum(x, _TINY)) ** 4) / 4
        large = x > 1
        factor = np.where(large, x, 1.0) * np.exp(bulge)
        return factor, np.where(large, factor - 1.0, np.expm1(bulge)), fourth / (1 + fourth)

    def power(self, n: Array) -> Array:
        """n^-q; by products where q allows, which take a tenth of a general power's time."""
        inverse = 1.0 / n
        return inverse if self.order == 1 else inverse * inverse if self.order == 2 else inverse**self.order

    def root(self, ratio: Array) -> Array:
        """ratio^(1/(q+1)); by square and cube roots where q allows."""
        if self.order == 1:
            return np.sqrt(ratio)
        if self.order == 2:
            return np.cbrt(ratio)
        return np.sqrt(np.sqrt(ratio)) if self.order == 3 else ratio ** (1 / (self.order + 1))

    def examples(self, price: Array, weight: Array) -> tuple[Array, Mask]:
        """T = clip(sqrt(A M / c), low, high) with weight = A M, and where the price moves it."""
        best = np.sqrt(weight / price)
        if self.high is not None or self.windowed:
            # without a price all that is allowed is taken where it helps, and nothing more where it does not
            most = np.inf if self.high is None else self.high
            best = np.where(price > 0, best, np.where((price < 0) | self.trains, most, self.low))
        else:
            best = np.where(self.trains, best, self.low)
        if not self.floored and self.high is None:
            return best, self.trains
        total = np.maximum(best, self.low)
        if self.high is not None:
            total = np.minimum(total, self.high)
        return total, (total == best) & self.trains

    def steps(self, drag: Array, step_price: Array, price: Array) -> tuple[Array, Mask | None]:
        """n on every level, and where the prices move it (None: everywhere).

        First the root without a score, n^(q+1) = q D / k (`drag` holds q D): where it lies above the kink, M is
        constant there and it is the answer. Elsewhere the root with the score, or the kink if that root is beyond it:
        the derivative then changes its sign at the kink.
        """
        ratio = drag / step_price
        if self.free_steps:
            ratio = np.where(drag > 0, ratio, 0.0)
        n = self.root(ratio)
        moving: Mask | None = None
        on = np.nonzero(n < self.kink)
        if on[0].size:
            long, kink = self._slowed(on, n[on], drag, step_price, price), self.kink[on]
            n[on] = np.minimum(long, kink)
            moving = np.ones(n.shape, dtype=bool)
            moving[on] = long < kink
        if self.steps_low is not None or self.steps_high is not None:
            clipped = n if self.steps_low is None else np.maximum(n, self.steps_low)
            clipped = clipped if self.steps_high is None else np.minimum(clipped, self.steps_high)
            moving = (clipped == n) if moving is None else moving & (clipped == n)
            n = clipped
        return n, moving

    def _slowed(self, on: tuple[Indices, ...], short: Array, drag: Array, step_price: Array, price: Array) -> Array:
        """Root of k n = (A M / T + F M) (- d log M / d log n) + q D n^-q on the levels `on`, T at its best.

        For M = x. The roots of single parts (see scaled_root): of the score, k n = sqrt(A c kappa / n); of the floor,
        k n = F kappa / n; where a bound holds T, k n = A kappa / (T n).
        """
        a, kappa, cost = self.errors[on], self.kappa[on], np.maximum(step_price[on], _TINY)
        if self.tied is not None:
            a = a * self.tied[on]
        worth = np.maximum(price[on], 0.0)
        at_floor = self.floors[on] * kappa / cost
        half = np.cbrt(np.sqrt(a * kappa * worth) / cost) ** 2
        at_cap = None if self.high is None else np.sqrt(a * kappa / self.high[on] / cost)
        n = scaled_root(self.order, short, half, np.sqrt(at_floor), at_cap)
        if self.floored:
            # a cap enters as a maximum, a floor as a minimum of two parts, which is not convex: where the root found
            # has T below its floor, the root with T at the floor replaces it
            low = self.low[on]
            below = np.flatnonzero((a > 0) & (a * kappa < low * low * worth * n))
            if below.size:
                held = np.sqrt(at_floor[below] + a[below] * kappa[below] / low[below] / cost[below])
                n[below] = scaled_root(self.order, short[below], np.zeros(below.size), held, None)
        if self.free_steps:
            n = np.where(step_price[on] > 0, n, np.inf)
        if self.form != "p4":
            return n
        high = np.full(a.size, np.inf) if self.high is None else self.high[on]
        equation = SmoothEquation(
            self.order, a, self.floors[on], kappa, self.low[on], high, drag[on], cost, worth
        )  # fmt: skip
        return smooth_root(equation, short, n)

    # ------------------------------------------------------------------ derivatives

    def second_derivatives(self, at: LevelMinimum) -> tuple[Array, Array | None, Array]:
        """1 / (second derivative in log n, T eliminated), - d log T / d log n (None: 0), 1 / (that in log T).

        All (..., L); zeros where a bound or the kink holds n or T, which then do not answer to prices. With
        m = - d log M / d log n the Lagrangian of a level has the second derivatives 2 A M / T in log T (at the best
        T), A M m / T mixed, and k n + q^2 D n^-q + (A M / T + F M) m (4 - 3 m) in log n.
        """
        bend = at.step_price * at.n + self.order * (at.drag * at.power)
        half: Array | None = None
        if at.slope is not None:
            tied = at.score if self.tied is None else at.score * self.tied
            # M m (4 - 3 m) is M's second derivative in all forms: d m / d log n is - 4 m (1 - m) for the smooth one and
            # 0 for the others, whose m is 0 or 1
            bend = bend + (tied + self.floors * at.factor) * (at.slope * (4 - 3 * at.slope))
            half = 0.5 * at.slope * at.free
            if self.tied is not None:
                half = half * self.tied
            bend = bend - tied * at.slope * half
        known = bend > 0 if at.moving is None else at.moving & (bend > 0)
        return np.where(known, 1.0 / bend, 0.0), half, np.where(at.free, 0.5 / at.score, 0.0)

    def slack(self, at: LevelMinimum) -> Array:
        """(..., L) how far the minimum may lie below the value used where the root is not quite converged.

        In log n the Lagrangian of a level is convex with derivative left - right below, left rising and right falling:
        its minimum lies within |log(left / right)| of n, and the value there is no lower than by the derivative times
        that distance.
        """
        right = at.drag * at.power
        if at.slope is not None:
            tied = at.score if self.tied is None else at.score * self.tied
            right = right + (tied + self.floors * at.factor) * at.slope
        left = at.step_price * at.n
        off = np.abs(left - right) * np.abs(np.log(left / right))
        known = (left > 0) & (right > 0)
        return np.where(known if at.moving is None else known & at.moving, off, 0.0)
