"""Stages of a run with prices of their own: cached latents, low resolution first, growing batches.

Examples of different stages are exchangeable where they teach the same, so that the cheapest would take all of them:
what splits a run is how much a stage may hold and at which noise levels its examples count (docs/theory.md, section
7.12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from ..basics.checks import Array, entries, number, shown, takes, vector
from ..basics.errors import InfeasibleError
from ..basics.user_code import answer
from ..ingredients.levels import Levels
from ..ingredients.prices import Prices
from .algebra import Term
from .design import Design, Point
from .terms import Compute

__all__ = ["Stage", "StageSplit", "Stages"]

_Curve = Callable[[Array], Array]
_ROUNDING = 1e-7  # of examples, by which a solver's point may break a quota


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a training run: what an example costs, how many there may be, and where they count.

    Args:
        name: not empty.
        example: price of one example, > 0; a number or a function of sigma.
        quota: the most examples of the stage (updates x batch), > 0; None: no limit.
        worth: examples at full worth that one counts as, >= 0; a number or a function of sigma: 0 below the noise
            levels that a low resolution knows anything of.

    Raises:
        ValueError: a field out of its range.

    >>> Stage("low resolution", example=0.25, quota=1e6, worth=lambda sigma: sigma > 1.0).name
    'low resolution'
    """

    name: str
    example: float | _Curve
    quota: float | None = None
    worth: float | _Curve = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"Stage.name is {shown(self.name)}; a non-empty string is needed.")
        put = object.__setattr__
        if not callable(self.example):
            put(self, "example", number(self.example, f"Stage.example of '{self.name}'", positive=True))
        if not callable(self.worth):
            put(self, "worth", number(self.worth, f"Stage.worth of '{self.name}'", nonnegative=True))
        if self.quota is not None:
            put(self, "quota", number(self.quota, f"Stage.quota of '{self.name}'", positive=True))

    @takes(levels=Levels)
    def prices(self, levels: Levels) -> Array:
        """(L,) price of an example on each level."""
        return self._on(levels, "example")

    @takes(levels=Levels)
    def worths(self, levels: Levels) -> Array:
        """(L,) what an example counts on each level, the mean over the level."""
        return self._on(levels, "worth")

    def _on(self, levels: Levels, field: str) -> Array:
        value, name = getattr(self, field), f"Stage.{field} of '{self.name}'"
        if not callable(value):
            return np.full(len(levels), float(value))
        found = levels.average(lambda sigma: answer(value, sigma, name), points=16)
        price = field == "example"
        return vector(found, f"{name}(sigma)", length=len(levels), positive=price, nonnegative=not price)


@dataclass(frozen=True, eq=False)
class StageSplit:
    """Examples of every stage on every level, the cheapest that teach what a plan asks for.

    Attributes:
        names: (S,) of the stages.
        examples: (S, L).
        costs: (S,) what each stage costs.
    """

    names: tuple[str, ...]
    examples: Array
    costs: Array

    def __str__(self) -> str:
        rows = zip(self.names, self.examples.sum(axis=1), self.costs, strict=True)
        return "\n".join(f"{name}: {examples:,.0f} examples, price {cost:,.6g}" for name, examples, cost in rows)


