"""Stochastic Lanczos quadrature: spectral measures of vectors by products with the covariance alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...basics.checks import Array
from ..draws.streams import rademacher
from .passes import Passes
from .top_eigen import FirstPass, product

__all__ = ["Measures", "probe_block", "spectral_measures"]

_FIRST_NUMBER = 1000  # products of the block iteration before have numbers below
_BREAKDOWN = 1e-10  # of the mean eigenvalue: a residual below this is the rounding of a product over the data
_STORED = 1 << 26  # numbers kept for reorthogonalisation, 512 MiB


@dataclass(frozen=True, eq=False)
class Measures:
    """Gauss quadratures of start vectors: nodes (p, m) >= 0 and weights (p, m) that sum to 1 per vector.

    For a start vector q and any polynomial f of degree below 2m, q^T f(covariance) q = sum_j w_j f(node_j).
    """

    nodes: Array
    weights: Array


def probe_block(begun: FirstPass, vectors: torch.Tensor, probes: int, *, seed: int) -> tuple[torch.Tensor, float]:
    """(d, probes [+ 1]) unit start vectors outside the span of `vectors`, and the data mean's power there.

    Random signs (Hutchinson probes), then the mean, whose measure says in which bands its power lies; the
    mean is left out when it has no component outside the span.
    """
    # signs rather than normal draws: every |q|^2 is d, so that the total mass has no noise of its own
    signs = torch.stack(
        [rademacher(seed, "probe", i, shape=(begun.mean.numel(),), like=begun.mean) for i in range(probes)], dim=1
    )
    block = torch.cat([signs, begun.mean[:, None]], dim=1)
    # twice: where most of a column lies in the span, the rounding of one projection is large against what is left
    block = _outside(_outside(block, vectors), vectors)
    norms = block.norm(dim=0)
    power = float(norms[-1] ** 2)
    # a mean in the span leaves rounding, and a unit vector made of rounding would be one more random probe
    if power <= 1e-24 * float(begun.mean @ begun.mean) or power == 0.0:
        return block[:, :-1] / norms[:-1], 0.0
    return block / norms, power


def spectral_measures(
    passes: Passes, begun: FirstPass, start: torch.Tensor, vectors: torch.Tensor, *, steps: int,
    reorthogonalize: bool | None = None,
) -> Measures:  # fmt: skip
    """Lanczos with all start vectors at once: one pass over the data per step, one recurrence per column.

    The covariance acts between projections off `vectors` (deflation). Without reorthogonalisation three
    (d, p) blocks are held, and converged nodes may come twice with weights that add up, which a
    quadrature does not mind; with it every earlier block is kept, (steps, d, p) numbers. Left out:
    reorthogonalise where that is at most 2^26 numbers.
    """
    if reorthogonalize is None:
        reorthogonalize = start.numel() * steps <= _STORED
    basis, alpha, beta = _resumed(passes, start, reorthogonalize)
    scale = begun.trace
    while len(alpha) < steps:
        image = _outside(product(passes, begun, basis[-1], _FIRST_NUMBER + len(alpha)), vectors)
        alpha.append((basis[-1] * image).sum(dim=0))
        # three terms: of a symmetric matrix a new block is orthogonal to all but the last two, up to rounding
        image -= alpha[-1] * basis[-1]
        if beta:
            image -= beta[-1] * basis[-2]
        for _ in range(2 if reorthogonalize else 0):  # twice is enough (Kahan and Parlett)
            for earlier in basis:
                image -= earlier * (earlier * image).sum(dim=0)
        # deflated directions come back as rounding and, having the largest eigenvalues, would grow at every step
        image = _outside(image, vectors)
        norm = image.norm(dim=0)
        # a column whose Krylov space is exhausted has its whole measure: it goes on as zeros of weight 0
        beta.append(torch.where(norm > _BREAKDOWN * scale / start.shape[0], norm, 0.0))
        following = torch.where(beta[-1] > 0, image / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)
        basis = [*(basis if reorthogonalize else basis[-1:]), following]
        _keep(passes, following, alpha, beta, reorthogonalize)
        if not bool((beta[-1] > 0).any()):
            break
    return _quadrature(torch.stack(alpha).cpu().numpy(), torch.stack(beta).cpu().numpy())


def _outside(block: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return block - vectors @ (vectors.T @ block)


def _item(step: int, reorthogonalize: bool) -> str:
    # the recurrence needs two blocks; the third place is written while these two are whole on disk
    return f"lanczos-{step if reorthogonalize else step % 3}"


def _keep(
    passes: Passes, block: torch.Tensor, alpha: list[torch.Tensor], beta: list[torch.Tensor], reorthogonalize: bool
) -> None:
    if passes.ledger.folder is not None:
        passes.ledger.put(
            _item(len(alpha), reorthogonalize), step=len(alpha), block=block.cpu().numpy(),
            alpha=torch.stack(alpha).cpu().numpy(), beta=torch.stack(beta).cpu().numpy(),
        )  # fmt: skip


def _resumed(
    passes: Passes, start: torch.Tensor, reorthogonalize: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Basis, alpha and beta of the latest step that can be gone on from."""
    basis, latest = {0: start}, None
    for number in range(1, 1 << 20) if reorthogonalize else (1, 2, 3):
        state = None if passes.ledger.folder is None else passes.ledger.get(_item(number, reorthogonalize))
        if state is None and reorthogonalize:
            break
        if state is not None:
            basis[int(state["step"])] = torch.as_tensor(state["block"]).to(start)
            latest = state if latest is None or state["step"] > latest["step"] else latest
    # the recurrence goes on from two blocks: a state whose predecessor is lost is of no use
    if latest is None or int(latest["step"]) - 1 not in basis:
        return [start], [], []
    last = int(latest["step"])
    kept = range(last + 1) if reorthogonalize else (last - 1, last)
    alpha, beta = (list(torch.as_tensor(latest[name]).to(start).unbind()) for name in ("alpha", "beta"))
    return [basis[i] for i in kept], alpha, beta


def _quadrature(alpha: Array, beta: Array) -> Measures:
    """Nodes and weights of the (p) tridiagonal matrices with diagonals alpha (m, p) and off-diagonals beta."""
    steps, columns = alpha.shape
    matrices = np.zeros((columns, steps, steps))
    i = np.arange(steps)
    matrices[:, i, i] = alpha.T
    matrices[:, i[1:], i[:-1]] = matrices[:, i[:-1], i[1:]] = beta[:-1].T
    # Golub and Welsch: eigenvalues are the nodes, squared first components of the eigenvectors the weights;
    # a covariance has no negative eigenvalues, so that a node below 0 is rounding
    nodes, vectors = np.linalg.eigh(matrices)
    return Measures(np.maximum(nodes, 0.0), vectors[:, 0, :] ** 2)
