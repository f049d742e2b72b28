"""Joint allocation of examples and steps by Newton's method on the dual, one dimension per band and budget.

docs/theory.md section 7, P2 and P3. At the optimum p_b = 2 S_b, every budget with a price is spent and
nu = A_r / (window . T)^2: bands + budgets + 1 equations, whatever the number of levels. Newton's method
on their logarithms takes a few iterations; where it does not certify, a slower method that climbs the
concave dual function at every iteration does. Every answer carries the dual value as its proof.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...basics.checks import Array
from .climb import ENOUGH, REACH, climb
from .dual import LevelDual, State
from .program import JointProgram
from .proof import JointSolution, better, conclude

__all__ = ["JointProgram", "JointSolution", "solve_joint", "solve_many"]

_NEWTON = 25
_FAINT = (1e-24, 1e-32, 1e-18, 1e-13)  # shares of the last evaluation's error given to levels that train little else


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
    >>> row, budget = np.ones((1, 3)), np.array([12.0])
    >>> program = JointProgram(one, 0 * one, one, row, 1, row, row, budget)
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
            best = better(best, _newton(dual, tolerance, None)[0])
            if best is not None and best.relative_gap <= tolerance:
                return best
    dual = LevelDual(program, everything, errors)
    if not dual.feasible or not dual.bounded:
        return None
    state: State | None = None
    if start is not None and start[0].size == len(program.response) and start[1].size == count:
        found, state = _newton(dual, tolerance, start)
        best = better(best, found)
    enough = max(tolerance, ENOUGH)
    if best is None or best.relative_gap > enough:
        found, state = _newton(dual, tolerance, None)
        best = better(best, found)
    if best is None or best.relative_gap > enough:
        plain = np.clip(_first_guess(dual, None), -690.0, 690.0)
        best = climb(dual, tolerance, best, [plain] if state is None else [plain, state.theta])
        if best is None or best.relative_gap > 1e-6:
            for guess in _guess_above_floors(dual):
                best = climb(dual, tolerance, best, [guess])
    return best


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
            best = better(best, conclude(dual, state, iteration))
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
    return move * min(1.0, REACH / max(float(np.abs(move).max()), 1e-300))


def _moved(dual: LevelDual, state: State, move: Array) -> Array:
    """theta after a change of the logarithms; the last entry of theta is the logit of nu below its ceiling."""
    theta = state.theta + move
    if dual.window is not None:
        rise = float(move[-1] - state.ceiling_slope @ move[state.p.size : -1])
        theta[-1] = state.theta[-1] + float(np.clip(rise / max(state.share, 1e-300), -REACH, REACH))
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


def _guess_above_floors(dual: LevelDual) -> list[Array]:
    """Logarithmic multipliers at the floors of the steps plus half of what they leave, where that is little."""
    spent = dual.c @ (dual.low - dual.spent) + dual.k @ dual.n_low
    room = np.maximum(dual.budget - spent, 1e-16 * dual.budget)
    if not dual.r.size or np.all(room > 0.1 * dual.budget):
        return []
    prices = np.maximum(dual.k.sum(axis=1), 1e-300)
    further = 0.5 * float(np.min(np.where(dual.k.any(axis=1), room / prices, np.inf)))
    if not np.isfinite(further):
        return []
    sums = dual.r @ dual._power(np.minimum(dual.n_low + further, dual.n_high))
    etas = dual.q * 2 * float(sums @ sums) / room
    theta = np.log(np.clip(np.concatenate([2 * sums, etas]), 1e-300, 1e300))
    return [theta if dual.window is None else np.append(theta, 0.0)]


def _budget_guess(dual: LevelDual, share: float, n: Array, factor: Array, from_steps: float) -> Array:
    """Multipliers of the budgets at a plain design: what the score and the steps still cost, per price paid."""
    score = np.zeros(n.size)
    if dual.trains.any():
        price = np.maximum(dual.c.sum(axis=0), 1e-300)
        total = np.sqrt(dual.a * factor / price)
        paid = dual.c @ total
        allowed = np.where(paid > 0, share * dual.budget / np.maximum(paid, 1e-300), np.inf)
        total *= float(allowed.min(initial=1e100))
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
