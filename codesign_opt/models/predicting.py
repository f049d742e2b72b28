"""The work of `Model.predict`: any grid with any training, without a program solved."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.causes import BESIDE_BIAS, BIAS, FLOOR, LAST_EVALUATION, SCORE, TOGETHER
from ..basics.checks import Array, ndim, shown
from ..ingredients.densities import SigmaDensity
from ..ingredients.levels import Levels
from ..ingredients.training_run import TrainingRun
from .example_counts import ExampleCounts
from .node_sums import NodeTerms, score_parts
from .prediction import Prediction

__all__ = ["counted", "predicted"]

_SEEN = 1e-7  # of a weight


def counted(model: Any, grid: Array, examples: Any, density: Any, levels: Any, run: Any) -> ExampleCounts | None:
    """The examples of a stated training; None where none was stated.

    Raises:
        ValueError: examples without the levels or the density that they lie on, or the other way round.
    """
    low, high = model.process.sigma_min, max(model.process.sigma_max, float(grid[0]))
    found = None
    if density is not None:
        if not isinstance(density, SigmaDensity):
            raise ValueError(
                f"predict: density is {shown(density)}; give a SigmaDensity, such as co.LogNormal(-1.2, 1.2)."
            )
        if examples is None or ndim(examples):
            raise ValueError("predict: density is given, so that examples must be their number.")
        found = ExampleCounts.of_density(density, examples)
    elif examples is not None:
        if not isinstance(levels, Levels):
            raise ValueError(
                "predict: examples need the levels that they lie on (levels=plan.levels), or a number with density=…."
            )
        found = ExampleCounts.of_levels(levels, examples)
    if run is not None:
        if not isinstance(run, TrainingRun):
            raise ValueError(f"predict: run is {shown(run)}; give co.TrainingRun(density=…, iterations=…, batch=…).")
        made = ExampleCounts.of_run(run, low, high)
        found = made if found is None else found + made
    return found


def predicted(model: Any, sigmas: Any, counts: ExampleCounts | None, grid: Array) -> Prediction:
    """The prediction of one grid and its examples; `Model.predict` says how."""
    stop = float(grid[grid > 0][-1])
    truncation, initial = model.truncation_and_start(stop)
    terms = model.node_terms(grid) if counts is not None else None
    exact: tuple[str, ...] = (BIAS,) if model.exact_error is not None else ()
    examples, program = None, np.nan
    regressors, prior = (1, True) if terms is None else (terms.regressors, terms.lacking is not None)
    if terms is not None and counts is not None:
        parts = {BIAS: model.bias(grid)}
        found = score_parts(terms, counts, model.coupling)
        first, last, both, beside = _unlearned(model, grid, found.shift, terms.ends)
        score, floor = (found.score + first, found.floor) if terms.left is None else (found.score, first)
        parts |= {SCORE: score, FLOOR: floor, LAST_EVALUATION: found.last + last, TOGETHER: found.together + both}
        if beside:
            parts[BESIDE_BIAS] = beside
        examples = found.examples
        program = parts[BIAS] + _local(terms, counts, model)
    elif counts is not None:
        parts, examples = _settled(model, grid, counts)
        exact, program = (), sum(parts.values())
    else:
        parts = {BIAS: model.bias(grid)}
        program = parts[BIAS]
    trained = model.speaks_of if counts is not None else ""
    metric, spectrum = getattr(model, "metric", None), model.spectrum
    trace = spectrum.trace if metric is None else float(metric.valued(spectrum).counts @ spectrum.eigenvalues)
    return Prediction(
        grid, parts, exact, truncation, initial, examples, regressors, prior, float(program), trace, trained,
        "" if metric is None else metric.measure,
    )  # fmt: skip


def _unlearned(model: Any, grid: Array, shift: Array, ends: bool) -> tuple[float, float, float, float]:
    """What the mean error of the weights adds to the bias: of the steps, of the last evaluation, of both together, and
    of the steps beside the bias, which changes its sign with the shift.

    Exact in the shift, all nodes at once.
    """
    if not np.abs(shift).max() > _SEEN:
        return 0.0, 0.0, 0.0, 0.0
    steps = shift.copy()
    if ends:
        steps[:, -1] = 0.0
    found = model.shifted_error(grid, np.concatenate([np.zeros_like(shift[:1]), shift, steps, -steps, shift - steps]))
    every, first, back, last = (float(part.mean() - found[0]) for part in np.split(found[1:], 4))
    return 0.5 * (first + back), last, every - first - last, 0.5 * (first - back)


def _local(terms: NodeTerms, counts: ExampleCounts, model: Any) -> float:
    """The programs' law of the same grid: node by node, max(1, l / step) A / (density x l + m0)."""
    logs = np.log(terms.sigmas)
    lengths = model.coupling.lengths_at(terms.sigmas, float(terms.sigmas[-1]), float(terms.sigmas[0]))
    used = logs.size - 1 if terms.ends else logs.size
    steps = -np.diff(logs)
    steps = np.append(steps, steps[-1])[:used]
    low = np.append(logs[1:], logs[-1] - steps[-1])[:used]
    within = counts.between(low, low + steps) / steps * lengths[:used]
    share = model.coupling.factor(steps / lengths[:used]) / (steps / lengths[:used])
    kernel, prior = terms.counts * terms.sensitivity**2, terms.prior
    stays = terms.floor if terms.left is None else terms.left**2
    a, f = (kernel * terms.reducible).sum(axis=1), (kernel * stays).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(a[:used] > 0, a[:used] / (within + prior[:used]), 0.0)
        total = float((share * (left + f[:used])).sum())
        if terms.ends:
            near = counts.between(logs[-1], logs[-1] + lengths[-1])
            total += float(a[-1] / (near + prior[-1]) + f[-1])
    return total


def _settled(model: Any, grid: Array, counts: ExampleCounts) -> tuple[dict[str, float], Array]:
    """Parts by the table of a model that knows no node by itself, and the examples of its nodes."""
    table = model.ended(model.settled(grid))
    examples = counts.on(table.levels)
    pooling = table.pooling
    served = examples if pooling is None else pooling @ examples
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(table.example_error > 0, table.example_error / (served + table.prior_examples), 0.0)
    near = float(table.final_window @ examples) + table.final_prior
    last = table.final_floor + (table.final_score / near if table.final_score > 0 else 0.0)
    within = served / table.log_width * table.coupling.lengths(table.levels)
    positive = grid[grid > 0]
    at = np.exp(np.interp(np.log(positive), np.log(table.sigma), np.log(np.maximum(within, 1e-300))))
    parts = {BIAS: table.truncation, SCORE: float(left.sum()), FLOOR: float(table.floor_error.sum())}
    return {**parts, LAST_EVALUATION: last}, at
