"""Constraints: floors, caps, shares, monotone densities, stability, and whatever a user writes in cvxpy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Mask, choice, number, vector
from ..basics.errors import EmptySelectionError
from ..basics.inheritance import stale
from ..models.coefficients import Coefficients
from .algebra import Bound, Term
from .design import Box, Design
from .step_limits import StepLimits, variance_limit

__all__ = [
    "BoxConstraint",
    "Cap",
    "Constraint",
    "Floor",
    "Monotone",
    "Named",
    "Share",
    "StabilityCap",
    "TrustCap",
    "named",
]

_Curve = Callable[[Array], Array]
Amount = float | Array | _Curve
_QUANTITIES = ("density", "examples", "step_density", "steps", "step_size")


class Constraint(ABC):
    """A convex constraint on the design; subclass it with one method, `constraints`.

    Attributes:
        nested: whether a design that meets the constraint meets it on the levels above any of their edges alone, as
            limits of single levels do and upper bounds of sums; then it tightens what is proved between stopping
            points, which without it is right and weaker (docs/theory.md section 7.7).
    """

    nested: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
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

    def step_limits(self, design: Design) -> StepLimits | None:
        """What the constraint asks of every real step of a grid; None where it says nothing of single steps."""
        box = self.level_bounds(design)
        return None if box is None else StepLimits.of_box(box, design.levels)


def named(name: str, what: Any, *, nested: bool = False) -> Named:
    """Give a bound, a constraint or a function of the design the name used in messages and shadow prices.

    Args:
        name: not empty.
        what: the constraint.
        nested: of a function, what a `Constraint` says by its attribute of this name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"named: the name is {name!r}; a non-empty string is needed.")
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


def _amount(value: Any, name: str) -> Amount:
    if callable(value):
        return value
    if np.ndim(value) == 0:
        return number(value, name, nonnegative=True)
    return vector(value, name, nonnegative=True, infinite=True)


def _on_levels(value: Amount, design: Design, name: str) -> Array:
    if callable(value):
        return vector(
            design.levels.average(value), f"{name}(sigma)", length=len(design), nonnegative=True, infinite=True
        )
    if np.ndim(value) == 0:
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
        for _ in stale(cls, ["constraints", "box"], ["step_limits"]):
            cls.step_limits = Constraint.step_limits  # type: ignore[method-assign]

    def level_bounds(self, design: Design) -> Box | None:
        return self.box(design)

    def rate(self, design: Design) -> Array:
        """(L,) change of the bound, in examples or steps, per unit of what shadow prices refer to."""
        return np.ones(len(design))

    @abstractmethod
    def box(self, design: Design) -> Box:
        """The bounds, in user units."""

    def constraints(self, design: Design) -> list[cp.Constraint]:
        box = self.box(design)
        return [
            *_within(design.examples, box.examples_low, box.examples_high, design.examples_unit),
            *_within(design.steps, box.steps_low, box.steps_high, design.steps_unit),
        ]


def _within(expression: cp.Expression, low: Array, high: Array, unit: float) -> list[cp.Constraint]:
    """low <= expression <= high where there is anything to say."""
    floors, caps = np.flatnonzero(low > 0), np.flatnonzero(np.isfinite(high))
    rows = [expression[floors] >= low[floors] / unit] if floors.size else []
    return rows + ([expression[caps] <= high[caps] / unit] if caps.size else [])


