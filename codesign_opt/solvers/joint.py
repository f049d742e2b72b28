"""Joint allocation of examples and steps by Newton's method on the dual, one dimension per band and budget.

docs/theory.md section 7, P2 and P3. At the optimum p_b = 2 S_b, every budget with a price is spent and
nu = A_r / (window . T)^2: bands + budgets + 1 equations, whatever the number of levels. Newton's method
on their logarithms takes a few iterations; where it does not certify, a slower method that climbs the
concave dual function at every iteration does. Every answer carries the dual value as its proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .._validate import Array
from .joint_dual import JointProgram, LevelDual, State

__all__ = ["JointProgram", "JointSolution", "Sensitivity", "sensitivity", "solve_joint", "solve_many", "stopping_slope"]

_NEWTON = 25
_CLIMB = 120
_PATIENCE = 8  # iterations without a rise of the bound
_REACH = 4.0  # largest change of a log multiplier in one iteration
_ENOUGH = 1e-9  # gap at which the slow method stops
_FAINT = (1e-24, 1e-18, 1e-13)  # shares of the last evaluation's error given to levels that train little else


@dataclass(frozen=True, eq=False)
class JointSolution:
    """A primal point, the dual bound that proves it, and the multipliers.

    Attributes:
        examples: (L,) new examples.
        steps: (L,) steps; 0 where steps serve nothing.
        value: objective at the point, which meets every budget and bound.
        lower_bound: dual value at the multipliers; no design does better.
        relative_gap: (value - lower_bound) / the part of the value that the design can change.
        budget_multipliers: (J,) eta_j = - d value / d budget_j; 0 where the budget is not used up.
        band_multipliers: (B,) p_b.
        window_multiplier: nu, the price of an example near the stopping point.
        iterations: Newton iterations.
    """

    examples: Array
    steps: Array
    value: float
    lower_bound: float
    relative_gap: float
    budget_multipliers: Array
    band_multipliers: Array
    window_multiplier: float
    iterations: int


def solve_joint(
    program: JointProgram,
    *,
    tolerance: float = 1e-11,
    start: tuple[Array, Array] | None = None,
) -> JointSolution | None:
    """The optimum of the joint program with its proof; None where no feasible point with a bound was found.

    docs/theory.md section 7. `relative_gap` says what was proved, whatever `tolerance` asked for.

    Args:
        program: the program; see JointProgram.
        tolerance: relative gap at which iteration stops, > 0.
        start: (band multipliers, budget multipliers) of a similar program.

    >>> import numpy as np
    >>> one = np.ones(3)
    >>> program = JointProgram(one, 0 * one, one, np.ones((1, 3)), 1, np.ones((1, 3)), np.ones((1, 3)), np.array([12.0]))
    >>> found = solve_joint(program)
    >>> round(found.value, 6), bool(found.relative_gap < 1e-9)
    (3.434761, True)
    """
    with np.errstate(all="ignore"):
        return _solve(program, tolerance, start)


def solve_many(programs: Iterable[JointProgram], *, tolerance: float = 1e-11) -> list[JointSolution | None]:
    """Similar programs in order, each started from the multipliers of the last one that was solved.

    >>> solve_many([])
    []
    """
    found: list[JointSolution | None] = []
    last: JointSolution | None = None
    for program in programs:
        start = None
        if last is not None and last.band_multipliers.size == len(program.response):
            start = (last.band_multipliers, last.budget_multipliers)
        found.append(solve_joint(program, tolerance=tolerance, start=start))
        last = found[-1] if found[-1] is not None else last
    return found


def _solve(program: JointProgram, tolerance: float, start: tuple[Array, Array] | None) -> JointSolution | None:
    """With ever larger traces of error on levels where the optimum would not be unique without."""
    best: JointSolution | None = None
    for faint in _FAINT:
        errors = _faint_errors(program, faint)
        best = _search(program, errors, tolerance, start, best)
        if errors is None or best is None or best.relative_gap <= max(tolerance, 1e-7):
            break
    return best


def _search(
    program: JointProgram,
    errors: Array | None,
    tolerance: float,
    start: tuple[Array, Array] | None,
    best: JointSolution | None,
) -> JointSolution | None:
    """Newton with one budget priced, with all, then the climb; the best proof."""
    count = program.budgets.size
    everything = list(range(count))
    for active in [[j] for j in everything] if count > 1 else []:
        dual = LevelDual(program, active, errors)
        if dual.bounded:
            best = _better(best, _newton(dual, tolerance, None)[0])
            if best is not None and best.relative_gap <= tolerance:
                return best
    dual = LevelDual(program, everything, errors)
    if not dual.feasible or not dual.bounded:
        return None
    state: State | None = None
    if start is not None and start[0].size == len(program.response) and start[1].size == count:
        found, state = _newton(dual, tolerance, start)
        best = _better(best, found)
    enough = max(tolerance, _ENOUGH)
    if best is None or best.relative_gap > enough:
        found, state = _newton(dual, tolerance, None)
        best = _better(best, found)
    if best is None or best.relative_gap > enough:
        best = _climb(dual, tolerance, best, state)
    return best


def _better(first: JointSolution | None, second: JointSolution | None) -> JointSolution | None:
    """The smaller value with the larger bound: both stand, whoever found them."""
    if first is None or second is None:
        return first if second is None else second
    primal = first if first.value <= second.value else second
    dual = first if first.lower_bound >= second.lower_bound else second
    if primal is dual:
        return primal
    unit = (primal.value - primal.lower_bound) / primal.relative_gap if primal.relative_gap > 0 else primal.value
    gap = (primal.value - dual.lower_bound) / unit if unit > 0 else 0.0
    return replace(
        primal,
        lower_bound=dual.lower_bound,
        relative_gap=gap,
        budget_multipliers=dual.budget_multipliers,
        band_multipliers=dual.band_multipliers,
        window_multiplier=dual.window_multiplier,
    )


def _faint_errors(program: JointProgram, share: float) -> Array | None:
    """A with a trace of error on levels that mostly serve the last evaluation, which makes their examples unique.

    The search uses it; the proof uses the program's own A.
    """
    if program.final_error == 0 or program.final_window is None or not program.final_window.any():
        return None
    weight = program.final_window / program.final_window.sum()
    least = np.where(weight > 0, np.maximum(share * program.final_error * weight, 1e-200), 0.0)
    return np.maximum(program.errors, least) if np.any(program.errors < least) else None


# ---------------------------------------------------------------------- Newton on the logarithms


def _newton(
    dual: LevelDual, tolerance: float, start: tuple[Array, Array] | None
) -> tuple[JointSolution | None, State | None]:
    """Damped Newton on the logarithms of the optimality conditions; its best proof and its last state."""
    theta = np.clip(_first_guess(dual, start), -690.0, 690.0)
    state = dual.state(theta)
    if state is None:
        return None, None
    best: JointSolution | None = None
    residual, worst = _residual(dual, state)
    for iteration in range(_NEWTON):
        if worst < 1e-5:
            best = _better(best, _conclude(dual, state, iteration))
            if worst < 1e-13 or (best is not None and best.relative_gap <= tolerance):
                return best, state
        move = _newton_move(dual, state, residual)
        if move is None:
            break
        for _ in range(10):
            trial = dual.state(_moved(dual, state, move))
            if trial is not None:
                trial_residual, trial_worst = _residual(dual, trial)
                if trial_worst <= worst * (1 - 1e-4) + 1e-14:
                    break
            move = 0.5 * move
            trial = None
        if trial is None:
            break
        state, residual, worst = trial, trial_residual, trial_worst
    return best, state


def _residual(dual: LevelDual, state: State) -> tuple[Array, float]:
    """log 2 S_b / p_b, log cost_j / budget_j, log of the wanted over the given sum near the stopping point."""
    parts = [2 * state.sums / state.p, state.cost / dual.budget]
    if dual.window is not None:
        parts.append(np.array([np.sqrt(dual.program.final_error / state.nu) / state.near]))
    residual = np.log(np.concatenate(parts))
    worst = float(np.abs(residual).max())
    return residual, worst if worst == worst else np.inf


def _newton_move(dual: LevelDual, state: State, residual: Array) -> Array | None:
    """Change of (log p, log eta, log nu) by the linearised optimality conditions."""
    if not np.all(np.isfinite(residual)):
        return None
    dual.add_curvature(state)
    bands = state.p.size
    base = np.concatenate([state.sums, state.cost, [state.near] if dual.window is not None else []])
    matrix = state.curvature * state.multipliers / base[:, None]
    diagonal = np.zeros(base.size)
    diagonal[:bands] = 1.0
    if dual.window is not None:
        diagonal[-1] = 0.5
    matrix.flat[:: base.size + 1] += diagonal
    try:
        move = np.linalg.solve(matrix, residual)
    except np.linalg.LinAlgError:
        return None
    if not np.all(np.isfinite(move)):
        return None
    return move * min(1.0, _REACH / max(float(np.abs(move).max()), 1e-300))


def _moved(dual: LevelDual, state: State, move: Array) -> Array:
    """theta after a change of the logarithms; the last entry of theta is the logit of nu below its ceiling."""
    theta = state.theta + move
    if dual.window is not None:
        rise = float(move[-1] - state.ceiling_slope @ move[state.p.size : -1])
        theta[-1] = state.theta[-1] + float(np.clip(rise / max(state.share, 1e-300), -_REACH, _REACH))
    return theta


def _first_guess(dual: LevelDual, start: tuple[Array, Array] | None) -> Array:
    """Logarithmic multipliers at a plain design: steps by the discretisation rows, half the budget a side."""
    p, q = dual.program, dual.q
    trains = bool(dual.trains.any())
    if start is not None:
        bands, etas = np.maximum(start[0][dual.rows], 1e-300), np.maximum(start[1][dual.active], 1e-300)
    else:
        share = 0.5 if trains and np.any(dual.c > 0) else 1.0
        n = _plain_steps(dual, share)
        sums = (dual.r @ dual._power(n)) if dual.r.size else np.empty(0)
        factor, excess, _ = dual._factor(n)
        bands = np.maximum(2 * sums, 1e-300)
        etas = _budget_guess(dual, share, n, factor, q * float(bands @ sums) + float(p.floors @ excess))
    theta = np.log(np.concatenate([bands, etas]))
    if dual.window is None:
        return theta
    _, ceiling = dual.ceiling(etas)
    price = np.maximum(etas @ dual.c, 1e-300)
    total = np.minimum(np.maximum(np.sqrt(dual.a / price), dual.low), dual.high)
    near = max(float(dual.window @ total), 1e-140)
    nu = float(np.clip(p.final_error / near**2, 1e-280, 1e280))
    if not np.isfinite(ceiling):
        return np.append(theta, np.log(nu))
    ratio = nu / max(ceiling, 1e-300)
    # a price above the ceiling means that the last evaluation decides alone: T there is about sqrt(A_r / ceiling)
    return np.append(theta, np.log(max(ratio, 1e-300)) if ratio < 0.5 else min(float(np.log(2 * ratio)), 60.0))


def _budget_guess(dual: LevelDual, share: float, n: Array, factor: Array, from_steps: float) -> Array:
    """Multipliers of the budgets at a plain design: what the score and the steps still cost, per price paid."""
    score = np.zeros(n.size)
    if dual.trains.any():
        price = np.maximum(dual.c.sum(axis=0), 1e-300)
        total = np.sqrt(dual.a * factor / price)
        paid = dual.c @ total
        total *= float(np.min(np.where(paid > 0, share * dual.budget / np.maximum(paid, 1e-300), np.inf), initial=1e100))
        score = np.where(dual.trains, dual.a * factor / np.clip(total, np.maximum(dual.low, 1e-300), dual.high), 0.0)
    slowed = score if dual.form == "per_step" else np.where(factor > 1, score, 0.0)
    etas = np.full(dual.budget.size, 1e-100)
    for j, budget in enumerate(dual.budget):
        steps_cost = float(dual.k[j] @ n)
        etas[j] = max(etas[j], float(score[dual.c[j] > 0].sum()) / (share * budget))
        if steps_cost > 0:
            etas[j] = max(etas[j], (from_steps + float(slowed[dual.k[j] > 0].sum())) / steps_cost)
    return np.minimum(etas, 1e280)


def _plain_steps(dual: LevelDual, share: float) -> Array:
    p = dual.program
    price = dual.k.sum(axis=0)
    price = np.where(price > 0, price, 1.0)
    if dual.r.size:
        shape = dual._root(np.sqrt(np.einsum("bl,bl->l", dual.r, dual.r)) / price)
    else:
        shape = np.maximum(p.kappa, np.sqrt(p.floors * p.kappa / price))
    shape = np.maximum(shape, max(1e-6 * float(shape.max()), 1e-100))
    n = shape * float(np.min(share * dual.budget / np.maximum(dual.k @ shape, 1e-300)))
    return np.maximum(np.minimum(np.maximum(n, dual.n_low), dual.n_high), 1e-100) if dual.boxed_steps else n


# ---------------------------------------------------------------------- climbing the dual function


def _climb(
    dual: LevelDual, tolerance: float, best: JointSolution | None, state: State | None
) -> JointSolution | None:
    """Newton ascent of the concave dual in log multipliers: every iteration raises the lower bound.

    The part of the second derivative that is not concave in the logarithms is left out, so that the
    direction always climbs; multipliers of slack budgets fall by a factor at every iteration.
    """
    plain = _best_window(dual, np.clip(_first_guess(dual, None), -690.0, 690.0))
    state = None if state is None else _best_window(dual, state.theta)
    if state is None or (plain is not None and plain.value > state.value):
        state = plain
    if state is None:
        return best
    wait, promised = 0, np.inf
    for iteration in range(_CLIMB):
        missing = _missing(dual, state)
        if missing < min(1e-6, 0.01 * promised) or iteration % 10 == 9:
            best = _better(best, _conclude(dual, state, _NEWTON + iteration))
            promised = min(promised, missing)
            if best is not None and best.relative_gap <= max(tolerance, _ENOUGH):
                return best
        trial = _higher(_climbed(dual, state), _refilled(dual, state), state)
        if trial is None:
            break
        wait = wait + 1 if trial.value <= state.value + 1e-15 * abs(state.value) else 0
        state = trial
        if wait >= _PATIENCE:
            break
    best = _better(best, _conclude(dual, state, _NEWTON + _CLIMB))
    return _better(best, _without_slack(dual, state))


def _best_window(dual: LevelDual, theta: Array) -> State | None:
    """The state at these p and eta with the best nu: where window . T = sqrt(A_r / nu), by guarded false position.

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
        return state, float(np.log(state.near) + 0.5 * np.log(state.nu / dual.program.final_error))

    middle, reach = float(theta[-1]), 1.0
    found, height = at(middle)
    low, high, below, above = middle, middle, height, height
    while below > 0 and low > -690:
        high, above = low, below
        low, reach = low - reach, 2 * reach
        below = at(low)[1]
    while above < 0 and high < 690:
        low, below = high, above
        high, reach = high + reach, 2 * reach
        found, above = at(high)
    best, least, ends = found, np.inf, [at(low)[0], at(high)[0]]
    for step in range(80):
        middle = 0.5 * (low + high)
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
    wanted = float(np.sqrt(dual.program.final_error / first.nu))
    weight = float(np.clip((wanted - first.near) / max(second.near - first.near, 1e-300), 0.0, 1.0))
    total = first.total + weight * (second.total - first.total)
    cost = first.cost + weight * (second.cost - first.cost)
    return replace(first, total=total, cost=cost, near=float(dual.window @ total)) if dual.window is not None else first


