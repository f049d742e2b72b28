"""what_if(): what other budgets, steps and numbers of images would leave, a thousand settings at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from ..basics.causes import TOTAL
from ..basics.checks import Array, integer, number
from ..basics.errors import CodesignError
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.prices import Prices
from ..models.base import Model
from ..models.coefficient_batch import CoefficientBatch
from ..results.plan import Plan
from ..solvers.joint.batch import ENOUGH
from .asked import Range, asked_of
from .question import Study
from .stopping_points import sweep
from .what_if_settings import Settings
from .what_if_stops import best_stops
from .what_if_table import WhatIf

__all__ = ["what_if"]

Axes = tuple[Array, Array, Array]

_COARSE = 40  # levels of the sweeps over stopping points
_LEVELS = 80  # of the answers: their error is of second order in the width, some 1e-4
_POINTS = 12  # stopping points of a setting that the batch leaves out


def what_if(
    plan: Plan,
    *,
    budget: Any = None,
    steps: Any = None,
    images: Any = None,
    model: Model | None = None,
    prices: Prices | None = None,
) -> WhatIf:
    """The least error for every combination of budgets, most steps and numbers of images; nothing else changes.

    Each answer is the certified optimum of the plan's program (docs/theory.md section 7) for that setting at its own
    stopping point. The stopping points come from sweeps of some settings, between which log sigma is interpolated: an
    answer is at most a few thousandths above the best stopping point's. Errors are the program's, to leading order,
    like `plan.error`: `found.ratio` holds them against the plan's. Whole steps and their exact error cost a
    `codesign` of their own.

    Args:
        plan: a plan of `codesign`; loaded from a file it knows what was asked as well.
        budget: budgets, in the unit of the plan's prices; the plan's own unless given.
        steps: the most sampler steps, None among them for no limit; the plan's own limit unless given.
        images: numbers of images that will be drawn; the plan's own unless given.
        model, prices: those of the plan, where it could not keep them (measured models, prices that are functions);
            then settings are solved one by one where the model has no batch.

    Returns:
        WhatIf, with arrays of shape (budgets, steps, images); nan where a setting has no plan.

    Raises:
        ValueError: a setting out of range, or one of a side that the plan does not decide; a plan that does not hold
            what was asked.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> plan = co.codesign(model, co.Prices(3.0, 1.0, 100), 1e5, levels=60)
    >>> found = what_if(plan, budget=[1e5, 2e5], steps=[10, None])
    >>> found.error.shape, bool(found.error[1, 0, 0] > found.error[1, 1, 0])
    ((2, 2, 1), True)
    """
    if not isinstance(plan, Plan):
        raise ValueError(f"what_if: plan is {type(plan).__name__}; give a Plan of codesign, or co.Plan.load(path).")
    study, between = asked_of(plan, model, prices)
    axes = _axes(study, budget, steps, images)
    own = np.array([_nan(study.budget), _inf(study.steps), _nan(_images(study))])
    answers = _answers(study, own, axes, between)
    shape = tuple(len(axis) for axis in axes)
    shaped = {name: values[1:].reshape(shape) for name, values in answers.items()}
    handed = plan.handed_out.get(TOTAL)
    return WhatIf(
        *axes,
        **shaped,
        base={name: float(values[0]) for name, values in answers.items()},
        setting=dict(zip(("budget", "steps", "images"), own.tolist(), strict=True)),
        whole_steps=None if handed is None or not plan.error > 0 else float(handed) / plan.error,
        price_unit=plan.price_unit,
    )


def _axes(study: Study, budget: Any, steps: Any, images: Any) -> Axes:
    """(B,), (S,) and (I,) settings: nan for a side that is not decided, inf for steps without a limit."""
    for name, value in (("budget", budget), ("images", images)):
        if value is not None and not study.trains:
            raise ValueError(f"what_if: {name} is given, but the plan is of a sampler alone; give steps.")
    budgets = [number(b, "what_if.budget", positive=True, maximum=1e100) for b in _each(budget, study.budget)]
    least = least_steps(study.model.terminal)
    counts = [np.inf if s is None else integer(s, "what_if.steps", minimum=least) for s in _each(steps, study.steps)]
    drawn = [number(i, "what_if.images", positive=True) for i in _each(images, _images(study))]
    if not study.trains:
        if np.isinf(counts).any():
            raise ValueError("what_if: steps holds None, but nothing else limits this plan; give numbers of steps.")
        budgets, drawn = [np.nan], [np.nan]
    return np.array(budgets), np.array(counts, dtype=np.float64), np.array(drawn)


def _each(value: Any, own: Any) -> list[Any]:
    if value is None:
        return [own]
    found = value.tolist() if isinstance(value, np.ndarray) else value
    return list(found) if isinstance(found, (list, tuple, range)) else [found]


def _images(study: Study) -> float | None:
    return None if study.prices is None else study.prices.images


def _nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _inf(value: float | None) -> float:
    return np.inf if value is None else float(value)


def _answers(study: Study, own: Array, axes: Axes, between: Range) -> dict[str, Array]:
    """By name of WhatIf's fields, (1 + N,) values, of the plan's own setting first; nan where one has no plan."""
    asked = np.concatenate([own[None], np.array(list(product(*axes)))])
    coarse, fine = (Settings.of(study, levels) for levels in (_COARSE, _LEVELS))
    stops = best_stops(coarse.errors, own, axes, between)
    solved = None if stops is None else fine.solve(asked, stops)
    if solved is None or stops is None:
        return _join([_alone(study, row, between) for row in asked])
    found, table = solved.found, solved.table
    error = solved.error
    spent = (_example_price(study, table) * found.examples).sum(axis=1)
    values = {
        "error": error,
        "lower_bound": error - (found.value - found.lower_bound),
        "stopping_sigma": stops,
        "number_of_steps": found.steps.sum(axis=1) + table.final_steps,
        "examples": found.examples.sum(axis=1),
        "training_share": spent / asked[:, 0] if study.trains else np.zeros(len(asked)),
    }
    left_out = np.flatnonzero(~(found.relative_gap <= ENOUGH))
    none = dict.fromkeys(values, np.nan)
    for i in left_out:  # no step or no example is paid for: there is no plan to look for
        record = _alone(study, asked[i], between) if solved.affordable[i] else none
        for name, each in values.items():
            each[i] = record[name]
    return values


def _example_price(study: Study, table: CoefficientBatch) -> Array:
    """(R, L) price of an example."""
    if study.prices is None:
        return np.zeros(table.levels.used.shape)
    return table.levels.spread(study.prices.example_price(table.levels.bins))


def _join(records: list[dict[str, float]]) -> dict[str, Array]:
    return {name: np.array([record[name] for record in records]) for name in records[0]}


def _alone(study: Study, row: Array, between: Range) -> dict[str, float]:
    """One setting by the plan of its best stopping point; nan where none has a plan."""
    budget, steps, images = row.tolist()
    limit = None if np.isinf(steps) else int(steps)
    one = replace(study, steps=limit)
    if study.prices is not None:
        one = replace(one, prices=study.prices.with_images(images), budget=budget)
    try:
        low, high = between
        stop = low if low == high else min(sweep(one, low, high, _POINTS, _silent), key=lambda s: s.error).sigma
        plan = one.solve(stop)
    except CodesignError:
        return dict.fromkeys(
            ("error", "lower_bound", "stopping_sigma", "number_of_steps", "examples", "training_share"), np.nan
        )
    return {
        "error": plan.error,
        "lower_bound": plan.certificate.lower_bound,
        "stopping_sigma": stop,
        "number_of_steps": float(plan.steps.sum()) + final_steps(plan.terminal),
        "examples": float(plan.new_examples.sum()),
        "training_share": plan.costs.get("training", 0.0) / budget if study.trains else 0.0,
    }


def _silent(text: str) -> None:
    pass
