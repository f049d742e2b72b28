"""What a program cannot do without: levels on which the error is infinite where they get nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..basics.checks import Array, Mask
from ..basics.errors import InfeasibleError
from ..modeling.algebra import Bound, Term
from ..modeling.constraints import Constraint
from ..modeling.design import Design, Point

if TYPE_CHECKING:
    from .declaration import Declaration

__all__ = ["Needs", "check_given", "check_open", "needs_of", "plentiful", "unreachable"]

_PLENTY = 1e30
_CLOSE = 1e-9  # relative: a limit nearer to what unlimited examples and steps leave is left to the solvers
_QUANTITIES = ("examples", "steps")


@dataclass(frozen=True, eq=False)
class Needs:
    """Levels on which some term is infinite without examples, or without steps, whatever the others get.

    Attributes:
        examples, steps: (L,) masks.
    """

    examples: Mask
    steps: Mask

    def of(self, quantity: str) -> Mask:
        """The mask of "examples" or "steps"."""
        return self.examples if quantity == "examples" else self.steps


def needs_of(program: Declaration) -> Needs:
    """The needs of the objective and of bounds on terms, as far as terms say that more never hurts them."""
    design = program.design(program.neutral)
    masks = {quantity: np.zeros(len(design), dtype=bool) for quantity in _QUANTITIES}
    for term in _terms(program):
        for quantity in _QUANTITIES:
            masks[quantity] |= _needed(term, quantity, design, program.spent)
    return Needs(masks["examples"], masks["steps"])


def _terms(program: Declaration) -> Iterator[Term]:
    """Terms whose value must be finite and that only fall with more examples and steps."""
    bounds = [item.what.term for item in program.constraints if isinstance(item.what, Bound)]
    pairs = [*program.leaves, *(pair for term in bounds for pair in term.leaves())]
    return (term for weight, term in pairs if weight > 0 and term.monotone)


def _needed(term: Term, quantity: str, design: Design, spent: Array) -> Mask:
    """(L,) whether the term is infinite with none of the quantity on a level and plenty of all else."""
    size = len(design)
    if np.isfinite(_with(term, quantity, np.zeros(size), design, spent)):
        return np.zeros(size, dtype=bool)
    # one level at a time: a pooled score needs examples nearby, and none on this level or that
    return np.array([not np.isfinite(_with(term, quantity, _without(level, size), design, spent))
                     for level in range(size)])  # fmt: skip


def _without(level: int, size: int) -> Array:
    values = np.full(size, _PLENTY)
    values[level] = 0.0
    return values


def _with(term: Term, quantity: str, values: Array, design: Design, spent: Array) -> float:
    plenty = np.full(len(design), _PLENTY)
    examples, steps = (values, plenty) if quantity == "examples" else (plenty, values)
    with np.errstate(all="ignore"):
        return float(term.value(design, Point(examples, spent, steps)))


def unreachable(program: Declaration) -> dict[str, float]:
    """Bounds on terms below what is left with 1e30 examples and steps on every level, by name: (that value).

    No design within those numbers meets such a bound, whatever else is asked. Only of terms that fall with more of
    either, and prices of it, is that value known.
    """
    found: dict[str, float] = {}
    for item in program.constraints:
        if not isinstance(item.what, Bound) or item.name in program.budgets:
            continue
        parts = _least(item.what.term, program)
        if parts is not None and item.what.limit < sum(parts) - _CLOSE * sum(abs(part) for part in parts):
            found[item.name] = sum(parts)
    return found


def plentiful(program: Declaration, amount: float) -> Point:
    """So much of everything that is decided, on every level."""
    plenty = np.full(len(program.levels), amount)
    new, steps = program.new_examples, program.steps
    return Point(plenty if new is None else new, program.spent, plenty if steps is None else steps)


def _least(term: Term, program: Declaration) -> list[float] | None:
    """Parts whose sum no design goes below: with plenty of what a term falls with, none of what it charges for."""
    design, point = program.design(program.neutral), plentiful(program, _PLENTY)
    parts: list[float] = []
    for weight, leaf in term.leaves():
        prices = leaf.linear_prices(design)
        if prices is not None:
            example, step, final = prices
            if np.any(weight * example < 0) or np.any(weight * step < 0):
                return None
            parts.append(weight * final)
        elif weight >= 0 and leaf.monotone:
            with np.errstate(all="ignore"):
                parts.append(weight * float(leaf.value(design, point)))
        else:
            return None
    return parts if np.all(np.isfinite(parts)) else None


def check_given(program: Declaration) -> None:
    """Refuse given examples or steps that leave a level without what a term needs there."""
    for quantity in _QUANTITIES:
        values = program.examples if quantity == "examples" else program.steps
        if values is None:
            continue
        if np.any(values > _PLENTY):
            at = int(np.argmax(values))
            raise ValueError(
                f"Problem.{quantity} is {values[at]:.3g} at index {at}; more than {_PLENTY:g} cannot be computed with."
            )
        if np.all(values > 0):
            continue
        design = program.design(program.neutral)
        for term in _terms(program):
            missing = np.flatnonzero(_needed(term, quantity, design, program.spent) & (values <= 0))
            if missing.size:
                raise ValueError(
                    f"Problem.{quantity} is 0 at index {missing[0]} (sigma = {design.sigma[missing[0]]:.3g}), where "
                    f"{term.name} is infinite without any; give every such level some"
                    f"{f' ({missing.size} have none)' if missing.size > 1 else ''}."
                )


def check_open(program: Declaration) -> None:
    """Refuse level bounds and budgets that leave nothing where some is needed, before any solver is asked."""
    box, spent = program.box, program.spent
    shut = {"examples": (box.examples_high <= 0) & (spent <= 0), "steps": box.steps_high <= 0}
    empty = [name for name, budget in program.budgets.items() if budget.room <= 0]
    if not (empty or shut["examples"].any() or shut["steps"].any()):
        return
    needs = needs_of(program)
    for quantity in _QUANTITIES:
        decided = program.decides_examples if quantity == "examples" else program.decides_steps
        barred = np.flatnonzero(shut[quantity] & needs.of(quantity))
        if decided and barred.size:
            raise _shut(program, quantity, int(barred[0]))
    for name in empty:
        _refuse_empty(program, name, needs)


def _shut(program: Declaration, quantity: str, level: int) -> InfeasibleError:
    """The error of a cap of 0 on a level that needs some."""
    design = program.design(program.neutral)
    names = []
    for item in program.constraints:
        box = item.what.level_bounds(design) if isinstance(item.what, Constraint) else None
        if box is not None and (box.examples_high if quantity == "examples" else box.steps_high)[level] <= 0:
            names.append(item.name)
    conflicts = [{"name": name, "limit": 0.0, "relaxed": None, "amount": None} for name in names]
    return InfeasibleError(
        f"Infeasible: {' and '.join(map(repr, names))} leaves no {quantity} at sigma = {design.sigma[level]:.3g}, "
        "where the error is infinite without any; raise the cap there above 0, or stop sampling above that level.",
        conflicts,
    )


def _refuse_empty(program: Declaration, name: str, needs: Needs) -> None:
    """A budget without room, where prices are >= 0: nothing that has a price can be had."""
    budget = program.budgets[name]
    limit = next(item.what.limit for item in program.constraints if item.name == name and isinstance(item.what, Bound))
    examples = program.decides_examples and bool(np.any((budget.example > 0) & needs.examples & (program.spent <= 0)))
    steps = program.decides_steps and bool(np.any((budget.step > 0) & needs.steps))
    if budget.room < 0 or examples or steps:
        needed = limit - budget.room
        why = "all that is needed has a price" if examples or steps else "nothing costs less than 0"
        raise InfeasibleError(
            f"Infeasible: '{name}' (limit {limit:,.6g}) leaves nothing to decide, since "
            + (f"the last step alone needs {needed:,.6g}; raise it above that." if needed else f"{why}; raise it "
               f"{'above' if examples or steps else 'to'} 0."),
            [{"name": name, "limit": limit, "relaxed": needed, "amount": -budget.room}],
        )  # fmt: skip