@dataclass(frozen=True, eq=False)
class Stages(Term):
    """Price of a design whose examples are taken from stages, with sampling: their cheapest split.

    min_x sum_sl c_sl x_sl + sum_l k_l n_l with sum_s w_sl x_sl >= m_l, sum_l x_sl <= Q_s, x >= 0: the partial minimum
    of a linear program, convex and piecewise linear in the examples m (docs/theory.md section 7.12). As a bound it is
    a budget, `Stages(...) <= budget`; a design that the quotas cannot teach has no price. `codesign(model,
    stages.lowest_prices, budget, constraints=[stages <= budget])` searches the stopping point too; the prices of its
    report are the lowest then, and `split` says what each stage gets.

    Args:
        stages: of the run, at least one.
        evaluation, images: price of one evaluation for one image, and how many images will be drawn; as in `Prices`.

    Raises:
        ValueError: no stages, or two of one name.

    >>> import codesign_opt as co
    >>> cached = Stage("cached latents", example=1.0, quota=2e4)
    >>> stages = Stages([cached, Stage("augmented", example=3.0)], evaluation=1.0, images=100)
    >>> table = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)).coefficients(0.05, levels=20)
    >>> plan = co.Problem(co.ScoreError(table) + co.Discretization(table), [stages <= 1e5]).solve()
    >>> plan.certificate.optimal, round(stages.split(plan.levels, plan.examples).examples[0].sum())
    (True, 20000)
    """

    nested: ClassVar[bool] = True
    stages: Sequence[Stage]
    evaluation: float | _Curve = 1.0
    images: float = 0.0

    def __post_init__(self) -> None:
        stages = entries(self.stages, "Stages.stages")
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise ValueError(f"Stages.stages is {shown(self.stages)}; give at least one Stage.")
        names = [stage.name for stage in stages]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"Stages.stages holds '{twice}' twice; give each stage a name of its own.")
        object.__setattr__(self, "stages", stages)

    @property
    def lowest_prices(self) -> Prices:
        """Prices at which no example costs more than in any stage: what `codesign` needs beside the bound."""

        def price(sigma: Array) -> Array:
            found = [
                _called(stage.example, sigma) / np.maximum(_called(stage.worth, sigma), 1.0) for stage in self.stages
            ]
            return np.asarray(np.min(found, axis=0))

        return Prices(price, self.evaluation, self.images)

    def expression(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:  # type: ignore[override]
        unit = np.where(design.reference.new_examples > 0, design.reference.new_examples, 1.0)
        prices, worths = self._tables(design.levels)
        taken = [cp.Variable(len(design), nonneg=True, name=stage.name) for stage in self.stages]
        taught = sum(cp.multiply(worth, x) for worth, x in zip(worths, taken, strict=True))
        rows = [cp.multiply(1 / unit, design.new_examples) <= taught]
        cost = Compute(self.lowest_prices, part="sampling").expression(design)
        for stage, price, x in zip(self.stages, prices, taken, strict=True):
            cost = cost + (price * unit) @ x
            if stage.quota is not None:
                rows.append((unit / stage.quota) @ x <= 1)
        return cost, rows

    def value(self, design: Design, point: Point) -> float:
        """The price of the cheapest split and of sampling; infinite where the quotas do not teach so many examples."""
        sampling = Compute(self.lowest_prices, part="sampling").value(design, point)
        split = self._cheapest(design.levels, point.new_examples)
        if split is None:  # a solver's point may be beyond a quota by rounding
            split = self._cheapest(design.levels, point.new_examples * (1 - _ROUNDING))
        return sampling + (np.inf if split is None else float(split.costs.sum()))

    @takes(levels=Levels)
    def split(self, levels: Levels, examples: Any) -> StageSplit:
        """The cheapest split of examples on levels over the stages.

        Args:
            levels: a plan's, `plan.levels`.
            examples: (L,) new examples on them, >= 0.

        Raises:
            InfeasibleError: the quotas do not teach so many.
        """
        wanted = vector(examples, "examples", nonnegative=True, length=len(levels))
        found = self._cheapest(levels, wanted)
        if found is None:
            raise InfeasibleError(
                f"Stages.split: the stages do not teach {wanted.sum():,.0f} examples on these levels within their "
                "quotas; raise a Stage.quota, or a worth where none is left."
            )
        return found

    def _cheapest(self, levels: Levels, wanted: Array) -> StageSplit | None:
        prices, worths = self._tables(levels)
        unit = np.maximum(wanted, wanted.max() * 1e-12) if wanted.any() else np.ones(len(levels))
        taught = sparse.hstack([sparse.diags_array(-worth) for worth in worths])
        quotas = np.array([np.inf if stage.quota is None else stage.quota for stage in self.stages])
        limited = np.isfinite(quotas)
        held = sparse.kron(sparse.diags_array(1 / quotas).tocsr()[limited], unit[None])
        found = linprog(
            (prices * unit).ravel() / (prices * unit).max(),
            A_ub=sparse.vstack([taught, held], format="csc"),
            b_ub=np.concatenate([-wanted / unit, np.ones(np.count_nonzero(limited))]),
            method="highs",
        )
        if found.status != 0:
            return None
        split = found.x.reshape(len(self.stages), len(levels)) * unit
        return StageSplit(tuple(stage.name for stage in self.stages), split, (prices * split).sum(axis=1))

    def _tables(self, levels: Levels) -> tuple[Array, Array]:
        """(S, L) prices and worths."""
        return (
            np.stack([stage.prices(levels) for stage in self.stages]),
            np.stack([stage.worths(levels) for stage in self.stages]),
        )


def _called(value: Any, sigma: Array) -> Array:
    return answer(value, sigma, "Stage") if callable(value) else np.full(np.shape(sigma), float(value))
