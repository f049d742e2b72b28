"""Constraints: floors, caps, shares, monotone densities, stability, and whatever a user writes in cvxpy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from .._validate import Array, choice, number, vector
from ..coefficients import Coefficients
from .design import Design
from .terms import Bound, Term

__all__ = ["Cap", "Constraint", "Floor", "Monotone", "Named", "Share", "StabilityCap", "TrustCap", "named"]

Amount = float | Array | Callable[[Array], Array]
_QUANTITIES = ("density", "examples", "step_density", "steps", "step_size")


class Constraint(ABC):
    """A convex constraint on the design; subclass it with one method, `constraints`."""

    @abstractmethod
    def constraints(self, design: Design) -> list[cp.Constraint]:
        """cvxpy constraints on the design's quantities, in user units."""

    @property
    def name(self) -> str:
        """How messages and shadow prices call the constraint."""
        return type(self).__name__

    def box(self, design: Design) -> tuple[Array, Array, Array, Array] | None:
        """Bounds (examples from, to, steps from, to) level by level, where that is all the constraint says."""
        return None


def named(name: str, what: Any) -> Named:
    """Give a bound, a constraint or a function of the design the name used in messages and shadow prices."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"named: the name is {name!r}; a non-empty string is needed.")
    if not (isinstance(what, (Bound, Constraint)) or callable(what)):
        raise ValueError(f"named({name!r}, …): a bound, a constraint or a function of the design is needed.")
    return Named(name, what)


@dataclass(frozen=True, eq=False)
class Named:
    """A constraint with the user's name."""

    name: str
    what: Bound | Constraint | Callable[[Design], Any]

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


@dataclass(frozen=True, eq=False)
class _LevelBound(Constraint):
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
        if not self.high > self.low:
            raise ValueError(f"{owner}.high is {self.high:g}; it must exceed low = {self.low:g}.")

    @property
    def name(self) -> str:
        return f"{type(self).__name__}({self.quantity})"

    def _inside(self, design: Design) -> Array:
        inside = (design.sigma >= self.low) & (design.sigma <= self.high)
        if not inside.any():
            raise ValueError(
                f"{self.name} selects no level: none of sigma {design.sigma[0]:.3g} to {design.sigma[-1]:.3g} "
                f"lies in [{self.low:g}, {self.high:g}]."
            )
        return inside

    def _in_amounts(self, design: Design) -> tuple[bool, Array]:
        """Whether examples are bounded (else steps), and the bound per level in examples or steps."""
        value = _on_levels(self.value, design, f"{type(self).__name__}.value")
        if self.quantity in ("density", "step_density"):
            value = value * design.log_width
        elif self.quantity == "step_size":
            with np.errstate(divide="ignore"):
                value = design.width / value
        return self.quantity in ("density", "examples"), value

    def constraints(self, design: Design) -> list[cp.Constraint]:
        box = self.box(design)
        low_m, high_m, low_n, high_n = box
        rows: list[cp.Constraint] = []
        for expression, low, high in (
            (design.examples, low_m, high_m),
            (design.steps, low_n, high_n),
        ):
            for sense, limit in (("low", low), ("high", high)):
                on = np.flatnonzero((limit > 0) if sense == "low" else np.isfinite(limit))
                if on.size:
                    unit = design.examples_unit if expression is design.examples else design.steps_unit
                    target = limit[on] / unit
                    rows.append(expression[on] >= target if sense == "low" else expression[on] <= target)
        return rows

    def box(self, design: Design) -> tuple[Array, Array, Array, Array]:
        raise TypeError("use Floor or Cap")


