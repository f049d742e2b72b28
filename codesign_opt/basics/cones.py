"""Cones: which rows of a conic program form which cone, in the order of cvxpy and CLARABEL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .checks import Array, Indices, Mask

__all__ = ["Cones"]


@dataclass(frozen=True)
class Cones:
    """A product of cones, one after the other in this order.

    Attributes:
        zero: rows that must be 0.
        nonnegative: rows that must be >= 0.
        second_order: sizes of cones |x[1:]| <= x[0].
        semidefinite: orders of matrices, as upper triangles by column, entries off the diagonal times sqrt(2).
        exponential: number of cones y exp(x / y) <= z, three rows each.
        power: exponents a of each cone prod_i x_i^a_i >= |z|, a row for every exponent and one for z.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[tuple[float, ...], ...] = ()

    @cached_property
    def _starts(self) -> tuple[int, int, int, int, int]:
        """First row of the second-order, semidefinite, exponential and power cones, and the number of rows."""
        second = self.zero + self.nonnegative
        semidefinite = second + sum(self.second_order)
        exponential = semidefinite + sum(n * (n + 1) // 2 for n in self.semidefinite)
        power = exponential + 3 * self.exponential
        return second, semidefinite, exponential, power, power + sum(len(a) + 1 for a in self.power)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def nonnegative_rows(self) -> slice:
        return slice(self.zero, self.zero + self.nonnegative)

    @cached_property
    def second_order_rows(self) -> list[Indices]:
        """(number, size) rows of the second-order cones, those of one size together."""
        sizes = np.asarray(self.second_order, dtype=np.intp)
        starts = self._starts[0] + np.cumsum(sizes) - sizes
        return [starts[sizes == size][:, None] + np.arange(size) for size in np.unique(sizes)]

    @cached_property
    def semidefinite_rows(self) -> list[tuple[int, slice]]:
        """Order and rows of every semidefinite cone."""
        found, start = [], self._starts[1]
        for order in self.semidefinite:
            end = start + order * (order + 1) // 2
            found.append((order, slice(start, end)))
            start = end
        return found

    @property
    def exponential_rows(self) -> Indices:
        """(number, 3) rows of the exponential cones."""
        return self._starts[2] + np.arange(3 * self.exponential, dtype=np.intp).reshape(-1, 3)

    @cached_property
    def power_rows(self) -> list[tuple[Array, Indices]]:
        """(number, size) exponents and (number, size + 1) rows of the power cones, those of one size together."""
        sizes = np.asarray([len(a) for a in self.power], dtype=np.intp)
        starts = (
            self._starts[3] + np.concatenate([[0], np.cumsum(sizes + 1)[:-1]]).astype(np.intp) if sizes.size else sizes
        )
        found = []
        for size in np.unique(sizes):
            exponents = np.array([a for a in self.power if len(a) == size], dtype=np.float64)
            found.append((exponents, starts[sizes == size][:, None] + np.arange(size + 1)))
        return found

    def restricted(self, kept: Mask) -> Cones:
        """The cones of the rows in `kept`, which takes whole cones."""
        second, _, exponential, power, _ = self._starts
        sizes = np.asarray(self.second_order, dtype=np.intp)
        heads = second + np.cumsum(sizes) - sizes
        starts = power + np.concatenate([[0], np.cumsum([len(a) + 1 for a in self.power])]).astype(np.intp)
        powers = [a for a, first in zip(self.power, starts, strict=False) if kept[first]]
        return Cones(
            int(kept[: self.zero].sum()),
            int(kept[self.nonnegative_rows].sum()),
            tuple(int(size) for size in sizes[kept[heads]]),
            tuple(order for order, rows in self.semidefinite_rows if kept[rows.start]),
            int(kept[exponential:power:3].sum()),
            tuple(powers),
        )

    @cached_property
    def cone_of_row(self) -> Indices:
        """(rows,) number of the cone that each row belongs to; rows of the first two kinds are cones of their own."""
        number = np.arange(len(self), dtype=np.intp)
        blocks = [block for rows in self.second_order_rows for block in rows]
        blocks += [np.arange(rows.start, rows.stop) for _, rows in self.semidefinite_rows]
        powers = [block for _, rows in self.power_rows for block in rows]
        for block in [*blocks, *self.exponential_rows, *powers]:
            number[block] = block[0]
        return number
