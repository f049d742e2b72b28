"""Contraction and forcing of the excess loss along a training path: the bound of arXiv:2605.10790, theorem 3.4.

The theorem bounds the excess at one level by a contracted start plus what the Bayes noise of all levels forces on it
through shared parameters. On a linear model the path, the contraction rate and the forcing are exact, so that the bound
can be held against the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...basics.checks import (
    AT_ONCE,
    Array,
    Indices,
    instance,
    integer,
    matrix,
    ndim,
    noise_levels,
    number,
    scale_of,
    scales_of,
    takes,
    vector,
)
from ...basics.fields import holds

__all__ = ["LinearDegradation", "TrainingPath", "contraction_bound", "linear_degradation", "steady_bound"]


def contraction_bound(
    start: ArrayLike,
    rate: ArrayLike,
    forcing: ArrayLike,
    duration: ArrayLike,
    *,
    weight: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
) -> tuple[Array, Array]:
    """The two terms of the bound on the excess, for rates and forcing constant over pieces of training time.

    excess(tau) <= G(tau, 0) excess(0) + (M / (2 beta)) int_0^tau G(tau, s) |F_s|^2 ds with G(tau, s) = exp(-int_s^tau
    (mu - beta)) (theorem 3.4, equation 6), exactly for piecewise constant mu and |F|^2.

    Args:
        start: (L,) excess M |f - f*|^2 / 2 at time 0.
        rate: (K, L) mu, contraction rates that hold on each piece; they may be negative.
        forcing: (K, L) |F|^2 = |M_s Theta xi_s|^2 in L2 of the level, >= 0.
        duration: (K,) lengths of the pieces, > 0.
        weight: (L,) or a number, M of the level.
        beta: (L,) or a number, > 0: how much rate is given up for the forcing.

    Returns:
        (K+1, L) contracted start and (K+1, L) accumulated forcing; the bound is their sum.

    >>> first, second = contraction_bound([2.0], [[3.0]], [[0.0]], [1.0], beta=1.0)
    >>> (first + second).round(4).ravel().tolist()  # 2 exp(-2)
    [2.0, 0.2707]
    """
    initial = vector(start, "contraction_bound.start", nonnegative=True)
    mu = matrix(rate, "contraction_bound.rate", shape=(None, initial.size))
    square = matrix(forcing, "contraction_bound.forcing", shape=mu.shape, nonnegative=True)
    lengths = vector(duration, "contraction_bound.duration", length=len(mu), positive=True)
    spare = _of_levels(beta, "contraction_bound.beta", initial.size)
    m = _of_levels(weight, "contraction_bound.weight", initial.size, zero=True)
    net = (mu - spare) * lengths[:, None]
    shrink = np.exp(-net)
    # int_0^h exp(-(mu - beta) s) ds, continued through mu = beta
    small = np.abs(net) < 1e-12
    inside = np.where(small, 1.0, -np.expm1(-net) / np.where(small, 1.0, net)) * lengths[:, None]
    first, second = [initial], [np.zeros_like(initial)]
    for k in range(len(mu)):
        first.append(shrink[k] * first[-1])
        second.append(shrink[k] * second[-1] + m / (2 * spare) * square[k] * inside[k])
    return np.array(first), np.array(second)


def _of_levels(value: ArrayLike, name: str, size: int, *, zero: bool = False) -> Array:
    """One number, or one for each level, above zero, or zero too."""
    if ndim(value) == 0:
        one = number(value, name, nonnegative=True)
        return np.full(size, 0.0 if zero and one == 0 else scale_of(one, name))
    found = vector(value, name, nonnegative=True)
    scales_of(np.where(found == 0, 1.0, found) if zero else found, name)
    return np.full(size, found[0]) if found.size == 1 else vector(found, name, length=size)


def steady_bound(rate: float, forcing: float, *, weight: float = 1.0) -> float:
    """Smallest neighbourhood that the bound guarantees for a constant rate and forcing: 2 M |F|^2 / mu^2.

    Remark 3.5's M B / (2 beta (mu - beta)) at its best beta = mu / 2.

    >>> steady_bound(2.0, 1.0)
    0.5
    """
    mu = scale_of(rate, "steady_bound.rate")
    square = number(forcing, "steady_bound.forcing", nonnegative=True, maximum=1e120)
    return 2 * scale_of(weight, "steady_bound.weight") * square / mu**2


@dataclass(frozen=True, eq=False)
class LinearDegradation:
    """A linear model's exact excess along a training path, and the bound on it.

    Attributes:
        sigma: (L,) noise levels.
        time: (K+1,) training time.
        level: (K,) index of the level that each piece trains.
        excess: (K+1, L) exact excess M |f - f*|^2 / 2 at every level.
        start, forced: (K+1, L) the bound's two terms.
        rate: (K, L) contraction rates mu.
        beta: (L,).
    """

    sigma: Array
    time: Array
    level: Indices
    excess: Array
    start: Array
    forced: Array
    rate: Array
    beta: Array

    def __post_init__(self) -> None:
        holds(
            self, sigma="level", time="time", level="piece", excess="time level", start="time level",
            forced="time level", rate="piece level", beta="level",
        )  # fmt: skip

    @property
    def bound(self) -> Array:
        """(K+1, L) the whole bound."""
        return self.start + self.forced

    def __repr__(self) -> str:
        last = ", ".join(f"{b:.3g} >= {e:.3g}" for b, e in zip(self.bound[-1], self.excess[-1], strict=True))
        return f"LinearDegradation({self.level.size} pieces, bound >= excess at the end: {last})"


@dataclass(frozen=True, eq=False)
class TrainingPath:
    """Pieces of training time, each of which sees one batch at one noise level (lemma C.3 of arXiv:2605.10790).

    Args:
        pieces, duration: K pieces of training time each; 400 of 0.05 bring an eigenvalue of order 1 to its level.
        batch: examples per piece; below the data's dimension the contraction rate is 0 or negative.
        share: (L,) probability that a piece trains a level; even unless given.

    Raises:
        ValueError: a number out of range.

    >>> TrainingPath(pieces=50).batch
    64
    """

    pieces: int = 400
    duration: float = 0.05
    batch: int = 64
    share: Any = None

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "TrainingPath"
        put(self, "pieces", integer(self.pieces, f"{name}.pieces", minimum=1, maximum=AT_ONCE))
        put(self, "duration", number(self.duration, f"{name}.duration", positive=True))
        put(self, "batch", integer(self.batch, f"{name}.batch", minimum=1))
        if self.share is not None:
            put(self, "share", vector(self.share, f"{name}.share", nonnegative=True))

    def levels(self, count: int, rng: np.random.Generator) -> Indices:
        """(K,) the level that each piece trains."""
        name, count = "TrainingPath.share", integer(count, "TrainingPath.levels: count", minimum=1, maximum=AT_ONCE)
        instance(rng, np.random.Generator, "TrainingPath.levels: rng", "Give numpy.random.default_rng(seed).")
        p = np.ones(count) if self.share is None else vector(self.share, name, length=count, nonnegative=True)
        return rng.choice(count, size=self.pieces, p=p / p.sum())


@takes(path=TrainingPath)
def linear_degradation(
    eigenvalues: ArrayLike,
    sigma: ArrayLike,
    *,
    weight: ArrayLike = 1.0,
    path: TrainingPath | None = None,
    beta: ArrayLike | None = None,
    seed: int = 0,
) -> LinearDegradation:
    """Train D(x, sigma) = W C(sigma) x from W = 0 along a path of fresh batches, and evaluate the bound on it.

    Data N(0, diag(lambda)), C = diag(lambda / (lambda + sigma^2)), so that W = I is the Bayes denoiser at every level
    and all levels share W. During a piece the gradient flow of the loss M |D - x0|^2 / 2 sees one batch at one level
    (the path of lemma C.3); with S its second moment of C x, V_l the population's at level l and G its mean of
    xi (C x)^T: d(W - I)/dtau = -M [(W - I) S + G], solved exactly in S's eigenvectors; mu_l = 2 M times the smallest
    eigenvalue of the symmetric part of V_l^(-1/2) S V_l^(1/2); |F|^2 = M^2 tr(G V_l G^T). For batches of fewer examples
    than dimensions, the paper's single examples included, S is singular and mu <= 0: the bound then grows.

    Args:
        eigenvalues: (d,) lambda > 0.
        sigma: (L,) ascending noise levels.
        weight: (L,) or a number, the loss weight M.
        path: the levels, batches and lengths of the pieces; 400 of 0.05 with 64 examples unless given.
        beta: (L,) or a number; half the mean rate of each level unless given.
        seed: of the path.

    Raises:
        ValueError: an option out of range; a mean rate that is not positive where beta is not given.

    >>> found = linear_degradation([1.0, 0.25], [0.5, 2.0], path=TrainingPath(pieces=50))
    >>> bool(np.all(found.excess <= found.bound))
    True
    """
    lam = scales_of(eigenvalues, "linear_degradation.eigenvalues")
    levels = vector(noise_levels(sigma, "linear_degradation.sigma"), "linear_degradation.sigma", ascending=True)
    m = _of_levels(weight, "linear_degradation.weight", levels.size)
    stated = None if beta is None else _of_levels(beta, "linear_degradation.beta", levels.size)
    path, rng = TrainingPath() if path is None else path, np.random.default_rng(integer(seed, "seed", minimum=0))
    length, size = path.duration, path.batch
    gain = lam / (lam + levels[:, None] ** 2)
    second = lam**2 / (lam + levels[:, None] ** 2)  # (L, d) diagonal of V_l
    away = -np.eye(lam.size)  # W - I

    def excess(offset: Array) -> Array:
        return 0.5 * m * (second @ (offset**2).sum(axis=0))

    chosen = path.levels(levels.size, rng)
    curve, rates, forces = [excess(away)], [], []
    for level in chosen:
        clean = rng.normal(size=(size, lam.size)) * np.sqrt(lam)
        inputs = gain[level] * (clean + levels[level] * rng.normal(size=clean.shape))
        moment, pull = inputs.T @ inputs / size, (inputs - clean).T @ inputs / size
        rates.append([2 * m[level] * _coercivity(moment, v) for v in second])
        forces.append(m[level] ** 2 * (second @ (pull**2).sum(axis=0)))
        values, axes = np.linalg.eigh(moment)
        values = np.maximum(values, 0.0)
        decay = np.exp(-m[level] * values * length)
        spent = np.where(values > 1e-14, (1 - decay) / np.maximum(values, 1e-14), m[level] * length)
        away = ((away @ axes) * decay - (pull @ axes) * spent) @ axes.T
        curve.append(excess(away))
    rate = np.array(rates)
    if stated is None and np.any(rate.mean(axis=0) <= 0):
        raise ValueError(
            "linear_degradation: the mean contraction rate is not positive; raise TrainingPath.batch, or give beta."
        )
    spare = 0.5 * rate.mean(axis=0) if stated is None else stated
    lengths = np.full(path.pieces, length)
    start, forced = contraction_bound(curve[0], rate, np.array(forces), lengths, weight=m, beta=spare)
    time = np.concatenate([[0.0], np.cumsum(lengths)])
    return LinearDegradation(levels, time, chosen, np.array(curve), start, forced, rate, np.array(spare))


def _coercivity(moment: Array, second: Array) -> float:
    """Smallest eigenvalue of the symmetric part of V^(-1/2) S V^(1/2), V diagonal."""
    root = np.sqrt(second)
    skewed = moment * root / root[:, None]
    return float(np.linalg.eigvalsh(0.5 * (skewed + skewed.T))[0])