@dataclass(frozen=True, eq=False)
class Floor(_LevelBound):
    """At least this much on every level in a range of sigma: `quantity` >= value.

    Args:
        value: number, array per level or function of sigma, >= 0.
        quantity: "density" (examples per unit log sigma, spent ones included), "examples" (per
            level), "step_density", "steps" (per level).
        low, high: the range of sigma.
    """

    def __post_init__(self) -> None:
        if self.quantity == "step_size":
            raise ValueError(
                "Floor(step_size) is not convex in the steps: a lower bound on the step size; state it as an "
                "upper bound on steps, Cap(value, 'step_density')."
            )
        super().__post_init__()

    def box(self, design: Design) -> tuple[Array, Array, Array, Array]:
        on_examples, amount = self._in_amounts(design)
        low = np.where(self._inside(design), amount, 0.0)
        zero, infinite = np.zeros(len(design)), np.full(len(design), np.inf)
        return (low, infinite, zero, infinite) if on_examples else (zero, infinite, low, infinite)


@dataclass(frozen=True, eq=False)
class Cap(_LevelBound):
    """At most this much on every level in a range of sigma: `quantity` <= value (inf: no cap there).

    Args:
        value: number, array per level or function of sigma, >= 0.
        quantity: as for Floor, and "step_size" (in sigma), which bounds the steps from below.
        low, high: the range of sigma.
    """

    def box(self, design: Design) -> tuple[Array, Array, Array, Array]:
        on_examples, amount = self._in_amounts(design)
        inside = self._inside(design)
        zero, infinite = np.zeros(len(design)), np.full(len(design), np.inf)
        if self.quantity == "step_size":
            return zero, infinite, np.where(inside, amount, 0.0), infinite
        high = np.where(inside, amount, np.inf)
        return (zero, high, zero, infinite) if on_examples else (zero, infinite, zero, high)


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
            raise ValueError(f"Share selects no level between sigma {self.low:g} and {self.high:g}.")
        return [(inside - self.at_most) @ getattr(design, self.quantity) <= 0]


@dataclass(frozen=True, eq=False)
class Monotone(Constraint):
    """A density that only rises or only falls with sigma.

    Args:
        direction: "increasing" or "decreasing" in sigma.
        quantity: "density" or "step_density".
    """

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


@dataclass(frozen=True, eq=False)
class StabilityCap(Constraint):
    """Steps short enough that Euler-Maruyama keeps every direction's sign: step <= v_min/((1+eta^2) sigma).

    The binding direction is the smallest eigenvalue. ODE and ancestral samplers in sigma need no
    cap: their multipliers lie in (0, 1] for every real step, and the constraint is empty
    (docs/theory.md section 3, Stability).
    """

    table: Coefficients

    def _needed(self, design: Design) -> Array:
        ratio = self.table.variance_ratio
        if self.table.positivity == 0:
            return np.zeros(len(design))
        if ratio is None:
            raise ValueError("StabilityCap needs Coefficients.variance_ratio; this table has none.")
        return self.table.positivity * ratio * design.log_width

    def constraints(self, design: Design) -> list[cp.Constraint]:
        needed = self._needed(design)
        return [design.steps >= needed / design.steps_unit] if np.any(needed > 0) else []

    def box(self, design: Design) -> tuple[Array, Array, Array, Array]:
        zero, infinite = np.zeros(len(design)), np.full(len(design), np.inf)
        return zero, infinite, self._needed(design), infinite


@dataclass(frozen=True, eq=False)
class TrustCap(Constraint):
    """Steps within `kappa` v_min/sigma, near where the leading-order error model (3.1) holds."""

    table: Coefficients
    kappa: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", number(self.kappa, "TrustCap.kappa", positive=True))
        if self.table.variance_ratio is None:
            raise ValueError("TrustCap needs Coefficients.variance_ratio; this table has none.")

    def box(self, design: Design) -> tuple[Array, Array, Array, Array]:
        ratio = self.table.variance_ratio
        assert ratio is not None  # noqa: S101 - checked on construction
        zero, infinite = np.zeros(len(design)), np.full(len(design), np.inf)
        return zero, infinite, ratio * design.log_width / self.kappa, infinite

    def constraints(self, design: Design) -> list[cp.Constraint]:
        return [design.steps >= self.box(design)[2] / design.steps_unit]


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
