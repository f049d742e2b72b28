"""Primal-dual interior-point method for programs with quadratic forms, docs/theory.md section 7.4."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...basics.checks import Array, Mask
from ..joint.newton import solve_joint
from .newton import NewtonSystem
from .program import FormProgram, FormSolution
from .smooth import BOUNDS, EXAMPLES, INVERSE, STEPS, LevelBounds, SmoothObjective
from .steps_alone import steps_alone

__all__ = ["solve_forms"]

_MOST = 40  # iterations: programs take 7 to 20
_ENOUGH, _RESIDUAL = 5e-12, 1e-6  # of the objective: complementarity; what the proof loses the square of
_PLENTY = 1e-10  # of the objective: complementarity where no bound has a price
_MISSED = 1e-10  # of a bound: a point that breaks one is below the optimum by what it breaks
_USEFUL = 1e-5  # worse than that no proof is worth trying
_STALLED, _NEAR = 2, 1e-9  # iterations without a better point, after which so good a one is taken
_STEP = 0.995  # of the way to the boundary
_BEGIN = 0.2  # of the objective: complementarity at the start
_ROOM = 0.02  # of the budgets left free at the start
_DAMPED = 6  # halvings of a step that leaves larger residuals
_SNAPPED = 1e-6  # of a bound: nearer than that, with a price, a quantity lies on it


def solve_forms(program: FormProgram, *, enough: float = 0.0) -> FormSolution | None:
    """The optimum to about 1e-11, or to `enough` of the error where that is more; None where the methods fail.

    >>> from codesign_opt.solvers.joint.program import JointProgram
    >>> row, budget = np.ones((1, 3)), np.array([12.0])
    >>> joint = JointProgram(np.ones(3), np.zeros(3), np.ones(3), row, 1, row, row, budget)
    >>> found = solve_forms(FormProgram(joint, steps_form=np.ones((3, 3))))
    >>> found.examples.round(4), found.steps.round(4)
    (array([1.558, 1.558, 1.558]), array([2.442, 2.442, 2.442]))
    """
    alone = steps_alone(program)
    if alone is not None:
        return alone
    with np.errstate(all="ignore"):
        started = _start(program)
        return None if started is None else _Method(program, *started, enough).run()


def _start(program: FormProgram) -> tuple[Array, Array, Array] | None:
    """(examples, steps, budget multipliers) of the separable program that bounds this one from above."""
    joint, size = program.joint, program.size
    errors, coherent = joint.errors, np.zeros(size)
    if program.examples_form is not None:
        errors = errors + program.examples_form.sum(axis=1)
    if program.steps_form is not None:
        coherent = coherent + np.sqrt(np.diagonal(program.steps_form))
    if program.signed_rows is not None:
        coherent = coherent + np.linalg.norm(program.signed_rows, axis=0)
    found = solve_joint(replace(joint, errors=errors, response=coherent[None]), tolerance=1e-6)
    if found is None:
        return None
    spent = np.zeros(size) if joint.spent is None else joint.spent
    return found.examples + spent, found.steps, found.budget_multipliers


@dataclass(frozen=True, eq=False)
class _State:
    """z (4, L), slacks and multipliers of the level constraints (G, L) and of the budgets (J,)."""

    z: Array
    slack: Array
    multiplier: Array
    budget_slack: Array
    budget_multiplier: Array

    def moved(self, step: _State, along: float, across: float) -> _State:
        """Primal part by `along`, multipliers by `across`."""
        return _State(
            self.z + along * step.z,
            self.slack + along * step.slack,
            self.multiplier + across * step.multiplier,
            self.budget_slack + along * step.budget_slack,
            self.budget_multiplier + across * step.budget_multiplier,
        )


@dataclass(frozen=True, eq=False)
class _Seen:
    """A state with the residuals of stationarity (4, L), of the level constraints (8, L) and of the budgets (J,).

    `worst` is the largest residual, of feasibility in its own unit; `gap` the complementarity as a share of the
    objective; `slopes` (8, 4, L) those of the level constraints.
    """

    state: _State
    dual: Array
    primal: Array
    left: Array
    slopes: Array
    worst: float
    gap: float


class _Method:
    """One program's iterations. Units: the objective over its value at the start, budgets over their rooms."""

    def __init__(self, program: FormProgram, examples: Array, steps: Array, prices: Array, enough: float) -> None:
        self._asked = enough
        self.joint = joint = program.joint
        self.program, self.bounds = program, LevelBounds.of(program)
        self.frozen, self.mask = self.bounds.frozen, self.bounds.mask
        self.spent = np.zeros(program.size) if joint.spent is None else joint.spent
        self.borders = np.zeros((joint.budgets.size, 4, program.size))
        self.borders[:, EXAMPLES] = joint.examples_prices / joint.budgets[:, None]
        self.borders[:, STEPS] = joint.steps_prices / joint.budgets[:, None]
        self.used = 1 + self.borders[:, EXAMPLES] @ self.spent  # of the budgets by z, spent examples among its own
        z = self.bounds.inside(self.spent + (1 - _ROOM) * (examples - self.spent), (1 - _ROOM) * steps)
        plain = SmoothObjective(program, self.frozen)
        self.objective = replace(plain, scale=1 / max(plain.value(z), 1e-300))
        self.begin = self._begin(z, prices)

    def _begin(self, z: Array, prices: Array) -> _State:
        """Slacks and multipliers of one complementarity."""
        slack = np.where(self.mask, np.maximum(-self.bounds.values(z), 0.05 * self.bounds.sizes(z)), 1.0)
        left = np.maximum(1e-3, self.used - (self.borders * z).sum((1, 2)))
        each = _BEGIN / self._count
        price = np.maximum(prices * self.joint.budgets * self.objective.scale, each / left)
        return _State(z, slack, np.where(self.mask, each / slack, 0.0), left, price)

    def run(self) -> FormSolution | None:
        seen = best = self._seen(self.begin)
        least, since = np.inf, 0
        for _ in range(_MOST):
            worst, gap = seen.worst, seen.gap
            if not np.isfinite(worst + gap):
                break
            if gap <= self._enough and worst <= _RESIDUAL:
                return self._solution(seen.state)
            least, since, best = (worst + gap, 0, seen) if worst + gap < least else (least, since + 1, best)
            following = None if since > _STALLED and least <= _NEAR else self._iterated(seen)
            if following is None:
                break
            seen = following
        return self._solution(best.state) if least <= _USEFUL else None

    def _seen(self, state: _State) -> _Seen:
        slopes = self.bounds.slopes(state.z)
        dual = self.objective.gradient(state.z) * ~self.frozen + (state.multiplier[:, None] * slopes).sum(axis=0)
        dual += np.tensordot(state.budget_multiplier, self.borders * ~self.frozen, 1)
        primal = np.where(self.mask, self.bounds.values(state.z) + state.slack, 0.0)
        left = (self.borders * state.z).sum((1, 2)) - self.used + state.budget_slack
        missed = np.abs(np.where(self.mask, primal / self.bounds.sizes(state.z), 0.0))
        kept = max(missed[BOUNDS].max(), np.abs(left).max())  # p and u, which the others are about, are dropped
        worst = max(np.abs(dual * state.z).max(), missed.max(), kept * (_RESIDUAL / _MISSED))
        gap = float((state.multiplier * state.slack)[self.mask].sum() + state.budget_multiplier @ state.budget_slack)
        return _Seen(state, dual, primal, left, slopes, float(worst), gap)

    def _iterated(self, seen: _Seen) -> _Seen | None:
        """A predictor for the complementarity that can be reached, then a corrected step."""
        state, primal, left, slopes = seen.state, seen.primal, seen.left, seen.slopes
        ratio = np.where(self.mask, state.multiplier / state.slack, 0.0)
        budget_ratio = state.budget_multiplier / state.budget_slack
        system = self._system(state, slopes, ratio, budget_ratio)
        solve, mean = system.factored(), self._mean(state)
        if solve is None:
            return None

        def step(target: Array, budget_target: Array) -> _State:
            pull = np.where(self.mask, (target - state.multiplier * (state.slack - primal)) / state.slack, 0.0)
            budget_pull = (budget_target - state.budget_multiplier * (state.budget_slack - left)) / state.budget_slack
            side = -seen.dual - (pull[:, None] * slopes).sum(axis=0) - np.tensordot(budget_pull, self.borders, 1)
            dz, pulls = solve(side)
            along, used = (slopes * dz).sum(axis=1), (self.borders * dz).sum((1, 2))
            return _State(
                dz,
                np.where(self.mask, -primal - along, 0.0),
                np.where(self.mask, pull + ratio * along, 0.0),
                -left - used,
                budget_pull + pulls[: budget_pull.size],
            )

        zero = np.zeros_like(state.slack), np.zeros_like(state.budget_slack)
        predictor = step(*zero)
        reach = min(self._reach(state, predictor))
        ahead = self._mean(state.moved(predictor, reach, reach))
        # below what is asked for nothing is gained, and slacks so small cost the multipliers their digits
        centre = max(mean * min(1.0, max(ahead / mean, 0.0)) ** 3, 0.1 * self._enough / self._count)
        corrected = step(
            centre - predictor.slack * predictor.multiplier,
            centre - predictor.budget_slack * predictor.budget_multiplier,
        )
        if not np.all(np.isfinite(corrected.z)):
            return None
        return self._damped(seen, corrected)

    def _system(self, state: _State, slopes: Array, ratio: Array, budget_ratio: Array) -> NewtonSystem:
        """The Hessian of the Lagrangian, and the constraints' slopes at what a unit of slack costs."""
        others = np.array([0, 1, 2, 5, 6, 7])  # bounds of examples are not of what serves a level
        blocks = self.objective.blocks(state.z)
        blocks[:, STEPS, STEPS] += self.bounds.bends(state.z, state.multiplier)
        blocks += np.einsum("gl,gql,grl->lqr", ratio[others], slopes[others], slopes[others])
        own = ratio[3] + ratio[4]
        if self.program.pooling is None:
            blocks[:, EXAMPLES, EXAMPLES] += own
        borders, rates = self.borders, budget_ratio
        window, rate = self.objective.window, self.objective.window_rate(state.z)
        if window is not None:
            border = np.zeros((1, *state.z.shape))
            border[0, EXAMPLES] = window
            borders, rates = np.concatenate([borders, border]), np.append(rates, rate)
        return NewtonSystem(
            blocks, self.objective.dense(state.z), borders, rates, self.frozen, self.program.pooling, own
        )

    def _mean(self, state: _State) -> float:
        products = (state.multiplier * state.slack)[self.mask]
        return float(products.sum() + state.budget_multiplier @ state.budget_slack) / self._count

    @cached_property
    def _enough(self) -> float:
        """What complementarity is brought to: less where bounds are to be told from what lies near them."""
        return max(self._asked, _ENOUGH if self.mask[BOUNDS].any() else _PLENTY)

    @cached_property
    def _count(self) -> int:
        """Number of constraints."""
        return int(self.mask.sum()) + self.joint.budgets.size

    def _reach(self, state: _State, step: _State) -> tuple[float, float]:
        """How far the positive quantities stay positive: (primal, dual)."""
        moving = ~self.frozen
        moving[EXAMPLES] &= ~self.mask[3]  # their slack says how far
        along = min(
            _to_boundary(state.z[moving], step.z[moving], 0.9),
            _to_boundary(state.slack[self.mask], step.slack[self.mask], _STEP),
            _to_boundary(state.budget_slack, step.budget_slack, _STEP),
        )
        across = min(
            _to_boundary(state.multiplier[self.mask], step.multiplier[self.mask], _STEP),
            _to_boundary(state.budget_multiplier, step.budget_multiplier, _STEP),
        )
        return along, across

    def _damped(self, seen: _Seen, step: _State) -> _Seen:
        """One length for both parts, halved while the residuals grow."""
        length = min(self._reach(seen.state, step))
        before = seen.worst + seen.gap
        for _ in range(_DAMPED):
            found = self._seen(seen.state.moved(step, length, length))
            if found.worst + found.gap <= 2 * before:
                return found
            length *= 0.5
        return found

    def _solution(self, state: _State) -> FormSolution:
        """Quantities on their bounds where these have a price, and the derivatives of the Lagrangian without bounds."""
        z, bounds = state.z, self.bounds
        sizes = bounds.sizes(z)
        snapped = (state.slack <= _SNAPPED * sizes) & (state.slack / sizes < state.multiplier * sizes)
        snapped &= self.mask
        examples = np.where(
            snapped[3], self.bounds.low_examples, np.where(snapped[4], self.bounds.high_examples, z[EXAMPLES])
        )
        steps = np.where(snapped[5], self.bounds.low_steps, np.where(snapped[6], self.bounds.high_steps, z[STEPS]))
        free_examples, free_steps = ~snapped[3] & ~snapped[4], ~snapped[5] & ~snapped[6]
        shares = self._affordable(examples, steps, free_examples, free_steps)
        examples = np.where(free_examples, self.spent + shares[0] * (examples - self.spent), examples)
        steps = np.where(free_steps, shares[1] * steps, steps)
        prices = state.budget_multiplier / self.joint.budgets / self.objective.scale
        pulls = self._pulls(state, examples, steps)
        costs = prices @ self.joint.examples_prices, prices @ self.joint.steps_prices
        return FormSolution(examples, steps, prices, costs[0] + pulls[0], costs[1] + pulls[1])

    def _pulls(self, state: _State, examples: Array, steps: Array) -> tuple[Array, Array]:
        """(L,) derivatives of the objective by examples and by steps, on levels that do not move, too."""
        q = self.bounds.q
        z = self.bounds.exactly(state.z, examples, steps)
        gradient = self.objective.gradient(z)
        # steps beyond p = min(n, kappa) serve no score error: p <= n says what a step is worth to it
        by_steps = gradient[STEPS] - state.multiplier[0] - q * z[STEPS] ** (-q - 1) * gradient[INVERSE]
        return gradient[EXAMPLES] / self.objective.scale, by_steps / self.objective.scale

    def _affordable(self, examples: Array, steps: Array, free_examples: Mask, free_steps: Mask) -> tuple[float, float]:
        """Shares of examples and steps on no bound that the budgets leave, after the rest was put on its bounds.

        The quantity that a budget pays more for gives way: the other would lose as much of another budget for nothing.
        """
        joint, shares = self.joint, [1.0, 1.0]
        for row, price, room in zip(joint.examples_prices, joint.steps_prices, joint.budgets, strict=True):
            bought, paid = row * (examples - self.spent), price * steps
            free = float(bought @ free_examples), float(paid @ free_steps)
            most = int(free[1] > free[0])
            if free[most] > 0:
                excess = float(bought.sum() + paid.sum()) - float(room)
                shares[most] = min(shares[most], 1.0 - excess / free[most])
        return shares[0], shares[1]


def _to_boundary(values: Array, change: Array, share: float) -> float:
    """The longest step up to 1 that leaves every value above 1 - share of itself."""
    falling = change < 0
    return min(1.0, float(np.min(-share * values[falling] / change[falling], initial=1.0)))
