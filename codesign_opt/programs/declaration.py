"""Declaration: a program as stated, with all that follows from the statement alone, worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, vector
from ..ingredients.coupling import Coupling
from ..ingredients.levels import Levels
from ..modeling import Sampling, Truncation
from ..modeling.algebra import Bound, Term
from ..modeling.constraints import Constraint, Named, as_named
from ..modeling.design import Box, Design, Point
from ..modeling.extension import bound_as_stated, leaves_as_stated
from ..models.coefficients import Coefficients
from .budget import Budget
from .reference import recentred
from .samplings import leaves_of, over, samplings_of
from .scaling import rows_of, scaled_expression

__all__ = ["Declaration", "refuse_unspent"]

_PROBES = np.geomspace(1e-3, 1e3, 25)  # step lengths over correlation length at which two couplings are compared


@dataclass(frozen=True, eq=False)
class Declaration:
    """What a program says before anything is solved: read by every route to its solution.

    Attributes:
        leaves: (weight, term) of every summand of the objective.
        constraints: with their names, which differ.
        levels: the noise levels that all terms share.
        table: the coefficients behind the terms; None where no term has any.
        examples, steps: (L,) what is given, spent examples included; None where it is decided or not needed.
        spent: (L,) examples already spent.
        uses_examples: False for a pure sampler program: no reducible score error, and nothing that the user wrote
            about examples, as a term or as a constraint.
        budgets: the linear budgets among the constraints, by name.
        box: all bounds of single levels at once.
        boxes: names of the constraints that are in `box`.
        samplings: the samplers that share the training, where there are several; then no steps are the program's own.
    """

    leaves: tuple[tuple[float, Term], ...]
    constraints: tuple[Named, ...]
    levels: Levels
    table: Coefficients | None
    examples: Array | None
    steps: Array | None
    spent: Array
    uses_examples: bool
    budgets: Mapping[str, Budget]
    box: Box
    boxes: frozenset[str]
    samplings: tuple[Sampling, ...] = ()

    @classmethod
    def of(
        cls,
        objective: Term,
        constraints: Sequence[Any],
        *,
        examples: Array | None = None,
        steps: Array | None = None,
        spent: Array | None = None,
    ) -> Declaration:
        """The declaration of a problem's arguments, checked.

        Raises:
            ValueError, TypeError: terms on different levels or tables, a wrong shape, an unusable constraint.
        """
        named = _distinct([as_named(what, i) for i, what in enumerate(constraints)])
        samplings = samplings_of(objective, named)
        if samplings:
            objective, named = over(objective, named, samplings)
            if steps is not None:
                raise ValueError("Problem.steps cannot be given where samplers have steps of their own.")
        bounds = [item.what for item in named if isinstance(item.what, Bound)]
        everyone = [leaf for term in [objective, *(bound.term for bound in bounds)] for _, leaf in term.leaves()]
        inside = [part for leaf in everyone for part in leaf.components()]
        levels = _shared_levels([*everyone, *inside])
        table = None if samplings else _shared_table(everyone, inside)
        for each in samplings:
            _shared_table([each(Truncation(each.table)).inner, *leaves_of(each, [*everyone, *inside])])
        given = {"examples": examples, "steps": steps, "spent": spent}
        for name, value in given.items():
            if value is not None:
                given[name] = vector(value, f"Problem.{name}", length=len(levels), nonnegative=True)
        before = np.zeros(len(levels)) if given["spent"] is None else given["spent"]
        if given["examples"] is not None:
            refuse_unspent("Problem.examples", given["examples"], before, levels)
        stated = cls(
            tuple(objective.leaves()), named, levels, table, given["examples"], given["steps"], before,
            any(leaf.needs_examples for leaf in everyone), {}, Box.empty(len(levels)), frozenset(), samplings,
        )  # fmt: skip
        if not stated.uses_examples and examples is None:
            stated = replace(stated, uses_examples=stated._bounds_examples())
        return stated._read(stated.design(stated.neutral))

    def _bounds_examples(self) -> bool:
        """Whether a constraint asks for examples, where no term does: one that none at all might break."""
        asking = replace(self, uses_examples=True)
        design = asking.design(asking.neutral)
        for item in self.constraints:
            if isinstance(item.what, Bound):
                continue  # of terms that no examples would help: a budget, or an error of the sampler alone
            box = item.what.level_bounds(design) if isinstance(item.what, Constraint) else None
            if box is not None:
                if np.any(box.examples_low > self.spent):
                    return True
                continue
            for row in rows_of(item, design):
                stated = [row.stated, *(side for part in row.auxiliary for side in part.args)]
                if any(v is design.new_variable for e in stated for v in e.variables()):
                    return True
        return False

    def _read(self, design: Design) -> Declaration:
        """The same with its terms taken apart and its budgets and level bounds read; none depends on a reference."""
        budgets, boxes, box, constraints = {}, set(), self.box, []
        for item in self.constraints:
            what = item.what
            if isinstance(what, Bound):
                what = bound_as_stated(what, design)
                budget = Budget.read(what, design)
                if budget is not None:
                    budgets[item.name] = budget
            found = what.level_bounds(design) if isinstance(what, Constraint) else None
            if found is not None:
                box = box & found
                boxes.add(item.name)
            constraints.append(item if what is item.what else Named(item.name, what))
        leaves = tuple((w * v, leaf) for w, term in self.leaves for v, leaf in leaves_as_stated(term, design))
        return Declaration(
            leaves, tuple(constraints), self.levels, self.table, self.examples, self.steps, self.spent,
            self.uses_examples, budgets, box, frozenset(boxes), self.samplings,
        )  # fmt: skip

    @property
    def neutral(self) -> Point:
        """One example and one step everywhere: the reference of what does not depend on one."""
        ones = np.ones(len(self.levels))
        return Point(ones, self.spent, ones, {each.name: ones for each in self.samplings})

    @property
    def new_examples(self) -> Array | None:
        """(L,) what is bought of the given examples; None where they are decided or not needed."""
        return None if self.examples is None else np.maximum(self.examples - self.spent, 0.0)

    @property
    def decides_examples(self) -> bool:
        """Whether any term or constraint depends on the examples and they are not given."""
        return self.examples is None and self.uses_examples

    @property
    def decides_steps(self) -> bool:
        """Whether any term depends on the sampler's steps and they are not given."""
        return self.steps is None and self.table is not None

    @property
    def only_budgets_and_boxes(self) -> bool:
        """Whether every constraint is a linear budget or a bound of single levels."""
        return all(item.name in self.budgets or item.name in self.boxes for item in self.constraints)

    def design(self, reference: Point) -> Design:
        """The decision variables around `reference`, with the given quantities fixed."""
        table = self.table
        return Design.declare(
            self.levels,
            reference=reference,
            fixed_examples=not self.decides_examples,
            fixed_steps=not self.decides_steps,
            final_steps=0 if table is None else table.final_steps,
            evaluations_per_step=1 if table is None else table.evaluations_per_step,
            declares=scaled_expression,
            samplings={each.name: each.counts for each in self.samplings},
        )

    def recentred(self, point: Point) -> Point:
        """`point` as the next reference; given quantities stay as they are."""
        prior = None if self.table is None else self.table.prior_examples
        fixed = {"fixed_examples": not self.decides_examples, "fixed_steps": not self.decides_steps}
        return recentred(point, prior=prior, **fixed)


