"""What the nodes of a grid do to the law it ends in: derivatives by every log sigma, in O(K B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array
from ..basics.inheritance import stale
from .affine_steps import AffineSteps, Inputs, Numbers, Parts, StepGradient, StepSlopes, with_last
from .base import Sampler

__all__ = ["NodeGradient", "node_gradient"]

_NUDGE = 1e-30


class NodeGradient(NamedTuple):
    """Terminal law of grids, and its derivatives by the logarithms of the positive nodes.

    Args:
        std: (..., B) standard deviations, data units.
        gain: (..., B) absolute multiplier of the mean.
        std_by_node: (..., B, P) derivatives by log sigma of the P positive nodes; the start's own variance is held.
        gain_by_node: the same of the gain; None where it is not asked for.
    """

    std: Array
    gain: Array
    std_by_node: Array
    gain_by_node: Array | None

    def of_bands(self, bands: slice) -> NodeGradient:
        """That of some of the bands."""
        gain = None if self.gain_by_node is None else self.gain_by_node[..., bands, :]
        return NodeGradient(self.std[..., bands], self.gain[..., bands], self.std_by_node[..., bands, :], gain)


def node_gradient(
    sampler: Sampler,
    sigmas: Array,
    eigenvalues: Array,
    initial_variance: Array,
    offset: Array | None = None,
    *,
    gain: bool = True,
) -> NodeGradient:
    """Reverse accumulation through the steps, times what each step owes to the few nodes that it sees.

    Samplers state what a step owes to its nodes. For others: step k sees the nodes k - m to k + 1 alone, m the
    sampler's memory, so that nodes m + 2 apart never meet in one step: one complex step of every (m + 2)-th node
    together, m + 2 times, holds all derivatives of all steps (docs/theory.md section 7.8). A complex step of the law
    for every node takes O(K^2 B).

    Args:
        sampler: any whose step k sees no other nodes.
        sigmas: (..., K+1) grids, all with or all without a last zero.
        eigenvalues: (B,) squared data units; not checked, since descents ask often.
        initial_variance: (..., B) likewise.
        offset: (..., K+1, B) what the denoiser's weights are off by, held while the nodes move; none unless given.
        gain: whether the derivatives of the mean's multiplier are asked for.

    >>> from codesign_opt.samplers.members import Euler
    >>> found = node_gradient(Euler(), np.array([2.0, 1.0, 0.5]), np.array([1.0]), np.array([5.0]))
    >>> (found.std.round(4).tolist(), found.std_by_node.round(4).tolist())
    ([1.0062], [[-0.9391, 0.0, 0.3354]])
    """
    grid, lam = np.asarray(sigmas, dtype=np.float64), np.asarray(eigenvalues, dtype=np.float64)
    known = _stated(sampler, grid, lam, initial_variance, offset)
    steps, by_nodes = _by_colours(sampler, grid, lam, initial_variance, offset) if known is None else known
    law, by_steps = steps.law_and_gradient(initial_variance)
    std_by_node = by_nodes(by_steps)
    positive = grid.shape[-1] - int(grid.item(-1) <= 0)
    gain_by_node = None
    if gain and steps.noise is None:
        root = np.sqrt(initial_variance)[..., None]
        gain_by_node = std_by_node[..., :positive] / root  # std = |amplitude| sqrt(start)
    elif gain:
        of_mean = AffineSteps(steps.current).gradient(np.ones_like(initial_variance))
        gain_by_node = by_nodes(of_mean)[..., :positive]
    return NodeGradient(law.std, np.abs(law.amplitude), std_by_node[..., :positive], gain_by_node)


_ByNodes = Callable[[StepGradient], Array]
"""(..., B, K+1) the chain rule, from adjoints (..., K, B) of steps."""


def _stated(
    sampler: Sampler, grid: Array, lam: Array, initial_variance: Array, offset: Array | None
) -> tuple[AffineSteps, _ByNodes] | None:
    """The steps, and their derivatives as the sampler states them; None where it states none."""
    if not _states_slopes(type(sampler)):
        return None
    square = grid[..., None] ** 2
    variance = lam + square
    variance = _nonzero(variance) if lam.min() <= 0 else variance
    weights = lam / variance
    slopes = -2 * weights * (square / variance)
    given = Inputs(grid[..., None], weights if offset is None else weights + offset, initial_variance)
    found = sampler.step_slopes(given.positive, given.weights, slopes)
    if found is None:
        return None
    to_zero = given.to_zero
    if to_zero.any():  # the last step is the denoiser at the node that opens it
        here = to_zero[..., None]
        kept = (slopes[..., -2, :], 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
        found = StepSlopes(*(_closed(parts, here, last) for parts, last in zip(found, kept, strict=True)))  # type: ignore[arg-type]
    return sampler._closed_steps(given), partial(_chained, found)


@cache
def _states_slopes(kind: type[Sampler]) -> bool:
    """Whether the derivatives are those of the steps: not from a class behind the one that wrote the steps."""
    return not stale(kind, ("affine_steps",), ("step_slopes",))


def _closed(parts: Parts | None, here: NDArray[np.bool_], last: Parts) -> Parts | None:
    if parts is None:
        return None
    current, previous, noise = (
        None if part is None else with_last(part, here, value) for part, value in zip(parts, last, strict=True)
    )
    return current, previous, noise


def _chained(slopes: StepSlopes, by_steps: StepGradient) -> Array:
    """The derivatives of every step by its nodes, summed at these."""
    opening, closing, before = (None if parts is None else _weighed(by_steps, parts) for parts in slopes)
    assert opening is not None
    assert closing is not None
    *rest, count, bands = opening.shape
    result = np.zeros((*rest, count + 1, bands))
    result[..., :-1, :] = opening
    result[..., 1:, :] += closing
    if before is not None:
        result[..., :-2, :] += before[..., 1:, :]
    return result.swapaxes(-2, -1)


def _weighed(by_steps: StepGradient, parts: Parts) -> Array:
    before = by_steps.by_earlier[0] if by_steps.by_earlier else None
    pairs = zip((by_steps.by_current, before, by_steps.by_noise), parts, strict=True)
    terms = [adjoint * part for adjoint, part in pairs if adjoint is not None and part is not None]
    return np.asarray(sum(terms[1:], terms[0]))


def _by_colours(
    sampler: Sampler, grid: Array, lam: Array, initial_variance: Array, offset: Array | None
) -> tuple[AffineSteps, _ByNodes]:
    """The steps, and their derivatives from one complex step of every (m + 2)-th node together, m + 2 times."""
    seen, size = 2 + sampler.memory, grid.shape[-1]
    colours = np.arange(size) % seen == np.arange(seen)[:, None]
    colours = colours.reshape(seen, *(1,) * (grid.ndim - 1), size)
    nodes = (grid * (1 + 1j * _NUDGE * colours))[..., None]
    variance = lam + nodes**2
    weights = lam / (_nonzero(variance) if lam.min() <= 0 else variance)
    if offset is not None:
        weights += offset
    moved = sampler._closed_steps(Inputs(nodes, weights, initial_variance))
    noise = None if moved.noise is None else moved.noise[0].real
    steps = AffineSteps(moved.current[0].real, [rows[0].real for rows in moved.earlier], noise)
    return steps, lambda by_steps: _by_node(by_steps, moved)


def _parts(current: Numbers, earlier: Sequence[Numbers], noise: Numbers | None) -> list[Numbers]:
    return [current, *earlier] if noise is None else [current, *earlier, noise]


def _nonzero(variance: Numbers) -> Numbers:
    return np.where(variance == 0, 1.0, variance)


def _by_node(by_steps: StepGradient, moved: AffineSteps) -> Array:
    """(..., B, K+1) the chain rule, from adjoints (..., K, B) of steps and their parts moved one colour at a time."""
    held = moved.noise if by_steps.by_noise is not None else None
    pairs = zip(_parts(*by_steps), _parts(moved.current, moved.earlier, held), strict=True)
    terms = [adjoint * part.imag for adjoint, part in pairs]
    total = np.moveaxis(sum(terms[1:], terms[0]), -2, 1)  # (colours, K, ..., B)
    seen, count = total.shape[:2]
    result = np.zeros((count + 1, *total.shape[2:]))
    step = np.arange(count)
    for back in range(min(seen, count + 1)):  # step k sees the node k + 1 - back in the colour of that node
        first = max(0, back - 1)
        rows = total[(step + 1 - back) % seen, step]
        result[first + 1 - back : count + 1 - back] += rows[first:]
    result /= _NUDGE
    return np.moveaxis(result, 0, -1)