@dataclass(frozen=True, eq=False)
class _LevelBound(BoxConstraint):
    """Bound of one quantity on every level with `low` <= sigma <= `high`."""

    value: Amount
    quantity: str = "density"
    low: float = 0.0
    high: float = float("inf")

    def __post_init__(self) -> None:
        owner = type(self).__name__
        choice(self.quantity, f"{owner}.quantity", _QUANTITIES)
        object.__setattr__(self, "value", _amount(self.value, f"{owner}.value"))
        object.__setattr__(self, "low", number(self.low, f"{owner}.low", nonnegative=True))
        if isinstance(self.high, (bool, str)) or np.ndim(self.high) or not self.high > self.low:
            raise ValueError(f"{owner}.high is {self.high!r}; a number above low = {self.low:g} is needed.")

    @property
    def name(self) -> str:
        return f"{type(self).__name__}({self.quantity})"

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

    def rate(self, design: Design) -> Array:
        """(L,) change of the bound, in examples or steps, per unit of the user's value."""
        if self.quantity in ("density", "step_density"):
            return design.log_width
        if self.quantity == "step_size":
            return -design.width / _on_levels(self.value, design, f"{type(self).__name__}.value") ** 2
        return np.ones(len(design))

    def _curve(self, design: Design) -> _Curve | None:
        """The bound as a function of sigma where it is stated as one; None for values of single levels."""
        value = self.value
        if callable(value):
            return lambda sigma: np.broadcast_to(np.asarray(value(sigma), dtype=np.float64), np.shape(sigma))
        return None if np.ndim(value) else lambda sigma: np.full(np.shape(sigma), float(np.asarray(value)))

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
        value = _on_levels(self.value, design, f"{type(self).__name__}.value")
        if self.quantity in ("density", "step_density"):
            return value * design.log_width
        if self.quantity == "step_size":
            with np.errstate(divide="ignore"):
                return design.width / value
        return value


@dataclass(frozen=True, eq=False)
class Floor(_LevelBound):
    """At least this much on every level in a range of sigma: `quantity` >= value.

    Args:
        value: number, array per level or function of sigma, >= 0.
        quantity: "density" (examples per unit log sigma, spent ones included), "examples" (per
            level), "step_density", "steps" (per level).
        low, high: the range of sigma.
    """

    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.quantity == "step_size":
            raise ValueError(
                "Floor(step_size) is not convex in the steps: a lower bound on the step size; state it as an "
                "upper bound on steps, Cap(value, 'step_density')."
            )
        super().__post_init__()

    def box(self, design: Design) -> Box:
        low = np.where(self._inside(design), self._amounts(design), 0.0)
        box = Box.empty(len(design))
        return replace(box, examples_low=low) if self._on_examples else replace(box, steps_low=low)

    def step_limits(self, design: Design) -> StepLimits | None:
        return self._limits(design, lambda curve: StepLimits(least_density=curve))


@dataclass(frozen=True, eq=False)
class Cap(_LevelBound):
    """At most this much on every level in a range of sigma: `quantity` <= value (inf: no cap there).

    Args:
        value: number, array per level or function of sigma, >= 0.
        quantity: as for Floor, and "step_size" (in sigma), which bounds the steps from below.
        low, high: the range of sigma.
    """

    nested: ClassVar[bool] = True

    def box(self, design: Design) -> Box:
        inside, amounts = self._inside(design), self._amounts(design)
        box = Box.empty(len(design))
        if self.quantity == "step_size":
            return replace(box, steps_low=np.where(inside, amounts, 0.0))
        high = np.where(inside, amounts, np.inf)
        return replace(box, examples_high=high) if self._on_examples else replace(box, steps_high=high)

    def step_limits(self, design: Design) -> StepLimits | None:
        if self.quantity == "step_size":
            return self._limits(design, lambda curve: StepLimits(longest=curve))
        return self._limits(design, lambda curve: StepLimits(most_density=curve))


@dataclass(frozen=True, eq=False)
class Share(Constraint):
    """At most a fraction of all examples (or steps) inside a range of sigma, as a linear bound.

    sum over the range <= at_most x sum over all levels. A bin on the edge of the range counts in
    proportion to its overlap in log sigma, so that refining the levels changes nothing.
    """

    at_most: float
    low: float
    high: float
    quantity: str = "examples"

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_most", number(self.at_most, "Share.at_most", nonnegative=True, maximum=1.0))
        object.__setattr__(self, "low", number(self.low, "Share.low", positive=True))
        object.__setattr__(self, "high", number(self.high, "Share.high", positive=True))
        if not self.low < self.high:
            raise ValueError(f"Share.high is {self.high:g}; it must exceed low = {self.low:g}.")
        choice(self.quantity, "Share.quantity", ("examples", "steps"))

    def constraints(self, design: Design) -> list[cp.Constraint]:
        inside = design.levels.overlap(self.low, self.high) / design.log_width
        if not inside.any():
            raise EmptySelectionError(f"Share selects no level between sigma {self.low:g} and {self.high:g}.")
        return [(inside - self.at_most) @ getattr(design, self.quantity) <= 0]