def _missing(dual: LevelDual, state: State) -> float:
    """Primal minus dual at the level minimisers, relative: without cancellation, but with budgets unmet."""
    gap = float(((state.sums - 0.5 * state.p) ** 2).sum() + np.abs(state.eta * (dual.budget - state.cost)).sum())
    if dual.window is not None and state.near > 0:
        root = np.sqrt(dual.program.final_error / state.near) - np.sqrt(state.nu * state.near)
        gap += float(root * root)
    return gap / max(abs(state.value), 1e-300)


def _excess(state: State, dual: LevelDual) -> float:
    """Largest logarithm by which a band sum differs from its multiplier or a budget is overspent."""
    bands = np.abs(np.log(2 * state.sums / state.p)).max(initial=0.0)
    return float(max(bands, np.log(state.cost / dual.budget).max(initial=0.0)))


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
    move = np.concatenate([np.log(2 * state.sums / state.p) / (1 + dual.q / (dual.q + 1)), 2 * np.log(state.cost / dual.budget)])
    move = np.clip(np.nan_to_num(move, nan=0.0, posinf=_REACH, neginf=-_REACH), -_REACH, _REACH)
    theta = state.theta.copy()
    theta[: move.size] += move
    trial = _best_window(dual, np.clip(theta, -300.0, 690.0))
    if trial is None or trial.value < state.value - 4e-16 * abs(state.value):
        theta[:bands] = state.theta[:bands]
        trial = _best_window(dual, np.clip(theta, -300.0, 690.0))
    if trial is None or trial.value < state.value - 4e-16 * abs(state.value):
        return None
    rises = trial.value > state.value + 1e-15 * abs(state.value)
    return trial if rises or _excess(trial, dual) < 0.99 * _excess(state, dual) else None


