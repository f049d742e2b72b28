"""How far the fine solution's outputs are from examples of the data: energy distance and Gaussian W2 in bands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ..basics.checks import Array
from ..ingredients.network_floor import NetworkFloor

__all__ = ["fine_to_data"]

_GROUPS = 8  # of both sets, for the jackknife


def fine_to_data(samples: torch.Tensor, examples: torch.Tensor) -> NetworkFloor | None:
    """The floor of a network, from outputs of its fine solution and examples of the data; None for too few of them.

    Every second example gives the principal directions, the others means and variances in them, in bands of 1, 1, 2,
    4, ... directions: sum over bands n_b (sqrt(s_b) - sqrt(v_b))^2 + |mean - mean|^2. The energy distance is between
    all examples and all outputs. Bias and standard errors of both are the jackknife's over groups of outputs and of
    examples (docs/theory.md section 3.5).

    Args:
        samples, examples: (N, *shape) and (M, *shape).

    >>> x = torch.randn((600, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> found = fine_to_data(1.5 * x[:200], x[200:])
    >>> abs(found.gaussian - 3 * 0.5**2) < 4 * found.gaussian_standard_error
    True
    """
    one, two = (part.detach().to("cpu", torch.float64).flatten(1).numpy() for part in (samples, examples))
    if min(len(one), len(two) // 2) < 2 * _GROUPS:
        return None
    turned = _Bands.of(two[::2])
    outputs, held = turned.moments(one), turned.moments(two[1::2])
    gaussian = _jackknifed(lambda i, j: turned.distance(outputs.without(i), held.without(j)))
    pairs = _Pairs.of(one, two)
    energy = _jackknifed(pairs.energy)
    return NetworkFloor(*gaussian, *energy, samples=len(one), examples=len(two), bands=turned.edges.size - 1)


def _jackknifed(value: Callable[[int | None, int | None], float]) -> tuple[float, float]:
    """Value without bias of the first order, and its standard error; value(i, j) leaves a group of each set out."""
    whole, bias, variance = value(None, None), 0.0, 0.0
    for side in range(2):
        left = np.array([value(*((g, None) if side == 0 else (None, g))) for g in range(_GROUPS)])
        bias += (_GROUPS - 1) * float(left.mean() - whole)
        variance += (_GROUPS - 1) * float(left.var())
    return whole - bias, variance**0.5


class _Moments(NamedTuple):
    """Of groups: (G,) sizes, (G, k) sums and sums of squares in the principal directions, (G,) squared norms."""

    size: Array
    first: Array
    second: Array
    norms: Array

    def without(self, group: int | None) -> _Moments:
        """All groups but one as a single group."""
        keep = np.arange(self.size.size) != (-1 if group is None else group)
        return _Moments(*(np.asarray(part[keep].sum(axis=0)) for part in self))


class _Bands(NamedTuple):
    """The mean, (d, k) principal directions of examples, and the edges of bands of them; the rest is a last band."""

    centre: Array
    axes: Array
    edges: Any
    dimension: int

    @classmethod
    def of(cls, examples: Array) -> _Bands:
        centre = examples.mean(axis=0)
        axes = np.linalg.svd(examples - centre, full_matrices=False)[2].T
        count = min(axes.shape[1], len(examples) - 1)
        edges = np.unique(np.minimum(np.r_[0, 2 ** np.arange(int(np.ceil(np.log2(count))) + 1)], count))
        return cls(centre, axes[:, :count], edges, examples.shape[1])

    def moments(self, rows: Array) -> _Moments:
        away = rows - self.centre
        turned, norms = away @ self.axes, (away**2).sum(axis=1)
        groups = [np.arange(g, len(rows), _GROUPS) for g in range(_GROUPS)]
        sums = [(len(g), turned[g].sum(axis=0), (turned[g] ** 2).sum(axis=0), norms[g].sum()) for g in groups]
        return _Moments(*(np.array(part, dtype=np.float64) for part in zip(*sums, strict=True)))

    def distance(self, one: _Moments, two: _Moments) -> float:
        """sum over bands n_b (sqrt(s_b) - sqrt(v_b))^2 and the squared distance of the means."""
        means = [part.first / part.size for part in (one, two)]
        total = float(np.sum((means[0] - means[1]) ** 2))
        sides = [self._variances(part, mean) for part, mean in zip((one, two), means, strict=True)]
        counts = np.append(np.diff(self.edges), self.dimension - self.edges[-1])
        roots = [np.sqrt(np.maximum(side, 0.0) / np.maximum(counts, 1)) for side in sides]
        return total + float(counts @ (roots[0] - roots[1]) ** 2)

    def _variances(self, part: _Moments, mean: Array) -> Array:
        """(bands,) summed variance in each band, the last what lies outside of all directions."""
        scale = float(part.size / (part.size - 1))
        inside = np.add.reduceat(scale * (part.second / part.size - mean**2), self.edges[:-1])
        whole = scale * float(part.norms / part.size - mean @ mean)
        return np.append(inside, max(whole - float(inside.sum()), 0.0))


class _Pairs(NamedTuple):
    """Sums of distances between groups, (G, G) each, and (G,) sizes of both."""

    both: Array
    own: Array
    other: Array
    sizes: tuple[Array, Array]

    @classmethod
    def of(cls, one: Array, two: Array) -> _Pairs:
        parts = [[torch.as_tensor(rows[g::_GROUPS].copy()) for g in range(_GROUPS)] for rows in (one, two)]

        def sums(left: list[torch.Tensor], right: list[torch.Tensor]) -> Array:
            return np.array([[float(torch.cdist(a, b).sum()) for b in right] for a in left])

        sizes = tuple(np.array([len(part) for part in side], dtype=np.float64) for side in parts)
        return cls(sums(*parts), sums(parts[0], parts[0]), sums(parts[1], parts[1]), (sizes[0], sizes[1]))

    def energy(self, one: int | None, two: int | None) -> float:
        """2 E|X - Y| - E|X - X'| - E|Y - Y'| without a group of each, pairs of one with itself left out."""
        keep = [np.arange(_GROUPS) != (-1 if left is None else left) for left in (one, two)]
        n, m = (float(size[kept].sum()) for size, kept in zip(self.sizes, keep, strict=True))
        both = self.both[np.ix_(*keep)].sum() / (n * m)
        own = self.own[np.ix_(keep[0], keep[0])].sum() / (n * (n - 1))
        other = self.other[np.ix_(keep[1], keep[1])].sum() / (m * (m - 1))
        return float(2 * both - own - other)