@dataclass(frozen=True, eq=False)
class Monotone(Constraint):
    """A density that only rises or only falls with sigma.

    Args:
        direction: "increasing" or "decreasing" in sigma.
        quantity: "density" or "step_density".
    """

    nested: ClassVar[bool] = True
    direction: str
    quantity: str = "density"

    def __post_init__(self) -> None:
        choice(self.direction, "Monotone.direction", ("increasing", "decreasing"))
        choice(self.quantity, "Monotone.quantity", ("density", "step_density"))

    def constraints(self, design: Design) -> list[cp.Constraint]:
        if len(design) < 2:
            return []
        sign = 1.0 if self.direction == "decreasing" else -1.0
        return [sign * cp.diff(getattr(design, self.quantity)) <= 0]

    def step_limits(self, design: Design) -> StepLimits | None:
        return StepLimits(directions=frozenset([self.direction])) if self.quantity == "step_density" else None


@dataclass(frozen=True, eq=False)
class StabilityCap(BoxConstraint):
    """Steps short enough that Euler-Maruyama keeps every direction's sign: step <= v_min/((1+eta^2) sigma).

    The binding direction is the smallest eigenvalue. ODE and ancestral samplers in sigma need no
    cap: their multipliers lie in (0, 1] for every real step, and the constraint is empty
    (docs/theory.md section 3, Stability).
    """

    table: Coefficients

    def __post_init__(self) -> None:
        _check_ratio(self.table, "StabilityCap", needed=getattr(self.table, "positivity", 0.0) > 0)

    def box(self, design: Design) -> Box:
        box, ratio = Box.empty(len(design)), self.table.variance_ratio
        if self.table.positivity == 0 or ratio is None:
            return box
        return replace(box, steps_low=self.table.positivity * ratio * design.log_width)

    def step_limits(self, design: Design) -> StepLimits | None:
        if self.table.positivity == 0 or self.table.variance_ratio is None:
            return None
        return variance_limit(self.table, 1 / self.table.positivity)


@dataclass(frozen=True, eq=False)
class TrustCap(BoxConstraint):
    """Steps within `kappa` v_min/sigma, near where the leading-order error model (3.1) holds."""

    table: Coefficients
    kappa: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", number(self.kappa, "TrustCap.kappa", positive=True))
        _check_ratio(self.table, "TrustCap", needed=True)

    def box(self, design: Design) -> Box:
        ratio = np.asarray(self.table.variance_ratio)
        return replace(Box.empty(len(design)), steps_low=ratio * design.log_width / self.kappa)

    def step_limits(self, design: Design) -> StepLimits | None:
        return variance_limit(self.table, self.kappa)


def _check_ratio(table: Any, owner: str, *, needed: bool) -> None:
    if not isinstance(table, Coefficients):
        raise ValueError(f"{owner}.table is {table!r}; give Coefficients, from model.coefficients(...) or arrays.")
    if needed and table.variance_ratio is None:
        raise ValueError(f"{owner} needs Coefficients.variance_ratio; this table has none.")


def as_named(what: Any, index: int) -> Named:
    """Any accepted form of a constraint, with a name."""
    if isinstance(what, Named):
        return what
    if isinstance(what, (Bound, Constraint)):
        return Named(what.name, what)
    if isinstance(what, Term):
        raise TypeError(f"{what.name} is a term; bound it with `<=` to make it a constraint.")
    if isinstance(what, (bool, np.bool_)):
        raise TypeError(f"constraint {index} is {what}; a comparison was evaluated before it reached the problem.")
    if callable(what):
        label = getattr(what, "__name__", "")
        return Named(label if label and label != "<lambda>" else f"constraint {index}", what)
    raise TypeError(f"constraint {index} is {what!r}; give a bound, a Constraint or a function of the design.")
