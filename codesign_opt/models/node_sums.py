"""Score error of a whole grid: errors of nodes that one set of examples taught are added before they are squared.

Linear in the errors of the denoiser's weights, exact in how they go together (docs/theory.md section 6.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..ingredients.coupling import Coupling, PerLevel, PerStep, Transfer
from ..ingredients.levels import Levels
from .example_counts import ExampleCounts

__all__ = ["NodeTerms", "ScoreParts", "block_ends", "examples_that_count", "in_lengths", "score_parts"]

_OFFSETS = 16  # of the blocks, over which errors are averaged
_FINE = 256  # levels on which a varying correlation length is integrated


@dataclass(frozen=True, eq=False)
class NodeTerms:
    """What an error of the denoiser at each positive node of a grid does to the output, band by band.

    Args:
        sigmas: (P,) positive nodes, descending.
        sensitivity: (P, B) d std / d W, signed: all uses of a node's denoiser together.
        counts: (B,) directions of each band, times the metric's weights.
        reducible, floor: (P, B) variance A of the weight times examples, and what examples do not lower.
        lacking: (P, B) what the untrained denoiser's weight is off by; None without a prior.
        regressors: weights of one output, 1 for a diagonal denoiser.
        ends: whether the last node is that of a last evaluation.
        left: (P, B) signed, what a run has left of its start, one mistake of all nodes; None where none is known.
        curvature: (B,) what small errors count beside those of steps and stop, over `counts`; None where all are 1.
    """

    sigmas: Array
    sensitivity: Array
    counts: Array
    reducible: Array
    floor: Array
    lacking: Array | None
    regressors: int
    ends: bool
    left: Array | None = None
    curvature: Array | None = None

    @property
    def prior(self) -> Array:
        """(P,) examples m0 that the untrained denoiser is worth at each node; 0 without a prior."""
        if self.lacking is None:
            return np.zeros(self.sigmas.size)
        kernel = self.counts * self.sensitivity**2
        score, start = (kernel * self.reducible).sum(axis=1), (kernel * self.lacking**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            worth = np.where(start > 0, score / start, np.inf)
        return np.where(score > 0, np.minimum(worth, 1e18), 0.0)


@dataclass(frozen=True, eq=False)
class ScoreParts:
    """Squared error in the output that training leaves, and the examples behind it.

    Args:
        score, floor: of the steps: what examples lower, and what they do not.
        last: of the last evaluation alone.
        together: twice the product of the last evaluation's error and the steps', signed.
        examples: (P,) examples that teach each node, on average over where the blocks lie.
        by_band: (B,) score of the steps by band.
        shift: (J, P, B) mean error of the weights, what is not learned yet, for each way to cut the range.
    """

    score: float
    floor: float
    last: float
    together: float
    examples: Array
    by_band: Array
    shift: Array


def examples_that_count(examples: Array, prior: Array, regressors: int) -> tuple[Array, Array]:
    """q with E[1 / (G + m0)] = 1 / q of least squares on Gaussian inputs of second moment G, and dq / dm0.

    The root of q = m0 + m q / (q + p + 1): m - p - 1 without a prior, m0 without examples, m + m0 for many
    (docs/theory.md section 5.10).

    >>> examples_that_count(np.array([12.0, 0.0, 1e6]), np.array([0.0, 3.0, 3.0]), 1)[0].round(3).tolist()
    [10.0, 3.0, 1000001.0]
    """
    more = regressors + 1.0
    half = 0.5 * (examples + prior - more)
    root = np.sqrt(half**2 + prior * more)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(root > 0, 0.5 * (1 + (half + more) / root), 1.0)
    # far below 0 the sum cancels: the product of both roots is -m0 (p + 1)
    stable = prior * more / np.where(root - half > 0, root - half, 1.0)
    return np.where(half > 0, half + root, stable), slope


def score_parts(terms: NodeTerms, counts: ExampleCounts, coupling: Coupling) -> ScoreParts:
    """What training leaves in the output of a grid, to second order in the errors of the weights.

    Blocks of one correlation length, laid at every offset, have one error each: its two-sided correlation is that of
    the coupling. `PerLevel` has its own blocks, and under `PerStep` every node is alone. What is not learned yet is one
    mistake of all nodes and is told apart, as `shift`.
    """
    counts = _taught(counts, coupling, terms.sigmas)
    logs = np.log(terms.sigmas)
    if isinstance(coupling, PerStep):
        block, examples = np.arange(logs.size, dtype=np.float64)[None], _of_experts(terms, counts, coupling)[None]
    else:
        block, above = block_ends(coupling, counts, terms.sigmas)
        examples = counts.between(block, above)
    prior = terms.prior
    served, slope = examples_that_count(examples, prior, terms.regressors)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.where(served > 0, (1 - prior * slope / served) / served, np.inf)
        scatter = np.where(served > 0, (prior / served) ** 2 * (slope - 1), 0.0)
        unlearned = np.where(served > 0, prior / served, 0.0)
        variance = np.where(terms.reducible > 0, terms.reducible * noise[..., None], 0.0)
    shift = np.zeros((1, logs.size, terms.counts.size))
    if terms.lacking is not None:
        variance = variance + scatter[..., None] * terms.lacking**2
        shift = unlearned[..., None] * terms.lacking
    if terms.left is not None:
        shift = shift + terms.left
    with np.errstate(invalid="ignore"):  # an infinite variance at a node that the sampler does not use
        error = np.where(terms.sensitivity != 0, np.sqrt(np.maximum(variance, 0.0)) * terms.sensitivity, 0.0)
    stays = np.broadcast_to(np.sqrt(terms.floor) * terms.sensitivity, error.shape)
    sums, bands = _summed(terms, block, error, stays)
    return ScoreParts(sums[0], sums[1], sums[2], sums[3], examples.mean(axis=0), bands, shift)


def _summed(terms: NodeTerms, block: Array, error: Array, stays: Array) -> tuple[list[float], Array]:
    """Score, floor, last and together, and (B,) score by band, on average over (J, P) ways to cut the range."""
    ways, size = block.shape
    new = np.diff(block, axis=1, prepend=np.inf) != 0
    starts, n = np.flatnonzero(new.ravel()), terms.counts
    n = n if terms.curvature is None else n * terms.curvature
    used = (np.arange(size) < (size - 1 if terms.ends else size))[:, None]
    flat = [np.where(used, part, 0.0).reshape(ways * size, -1) for part in (error, stays)]
    sums = [np.add.reduceat(part, starts, axis=0) for part in flat]
    bands = n * (sums[0] ** 2).sum(axis=0) / ways
    own = together = 0.0
    if terms.ends:
        final = np.append(np.flatnonzero(starts % size == 0)[1:] - 1, starts.size - 1)  # block of each last node
        own = float((error[:, -1] ** 2 + stays[:, -1] ** 2).mean(axis=0) @ n)
        if np.isfinite(bands.sum() + own):  # a node without examples and without a prior has no bound
            both = error[:, -1] * sums[0][final] + stays[:, -1] * sums[1][final]
            together = 2 * float(both.mean(axis=0) @ n)
    return [float(bands.sum()), float((sums[1] ** 2).sum(axis=0) @ n) / ways, own, together], bands


def _of_experts(terms: NodeTerms, counts: ExampleCounts, coupling: PerStep) -> Array:
    """(P,) examples of each node's own expert: those of one correlation length at its step's density."""
    logs = np.log(terms.sigmas)
    length = coupling.lengths_at(terms.sigmas, float(terms.sigmas[-1]), float(terms.sigmas[0]))
    if terms.ends:  # the last evaluation's: one length above the stop
        low, high = np.append(logs[1:], logs[-1]), np.append(logs[:-1], logs[-1] + length[-1])
    else:
        low, high = np.append(logs[1:], logs[-1]), np.append(logs[:-1], logs[-2])
    return np.asarray(counts.between(low, high) * length / np.maximum(high - low, 1e-300))


def _taught(counts: ExampleCounts, coupling: Coupling, sigmas: Array) -> ExampleCounts:
    """Examples as they teach: neighbours, too, under `Transfer`."""
    if not isinstance(coupling, Transfer):
        return counts
    levels = Levels.log_uniform(float(sigmas[-1]), float(sigmas[0]), _FINE)
    pooling = coupling.pooling(levels)
    on = counts.on(levels)
    return ExampleCounts.of_levels(levels, on if pooling is None else pooling @ on)


def block_ends(
    coupling: Coupling, counts: ExampleCounts, sigmas: Array, shifts: Array | None = None
) -> tuple[Array, Array]:
    """(J, P) ends in log sigma of the block that each node lies in, one correlation length wide, for J offsets.

    Blocks cover the nodes, and examples up to one length beyond; what is left of a length at an end joins its
    neighbour where it is less than half of one.

    Args:
        coupling: `PerLevel` has blocks of its own, whatever the offsets.
        counts: the examples.
        sigmas: (P,) descending nodes.
        shifts: (J,) offsets in [0, 1) of a length; sixteen unless given.
    """
    logs = np.log(sigmas)
    if isinstance(coupling, PerLevel):
        edges = np.log(coupling.edges)
        block = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, edges.size - 2)[None]
        return edges[block], edges[block + 1]
    at, along = in_lengths(coupling, counts, sigmas)
    extent, where = float(along[-1]), np.interp(logs, at, along)
    shift = ((np.arange(_OFFSETS) + 0.5) / _OFFSETS if shifts is None else shifts)[:, None]
    low = shift + np.floor(where - shift)
    high = low + 1
    low, high = np.where(low > extent - 0.5, low - 1, low), np.where(high < 0.5, high + 1, high)
    low, high = np.where(low < 0.5, 0.0, low), np.where(high > extent - 0.5, extent, high)
    return np.interp(low, along, at), np.interp(high, along, at)


def in_lengths(coupling: Coupling, counts: ExampleCounts, sigmas: Array) -> tuple[Array, Array]:
    """Ascending log sigma over all that blocks cover, and the same in correlation lengths from its lower end."""
    low, high = float(np.log(sigmas[-1])), float(np.log(sigmas[0]))
    constant = coupling.constant_length
    if constant is None:
        fine = Levels.log_uniform(float(sigmas[-1]), float(sigmas[0]), _FINE)
        edges, lengths = np.log(fine.edges), coupling.lengths(fine)
    else:
        edges, lengths = np.array([low, high]), np.array([constant])
    first, last = counts.ends
    ends = min(low, max(low - lengths[0], first)), max(high, min(high + lengths[-1], last))
    at = np.concatenate([[ends[0]], edges, [ends[1]]])
    along = np.cumsum(np.concatenate([[0.0], np.diff(at) / np.concatenate([lengths[:1], lengths, lengths[-1:]])]))
    keep = np.concatenate([[True], np.diff(along) > 0])
    return at[keep], along[keep]
