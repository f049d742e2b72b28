"""Numbers of a plan and their derivatives by measured ones: what `uncertainty` carries intervals to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps
from ..ingredients.grids import grid_from_steps
from ..modeling import Point, ScoreError
from ..models.coefficients import Coefficients
from ..models.unknowns import Unknowns
from ..results.planned_density import Prior, TrainingDensity
from .optimum_change import Optimum, OptimumChange
from .question import Study

__all__ = ["NAMES", "RELATIVE", "PlanQuantities", "quantities"]

NAMES = ("error", "stopping_sigma", "P_mean", "P_std", "levels", "training_share")
RELATIVE = ("error", "stopping_sigma", "P_std", "levels")  # whose logarithms are differentiated, and taken as normal
_BESIDE = 0.1  # in log sigma, of the stopping points beside the plan's
_STEP = 1e-3  # of the logarithms of measured numbers
_BEND = 1e-3  # of P_mean and log P_std


@dataclass(frozen=True, eq=False)
class PlanQuantities:
    """What a plan says and how it moves.

    Attributes:
        values: by name, at the best stopping point.
        gradients: (..., P) derivatives by the logarithms of the measured numbers; of those in RELATIVE, of logarithms.
        regret: what a plan made with the measured numbers leaves beyond the best with the true ones, on average.
    """

    values: Mapping[str, Any]
    gradients: Mapping[str, Array]
    regret: float


def quantities(study: Study, known: Unknowns, stop: float, steps: int, *, searched: bool) -> PlanQuantities:
    """Numbers of the program at its best stopping point, and their derivatives.

    Args:
        study: the question, of the model whose numbers move.
        known: the numbers.
        stop: the stopping point, or, where it is `searched`, one within a few per cent of the best.
        steps: number of steps whose levels are told, the last to zero included.
        searched: whether the stopping point moves with the numbers.
    """
    count = max(round(study.levels * _range(study, stop)), 8)
    tables = _Moves(known)
    optimum = Optimum.at(study, stop, count)
    pairs = tables.of(optimum)
    change = optimum.change(pairs, _STEP)
    at_stop = _at(optimum, steps)
    slopes = {"error": tables.slopes(optimum, pairs) / optimum.value, **_moved(optimum, pairs, change, at_stop, steps)}
    regret = change.cost(known.factor)
    values: dict[str, Any] = {"error": optimum.value, **at_stop}
    if searched:
        beside = [Optimum.at(study, stop * np.exp(sign * _BESIDE), count) for sign in (-1, 1)]
        moved = [tables.slopes(other, tables.of(other)) for other in beside]
        bend = (beside[0].value - 2 * optimum.value + beside[1].value) / _BESIDE**2
        slope = (beside[1].value - beside[0].value) / (2 * _BESIDE)
        if bend > 0:
            by_stop = -(moved[1] - moved[0]) / (2 * _BESIDE) / bend
            move = -float(np.clip(slope / bend, -_BESIDE, _BESIDE))
            values["stopping_sigma"] = stop * np.exp(move)
            slopes["stopping_sigma"] = by_stop
            ends = [_at(other, steps) for other in beside]
            for name, value in at_stop.items():
                along = (_coordinate(name, ends[1][name]) - _coordinate(name, ends[0][name])) / (2 * _BESIDE)
                slopes[name] = slopes[name] + along[..., None] * by_stop
                values[name] = value * np.exp(along * move) if name in RELATIVE else value + along * move
            regret += 0.5 * bend * float(known.variance(by_stop))
    return PlanQuantities(values, slopes, regret)


def _range(study: Study, stop: float) -> float:
    """Share of the process's range of noise that lies above a stopping point."""
    low, high = min(study.model.process.sigma_min, stop), study.model.process.sigma_max
    return float(np.log(high / stop) / np.log(high / low))


@dataclass(frozen=True, eq=False)
class _Moves:
    """Every number moved up and down by a little, one at a time."""

    known: Unknowns

    def of(self, optimum: Optimum) -> list[tuple[Coefficients, Coefficients]]:
        """The tables of the moved models on the optimum's levels."""
        size = len(self.known.sources)
        moves = _STEP * np.eye(size)
        return [
            (optimum.moved_table(self.known.moved(move)), optimum.moved_table(self.known.moved(-move)))
            for move in moves
        ]

    def slopes(self, optimum: Optimum, pairs: list[tuple[Coefficients, Coefficients]]) -> Array:
        """(P,) derivatives of the optimum's error: the design held (envelope theorem)."""
        return np.array([(optimum.error(up) - optimum.error(down)) / (2 * _STEP) for up, down in pairs])