def _climbed(dual: LevelDual, state: State) -> State | None:
    """One ascent step by a backtracking line search on the dual value; None where nothing rises."""
    dual.add_curvature(state)
    bands, y = state.p.size, state.multipliers
    gradient = np.concatenate([state.sums - 0.5 * state.p, state.cost - dual.budget])
    curvature = state.curvature.copy()
    curvature.flat[: bands * (y.size + 1) : y.size + 1] += 0.5
    if dual.window is not None:
        wanted = np.sqrt(dual.program.final_error / state.nu)
        gradient = np.append(gradient, wanted - state.near)
        curvature[-1, -1] += 0.5 * wanted / state.nu
    chain = np.diag(y)
    if dual.window is not None:
        chain[-1, -1] = y[-1] * state.share
        chain[-1, bands:-1] = y[-1] * state.ceiling_slope
    gradient = gradient @ chain
    if not np.all(np.isfinite(gradient)):
        return None
    matrix = chain.T @ curvature @ chain + np.diag(np.maximum(-gradient, 0.0))
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-290))
    matrix = matrix / scale / scale[:, None] + 1e-12 * np.eye(y.size)
    try:
        move = np.linalg.solve(matrix, gradient / scale) / scale
    except np.linalg.LinAlgError:
        move = gradient / scale**2
    move = np.clip(move, -_REACH, _REACH)
    if not gradient @ move > 0:
        move = np.clip(gradient / scale**2, -_REACH, _REACH)
    promise, size = float(gradient @ move), 1.0
    for _ in range(40):
        trial = _best_window(dual, np.clip(state.theta + size * move, -300.0, 690.0))
        if trial is not None and trial.value >= state.value + 1e-4 * size * promise - 4e-16 * abs(state.value):
            return trial
        size *= 0.5
    return None


