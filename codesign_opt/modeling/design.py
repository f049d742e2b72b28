"""Design: the quantities that a program decides, in user units outside, scaled inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Indices
from ..ingredients.levels import Levels

__all__ = ["Box", "Design", "Point", "Sampler", "on_levels"]


def on_levels(expression: cp.Expression, levels: Indices) -> cp.Expression:
    """Entries of an (L,) expression on some levels; itself on all of them, as cvxpy picks entries at a price."""
    return expression if levels.size == expression.size else expression[levels]


@dataclass(frozen=True, eq=False)
class Point:
    """Numbers for every quantity of a design: a candidate, in user units.

    Attributes:
        new_examples: (L,) examples to be bought.
        spent: (L,) examples already spent; they count but cost nothing.
        steps: (L,) sampler steps.
        samplings: (L,) steps of each sampler, by name, where several share the training.
    """

    new_examples: Array
    spent: Array
    steps: Array
    samplings: Mapping[str, Array] = field(default_factory=dict)

    @property
    def examples(self) -> Array:
        """(L,) all examples: spent and new."""
        return self.spent + self.new_examples

    def of(self, name: str) -> Point:
        """The same training with the steps of one of the samplers; those of the point itself where it has none."""
        return Point(self.new_examples, self.spent, self.samplings.get(name, self.steps))


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds of (all) examples and of steps on each level, in user units."""

    examples_low: Array
    examples_high: Array
    steps_low: Array
    steps_high: Array

    @classmethod
    def empty(cls, size: int) -> Box:
        """No bounds but nonnegativity."""
        return cls(np.zeros(size), np.full(size, np.inf), np.zeros(size), np.full(size, np.inf))

    def __and__(self, other: Box) -> Box:
        """Both boxes at once."""
        return Box(
            np.maximum(self.examples_low, other.examples_low),
            np.minimum(self.examples_high, other.examples_high),
            np.maximum(self.steps_low, other.steps_low),
            np.minimum(self.steps_high, other.steps_high),
        )


