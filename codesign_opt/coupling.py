"""Coupling: over which stretch of log sigma one error of the trained denoiser persists.

docs/theory.md section 6. A step longer than the correlation length sees one error per step, a
shorter one shares its error with its neighbours; the score term carries the factor M(x), x = step
length over correlation length, both in log sigma:

    E_score = sum_l (A_l / m_l + F_l) M(kappa_l / n_l),   kappa_l = log width over correlation length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._validate import Array, choice, number, vector
from .levels import Levels

if TYPE_CHECKING:
    import cvxpy as cp  # a second to load, and saved plans are read without it: imported where it is used

__all__ = ["Coupling", "Local", "PerLevel", "PerStep", "Settled"]

LogWidth = float | Callable[[Array], Array]


class Coupling(ABC):
    """How errors of neighbouring noise levels add (docs/theory.md section 6)."""

    @abstractmethod
    def lengths(self, levels: Levels) -> Array:
        """(L,) correlation length at each level, in units of log sigma."""

    def pooling(self, levels: Levels) -> Array | None:
        """(L, L) matrix T: examples that serve level l are (T m)_l; None where each serves its own."""
        return None

    @abstractmethod
    def factor(self, x: Array) -> Array:
        """M(x), x = step length over correlation length."""

    @abstractmethod
    def slope(self, x: Array) -> Array:
        """M'(x), a subgradient where M has a kink."""

    @abstractmethod
    def expression(self, steps: cp.Expression, scale: Array) -> cp.Expression:
        """M(scale / steps), a convex cvxpy expression."""

    @abstractmethod
    def product(self, examples: cp.Expression, steps: cp.Expression, scale: Array) -> cp.Expression:
        """M(scale / steps) / examples, a jointly convex cvxpy expression."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"kind": type(self).__name__}


def _log_width(value: Any, name: str) -> LogWidth:
    return value if callable(value) else number(value, name, positive=True)


def _tabulate(value: LogWidth, levels: Levels, name: str) -> Array:
    if callable(value):
        return vector(value(levels.sigma), f"{name}(sigma)", length=len(levels), positive=True)
    return np.full(len(levels), value)


def _inverse_product(examples: cp.Expression, steps: cp.Expression) -> cp.Expression:
    """1 / (examples steps), jointly convex."""
    import cvxpy as cp

    return cp.exp(-cp.log(examples) - cp.log(steps))


def _log_p4(steps: cp.Expression, scale: Array) -> cp.Expression:
    """log (1 + (scale / steps)^4)^(1/4), convex in the steps: log(1 + exp) of a convex function."""
    import cvxpy as cp

    return cp.logistic(4 * (np.log(scale) - cp.log(steps))) / 4


@dataclass(frozen=True)
class Local(Coupling):
    """Errors persist over a correlation length around each noise level: equation (6.1), the default.

    Args:
        log_width: two-sided integral of the correlation of the trained errors over log sigma; a
            positive number or a function of sigma. 2.7 was measured on a small network.
        form: "max" for max(step, length), exact for long and for much shorter steps; "p4" for
            (step^4 + length^4)^(1/4), within -10 % to +19 % of four correlation shapes.

    >>> Local(log_width=2.7).factor(np.array([0.5, 2.0])).tolist()
    [1.0, 2.0]
    """

    log_width: LogWidth = 2.7
    form: str = "max"

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_width", _log_width(self.log_width, "Local.log_width"))
        choice(self.form, "Local.form", ("max", "p4"))

    def lengths(self, levels: Levels) -> Array:
        return _tabulate(self.log_width, levels, "Local.log_width")

    def factor(self, x: Array) -> Array:
        if self.form == "max":
            return np.maximum(x, 1.0)
        return np.maximum(x, 1.0) * (1 + np.minimum(x, 1 / np.maximum(x, 1e-300)) ** 4) ** 0.25

    def slope(self, x: Array) -> Array:
        if self.form == "max":
            return np.where(x > 1.0, 1.0, 0.0)
        return np.where(x > 0, (1 + np.maximum(x, 1e-75) ** -4.0) ** -0.75, 0.0)

    def expression(self, steps: cp.Expression, scale: Array) -> cp.Expression:
        import cvxpy as cp

        if self.form == "max":
            return 1.0 + cp.pos(cp.multiply(scale, cp.inv_pos(steps)) - 1.0)  # the 1 leaves the solver's numbers
        return cp.exp(_log_p4(steps, scale))

    def product(self, examples: cp.Expression, steps: cp.Expression, scale: Array) -> cp.Expression:
        import cvxpy as cp

        if self.form == "max":
            return cp.maximum(cp.inv_pos(examples), cp.multiply(scale, _inverse_product(examples, steps)))
        return cp.exp(_log_p4(steps, scale) - cp.log(examples))

    def to_dict(self) -> dict[str, Any]:
        width = "function of sigma" if callable(self.log_width) else self.log_width
        return {"kind": "Local", "log_width": width, "form": self.form}


@dataclass(frozen=True)
class PerStep(Coupling):
    """Every step is longer than the correlation length: one independent error per step (the paper).

    Args:
        log_width: correlation length in log sigma (the extent of one expert or block).
    """

    log_width: LogWidth

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_width", _log_width(self.log_width, "PerStep.log_width"))

    def lengths(self, levels: Levels) -> Array:
        return _tabulate(self.log_width, levels, "PerStep.log_width")

    def factor(self, x: Array) -> Array:
        return np.asarray(x, dtype=np.float64)

    def slope(self, x: Array) -> Array:
        return np.ones_like(x)

    def expression(self, steps: cp.Expression, scale: Array) -> cp.Expression:
        import cvxpy as cp

        return cp.multiply(scale, cp.inv_pos(steps))

    def product(self, examples: cp.Expression, steps: cp.Expression, scale: Array) -> cp.Expression:
        import cvxpy as cp

        return cp.multiply(scale, _inverse_product(examples, steps))

    def to_dict(self) -> dict[str, Any]:
        width = "function of sigma" if callable(self.log_width) else self.log_width
        return {"kind": "PerStep", "log_width": width}


@dataclass(frozen=True, eq=False)
class PerLevel(Local):
    """Blocks with stated edges, one set of parameters each: the error is common to a block.

    Equation (6.1) with each block's own extent as its correlation length; every example in the
    block trains it, wherever in the block it lies, and steps inside the block share its error.

    Args:
        edges: ascending block edges in sigma; they must cover the levels.
    """

    edges: Array = field(default_factory=lambda: np.empty(0))
    log_width: LogWidth = field(init=False, default=1.0)
    form: str = field(init=False, default="max")

    def __init__(self, edges: Any) -> None:
        checked = vector(edges, "PerLevel.edges", minimum_length=2, positive=True, ascending=True)
        object.__setattr__(self, "edges", checked)

    def blocks(self, levels: Levels) -> Array:
        """(L,) index of the block that holds each level."""
        inside = (levels.edges[0] >= self.edges[0] * (1 - 1e-9)) & (
            levels.edges[-1] <= self.edges[-1] * (1 + 1e-9)
        )
        if not inside:
            raise ValueError(
                f"PerLevel.edges cover {self.edges[0]:g} to {self.edges[-1]:g}, but the levels reach "
                f"from {levels.edges[0]:g} to {levels.edges[-1]:g}; extend the edges."
            )
        return np.clip(np.searchsorted(self.edges, levels.sigma) - 1, 0, self.edges.size - 2)

    def lengths(self, levels: Levels) -> Array:
        blocks = self.blocks(levels)
        return np.bincount(blocks, weights=levels.log_width)[blocks]  # a cut block counts what is used

    def pooling(self, levels: Levels) -> Array:
        blocks = self.blocks(levels)
        share = levels.log_width / self.lengths(levels)
        return np.where(blocks[:, None] == blocks[None, :], share[:, None], 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "PerLevel", "edges": self.edges.tolist()}


@dataclass(frozen=True, eq=False)
class Settled(Coupling):
    """The grid is settled: step lengths are inside the coefficients already, M = 1.

    Args:
        correlation: (L,) correlation length at each level, in units of log sigma.
    """

    correlation: Array

    def lengths(self, levels: Levels) -> Array:
        return vector(self.correlation, "Settled.correlation", length=len(levels), positive=True)

    def factor(self, x: Array) -> Array:
        return np.ones_like(x)

    def slope(self, x: Array) -> Array:
        return np.zeros_like(x)

    def expression(self, steps: cp.Expression, scale: Array) -> cp.Expression:
        import cvxpy as cp

        return cp.Constant(np.ones(steps.shape))

    def product(self, examples: cp.Expression, steps: cp.Expression, scale: Array) -> cp.Expression:
        import cvxpy as cp

        return cp.inv_pos(examples)
