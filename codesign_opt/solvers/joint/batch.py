"""Many joint programs of one shape at once: the dual Newton method of solvers/joint/ over arrays.

docs/theory.md section 7, P2 and P3. The members differ in their coefficients and in which levels they use;
each budget is priced alone first, then all. Whatever does not come out certified is left to `solve_joint`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ...basics.checks import Array, Indices, Mask
from .batch_dual import BatchDual, BatchState, JointBatch
from .proof import relative_gap
from .sums import weigh

__all__ = ["ENOUGH", "BatchSolution", "JointBatch", "solve_batch"]

ENOUGH = 1e-9  # certified relative gap below which a member counts as solved
_CLOSE = 1e-11  # residual at which a member rests: of two budgets the gap is of first order in it
_NEWTON, _HALVINGS = 25, 10
_BLOCK = 2**17  # members times bands times levels held at once: what fits a cache
_STRIDE = 8  # every so many members are solved from a plain guess, the others from their neighbours


@dataclass(eq=False)
class BatchSolution:
    """Primal points, proofs and multipliers as in JointSolution, one row a member; gap inf where there is none.

    `score`, `floor`, `last` and `bands` are the parts of the value: reducible and irreducible score error of the
    levels, the last evaluation's, and (R, B) the roots of the bands' discretisation errors.
    """

    examples: Array
    steps: Array
    value: Array
    lower_bound: Array
    relative_gap: Array
    budget_multipliers: Array
    band_multipliers: Array
    window_multiplier: Array
    score: Array
    floor: Array
    last: Array
    bands: Array

    @classmethod
    def empty(cls, batch: JointBatch) -> BatchSolution:
        """No member is solved yet."""
        count, bands, size = batch.response.shape
        shapes = ((size,), (size,), (), (), (), (batch.budgets.shape[1],), (bands,), (), (), (), (), (bands,))
        found = cls(*(np.zeros((count, *shape)) for shape in shapes))
        found.relative_gap[:] = np.inf
        return found

    def put(self, rows: Indices, other: BatchSolution) -> None:
        """Keep another solution of some of the members where it proves more."""
        better = other.relative_gap < self.relative_gap[rows]
        _put(self, rows[better], other, better)


Rows = BatchSolution | BatchState
_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in (BatchSolution, BatchState)
}


def _put(target: Rows, rows: Indices | Mask, source: Rows, at: Indices | Mask | slice) -> None:
    for name in _FIELDS[type(target)]:
        getattr(target, name)[rows] = getattr(source, name)[at]


def solve_batch(batch: JointBatch) -> BatchSolution:
    """The certified optima of all members that the batch can take, in one Newton iteration over arrays.

    Neighbouring members should be similar: every eighth is solved first, and starts those between.

    >>> one = np.ones((2, 3))
    >>> row, none = np.ones((2, 1, 3)), np.zeros((2, 3))
    >>> budgets = np.array([[12.0], [24.0]])
    >>> batch = JointBatch(one > 0, one, none, one, row, 1, row, row, budgets, none, np.zeros(2), none, "max")
    >>> found = solve_batch(batch)
    >>> found.value.round(6).tolist(), bool(found.relative_gap.max() < 1e-9)
    ([3.434761, 1.297465], True)
    """
    moved = batch.response.max(axis=(0, 2), initial=0.0) > 0
    if not moved.all():  # a direction without variance has no discretisation error
        return _padded(solve_batch(replace(batch, response=batch.response[:, moved])), moved)
    found = BatchSolution.empty(batch)
    if not moved.size:
        return found
    with np.errstate(all="ignore"):
        count = batch.budgets.shape[1]
        for active in [*([j] for j in range(count)), *([list(range(count))] if count > 1 else [])]:
            usual = batch.usual(active)
            rows = np.flatnonzero(usual & (found.relative_gap > ENOUGH))
            if rows.size:
                _solve(batch, rows, active, found)
    return found


def _padded(found: BatchSolution, kept: Mask) -> BatchSolution:
    rows = np.zeros((2, len(found.value), kept.size))
    rows[:, :, kept] = found.band_multipliers, found.bands
    return replace(found, band_multipliers=rows[0], bands=rows[1])


def _solve(batch: JointBatch, rows: Indices, active: list[int], found: BatchSolution) -> None:
    # neighbours differ little: one in eight from afar, the rest from interpolated multipliers, a step or two away; from
    # afar some are not reached, and then are from their neighbours
    first = np.unique(np.append(np.arange(0, rows.size, _STRIDE), rows.size - 1))
    known, theta = _solve_from(batch, rows, first, active, found, None)
    rest = np.setdiff1d(np.arange(rows.size), first)
    block = max(1, _BLOCK // (batch.response.shape[1] * batch.response.shape[2]))
    parts = [
        _solve_from(batch, rows, rest[i : i + block], active, found, (known, theta)) for i in range(0, rest.size, block)
    ]
    missed = np.setdiff1d(first, known)
    if missed.size:
        all_known = np.concatenate([known, *(part[0] for part in parts)])
        all_theta = np.concatenate([theta, *(part[1] for part in parts)])
        order = np.argsort(all_known)
        _solve_from(batch, rows, missed, active, found, (all_known[order], all_theta[order]))


def _solve_from(
    batch: JointBatch,
    rows: Indices,
    part: Indices,
    active: list[int],
    found: BatchSolution,
    near: tuple[Indices, Array] | None,
) -> tuple[Indices, Array]:
    """Solve a part of the rows from multipliers of others, or from afar; which of it is solved, and by which."""
    dual = BatchDual(batch.take(rows[part]), active)
    start = dual.first_guess() if near is None or near[0].size < 2 else _between(part, *near)
    state = _newton(dual, start)
    solved = _conclude(dual, state)
    found.put(rows[part], solved)
    good = solved.relative_gap <= ENOUGH
    return part[good], state.theta[good]


def _between(places: Indices, known: Indices, theta: Array) -> Array:
    return np.stack([np.interp(places, known, column) for column in theta.T], axis=1)


def _conclude(dual: BatchDual, state: BatchState) -> BatchSolution:
    """Points moved into all budgets, their values, and the dual values at these multipliers."""
    b, s = dual.batch, state
    above, n = s.levels.total - b.spent, s.levels.n
    paid = weigh(b.examples_prices, above) + weigh(b.steps_prices, n)
    share = np.where(paid > 0, b.budgets / paid, np.inf).min(axis=1)
    # Newton's method ends within rounding of the budgets: a point far from them is no optimum, and is left to others
    inside = np.isfinite(s.worst) & (share > 0.99)
    share = np.minimum(share, 1.01)[:, None]
    above, n = share * above, share * n
    at = dual.objective(b.spent + above, n)
    lower, nu = dual.bound(s)
    gap = relative_gap(at.value, lower, at.constant)
    gap = np.where(inside & np.isfinite(at.value) & np.isfinite(lower), gap, np.inf)
    etas = np.zeros(b.budgets.shape)
    etas[:, dual.active] = s.eta
    value, lower = at.value + at.constant, lower + at.constant
    return BatchSolution(
        above, n, value, lower, gap, etas, s.p, nu, at.score, at.floor, at.last, at.bands
    )  # fmt: skip


def _newton(dual: BatchDual, theta: Array) -> BatchState:
    """Damped Newton on the logarithms of the optimality conditions, every member until it rests or is stuck."""
    state = dual.state(theta)
    going, here, now = np.arange(len(theta)), dual, state
    for _ in range(_NEWTON):
        on = np.flatnonzero((now.worst > _CLOSE) & np.isfinite(now.worst))
        if not on.size:
            break
        if on.size < going.size:  # members at rest cost as much as the others: the batch shrinks to those still on
            going = going[on]
            here, now = BatchDual(dual.batch.take(going), dual.active), _taken(now, on)
        now, stuck = _step(here, now)
        _put(state, going, now, slice(None))
        if stuck.all():
            break
        if stuck.any():
            going, rest = going[~stuck], np.flatnonzero(~stuck)
            here, now = BatchDual(dual.batch.take(going), dual.active), _taken(now, rest)
    return state


def _step(dual: BatchDual, state: BatchState) -> tuple[BatchState, Mask]:
    """One damped step of all members; which of them found no smaller residual, and stayed."""
    move = dual.move(state)
    todo, here, before = np.arange(len(move)), dual, state
    for _ in range(_HALVINGS):
        trial = here.state(here.moved(before, move[todo]))
        better = trial.worst <= before.worst * (1 - 1e-4)
        if better.all() and todo.size == len(move):  # the usual case: nothing is copied
            return trial, np.zeros(len(move), dtype=bool)
        worse = np.flatnonzero(~better)
        before = _taken(before, worse)
        _put(state, todo[better], trial, better)
        todo = todo[worse]
        if not todo.size:
            break
        move[todo] *= 0.5
        here = BatchDual(dual.batch.take(todo), dual.active)
    stuck = np.zeros(len(move), dtype=bool)
    stuck[todo] = True
    return state, stuck


def _taken(state: BatchState, rows: Indices) -> BatchState:
    return BatchState(*(getattr(state, name)[rows] for name in _FIELDS[BatchState]))
