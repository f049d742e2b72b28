"""Coefficients of a grid whose errors are added in windows before they are squared (docs/theory.md section 6.6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..basics.checks import Array, Indices
from ..ingredients.coupling import Coupling, PerStep
from .coefficients import Coefficients
from .example_counts import ExampleCounts
from .node_sums import NodeTerms, in_lengths

__all__ = ["window_table"]

_EDGE = 1e-12  # of a correlation length: a node on an edge lies in one window
_LEAST = 0.5  # of a length: what is left of one at an end joins its neighbour where it is shorter


def window_table(table: Coefficients, terms: NodeTerms, coupling: Coupling) -> Coefficients | None:
    """The table of a settled grid with what windows of one correlation length leave, each at the level of its middle.

    With c a window's middle in correlation lengths, sum_b n_b (sum over its nodes of s_kb sqrt(A_kb))^2 is its error
    times examples, integrated over the middles in each level. The last evaluation is one of the nodes.

    Args:
        table: of the grid, spread evenly over its steps.
        terms: of its nodes.
        coupling: the model's; that of `table` is settled.

    Returns:
        None where nodes are alone, or share blocks or neighbours' examples by a law of their own.
    """
    if isinstance(coupling, PerStep) or coupling.pooling(table.levels) is not None:
        return None
    counts = ExampleCounts.of_levels(table.levels, np.ones(len(table.levels)))
    at, along = in_lengths(coupling, counts, terms.sigmas)
    edges, nodes = (np.interp(np.log(each), at, along) for each in (table.levels.edges, terms.sigmas[::-1]))
    windows = _Windows.of(edges, nodes, float(along[-1]))
    errors = windows.over(terms, np.sqrt(terms.reducible))
    lengths = table.coupling.lengths(table.levels)
    untrained = None if terms.lacking is None else windows.over(terms, terms.lacking) / (table.log_width * lengths)
    score = errors / (table.log_width * lengths)
    return replace(table, score=score, untrained=untrained, final_score=0.0, final_untrained=None)


@dataclass(frozen=True, eq=False)
class _Windows:
    """Pieces of the middles of windows, in which each holds the same nodes.

    Args:
        first, last: (W,) nodes of each piece's window, ascending, from `first` to before `last`.
        level: (W,) level of the middle.
        width: (W,) of the piece, in correlation lengths.
        levels: how many there are.
    """

    first: Indices
    last: Indices
    level: Indices
    width: Array
    levels: int

    @classmethod
    def of(cls, edges: Array, nodes: Array, extent: float) -> _Windows:
        """Middles over the levels between ascending `edges`; nodes ascending; the range is `extent` long."""
        bends = [0.0, 0.5, 1.0, extent - 1.0, extent - 0.5, extent]
        cuts = np.unique(np.concatenate([edges, nodes - 0.5, nodes + 0.5, bends]))
        cuts = cuts[(cuts >= edges[0]) & (cuts <= edges[-1])]
        middle, width = 0.5 * (cuts[1:] + cuts[:-1]), np.diff(cuts)
        low, high = _ends(middle, extent)
        first = np.searchsorted(nodes, low - _EDGE)
        last = np.where(high >= extent - _EDGE, nodes.size, np.searchsorted(nodes, high - _EDGE))
        level = np.clip(np.searchsorted(edges, middle) - 1, 0, edges.size - 2)
        return cls(first, last, level, width / min(1.0, extent), edges.size - 1)

    def over(self, terms: NodeTerms, off: Array) -> Array:
        """(L,) squared errors of windows, whose nodes' weights are off by (P, B), integrated over each level."""
        count = terms.counts if terms.curvature is None else terms.counts * terms.curvature
        error = (terms.sensitivity * off)[::-1]
        below = np.concatenate([np.zeros_like(error[:1]), np.cumsum(error, axis=0)])
        squares = (below[self.last] - below[self.first]) ** 2 @ count
        return np.bincount(self.level, squares * self.width, self.levels).astype(np.float64)


def _ends(middle: Array, extent: float) -> tuple[Array, Array]:
    """Lower and upper ends of windows about these middles, in a range from 0 on."""
    low, high = middle - 0.5, middle + 0.5
    return np.where(low < _LEAST, 0.0, low), np.where(high > extent - _LEAST, extent, high)
