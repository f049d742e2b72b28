"""Joint fit: Gauss-Newton in all coefficients of a solver and its levels at once, each step a certified program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...basics.ledger import Ledger
from ...ingredients.fit_rules import FitRules
from ..draws.streams import my_share
from ..steps.grid_error import objective_of
from .quadratic import Bounds, damped_step
from .row_runs import Path, RowRuns, summed
from .rows import Rows

__all__ = ["FitState", "JointFit", "Unknowns"]

_NUDGE = 1e-3  # of a coefficient of order one, for forward differences in float32
_LOG_NUDGE = 2e-3  # of the shorter neighbouring step in log sigma
_DAMPING = 1e-3
_LEAST_DAMPING = 1e-9
_TRIES = 10
_SMALL = 1e-3  # gains of the fitted objective below this share, twice in a row, end a fit
_PATIENCE = 3  # accepted steps without progress on the held-out draws
_SHORTEST = 0.25  # of a step in log sigma that a move leaves


@dataclass(frozen=True)
class Unknowns:
    """Which numbers of the rows move: their coefficients, their levels below the first, or both.

    Args:
        coefficients, levels: whether those move.
        stop: whether the last positive level moves with the others.
        lowest: where that ends.
    """

    coefficients: bool = True
    levels: bool = True
    stop: bool = True
    lowest: float = 1e-300

    @classmethod
    def of(cls, rules: FitRules, lowest: float) -> Unknowns:
        """What a fit may change."""
        return cls(rules.moves != "levels", rules.moves != "coefficients", rules.free_stop, lowest)

    def count(self, rows: Rows) -> int:
        """Numbers that move."""
        return sum(self._free(rows, k) for k in range(rows.steps)) + self.moving(rows)

    def _free(self, rows: Rows, k: int) -> int:
        return 1 + rows.reach(k) if self.coefficients else 0

    def moving(self, rows: Rows) -> int:
        """Levels that move: all positive ones but the first, and the last where that is held."""
        return int((rows.levels > 0).sum()) - 1 - (not self.stop) if self.levels else 0

    def bounds(self, rows: Rows) -> Bounds:
        """Of every step in log sigma between moving levels a move leaves a quarter, and no level falls too low."""
        moving, size = self.moving(rows), self.count(rows)
        logs = np.log(rows.levels[rows.levels > 0])
        steps = -np.diff(logs)
        held = np.zeros((steps.size + 1, steps.size))  # of the levels below the first, the last among them
        held[np.arange(steps.size), np.arange(steps.size)] = -1.0
        held[np.arange(1, steps.size), np.arange(steps.size - 1)] = 1.0
        held[-1, -1] = 1.0
        least = np.append(-(1 - _SHORTEST) * steps, min(0.0, float(np.log(self.lowest)) - logs[-1]))
        some = np.any(held[:, :moving] != 0, axis=1)
        return Bounds(np.pad(held[some][:, :moving], ((0, 0), (size - moving, 0))), least[some])

    def applied(self, rows: Rows, move: Array) -> Rows | None:
        """The rows after a move; None where its levels would come too near to each other."""
        at = 0
        for k in range(rows.steps):
            size = self._free(rows, k)
            if size:
                rows = rows.with_row(k, rows.free(k) + move[at : at + size])
            at += size
        if not self.moving(rows):
            return rows
        logs = np.log(rows.levels[rows.levels > 0])
        after = logs[1:].copy()
        after[: move.size - at] += move[at:]
        after[-1] = max(after[-1], min(logs[-1], float(np.log(self.lowest))))
        if np.any(-np.diff(np.concatenate([logs[:1], after])) < (1 - 1e-6) * _SHORTEST * -np.diff(logs)):
            return None
        return rows.moved(after)


@dataclass(frozen=True, eq=False)
class FitState:
    """Rows with their squared errors on fitted and held-out draws, and the damping that the next step begins with."""

    rows: Rows
    errors: Array
    held_out: Array
    damping: float


@dataclass(eq=False)
class JointFit:
    """Levenberg-Marquardt on the terminal residuals, as long as the budget lasts and held-out draws gain.

    Args:
        runs, held_out: draws that are fitted, and draws that choose among the iterates.
        unknowns: what moves.
        objective: "mean", "geometric" or "trimmed", see `objective_of`.
        history: outputs that a row takes.
        budget: calls of the denoiser by both, those already made included.
        ledger: where finished steps are kept.
        gaps: certified relative gaps of the programs that were solved.
        name: of its steps in the ledger.
    """

    runs: RowRuns
    held_out: RowRuns
    unknowns: Unknowns
    objective: str
    history: int
    budget: int
    ledger: Ledger
    gaps: list[float] = field(default_factory=list)
    name: str = "joint"

    def fit(self, start: Rows, damping: float = _DAMPING) -> tuple[FitState, str]:
        """The best rows on the held-out draws, and why it stopped."""
        value = objective_of(self.objective)
        now = best = FitState(start, self.runs.errors(start), self.held_out.errors(start), damping)
        taken, idle, small = 0, 0, 0
        while True:
            if not value(now.errors)[0] > 0:
                return best, "no error is left"
            if self.spent + self.cost(now.rows) > self.budget:
                return best, "budget"
            there = self._step(now, taken)
            if there is None:
                return best, "no lower error"
            taken += 1
            small = small + 1 if value(there.errors)[0] > (1 - _SMALL) * value(now.errors)[0] else 0
            now = there
            better = value(now.held_out)[0] < value(best.held_out)[0]
            best, idle = (now, 0) if better else (best, idle + 1)
            if idle >= _PATIENCE:
                return best, "held-out error stopped falling"
            if small >= 2:
                return best, "converged"

    @property
    def spent(self) -> int:
        """Calls of the denoiser so far."""
        return self.runs.batches + self.held_out.batches

    def cost(self, rows: Rows) -> int:
        """Calls that one step takes: a path, its derivatives, and one trial on both sets of draws."""
        return self._slope_cost(rows) + self.trial_cost(rows)

    def _slope_cost(self, rows: Rows) -> int:
        """Calls of a path and of its derivatives, on the draws that are fitted."""
        count, one = rows.steps, rows.steps
        if self.unknowns.coefficients:
            one += sum((1 + rows.reach(k)) * (count - 1 - k) for k in range(count))
        one += sum(count - k for k in range(self.unknowns.moving(rows)))
        return self.runs.draws.chunks * one

    def trial_cost(self, rows: Rows) -> int:
        """Calls of one trial: a run on both sets of draws."""
        return rows.steps * (self.runs.draws.chunks + self.held_out.draws.chunks)

    def _step(self, now: FitState, number: int) -> FitState | None:
        """One accepted step, kept in the ledger."""
        found = self.ledger.item(f"{self.name}/{number}", lambda: self._computed(now))
        self.runs.batches, self.held_out.batches = (int(count) for count in found["batches"])
        self.gaps.extend(np.atleast_1d(found["gaps"]).tolist())
        if not found["levels"].size:
            return None
        rows = Rows(found["levels"], found["a"], found["c"])
        return FitState(rows, found["errors"], found["held_out"], float(found["damping"]))

    def _computed(self, now: FitState) -> Mapping[str, Any]:
        (value, weights), damping = objective_of(self.objective)(now.errors), now.damping
        gram, slope = self._linearised(now.rows, weights / value)
        gaps, result = [], {"levels": np.zeros(0), "damping": damping}
        for _ in range(_TRIES):
            if self.spent + self.trial_cost(now.rows) > self.budget:
                break
            step = damped_step(gram, slope, damping, self.unknowns.bounds(now.rows))
            gaps.append(step.relative_gap)
            rows = self.unknowns.applied(now.rows, step.move)
            errors = None if rows is None else self.runs.errors(rows)
            if rows is not None and errors is not None and objective_of(self.objective)(errors)[0] < value:
                after = max(damping / 5, _LEAST_DAMPING)
                result = {"levels": rows.levels, "a": rows.a, "c": rows.c, "errors": errors, "damping": after}
                result["held_out"] = self.held_out.errors(rows)
                break
            damping *= 5
        return {**result, "gaps": np.array(gaps), "batches": np.array([self.runs.batches, self.held_out.batches])}

    @torch.no_grad()
    def _linearised(self, rows: Rows, weights: Array) -> tuple[Array, Array]:
        """(P, P) J'WJ and (P,) J'Wr of the terminal residuals, J by forward differences."""
        size, parts = self.unknowns.count(rows), []
        self.runs.batches += self._slope_cost(rows)
        for chunk in my_share(self.runs.draws.chunks):
            path = self.runs.path(rows, chunk)
            own = torch.as_tensor(weights[self.runs.draws.rows(chunk)]).sqrt()[:, None].to(path.states[-1].device)
            columns = [self._column(moved, path, chunk, own, nudge) for moved, nudge in self._nudged(rows)]
            rest = (own * (path.states[-1] - self.runs.end(chunk)).flatten(1)).flatten()
            stacked = torch.stack([*columns, rest])
            parts.append((stacked @ stacked.T).cpu().numpy())
        total = summed(parts, (size + 1, size + 1))
        return total[:-1, :-1], total[:-1, -1]

    def _column(self, moved: tuple[int, Rows, bool], path: Path, chunk: int, own: torch.Tensor, nudge: float) -> Any:
        first, rows, level = moved
        if level:
            end = self.runs.path(rows, chunk, first=first, before=path).states[-1]
        else:
            end = self.runs.after(rows, first, path, chunk)
        return (own * (end - path.states[-1]).flatten(1) / nudge).flatten()

    def _nudged(self, rows: Rows) -> list[tuple[tuple[int, Rows, bool], float]]:
        """Every unknown moved a little: the first step that changes, the rows, whether a level moved."""
        found: list[tuple[tuple[int, Rows, bool], float]] = []
        for k in range(rows.steps if self.unknowns.coefficients else 0):
            for i in range(1 + rows.reach(k)):
                free = rows.free(k)
                free[i] += _NUDGE
                found.append(((k, rows.with_row(k, free), False), _NUDGE))
        logs = np.log(rows.levels[rows.levels > 0])
        for k in range(1, 1 + self.unknowns.moving(rows)):
            nudge = _LOG_NUDGE * float(-np.diff(logs)[k - 1 : k + 1].max())
            moved = logs[1:].copy()
            moved[k - 1] += nudge
            # the step into the level changes, with the output that it began with
            found.append(((k - 1, rows.moved(moved), True), nudge))
        return found
