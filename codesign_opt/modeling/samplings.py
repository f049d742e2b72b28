"""Several samplers that share one training: each with steps, images and a weight of its own.

docs/theory.md section 7.10. A `Sampling` is called with a term, a bound or a constraint to say that it is about this
sampler: preview(Steps()) <= 8. What it says of examples is about the training that all samplers share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, number, shown
from ..certificate.lagrangian import LagrangianBound
from ..models.base import Model
from ..models.coefficients import Coefficients
from .algebra import Bound, Sum, Term, check_table
from .composition import add_part
from .constraints import Constraint, as_named
from .design import Design, Point
from .discretization import Discretization
from .stated_rows import stated_rows
from .terms import ScoreError, Truncation

__all__ = ["OfSampling", "RowsOfSampling", "Sampling", "ScoreErrors"]


@dataclass(frozen=True, eq=False)
class Sampling:
    """One of several samplers that share one training, with steps of its own.

    Called with a term, a bound, a constraint or a function of the design it says that this sampler is meant:
    `preview(Steps()) <= 8`, `preview(Cap(0.5, "step_size"))`, `preview(lambda design: ...)`. A `Compute(prices)` of
    a program with samplings charges the training and the steps of all.

    Args:
        name: in texts, names of constraints and `plan.samplings`.
        table: the sampler's coefficients; all samplings of a problem have the same levels.
        images: images that will be drawn with it, >= 0; those of the prices unless given.
        weight: importance of its error in `ScoreErrors`, `discretization` and `truncation`, >= 0.
        model: the model behind the table; with it the plan has the exact error of the whole steps.

    Raises:
        ValueError: an empty name, a table that is none, images or a weight that are negative.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> quick = co.Sampling("quick", model.coefficients(0.01, 20), images=1e4)
    >>> fine = co.Sampling("fine", model.with_sampler(co.Heun()).coefficients(0.01, 20), images=100, weight=10)
    >>> errors = co.ScoreErrors([quick, fine]) + quick.discretization + fine.discretization
    >>> plan = co.Problem(errors, [co.Compute(co.Prices(3.0, 1.0, 1)) <= 1e6, quick(co.Steps()) <= 8]).solve()
    >>> plan.certificate.optimal, plan.samplings["quick"].sigmas.size - 1
    (True, 8)
    """

    name: str
    table: Coefficients
    images: float | None = None
    weight: float = 1.0
    model: Model | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"Sampling.name is {shown(self.name)}; a non-empty string is needed.")
        check_table(self.table, f"Sampling({self.name!r})")
        if self.images is not None:
            object.__setattr__(self, "images", number(self.images, "Sampling.images", nonnegative=True))
        object.__setattr__(self, "weight", number(self.weight, "Sampling.weight", nonnegative=True))
        if self.model is not None and not isinstance(self.model, Model):
            raise ValueError(f"Sampling.model is {shown(self.model)}; a model, or None, is needed.")

    def __call__(self, what: Any) -> Any:
        """The term, bound or constraint, said of this sampler."""
        if isinstance(what, Term):
            leaves = [(weight, OfSampling(self, leaf)) for weight, leaf in what.leaves()]
            alone = len(leaves) == 1 and isinstance(leaves[0][0], float) and leaves[0][0] == 1
            return leaves[0][1] if alone else Sum(tuple(leaves))
        if isinstance(what, Bound):
            return Bound(self(what.term), what.limit, f"{self.name}: {what.name}")
        return RowsOfSampling(self, what)

    @property
    def score(self) -> Term:
        """Its weighted score error."""
        return self.weight * self(ScoreError(self.table))

    @property
    def discretization(self) -> Term:
        """Its weighted discretisation error."""
        return self.weight * self(Discretization(self.table))

    @property
    def truncation(self) -> Term:
        """Its weighted error of stopping and starting where it does, which no design changes."""
        return self.weight * self(Truncation(self.table))

    @property
    def counts(self) -> tuple[int, int]:
        """Its final steps and its evaluations per step."""
        return self.table.final_steps, self.table.evaluations_per_step

    def __repr__(self) -> str:
        return f"Sampling({self.name!r}, {self.table!r})"


@dataclass(frozen=True, eq=False)
class OfSampling(Term):
    """A term about the steps of one sampler and the training that all share."""

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    sampling: Sampling
    inner: Term

    def __post_init__(self) -> None:
        if self.inner.whose is not None:
            raise TypeError(f"{self.sampling.name}({self.inner.name}): the term is about a sampler already.")

    @property
    def name(self) -> str:
        return f"{self.sampling.name}: {self.inner.name}"

    @property
    def whose(self) -> Sampling:
        return self.sampling

    @property
    def stated_levels(self) -> Any:
        return self.inner.stated_levels or self.sampling.table.levels

    @property
    def owner(self) -> Any:
        return self.inner.owner

    @property
    def needs_examples(self) -> bool:
        return self.inner.needs_examples

    @property
    def known_convex(self) -> bool:
        return False  # its expression is what the solver needs, whatever is known of it

    @property
    def monotone(self) -> bool:  # type: ignore[override]
        return self.inner.monotone

    @property
    def bounded_by_duals(self) -> bool:  # type: ignore[override]
        return self.inner.bounded_by_duals

    @property
    def majorised(self) -> bool:
        return self.inner.majorised

    @property
    def fixed(self) -> bool:
        return self.inner.fixed

    @property
    def advice(self) -> str:
        return self.inner.advice

    def components(self) -> Iterator[Term]:
        return (OfSampling(self.sampling, part) for part in self.inner.components())

    def expression(self, design: Design) -> Any:
        return self.inner.expression(design.of(self.sampling.name))

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        own = design.of(self.sampling.name)
        if not self.inner.scales_itself:
            return own.declared(self.inner)
        # what stands inside the inner term is about the sampler, too, wherever its own bound is looked for
        return self.inner.formulation(replace(own, declares=lambda term, _: design.declared(self.sampling(term))))

    def resolution(self, design: Design, point: Point) -> float:
        return self.inner.resolution(*self._own(design, point))

    def value(self, design: Design, point: Point) -> float:
        return self.inner.value(*self._own(design, point))

    def constant(self, design: Design, point: Point) -> float:
        return self.inner.constant(*self._own(design, point))

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        found = self.inner.parts(*self._own(design, point))
        return {f"{self.sampling.name}: {name}": value for name, value in found.items()}

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        return self.inner.level_parts(point.of(self.sampling.name))

    def sensitivities(
        self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]
    ) -> list[tuple[float, Term, Mapping[str, Array]]]:
        own = self.inner.sensitivities(*self._own(design, point), auxiliary)
        return [(w, term, {f"{self.sampling.name}: {key}": value for key, value in told.items()})
                for w, term, told in own]  # fmt: skip

    def remarks(self, design: Design, point: Point) -> list[str]:
        return [f"{self.sampling.name}: {said}" for said in self.inner.remarks(*self._own(design, point))]

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        own = bound.samplings.get(self.sampling.name)
        return own is not None and self.inner.add_to(own, weight, point.of(self.sampling.name))

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """The inner term in the sampler's own part of the bound."""
        name = self.sampling.name
        add_part(bound.samplings[name], weight, self.inner, point.of(name), design.of(name), auxiliary)
        return True

    def _own(self, design: Design, point: Point) -> tuple[Design, Point]:
        return design.of(self.sampling.name), point.of(self.sampling.name)


