"""How far samples are from the data: likelihood under a known law, and distances between two sets of samples.

All with standard errors: of a mean over samples for the likelihood, over blocks of samples for the energy
distance, over random directions and blocks for sliced Wasserstein, by bootstrap for the Fréchet distance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..basics.checks import AT_ONCE, Array, integer, matrix
from ..estimate.draws.statistics import Estimate
from ..estimate.draws.streams import seeded

__all__ = [
    "energy_distance",
    "frechet_distance",
    "frechet_of_moments",
    "negative_log_likelihood",
    "sliced_wasserstein2",
]


def negative_log_likelihood(world: Any, samples: Any) -> Estimate:
    """-mean log p of samples under the true law, natural logarithm; its standard error over samples.

    Args:
        world: has log_density(x) -> (N,), such as `Mixture`.
        samples: (N, d) of the sampler.

    >>> from codesign_opt.testbed.data.mixtures import Mixture
    >>> one = Mixture([[0.0]], [1.0], [1.0])
    >>> round(float(negative_log_likelihood(one, np.zeros((2, 1))).value), 6)  # log sqrt(2 pi)
    0.918939
    """
    values = -np.asarray(world.log_density(torch.tensor(_rows(samples, "samples"))), dtype=np.float64)
    return Estimate(np.asarray(values.mean()), np.asarray(values.std(ddof=1) / np.sqrt(values.size)), values.size)


def energy_distance(samples: Any, others: Any, *, block: int = 1000) -> Estimate:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely and Rizzo 2013), without bias; 0 for two equal laws.

    Every block of as many samples of both sets gives an unbiased value; the mean over blocks is returned, with
    the standard error of independent blocks.

    Args:
        samples, others: (N, d) and (M, d), data units; the longer one is cut.
        block: samples in one block; at least two blocks are needed.

    Raises:
        ValueError: malformed samples, or too few for two blocks.

    >>> x = np.random.default_rng(0).normal(size=(4000, 1))
    >>> found = energy_distance(x[:2000], x[2000:], block=100)
    >>> bool(abs(found.value) < 4 * found.standard_error)
    True
    """
    first, second = _pair(samples, others)
    count = min(len(first), len(second)) // integer(block, "block", minimum=2)
    if count < 2:
        raise ValueError(
            f"energy_distance: {min(len(first), len(second))} samples give {count} blocks of {block}; two are needed."
        )
    values = np.array([
        _energy(first[i * block : (i + 1) * block], second[i * block : (i + 1) * block]) for i in range(count)
    ])  # fmt: skip
    return _mean(values)


def sliced_wasserstein2(samples: Any, others: Any, *, directions: int = 64, blocks: int = 8, seed: int = 0) -> Estimate:
    """Squared sliced Wasserstein-2 distance: mean over random directions u of W2^2(u.X, u.Y), times d.

    The factor d makes it the squared shift of a translation, |m|^2, and for any two laws at most W2^2 times d.
    It is biased upwards by the finite samples, by the same amount for every sampler with as many of them: subtract
    the value between two sets of data to see it. The directions are the same at every call with one seed; the
    standard error is over blocks of samples, scaled to all of them.

    Args:
        samples, others: (N, d) and (M, d); the longer one is cut.
        directions: of projection, random and orthogonal in groups of d.
        blocks: for the standard error.

    >>> x = np.random.default_rng(0).normal(size=(1000, 2))
    >>> round(float(sliced_wasserstein2(x, x + np.array([3.0, 4.0])).value), 6)
    25.0
    """
    first, second = _pair(samples, others)
    count = min(len(first), len(second))
    blocks = integer(blocks, "blocks", minimum=2)
    if count < 2 * blocks:
        raise ValueError(f"sliced_wasserstein2: {count} samples are too few for {blocks} blocks.")
    axes = _directions(first.shape[1], integer(directions, "directions", minimum=1, maximum=AT_ONCE), seed)
    one, two = first[:count] @ axes, second[:count] @ axes
    size = count // blocks
    parts = [_transport(one[i * size : (i + 1) * size], two[i * size : (i + 1) * size]) for i in range(blocks)]
    error = np.std(parts, ddof=1) / np.sqrt(blocks)
    return Estimate(np.asarray(first.shape[1] * _transport(one, two)), np.asarray(first.shape[1] * error), count)


