"""Constraints: their base class and what they are called, floors and caps, and whatever a user writes in cvxpy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Indices, Mask, choice, ndim, number, shown, vector
from ..basics.errors import EmptySelectionError
from ..basics.inheritance import stale
from ..basics.user_code import answer
from .algebra import Bound, Term
from .design import Box, Design, Point, on_levels
from .parameters import amount, is_parameter
from .step_limits import StepLimits

__all__ = [
    "UNITS",
    "BoxConstraint",
    "Cap",
    "Constraint",
    "Floor",
    "Named",
    "Number",
    "as_named",
    "named",
    "sigma_range",
]

_Curve = Callable[[Array], Array]
Amount = float | Array | _Curve
UNITS = {
    "density": "examples per unit log sigma",
    "examples": "examples on a level",
    "step_density": "steps per unit log sigma",
    "steps": "steps on a level",
    "step_size": "sigma",
}


# what a class wrote of its own `constraints`: a subclass that states others inherits none of it
_GIVES = ("written_number", "relaxed", "shortfall", "price_rate")


class Constraint(ABC):
    """A convex constraint on the design; subclass it with one method, `constraints`.

    The other methods are about the number that the author wrote, in its own units: what shadow prices are per unit
    of, and what gives way where a program is infeasible. By default that is the right-hand side of each row.

    Attributes:
        nested: whether a design that meets the constraint meets it on the levels above any of their edges alone, as
            limits of single levels do and upper bounds of sums; then it tightens what is proved between stopping
            points, which without it is right and weaker (docs/theory.md section 7.7).
    """

    nested: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in stale(cls, ["constraints"], _GIVES):
            setattr(cls, name, vars(Constraint)[name])
        # what a class said of its own mathematics it does not say of a subclass's
        if {"constraints", "box"} & set(vars(cls)) and "nested" not in vars(cls):
            cls.nested = False

    @abstractmethod
    def constraints(self, design: Design) -> list[cp.Constraint]:
        """cvxpy constraints on the design's quantities, in user units."""

    @property
    def name(self) -> str:
        """How messages and shadow prices call the constraint."""
        return type(self).__name__

    def level_bounds(self, design: Design) -> Box | None:
        """The constraint as bounds of single levels where it is nothing else; None for others."""
        return None

    @property
    def written_number(self) -> Number | None:
        """The one number that the author wrote and that can give way; None where there is none."""
        return None

    def relaxed(self, design: Design, amount: cp.Expression, beyond: float = 0.0) -> list[cp.Constraint] | None:
        """The constraint with its number moved by `beyond` and then by `amount`, in user units.

        `amount` may enter otherwise than it would move the number (docs/theory.md section 8.4), as long as 0 means
        not at all. None: each row gives by an amount of its own.
        """
        return None

    def shortfall(self, design: Design, point: Point) -> float:
        """How far the number would have to move for `point` to be admitted, in its own units; 0 where it is.

        Asked of constraints that write `relaxed`.
        """
        raise NotImplementedError(f"{type(self).__name__} writes `relaxed` and not `shortfall`; write both.")

    def price_rate(self, design: Design, point: Point) -> Array | None:
        """Change of each row's right-hand side per unit of the number, one entry per entry of the rows, or (L,)."""
        return None

    def step_limits(self, design: Design) -> StepLimits | None:
        """What the constraint asks of every real step of a grid; None where it says nothing of single steps."""
        box = self.level_bounds(design)
        return None if box is None else StepLimits.of_box(box, design.levels)


@dataclass(frozen=True)
class Number:
    """The number that a constraint is written with: its name, its value where it is one, and its units.

    Attributes:
        name: the field, for messages.
        value: None where the author gave an array or a function of sigma, all of whose values move together.
        unit: what one of it is.
        relaxing: +1 where raising it relaxes the constraint, -1 where lowering it does.
        moves_together: False for an array, which has a price for each level.
    """

    name: str
    value: float | None
    unit: str
    relaxing: float = 1.0
    moves_together: bool = True


