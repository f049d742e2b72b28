"""What the nodes of a grid do to the law it ends in: derivatives by every log sigma, in O(K B)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..basics.checks import Array
from .affine_steps import AffineSteps, prepare
from .base import Sampler

__all__ = ["NodeGradient", "node_gradient"]

_NUDGE = 1e-30


class NodeGradient(NamedTuple):
    """Terminal law of one grid, and its derivatives by the logarithms of the positive nodes.

    Args:
        std: (B,) standard deviations, data units.
        gain: (B,) absolute multiplier of the mean.
        std_by_node, gain_by_node: (B, P) derivatives by log sigma of the P positive nodes; the start's own
            variance is held.
    """

    std: Array
    gain: Array
    std_by_node: Array
    gain_by_node: Array


def node_gradient(sampler: Sampler, sigmas: Array, eigenvalues: Array, initial_variance: Array) -> NodeGradient:
    """Reverse accumulation through the steps, times what each step owes to the few nodes that it sees.

    Step k sees the nodes k - memory to k + 1 alone, so that nodes memory + 2 apart never meet in one step: one
    complex step of every (memory + 2)-th node together, memory + 2 times, holds all derivatives of all steps
    (docs/theory.md section 7.8). A complex step of the law for every node takes O(K^2 B).

    Args:
        sampler: any whose step k sees no other nodes.
        sigmas: (K+1,) grid.
        eigenvalues, initial_variance: (B,) squared data units.

    >>> from codesign_opt.samplers.members import Euler
    >>> found = node_gradient(Euler(), np.array([2.0, 1.0, 0.5]), np.array([1.0]), np.array([5.0]))
    >>> (found.std.round(4).tolist(), found.std_by_node.round(4).tolist())
    ([1.0062], [[-0.9391, 0.0, 0.3354]])
    """
    given = prepare(sigmas, eigenvalues, None, initial_variance)
    steps = sampler._closed_steps(given)
    start = given.initial_variance
    law = steps.law(start)
    seen = 2 + max(sampler.memory, int(steps.previous is not None))
    colours = np.arange(sigmas.size) % seen == np.arange(seen)[:, None]
    moved = sampler._closed_steps(prepare(sigmas * np.exp(1j * _NUDGE * colours), eigenvalues, None, initial_variance))
    # (seen, K): the node of each colour that step k sees; before the first node there is none
    last = np.arange(1, sigmas.size)
    node = last - (last - np.arange(seen)[:, None]) % seen
    by_steps = steps.gradient(start)
    std_by_node = _by_node(by_steps, moved, node)
    positive = int(np.count_nonzero(sigmas > 0))
    if steps.noise is None:
        gain_by_node = std_by_node / np.sqrt(start)[:, None]  # std = |amplitude| sqrt(start)
    else:
        gain_by_node = _by_node(AffineSteps(steps.current).gradient(np.ones_like(start)), moved, node)
    return NodeGradient(law.std, np.abs(law.amplitude), std_by_node[:, :positive], gain_by_node[:, :positive])


def _by_node(by_steps: tuple[Array, Array | None, Array | None], moved: AffineSteps, node: Array) -> Array:
    """(B, K+1) the chain rule, from adjoints (K, B) of the steps and their parts moved one colour at a time."""
    total = np.zeros((*node.shape, by_steps[0].shape[-1]))
    for adjoint, part in zip(by_steps, (moved.current, moved.previous, moved.noise), strict=True):
        if adjoint is not None and part is not None:
            total += adjoint * (part.imag / _NUDGE)
    result = np.zeros((total.shape[-1], node.shape[1] + 1))
    for nodes, rows in zip(node, total, strict=True):
        known = nodes >= 0
        np.add.at(result.T, nodes[known], rows[known])
    return result
