"""Several scenarios at once: the worst of them, and the mean of the worst share of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, number, scale_of, scales_of, shown
from ..basics.checks import entries as entries_of
from ..certificate.lagrangian import LagrangianBound
from ..models.coefficients import Coefficients
from .algebra import Term
from .composition import Composite, declared, dual_of, merged_level_parts, rescaled, tried, weighted_sensitivities
from .design import Design, Point
from .discretization import Discretization
from .terms import ScoreError

__all__ = ["CVaR", "WorstCase"]

_SHOWN = 8  # scenarios that a remark lists


class _Scenarios(Composite):
    """max over the weights w of a set of distributions of sum_i w_i f_i, f_i the scenarios."""

    structured: ClassVar[bool] = True
    entries: Any
    names: tuple[str, ...]

    @property
    def inside(self) -> tuple[Term, ...]:
        return self.entries

    def nonnegative(self, design: Design) -> bool:
        """A mean of the worst of what is at least 0 is so too; what declares it has variables of either sign."""
        return all(w >= 0 and leaf.nonnegative(design) for term in self.entries for w, leaf in term.leaves())

    @property
    @abstractmethod
    def most(self) -> Array:
        """(N,) the largest weight that each scenario may get."""

    @abstractmethod
    def weights(self, values: Array) -> Array:
        """(N,) weights that attain the maximum at these values of the scenarios."""

    def _weighted(self, point: Point, design: Design) -> list[tuple[float, Term]]:
        """(weight, leaf) at the point."""
        weights = self.weights(self.values(design, point))
        return [(w * v, leaf) for w, term in zip(weights, self.entries, strict=True) if w for v, leaf in term.leaves()]

    def stand_in(self) -> Iterator[tuple[float, Term]]:
        """The average scenario: one table of score errors, and all rows of the discretisation errors."""
        leaves = [(v / len(self.entries), leaf) for term in self.entries for v, leaf in term.leaves()]
        scores = [(w, leaf.table) for w, leaf in leaves if isinstance(leaf, ScoreError)]
        errors = [(w, leaf.table) for w, leaf in leaves if isinstance(leaf, Discretization)]
        if scores:
            yield 1.0, ScoreError(_average_score(scores))
        if errors:
            rows = np.vstack([np.sqrt(w) * table.response for w, table in errors])
            yield 1.0, Discretization(replace(errors[0][1], response=rows, band_variances=None))

    def value(self, design: Design, point: Point) -> float:
        values = self.values(design, point)
        weights = self.weights(values)
        return float(weights[weights > 0] @ values[weights > 0])

    def constant(self, design: Design, point: Point) -> float:
        constants = self.constants(design, point)
        weights = self.weights(constants)
        return float(weights[weights > 0] @ constants[weights > 0])

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        """Those of the scenarios that count at the point, by weight: they sum to `value`."""
        found: dict[str, float] = {}
        for weight, leaf in self._weighted(point, design):
            for name, value in leaf.parts(design, point).items():
                found[name] = found.get(name, 0.0) + weight * value
        return found

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        design = _any_design(self, point)
        # parts that state no levels have no table to tell of
        return {} if design is None else merged_level_parts(self._weighted(point, design), point)

    def remarks(self, design: Design, point: Point) -> list[str]:
        values = self.values(design, point)
        order = np.argsort(-values)[:_SHOWN]
        told = ", ".join(f"{self.names[i]} {values[i]:.6g}" for i in order)
        more = f" and {values.size - _SHOWN} smaller" if values.size > _SHOWN else ""
        return [f"{self.name} is {self.value(design, point):.6g}; its scenarios: {told}{more}"]

    def solved_weights(self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]) -> Array:
        """(N,) of the scenarios at the optimum: from the duals of their rows, else from the values."""
        weights = rescaled(dual_of(auxiliary[0]), self.most) if auxiliary else None
        return self.weights(self.values(design, point)) if weights is None else weights

    def sensitivities(
        self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]
    ) -> list[tuple[float, Term, Mapping[str, Array]]]:
        weights = self.solved_weights(design, point, auxiliary)
        return weighted_sensitivities(weights, self.entries, design, point, auxiliary[self._own_rows :])

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """The scenarios weighted by the duals of their rows, each bounded as exactly as on its own."""
        weights = self.solved_weights(design, point, auxiliary)
        return tried(bound, weight * weights, self.entries, point, design, auxiliary[self._own_rows :])

    _own_rows: ClassVar[int] = 1


def _any_design(term: Composite, point: Point) -> Design | None:
    """A design of the levels that the parts state; None where all parts take any levels."""
    stated = (leaf.stated_levels for leaf in term.components())
    levels = next((levels for levels in stated if levels is not None), None)
    whose = [leaf.whose for leaf in term.components() if leaf.whose is not None]
    counts = {each.name: each.counts for each in whose}
    if levels is None:
        return None
    ones = np.ones(len(levels))  # not the point itself, which may have nothing on some levels
    unit = Point(ones, point.spent, ones, dict.fromkeys(counts, ones))
    return Design.declare(levels, reference=unit, samplings=counts)


def _average_score(scores: Sequence[tuple[float, Coefficients]]) -> Coefficients:
    first = scores[0][1]

    def mean(name: str) -> Any:
        return sum(weight * getattr(table, name) for weight, table in scores)

    return replace(
        first, score=mean("score"), floor=mean("floor"), final_score=mean("final_score"),
        final_floor=mean("final_floor"), truncation=0.0, initial=0.0,
    )  # fmt: skip


def _read(entries: Any, owner: str) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Scenarios and their names from a list, or from a mapping by name."""
    if isinstance(entries, Mapping):
        names, terms = tuple(map(str, entries)), tuple(entries.values())
    elif isinstance(entries, (list, tuple)):
        terms = tuple(entries)
        names = tuple(str(i) for i in range(len(terms)))
    else:
        raise TypeError(f"{owner}.entries is {shown(entries)}; give a list of terms, or a mapping of names to terms.")
    if not terms:
        raise ValueError(f"{owner}.entries is empty; give at least one scenario.")
    for name, term in zip(names, terms, strict=True):
        if not isinstance(term, Term):
            raise TypeError(f"{owner}: scenario {name} is {shown(term)}; give a term or a sum of terms.")
    return terms, names