def named(name: str, what: Any, *, nested: bool = False) -> Named:
    """Give a bound, a constraint or a function of the design the name used in messages and shadow prices.

    Args:
        name: not empty.
        what: the constraint.
        nested: of a function, what a `Constraint` says by its attribute of this name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"named: the name is {shown(name)}; a non-empty string is needed.")
    if not (isinstance(what, (Bound, Constraint)) or callable(what)):
        raise ValueError(f"named({name!r}, …): a bound, a constraint or a function of the design is needed.")
    return Named(name, what, nested)


@dataclass(frozen=True, eq=False)
class Named:
    """A constraint with the user's name."""

    name: str
    what: Bound | Constraint | Callable[[Design], Any]
    nested: bool = False

    def __bool__(self) -> bool:
        raise TypeError(f"{self.name} has no truth value; list the constraint in the problem.")


def _amount(value: Any, name: str) -> Any:
    if callable(value) or is_parameter(value):
        return value if callable(value) else amount(value, name)
    if ndim(value) == 0:
        return number(value, name, nonnegative=True)
    return vector(value, name, nonnegative=True, infinite=True)


def _on_levels(value: Amount, design: Design, name: str) -> Array:
    if callable(value):
        averaged = design.levels.average(lambda sigma: answer(value, sigma, name))
        return vector(averaged, f"{name}(sigma)", length=len(design), nonnegative=True, infinite=True)
    if ndim(value) == 0:
        return np.full(len(design), float(value))
    return vector(value, name, length=len(design), nonnegative=True, infinite=True)