@dataclass(frozen=True, eq=False)
class RowsOfSampling(Constraint):
    """A constraint on the steps of one sampler, and on the training that all share."""

    sampling: Sampling
    what: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "what", as_named(self.what, 0))

    @property
    def name(self) -> str:
        return f"{self.sampling.name}: {self.what.name}"

    def constraints(self, design: Design) -> list[cp.Constraint]:
        return stated_rows(self.what, design.of(self.sampling.name))


@dataclass(frozen=True, eq=False)
class ScoreErrors(Term):
    """Weighted sum of the score errors of several samplers that share one training.

    sum_s w_s sum_l (A_sl / m_l + F_sl) M_s(kappa_sl / n_sl), plus the last evaluation of each: one vector of examples
    m, steps n_s and coefficients, coupling and weight of each sampler. Jointly convex in all, as each is
    (docs/theory.md section 7.10).

    Args:
        samplings: at least one `Sampling`; names differ.

    Raises:
        TypeError, ValueError: no sampling, something else, or two of one name.
    """

    structured: ClassVar[bool] = True
    samplings: Sequence[Sampling]

    def __post_init__(self) -> None:
        if not isinstance(self.samplings, (list, tuple)) or not self.samplings:
            raise TypeError(f"ScoreErrors.samplings is {shown(self.samplings)}; give a list of Sampling objects.")
        for each in self.samplings:
            if not isinstance(each, Sampling):
                raise TypeError(f"ScoreErrors: {shown(each)} is no Sampling; write Sampling(name, table).")
        names = [each.name for each in self.samplings]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"ScoreErrors: two samplings are called {twice!r}; names must differ.")
        object.__setattr__(self, "samplings", tuple(self.samplings))

    def leaves(self) -> Iterator[tuple[float, Term]]:
        for each in self.samplings:
            yield each.weight, OfSampling(each, ScoreError(each.table))

    def expression(self, design: Design) -> cp.Expression:
        return sum(weight * leaf.expression(design) for weight, leaf in self.leaves())

    def value(self, design: Design, point: Point) -> float:
        return float(np.sum([weight * leaf.value(design, point) for weight, leaf in self.leaves()]))
