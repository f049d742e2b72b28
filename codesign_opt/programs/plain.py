"""Programs of the library's own terms and budgets: known to be convex, and proved without a cvxpy expression.

Building expressions takes longer than solving such a program; only what the user wrote needs to be looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ingredients.coupling import Local, PerLevel, PerStep, Settled
from ..modeling.algebra import Bound, Term
from ..modeling.constraints import Named
from ..modeling.discretization import Discretization
from ..modeling.terms import Compute, ScoreError, Steps, Truncation

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["is_plain_bound", "is_plain_problem", "is_plain_term"]

_COUPLINGS = (Local, PerLevel, PerStep, Settled)


def is_plain_term(term: Term) -> bool:
    """Whether a term of the objective is the library's own, its coupling included; a subclass is not."""
    if type(term) not in (ScoreError, Discretization, Truncation):
        return False
    return term.coefficients is not None and type(term.coefficients.coupling) in _COUPLINGS


def is_plain_bound(item: Named) -> bool:
    """Whether a constraint is a budget: a bound on a multiple of Compute or Steps."""
    if not isinstance(item.what, Bound):
        return False
    leaves = list(item.what.term.leaves())
    return len(leaves) == 1 and type(leaves[0][1]) in (Compute, Steps)


def is_plain_problem(problem: Problem) -> bool:
    """Whether nothing in a problem is the user's own."""
    terms = all(is_plain_term(leaf) for _, leaf in problem.objective.leaves())
    return terms and all(isinstance(item, Named) and is_plain_bound(item) for item in problem.constraints)
