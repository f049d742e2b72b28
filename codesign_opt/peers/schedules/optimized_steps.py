"""DMN: noise levels with the least bound of a multistep solver's error, no network asked (Xue et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ...basics.checks import Array, integer, number, vector
from ...models.evidence import Evidence
from .base import Schedule

__all__ = ["OptimizedSteps", "output_weights"]

_STEEPEST = 10.0  # power of sigma in the assumed error

_LEAST = 1e-3  # step in log sigma, as a share of an equal one
_MOST = 300  # iterations of the search


def output_weights(levels: Array, order: int) -> Array:
    """Weight of every output of the denoiser in the sample of a Lagrange multistep solver, over the last noise level.

    Between nodes of lambda = -log sigma the output is the polynomial through its last `order` values, so that
    x_N / sigma_N = x_0 / sigma_0 + sum_n w_n D_n, w_n the sum over steps of int exp(lambda) l_n(lambda) d lambda.

    Args:
        levels: (N+1,) descending noise levels, all positive; outputs are at the first N.
        order: outputs that a step takes, as many as there are.

    Returns:
        (N,) 1 / data units.

    >>> output_weights(np.array([2.0, 1.0]), 3).tolist()
    [0.5]
    """
    levels = vector(levels, "levels", positive=True, descending=True, minimum_length=2)
    order = integer(order, "order", minimum=1)
    at = -np.log(levels)
    weights = np.zeros(levels.size - 1)
    for used in range(1, min(order, levels.size - 1) + 1):
        # the first steps have fewer outputs, one by one; all others as many as the order
        steps = np.arange(used - 1, used if used < order else levels.size - 1)
        known = steps[:, None] - np.arange(used)
        starts = at[steps] - at[steps + 1]
        moments = _moments(starts, used) / levels[steps + 1, None]
        # int exp(u) l_n(u) du for all n at once: they integrate the powers below `used` as the exponential does
        powers = np.swapaxes((at[known] - at[steps + 1, None])[..., None] ** np.arange(used), 1, 2)
        np.add.at(weights, known, np.linalg.solve(powers, moments[..., None])[..., 0])
    return weights


def _moments(starts: Array, count: int) -> Array:
    """(S, count) int_start^0 exp(u) u^m du, by parts from m = 0 up."""
    found = [-np.expm1(starts)]
    for power in range(1, count):
        found.append(-(starts**power) * np.exp(starts) - power * found[-1])
    return np.stack(found, axis=-1)


@dataclass(frozen=True)
class OptimizedSteps(Schedule):
    """Levels with the least sum_n |w_n| e_n, w_n the weight of output n in the sample and e_n its assumed error.

    e = sigma^power / alpha of a variance-preserving process, so sigma for power 1 in the library's noise levels. The
    sampler is a Lagrange multistep one in exponential form (`output_weights`), whatever grid it is for. Xue, Liu, Chen,
    Zhang, Hu, Xie, Li 2024 (DM-NonUniform, arXiv 2402.17376): a trust region with ordered nodes, from equal steps of
    log SNR. A local search is meant: weights of one output may cancel over several steps, so that the least bound of
    all has giant first steps and nodes that collapse at low noise. The last step goes to sigma_min in the bound and to
    zero in the grid of "denoise", which is their N evaluations for N steps.

    Args:
        order: outputs that a step takes.
        power: of sigma in the assumed error: 1 (their choice in pixel space) or 2 (in latent space).

    Raises:
        ValueError: a field out of its range.

    >>> found = OptimizedSteps().sigmas(4, Evidence(sigma_min=0.002, sigma_max=80.0))
    >>> found.size, float(found[-1])
    (5, 0.0)
    """

    order: int = 3
    power: float = 1.0
    name: ClassVar[str] = "dmn"
    title: ClassVar[str] = "DM-NonUniform, least bound of a multistep solver"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "order", integer(self.order, "OptimizedSteps.order", minimum=1))
        put(self, "power", number(self.power, "OptimizedSteps.power", nonnegative=True, maximum=_STEEPEST))

    def bound(self, levels: Array) -> float:
        """sum_n |w_n| e_n times the last level: that of the sample, data units.

        Args:
            levels: (N+1,) descending noise levels, all positive.
        """
        errors = levels[:-1] ** self.power * (1 + levels[:-1] ** 2) ** (0.5 * (1 - self.power))
        return float(levels[-1] * np.abs(output_weights(levels, self.order)) @ errors)

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        rescaled = evidence.terminal == "rescale"
        steps = count - 1 if rescaled else count
        levels = _least_bound(self, steps, evidence.sigma_max, evidence.sigma_min)
        return levels if rescaled else levels[:-1]


@lru_cache(maxsize=256)
def _least_bound(rule: OptimizedSteps, steps: int, top: float, low: float) -> Array:
    """(steps + 1,) levels from `top` to `low`; the search takes a second at many steps, so that it is kept."""
    from scipy.optimize import LinearConstraint, minimize

    ends = -np.log([top, low])
    start = np.linspace(ends[0], ends[1], steps + 1)

    def levels(inner: Array) -> Array:
        # in order: the search tries a step now and then that its constraints then take back
        return np.exp(-np.sort(np.concatenate([ends[:1], inner, ends[1:]])))

    def value(inner: Array) -> float:
        return float(np.log(rule.bound(levels(inner))))

    if steps == 1:
        return np.array([top, low])
    gaps = np.eye(steps, steps - 1) - np.eye(steps, steps - 1, k=-1)  # of the inner nodes, the ends apart
    fixed = np.zeros(steps)
    fixed[0], fixed[-1] = ends[0], -ends[1]
    least = _LEAST * (start[1] - start[0])
    ordered = LinearConstraint(gaps, least + fixed, np.inf, keep_feasible=True)
    found = minimize(value, start[1:-1], method="trust-constr", constraints=ordered, options={"maxiter": _MOST})
    result = levels(np.asarray(found.x))
    result[0], result[-1] = top, low
    return result
