"""What each of several samplers is handed out: whole steps, and what they leave with the training that all share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..basics.checks import Array
from ..ingredients.grids import grid_from_steps
from ..ingredients.levels import Levels
from ..modeling import Sampling, Term
from ..modeling.prediction import predict
from ..modeling.samplings import OfSampling
from ..models.coefficients import Coefficients
from ..results.sampler_plan import SamplerPlan
from .compiled import Solved
from .declaration import Declaration

__all__ = ["MOST_NODES", "sampler_plans", "whole_steps"]

MOST_NODES = 1_000_000


def whole_steps(levels: Levels, steps: Array, table: Coefficients) -> Array | None:
    """Whole steps at equal increments of the continuous step count; None for none, and for more than a million."""
    if not np.any(steps > 0) or steps.sum() > MOST_NODES:  # nobody samples so, and the nodes would fill the memory
        return None
    count = max(1 + table.final_steps, int(np.floor(steps.sum() + table.final_steps + 1e-6)))
    return grid_from_steps(levels, steps, count, terminal=table.terminal)


def sampler_plans(program: Declaration, solved: Solved) -> dict[str, SamplerPlan]:
    """The plan of each sampler that shares the training, by name."""
    found = {}
    for each in program.samplings:
        own, table = solved.point.of(each.name), each.table
        design = solved.compiled.design.of(each.name)
        sigmas = whole_steps(program.levels, own.steps, table)
        parts: dict[str, float] = {}
        for term in _about(each, [leaf for _, leaf in solved.compiled.terms]):
            parts |= term.parts(design, own)
        found[each.name] = SamplerPlan(
            program.levels, own.steps, sigmas, table.terminal, each.images, each.weight, parts,
            _handed_out(each, sigmas, own.examples, program.levels), table.evaluations_per_step, table.sampler,
        )  # fmt: skip
    return found


def _about(sampling: Sampling, terms: Iterable[Term]) -> Iterator[Term]:
    """Terms about the sampler, in the objective or inside others there."""
    for term in terms:
        if isinstance(term, OfSampling):
            if term.sampling is sampling:
                yield term.inner
        else:
            yield from _about(sampling, term.components())


def _handed_out(each: Sampling, sigmas: Array | None, examples: Array, levels: Levels) -> dict[str, float]:
    """Error by cause of the whole steps with the plan's examples; empty without a model."""
    if each.model is None or sigmas is None:
        return {}
    table = each.model.settled(sigmas, len(levels))
    # the same densities on the grid's own levels
    below = np.concatenate([[0.0], np.cumsum(examples)])
    moved = np.diff(np.interp(np.log(table.levels.edges), np.log(levels.edges), below))
    return predict(each.model, sigmas, moved, len(levels), table=table)
