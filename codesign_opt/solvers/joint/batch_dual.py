"""The dual functions of many joint programs of one shape at once, one row a program.

docs/theory.md section 7.4. Level minimisers, their sums and the linearised conditions are those of dual.py; what is
added is bookkeeping: which members the batch can take, and which of them have no minimum at their multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ...basics.checks import Array, Indices, Mask
from .closed_forms import LevelForms
from .dual import REACH, Dual, State
from .guesses import first_guess

__all__ = ["BatchDual", "BatchState", "JointBatch"]


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
        final_offset: (R,); 0 unless given.
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
    final_offset: Array | None = None

    def take(self, rows: Indices) -> JointBatch:
        """Some of the members."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays: dict[str, Any] = {name: v[rows] for name, v in values.items() if isinstance(v, np.ndarray)}
        return replace(self, **arrays)

    def usual(self, active: list[int]) -> Mask:
        """(R,) members that the batch can take with these budgets priced; the rest needs solve_joint's care.

        What it asks for makes every minimum unique and finite: all levels train or none does, each with more error
        than a trace beside the last evaluation's, every example and step has a price, every level and band responds.
        """
        # errors below 1e-20 of the last evaluation's are the traces that solve_joint adds where examples are not unique
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


@dataclass(eq=False, slots=True)
class BatchState(State):
    """A State of many programs with its residual (R, D) and the largest entry of it, inf where there is no minimum."""

    residual: Array
    worst: Array


class BatchDual(Dual):
    """The dual functions of a batch, with multipliers of some of its budgets."""

    def __init__(self, batch: JointBatch, active: list[int]) -> None:
        self.batch, self.active = batch, active
        windowed = bool((batch.final_error > 0).all())
        levels = LevelForms(
            batch.form, batch.order, batch.errors, batch.floors, batch.kappa, batch.spent,
            floored=bool(batch.spent.any()), windowed=windowed,
        )  # fmt: skip
        levels.rest(batch.used)  # every level that a member uses responds
        prices = (batch.examples_prices[:, active], batch.steps_prices[:, active])
        offset = 0.0 if batch.final_offset is None else batch.final_offset
        final = (batch.final_error, batch.final_window, offset) if windowed else None
        super().__init__(levels, batch.errors, batch.response, prices, batch.budgets[:, active], batch.spent, final)

    def state(self, theta: Array) -> BatchState:
        """The states of all members, `worst` inf and `value` -inf where the Lagrangian has no minimum."""
        multipliers, price = self.split(theta)
        s = self.at(multipliers, price)
        residual = self.residual(s)
        worst = np.abs(residual).max(axis=1)
        # marked and carried on, unlike LevelDual's None: the arrays keep their shape, and the line search steps back
        endless = ((price <= 0) & self.levels.trains).any(axis=1)
        bad = endless | ~np.isfinite(worst) | ~np.isfinite(s.value)
        worst[bad], s.value[bad] = np.inf, -np.inf
        parts: list[Any] = [*(getattr(s, f.name) for f in fields(State)), residual, worst]
        return BatchState(*parts)

    def move(self, state: BatchState) -> Array:
        """(R, D) change of (log p, log eta, log nu) by the linearised optimality conditions; 0 where there is none."""
        matrix, residual = self.linearised(state), state.residual
        good = np.all(np.isfinite(residual), axis=1) & np.all(np.isfinite(matrix), axis=(1, 2))
        matrix[~good] = np.eye(matrix.shape[1])  # one singular member would stop the solve of all
        right = np.where(good[:, None], residual, 0.0)[:, :, None]
        try:
            found = np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)[:, :, 0]
        except np.linalg.LinAlgError:
            return np.zeros(residual.shape)
        move = np.where(np.isfinite(found), found, 0.0)
        return move * np.minimum(1.0, REACH / np.maximum(np.abs(move).max(axis=1, keepdims=True), 1e-300))

    def first_guess(self) -> Array:
        """(R, D) theta at a plain design of each member."""
        return first_guess(self, self.batch.used)

    def bound(self, state: BatchState) -> tuple[Array, Array]:
        """The dual value at the multipliers as reported, less what unconverged roots may take off; and that nu."""
        s: State = state
        if self.window is not None:
            s = self.at(*self.reported(state))
        return s.value - self.unconverged(s), s.nu