def _without_slack(dual: LevelDual, state: State) -> JointSolution | None:
    """The same point with the multipliers of slack budgets set to exactly 0, where that still proves it."""
    slack = state.eta * dual.budget < 1e-9 * abs(state.value)
    kept = [j for j, off in zip(dual.active, slack, strict=True) if not off]
    if not slack.any() or dual.window is not None:
        return None
    reduced = LevelDual(dual.program, kept, dual.a) if kept else None
    if reduced is None or not reduced.bounded:
        return None
    bands = state.p.size
    again = reduced.state(np.concatenate([state.theta[:bands], state.theta[bands:][~slack]]))
    return None if again is None else _conclude(reduced, again, _NEWTON + _CLIMB)


# ---------------------------------------------------------------------- proof


def _conclude(dual: LevelDual, state: State, iteration: int) -> JointSolution | None:
    """The point moved into all budgets, its value, and the dual value at these multipliers."""
    program = dual.program
    point = _repaired(dual, state)
    if point is None:
        return None
    total, n = point
    value, constant = dual.objective(total, n)
    proof: State | None = state
    if dual.a is not program.errors or dual.window is not None:
        dual = LevelDual(program, dual.active) if dual.a is not program.errors else dual
        proof = dual.checked(state)
    if proof is None:
        return None
    lower = proof.value - dual.root_error(proof)
    if not (np.isfinite(value) and np.isfinite(lower)):
        return None
    # below 1e-16 of the whole everything is rounding
    scale = max(value, 1e-8 * (value + constant))
    gap = (value - lower) / scale if scale > 0 else 0.0
    multipliers, bands = np.zeros(program.budgets.size), np.zeros(len(program.response))
    multipliers[dual.active], bands[dual.rows] = state.eta, state.p
    examples = total - dual.spent
    return JointSolution(
        examples, n, value + constant, lower + constant, gap, multipliers, bands, proof.nu, iteration
    )


