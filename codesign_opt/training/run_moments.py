"""Second moments of one weight of a linear denoiser along a whole run of an optimiser (docs/theory.md section 5.9).

One weight of curvature h, off by delta, sees the minibatch gradient g = H delta - xi, E H = h, Var H = 2 h^2 / beta,
Var xi = Sigma / beta. Weight, momentum and average (delta, u, a) are a linear recursion, so that their six second
moments are one too: exact for Gaussian inputs. Long runs go in blocks of updates, by powers of the recursion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..basics.checks import Array

__all__ = ["AdamScale", "RunMoments", "Updates", "run_moments", "stable"]

_ROWS, _COLUMNS = np.triu_indices(3)  # the moments kept: dd, du, da, uu, ua, aa
_TWICE = _ROWS != _COLUMNS
_PER_SCALE = 160  # blocks per end of a long run, on a logarithmic scale
_EXACT = 2 * _PER_SCALE  # updates up to which every one is a block


@dataclass(frozen=True, eq=False)
class AdamScale:
    """Adam's division by the root of the gradient's second moment, taken as its mean: as beta2 -> 1, past burn-in.

    Attributes:
        beta2: decay of the second moment.
        epsilon: added to its root.
    """

    beta2: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Updates:
    """An optimiser's updates: what multiplies the gradient, the momentum and the average in each.

    u <- mu u + nu g; weight <- weight - rate (c1 g + c2 u_before), with nu = 1 for heavy ball and Nesterov (PyTorch's
    SGD), 1 - mu and bias correction for Adam; average <- e average + (1 - e) weight.

    Attributes:
        rates: (N,) learning rate of each update.
        decays: (N,) e.
        momentum: mu, in [0, 1).
        nesterov: whether the gradient counts again after the momentum.
        batch: beta.
        adam: None for SGD.
    """

    rates: Array
    decays: Array
    momentum: float
    nesterov: bool
    batch: float
    adam: AdamScale | None = None


@dataclass(frozen=True, eq=False)
class RunMoments:
    """Mean squares at the end of a run, of the weight that is used (the average where there is one).

    Attributes:
        start: what is left of the error at the start, with what minibatches shake it.
        noise: what the noise of the gradients left.
    """

    start: Array
    noise: Array


def run_moments(
    curvature: Array, noise: Array, start: Array, updates: Updates, step: Array | float = 1.0
) -> RunMoments:
    """What a run leaves of a start and of the gradients' noise.

    Args:
        curvature: (E,) h of each weight, > 0.
        noise: (E,) Sigma, variance of one example's gradient at the minimum, >= 0.
        start: (E,) error of each weight before the first update.
        updates: the optimiser.
        step: (E,) what the learning rate is multiplied by for each weight.

    Returns:
        (E,) mean squares; infinite where the rate is unstable.

    >>> plain = Updates(np.full(10_000, 0.1), np.zeros(10_000), 0.0, False, 1)
    >>> run_moments(np.ones(1), np.ones(1), np.ones(1), plain).noise.round(6)    # tau / (2 - 3 tau)
    array([0.058824])
    """
    h, size = np.asarray(curvature, dtype=np.float64), np.size(curvature)
    moments = np.zeros((size, 6, 2))  # of the start alone, and of the noise alone
    moments[:, 0, 0] = np.square(start)
    moments[:, 2, 0] = moments[:, 5, 0] = moments[:, 0, 0]  # the average begins at the start
    second, done = np.zeros(size), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for first, last in _blocks(updates.rates.size):
            scale = np.broadcast_to(np.asarray(step, dtype=np.float64), (size,))
            if updates.adam is not None:
                squared = (1 + 2 / updates.batch) * h**2 * moments[:, 0].sum(axis=1) + noise / updates.batch
                divided, second = _adam(updates, squared, second, first, last)
                scale = scale * divided
            matrix, shock = _step(h, scale, updates, first, last)
            kernel = _second(matrix)
            kernel[:, :, 0] += shock * (2 * h**2 / updates.batch)[:, None]
            moments = _repeat(kernel, shock * (noise / updates.batch)[:, None], moments, last - first)
            done = last
    assert done == updates.rates.size
    end = np.where(np.isfinite(moments[:, 5]), np.maximum(moments[:, 5], 0.0), np.inf)
    return RunMoments(end[:, 0], end[:, 1])


def stable(step: float, updates: Updates) -> bool:
    """Whether second moments stay bounded at a constant rate whose product with the curvature is `step`."""
    always = replace(updates, rates=np.ones(1), decays=np.zeros(1), adam=None)
    matrix, shock = _step(np.ones(1), np.array([step]), always, 0, 1)
    kernel = _second(matrix)[0]
    kernel[:, 0] += shock[0] * (2 / updates.batch)
    weight_and_momentum = kernel[np.ix_([0, 1, 3], [0, 1, 3])]
    return bool(np.abs(np.linalg.eigvals(weight_and_momentum)).max() < 1)


def _blocks(count: int) -> list[tuple[int, int]]:
    """Updates from first to last of each block: finer towards the start (burn-in) and the end (decay, averages)."""
    if count <= _EXACT:
        edges = np.arange(count + 1)
    else:
        scale = np.rint(np.geomspace(1, count, _PER_SCALE)).astype(int)
        edges = np.unique(np.concatenate([[0, count], scale, count - scale]))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _adam(updates: Updates, squared: Array, second: Array, first: int, last: int) -> tuple[Array, Array]:
    """What the gradient is multiplied by, and the running second moment, over a block of updates."""
    assert updates.adam is not None
    kept = updates.adam.beta2 ** (last - first)
    second = kept * second + (1 - kept) * squared
    corrected = second / (1 - updates.adam.beta2**last)
    return 1 / (np.sqrt(corrected) + updates.adam.epsilon), second


def _step(h: Array, scale: Array, updates: Updates, first: int, last: int) -> tuple[Array, Array]:
    """(E, 3, 3) mean map of (delta, u, a) in one update of a block, and (E, 6) the square of a unit shock."""
    mu, take = updates.momentum, slice(first, last)
    nu = 1.0 if updates.adam is None else 1 - mu
    rate = float(updates.rates[take].mean()) * scale
    if updates.adam is not None and mu > 0:
        rate = rate / (1 - mu ** ((first + 1 + last) / 2))  # Adam's correction of the first updates
    # the decays of a block by their product, which is what is kept of the average over it
    kept = float(np.exp(np.log(np.maximum(updates.decays[take], 1e-300)).mean()))
    of_gradient, of_momentum = ((1 + mu) * nu, mu**2) if updates.nesterov else (nu, mu)
    weight = np.zeros((h.size, 3))
    weight[:, 0] = 1 - rate * of_gradient * h
    weight[:, 1] = -rate * of_momentum
    average = (1 - kept) * weight
    average[:, 2] += kept
    momentum = np.stack([nu * h, np.full(h.size, mu), np.zeros(h.size)], axis=1)
    jolt = np.stack([-rate * of_gradient, np.full(h.size, nu), -(1 - kept) * rate * of_gradient], axis=1)
    return np.stack([weight, momentum, average], axis=1), jolt[:, _ROWS] * jolt[:, _COLUMNS]


def _second(matrix: Array) -> Array:
    """(E, 6, 6) what a linear map (E, 3, 3) does to the second moments."""
    i, j = _ROWS[:, None], _COLUMNS[:, None]
    k, m = _ROWS[None], _COLUMNS[None]
    return np.asarray(matrix[:, i, k] * matrix[:, j, m] + _TWICE * matrix[:, i, m] * matrix[:, j, k])


def _repeat(kernel: Array, shock: Array, moments: Array, times: int) -> Array:
    """moments <- kernel moments (+ shock to those of the noise), `times` times: by squaring the affine map."""
    if times == 1:
        moments = kernel @ moments
        moments[:, :, 1] += shock
        return moments
    affine = np.zeros((kernel.shape[0], 7, 7))
    affine[:, :6, :6], affine[:, :6, 6], affine[:, 6, 6] = kernel, shock, 1.0
    states = np.zeros((kernel.shape[0], 7, 2))
    states[:, :6], states[:, 6, 1] = moments, 1.0
    while True:
        if times % 2:
            states = affine @ states
        times //= 2
        if not times:
            return np.asarray(states[:, :6])
        affine = affine @ affine