class _OnUse:
    """A field that holds an expression, or a function that makes it when it is first read.

    The structured solvers read a declaration without asking for its variables: a plan of built-in terms makes none,
    and where cvxpy is put off until it is asked for (the command line), such a plan never waits for its import.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, design: object | None, owner: type) -> Any:
        if design is None:  # asked of the class, as by who documents it
            return self
        value = vars(design)[self.name]
        if isinstance(value, _Made):
            value = vars(design)[self.name] = value.expression
        return value

    def __set__(self, design: object, value: cp.Expression | _Made) -> None:
        vars(design)[self.name] = value


@dataclass(frozen=True)
class _Made:
    """An expression to be: the same one for all copies of a design."""

    make: Callable[[], cp.Expression]
    fixed: bool

    @cached_property
    def expression(self) -> cp.Expression:
        return self.make()


@dataclass(frozen=True, eq=False)
class Sampler:
    """What a design says of one of several samplers: its steps relative to the reference, and its counts."""

    step_variable: cp.Expression
    final_steps: int
    evaluations_per_step: int


@dataclass(frozen=True, eq=False)
class Design:
    """Examples and steps on each level as cvxpy expressions in user units.

    The variables behind them are relative to a reference near the optimum (docs/theory.md section
    7), so that conic solvers see numbers of order one whatever the user's units are.

    Attributes used in terms and constraints, all (L,) and in ascending sigma:
        sigma, width, log_width: the levels, numpy arrays.
        examples: training examples on each level, those already spent included.
        new_examples: examples to be bought.
        density: examples per unit log sigma.
        steps: sampler steps on each level (a step count, fractions allowed).
        step_density: steps per unit log sigma.
        step_sizes: width / steps, length of a step in sigma; convex in the steps.
        final_steps: 1 where a last step goes to zero noise, else 0.
    """

    levels: Levels
    new_variable: cp.Expression
    step_variable: cp.Expression
    reference: Point
    final_steps: int = 0
    evaluations_per_step: int = 1
    examples_unit: float | cp.Parameter = 1.0
    steps_unit: float | cp.Parameter = 1.0
    declares: Callable[[Any, Design], Any] | None = None  # how a term inside another one is declared, if scaled
    steps_low: Array | None = None  # (L,) what the problem's level bounds leave as least steps; None: not known
    samplings: Mapping[str, Sampler] = field(default_factory=dict)  # where several samplers share the training

    @classmethod
    def declare(
        cls,
        levels: Levels,
        *,
        reference: Point,
        fixed_examples: bool = False,
        fixed_steps: bool = False,
        final_steps: int = 0,
        evaluations_per_step: int = 1,
        declares: Callable[[Any, Design], Any] | None = None,
        samplings: Mapping[str, tuple[int, int]] | None = None,
    ) -> Design:
        """Variables of order one around `reference`; a fixed quantity is a constant instead.

        Of several samplers by name their final steps and evaluations per step; their steps are always variables.
        """
        size = len(levels)

        def quantity(fixed: bool, name: str) -> cp.Expression:
            return cp.Constant(np.ones(size)) if fixed else cp.Variable(size, nonneg=True, name=name)

        def on_use(fixed: bool, name: str) -> Any:
            return _Made(lambda: quantity(fixed, name), fixed)

        return cls(
            levels,
            on_use(fixed_examples, "design.examples"),
            on_use(fixed_steps, "design.steps"),
            reference,
            final_steps,
            evaluations_per_step,
            declares=declares,
            samplings={
                name: Sampler(quantity(False, f"design.steps of {name}"), *counts)
                for name, counts in (samplings or {}).items()
            },
        )

    def of(self, name: str) -> Design:
        """The design of one of several samplers: the training that all share, and its own steps."""
        own = self.samplings[name]
        return replace(
            self,
            step_variable=own.step_variable,
            reference=self.reference.of(name),
            final_steps=own.final_steps,
            evaluations_per_step=own.evaluations_per_step,
            steps_low=None,
            samplings={},
        )

    def in_units(self, examples: Any, steps: Any) -> Design:
        """The same design with examples and steps counted in these units, numbers or parameters (to scale terms)."""
        return replace(self, examples_unit=examples, steps_unit=steps)

    def with_least_steps(self, steps_low: Array) -> Design:
        """The same design, and what level bounds leave as least steps; no variable is made for it."""
        found = copy(self)
        object.__setattr__(found, "steps_low", steps_low)
        return found

    def above(self, first: int) -> Design:
        """The same design on the levels from the `first` on, as a design of its own: of the same variables."""
        unit = self.reference
        cut = Point(unit.new_examples[first:], unit.spent[first:], unit.steps[first:])
        return replace(
            self,
            levels=Levels(self.levels.edges[first:]),
            new_variable=self.new_variable[first:],
            step_variable=self.step_variable[first:],
            reference=cut,
            steps_low=None if self.steps_low is None else self.steps_low[first:],
        )

    def declared(self, term: Any) -> tuple[cp.Expression, list[cp.Constraint]]:
        """A term inside another one, in units in which it is of order one: its expression and its constraints."""
        return term.formulation(self) if self.declares is None else self.declares(term, self)[:2]

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def sigma(self) -> Array:
        return self.levels.sigma

    @property
    def width(self) -> Array:
        return self.levels.width

    @property
    def log_width(self) -> Array:
        return self.levels.log_width

    @property
    def variables(self) -> list[cp.Variable]:
        """The cvxpy variables behind the quantities, without those that are fixed."""
        own = (each.step_variable for each in self.samplings.values())
        return [v for quantity in (self.new_variable, self.step_variable, *own) for v in quantity.variables()]

    def set_to_reference(self) -> None:
        """Give the variables the values of the reference."""
        for variable in self.variables:
            variable.value = np.ones(variable.shape)

    @property
    def fixed_examples(self) -> bool:
        return self._fixed("new_variable")

    @property
    def fixed_steps(self) -> bool:
        return self._fixed("step_variable")

    def _fixed(self, name: str) -> bool:
        value = vars(self)[name]
        return value.fixed if isinstance(value, _Made) else not value.variables()

    @cached_property
    def new_examples(self) -> cp.Expression:
        return cp.multiply(self.reference.new_examples / self.examples_unit, self.new_variable)

    @cached_property
    def examples(self) -> cp.Expression:
        if not np.any(self.reference.spent):
            return self.new_examples
        return self.new_examples + self.reference.spent / self.examples_unit

    @cached_property
    def served(self) -> cp.Expression:
        """(L,) all examples over those of the reference: one expression, so that cvxpy knows terms' common parts."""
        spent, total = self.reference.spent, self.reference.examples
        if not np.any(spent):
            return self.new_variable
        return cp.multiply(1 / total, cp.multiply(self.reference.new_examples, self.new_variable) + spent)

    @cached_property
    def density(self) -> cp.Expression:
        return cp.multiply(1 / self.log_width, self.examples)

    @cached_property
    def steps(self) -> cp.Expression:
        return cp.multiply(self.reference.steps / self.steps_unit, self.step_variable)

    @cached_property
    def step_density(self) -> cp.Expression:
        return cp.multiply(1 / self.log_width, self.steps)

    @cached_property
    def step_sizes(self) -> cp.Expression:
        return cp.multiply(self.width * self.steps_unit / self.reference.steps, cp.inv_pos(self.step_variable))

    def set(self, point: Point) -> None:
        """Give the variables the values that make the expressions equal to `point`."""
        for variable, value, unit in (
            (self.new_variable, point.new_examples, self.reference.new_examples),
            (self.step_variable, point.steps, self.reference.steps),
        ):
            if isinstance(variable, cp.Variable):
                variable.value = np.maximum(value / unit, 0.0)
            elif variable.variables():  # the upper levels of another design, whose other levels stay as they are
                behind = variable.variables()[0]
                values = np.ones(behind.shape) if behind.value is None else np.array(behind.value)
                values[-len(self) :] = np.maximum(value / unit, 0.0)
                behind.value = values
        for name in self.samplings:
            self.of(name).set(point.of(name))

    def at(self, point: Point) -> Design:
        """The same design with every quantity given, in the same units."""
        # built-in terms read a given quantity from the reference; its variable is nothing but ones
        ones, reference = cp.Constant(np.ones(len(self))), self.reference
        examples = reference.new_examples if self.fixed_examples else np.maximum(point.new_examples, 0.0)
        steps = reference.steps if self.fixed_steps else np.maximum(point.steps, 0.0)
        own = {name: np.maximum(point.of(name).steps, 0.0) for name in self.samplings}
        return replace(
            self,
            new_variable=ones,
            step_variable=ones,
            reference=Point(examples, reference.spent, steps, own),
            samplings={name: replace(each, step_variable=ones) for name, each in self.samplings.items()},
        )

    def point(self) -> Point:
        """The point at the variables' current values."""

        def value(variable: cp.Expression, unit: Array) -> Array:
            return np.maximum(np.asarray(variable.value, dtype=np.float64), 0.0) * unit

        return Point(
            value(self.new_variable, self.reference.new_examples),
            self.reference.spent,
            value(self.step_variable, self.reference.steps),
            {name: value(each.step_variable, self.reference.of(name).steps) for name, each in self.samplings.items()},
        )


for _name in ("new_variable", "step_variable"):
    setattr(Design, _name, _OnUse(_name))
