"""The stopping points that are proved to be nearly as good as the best, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, number, vector

__all__ = ["StoppingBasin"]


@dataclass(frozen=True, eq=False)
class StoppingBasin:
    """{E <= (1 + tolerance) min E} among the stopping points that were tried, in one piece around the best.

    What a sampler's last steps look like to an observable (FID, a user) is not in the error; inside the basin the
    program says that the stopping point hardly matters, so that the observable may choose.

    Attributes:
        sigma: (N,) ascending stopping points.
        error: (N,) least error of the program at each.
        bound: proved lower bound of the error over all stopping points.
        tolerance: of the basin.

    >>> basin = StoppingBasin(np.array([0.01, 0.02, 0.04]), np.array([1.01, 1.0, 1.03]), 1.0, 0.05)
    >>> basin.best([(0.01, 7.0), (0.03, 5.5), (0.2, 1.0)])
    0.03
    """

    sigma: Array
    error: Array
    bound: float
    tolerance: float

    @classmethod
    def of(cls, curve: Iterable[Mapping[str, Any]], bound: float, tolerance: float) -> StoppingBasin:
        """From a plan's curve.

        Raises:
            ValueError: no stopping point is proved to be within the tolerance of the best.
        """
        width = number(tolerance, "stopping_basin.tolerance", positive=True)
        tried = sorted(
            (record["stopping_sigma"], record["error"]) for record in curve if record.get("error") is not None
        )
        sigma, error = np.array(tried, dtype=np.float64).reshape(-1, 2).T
        within = error <= (1 + width) * bound
        if not within.any():
            least = error.min() / bound - 1 if error.size and bound > 0 else np.inf
            raise ValueError(
                f"stopping_basin.tolerance is {width:g}, but no stopping point is proved to be that near the best; the "
                f"nearest is within {least:.3g}."
            )
        best = int(np.argmin(np.where(within, error, np.inf)))
        low = best - int(np.argmin(np.append(within[: best + 1][::-1], False))) + 1
        high = best + int(np.argmin(np.append(within[best:], False)))
        return cls(sigma[low:high], error[low:high], float(bound), width)

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest stopping point."""
        return float(self.sigma[0]), float(self.sigma[-1])

    def best(self, pairs: Sequence[tuple[float, float]]) -> float:
        """The stopping point with the least proxy among those that lie in the basin.

        Args:
            pairs: (stopping point, proxy), the smaller the proxy the better.

        Raises:
            ValueError: no pair lies in the basin.
        """
        points = vector([pair[0] for pair in pairs], "StoppingBasin.best: stopping points", positive=True)
        proxies = vector([pair[1] for pair in pairs], "StoppingBasin.best: proxies", length=points.size)
        low, high = self.ends
        inside = (points >= low * (1 - 1e-9)) & (points <= high * (1 + 1e-9))
        if not inside.any():
            raise ValueError(f"StoppingBasin.best: no pair lies between sigma {low:.3g} and {high:.3g}; observe there.")
        return float(points[inside][np.argmin(proxies[inside])])

    def __repr__(self) -> str:
        low, high = self.ends
        return f"StoppingBasin(sigma {low:.4g} to {high:.4g}, error within {self.tolerance:.3g} of the best)"
