"""Shared parameters in the user's units: what is asked, checked; its value and a bound at any design.

docs/theory.md section 7.5. Whatever a solver returns is evaluated and bounded here, from the user's own arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...basics.checks import Array, matrix, ndim, number, vector
from ...basics.errors import InfeasibleError
from .coordinates import determined, outside, root_of, whitening
from .knapsack import capped_shares, knapsack

__all__ = ["NAME", "InformationBlock", "InformationProgram", "Solved", "validated"]

NAME = "solve_information"
_ROUNDING = 1e-12  # floors that cost this much more than the budget, relatively, cost the budget
_UNDETERMINED = 1e-12  # of the response's norm, in directions with less than 1e-22 of the largest information
_EPS = float(np.finfo(float).eps)
_LOST = 1e-10  # of the response's norm in inner coordinates, outside the range of M


@dataclass(frozen=True, eq=False)
class InformationBlock:
    """One block in the user's units, and the coordinates in which all directions weigh the same."""

    roots: Array
    response: Array
    prior_root: Array  # rows R with R^T R = M0; (0, P) without a prior
    back: Array  # (P, R), user / inner coordinates
    inner: Array  # (L, k, R) roots in inner coordinates

    def solve(self, total: Array) -> tuple[float, float, Array]:
        """tr G^T M^-1 G, its rounding, and Y = M^-1 G; inf where M does not determine the response.

        The value is 2 <G,Y> - <Y,M Y> + <R, M^-1 R> with the residual R = G - M Y, exact for every Y, so
        that an error of Y counts squared.
        """
        used = np.flatnonzero(total > 0)
        weight = np.sqrt(total[used])[:, None, None]
        rows = np.vstack([(self.inner[used] * weight).reshape(-1, self.back.shape[1]), self.prior_root @ self.back])
        basis, values = determined(rows)
        if not values.size or outside(basis, self.back.T @ self.response) > _LOST:
            return np.inf, 0.0, np.zeros_like(self.response)
        inverse = basis / values
        outer = np.vstack([(self.roots[used] * weight).reshape(-1, self.response.shape[0]), self.prior_root])
        whiten = self.back @ inverse
        y = whiten @ (whiten.T @ self.response)
        # one step of refinement from the residual in the user's units: the inner coordinates are only the solver's
        y = y + whiten @ (whiten.T @ (self.response - outer.T @ (outer @ y)))
        seen = outer @ y
        rest = whiten.T @ (self.response - outer.T @ seen)
        value = 2 * _overlap(self.response, y) - float((seen**2).sum()) + float((rest**2).sum())
        return value, 2 * float((np.abs(seen) * _rounding(outer, y)).sum()), y


def _rounding(a: Array, y: Array) -> Array:
    """Error to expect in each entry of A Y, large where its terms cancel."""
    return _EPS * max(4.0, np.sqrt(a.shape[1])) * (np.abs(a) @ np.abs(y))


def _most(a: Array, y: Array) -> Array:
    """|A Y| and its rounding: what the bound must count."""
    return np.abs(a @ y) + _rounding(a, y)


def _overlap(a: Array, b: Array) -> float:
    """<A, B>, summed in extended precision: large terms cancel when parameters nearly repeat each other."""
    return float(np.sum(a.astype(np.longdouble) * b.astype(np.longdouble)))


class Solved(NamedTuple):
    """New examples (L,), the value there and its rounding, and Y of each block."""

    examples: Array
    value: float
    rounding: float
    solutions: list[Array]


@dataclass(frozen=True, eq=False)
class InformationProgram:
    """The validated program in the user's units."""

    blocks: list[InformationBlock]
    prices: Array
    budget: float
    low: Array
    high: Array
    spent: Array

    def solve(self, new: Array) -> Solved:
        """Value, its rounding, and Y of each block at these new examples."""
        values, errors, ys = zip(*(block.solve(self.spent + new) for block in self.blocks), strict=True)
        return Solved(new, float(sum(values)), float(sum(errors)), list(ys))

    def bound(self, solutions: Sequence[Array]) -> tuple[float, float]:
        """A number that no design beats, from any Y, and the price of the budget there.

        value >= <G,Y>^2 / (<Y, M0 Y> + max over feasible m of sum (e + m) |A Y|^2): Cauchy-Schwarz, with
        the maximum a fractional knapsack (docs/theory.md section 7.5). Gains are counted with the rounding of
        A Y on top, so that rounding can only lower the bound.
        """
        gains, along, prior = np.zeros(self.prices.size), 0.0, 0.0
        for block, y in zip(self.blocks, solutions, strict=True):
            flat = block.roots.reshape(-1, y.shape[0])
            gains += (_most(flat, y) ** 2).reshape(self.prices.size, -1).sum(axis=1)
            along += _overlap(block.response, y)
            prior += float((_most(block.prior_root, y) ** 2).sum())
        if not np.isfinite(along) or along <= 0:
            return 0.0, 0.0
        prior += float(gains @ (self.spent + self.low))
        room = self.room
        most, price = 0.0, 0.0
        if room > 0:
            most, price = knapsack(gains * room / self.prices, self.caps)
        scale = along / (prior + most)
        return scale * along, price / room * scale**2 if room > 0 else 0.0

    @property
    def room(self) -> float:
        """Budget above the floors."""
        return max(self.budget - float(self.prices @ self.low), 0.0)

    @property
    def caps(self) -> Array:
        """(L,) largest share of the room that each level can take."""
        if self.room <= 0:
            return np.zeros_like(self.low)
        caps = self.prices * (self.high - self.low) / self.room
        # a cap of the whole room or more holds nothing back; where that is so everywhere, slacks for caps are spared
        return np.full_like(caps, np.inf) if np.all(caps >= 1) else caps

    def examples(self, shares: Array) -> Array:
        """Shares of the room to new examples within bounds and budget, to the last digit."""
        new = np.clip(self.low + shares * self.room / self.prices, self.low, self.high)
        over = float(self.prices @ new) / self.budget
        # two roundings below the budget, or the sum of the rounded parts may still exceed it
        return self.low + (new - self.low) * (1 - 4e-16) / over if over > 1 else new


