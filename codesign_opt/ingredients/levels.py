"""Levels: the solver's bins in log sigma. Numerics, not physics: refining them changes no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from ..basics.checks import Array, integer, noise_level, noise_levels, number, vector

__all__ = ["MOST_LEVELS", "Bins", "Levels"]

MOST_LEVELS = 20_000  # refining levels changes no answer long before, and some programs take their square
_COINCIDE = 1e-6  # in log sigma: nearer edges are one


@cache
def _gauss_legendre(points: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return nodes, weights


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins in log sigma that need not be adjacent: (N,) lower and upper edges."""

    low: Array
    high: Array

    def __len__(self) -> int:
        return self.low.size

    @cached_property
    def sigma(self) -> Array:
        """(N,) geometric mean of each bin's edges."""
        return np.sqrt(self.high * self.low)

    @cached_property
    def log_width(self) -> Array:
        """(N,) extent in log sigma."""
        return np.log(self.high) - np.log(self.low)

    def average(self, function: Callable[[Array], Array], points: int = 6) -> Array:
        """Mean of `function(sigma)` over each bin; see `Levels.average`."""
        return _average(self, function, points)


@dataclass(frozen=True, eq=False)
class Levels:
    """Adjacent bins in log sigma, from the lowest noise level to the highest.

    A level's representative `sigma` is the geometric mean of its edges, `width` its extent in
    sigma and `log_width` its extent in log sigma (docs/theory.md section 1).

    Args:
        edges: (L+1,) strictly ascending positive noise levels, data units.

    Raises:
        ValueError: edges is not finite, positive, strictly ascending, of at least 2 entries.

    >>> Levels.log_uniform(0.01, 100.0, 4).sigma.round(4).tolist()
    [0.0316, 0.3162, 3.1623, 31.6228]
    """

    edges: Array

    def __post_init__(self) -> None:
        edges = vector(self.edges, "Levels.edges", minimum_length=2, positive=True, ascending=True)
        object.__setattr__(self, "edges", edges)

    @classmethod
    def log_uniform(
        cls, sigma_min: float, sigma_max: float, number_of_levels: int, *, stopping_sigma: float | None = None
    ) -> Levels:
        """Equal log widths from `sigma_min` to `sigma_max`; the bin that holds `stopping_sigma` is cut.

        The edges do not move with the stopping point, so that the error is a continuous function
        of it (docs/theory.md section 7, outer loop).
        """
        low = noise_level(sigma_min, "Levels.sigma_min")
        high = noise_level(sigma_max, "Levels.sigma_max")
        count = integer(number_of_levels, "levels", minimum=1, maximum=MOST_LEVELS)
        if not low < high:
            raise ValueError(f"Levels.sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
        edges = np.exp(np.linspace(np.log(low), np.log(high), count + 1))
        edges[0], edges[-1] = low, high
        if stopping_sigma is None:
            return cls(edges)
        cut = noise_level(stopping_sigma, "stopping_sigma")
        if not low * (1 - 1e-12) <= cut < high:
            raise ValueError(f"stopping_sigma is {cut:g}; it must lie in [{low:g}, {high:g}).")
        kept = edges[edges > cut * (1 + 1e-9)]
        return cls(np.concatenate([[cut], kept]))

    @classmethod
    def of_steps(cls, sigmas: Array, width: float, most: int) -> Levels:
        """Levels that no step of a grid straddles: every step cut into equal parts in log sigma.

        What a step asks of its examples is one number, so that a level across two steps would serve neither well.

        Args:
            sigmas: (K+1,) descending grid; a last zero does not count.
            width: largest extent of a level in log sigma.
            most: number of nodes from which on neighbouring steps share a level.

        >>> Levels.of_steps(np.array([8.0, 2.0, 1.0, 0.0]), 0.7, 100).edges.tolist()
        [1.0, 2.0, 4.0, 8.0]
        """
        nodes = sigmas[sigmas > 0][::-1]
        logs = np.log(nodes)
        kept = np.arange(0, nodes.size, max(1, -(-nodes.size // most)))
        # nodes that all but coincide would make a level without extent
        kept = kept[np.append(True, np.diff(logs[kept]) > _COINCIDE)]
        kept = np.append(kept[logs[-1] - logs[kept] > _COINCIDE], nodes.size - 1)
        parts = np.maximum(1, np.ceil(np.diff(logs[kept]) / width * (1 - _COINCIDE)).astype(np.int64))
        at = np.concatenate([[0.0], np.cumsum(np.repeat(1.0 / parts, parts))])
        edges = np.exp(np.interp(at, np.arange(kept.size), logs[kept]))
        edges[np.concatenate([[0], np.cumsum(parts)])] = nodes[kept]
        return cls(edges)

    @classmethod
    def around(cls, sigma: Array) -> Levels:
        """Bins around given ascending noise levels, with edges half-way between them in log sigma."""
        centre = vector(noise_levels(sigma, "sigma"), "sigma", ascending=True)
        if centre.size == 1:
            return cls(centre[0] * np.exp([-0.5, 0.5]))
        middle = np.sqrt(centre[1:] * centre[:-1])
        return cls(np.concatenate([[centre[0] ** 2 / middle[0]], middle, [centre[-1] ** 2 / middle[-1]]]))

    def __len__(self) -> int:
        return self.edges.size - 1

    def __repr__(self) -> str:
        return f"Levels({len(self)} bins, sigma {self.edges[0]:.4g} to {self.edges[-1]:.4g})"

    @cached_property
    def sigma(self) -> Array:
        """(L,) geometric mean of each level's edges."""
        return np.sqrt(self.edges[1:] * self.edges[:-1])

    @cached_property
    def width(self) -> Array:
        """(L,) extent in sigma."""
        return np.diff(self.edges)

    @cached_property
    def log_width(self) -> Array:
        """(L,) extent in log sigma."""
        return np.diff(np.log(self.edges))

    def average(self, function: Callable[[Array], Array], points: int = 6) -> Array:
        """Mean of `function(sigma)` over each level in log sigma, by Gauss-Legendre quadrature.

        `function` maps (N,) noise levels to (..., N) values; the result is (..., L).
        """
        return _average(self, function, points)

    def overlap(self, low: float, high: float) -> Array:
        """(L,) extent in log sigma that each level shares with the interval [low, high]."""
        least, most = (number(value, f"Levels.overlap: {name}", positive=True)
                       for value, name in ((low, "low"), (high, "high")))  # fmt: skip
        lower = np.maximum(np.log(self.edges[:-1]), np.log(least))
        upper = np.minimum(np.log(self.edges[1:]), np.log(most))
        return np.maximum(upper - lower, 0.0)

    def density_of_grid(self, sigmas: Array) -> Array:
        """(L,) number of steps of a descending positive grid that fall on each level (fractions count)."""
        logs = np.log(sigmas[::-1])
        count = np.interp(np.log(self.edges), logs, np.arange(logs.size, dtype=np.float64))
        return np.diff(count)


def _average(bins: Bins | Levels, function: Callable[[Array], Array], points: int) -> Array:
    nodes, weights = _gauss_legendre(points)
    sigma = np.exp(np.log(bins.sigma)[:, None] + 0.5 * bins.log_width[:, None] * nodes)
    values = np.asarray(function(sigma.ravel()), dtype=np.float64)
    values = np.broadcast_to(values, (*values.shape[:-1], sigma.size)) if values.ndim else values
    if values.ndim == 0:
        return np.full(len(bins), float(values))
    return values.reshape(*values.shape[:-1], len(bins), points) @ (weights / 2)
