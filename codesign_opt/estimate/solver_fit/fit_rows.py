"""fit_rows: levels and coefficients of a multistep solver fitted to a denoiser, held-out draws deciding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.checks import Array, integer, shown
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...ingredients.fit_rules import FitRules
from ...samplers.linear_multistep import LinearMultistep
from ..denoisers.in_turn import filled
from ..runs.fine_solution import Draws, Reference
from ..steps.grid_error import GridErrors, objective_of, starting_at
from .joint import JointFit, Unknowns
from .more_draws import GrownFit
from .row_runs import RowRuns
from .rows import Rows, two_step_rows
from .stepwise import stepwise_fit

__all__ = ["FittedSolver", "fit_rows"]

_SCREENED = 3  # starts that are fitted step by step at most
_STEPWISE = 300  # batches that the stepwise fits may take: fewer starts of many steps


@dataclass(frozen=True, eq=False)
class FittedSolver:
    """Levels and coefficients with the smallest held-out error that a fit met.

    Attributes:
        solver: its levels and coefficients, x_{k+1} = a_k x_k + sum_j c_kj D_{k-j}; every row sums to one.
        start: (K+1,) the grid that the fit came from.
        held_out, held_out_before: errors on the held-out draws of the solver, and of the two-step solver on `start`.
            The choice was made on them: report the error on other draws.
        batches: calls of the denoiser by all processes, the fine solution's included.
        programs, gap: quadratic programs that were solved, and the largest certified relative gap of them. The
            sequence of programs is local: no more is proved of where it ends than the errors say.
        reason: why the joint fit stopped.
        between: conditions that were fitted, and held out, between those of the denoiser; see `conditioned`, `mixed`.
        left_out: such conditions that a batch had no room for.
    """

    solver: LinearMultistep
    start: Array
    held_out: GridErrors
    held_out_before: GridErrors
    batches: int
    programs: int
    gap: float
    reason: str
    between: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("batches", "programs", "between", "left_out"), int)
        errors = dict.fromkeys(("held_out", "held_out_before"), GridErrors)
        holds(self, solver=LinearMultistep, start="node", gap=float, reason=str, **counts, **errors)

    @property
    def gain(self) -> float:
        """Held-out error over that before the fit."""
        return float(self.held_out.mean.value / self.held_out_before.mean.value)

    @property
    def gain_error(self) -> float:
        """Standard error of the gain, draws paired."""
        return float(self.held_out.ratio(self.held_out_before).standard_error)

    @property
    def numbers(self) -> int:
        """Free coefficients and levels of the solver."""
        history, steps = self.solver.c.shape[1], self.solver.a.size
        return sum(1 + min(history - 1, k) for k in range(steps)) + int((self.solver.levels > 0).sum()) - 1

    @property
    def record(self) -> dict[str, float]:
        """What a plan keeps of the fit."""
        return {
            "history": float(self.solver.c.shape[1]), "numbers": float(self.numbers), "gain": self.gain,
            "gain_error": self.gain_error, "programs": float(self.programs), "gap": self.gap,
            "evaluations": float(self.batches), **({"between": float(self.between)} if self.between else {}),
        }  # fmt: skip

    def __repr__(self) -> str:
        steps, history = self.solver.a.size, self.solver.c.shape[1]
        between = f" with {self.between} conditions between those given" if self.between else ""
        if self.left_out:
            between = f", without {self.left_out} conditions between those given, for which a batch has no room"
        return (
            f"FittedSolver({steps} multistep steps of at most {min(steps, history)} outputs, {self.numbers} numbers; "
            f"held-out error {self.gain:.3g} +- {self.gain_error:.1g} of the best two-step start's{between}; "
            f"{self.programs} quadratic programs proved to {max(self.gap, 1e-16):.0e}, their sequence local; "
            f"{self.batches} batches, stopped: {self.reason})"
        )


def fit_rows(
    reference: Reference,
    held_out: Draws,
    starts: Iterable[Any],
    *,
    rules: FitRules | None = None,
    budget: int = 5000,
    folder: str | Path | None = None,
) -> FittedSolver:
    """Multistep solver of least measured error |run - fine|^2, one call of the denoiser a step.

    For each grid the rows of DPM-Solver++(2M), then each row by ridge regression on the solver's own states
    (`stepwise_fit`); from the best, Gauss-Newton in all coefficients and levels at once (`JointFit`), each step a
    strictly convex quadratic program with its certificate. Held-out draws choose among all of them, the starts too.
    Of conditions that are quantities, values between take part, fitted and held out, where a batch has room for them.
    Slopes are differences, so that any callable serves. docs/theory.md section 7.11.

    Args:
        reference: the fine solution; its draws are fitted. Its sampler is not used: the fine solution of a
            probability-flow ODE is the same for all.
        held_out: independent draws; the rows with the smallest objective on them are returned.
        starts: grids of one length and terminal map.
        rules: history, what moves, and the objective; 3, both, and the mean unless given.
        budget: batches (calls of the denoiser), the fine solutions included.
        folder: where finished parts are kept, so that a killed fit goes on to the same result.

    Raises:
        ValueError: a malformed argument, a stochastic sampler, held-out draws that are the fitted ones, or a budget
            that does not cover the starts.

    >>> import torch, codesign_opt as co
    >>> lam = torch.tensor([1.0, 0.1], dtype=torch.float64)
    >>> denoiser = lambda x, sigma: x * lam / (lam + sigma[:, None] ** 2)
    >>> draws = [Draws((2,), 8, 10.0, name=name, like=lam) for name in ("fit", "held out")]
    >>> reference = Reference(denoiser, co.Euler(), draws[0], 0.01, steps=32)
    >>> fit_rows(reference, draws[1], [co.edm_grid(4, 0.01, 10.0)]).gain < 0.01
    True
    """
    rules = FitRules() if rules is None else rules
    grids, given = _checked(starts, reference, held_out), reference.denoiser
    most = min(size for draws in (reference.draws, held_out) for size in (draws.chunk, draws.count))
    reference = replace(reference, denoiser=filled(given, most))
    between, gaps = reference.denoiser.conditions - given.conditions, given.between()
    left_out = gaps.conditions if gaps is not None and not between else 0
    question: dict[str, Any] = {
        "what": "solver fit",
        "held_out": held_out.describe(),
        "starts": [grid.tolist() for grid in grids],
    }
    question |= asdict(rules) | ({"between": between} if between else {})
    ledger = reference.items_in(folder, question)
    budget = integer(budget, "budget", minimum=1)
    grids, screening = _screened(reference, held_out, grids, rules, ledger)
    inner = np.unique(np.concatenate([grid[1:-1] for grid in grids]))
    runs, others = (RowRuns(each, inner, ledger) for each in (reference, reference.with_draws(held_out)))
    others.batches += screening
    unknowns = Unknowns.of(rules, reference.stopping_sigma)
    work = _Work(JointFit(runs, others, unknowns, rules.objective, rules.first_history, budget, ledger))
    work.check_budget(grids)
    tried = [work.started(number, grid) for number, grid in enumerate(grids)]
    best = min(tried, key=lambda found: work.value(found.held_out))
    first = min(tried, key=lambda found: work.value(found.before))
    found = work.finished(best.rows, rules)
    last, rows = found.joint.held_out, found.best.rows
    before = first.before if last is others else last.errors(two_step_rows(first.grid, rules.first_history))
    return FittedSolver(
        LinearMultistep(rows.levels, rows.a, rows.c), best.grid, GridErrors(found.best.held_out), GridErrors(before),
        found.joint.spent, len(found.joint.gaps), max(found.joint.gaps, default=0.0), found.reason, between,
        left_out,
    )  # fmt: skip


def _screened(
    reference: Reference, held_out: Draws, grids: list[Array], rules: FitRules, ledger: Ledger
) -> tuple[list[Array], int]:
    """The first grid and those whose two-step rows do best on a batch of held-out draws, and the batches it took."""
    one = _stepwise_cost(rules.moves != "levels", reference.draws, held_out) * (grids[0].size - 1)
    count = min(_SCREENED, max(1, _STEPWISE // one))
    if len(grids) <= count:
        return grids, 0

    def compute() -> dict[str, Any]:
        few = reference.with_draws(replace(held_out, count=min(held_out.count, held_out.chunk)))
        runs = RowRuns(few, np.zeros(0), Ledger(None, {}))
        errors = [runs.errors(two_step_rows(grid, rules.first_history)) for grid in grids]
        return {"errors": np.stack(errors), "batches": np.array(runs.batches)}

    found = ledger.item("screening", compute)
    values = [objective_of(rules.objective)(errors)[0] for errors in found["errors"]]
    order = sorted(range(1, len(grids)), key=lambda number: values[number])
    return [grids[number] for number in (0, *order[: count - 1])], int(found["batches"])


@dataclass(frozen=True, eq=False)
class _Start:
    """What a grid gives before the joint fit: its best rows, held-out errors of them and of the two-step rows."""

    grid: Array
    rows: Rows
    held_out: Array
    before: Array


@dataclass(frozen=True, eq=False)
class _Work:
    """The stepwise fits of a joint fit's starts."""

    joint: JointFit

    def value(self, errors: Array) -> float:
        """The objective of some squared errors."""
        return objective_of(self.joint.objective)(errors)[0]

    def finished(self, rows: Rows, rules: FitRules) -> GrownFit:
        """The rows after the joint fit and, if asked for, after that of all outputs, on half of what is left each."""
        joint = self.joint
        if not rules.polishes:
            return GrownFit.of(joint, rows)
        first = GrownFit.of(replace(joint, budget=(joint.spent + joint.budget) // 2), rows)
        polish = replace(first.joint, budget=joint.budget, name="polish")
        return GrownFit.of(polish, first.best.rows.widened(rows.steps))

    def check_budget(self, grids: list[Array]) -> None:
        """Refuse a budget that does not cover the starts."""
        joint = self.joint
        one = _stepwise_cost(joint.unknowns.coefficients, joint.runs.draws, joint.held_out.draws)
        needed = joint.spent + one * sum(grid.size - 1 for grid in grids)
        if needed > joint.budget:
            raise ValueError(f"budget is {joint.budget} batches; the fine solution and the starts alone take {needed}.")

    def started(self, number: int, grid: Array) -> _Start:
        """A grid with two-step rows and with rows fitted step by step, whichever does better on held-out draws."""
        found = self.joint.ledger.item(f"start/{number}", lambda: self._computed(grid))
        joint = self.joint
        joint.runs.batches, joint.held_out.batches = (int(count) for count in found["batches"])
        joint.gaps.extend(found["gaps"].tolist())
        return _Start(grid, Rows(grid, found["a"], found["c"]), found["held_out"], found["before"])

    def _computed(self, grid: Array) -> dict[str, Any]:
        joint = self.joint
        rows = two_step_rows(grid, joint.history)
        before = held_out = joint.held_out.errors(rows)
        gaps: list[float] = []
        if joint.unknowns.coefficients:
            fitted, proofs = stepwise_fit(joint.runs, joint.held_out, rows)
            gaps = [step.relative_gap for step in proofs]
            after = joint.held_out.errors(fitted)
            if self.value(after) < self.value(before):
                rows, held_out = fitted, after
        batches = np.array([joint.runs.batches, joint.held_out.batches])
        return {"a": rows.a, "c": rows.c, "before": before, "held_out": held_out, "gaps": gaps, "batches": batches}


def _stepwise_cost(coefficients: bool, draws: Draws, held_out: Draws) -> int:
    """Batches for a step of a start: its two-step rows, the stepwise fit on both sets of draws, and the fit's error."""
    return draws.chunks + 3 * held_out.chunks if coefficients else held_out.chunks


def _checked(starts: Iterable[Any], reference: Reference, held_out: Draws) -> list[Array]:
    if reference.sampler.stochastic:
        raise ValueError(
            f"reference.sampler is {shown(reference.sampler)}, which draws noise; a solver is fitted to the "
            "probability-flow ODE: give Euler() or DPMpp2M()."
        )
    if (held_out.seed, held_out.name) == (reference.draws.seed, reference.draws.name):
        raise ValueError("held_out has the seed and name of the fitted draws; give it another name.")
    grids = [starting_at(grid, reference) for grid in starts]
    if not grids or len({(grid.size, bool(grid[-1] == 0)) for grid in grids}) != 1:
        raise ValueError("starts must hold at least one grid, all of one number of steps and one terminal map.")
    return grids
