"""Structured route for shared parameters beside a sampler's steps: one budget, split where both sides' prices meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.optimize import nnls

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..modeling.design import Point
from ..modeling.discretization import Discretization
from ..modeling.information import InformationError
from ..modeling.terms import ScoreError, Truncation
from ..solvers.information.shares import InformationSolution, solve_information
from ..solvers.information.split import split_room
from ..solvers.joint.newton import JointSolution, solve_joint
from ..solvers.joint.program import JointProgram
from .budget import Budget
from .declaration import Declaration
from .information_structure import InformationStructure
from .structure import Answer, Structure, register

__all__ = ["SharedStructure"]

_ALIKE = 1e-12  # relative differences of step prices that are rounding


@register
@dataclass(frozen=True, eq=False)
class SharedStructure(Structure):
    """Information errors, discretisation and one budget for both: P4 beside P2 of docs/theory.md section 7.5.

    Other terms and constraints are left out: the answer is then the reference of the declared program.

    Attributes:
        terms: (weight, term) of the information errors.
        steps: the sampler's program, with nothing to train; None where steps are given or change nothing.
        most: what budgets that price steps in proportion to the shared one leave to the sampler.
        name, budget: of the budget that examples enter.
        others: the other budgets, by name.
        low, high: (L,) bounds of the new examples.
        given: (L,) steps where they are given, else zeros.
    """

    method: ClassVar[str] = "Newton in shares, split"
    terms: tuple[tuple[float, InformationError], ...]
    steps: JointProgram | None
    most: float
    name: str
    budget: Budget
    others: Mapping[str, Budget]
    low: Array
    high: Array
    spent: Array
    given: Array
    whole: bool

    @classmethod
    def read(cls, program: Declaration) -> SharedStructure | None:
        """None without information errors or a budget that prices every example, or where there is nothing else."""
        terms = tuple((w, leaf) for w, leaf in program.leaves if w > 0 and isinstance(leaf, InformationError))
        priced = [(name, b) for name, b in program.budgets.items() if np.all(b.example > 0)]
        if not terms or not priced or InformationStructure.read(program) is not None:
            return None
        known = all(_is_known(leaf) for _, leaf in program.leaves)
        alone = sum(bool(np.any(b.example > 0)) for b in program.budgets.values()) == 1
        others = {name: b for name, b in program.budgets.items() if name != priced[0][0]}
        low = np.maximum(program.box.examples_low - program.spent, 0.0)
        high = np.maximum(program.box.examples_high - program.spent, low)
        given = np.zeros(program.spent.size) if program.steps is None else program.steps
        return cls(
            terms, *_sampler(program, priced[0][1], list(others.values())), *priced[0], others,
            low, high, program.spent, given,
            known and alone and program.only_budgets_and_boxes,
        )  # fmt: skip

    def solve(self) -> Answer | None:
        try:
            return self._solved()
        except (CodesignError, ValueError):  # the declared program says what is wrong, in the problem's own names
            return None

    def _solved(self) -> Answer | None:
        room, floors = self.budget.room, float(self.budget.example @ self.low)
        if self.steps is None:
            found = self._trained(self.budget.left(steps=self.given), None)
            prices = {self.name: found.budget_multiplier, **dict.fromkeys(self.others, 0.0)}
            return self._answer(found, prices, self.given, np.zeros(self.spent.size))
        once = None if self._bounded else self._trained(room, None)
        # the floors are bought in any case: only what lies above them is split
        split = split_room(
            room - floors,
            lambda amount: self._trained(floors + amount, once).budget_multiplier,
            lambda amount: self._price_of_steps(self._sampled(amount)),
            self.most,
        )
        found, sampled = self._trained(floors + split, once), self._sampled(room - floors - split)
        if sampled is None:
            return None
        prices, paid = self._prices(found.budget_multiplier, sampled)
        pull = self.steps.order * (sampled.band_multipliers @ self.steps.response)
        return self._answer(found, prices, sampled.steps, paid - pull * sampled.steps ** (-self.steps.order - 1.0))

    def _prices(self, price: float, sampled: JointSolution) -> tuple[dict[str, float], Array]:
        """Multipliers of all budgets, and (L,) what a step costs at them; the shared budget's is that of training.

        Where other budgets limit the steps too, what its multiplier leaves of a step's price is theirs: if all charge
        steps alike, the sampler's own multipliers could as well be those of any one of them.
        """
        assert self.steps is not None
        rows = np.array([self.budget.step, *(budget.step for budget in self.others.values())])
        others = np.zeros(0)
        if self.others:
            left = sampled.budget_multipliers @ self.steps.steps_prices - price * rows[0]
            others = nnls(rows[1:].T, left)[0]
        every = np.array([price, *others])
        return dict(zip((self.name, *self.others), every.tolist(), strict=True)), every @ rows

    @property
    def _bounded(self) -> bool:
        """Whether anything but the budget limits or adds to the examples; else the error is that of one unit over x."""
        prior = any(term.prior is not None for _, term in self.terms)
        return bool(prior or self.low.any() or self.spent.any() or np.any(np.isfinite(self.high)))

    def _trained(self, room: float, once: InformationSolution | None) -> InformationSolution:
        if once is not None:
            k = room / self.budget.room
            price = once.budget_multiplier / k**2
            return replace(once, examples=once.examples * k, value=once.value / k, budget_multiplier=price)
        return solve_information(
            [term.roots for _, term in self.terms],
            [np.sqrt(weight) * term.response for weight, term in self.terms],
            self.budget.example,
            room,
            prior=[term.prior for _, term in self.terms],
            low=self.low if self.low.any() else None,
            high=self.high if np.any(np.isfinite(self.high)) else None,
            spent=self.spent if self.spent.any() else None,
        )

    def _sampled(self, room: float) -> JointSolution | None:
        assert self.steps is not None
        return solve_joint(replace(self.steps, budgets=np.array([room, *self.steps.budgets[1:]])))

    @staticmethod
    def _price_of_steps(found: JointSolution | None) -> float:
        return np.inf if found is None else float(found.budget_multipliers[0])

    def _answer(self, found: InformationSolution, prices: dict[str, float], steps: Array, slope: Array) -> Answer:
        examples = found.examples
        if not self.whole:  # few spikes are the optimum of this part; what is left out may want examples anywhere
            examples = 0.5 * examples + 0.5 * float(self.budget.example @ examples) / (self.budget.example * steps.size)
        point = Point(examples, self.spent, steps)
        gains = sum(weight * term.gains(term.solution(point.examples)) for weight, term in self.terms)
        return Answer(point, prices, prices[self.name] * self.budget.example - gains, slope)


def _is_known(leaf: object) -> bool:
    """Whether the structure states the term: a score error only where nothing of it is left."""
    if isinstance(leaf, InformationError | Discretization | Truncation):
        return leaf.is_structured
    if isinstance(leaf, ScoreError) and leaf.is_structured:
        return not (leaf.table.example_error.any() or leaf.table.floor_error.any() or leaf.table.final_score)
    return False


def _sampler(program: Declaration, budget: Budget, others: list[Budget]) -> tuple[JointProgram | None, float]:
    """The sampler's side of the program, the shared budget first, and what budgets in proportion to it leave.

    None where steps are not decided.
    """
    found = [(w, leaf.table) for w, leaf in program.leaves if w > 0 and isinstance(leaf, Discretization)]
    if not program.decides_steps or not found or not np.all(budget.step > 0):
        return None, np.inf
    zero, box, most, kept = np.zeros(program.spent.size), program.box, np.inf, [budget]
    for other in others:
        ratio = other.step / budget.step
        if ratio.min() > 0 and np.ptp(ratio) <= _ALIKE * ratio.max():
            most = min(most, other.room / float(ratio.max()))  # both at once would have no single multipliers
        else:
            kept.append(other)
    rows = np.vstack([np.sqrt(weight) * table.step_response for weight, table in found])
    steps = JointProgram(
        zero, zero, zero, rows, found[0][1].order,
        np.zeros((len(kept), zero.size)),
        np.array([b.step for b in kept]),
        np.array([b.room for b in kept]),
        steps_low=box.steps_low if np.any(box.steps_low > 0) else None,
        steps_high=box.steps_high if np.any(np.isfinite(box.steps_high)) else None,
        form="settled",
    )  # fmt: skip
    return steps, most
