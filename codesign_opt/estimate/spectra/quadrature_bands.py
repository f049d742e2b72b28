"""Bands of a spectrum from the quadratures of random probes, with exact counts and exact trace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t

from ...basics.checks import Array
from .lanczos import Measures

__all__ = ["Deflated", "band_edges", "band_means", "jackknife", "null_directions", "probe_masses"]

_LOW_SHARE = 0.999  # the last directions may be decades below all others: bins down to them would be too wide
_PIECES = 8  # an edge of a band cuts a spread mass to an eighth of it
_EMPTY = 1e-12  # of all mass: the weight of a node that rounding made
_NULL = 1e-12  # of the largest: no variance
_UNEVEN = 1.5  # beyond, the wider side of a node is a gap of the spectrum, without directions
_SCATTER = 1000.0  # probes differ by 1e-3 to 0.3 of a gap in a continuous part, and agree at an eigenvalue


@dataclass(frozen=True, eq=False)
class Deflated:
    """A spectrum in parts: eigenvalues `top` (k,) known one by one, and per probe the rest.

    Attributes:
        top: (k,) eigenvalues.
        nodes, masses: (p, m) quadratures of the rest; every row of masses sums to the number of other
            directions of positive variance and has the exact rest of the trace.
        zeros: number of directions without variance, known from the number of examples.
    """

    top: Array
    nodes: Array
    masses: Array
    zeros: int

    @property
    def dimension(self) -> int:
        return self.top.size + round(float(self.masses[0].sum())) + self.zeros

    def sorted(self, probes: NDArray[np.intp] | None = None) -> tuple[Array, Array]:
        """All values, descending, with masses that sum to d; pooled over the chosen probes."""
        nodes = self.nodes if probes is None else self.nodes[probes]
        masses = self.masses if probes is None else self.masses[probes]
        values = np.concatenate([self.top, nodes.ravel(), [0.0]])
        weights = np.concatenate([np.ones(self.top.size), masses.ravel() / len(nodes), [float(self.zeros)]])
        order = np.argsort(-values, kind="stable")  # stable: equal values keep their order on every machine
        return values[order], weights[order]


def probe_masses(
    measures: Measures, probes: int, directions: int, zeros: int, trace: float, *, smooth: bool = True
) -> tuple[Array, Array]:
    """Nodes and masses of the first `probes` measures, `directions` positive ones and the exact `trace`.

    Random probes get the share of every eigenvalue with noise, but three numbers are known: the number of
    directions, how many have no variance (fewer examples than dimensions), and the trace. The zeros are
    taken from the smallest nodes; the masses left are tilted by exp(b node), the change of least relative
    entropy that meets the trace: a control variate for every probe. `smooth` spreads the masses, see
    `spread`.
    """
    nodes, masses = measures.nodes[:probes].copy(), measures.weights[:probes] * (directions + zeros)
    for i in range(probes):
        masses[i] = _without_zeros(nodes[i], masses[i], zeros)
        masses[i] *= directions / masses[i].sum()
    if smooth:
        nodes, masses = spread(nodes, masses)
    tilted = [_tilted(own, mass, trace) for own, mass in zip(nodes, masses, strict=True)]
    return np.stack([own for own, _ in tilted]), np.stack([mass for _, mass in tilted])


def null_directions(measures: Measures, probes: int, directions: int) -> int:
    """How many of the directions have no variance, as far as Lanczos found an eigenvalue 0."""
    nodes, weights = measures.nodes[:probes], measures.weights[:probes]
    null = nodes <= _NULL * nodes.max()
    # at least one direction varies, or there would be no trace to share out
    return min(round(directions * float(weights[null].sum()) / probes), directions - 1)


def _without_zeros(nodes: Array, masses: Array, zeros: int) -> Array:
    """Take `zeros` directions out: what sits at 0 if Lanczos found them there, else from below."""
    if zeros == 0:
        return masses
    null = nodes <= _NULL * nodes.max()
    # with few steps the eigenvalue 0 has no node of its own, and its mass sits in the lowest nodes instead
    if masses[null].sum() > zeros / 2:
        return np.where(null, 0.0, masses)
    order = np.argsort(nodes)
    result = np.empty_like(masses)
    result[order] = np.diff(np.maximum(np.cumsum(masses[order]) - zeros, 0.0), prepend=0.0)
    return result


def _tilted(nodes: Array, masses: Array, trace: float) -> tuple[Array, Array]:
    count, scale = masses.sum(), float(nodes.max())
    target = trace / count
    used = masses > 0
    low, high = nodes[used].min(), nodes[used].max()
    if not low < target < high:  # one eigenvalue, or a mean outside the nodes by rounding
        mean = float(masses @ nodes)
        return (nodes * (trace / mean), masses) if mean > 0 else (np.full_like(nodes, target), masses)
    x = nodes / scale  # slopes without units, so that the search starts at 1 for any data

    def weights(slope: float) -> Array:
        exponent = np.where(used, slope * x, -np.inf)
        raw = masses * np.exp(exponent - exponent.max())  # the largest factor is 1: nothing overflows
        return np.asarray(raw * (count / raw.sum()))

    def excess(slope: float) -> float:
        return float(weights(slope) @ nodes / count - target)

    # the mean grows with the slope, from the lowest node to the highest: a bracket is found by doubling
    reach = 1.0
    while excess(-reach) > 0 or excess(reach) < 0:
        reach *= 2.0
    return nodes, weights(brentq(excess, -reach, reach, xtol=1e-14, rtol=1e-14))


def spread(nodes: Array, masses: Array) -> tuple[Array, Array]:
    """Nodes and masses with every mass of a continuous part spread evenly to half-way to its neighbours.

    A node of a continuous spectrum stands for its surroundings, a node at an eigenvalue for that alone.
    Other probes tell them apart: they find an eigenvalue at the same place and put other nodes elsewhere.
    The wider side is at most 1.5 times the narrower one, so that nothing is spread over a gap of the
    spectrum. The total stays; the mean moves a little.
    """
    offsets = (2 * np.arange(_PIECES) + 1) / _PIECES - 1  # in (-1, 1)
    finer = []
    for i, (own, mass) in enumerate(zip(nodes, masses, strict=True)):
        used = np.flatnonzero(mass > _EMPTY * mass.sum())  # round-off nodes are no neighbours
        used = used[np.argsort(own[used])]
        low, high = np.zeros_like(own), np.zeros_like(own)
        if used.size > 1:
            place = own[used]
            # the median over the other probes: one of them may have a node here by chance
            scatter = np.median([_distance(place, other) for k, other in enumerate(nodes) if k != i], axis=0)
            low[used], high[used] = _sides(place, scatter)
        width = np.where(offsets < 0, low[:, None], high[:, None])
        finer.append((own[:, None] + width * offsets).ravel())
    return np.stack(finer), np.repeat(masses / _PIECES, _PIECES, axis=1)


def _sides(place: Array, scatter: Array) -> tuple[Array, Array]:
    """How far the mass of each ascending node reaches down and up."""
    # eigenvalues are not negative: below the lowest node there is no more room than down to 0
    gaps = np.diff(place)
    left, right = np.append(np.minimum(gaps[0], place[0]), gaps), np.append(gaps, gaps[-1])
    narrow = np.minimum(left, right)
    share = np.minimum(1.0, _SCATTER * scatter / np.maximum(narrow, np.finfo(float).tiny)) / 2
    return share * np.minimum(left, _UNEVEN * narrow), share * np.minimum(right, _UNEVEN * narrow)


def _distance(places: Array, nodes: Array) -> Array:
    """Distance from each place to the nearest node."""
    ordered = np.sort(nodes)
    at = np.clip(np.searchsorted(ordered, places), 1, ordered.size - 1) if ordered.size > 1 else None
    if at is None:
        return np.abs(places - ordered[0])
    return np.minimum(np.abs(places - ordered[at - 1]), np.abs(places - ordered[at]))


def band_edges(spectrum: Deflated, bands: int, *, single: int) -> NDArray[np.intp]:
    """Numbers of directions 0 = e_0 < e_1 < ... < e_B = d at which bands begin and end.

    The first `single` directions are bands by themselves; the others fall into `bands` bins of equal
    width in log lambda down to the value that 99.9 % of them exceed, the directions of variance 0 into
    one more.
    """
    values, weights = spectrum.sorted()
    positive = round(float(weights[values > _NULL * values[0]].sum()))
    ends = np.cumsum(weights)
    last = values.size - 1
    # the searches may run past the end by the rounding of the cumulative mass
    low = values[min(int(np.searchsorted(ends, single + _LOW_SHARE * (positive - single))), last)]
    high = values[min(int(np.searchsorted(ends, single, side="right")), last)]
    cuts = np.geomspace(high, low, bands + 1)[1:-1] if high > low > 0 else np.empty(0)
    inner = np.round([weights[values > cut].sum() for cut in cuts])
    edges = np.concatenate([np.arange(single + 1), np.clip(inner, single, positive), [positive, spectrum.dimension]])
    return np.unique(edges).astype(np.intp)  # bins without a direction vanish


def band_means(spectrum: Deflated, edges: NDArray[np.intp], probes: NDArray[np.intp] | None = None) -> Array:
    """(B,) mean of the descending spectrum between edges: the trace of all bands is exact."""
    values, weights = spectrum.sorted(probes)
    ends = np.append(0.0, np.cumsum(weights))
    sums = np.append(0.0, np.cumsum(values * weights))
    # linear between the ends: an edge inside a node's mass takes its share of it, and shares add up to the trace
    at = np.interp(edges, ends * (spectrum.dimension / ends[-1]), sums)
    return np.maximum(np.diff(at), 0.0) / np.diff(edges)


def jackknife(spectrum: Deflated, edges: NDArray[np.intp]) -> Array:
    """(B,) standard error of `band_means` from leaving out one probe at a time.

    It is widened by the ratio of Student's to the normal 97.5 % quantile, so that +- 1.96 of it covers
    95 % with few probes too.
    """
    probes = np.arange(len(spectrum.nodes))
    left = np.stack([band_means(spectrum, edges, np.delete(probes, i)) for i in probes])
    spread = ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    widening = float(t.ppf(0.975, probes.size - 1)) / 1.96
    return np.asarray(widening * np.sqrt(spread * (probes.size - 1) / probes.size))