@dataclass(frozen=True, eq=False)
class WorstCase(_Scenarios):
    """The largest of several errors: max_i f_i, over models, spectra, classes or data sets that one plan must serve.

    Convex where every f_i is. All scenarios share the design: their tables must agree in levels (and with them in the
    stopping point), order, evaluations per step and terminal map; spectra, score errors, couplings and whole terms may
    differ. The plan's breakdown is that of the worst scenario, and a note lists all (docs/theory.md section 7.9).

    Args:
        entries: terms or sums of terms, in a list or in a mapping by name.
        names: of the scenarios, where `entries` is a list.

    Raises:
        TypeError, ValueError: no scenario, or one that is no term; a problem refuses tables that don't agree, by name.

    >>> import numpy as np
    >>> from codesign_opt import Coefficients, Levels, Prices
    >>> from codesign_opt.modeling import Compute, ScoreError
    >>> from codesign_opt.programs.problem import Problem
    >>> levels = Levels.log_uniform(0.01, 10.0, 2)
    >>> def spectrum(score):
    ...     return ScoreError(Coefficients(levels, score, np.zeros(2), np.zeros((0, 2)), terminal="rescale"))
    >>> digits, faces = spectrum([1.0, 4.0]), spectrum([4.0, 1.0])
    >>> plan = Problem(WorstCase([digits, faces]), [Compute(Prices(1.0, 1.0, 1), part="training") <= 100.0],
    ...                steps=[9.0, 9.0]).solve()
    >>> plan.examples.round(3).tolist(), plan.certificate.optimal
    ([50.0, 50.0], True)
    """

    structured: ClassVar[bool] = True
    entries: Any
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _store(self)

    @property
    def most(self) -> Array:
        return np.ones(len(self.entries))

    def weights(self, values: Array) -> Array:
        weights = np.zeros(values.size)
        weights[int(np.argmax(values))] = 1.0
        return weights

    def expression(self, design: Design) -> cp.Expression:
        return cp.max(cp.hstack([term.expression(design) for term in self.entries]))

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """t >= f_i for every scenario, whose duals are the weights; t relative to what the design can change."""
        parts = [declared(term, design) for term in self.entries]
        base, size = max(part.base for part in parts), max(part.moving for part in parts)
        top = cp.Variable(name="worst case")
        rows = top >= cp.hstack([(part.expression - base) / size for part in parts])
        return size * top + base, [rows, *(row for part in parts for row in part.auxiliary)]