def refuse_unspent(name: str, examples: Array, spent: Array, levels: Levels) -> None:
    """Refuse fewer examples than are spent already: they would be taken for others."""
    less = np.flatnonzero(examples < spent * (1 - 1e-12))
    if less.size:
        at = int(less[0])
        raise ValueError(
            f"{name} are {examples[at]:.6g} at index {at} (sigma = {levels.sigma[at]:.3g}), fewer than the "
            f"{spent[at]:.6g} already spent there; they count all examples, spent ones included."
        )


def _distinct(items: Iterable[Named]) -> tuple[Named, ...]:
    """Names made distinct, so that shadow prices can be looked up by name."""
    seen: dict[str, int] = {}
    result = []
    for item in items:
        seen[item.name] = seen.get(item.name, 0) + 1
        label = item.name if seen[item.name] == 1 else f"{item.name} ({seen[item.name]})"
        result.append(Named(label, item.what))
    return tuple(result)


def _shared_levels(leaves: Sequence[Term]) -> Levels:
    """The levels of all terms; ValueError where two differ or none is known."""
    found = [(leaf, leaf.stated_levels) for leaf in sorted(leaves, key=lambda leaf: leaf.coefficients is None)]
    stated = [(leaf, levels) for leaf, levels in found if levels is not None]
    if not stated:
        raise ValueError("Problem has no ScoreError, Discretization or InformationError: no levels are known.")
    first, levels = stated[0]
    for leaf, other in stated[1:]:
        if other is levels or _close(other.edges, levels.edges):
            continue
        raise ValueError(
            f"Problem: terms on different levels, {levels!r} of {first.name} and {other!r} of {leaf.name}, with "
            f"stopping points {levels.edges[0]:.6g} and {other.edges[0]:.6g}; make both from one table."
        )
    return levels


