"""A problem solved for many values of one number: its plans, what they cost, and what the next unit is worth."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, array, shown
from ..basics.errors import CodesignError
from ..basics.files import write_whole
from ..modeling.algebra import Bound
from ..modeling.constraints import as_named
from ..results.plan import Plan

__all__ = ["Sweep", "swept"]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Certified plans along one limit, weight or price.

    Attributes:
        name: of the limit or parameter.
        values: (N,).
        plans: the plan at each value, or None where none was certified.
        failures: what was said where there is no plan, by index.
    """

    name: str
    values: Array
    plans: tuple[Plan | None, ...]
    failures: dict[int, str]

    @property
    def errors(self) -> Array:
        """(N,) the optimum at each value; nan where there is no plan."""
        return np.array([np.nan if plan is None else plan.error for plan in self.plans])

    def prices(self, constraint: str) -> Array:
        """(N,) shadow price of a constraint with one number; nan where there is no plan."""
        if not any(plan is None or constraint in plan.shadow_prices for plan in self.plans):
            raise ValueError(f"Sweep.prices: no constraint is called {constraint!r}.")
        found = [np.nan if plan is None else plan.shadow_prices[constraint] for plan in self.plans]
        return np.array([float(np.asarray(value).item()) if np.size(value) == 1 else np.nan for value in found])

    def _rows(self) -> list[dict[str, float]]:
        rows = []
        for value, plan in zip(self.values, self.plans, strict=True):
            row = {self.name: float(value)}
            if plan is not None:
                row |= {"error": plan.error, "relative gap": plan.certificate.relative_gap}
                row |= {"examples": float(plan.new_examples.sum()), "steps": float(plan.steps.sum())}
                single = {n: p for n, p in plan.shadow_prices.items() if np.size(p) == 1}
                row |= {f"price of {n}": float(np.asarray(p).item()) for n, p in single.items()}
            rows.append(row)
        return rows

    def to_csv(self, path: str | Path) -> Path:
        """The table as a file, full digits, a line for every value; returns the path."""
        rows, target = self._rows(), Path(path)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        return write_whole(target, text.getvalue())

    def plot(self, ax: Any = None) -> Any:
        """The optimum against the values; returns the matplotlib Axes."""
        from ..results.style import BLUE, ERROR, error_label, new_axes

        ax = new_axes(ax, f"What {self.name} changes")
        ax.plot(self.values, self.errors, color=BLUE, marker="o", ms=4, lw=2)
        if np.all(self.values > 0) and np.ptp(np.log(self.values)) > 2:
            ax.set_xscale("log")
        ax.set_xlabel(self.name)
        ax.set_ylabel(next((error_label(plan) for plan in self.plans if plan is not None), ERROR))
        return ax

    def __str__(self) -> str:
        rows = self._rows()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if not columns[1:]:
            columns = [self.name]
        lines = ["  ".join(f"{name:>14.14}" for name in columns)]
        for index, row in enumerate(rows):
            cells = [f"{row[name]:14.6g}" if name in row else " " * 14 for name in columns]
            lines.append("  ".join([*cells, self.failures.get(index, "")]).rstrip())
        return "\n".join(lines)


def swept(problem: Any, what: Any, values: Any, options: dict[str, Any]) -> Sweep:
    """The table of `Problem.sweep`, of which `problem` is one."""
    numbers = array(values, "Problem.sweep.values").ravel()
    name, parameter, at = _target(problem, what)
    before = parameter.value
    plans: list[Plan | None] = []
    failures: dict[int, str] = {}
    last: Plan | None = options.pop("start", None)
    try:
        for index, value in enumerate(numbers):
            parameter.value = value
            try:
                last = at.solve(start=last, **options)
                plans.append(last)
            except CodesignError as error:  # a sweep records what fails and goes on
                plans.append(None)
                failures[index] = str(error)
    finally:
        parameter.value = before
    return Sweep(name, numbers, tuple(plans), failures)


def _target(problem: Any, what: Any) -> tuple[str, cp.Parameter, Any]:
    """A parameter to set, and the problem that it stands in: the limit of a named bound becomes one."""
    if isinstance(what, cp.Parameter):
        if all(what.id != parameter.id for parameter in problem.parameters):
            raise ValueError(
                f"Problem.sweep: {what.name()} is no parameter of this problem's limits, weights or prices."
            )
        return what.name(), what, problem
    names = [item.name for item in problem.declaration.constraints]
    bounds = [item.name for item in problem.declaration.constraints if isinstance(item.what, Bound)]
    if not isinstance(what, str) or what not in bounds:
        raise ValueError(
            f"Problem.sweep: {shown(what)} is no bound of the problem; it has {', '.join(bounds) or 'none'}."
        )
    parameter, index = cp.Parameter(name=str(what)), names.index(what)
    stated = as_named(problem.constraints[index], index)
    assert isinstance(stated.what, Bound)
    rows = list(problem.constraints)
    rows[index] = replace(stated, what=replace(stated.what, limit=parameter))
    return str(what), parameter, replace(problem, constraints=rows)