def _repaired(dual: LevelDual, state: State) -> tuple[Array, Array] | None:
    """(T, n) moved towards the cheapest design until every budget is met, or away from it until one is used up.

    Floors and spent examples are kept: what is scaled is what lies above them, and only what the budget prices.
    """
    program = dual.program
    c, k, budgets = program.examples_prices, program.steps_prices, program.budgets
    room = budgets - c @ (dual.low - dual.spent) - k @ dual.n_low
    if np.any(room < -1e-12 * budgets):
        return None
    above, further = state.total - dual.low, state.n - dual.n_low
    cost = c @ above + k @ further
    share = float(np.min(np.maximum(room, 0.0) / np.where(cost > 0, cost, 1e-300)))
    if 0.99 < share < 1.01 or budgets.size == 1:
        above, further = min(share, 1.01) * above, min(share, 1.01) * further
    else:
        for j in range(budgets.size):
            cost_j = float(c[j] @ above + k[j] @ further)
            if cost_j > room[j]:
                shrink = max(float(room[j]), 0.0) / cost_j
                above, further = np.where(c[j] > 0, shrink, 1.0) * above, np.where(k[j] > 0, shrink, 1.0) * further
    return np.minimum(dual.low + above, dual.high), np.minimum(dual.n_low + further, dual.n_high)


