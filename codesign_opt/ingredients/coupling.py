"""Coupling: over which stretch of log sigma one error of the trained denoiser persists.

docs/theory.md section 6. A step longer than the correlation length sees one error per step, a
shorter one shares its error with its neighbours; the score term carries the factor M(x), x = step
length over correlation length, both in log sigma:

    E_score = sum_l (A_l / m_l + F_l) M(kappa_l / n_l),   kappa_l = log width over correlation length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, choice, matrix, ndim, noise_levels, scale_of, takes, vector
from ..basics.inheritance import stale
from ..basics.registry import Registry
from .levels import Bins, Levels
from .sigma_table import LogWidth, log_width_field, plain_field, restored_field, tabulate

if TYPE_CHECKING:
    import cvxpy as cp  # a second to load, and saved plans are read without it: imported where it is used

__all__ = ["COUPLINGS", "Coupling", "Local", "PerLevel", "PerStep", "Settled", "Transfer"]

_WIDEST = 1e5  # of a transfer kernel, in log sigma: by wider ones all levels teach each other alike


COUPLINGS: Registry[type[Coupling]] = Registry("Coupling.kind", "Coupling")


class Coupling(ABC):
    """How errors of neighbouring noise levels add (docs/theory.md section 6).

    To add one, write a frozen dataclass with the five abstract methods; M must be convex in the steps, M(x) / m jointly
    convex in (m, steps). Its programs are solved as declared, and its fields are saved with a model: numbers, texts,
    arrays (they come back as lists: make arrays of them in `__post_init__`) and functions of sigma, as tables.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        COUPLINGS.add(cls.__name__, cls)

    lengths_by_sigma: ClassVar[bool] = False
    """Whether `lengths` depend on sigma alone, not on the range or the levels, and nothing is pooled."""

    @property
    def form(self) -> str | None:
        """The name of M: "max", "p4", "per_step" or "settled"; None for one's own, which no structured solver knows."""
        return None

    @property
    def known_form(self) -> str | None:
        """`form`, but None where a subclass replaced M and did not state a form for it."""
        return self.form if _own_form(type(self)) else None

    @property
    def form_at_every_stop(self) -> str | None:
        """`known_form` where lengths depend on sigma alone, so that all stopping points share them; else None."""
        return self.known_form if self.lengths_by_sigma and _own_lengths(type(self)) else None

    def solver_form(self, levels: Levels) -> str | None:
        """`known_form`, but None where examples are pooled: the structured solvers have one level serve itself."""
        form = self.known_form
        return form if form is None or self.pooling(levels) is None else None

    @abstractmethod
    def lengths(self, levels: Levels) -> Array:
        """(L,) correlation length at each level, in units of log sigma."""

    def aligned(self, levels: Levels) -> Levels:
        """The levels, with further edges where the coupling has edges of its own."""
        return levels

    def lengths_at(self, sigma: Array, low: float, high: float) -> Array:
        """Correlation lengths at single noise levels of a range."""
        table = Levels.log_uniform(low, high, 400)
        return np.interp(np.log(sigma), np.log(table.sigma), self.lengths(table))

    @property
    def constant_length(self) -> float | None:
        """The correlation length where it is one number for all noise levels, in log sigma; else None."""
        return None

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

    def to_dict(self, sigma: Any = None) -> dict[str, Any]:
        """Class and fields as plain values, for JSON.

        Args:
            sigma: (M,) noise levels at which functions of sigma are tabulated; without them a function is only named,
                for people to read.

        Raises:
            ValueError: a field that a file cannot hold, by name.

        >>> Local(lambda sigma: 1 + sigma).to_dict([1.0, 2.0])["log_width"]
        {'sigma': [1.0, 2.0], 'value': [2.0, 3.0]}
        """
        kept: list[str] = [f.name for f in fields(self) if f.init] if is_dataclass(self) else []
        kind = type(self).__name__
        return {"kind": kind} | {name: plain_field(getattr(self, name), sigma, f"{kind}.{name}") for name in kept}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Coupling:
        """The coupling that `to_dict` wrote; functions of sigma come back as their tables.

        Raises:
            ValueError: an unknown kind, a field that it does not have or that it needs.

        >>> Coupling.from_dict(PerStep(0.3).to_dict())
        PerStep(log_width=0.3)
        """
        if not isinstance(record, Mapping):
            raise ValueError(f"Coupling.from_dict needs a mapping, not {type(record).__name__}.")
        values = {name: restored_field(value, name) for name, value in record.items() if name != "kind"}
        coupling: Coupling = COUPLINGS.make(record.get("kind"), values)
        return coupling


