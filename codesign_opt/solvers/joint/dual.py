"""The dual function of the joint program: value, gradient and curvature from the level minimisers.

docs/theory.md section 7.4. For multipliers p_b of the band sums, eta_j of the budgets and nu of the examples near
the stopping point, the Lagrangian is a sum over levels (closed_forms.py) and of

    - p_b^2 / 4 (the square's tangent),   - eta_j budget_j,   2 sqrt(A_r nu) (the tangent of A_r / near),

concave and once continuously differentiable in (p, eta, nu). `Dual` holds for one program, arrays (L,), and for R
programs of one shape, arrays (R, L); LevelDual is the one program, with bounds of single levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...basics.checks import Array, Mask
from .closed_forms import LevelForms, LevelMinimum
from .program import JointProgram
from .sums import dot, mix, pick, weigh

__all__ = ["REACH", "Dual", "LevelDual", "Multipliers", "Objective", "State"]

REACH = 4.0  # largest change of a log multiplier in one iteration: beyond, linearised conditions say nothing
_OVERFLOW = 700.0  # exp of more is infinite
_LAST_DIGIT = 4e-15


class Multipliers(NamedTuple):
    """What is priced: theta (..., D), and from it p (..., B), eta (..., J) and nu (...).

    theta is log p, log eta and, with a window, the logit of nu below its ceiling; `share` is 1 - nu / ceiling (1
    without a ceiling) and `ceiling_slope` (..., J) d log ceiling / d log eta.
    """

    theta: Array
    p: Array
    eta: Array
    nu: Any
    share: Any
    ceiling_slope: Array


@dataclass(eq=False, slots=True)
class State:
    """Everything at one set of multipliers.

    Attributes:
        theta, p, eta, nu, share, ceiling_slope: as in Multipliers.
        levels: the minimisers, (..., L).
        sums, cost, near: (..., B) S_b, (..., J) cost, (...) window . T + offset.
        value: (...) dual value without the constant part of the objective.
    """

    theta: Array
    p: Array
    eta: Array
    nu: Any
    share: Any
    ceiling_slope: Array
    levels: LevelMinimum
    sums: Array
    cost: Array
    near: Any
    value: Any

    @property
    def multipliers(self) -> Array:
        """(..., D) p, eta and, with a window, nu in one vector."""
        return _joined(self.p, self.eta, self.nu, self.theta)

    @property
    def slopes(self) -> Array:
        """(..., D) what each multiplier weighs: S_b, cost_j and, with a window, near."""
        return _joined(self.sums, self.cost, self.near, self.theta)


class Objective(NamedTuple):
    """The objective at a design: `value` (...) without `constant`, the part of the floors that no design changes.

    `score`, `floor` and `last` (...) are the parts of the whole; `bands` (..., B) the roots of the discretisation's.
    """

    value: Any
    constant: Any
    score: Any
    floor: Any
    last: Any
    bands: Array


class Dual:
    """The dual function over levels (..., L), of one program or of R programs.

    Args:
        levels: the closed forms.
        errors: (..., L) A of the program itself; `levels` may have traces added to it.
        response: (..., B, L).
        prices: (..., J, L) of examples and of steps in the budgets that may have a multiplier.
        budget: (..., J).
        spent: (..., L).
        final: the last evaluation's error (...), its window (..., L) and what serves it beside (...), or None.
    """

    def __init__(
        self,
        levels: LevelForms,
        errors: Array,
        response: Array,
        prices: tuple[Array, Array],
        budget: Array,
        spent: Array,
        final: tuple[Any, Array, Any] | None,
    ) -> None:
        self.levels, self.errors, self.r, self.budget, self.spent = levels, errors, response, budget, spent
        self.c, self.k = prices
        self.q, self.bands = levels.order, response.shape[-2]
        self.final_error: Any = 0.0 if final is None else final[0]
        self.window: Array | None = None if final is None else final[1]
        self.offset: Any = 0.0 if final is None else final[2]
        self._none = np.zeros(budget.shape[:-1])
        # of the logarithms themselves in the residual: log p_b in 2 S_b / p_b, half of log nu in sqrt(A_r / nu)
        own = [1.0] * self.bands + [0.0] * budget.shape[-1]
        self._own = np.diag(own if final is None else [*own, 0.5])
        # levels on which nu has a ceiling: beyond it an example would pay more than its price, without end
        self.open: Mask | None = None
        if self.window is not None:
            self.open = self.window > 0 if levels.high is None else np.isinf(levels.high) & (self.window > 0)
            self.open = self.open if self.open.any() else None

    # ------------------------------------------------------------------ multipliers

    def split(self, theta: Array) -> tuple[Multipliers, Array]:
        """The multipliers at theta, and the price of an example less what it is worth near the stopping point.

        nu is written as a share of its ceiling because a dominant last evaluation lies so close below it that
        price - nu w would have no digit left: with nu = ceiling (1 - share) it is a sum of nonnegative terms.
        """
        last = self.bands + self.budget.shape[-1]
        values = np.exp(theta[..., :last])
        p, eta = values[..., : self.bands], values[..., self.bands :]
        price = mix(eta, self.c)
        if self.window is None:
            return Multipliers(theta, p, eta, self._none, 1 + self._none, 0 * eta), price
        if self.open is None:
            nu = np.exp(theta[..., -1])
            return Multipliers(theta, p, eta, nu, np.ones_like(nu), 0 * eta), price - nu[..., None] * self.window
        ceiling, slope = self.ceiling(eta, price)
        place = np.minimum(np.maximum(theta[..., -1], -_OVERFLOW), _OVERFLOW)
        share, nu = 1 / (1 + np.exp(place)), ceiling / (1 + np.exp(-place))
        base = price - ceiling[..., None] * self.window
        base = np.where(self.open, np.maximum(base, 0.0), base)  # 0 on the level that sets the ceiling
        price = base + (ceiling * share)[..., None] * self.window
        return Multipliers(theta, p, eta, nu, share, slope), price

    def ceiling(self, eta: Array, price: Array) -> tuple[Any, Array]:
        """(...) nu at which an example pays its whole price on some level, and (..., J) d log of it / d log eta."""
        assert self.window is not None
        if self.open is None:
            return np.full(eta.shape[:-1], np.inf), 0 * eta
        ratio = np.divide(price, self.window, out=np.full(price.shape, np.inf), where=self.open)
        place = ratio.argmin(axis=-1)
        at = eta * pick(self.c, place)
        return pick(ratio, place), at / at.sum(axis=-1, keepdims=True)

    def reported(self, state: State) -> tuple[Multipliers, Array]:
        """The multipliers as a user reads them, p, eta and nu, and the price of an example at them.

        nu is a last digit below its ceiling: a bound from nu itself, not from its distance to the ceiling, is what
        can be checked by others, and must not be infinite.
        """
        price = mix(state.eta, self.c)
        nu, one = state.nu, np.ones_like(state.nu)
        if self.window is not None:
            nu = nu * (1 - _LAST_DIGIT)
            price = price - nu[..., None] * self.window
        return Multipliers(state.theta, state.p, state.eta, nu, one, state.ceiling_slope), price

    # ------------------------------------------------------------------ value and derivatives

    def at(self, m: Multipliers, price: Array) -> State:
        """The level minimisers at these multipliers and what follows from them; inf where nothing bounds them."""
        levels = self.levels.minimum(mix(self.q * m.p, self.r), mix(m.eta, self.k), price)
        sums, cost = self.band_sums(levels.power), self.paid(levels.total, levels.n)
        value = levels.score.sum(axis=-1) + dot(self.levels.floors, levels.excess)
        value = value + (dot(m.p, sums) - 0.25 * dot(m.p, m.p) + dot(m.eta, cost - self.budget))
        near = self._none
        if self.window is not None:
            near = self.near(levels.total)
            value = value + 2 * np.sqrt(self.final_error * m.nu) - m.nu * near
        return State(*m, levels, sums, cost, near, value)

    def near(self, total: Array) -> Any:
        """(...) examples that serve the last evaluation."""
        assert self.window is not None
        return dot(self.window, total) + self.offset

    def band_sums(self, power: Array) -> Array:
        """(..., B) S_b. One program's by numpy's pairwise sum, the most exact; for many its summands are too many."""
        return np.asarray((self.r * power).sum(axis=1) if power.ndim == 1 else weigh(self.r, power))

    def paid(self, total: Array, n: Array) -> Array:
        """(..., J) what examples and steps cost in the priced budgets."""
        return np.asarray(weigh(self.c, total - self.spent) + weigh(self.k, n))

    def curvature(self, state: State) -> Array:
        """(..., D, D) minus the Hessian of the levels' minima in (p, eta, nu), by eliminating (log T, log n)."""
        at, bands, size = state.levels, self.bands, state.theta.shape[-1]
        last = bands + self.budget.shape[-1]
        # given the multipliers the levels are independent: the Hessian stays D x D, whatever their number
        in_steps, half, in_examples = self.levels.second_derivatives(at)
        # rows: by how much d log n, and d log T, change what each multiplier weighs
        z = np.zeros((*at.n.shape[:-1], size, at.n.shape[-1]))
        np.multiply(self.r, (-self.q * at.power)[..., None, :], out=z[..., :bands, :])
        np.multiply(self.k, at.n[..., None, :], out=z[..., bands:last, :])
        y = np.empty((*at.n.shape[:-1], size - bands, at.n.shape[-1]))
        np.multiply(self.c, at.total[..., None, :], out=y[..., : last - bands, :])
        if self.window is not None:
            np.multiply(self.window, -at.total, out=y[..., -1, :])
        if half is not None:  # T follows n
            z[..., bands:, :] -= half[..., None, :] * y
        curvature = np.matmul(z * in_steps[..., None, :], z.swapaxes(-1, -2))
        curvature[..., bands:, bands:] += np.matmul(y * in_examples[..., None, :], y.swapaxes(-1, -2))
        return np.asarray(curvature)

    def unconverged(self, state: State) -> Any:
        """(...) how far the level minima may lie below the values used."""
        return self.levels.slack(state.levels).sum(axis=-1)

    # ------------------------------------------------------------------ optimality

    def residual(self, state: State) -> Array:
        """(..., D) logarithms of the optimality conditions: 2 S_b / p_b, cost_j / budget_j, wanted / given near.

        Logarithms, because the conditions are products of powers of the multipliers where one term dominates, and
        multipliers differ by decades.
        """
        parts = [2 * state.sums / state.p, state.cost / self.budget]
        if self.window is not None:
            parts.append((np.sqrt(self.final_error / state.nu) / state.near)[..., None])
        return np.asarray(np.log(np.concatenate(parts, axis=-1)))

    def linearised(self, state: State) -> Array:
        """(..., D, D) minus the derivative of the residual by the logarithms of (p, eta, nu)."""
        matrix = self.curvature(state) * state.multipliers[..., None, :] / state.slopes[..., :, None]
        matrix += self._own
        return np.asarray(matrix)

    def moved(self, state: State, move: Array) -> Array:
        """theta after a change of (log p, log eta, log nu); its last entry is the logit of nu below its ceiling."""
        theta = state.theta + move
        if self.window is not None:
            # d logit(nu / ceiling) = d log(nu / ceiling) / (1 - nu / ceiling)
            rise = move[..., -1] - dot(state.ceiling_slope, move[..., self.bands : -1])
            rise = rise / np.maximum(state.share, 1e-300)
            theta[..., -1] = state.theta[..., -1] + np.minimum(np.maximum(rise, -REACH), REACH)
        return theta

    # ------------------------------------------------------------------ primal

    def objective(self, total: Array, n: Array) -> Objective:
        """The program's objective at T and n (..., L)."""
        levels, safe = self.levels, self.levels.safe(n)
        factor, excess, _ = levels.factor(safe)
        score = (self.errors * factor / (total + np.where(self.errors > 0, 0.0, 1.0))).sum(axis=-1)
        bands = weigh(self.r, levels.power(safe))
        last = np.zeros(score.shape)
        if self.window is not None:
            near = self.near(total)
            last = np.where(near > 0, self.final_error / near, np.inf)
        value = score + dot(levels.floors, excess) + dot(bands, bands) + last
        constant = 0.0 if levels.form == "per_step" else levels.floors.sum(axis=-1)
        return Objective(value, constant, score, dot(levels.floors, factor), last, bands)