@dataclass(frozen=True, eq=False)
class CVaR(_Scenarios):
    """Mean of the worst share of several errors: conditional value at risk, between their mean and their maximum.

    min_t t + sum_i p_i (f_i - t)_+ / share (Rockafellar and Uryasev 2000), the mean of the worst scenarios that
    together have probability `share`; the last of them counts in part. share = 1 is the mean, share <= min p the
    maximum. The scenarios must agree as those of WorstCase.

    Args:
        entries: terms or sums of terms, in a list or in a mapping by name.
        share: probability of the worst that are averaged, 0 < share <= 1.
        probabilities: (N,) of the scenarios, > 0; they are normalised. Equal unless given.

    Raises:
        TypeError, ValueError: as WorstCase; a share outside (0, 1].

    >>> from codesign_opt.modeling import Steps
    >>> risk = CVaR({"one": Steps(), "two": 2 * Steps(), "three": 3 * Steps()}, share=0.5)
    >>> risk.weights(np.array([1.0, 2.0, 3.0])).round(3)
    array([0.   , 0.333, 0.667])
    """

    structured: ClassVar[bool] = True
    _own_rows: ClassVar[int] = 2
    entries: Any
    share: float
    probabilities: Any = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _store(self)
        share = number(scale_of(self.share, "CVaR.share"), "CVaR.share", maximum=1.0)
        size = len(self.entries)
        given = np.ones(size) if self.probabilities is None else self.probabilities
        probabilities = scales_of(given, "CVaR.probabilities", length=size)
        object.__setattr__(self, "share", share)
        object.__setattr__(self, "probabilities", probabilities / probabilities.sum())

    @property
    def name(self) -> str:
        return f"CVaR({self.share:g})"

    @property
    def most(self) -> Array:
        return np.asarray(self.probabilities / self.share)

    def weights(self, values: Array) -> Array:
        weights, left = np.zeros(values.size), 1.0
        for i in np.argsort(-values):
            weights[i] = min(left, self.most[i])
            left -= weights[i]
        return weights

    def expression(self, design: Design) -> cp.Expression:
        """Where all scenarios weigh the same and share x N is whole, without variables of its own."""
        whole = self.share * len(self.entries)
        if np.ptp(self.probabilities) > 1e-12 or abs(whole - round(whole)) > 1e-9 or whole < 0.5:
            raise TypeError(f"{self.name} has auxiliary variables; it is declared by `formulation`.")
        values = cp.hstack([term.expression(design) for term in self.entries])
        return cp.sum_largest(values, round(whole)) / round(whole)

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        parts = [declared(term, design) for term in self.entries]
        base, size = max(part.base for part in parts), max(part.moving for part in parts)
        level, above = cp.Variable(name="value at risk"), cp.Variable(len(parts), name="above it")
        rows = above + level >= cp.hstack([(part.expression - base) / size for part in parts])
        inner = [row for part in parts for row in part.auxiliary]
        return size * (level + self.most @ above) + base, [rows, above >= 0, *inner]


def _store(term: Any) -> None:
    owner = type(term).__name__
    entries, names = _read(term.entries, owner)
    given = entries_of(term.names, f"{owner}.names") or names
    if len(given) != len(entries):
        raise ValueError(f"{owner}.names has {len(given)} entries; {len(entries)} are needed.")
    object.__setattr__(term, "entries", entries)
    object.__setattr__(term, "names", given)