@cache
def _own_form(kind: type[Coupling]) -> bool:
    return not stale(kind, ("factor", "slope", "expression", "product"), ("form",))


@cache
def _own_lengths(kind: type[Coupling]) -> bool:
    return not stale(kind, ("lengths", "lengths_at", "aligned", "pooling"), ("lengths_by_sigma",))


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
    lengths_by_sigma: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_width", log_width_field(self.log_width, "Local.log_width"))
        choice(self.form, "Local.form", ("max", "p4"))

    @takes(levels=(Levels, Bins))
    def lengths(self, levels: Levels) -> Array:
        return tabulate(self.log_width, levels.sigma, "Local.log_width")

    def lengths_at(self, sigma: Array, low: float, high: float) -> Array:
        return tabulate(self.log_width, sigma, "Local.log_width")

    @property
    def constant_length(self) -> float | None:
        return self.log_width if isinstance(self.log_width, float) else None

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


@dataclass(frozen=True)
class PerStep(Coupling):
    """Every step is longer than the correlation length: one independent error per step (the paper).

    Args:
        log_width: correlation length in log sigma (the extent of one expert or block).
    """

    log_width: LogWidth
    lengths_by_sigma: ClassVar[bool] = True

    @property
    def form(self) -> str:
        return "per_step"

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_width", log_width_field(self.log_width, "PerStep.log_width"))

    @takes(levels=(Levels, Bins))
    def lengths(self, levels: Levels) -> Array:
        return tabulate(self.log_width, levels.sigma, "PerStep.log_width")

    def lengths_at(self, sigma: Array, low: float, high: float) -> Array:
        return tabulate(self.log_width, sigma, "PerStep.log_width")

    @property
    def constant_length(self) -> float | None:
        return self.log_width if isinstance(self.log_width, float) else None

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

    def __init__(self, edges: ArrayLike) -> None:
        vector(edges, "PerLevel.edges", minimum_length=2, positive=True, ascending=True)
        checked = noise_levels(edges, "PerLevel.edges")
        object.__setattr__(self, "edges", checked)

    @takes(levels=(Levels, Bins))
    def shares(self, levels: Levels) -> Array:
        """(L, blocks) part of each level's log width inside each block; a level may straddle an edge."""
        low, high = float(levels.edges[0]), float(levels.edges[-1])
        if low < self.edges[0] * (1 - 1e-9) or high > self.edges[-1] * (1 + 1e-9):
            raise ValueError(
                f"PerLevel.edges cover {self.edges[0]:g} to {self.edges[-1]:g}, but the levels reach "
                f"from {low:g} to {high:g}; extend the edges."
            )
        inside = np.stack([levels.overlap(a, b) for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)], axis=1)
        return inside / inside.sum(axis=1, keepdims=True)

    @takes(levels=(Levels, Bins))
    def aligned(self, levels: Levels) -> Levels:
        """The levels cut at the block edges, so that none straddles one."""
        near = np.abs(np.log(self.edges[:, None] / levels.edges)).min(axis=1) < 1e-6
        inside = (self.edges > levels.edges[0]) & (self.edges < levels.edges[-1]) & ~near
        return Levels(np.sort(np.concatenate([levels.edges, self.edges[inside]]))) if inside.any() else levels

    def _extents(self, low: float, high: float) -> Array:
        """Extent of each block in log sigma; of a cut block what is used."""
        edges = np.log(np.clip(self.edges, low, high))
        return np.diff(edges)

    @takes(levels=(Levels, Bins))
    def lengths(self, levels: Levels) -> Array:
        return self.shares(levels) @ self._extents(float(levels.edges[0]), float(levels.edges[-1]))

    def lengths_at(self, sigma: Array, low: float, high: float) -> Array:
        block = np.clip(np.searchsorted(self.edges, sigma, side="right") - 1, 0, self.edges.size - 2)
        return np.maximum(self._extents(low, high)[block], 1e-12)

    @takes(levels=(Levels, Bins))
    def pooling(self, levels: Levels) -> Array:
        shares = self.shares(levels)
        extents = self._extents(float(levels.edges[0]), float(levels.edges[-1]))
        per_extent = np.divide(shares, extents, out=np.zeros_like(shares), where=shares > 0)
        return levels.log_width[:, None] * (per_extent @ shares.T)


