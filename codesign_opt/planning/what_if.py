"""what_if(): what other budgets, steps and numbers of images would leave, a thousand settings at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from ..basics.causes import TOTAL
from ..basics.checks import Array, entries, integer, number, scale_of, shown
from ..basics.errors import CodesignError
from ..basics.spelling import spelled
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.prices import Prices
from ..models.base import Model
from ..results.plan import Plan
from .asked import Range, asked_of
from .question import Study
from .stopping_points import sweep
from .what_if_settings import Settings, Solved
from .what_if_stops import best_stops
from .what_if_table import WhatIf

__all__ = ["what_if"]

Axes = tuple[Array, Array, Array]

_COARSE = 40  # levels of the sweeps over stopping points
_LEVELS = 80  # of the answers: their error is of second order in the width, some 1e-4
_FIELDS = ("error", "lower_bound", "stopping_sigma", "number_of_steps", "examples", "training_share")
_NONE = dict.fromkeys(_FIELDS, np.nan)
_POINTS = 12  # stopping points of a setting that the batch leaves out


@spelled
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
    stopping point. The stopping points come from sweeps of some settings, between which log sigma is interpolated
    (section 7.7.1): answers were within a few thousandths of the best stopping point's, within two hundredths where two
    steps are all that is paid for. Errors are the program's, to leading order, like `plan.error`: `found.ratio` holds
    them against the plan's. Whole steps and their exact error cost a `codesign` of their own.

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
    >>> plan = co.codesign(model, co.Prices(3.0, 1.0, 100), 5e3, levels=60)
    >>> found = what_if(plan, budget=[5e3, 1e4], steps=[10, None])
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
    least = least_steps(study.model.terminal)
    counts = [np.inf if s is None else integer(s, "what_if.steps", minimum=least) for s in _each(steps, study.steps)]
    if not study.trains:
        if np.isinf(counts).any():
            raise ValueError("what_if: steps holds None, but nothing else limits this plan; give numbers of steps.")
        return np.array([np.nan]), np.array(counts, dtype=np.float64), np.array([np.nan])
    budgets = [number(b, "what_if.budget", positive=True, maximum=1e100) for b in _each(budget, study.budget)]
    drawn = [scale_of(i, "what_if.images") for i in _each(images, _images(study))]
    return np.array(budgets), np.array(counts, dtype=np.float64), np.array(drawn)


def _each(value: Any, own: Any) -> list[Any]:
    if value is None:
        return [own]
    found = value.tolist() if isinstance(value, np.ndarray) else value
    several = list(entries(found, "what_if: settings")) if isinstance(found, (list, tuple, range)) else [found]
    if not several:
        raise ValueError(f"what_if: {shown(value)} is given, which holds nothing; leave it out for the plan's own.")
    return several


def _images(study: Study) -> float | None:
    return None if study.prices is None else study.prices.images


def _nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _inf(value: float | None) -> float:
    return np.inf if value is None else float(value)


def _answers(study: Study, own: Array, axes: Axes, between: Range) -> dict[str, Array]:
    """By name of WhatIf's fields, (1 + N,) values, of the plan's own setting first; nan where one has no plan."""
    asked = np.concatenate([own[None], np.array(list(product(*axes)))])
    values = {name: np.full(len(asked), np.nan) for name in _FIELDS}
    binds = np.ones(len(asked), dtype=bool)
    if study.trains:
        pairs, place = np.unique(asked[:, [0, 2]], axis=0, return_inverse=True)
        found = _unlimited(study, pairs, between)
        if found is None:
            return _join([_alone(study, row, between) for row in asked])
        for name in _FIELDS:
            values[name][:] = found[name][place.ravel()]
        binds = np.isfinite(asked[:, 1]) & ~(values["number_of_steps"] <= asked[:, 1])
    at = np.flatnonzero(binds)
    if at.size:
        limited = _limited(study, asked[at], between)
        if limited is None:
            return _join([_alone(study, row, between) for row in asked])
        for name in _FIELDS:
            values[name][at] = limited[name]
    return values


def _unlimited(study: Study, pairs: Array, between: Range) -> dict[str, Array] | None:
    """Answers to (N, 2) budgets and images where steps have no limit of their own."""
    coarse, fine = (Settings.of(study, levels) for levels in (_COARSE, _LEVELS))
    stops = best_stops(coarse.unlimited_errors, pairs, between)
    solved = None if stops is None else fine.unlimited(pairs, stops)
    return None if solved is None else _values(study, solved, np.insert(pairs, 1, np.inf, axis=1))


def _limited(study: Study, asked: Array, between: Range) -> dict[str, Array] | None:
    """Answers to (N, 3) settings all of whose steps are taken."""
    coarse, fine = (Settings.of(study, levels) for levels in (_COARSE, _LEVELS))
    stops = best_stops(coarse.bound_errors, coarse.bound_pairs(asked, between[0]), between)
    solved = None if stops is None else fine.limited(asked, stops)
    return None if solved is None else _values(study, solved, asked)


def _values(study: Study, solved: Solved, asked: Array) -> dict[str, Array]:
    """Answers by name; those that the batch left out one by one at their stopping points."""
    found, table = solved.found, solved.table
    stops = table.levels.stops
    price = np.zeros(table.levels.used.shape)
    if study.prices is not None:
        price = table.levels.spread(study.prices.example_price(table.levels.bins))
    error = np.where(np.isfinite(solved.error), solved.error, np.nan)
    share = (price * found.examples).sum(axis=1) / asked[:, 0] if study.trains else np.zeros(len(asked))
    columns = (
        error, error - (found.value - found.lower_bound), stops.copy(), found.steps.sum(axis=1) + table.final_steps,
        found.examples.sum(axis=1), share,
    )  # fmt: skip
    values = dict(zip(_FIELDS, columns, strict=True))
    for i in np.flatnonzero(np.isnan(error)):  # where no step or no example is paid for, there is no plan to look for
        record = _at(study, asked[i], float(stops[i])) if solved.affordable[i] else _NONE
        for name, each in values.items():
            each[i] = record[name]
    return values


def _join(records: list[dict[str, float]]) -> dict[str, Array]:
    return {name: np.array([record[name] for record in records]) for name in records[0]}


def _one(study: Study, row: Array) -> Study:
    """The question of one setting."""
    budget, steps, images = row.tolist()
    one = replace(study, steps=None if np.isinf(steps) else steps)
    if study.prices is None:
        return one
    return replace(one, prices=study.prices.with_images(images), budget=budget)


def _alone(study: Study, row: Array, between: Range) -> dict[str, float]:
    """One setting at its best stopping point; nan where none has a plan."""
    low, high = between
    one = _one(study, row)
    try:
        stop = low if low == high else min(sweep(one, low, high, _POINTS, False), key=lambda s: s.error).sigma
    except CodesignError:
        return _NONE
    return _at(study, row, stop)


def _at(study: Study, row: Array, stop: float) -> dict[str, float]:
    """One setting at a stopping point, by its declared program."""
    try:
        plan = _one(study, row).solve(stop)
    except CodesignError:
        return _NONE
    share = plan.costs.get("training", 0.0) / row[0] if study.trains else 0.0
    columns = (
        plan.error, plan.certificate.lower_bound, stop, float(plan.steps.sum()) + final_steps(plan.terminal),
        float(plan.new_examples.sum()), float(share),
    )  # fmt: skip
    return dict(zip(_FIELDS, columns, strict=True))