class BoxConstraint(Constraint):
    """A constraint that only bounds examples or steps level by level; the certificate takes it exactly.

    A subclass that replaces `constraints` and not `box` is a constraint like any other.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if stale(cls, ["constraints"], ["box"]):
            cls.level_bounds = Constraint.level_bounds  # type: ignore[method-assign]
        for name in stale(cls, ["box"], _GIVES):
            setattr(cls, name, vars(Constraint)[name])
        for _ in stale(cls, ["constraints", "box"], ["step_limits"]):
            cls.step_limits = Constraint.step_limits  # type: ignore[method-assign]

    def level_bounds(self, design: Design) -> Box | None:
        return self.box(design)

    @abstractmethod
    def box(self, design: Design) -> Box:
        """The bounds, in user units."""

    def constraints(self, design: Design) -> list[cp.Constraint]:
        box = self.box(design)
        return [
            *_within(design.examples, box.examples_low, box.examples_high, design.examples_unit),
            *_within(design.steps, box.steps_low, box.steps_high, design.steps_unit),
        ]


def sigma_range(low: float, high: float) -> str:
    """A range of sigma for names; empty where it is all of them.

    >>> sigma_range(0.01, 0.5), sigma_range(0.01, float("inf")), sigma_range(0.0, float("inf"))
    ('0.01 to 0.5', 'from 0.01', '')
    """
    if np.isinf(high):
        return f"from {low:.4g}" if low > 0 else ""
    return f"{low:.4g} to {high:.4g}" if low > 0 else f"to {high:.4g}"


def _within(expression: cp.Expression, low: Array, high: Array, unit: float | cp.Parameter) -> list[cp.Constraint]:
    """low <= expression <= high where there is anything to say."""
    floors, caps = np.flatnonzero(low > 0), np.flatnonzero(np.isfinite(high))
    rows = [on_levels(expression, floors) >= low[floors] / unit] if floors.size else []
    return rows + ([on_levels(expression, caps) <= high[caps] / unit] if caps.size else [])


@dataclass(frozen=True, eq=False)
class _LevelBound(BoxConstraint):
    """Bound of one quantity on every level with `low` <= sigma <= `high`."""

    value: Amount
    quantity: str = "density"
    low: float = 0.0
    high: float = float("inf")

    def __post_init__(self) -> None:
        owner = type(self).__name__
        choice(self.quantity, f"{owner}.quantity", UNITS)
        object.__setattr__(self, "value", _amount(self.value, f"{owner}.value"))
        object.__setattr__(self, "low", number(self.low, f"{owner}.low", nonnegative=True))
        high = self.high
        if not (isinstance(high, float) and high == np.inf):
            hint = f"A number above low = {self.low:g} is needed, or infinity."
            high = number(high, f"{owner}.high", hint=hint)
        if not high > self.low:
            raise ValueError(f"{owner}.high is {high:g}; a number above low = {self.low:g} is needed.")
        object.__setattr__(self, "high", high)

    @property
    def name(self) -> str:
        within = sigma_range(self.low, self.high)
        return f"{type(self).__name__}({self.quantity}{within and f', {within}'})"

    @property
    def written_number(self) -> Number:
        """The value, in the units of its quantity."""
        value = None if callable(self.value) or ndim(self.value) else float(np.asarray(self.value))
        together = value is not None or callable(self.value)
        return Number("value", value, UNITS[self.quantity], self._relaxing, together)

    @property
    def _relaxing(self) -> float:
        return 1.0

    def box(self, design: Design) -> Box:
        return self._bounds(self._inside(design), self._amounts(design))

    @abstractmethod
    def _bounds(self, inside: Mask, amounts: Array) -> Box:
        """The box of these amounts on the levels inside the range."""

    @property
    def _on_examples(self) -> bool:
        return self.quantity in ("density", "examples")

    def _inside(self, design: Design) -> Mask:
        inside = (design.sigma >= self.low) & (design.sigma <= self.high)
        if not inside.any():
            raise EmptySelectionError(
                f"{self.name} selects no level: none of sigma {design.sigma[0]:.3g} to {design.sigma[-1]:.3g} "
                f"lies in [{self.low:g}, {self.high:g}]."
            )
        return inside

    def price_rate(self, design: Design, point: Point) -> Array:
        """(L,) change of the bound, in examples or steps, per unit of the user's value."""
        if self.quantity == "step_size":
            return -design.width / self._values(design) ** 2
        return self._per_unit(design)

    def _per_unit(self, design: Design) -> Array:
        """(L,) examples or steps per unit of the value."""
        dense = self.quantity in ("density", "step_density")
        return design.log_width if dense else np.ones(len(design))

    def _values(self, design: Design) -> Array:
        """(L,) the value on each level."""
        return _on_levels(self.value, design, f"{type(self).__name__}.value")

    def _levels(self, design: Design) -> tuple[Indices, Array, cp.Expression]:
        """The levels that the bound is about, its values there and what it bounds, in examples or steps."""
        values = self._values(design)
        at = np.flatnonzero(self._inside(design) & np.isfinite(values))
        return at, values[at], (design.examples if self._on_examples else design.steps)[at]

    def _held(self, design: Design, point: Point) -> tuple[Array, Array]:
        """Values of the bound and of the quantity on the levels that the bound is about."""
        at, values, _ = self._levels(design)
        return values, ((point.examples if self._on_examples else point.steps) / self._per_unit(design))[at]

    def _curve(self, design: Design) -> _Curve | None:
        """The bound as a function of sigma where it is stated as one; None for values of single levels."""
        value = self.value
        if callable(value):
            return lambda sigma: answer(value, sigma, f"{type(self).__name__}.value")
        return None if ndim(value) else lambda sigma: np.full(np.shape(sigma), float(np.asarray(value)))

    def _limits(self, design: Design, exact: Callable[[_Curve], StepLimits]) -> StepLimits | None:
        """Limits of real steps: of the function of sigma that was stated, else of the values of single levels."""
        if self._on_examples:
            return None
        curve = self._curve(design)
        if curve is None or self.quantity == "steps":
            return super().step_limits(design)
        return exact(curve).within(self.low, self.high)

    def _amounts(self, design: Design) -> Array:
        """(L,) the bound in examples or in steps."""
        if self.quantity == "step_size":
            with np.errstate(divide="ignore"):
                return design.width / self._values(design)
        return self._values(design) * self._per_unit(design)