def _with_coordinates(program: InformationProgram) -> InformationProgram:
    """The program with each block's inner coordinates: information one at a plain design within the bounds."""
    new, caps = program.low, program.caps
    free = np.flatnonzero(caps > 0)
    if free.size:
        shares = np.zeros_like(new)
        shares[free] = caps[free] if caps.sum() <= 1 else capped_shares(np.ones(free.size), caps[free])
        new = program.low + shares * program.room / program.prices
    blocks = []
    for block in program.blocks:
        back, missing = whitening(block.roots, block.prior_root, program.spent + new, block.response)
        if missing > _UNDETERMINED:
            raise ValueError(
                f"{NAME}.response lies outside what the levels that may have examples and the prior determine "
                f"(by {missing:.2g} of its norm); add a prior, features or room in the bounds."
            )
        inner = (block.roots.reshape(-1, back.shape[0]) @ back).reshape(*block.roots.shape[:2], -1)
        blocks.append(replace(block, back=back, inner=inner))
    return replace(program, blocks=blocks)


def validated(
    roots: Any, response: Any, prices: Any, budget: Any, prior: Any, low: Any, high: Any, spent: Any
) -> InformationProgram:
    blocks = _blocks(roots, response, prior)
    count = blocks[0].roots.shape[0]
    c = _per_level(prices, "prices", count, positive=True)
    total = number(budget, f"{NAME}.budget", positive=True)
    floor = _per_level(0.0 if low is None else low, "low", count, nonnegative=True)
    cap = np.full(count, np.inf)
    if high is not None:
        cap = _per_level(high, "high", count, nonnegative=True, infinite=True)
    already = _per_level(0.0 if spent is None else spent, "spent", count, nonnegative=True)
    crossed = np.flatnonzero(floor > cap)
    if crossed.size:
        i = int(crossed[0])
        raise ValueError(f"{NAME}.low is {floor[i]:g} at index {i}, above {NAME}.high, {cap[i]:g}.")
    floors = float(c @ floor)
    if floors > total * (1 + _ROUNDING):
        raise InfeasibleError(
            f"Infeasible: the floors cost {floors:.6g} of a budget of {total:.6g}; lower them by "
            f"{100 * (1 - total / floors):.3g} % or raise the budget by {floors - total:.6g}."
        )
    return _with_coordinates(InformationProgram(blocks, c, total, floor, cap, already))


def _per_level(value: Any, name: str, count: int, **rules: Any) -> Array:
    if ndim(value) == 0 and not isinstance(value, (bool, np.bool_, str, type(None))):
        value = np.full(count, value)
    return vector(value, f"{NAME}.{name}", length=count, **rules)


def _blocks(roots: Any, response: Any, prior: Any) -> list[InformationBlock]:
    if not (isinstance(roots, (list, tuple)) and roots and ndim(roots[0]) == 3):
        return [_block(roots, response, prior, "", None)]
    count = len(roots)
    priors = [None] * count if prior is None else prior
    for name, given in (("response", response), ("prior", priors)):
        if not isinstance(given, (list, tuple)) or len(given) != count:
            raise ValueError(f"{NAME}.{name} must be a list of {count}, one per block of roots.")
    levels = np.shape(roots[0])[0]
    return [_block(a, g, p, f"[{i}]", levels) for i, (a, g, p) in enumerate(zip(roots, response, priors, strict=True))]


def _block(roots: Any, response: Any, prior: Any, place: str, levels: int | None) -> InformationBlock:
    a = matrix(roots, f"{NAME}.roots{place}", shape=(levels, None, None))
    size = a.shape[2]
    g = matrix(response, f"{NAME}.response{place}", shape=(size, None))
    if g.shape[1] > size:  # the error depends on G G^T alone
        g = np.asarray(np.linalg.qr(g.T, mode="r")).T
    none = (np.zeros((size, 0)), np.zeros((0, 0, 0)))  # coordinates follow once the bounds are known
    if prior is None:
        return InformationBlock(a, g, np.zeros((0, size)), *none)
    name = f"{NAME}.prior{place}"
    m = matrix(prior, name, shape=(size, size))
    unit = np.sqrt(np.maximum(np.diag(m), 0.0))
    unit = np.where(unit > 0, unit, 1.0)
    scaled = m / unit / unit[:, None]
    least = float(np.linalg.eigvalsh((scaled + scaled.T) / 2).min())
    if not np.allclose(scaled, scaled.T) or least < -1e-9:
        raise ValueError(
            f"{name} must be symmetric positive semidefinite; its smallest eigenvalue, with the diagonal scaled to "
            f"1, is {least:.3g}."
        )
    return InformationBlock(a, g, root_of(scaled) * unit, *none)
