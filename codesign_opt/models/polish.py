"""Polish: descend the exact error of a concrete grid, where the leading-order model is not enough.

Below about 20 steps the leading order of section 3 misses by 10 to 40 %, so the nodes are moved on
the exact squared Wasserstein distance; its gradient comes from one batched complex step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from ..basics.checks import Array
from ..ingredients.grids import check_grid, edm_grid
from ..samplers.affine_steps import Numbers

__all__ = ["PolishedGrid", "RhoFit", "polish_grid", "rho_fit"]

# of complex steps: there is no difference that could cancel, so that its square alone, 1e-60, must be below rounding,
# and 1e-30 times a slope far from underflow
_STEP = 1e-30
_NODES = 2**14  # nodes of grids whose errors are taken at once: what fits a cache


@dataclass(frozen=True, eq=False)
class PolishedGrid:
    """A grid at a local minimum of its exact error, and the error before and after."""

    sigmas: Array
    before: float
    after: float
    iterations: int


@dataclass(frozen=True)
class RhoFit:
    """The EDM grid closest to a plan's: its exponent, its exact error and the relative loss."""

    rho: float
    error: float
    loss: float


def polish_grid(
    error: Callable[[Numbers], Numbers],
    sigmas: Any,
    *,
    max_iterations: int = 400,
    trust: float = 8.0,
) -> PolishedGrid:
    """Local minimum of an exact error over the interior nodes; first and last positive node stay.

    The nodes are parametrised by the logarithms of their steps in log sigma, normalised to the
    range, so that every iterate is a valid grid.

    Args:
        error: analytic function of grids, (..., K+1) to (...); GaussianModel.wasserstein2 is one.
        sigmas: (K+1,) descending grid to start from.
        max_iterations: of the quasi-Newton descent (L-BFGS).
        trust: factor within which every step in log sigma stays of its start (before normalisation);
            multistep samplers have minima with nearly coincident nodes, exact for one spectrum and
            worthless for any other.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.from_eigenvalues([0.25]), co.EDM(0.002, 80.0), co.Euler(),
    ...                          terminal="rescale", start="marginal")
    >>> polished = polish_grid(model.wasserstein2, co.edm_grid(6, 0.002, 80.0, terminal="rescale"))
    >>> angles = np.arctan(polished.sigmas / 0.5)  # one eigenvalue: the tangent law, equal angles
    >>> bool(np.ptp(np.diff(angles)) < 1e-4)
    True
    """
    grid = check_grid(sigmas)
    positive = grid.sigmas[grid.sigmas > 0]
    before = float(np.real(error(grid.sigmas)))
    if positive.size < 3:
        return PolishedGrid(grid.sigmas, before, before, 0)
    top, span = np.log(positive[0]), np.log(positive[0] / positive[-1])
    tail = np.zeros(grid.sigmas.size - positive.size)

    def nodes(steps: Array) -> Array:
        share = np.exp(steps - steps.max())
        logs = top - span * np.concatenate([[0.0], np.cumsum(share)]) / share.sum()
        logs[-1] = top - span
        return logs

    def objective(steps: Array) -> tuple[float, Array]:
        logs = nodes(steps)
        value, slope = _value_and_slope(error, logs, tail)
        share = np.exp(steps - steps.max())
        share /= share.sum()
        # d logs_j / d steps_i = -span share_i (1[i < j] - sum_{i' < j} share_i')
        later = np.concatenate([np.cumsum(slope[::-1])[::-1][1:], [0.0]])[: steps.size]
        below = np.concatenate([[0.0], np.cumsum(share)])
        gradient = -span * share * (later - float(slope @ below))
        return float(np.log(value)), gradient / value

    # trust: from EDM's grid on a power law (Euler, Heun, DPM++(2M), 8 and 16 steps) factors of 8, 32 and 1000 end at
    # the same grids; 4 stops one of the six descents a per cent short, and 2 costs up to half again the error
    start = np.log(-np.diff(np.log(positive)))
    reach = np.log(trust)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([start - reach, start + reach], axis=1),
        options={"maxiter": max_iterations, "ftol": 1e-13, "gtol": 1e-9},
    )
    logs = nodes(found.x)
    best = np.concatenate([np.exp(logs), tail])
    best[0], best[positive.size - 1] = positive[0], positive[-1]
    after = float(np.real(error(best))) if np.all(np.diff(best) < 0) else np.inf
    if not after < before:
        return PolishedGrid(grid.sigmas, before, before, int(found.nit))
    return PolishedGrid(best, before, after, int(found.nit))


def _value_and_slope(error: Callable[[Numbers], Numbers], logs: Array, tail: Array) -> tuple[float, Array]:
    """Error and its gradient by the logarithm of every positive node, by one batched complex step."""
    size = logs.size
    moved = np.exp(logs[None, :] + 1j * _STEP * np.eye(size))
    batch = np.concatenate([moved, np.broadcast_to(tail, (size, tail.size))], axis=1)
    values = np.asarray(error(batch))
    return float(values[0].real), values.imag / _STEP


def rho_fit(error: Callable[[Numbers], Numbers], sigmas: Any) -> RhoFit:
    """The EDM exponent whose grid has the smallest exact error, at the same steps and range."""
    grid = check_grid(sigmas)
    own = float(np.real(error(grid.sigmas)))
    positive = grid.sigmas[grid.sigmas > 0]
    steps = grid.sigmas.size - 1

    def family(log_rho: float) -> Array:
        low, high = float(positive[-1]), float(positive[0])
        return edm_grid(steps, low, high, rho=float(np.exp(log_rho)), terminal=grid.terminal)

    def at(log_rho: float) -> float:
        return float(np.real(error(family(log_rho))))

    coarse = np.log(np.geomspace(1.0, 100.0, 25))
    tried, together = np.stack([family(x) for x in coarse]), max(1, _NODES // grid.sigmas.size)
    values = np.concatenate([np.real(error(tried[i : i + together])) for i in range(0, coarse.size, together)])
    i = int(np.argmin(values))
    found = minimize_scalar(
        at, bounds=(coarse[max(i - 1, 0)], coarse[min(i + 1, 24)]), method="bounded", options={"xatol": 1e-5}
    )
    return RhoFit(float(np.exp(found.x)), float(found.fun), float(found.fun / own - 1.0) if own > 0 else np.inf)