class LevelDual(Dual):
    """The dual function of one program with some of its budgets; the others' multipliers are zero.

    Args:
        program: the program.
        active: budgets that may have a multiplier.
        errors: (L,) A where it differs from the program's, by traces that make the examples unique.
    """

    def __init__(self, program: JointProgram, active: list[int], errors: Array | None = None) -> None:
        p = program
        self.program, self.active = p, active
        whole = len(active) == p.budgets.size
        prices = (p.examples_prices, p.steps_prices)
        c, k = prices if whole else (p.examples_prices[active], p.steps_prices[active])
        self.a = p.errors if errors is None else errors
        # a band without response has S_b = 0, whose logarithm has no place in theta
        self.rows = p.response.max(axis=1, initial=0.0) > 0
        response = p.response if self.rows.all() else p.response[self.rows]
        zero = np.zeros(p.size)
        spent = zero if p.spent is None else p.spent
        self.low = spent if p.examples_low is None else np.maximum(spent, p.examples_low)
        self.high = np.full(p.size, np.inf) if p.examples_high is None else np.maximum(p.examples_high, spent)
        self.n_low = zero if p.steps_low is None else p.steps_low
        self.n_high = np.full(p.size, np.inf) if p.steps_high is None else p.steps_high
        bare = None if errors is None else (errors > 0) & (p.errors == 0)
        final = None
        if p.final_error > 0 and p.final_window is not None:
            final = (p.final_error, p.final_window, p.final_offset)
        levels = LevelForms(
            p.form, int(p.order), self.a, p.floors, p.kappa, self.low,
            high=None if p.examples_high is None else self.high, steps_low=p.steps_low, steps_high=p.steps_high,
            tied=None if bare is None or not bare.any() else np.where(bare, 0.0, 1.0),
            floored=p.spent is not None or p.examples_low is not None, windowed=final is not None,
            free_steps=not bool((k.max(axis=0) > 0).all()),
        )  # fmt: skip
        if not levels.scored.all():
            levels.rest(np.asarray((response > 0).any(axis=0)))
        super().__init__(levels, p.errors, response, (c, k), p.budgets if whole else p.budgets[active], spent, final)
        self.endless = levels.trains & np.isinf(self.high)  # where a price that is not positive leaves no minimum

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
        trains = self.levels.trains
        helps_examples = trains if self.window is None else trains | (self.window > 0)
        examples = (self.c.max(axis=0) > 0) | np.isfinite(self.high) | ~helps_examples
        steps = (self.k.max(axis=0) > 0) | np.isfinite(self.n_high)
        return bool(examples.all() and steps.all())

    def state(self, theta: Array) -> State | None:
        """None where the Lagrangian has no minimum."""
        return self._minimum(*self.split(theta))

    def checked(self, state: State) -> State | None:
        """The state at the multipliers as they are reported: what is proved."""
        return self._minimum(*self.reported(state))

    def _minimum(self, multipliers: Multipliers, price: Array) -> State | None:
        if np.any((price <= 0) & self.endless):
            return None
        found = self.at(multipliers, price)
        return found if found.levels.n.max() < np.inf and found.levels.total.max() < np.inf else None


def _joined(bands: Array, budgets: Array, window: Any, theta: Array) -> Array:
    tail = [window[..., None]] if theta.shape[-1] > bands.shape[-1] + budgets.shape[-1] else []
    return np.concatenate([bands, budgets, *tail], axis=-1)
