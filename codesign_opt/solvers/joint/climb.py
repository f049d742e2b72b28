"""Climbing the dual function of the joint program: slower than Newton on logarithms, and never at a loss.

The dual is concave in its multipliers and once continuously differentiable (docs/theory.md section 7), so
that an ascent direction and a line search on its value lead to the optimum from anywhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...basics.checks import Array
from .dual import REACH, LevelDual, State
from .proof import JointSolution, better, conclude

__all__ = ["ENOUGH", "climb"]

ENOUGH = 1e-9  # gap at which the slow method stops
_CLIMB = 120
_LOW, _HIGH = -300.0, 690.0  # of log multipliers, whose squares must not underflow, nor they themselves overflow
_PATIENCE = 8  # iterations without a rise of the bound


def climb(dual: LevelDual, tolerance: float, best: JointSolution | None, thetas: list[Array]) -> JointSolution | None:
    """Newton ascent of the concave dual in log multipliers: every iteration raises the lower bound.

    The part of the second derivative that is not concave in the logarithms is left out, so that the
    direction always climbs; multipliers of slack budgets fall by a factor at every iteration.
    """
    states = [state for state in (_best_window(dual, theta) for theta in thetas) if state is not None]
    if not states:
        return best
    state = max(states, key=lambda found: found.value)
    wait, promised = 0, np.inf
    for iteration in range(_CLIMB):
        # a proof costs as much as a step: tried where the estimate promises a better one, and now and then in case it
        # is wrong
        missing = _missing(dual, state)
        if missing < min(1e-6, 0.01 * promised) or iteration % 10 == 9:
            best = better(best, conclude(dual, state, iteration))
            promised = min(promised, missing)
            if best is not None and best.relative_gap <= max(tolerance, ENOUGH):
                return best
        trial = _higher(_climbed(dual, state), _refilled(dual, state), state)
        if trial is None:
            break
        wait = wait + 1 if trial.value <= state.value + 1e-15 * abs(state.value) else 0
        state = trial
        if wait >= _PATIENCE:
            break
    best = better(best, conclude(dual, state, _CLIMB))
    return better(best, _without_slack(dual, state))


def _best_window(dual: LevelDual, theta: Array) -> State | None:
    """The state at these p and eta with the best nu: where near = sqrt(A_r / nu), by guarded false position.

    Where caps or a dominant last evaluation make the examples a step function of nu, Newton's method cannot.
    """
    if dual.window is None:
        return dual.state(theta)
    theta = theta.copy()

    def at(place: float) -> tuple[State | None, float]:
        theta[-1] = place
        state = dual.state(theta.copy())
        if state is None:
            return None, np.inf
        return state, float(np.log(state.near) + 0.5 * np.log(state.nu / dual.final_error))

    # `height`, log of given over wanted, rises with nu: both an example's worth and what is wanted at a price make it.
    # It may jump, where caps fill at once; a bracket survives that
    middle, reach = float(theta[-1]), 1.0
    found, height = at(middle)
    low, high, below, above = middle, middle, height, height
    while below > 0 and low > -_HIGH:
        high, above = low, below
        low, reach = low - reach, 2 * reach
        below = at(low)[1]
    while above < 0 and high < _HIGH:
        low, below = high, above
        high, reach = high + reach, 2 * reach
        found, above = at(high)
    best, least, ends = found, np.inf, [at(low)[0], at(high)[0]]
    for step in range(80):
        middle = 0.5 * (low + high)
        # false position, but every third time the middle, or one end might never move
        if step % 3 and np.isfinite(above - below) and above > below:
            middle = float(np.clip(low - below * (high - low) / (above - below), low, high))
        found, height = at(middle)
        if found is not None and abs(height) < least:
            best, least = found, abs(height)
        if least < 1e-14 or high - low < 1e-15 * max(abs(high), 1e-3):
            break
        if height > 0:
            high, above, ends[1] = middle, height, found
        else:
            low, below, ends[0] = middle, height, found
    return _between(dual, ends[0], ends[1]) if least > 1e-10 and ends[0] and ends[1] else best


def _between(dual: LevelDual, first: State, second: State) -> State:
    """The mean of two minimisers of one Lagrangian that has just enough examples near the stopping point.

    At the price at which a level is filled or left empty every number between serves as well.
    """
    wanted = float(np.sqrt(dual.final_error / first.nu))
    weight = float(np.clip((wanted - first.near) / max(second.near - first.near, 1e-300), 0.0, 1.0))
    if dual.window is None:
        return first
    total = first.levels.total + weight * (second.levels.total - first.levels.total)
    cost = first.cost + weight * (second.cost - first.cost)
    return replace(first, levels=replace(first.levels, total=total), cost=cost, near=dual.near(total))


def _missing(dual: LevelDual, state: State) -> float:
    """Primal minus dual at the level minimisers, relative: without cancellation, but with budgets unmet.

    The levels' parts are the same in both, so that squares are left: S^2 - (p S - p^2 / 4) = (S - p / 2)^2, and
    likewise of the last evaluation.
    """
    gap = float(((state.sums - 0.5 * state.p) ** 2).sum() + np.abs(state.eta * (dual.budget - state.cost)).sum())
    if dual.window is not None and state.near > 0:
        root = np.sqrt(dual.final_error / state.near) - np.sqrt(state.nu * state.near)
        gap += float(root * root)
    return gap / max(abs(state.value), 1e-300)


def _excess(state: State, dual: LevelDual) -> float:
    """Largest logarithm by which a band sum differs from its multiplier or a budget is overspent."""
    residual, bands = dual.residual(state), state.p.size
    spent = residual[bands : bands + dual.budget.size].max(initial=0.0)
    return float(max(np.abs(residual[:bands]).max(initial=0.0), spent))


def _higher(first: State | None, second: State | None, old: State) -> State | None:
    """The trial with the higher dual value; where rounding hides the difference, the one nearer to feasible."""
    if first is None or second is None:
        return first if second is None else second
    stuck = first.value <= old.value + 1e-15 * abs(old.value)
    return second if stuck or second.value > first.value + 1e-15 * abs(old.value) else first


def _refilled(dual: LevelDual, state: State) -> State | None:
    """One fixed-point step: a band's price from its sum, a budget's from what it would cost; None where it falls.

    It needs no curvature, and moves multipliers whose share of the value is below rounding.
    """
    bands = state.p.size
    # Newton's step of each condition alone: where one band decides, n goes as p^(1/(q+1)) and log 2 S / p falls by
    # 1 + q/(q+1) per log p; cost goes as eta^(-1/2) where examples decide, and that much or less where steps do
    residual = dual.residual(state)
    in_bands = residual[:bands] / (1 + dual.q / (dual.q + 1))
    move = np.concatenate([in_bands, 2 * residual[bands : bands + dual.budget.size]])
    move = np.clip(np.nan_to_num(move, nan=0.0, posinf=REACH, neginf=-REACH), -REACH, REACH)
    theta = state.theta.copy()
    theta[: move.size] += move
    trial = _best_window(dual, np.clip(theta, _LOW, _HIGH))
    if trial is None or trial.value < state.value - 4e-16 * abs(state.value):
        theta[:bands] = state.theta[:bands]
        trial = _best_window(dual, np.clip(theta, _LOW, _HIGH))
    if trial is None or trial.value < state.value - 4e-16 * abs(state.value):
        return None
    rises = trial.value > state.value + 1e-15 * abs(state.value)
    return trial if rises or _excess(trial, dual) < 0.99 * _excess(state, dual) else None


def _climbed(dual: LevelDual, state: State) -> State | None:
    """One ascent step by a backtracking line search on the dual value; None where nothing rises."""
    bands, y = state.p.size, state.multipliers
    gradient = np.concatenate([state.sums - 0.5 * state.p, state.cost - dual.budget])
    curvature = dual.curvature(state)
    curvature.flat[: bands * (y.size + 1) : y.size + 1] += 0.5
    if dual.window is not None:
        wanted = np.sqrt(dual.final_error / state.nu)
        gradient = np.append(gradient, wanted - state.near)
        curvature[-1, -1] += 0.5 * wanted / state.nu
    chain = np.diag(y)
    if dual.window is not None:
        chain[-1, -1] = y[-1] * state.share
        chain[-1, bands:-1] = y[-1] * state.ceiling_slope
    # by logarithms the Hessian of the dual gains its own gradient on the diagonal: kept where that bends it down, left
    # out where it bends it up, so that the matrix stays positive definite and the move an ascent
    gradient = gradient @ chain
    if not np.all(np.isfinite(gradient)):
        return None
    matrix = chain.T @ curvature @ chain + np.diag(np.maximum(-gradient, 0.0))
    # to a diagonal of one: multipliers whose share of the value is tiny have tiny rows, and are moved all the same
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-290))
    matrix = matrix / scale / scale[:, None] + 1e-12 * np.eye(y.size)
    try:
        move = np.linalg.solve(matrix, gradient / scale) / scale
    except np.linalg.LinAlgError:
        move = gradient / scale**2
    move = np.clip(move, -REACH, REACH)
    if not gradient @ move > 0:
        move = np.clip(gradient / scale**2, -REACH, REACH)
    # Armijo's rule, up to the rounding of the value
    promise, size = float(gradient @ move), 1.0
    for _ in range(40):
        trial = _best_window(dual, np.clip(state.theta + size * move, _LOW, _HIGH))
        if trial is not None and trial.value >= state.value + 1e-4 * size * promise - 4e-16 * abs(state.value):
            return trial
        size *= 0.5
    return None


def _without_slack(dual: LevelDual, state: State) -> JointSolution | None:
    """The same point with the multipliers of slack budgets set to exactly 0, where that still proves it."""
    # the logarithm only creeps towards 0: a billionth of the value is taken for it, and the proof decides
    slack = state.eta * dual.budget < 1e-9 * abs(state.value)
    kept = [j for j, off in zip(dual.active, slack, strict=True) if not off]
    if not slack.any() or dual.window is not None:
        return None
    reduced = LevelDual(dual.program, kept, dual.a) if kept else None
    if reduced is None or not reduced.bounded:
        return None
    bands = state.p.size
    again = reduced.state(np.concatenate([state.theta[:bands], state.theta[bands:][~slack]]))
    return None if again is None else conclude(reduced, again, _CLIMB)