@dataclass(frozen=True, eq=False)
class Floor(_LevelBound):
    """At least this much on every level in a range of sigma: `quantity` >= value.

    Args:
        value: number, array per level, function of sigma or cp.Parameter, >= 0.
        quantity: "density" (examples per unit log sigma, spent ones included), "examples" (per
            level), "step_density", "steps" (per level).
        low, high: the range of sigma.
    """

    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.quantity, str) and self.quantity == "step_size":
            raise ValueError(
                "Floor(step_size) is not convex in the steps: a lower bound on the step size; state it as an "
                "upper bound on steps, Cap(value, 'step_density')."
            )
        super().__post_init__()

    @property
    def _relaxing(self) -> float:
        return -1.0

    def relaxed(self, design: Design, amount: cp.Expression, beyond: float = 0.0) -> list[cp.Constraint]:
        at, values, quantity = self._levels(design)
        return [quantity >= cp.multiply(self._per_unit(design)[at], values - beyond - amount)]

    def shortfall(self, design: Design, point: Point) -> float:
        values, held = self._held(design, point)
        return float(np.max(values - held, initial=0.0))

    def _bounds(self, inside: Mask, amounts: Array) -> Box:
        low, box = np.where(inside, amounts, 0.0), Box.empty(inside.size)
        return replace(box, examples_low=low) if self._on_examples else replace(box, steps_low=low)

    def step_limits(self, design: Design) -> StepLimits | None:
        return self._limits(design, lambda curve: StepLimits(least_density=curve))


@dataclass(frozen=True, eq=False)
class Cap(_LevelBound):
    """At most this much on every level in a range of sigma: `quantity` <= value (inf: no cap there).

    Args:
        value: number, array per level, function of sigma or cp.Parameter, >= 0.
        quantity: as for Floor, and "step_size" (in sigma), which bounds the steps from below.
        low, high: the range of sigma.
    """

    nested: ClassVar[bool] = True

    def relaxed(self, design: Design, amount: cp.Expression, beyond: float = 0.0) -> list[cp.Constraint]:
        at, values, quantity = self._levels(design)
        if self.quantity == "step_size":
            return [quantity >= cp.multiply(design.width[at], cp.inv_pos(values + beyond + amount))]
        return [quantity <= cp.multiply(self._per_unit(design)[at], values + beyond + amount)]

    def shortfall(self, design: Design, point: Point) -> float:
        if self.quantity == "step_size":
            at, values, _ = self._levels(design)
            with np.errstate(divide="ignore"):
                return float(np.max(design.width[at] / point.steps[at] - values, initial=0.0))
        values, held = self._held(design, point)
        return float(np.max(held - values, initial=0.0))

    def _bounds(self, inside: Mask, amounts: Array) -> Box:
        box = Box.empty(inside.size)
        if self.quantity == "step_size":
            return replace(box, steps_low=np.where(inside, amounts, 0.0))
        high = np.where(inside, amounts, np.inf)
        return replace(box, examples_high=high) if self._on_examples else replace(box, steps_high=high)

    def step_limits(self, design: Design) -> StepLimits | None:
        if self.quantity == "step_size":
            return self._limits(design, lambda curve: StepLimits(longest=curve))
        return self._limits(design, lambda curve: StepLimits(most_density=curve))


def as_named(what: Any, index: int) -> Named:
    """Any accepted form of a constraint, with a name."""
    if isinstance(what, Named):
        return what
    if isinstance(what, (Bound, Constraint)):
        return Named(what.name, what)
    if isinstance(what, Term):
        raise TypeError(f"{what.name} is a term; bound it with `<=` to make it a constraint.")
    if isinstance(what, (bool, np.bool_)):
        raise TypeError(
            f"constraint {index} is {what}; a comparison was evaluated before it reached the problem: state it as a "
            "function, lambda design: design.examples <= limit."
        )
    if callable(what):
        label = getattr(what, "__name__", "")
        return Named(label if label and label != "<lambda>" else f"constraint {index}", what)
    raise TypeError(f"constraint {index} is {shown(what)}; give a bound, a Constraint or a function of the design.")
