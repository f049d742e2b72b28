"""Joint allocation of examples and steps by Newton's method on the dual, one dimension per band and budget.

docs/theory.md section 7, P2 and P3. At the optimum p_b = 2 S_b, every budget with a price is spent and
nu = A_r / (window . T)^2: bands + budgets + 1 equations, whatever the number of levels. Newton's method
on their logarithms takes a few iterations; where it does not certify, a slower method that climbs the
concave dual function at every iteration does. Every answer carries the dual value as its proof.
"""

from __future__ import annotations

import numpy as np

from ...basics.checks import Array
from .climb import ENOUGH, climb
from .dual import REACH, LevelDual, State
from .guesses import above_floors, first_guess, guess_of
from .program import JointProgram
from .proof import JointSolution, better, conclude

__all__ = ["JointProgram", "JointSolution", "solve_joint"]

_NEWTON = 25  # iterations: well-scaled programs take 2 to 8
_CONVERGED = 1e-13  # residual that rounding allows to reach
_NEAR = 1e-5  # residual below which a proof is worth trying: the gap is then some 1e-10 with one budget, 1e-5 with more
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
    # a budget that is not used up has multiplier 0, which has no logarithm: each alone first, the others as if slack
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
        # Newton's last state may be far off as well as near: the climb takes the better of both starts
        plain = first_guess(dual)
        best = climb(dual, tolerance, best, [plain] if state is None else [plain, state.theta])
        if best is None or best.relative_gap > 1e-6:
            for guess in above_floors(dual):
                best = climb(dual, tolerance, best, [guess])
    return best


def _faint_errors(program: JointProgram, share: float) -> Array | None:
    """A with a trace of error on levels that mostly serve the last evaluation, which makes their examples unique.

    The search uses it; the proof uses the program's own A.
    """
    if program.final_error == 0 or program.final_window is None or not program.final_window.any():
        return None
    # where only the last evaluation wants examples, every split of them over the window is as good: the dual is not
    # differentiable there, and Newton's method goes to and fro between levels
    weight = program.final_window / program.final_window.sum()
    least = np.where(weight > 0, np.maximum(share * program.final_error * weight, 1e-200), 0.0)
    return np.maximum(program.errors, least) if np.any(program.errors < least) else None


# ---------------------------------------------------------------------- Newton on the logarithms


def _newton(
    dual: LevelDual, tolerance: float, start: tuple[Array, Array] | None
) -> tuple[JointSolution | None, State | None]:
    """Damped Newton on the logarithms of the optimality conditions; its best proof and its last state."""
    if start is None:
        theta = first_guess(dual)
    else:
        theta = guess_of(dual, np.maximum(start[0][dual.rows], 1e-300), np.maximum(start[1][dual.active], 1e-300))
    state = dual.state(theta)
    if state is None:
        return None, None
    best: JointSolution | None = None
    residual = dual.residual(state)
    worst = _worst(residual)
    for iteration in range(_NEWTON):
        if worst < _NEAR:
            best = better(best, conclude(dual, state, iteration))
            if worst < _CONVERGED or (best is not None and best.relative_gap <= tolerance):
                return best, state
        move = _newton_move(dual, state, residual)
        if move is None:
            break
        for _ in range(10):
            trial = dual.state(dual.moved(state, move))
            if trial is not None:
                trial_residual = dual.residual(trial)
                trial_worst = _worst(trial_residual)
                # the largest residual must fall, but for a last digit: at the end rounding alone moves it
                if trial_worst <= worst * (1 - 1e-4) + 1e-14:
                    break
            move = 0.5 * move
            trial = None
        if trial is None:
            break
        state, residual, worst = trial, trial_residual, trial_worst
    return best, state


def _newton_move(dual: LevelDual, state: State, residual: Array) -> Array | None:
    """Change of (log p, log eta, log nu) by the linearised optimality conditions."""
    if not np.all(np.isfinite(residual)):
        return None
    try:
        move = np.linalg.solve(dual.linearised(state), residual)
    except np.linalg.LinAlgError:
        return None
    if not np.all(np.isfinite(move)):
        return None
    # shortened as a whole: the direction keeps the balance of the budgets, which clipping each entry would lose
    return np.asarray(move * min(1.0, REACH / max(float(np.abs(move).max()), 1e-300)))


def _worst(residual: Array) -> float:
    """The largest entry; inf where one is NaN."""
    worst = float(np.abs(residual).max())
    return worst if worst == worst else np.inf