# ---------------------------------------------------------------------- derivatives


class Sensitivity(NamedTuple):
    """Derivatives of the optimal value (docs/theory.md section 8).

    Attributes:
        budget: (J,) by each budget.
        example_price: by the logarithm of a factor common to all prices of examples.
        step_price: by the logarithm of a factor common to all prices of steps.
    """

    budget: Array
    example_price: float
    step_price: float


def sensitivity(program: JointProgram, found: JointSolution) -> Sensitivity:
    """Derivatives of the optimal value by the envelope theorem: the multipliers times what is bought.

    >>> one = np.ones(3)
    >>> program = JointProgram(one, 0 * one, one, np.ones((1, 3)), 1, np.ones((1, 3)), np.ones((1, 3)), np.array([12.0]))
    >>> found = sensitivity(program, solve_joint(program))
    >>> bool(abs(found.budget @ program.budgets + found.example_price + found.step_price) < 1e-9)
    True
    """
    eta = found.budget_multipliers
    return Sensitivity(
        -eta,
        float(eta @ (program.examples_prices @ found.examples)),
        float(eta @ (program.steps_prices @ found.steps)),
    )


def stopping_slope(
    before: JointProgram, after: JointProgram, found: JointSolution, distance: float
) -> float:
    """d value / d stopping point: the change of the Lagrangian between two programs at one design and its multipliers.

    Args:
        before, after: the programs at two neighbouring stopping points, on the same number of levels.
        found: the solution at either of them or between.
        distance: stopping point of `after` minus that of `before`, not 0.

    Raises:
        ValueError: the programs differ in levels, bands, budgets, order or form, or distance is 0.
    """
    same = ("size", "order", "form")
    if any(getattr(before, name) != getattr(after, name) for name in same) or before.response.shape != after.response.shape:
        raise ValueError("stopping_slope: the two programs must have the same levels, bands, order and form.")
    if before.budgets.size != after.budgets.size:
        raise ValueError("stopping_slope: the two programs must have the same budgets.")
    if not np.isfinite(distance) or distance == 0:
        raise ValueError(f"stopping_slope: distance is {distance}; it must be finite and not 0.")
    with np.errstate(all="ignore"):
        return (_lagrangian(after, found) - _lagrangian(before, found)) / distance


def _lagrangian(program: JointProgram, found: JointSolution) -> float:
    dual = LevelDual(program, list(range(program.budgets.size)))
    value, constant = dual.objective(dual.spent + found.examples, found.steps)
    cost = program.examples_prices @ found.examples + program.steps_prices @ found.steps
    return value + constant + float(found.budget_multipliers @ (cost - program.budgets))
