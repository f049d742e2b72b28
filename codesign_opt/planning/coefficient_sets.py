"""Sets of coefficients that a robust plan stands against: boxes and ellipsoids, and the worst of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, number
from ..ingredients.coupling import Coupling, Local
from ..ingredients.levels import Levels
from ..ingredients.process import EDM, Process
from ..ingredients.spectrum import Spectrum
from ..modeling import Point, ScoreError
from ..models.base import Model
from ..models.coefficients import Coefficients
from ..samplers.members import Heun, Sampler

__all__ = ["Box", "CoefficientSet", "Ellipsoid", "LocalSet", "WeightedModel", "Weights"]

_STEP = 1e-3

Width = float | Callable[[Array], Any]


@dataclass(frozen=True, eq=False)
class Weights:
    """Factors of a table's coefficients.

    Args:
        sigma: (L,) noise levels of the first two.
        score, floor: (L,) of the reducible and the irreducible score error.
        final_score, final_floor: of the last evaluation's.
        response: (L,) of the discretisation error's rows.
        truncation: of what no design changes.
    """

    sigma: Array
    score: Array
    floor: Array
    final_score: float = 1.0
    final_floor: float = 1.0
    response: Array | None = None
    truncation: float = 1.0

    def of(self, table: Coefficients) -> Coefficients:
        """The table times these; between the noise levels linear in log sigma."""
        at, logs = np.log(table.sigma), np.log(self.sigma)
        score, floor = (np.interp(at, logs, row) for row in (self.score, self.floor))
        response = np.ones(at.size) if self.response is None else np.interp(at, logs, self.response)
        return replace(
            table,
            score=table.score * score,
            floor=table.floor * floor,
            # the untrained error goes with the score, so that an untrained denoiser is worth as many examples
            untrained=None if table.untrained is None else table.untrained * score,
            final_score=table.final_score * self.final_score,
            final_untrained=None if table.final_untrained is None else table.final_untrained * self.final_score,
            final_floor=table.final_floor * self.final_floor,
            response=table.response * response,
            truncation=table.truncation * self.truncation,
            initial=table.initial * self.truncation,
        )


class LocalSet(ABC):
    """A set of coefficients at one stopping point."""

    @abstractmethod
    def worst(self, table: Coefficients, point: Point) -> Weights:
        """The coefficients of the set at which a design's error is largest, as factors of the table's."""


class CoefficientSet(ABC):
    """Which coefficients are held possible."""

    @abstractmethod
    def at(self, model: Model, table: Coefficients) -> LocalSet:
        """The set at one stopping point, around the table of a model there."""


@dataclass(frozen=True, eq=False)
class Box(CoefficientSet):
    """Every coefficient for itself within a relative distance of its value, whatever the others are.

    All of them raise the error, so that the worst is the upper corner: a program like any other.

    Args:
        score: of the reducible score error, a number or a function of sigma, >= 0.
        floor: of the irreducible one.
        last: of the last evaluation's error.
        response: of the local error of the sampler's steps, likewise.
        truncation: of what stopping and starting cost.

    Raises:
        ValueError: a width that is negative or not finite, by name.

    >>> Box(score=0.2)
    Box(score=0.2)
    """

    score: Width = 0.0
    floor: Width = 0.0
    last: float = 0.0
    response: Width = 0.0
    truncation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("score", "floor", "last", "response", "truncation"):
            value = getattr(self, name)
            if not callable(value) or name in ("last", "truncation"):
                object.__setattr__(self, name, number(value, f"Box.{name}", nonnegative=True))

    def at(self, model: Model, table: Coefficients) -> LocalSet:
        sigma = table.sigma
        corner = Weights(
            sigma,
            score=_above(self.score, sigma, "Box.score"),
            floor=_above(self.floor, sigma, "Box.floor"),
            final_score=1.0 + self.last,
            final_floor=1.0 + self.last,
            response=_above(self.response, sigma, "Box.response"),
            truncation=1.0 + self.truncation,
        )
        return _Corner(corner)

    def __repr__(self) -> str:
        told = {name: getattr(self, name) for name in ("score", "floor", "last", "response", "truncation")}
        said = (f"{n}={'function of sigma' if callable(v) else f'{v:g}'}" for n, v in told.items() if callable(v) or v)
        return f"Box({', '.join(said)})"


@dataclass(frozen=True, eq=False)
class _Corner(LocalSet):
    weights: Weights

    def worst(self, table: Coefficients, point: Point) -> Weights:
        return self.weights


def _above(width: Width, sigma: Array, name: str) -> Array:
    value = np.broadcast_to(np.asarray(width(sigma) if callable(width) else width, dtype=np.float64), sigma.shape)
    if not (np.all(np.isfinite(value)) and np.all(value >= 0)):
        raise ValueError(f"{name} is {value.min():g} at some sigma; a relative width must be finite and >= 0.")
    return 1.0 + value


@dataclass(frozen=True, eq=False)
class Ellipsoid(CoefficientSet):
    """Score coefficients of all measured numbers within so many standard errors: those of a model's `unknowns`.

    With z of length at most `reach` in the coordinates in which the numbers' errors are independent and of size one,
    every coefficient of the score error is taken as linear in z. The worst case of a design is its error plus `reach`
    standard errors of it: the robust plan has the least upper confidence limit of the score error.
    Local errors of the sampler and the truncation are held at their measured values.

    Args:
        reach: standard errors, > 0; 2 for the upper end of a 95 % interval.
        length_error, width_error: as for `co.uncertainty`.

    Raises:
        ValueError: a number out of range; in use, a model without measured numbers.

    >>> Ellipsoid(reach=2)
    Ellipsoid(reach=2)
    """

    reach: float = 2.0
    length_error: float = 0.0
    width_error: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", number(self.reach, "Ellipsoid.reach", positive=True))
        for name in ("length_error", "width_error"):
            object.__setattr__(self, name, number(getattr(self, name), f"Ellipsoid.{name}", nonnegative=True))

    def at(self, model: Model, table: Coefficients) -> LocalSet:
        known = model.unknowns(length_error=self.length_error, width_error=self.width_error)
        if known is None:
            raise ValueError(
                "Ellipsoid: no number of the model is measured; use Spectrum.from_samples with more samples than "
                "dimensions or an estimate.network, or state a co.Box."
            )
        rows = []
        stop, levels = table.stopping_sigma, table.levels
        for column in known.factor.T:
            up, down = (known.moved(sign * _STEP * column).coefficients(stop, levels) for sign in (1, -1))
            rows.append(_relative(table, up, down))
        slopes = self.reach * np.array(rows).T
        size = np.linalg.norm(slopes, axis=1)
        if size.max() > 1.0:
            raise ValueError(
                f"Ellipsoid.reach is {self.reach:g}, and a coefficient's standard error is "
                f"{size.max() / self.reach:.2g} of it: it might be negative. Lower reach to "
                f"{0.99 * self.reach / size.max():.2g}, or state a co.Box."
            )
        return _Ball(slopes)

    def __repr__(self) -> str:
        more = "".join(f", {n}={v:g}" for n in ("length_error", "width_error") if (v := getattr(self, n)))
        return f"Ellipsoid(reach={self.reach:g}{more})"


def _relative(table: Coefficients, up: Coefficients, down: Coefficients) -> Array:
    """(2 L + 2,) relative derivatives of score, floor and the last evaluation's two."""

    def stacked(each: Coefficients) -> Array:
        return np.concatenate([each.example_error, each.floor_error, [each.final_score, each.final_floor]])

    own, moved = stacked(table), (stacked(up) - stacked(down)) / (2 * _STEP)
    return np.divide(moved, own, out=np.zeros_like(own), where=own > 0)


