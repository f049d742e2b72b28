"""Brackets of the minimisers of convex functions, one for each noise level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array

__all__ = ["Bracket"]


@dataclass(frozen=True, eq=False)
class Bracket:
    """(L,) bounds a <= b of the minimisers in log n: slopes in log n at both, and the value at a."""

    a: Array
    b: Array
    value: Array
    slope_a: Array
    slope_b: Array

    def with_probe(self, probe: Array, value: Array, slope: Array) -> Bracket:
        """Narrowed by the slope at one point inside each."""
        within = (probe >= self.a) & (probe <= self.b)
        falls, rises = within & (slope < 0), within & (slope >= 0)
        return Bracket(
            np.where(falls, probe, self.a),
            np.where(rises, probe, self.b),
            np.where(falls, value, self.value),
            np.where(falls, slope, self.slope_a),
            np.where(rises, slope, self.slope_b),
        )