def _coordinate(name: str, value: Any) -> Array:
    """What is differentiated of a number."""
    return np.log(value) if name in RELATIVE else np.asarray(value)


def _at(optimum: Optimum, steps: int) -> dict[str, Any]:
    """What an optimum says of density and levels."""
    told: dict[str, Any] = {"levels": _levels(optimum, optimum.steps, steps)}
    if optimum.study.trains and optimum.table.score.any():
        fit = _density(optimum, optimum.table, optimum.new, optimum.steps).closest_lognormal()
        told |= {"P_mean": np.float64(fit.P_mean), "P_std": np.float64(fit.P_std)}
        told["training_share"] = np.float64(_share(optimum, optimum.new))
    return told


def _moved(
    optimum: Optimum,
    pairs: list[tuple[Coefficients, Coefficients]],
    change: OptimumChange,
    told: Mapping[str, Any],
    steps: int,
) -> dict[str, Array]:
    """(..., P) derivatives of `_at` at this stopping point."""
    both = (1.0, -1.0)
    moved = [
        [np.log(_levels(optimum, optimum.steps + sign * _STEP * row, steps)) for sign in both] for row in change.steps
    ]
    found = {"levels": np.array([(up - down) / (2 * _STEP) for up, down in moved]).T}
    if "P_mean" not in told:
        return found
    densities = [
        [
            # where training has hardly begun, beside a prior of many examples, it ends within the step
            _density(
                optimum, table, np.maximum(optimum.new + sign * _STEP * new, 0.0), optimum.steps + sign * _STEP * taken
            )
            for sign, table in zip(both, pair, strict=True)
        ]
        for pair, new, taken in zip(pairs, change.examples, change.steps, strict=True)
    ]
    own = _density(optimum, optimum.table, optimum.new, optimum.steps)
    at = np.array([told["P_mean"], np.log(told["P_std"])], dtype=np.float64)
    ends = [[_slope(own.lognormal_loss, at + sign * move) for sign in both] for move in _BEND * np.eye(2)]
    hessian = np.array([(up - down) / (2 * _BEND) for up, down in ends])
    cross = [(_slope(up.lognormal_loss, at) - _slope(down.lognormal_loss, at)) / (2 * _STEP) for up, down in densities]
    fitted = -np.linalg.solve(0.5 * (hessian + hessian.T), np.array(cross).T)
    return found | {
        "P_mean": fitted[0],
        "P_std": fitted[1],
        "training_share": np.array([_share(optimum, row) for row in change.examples]),
    }


def _levels(optimum: Optimum, steps: Array, count: int) -> Array:
    """(K,) positive levels of so many whole steps."""
    last = final_steps(optimum.table.terminal)
    grid = grid_from_steps(optimum.table.levels, steps, max(count, 1 + last), terminal=optimum.table.terminal)
    return np.asarray(grid[grid > 0])


def _share(optimum: Optimum, examples: Array) -> float:
    """Share of the compute that examples take."""
    prices, budget = optimum.study.prices, optimum.study.budget
    assert prices is not None
    assert budget is not None
    return float(prices.example_price(optimum.table.levels) @ examples) / budget


def _density(optimum: Optimum, table: Coefficients, new: Array, steps: Array) -> TrainingDensity:
    assert optimum.study.prices is not None
    parts = ScoreError(table).level_parts(Point(new, optimum.spent, steps))
    return TrainingDensity(
        table.levels, new, parts["score_weight"], table.final_score, parts["final_window"],
        optimum.study.prices.example_price(table.levels), parts.get("served_weight"), parts.get("pooling"),
        Prior.of(parts, table.final_prior), optimum.spent,
    )  # fmt: skip


def _slope(function: Callable[[Array], float], at: Array) -> Array:
    """(2,) central differences."""
    moves = _BEND * np.eye(at.size)
    return np.array([(function(at + move) - function(at - move)) / (2 * _BEND) for move in moves])
