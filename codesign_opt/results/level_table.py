"""The noise levels of a plan as a text table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..basics import causes
from ..basics.checks import integer
from ..basics.wording import aligned, percent, quantity

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["level_table", "planned_training"]

Index = npt.NDArray[np.integer]


def planned_training(plan: PlanRecord) -> bool:
    """Whether the plan decides examples: some level gains by them, or they are not the neutral ones."""
    gains = (plan.tables.get("score_weight", 0.0), plan.tables.get("information_gain", 0.0))
    neutral = np.all(plan.examples == 1.0) or np.all(plan.examples == 0.0)
    return any(bool(np.any(np.asarray(gain) > 0)) for gain in gains) or not neutral


def level_table(plan: PlanRecord, rows: int | None = None) -> str:
    """A plan's noise levels as text, merged to `rows` rows of equal extent in log sigma.

    Examples, steps and errors are summed over the levels of a row; the density is examples per unit
    log sigma, the step size is in sigma (a row's extent over its steps: it may exceed sigma where a
    row holds less than one step), the gain is the decrease of the error per unit of price spent on
    examples, averaged over the row's examples.

    Args:
        rows: most rows to show, >= 1; 12 unless given. No row is finer than a level.

    >>> from codesign_opt import Coefficients, Discretization, Levels, Problem, Steps
    >>> import numpy as np
    >>> levels = Levels.log_uniform(0.01, 10.0, 20)
    >>> table = Coefficients(levels, np.zeros(20), np.zeros(20), np.ones((1, 20)))
    >>> plan = Problem(Discretization(table), [Steps() <= 5]).solve()
    >>> print(level_table(plan, 2))
           sigma  steps  step size  discret.
    0.01 – 0.316      2      0.153      71.2
      0.316 – 10      2       4.84      71.2
           total      4                  142
    """
    most = 12 if rows is None else integer(rows, "rows", minimum=1)
    groups = _groups(plan, most)
    body = [_level_row(plan, group) for group in groups]
    body.append(_total_row(plan))
    names = [name for name in body[0] if any(row.get(name) not in ("", None, "0") for row in body)]
    cells = [[row.get(name, "") for name in names] for row in body]
    return "\n".join(aligned(names, cells, left=(), indent=""))


def _groups(plan: PlanRecord, rows: int) -> list[Index]:
    """Indices of the levels of each row: equal extents in log sigma, or single levels."""
    if rows >= len(plan.levels):
        return [np.array([i]) for i in range(len(plan.levels))]
    logs = np.log(plan.levels.edges)
    position = (np.log(plan.levels.sigma) - logs[0]) / (logs[-1] - logs[0])
    index = np.minimum((position * rows).astype(np.int64), rows - 1)
    return [np.flatnonzero(index == i) for i in range(rows) if np.any(index == i)]


def _level_row(plan: PlanRecord, on: Index) -> dict[str, str]:
    levels, steps = plan.levels, float(plan.steps[on].sum())
    low, high = levels.edges[on[0]], levels.edges[on[-1] + 1]
    row = {"sigma": f"{quantity(low, 3)} – {quantity(high, 3)}"}
    if planned_training(plan):
        count = float(plan.examples[on].sum())
        row["examples"] = _count(count)
        row["share"] = percent(count / (plan.examples.sum() or 1.0))
        row["per ln sigma"] = _count(count / levels.log_width[on].sum())
    if steps > 0:
        row["steps"] = quantity(steps, 3)
        row["step size"] = quantity(float(levels.width[on].sum()) / steps, 3)
    row.update(_level_errors(plan, on))
    row["gain/price"] = quantity(_mean_gain(plan, on), 3) if "marginal_gain" in plan.tables else ""
    return row


def _level_errors(plan: PlanRecord, on: Index) -> dict[str, str]:
    names = {causes.SCORE: "score", causes.FLOOR: "floor", causes.DISCRETIZATION: "discret."}
    tables = {label: plan.tables[name] for name, label in names.items() if name in plan.tables}
    return {label: quantity(float(values[on].sum()), 3) for label, values in tables.items()}


def _count(value: float) -> str:
    return "<0.1" if 0 < value < 0.1 else quantity(value, 3)


def _mean_gain(plan: PlanRecord, on: Index) -> float:
    gain, weight = plan.tables["marginal_gain"][on], plan.examples[on]
    known = np.isfinite(gain)
    if not known.any():
        return float("inf")
    weight = weight[known] if weight[known].sum() > 0 else np.ones(int(known.sum()))
    return float(np.average(gain[known], weights=weight))


def _total_row(plan: PlanRecord) -> dict[str, str]:
    row = {"sigma": "total"}
    if planned_training(plan):
        row["examples"] = _count(float(plan.examples.sum()))
    if plan.steps.sum() > 0:
        row["steps"] = quantity(float(plan.steps.sum()), 3)
    return row | _level_errors(plan, np.arange(len(plan.levels)))
