"""A subclass of one of the library's terms that adds to what its parent states: parent and addition, apart.

`super().expression(design) + penalty` is the natural way to extend a term. Taken as one expression it could only be
linearised, which proves little of a whole score error. Its summands tell the parent's from the rest, so that the
parent keeps its exact bound and the rest is a term of the user's like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.user_code import told_in
from .algebra import Bound, Sum, Term
from .design import Design

__all__ = ["bound_as_stated", "leaves_as_stated"]


@dataclass(frozen=True, eq=False)
class Addition(Term):
    """What a subclass states beyond its parent: the summands of its expression that are not the parent's."""

    whole: Term
    parent: Term

    @property
    def name(self) -> str:
        own = type(self.whole).__name__ if self.whole.name == self.parent.name else self.whole.name
        return f"{own} beyond {self.parent.name}"

    @property
    def advice(self) -> str:
        return self.whole.advice

    def expression(self, design: Design) -> cp.Expression:
        rest = _beyond(self.whole.expression(design), self.parent.expression(design))
        if rest is None:
            raise TypeError(
                f"{self.whole.name}.expression adds to that of {self.parent.name} for one design and not for another; "
                "state what it adds as a term of its own."
            )
        return rest


def leaves_as_stated(term: Term, design: Design) -> list[tuple[float, Term]]:
    """(weight, term) for every summand, a subclass that adds to its parent taken apart; `design` is any example."""
    return [(weight, part) for weight, leaf in term.leaves() for part in _apart(leaf, design)]


def bound_as_stated(bound: Bound, design: Design) -> Bound:
    """The same bound on the summands of `leaves_as_stated`; the bound itself where nothing is taken apart."""
    found = leaves_as_stated(bound.term, design)
    stated = [leaf for _, leaf in bound.term.leaves()]
    if len(found) == len(stated) and all(part is leaf for (_, part), leaf in zip(found, stated, strict=True)):
        return bound
    return Bound(Sum(tuple(found)), bound.limit, bound.name)


def _apart(leaf: Term, design: Design) -> list[Term]:
    leaf = leaf.at_levels(design.levels)
    parent = None if leaf.is_structured else _parent(leaf)
    if parent is None or type(leaf).expression is type(parent).expression:
        return [leaf]
    try:
        theirs = parent.expression(design)
    except TypeError:  # a parent that has auxiliary variables has no expression to add to
        return [leaf]
    with told_in(f"the term '{leaf.name}'"):
        mine = leaf.expression(design)
    if not isinstance(mine, cp.Expression) or _beyond(mine, theirs) is None:
        return [leaf]
    return [parent, Addition(leaf, parent)]


def _parent(leaf: Term) -> Term | None:
    """The nearest of the library's terms that a subclass derives from, with the fields of this one."""
    for kind in type(leaf).__mro__[1:]:
        if issubclass(kind, Term) and vars(kind).get("structured") and is_dataclass(kind):
            return kind(**{f.name: getattr(leaf, f.name) for f in fields(kind) if f.init})
    return None


def _beyond(whole: cp.Expression, part: cp.Expression) -> cp.Expression | None:
    """The summands of `whole` without those of `part`; None where `part` is not among them."""
    rest = list(_summands(whole))
    for piece in _summands(part):
        found = next((i for i, other in enumerate(rest) if _same(piece, other)), None)
        if found is None:
            return None
        del rest[found]
    return sum(rest[1:], start=rest[0]) if rest else cp.Constant(0.0)


def _summands(expression: cp.Expression) -> list[cp.Expression]:
    return (
        list(_arguments(expression)) if isinstance(expression, cp.atoms.affine.add_expr.AddExpression) else [expression]
    )


def _arguments(expression: Any) -> Any:
    return expression.args


def _data(expression: Any) -> Any:
    """The numbers of an atom beside its arguments: an exponent, an index."""
    return expression.get_data()


def _same(one: Any, other: Any) -> bool:
    """Whether two trees are the same functions of the same variables, numbers included."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (cp.Variable, cp.Parameter)):
        return bool(one.id == other.id)
    if isinstance(one, cp.Constant):
        return _same(one.value, other.value)
    if isinstance(one, cp.Expression):
        return one.shape == other.shape and all(_same(ask(one), ask(other)) for ask in (_data, _arguments))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if sparse.issparse(one):
        return one.shape == other.shape and (one != other).nnz == 0
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)
