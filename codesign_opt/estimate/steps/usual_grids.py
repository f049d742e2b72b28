"""Grids of the literature at some stopping points, from which descents and fits start."""

from __future__ import annotations

from collections.abc import Iterable

from ...basics.checks import Array
from ...ingredients.grids import edm_grid, log_snr_grid

__all__ = ["USUAL_STOPS", "usual_grids"]

USUAL_STOPS = (0.002, 0.01, 0.03, 0.06)


def usual_grids(
    steps: int,
    sigma_max: float,
    *,
    stops: Iterable[float] = USUAL_STOPS,
    terminal: str = "denoise",
) -> list[Array]:
    """Starts for `descend_grid`: EDM's rho = 7 and log-SNR grids at some stopping points.

    >>> len(usual_grids(5, 80.0))
    8
    """
    families = (edm_grid, log_snr_grid)
    return [family(steps, stop, sigma_max, terminal=terminal) for stop in stops for family in families]