def frechet_distance(samples: Any, others: Any, *, bootstraps: int = 50, seed: int = 0) -> Estimate:
    """Fréchet distance of two normal laws with the moments of two sets of features (Dowson and Landau 1982).

        |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))

    Biased upwards by the finite samples; compare only equal numbers of them. The standard error is the spread over
    bootstrap samples of the first set.

    Args:
        samples, others: (N, p) and (M, p) features.
        bootstraps: 0 leaves the standard error infinite.

    >>> x = np.random.default_rng(0).normal(size=(500, 3))
    >>> round(float(frechet_distance(x, x + 2.0, bootstraps=0).value), 6)
    12.0
    """
    first, second = _pair(samples, others)
    truth = second.mean(axis=0), np.cov(second.T).reshape(second.shape[1], -1)

    def at(rows: Array) -> float:
        return frechet_of_moments(rows.mean(axis=0), np.cov(rows.T).reshape(rows.shape[1], -1), *truth)

    draws = np.random.default_rng(integer(seed, "seed", minimum=0))
    again = [
        at(first[draws.integers(len(first), size=len(first))])
        for _ in range(integer(bootstraps, "bootstraps", minimum=0, maximum=AT_ONCE))
    ]
    error = float(np.std(again, ddof=1)) if len(again) > 1 else float("inf")
    return Estimate(np.asarray(at(first)), np.asarray(error), len(first))


def frechet_of_moments(mean: Array, covariance: Array, other_mean: Array, other_covariance: Array) -> float:
    """Squared Wasserstein-2 distance of two normal laws, by eigenvalues of S^(1/2) S' S^(1/2).

    >>> frechet_of_moments(np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1))
    10.0
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    middle = np.linalg.eigvalsh(root @ other_covariance @ root)
    spread = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(np.maximum(middle, 0.0)).sum()
    return float(np.sum((mean - other_mean) ** 2) + max(spread, 0.0))


def _rows(samples: Any, name: str) -> Array:
    values = samples.detach().cpu().double().flatten(1).numpy() if torch.is_tensor(samples) else samples
    return matrix(values, name)


def _pair(samples: Any, others: Any) -> tuple[Array, Array]:
    first, second = _rows(samples, "samples"), _rows(others, "others")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"samples have {first.shape[1]} dimensions, others {second.shape[1]}; they must be the same.")
    return first, second


def _mean(values: Array) -> Estimate:
    return Estimate(np.asarray(values.mean()), np.asarray(values.std(ddof=1) / np.sqrt(values.size)), values.size)


def _energy(one: Array, two: Array) -> float:
    size = len(one)
    both = _distances(one, two).mean()
    own = sum(_distances(part, part).sum() / (size * (size - 1)) for part in (one, two))
    return float(2 * both - own)


def _distances(one: Array, two: Array) -> Array:
    found: Array = torch.cdist(torch.tensor(one), torch.tensor(two)).numpy()
    return found


def _transport(one: Array, two: Array) -> float:
    """Mean over columns of the squared W2 distance of two samples of one size: sorted against sorted."""
    return float(((np.sort(one, axis=0) - np.sort(two, axis=0)) ** 2).mean())


def _directions(dimension: int, count: int, seed: int) -> Array:
    """(d, count) unit vectors, orthogonal in groups of d, uniform on the sphere."""
    groups = -(-count // dimension)
    draws = torch.randn((groups, dimension, dimension), generator=seeded(seed, "directions"), dtype=torch.float64)
    turned = [np.linalg.qr(part)[0] for part in draws.numpy()]
    return np.concatenate(turned, axis=1)[:, :count]