def _shared_table(leaves: Sequence[Term], inside: Sequence[Term] = ()) -> Coefficients | None:
    """The table of all terms; ValueError where two are about different samplers or couplings.

    Numbers of the errors themselves may differ: several spectra or classes on one grid are one program. So may the
    couplings of terms inside others: what the correlation length is may be the very thing that is not known.
    """
    first: Term | None = None
    tabled = sorted((leaf for leaf in leaves if leaf.coefficients is not None), key=lambda leaf: not leaf.couples)
    for leaf in [*tabled, *(part for part in inside if part.coefficients is not None)]:
        if first is None:
            first = leaf
        elif leaf.coefficients is not first.coefficients:
            _refuse_other_table(first, leaf, coupling=leaf in tabled)
    return None if first is None else first.coefficients


def _refuse_other_table(first: Term, other: Term, *, coupling: bool) -> None:
    one, two = first.coefficients, other.coefficients
    assert one is not None
    assert two is not None
    for name in ("order", "evaluations_per_step", "terminal"):
        if getattr(one, name) != getattr(two, name):
            _refuse(first, other, name, repr(getattr(one, name)), repr(getattr(two, name)))
    if coupling and other.couples and first.couples and not _alike(one.coupling, two.coupling, one.levels):
        _refuse(first, other, "coupling", repr(one.coupling), repr(two.coupling))


def _refuse(first: Term, other: Term, name: str, one: str, two: str) -> None:
    raise ValueError(
        f"Problem: {first.name} and {other.name} are on tables that differ in {name}, {one} and {two}; one sampler "
        "and one denoiser serve the whole program. Take both tables from one model, or change only error "
        "coefficients: replace(table, score=...)."
    )


def _alike(one: Coupling, two: Coupling, levels: Levels) -> bool:
    """Whether two couplings do the same on these levels, however they are stated."""
    if one is two:
        return True
    pools = one.pooling(levels), two.pooling(levels)
    if (pools[0] is None) != (pools[1] is None) or (pools[0] is not None and not _close(*pools)):
        return False
    return _close(one.lengths(levels), two.lengths(levels)) and _close(one.factor(_PROBES), two.factor(_PROBES))


def _close(one: Any, two: Any) -> bool:
    return one.shape == two.shape and (one is two or bool(np.all(np.abs(one - two) <= 1e-5 * np.abs(two) + 1e-300)))