@dataclass(frozen=True, eq=False)
class _Ball(LocalSet):
    """Coefficients c (1 + slopes @ z), |z| <= 1."""

    slopes: Array

    def worst(self, table: Coefficients, point: Point) -> Weights:
        score = ScoreError(table)
        errors = np.concatenate([*score.levels_value(point), score.final_value(point)])
        toward = self.slopes.T @ errors
        size = float(np.linalg.norm(toward))
        # the error is linear in the coefficients: it gains |toward| at the point of the sphere along it
        factor, count = 1.0 + self.slopes @ (toward / size if size > 0 else toward), len(table.levels)
        return Weights(table.sigma, factor[:count], factor[count:-2], float(factor[-2]), float(factor[-1]))


@dataclass(frozen=True, eq=False)
class WeightedModel(Model):
    """A model whose coefficients are multiplied by given weights; grids are judged as the model itself does.

    Args:
        base: the model.
        weights: the factors.
    """

    base: Model
    weights: Weights
    spectrum: Spectrum
    process: Process = field(default_factory=EDM)
    sampler: Sampler = field(default_factory=Heun)
    coupling: Coupling = field(default_factory=Local)
    terminal: str = "denoise"

    @classmethod
    def of(cls, base: Model, weights: Weights) -> WeightedModel:
        """The model with these weights."""
        return cls(base, weights, base.spectrum, base.process, base.sampler, base.coupling, base.terminal)

    @property
    def trained(self) -> bool:
        return self.base.trained

    @property
    def title(self) -> str:
        return f"{self.base.title}, at the worst coefficients"

    def coefficients(self, stopping_sigma: float | None = None, levels: int | Levels = 200) -> Coefficients:
        return self.weights.of(self.base.coefficients(stopping_sigma, levels))

    def settled(self, sigmas: Any, levels: int | Levels = 200, *, smooth: bool = False) -> Coefficients:
        return self.weights.of(self.base.settled(sigmas, levels, smooth=smooth))

    def ended(self, table: Coefficients) -> Coefficients:
        return self.base.ended(table)

    def with_process(self, process: Process) -> WeightedModel:
        return replace(self, base=self.base.with_process(process), process=process)

    def with_sampler(self, sampler: Sampler) -> WeightedModel:
        return replace(self, base=self.base.with_sampler(sampler), sampler=sampler)