@dataclass(frozen=True, eq=False)
class Transfer(Local):
    """Examples also teach neighbouring noise levels: equation (6.1) with the density replaced by T density.

    T averages the density of examples per unit log sigma with a Gaussian kernel; at the ends of the range its
    rows are normalised, so that a constant density stays what it is (docs/theory.md section 6, where a kernel of
    width 0.6 raised the correlation of predicted with realised error). The score error a / (T density) is jointly
    convex. A wide T makes the best density spiky: add `Smooth`.

    Args:
        transfer: standard deviation of the kernel in log sigma, > 0; or the (L, L) matrix T itself, from densities
            per unit log sigma to densities that serve, >= 0 with rows that sum to 1.
        log_width, form: correlation length and shape of M as for `Local`.

    Raises:
        ValueError: a width that is not positive; a matrix that is negative, whose rows do not sum to 1, or whose
            size is not the number of levels.

    >>> levels = Levels.log_uniform(0.01, 10.0, 40)
    >>> served = Transfer(0.6).pooling(levels) @ levels.log_width  # a density of one
    >>> bool(np.allclose(served, levels.log_width))
    True
    """

    transfer: float | Array = 0.6
    log_width: LogWidth = 2.7
    form: str = "max"

    def __init__(self, transfer: ArrayLike = 0.6, log_width: LogWidth = 2.7, form: str = "max") -> None:
        checked: float | Array
        if ndim(transfer) == 0:
            checked = scale_of(transfer, "Transfer.transfer")
        else:
            checked = matrix(transfer, "Transfer.transfer", nonnegative=True)
            sums = checked.sum(axis=1)
            worst = int(np.argmax(np.abs(sums - 1)))
            if abs(sums[worst] - 1) > 1e-6:
                raise ValueError(
                    f"Transfer.transfer has a row sum of {sums[worst]:g} in row {worst}; every row must sum to 1 "
                    "(divide each row by its sum)."
                )
        object.__setattr__(self, "transfer", checked)
        object.__setattr__(self, "log_width", log_width_field(log_width, "Transfer.log_width"))
        object.__setattr__(self, "form", choice(form, "Transfer.form", ("max", "p4")))

    @takes(levels=(Levels, Bins))
    def kernel(self, levels: Levels) -> Array:
        """(L, L) T: density that serves level l = sum_k T_lk density_k."""
        if ndim(self.transfer):
            return matrix(self.transfer, "Transfer.transfer", shape=(len(levels), len(levels)))
        from scipy.special import ndtr  # scipy takes a while to load and saved plans are read without it

        width = min(float(self.transfer), _WIDEST)
        edges = np.log(levels.edges) / width
        from_level = ndtr(edges - np.log(levels.sigma)[:, None] / width)
        mass = np.diff(from_level, axis=1)
        return np.asarray(mass / mass.sum(axis=1, keepdims=True))

    @takes(levels=(Levels, Bins))
    def pooling(self, levels: Levels) -> Array:
        return levels.log_width[:, None] * self.kernel(levels) / levels.log_width


@dataclass(frozen=True, eq=False)
class Settled(Coupling):
    """The grid is settled: step lengths are inside the coefficients already, M = 1.

    Args:
        correlation: (L,) correlation length at each level, in units of log sigma.
        pool: (L, L) pooling matrix of the coupling that was settled, or None.
    """

    correlation: Array
    pool: Array | None = None

    def __post_init__(self) -> None:
        lengths = vector(self.correlation, "Settled.correlation", positive=True)
        object.__setattr__(self, "correlation", lengths)
        if self.pool is not None:
            pool = matrix(self.pool, "Settled.pool", shape=(lengths.size, lengths.size), nonnegative=True)
            object.__setattr__(self, "pool", pool)

    @property
    def form(self) -> str:
        return "settled"

    def to_dict(self, sigma: Any = None) -> dict[str, Any]:
        """Class and arrays; without `sigma`, where people read it, the class alone: the arrays are one grid's."""
        return {"kind": "Settled"} if sigma is None else super().to_dict(sigma)

    @takes(levels=(Levels, Bins))
    def pooling(self, levels: Levels) -> Array | None:
        return self.pool

    @takes(levels=(Levels, Bins))
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
