"""Programs of several samplers that share one training: who they are, and what is said of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..modeling import Bound, Named, Sampling, Sum, Term
from ..modeling.constraints import Constraint
from ..modeling.design import Design, Point
from ..modeling.samplings import OfSampling, RowsOfSampling
from ..modeling.stated_rows import stated_rows

__all__ = ["leaves_of", "over", "samplings_of"]


def samplings_of(objective: Term, constraints: Sequence[Named]) -> tuple[Sampling, ...]:
    """The samplers that terms and constraints are about, each once.

    Raises:
        ValueError: two of one name.
    """
    found: dict[str, Sampling] = {}
    for each in _mentioned(objective, constraints):
        if found.setdefault(each.name, each) is not each:
            raise ValueError(f"Problem: two samplings are called {each.name!r}; names must differ.")
    return tuple(found.values())


def _mentioned(objective: Term, constraints: Sequence[Named]) -> Iterator[Sampling]:
    terms = [objective, *(item.what.term for item in constraints if isinstance(item.what, Bound))]
    for term in terms:
        for _, leaf in term.leaves():
            for part in (leaf, *leaf.components()):
                if part.whose is not None:
                    yield part.whose
    for item in constraints:
        if isinstance(item.what, RowsOfSampling):
            yield item.what.sampling


def leaves_of(sampling: Sampling, leaves: Sequence[Term]) -> list[Term]:
    """The terms about one sampler, as they are for it alone."""
    return [leaf.inner for leaf in leaves if isinstance(leaf, OfSampling) and leaf.sampling is sampling]


def over(
    objective: Term, constraints: Sequence[Named], samplings: tuple[Sampling, ...]
) -> tuple[Term, tuple[Named, ...]]:
    """Objective and constraints with what is about all samplers said of each.

    Raises:
        TypeError: a term or constraint about steps that does not say of which sampler.
    """
    rows = []
    for item in constraints:
        what = item.what
        if isinstance(what, Bound):
            what = Bound(_over(what.term, samplings), what.limit, what.name)
        else:
            _refuse_steps(item, samplings)
        rows.append(Named(item.name, what, item.nested))
    return _over(objective, samplings), tuple(rows)


def _over(term: Term, samplings: tuple[Sampling, ...]) -> Term:
    leaves = [(w * v, leaf) for w, stated in term.leaves() for v, leaf in stated.over(samplings)]
    design = _probe(samplings)
    for _, leaf in leaves:
        for part in (leaf, *leaf.components()):
            if part.whose is None and not list(part.components()) and _asks_for_steps(part, design):
                raise TypeError(_whose(part.name, samplings))
    return leaves[0][1] if len(leaves) == 1 and leaves[0][0] == 1 else Sum(tuple(leaves))


def _asks_for_steps(part: Term, design: Design) -> bool:
    prices = part.linear_prices(design)
    if prices is not None:
        return bool(np.any(prices[1]))
    expression = part.at_levels(design.levels).formulation(design)[0]
    return any(variable is design.step_variable for variable in expression.variables())


def _refuse_steps(item: Named, samplings: tuple[Sampling, ...]) -> None:
    design = _probe(samplings)
    box = item.what.level_bounds(design) if isinstance(item.what, Constraint) else None
    if box is not None:
        if np.any(box.steps_low > 0) or np.any(np.isfinite(box.steps_high)):
            raise TypeError(_whose(item.name, samplings))
        return
    if isinstance(item.what, RowsOfSampling):
        return
    for row in stated_rows(item, design):
        if any(variable is design.step_variable for variable in getattr(row, "variables", list)()):
            raise TypeError(_whose(item.name, samplings))


def _whose(name: str, samplings: tuple[Sampling, ...]) -> str:
    first = samplings[0].name
    return (
        f"Problem: {name} is about steps, which samplers have of their own; say of which, as in "
        f"{first}(...) with {first} the Sampling."
    )


def _probe(samplings: tuple[Sampling, ...]) -> Design:
    """A design with steps of its own, which nothing may ask for."""
    levels = samplings[0].table.levels
    ones = np.ones(len(levels))
    point = Point(ones, np.zeros(len(levels)), ones, {each.name: ones for each in samplings})
    return Design.declare(levels, reference=point, samplings={each.name: each.counts for each in samplings})
