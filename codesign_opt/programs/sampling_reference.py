"""Where the first attempt at a program of several samplers is declared."""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..modeling import Bound
from ..modeling.design import Design, Point
from ..modeling.samplings import OfSampling
from .declaration import Declaration
from .reference import positive, step_shape

__all__ = ["first_of_samplings"]

_STEPS, _EXAMPLES = 20.0, 1e6  # where no bound says how many


def first_of_samplings(program: Declaration) -> Point:
    """Square-root rule for examples, the discretisation error's step density for each sampler; half of every bound.

    Half of what linear bounds leave goes to the examples, the other half in equal parts to the samplers.
    """
    design, samplings = program.design(program.neutral), program.samplings
    budgets = [_prices(item.what, design) for item in program.constraints if isinstance(item.what, Bound)]
    known = [budget for budget in budgets if budget is not None]
    error = np.sum([each.weight * each.table.example_error for each in samplings], axis=0)
    examples = np.maximum(np.sqrt(error), 1e-15 * max(float(np.sqrt(error.max(initial=0.0))), 1e-300))
    priced = [(prices["examples"], room) for prices, room in known if np.any(prices["examples"] > 0)]
    if priced and np.all(priced[0][0] > 0):
        examples = examples / np.sqrt(priced[0][0])
    most = [0.5 * room / float(price @ examples) for price, room in priced if room > 0]
    examples = examples * min(most, default=_EXAMPLES / float(examples.sum()))
    if program.new_examples is not None:
        examples = program.new_examples
    low, high = program.box.examples_low, program.box.examples_high
    examples = np.clip(examples + program.spent, low, high) - program.spent
    steps = {}
    for each in samplings:
        shape = step_shape(each.table, len(program.levels))
        rows = [(prices[each.name], _left(prices, room, examples)) for prices, room in known if each.name in prices]
        most = [left / len(samplings) / float(price @ shape) for price, left in rows if left > 0 and price @ shape > 0]
        steps[each.name] = positive(shape * min(most, default=_STEPS / float(shape.sum())))
    return Point(positive(examples), program.spent, np.zeros(len(program.levels)), steps)


def _left(prices: dict[str, Array], room: float, examples: Array) -> float:
    """What examples leave of a budget, half of it at least."""
    return max(room - float(prices["examples"] @ examples), 0.5 * room)


def _prices(bound: Bound, design: Design) -> tuple[dict[str, Array], float] | None:
    """Prices of examples and of each sampler's steps in a linear bound, and its room; None for another."""
    prices, room = {"examples": np.zeros(len(design))}, float(bound.limit)
    for weight, leaf in bound.term.leaves():
        name = leaf.sampling.name if isinstance(leaf, OfSampling) else ""
        at = design.of(name) if isinstance(leaf, OfSampling) else design
        linear = (leaf.inner if isinstance(leaf, OfSampling) else leaf).linear_prices(at)
        if linear is None:
            return None
        prices["examples"] = prices["examples"] + weight * linear[0]
        if name:
            prices[name] = prices.get(name, 0.0) + weight * linear[1]
        room -= weight * linear[2]
    return prices, room
