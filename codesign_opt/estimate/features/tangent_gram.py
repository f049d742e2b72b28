"""Gram matrix of the tangent kernel over examples and noise levels: heat maps, eigenvalues, effective rank.

Where `tangent_spectrum` looks at J^T J in directions of the parameters, this looks at J J^T between examples, which
shows how training on one moves another: equations 2 and 3 and appendix F.4 of arXiv:2605.10790.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, integer, noise_levels, vector
from ...basics.fields import holds
from ...ingredients.parameterization import target_gain
from ..denoisers.denoiser import Denoise
from ..draws.streams import normal, rademacher
from ..training_errors.per_sample import PerSampleGradients
from .ntk import entropy_rank
from .representation import _first, _trainable

__all__ = ["TangentGram", "tangent_gram"]


@dataclass(frozen=True, eq=False)
class TangentGram:
    """K = tr J(x_i, sigma) J(x_j, sigma')^T / d of the denoiser, over N examples at each of L noise levels.

    Attributes:
        sigma: (L,) noise levels.
        gram: (L, N, L, N), squared data units per unit squared of the parameters.
        exact: whether every output was used; otherwise random probes, right on average.
    """

    sigma: Array
    gram: Array
    exact: bool

    def __post_init__(self) -> None:
        axes = "level example level example"
        holds(self, ("sigma", "gram"), sigma="level", gram=axes, exact=bool)

    def eigenvalues(self, target: str | None = None, *, sigma_data: float = 0.5) -> Array:
        """(L, N) descending eigenvalues of each level's own Gram matrix over N: rates at which residual modes descend.

        Args:
            target: the prediction target whose network output is meant (`target_gain` squared); the denoiser unless
                given.
        """
        own = np.stack([self.gram[i, :, i] for i in range(self.sigma.size)])
        # over N, the mean loss over the examples descends at these rates; below 0 is rounding of a Gram matrix
        values = np.maximum(np.linalg.eigvalsh(own)[:, ::-1], 0.0) / own.shape[1]
        if target is None:
            return values
        return values * target_gain(target, self.sigma, sigma_data=sigma_data)[:, None] ** 2

    @property
    def effective_rank(self) -> Array:
        """(L,) exp of the entropy of the normalised eigenvalues (Roy and Vetterli 2007), 1 to N for any target."""
        return entropy_rank(self.eigenvalues())

    @property
    def correlation(self) -> Array:
        """(L, N, L, N) the Gram matrix with unit diagonal: 1 where two examples move the network alike."""
        # an example that moves nothing correlates with nothing: 0, not nan
        length = np.sqrt(np.maximum(np.einsum("ljlj->lj", self.gram), 1e-300))
        return np.asarray(self.gram / length[:, :, None, None] / length)

    @property
    def level_coupling(self) -> Array:
        """(L, L) mean Gram entry between two levels over the root of both levels' own: coupling across noise levels."""
        # means of entries, signs kept: pairs of examples that pull in opposite directions cancel, as in training
        mean = self.gram.mean(axis=(1, 3))
        length = np.sqrt(np.maximum(np.diag(mean), 1e-300))
        return np.asarray(mean / length[:, None] / length)

    def __repr__(self) -> str:
        ranks = ", ".join(f"{rank:.1f}" for rank in self.effective_rank)
        return f"TangentGram({self.sigma.size} levels, {self.gram.shape[1]} examples, effective rank {ranks})"


def tangent_gram(
    denoiser: Denoise,
    data: Any,
    sigma: ArrayLike,
    *,
    module: torch.nn.Module | None = None,
    examples: int = 32,
    probes: int | None = None,
    directions: int = 100_000,
    seed: int = 0,
) -> TangentGram:
    """Gram matrix of the tangent kernel over the first examples, noised at every level.

    One vector-Jacobian product per example, level and output. For many outputs `probes` takes random signs
    instead, the same for all examples, whose products average to the trace. The same noise directions serve all levels.

    Args:
        denoiser: nn.Module (x, sigma) -> x0, or a callable around `module`; a copy is used.
        data: clean examples (N, *shape), the first ones are used (sort them to see clusters).
        sigma: (L,) ascending noise levels.
        module: whose parameters are meant, where `denoiser` is not it.
        examples: N per level.
        probes: None for every output.
        directions: above that many parameters, products are taken in as many random directions of them, which keeps
            them on average (relative error about sqrt(2 / directions)).
        seed: of noise, probes and directions.

    Raises:
        ValueError: levels that are not positive and ascending, too few examples.
    """
    levels = vector(noise_levels(sigma, "tangent_gram.sigma"), "tangent_gram.sigma", ascending=True)
    count = integer(examples, "tangent_gram.examples", minimum=2, maximum=AT_ONCE)
    clean = _first(data, count, "tangent_gram")
    function, inner = _trainable(denoiser, module)
    gradients = PerSampleGradients(function, inner, directions, seed)
    clean = clean.to(gradients.like.device, gradients.like.dtype)
    # one noise for all levels: what differs between two levels is then the level, not the draw
    z = normal(seed, "gram noise", shape=tuple(clean.shape), like=clean)
    outputs = clean[0].numel()
    number_of = outputs if probes is None else integer(probes, "tangent_gram.probes", minimum=1, maximum=AT_ONCE)
    gram = np.zeros((levels.size * count, levels.size * count))
    for probe in range(number_of):
        # one output direction for all examples and levels: <J_i^T u, J_j^T u> averages to tr J_i J_j^T only so
        if probes is None:
            one = torch.zeros(outputs, dtype=clean.dtype, device=clean.device)
            one[probe] = 1.0
        else:
            one = rademacher(seed, "gram probe", probe, shape=(outputs,), like=clean)
        cotangent = one.reshape(clean.shape[1:]).expand_as(clean)
        # output by output, so that N L rows of parameters are held and not the whole Jacobian
        rows = [gradients.rows(clean + float(s) * z, float(s), cotangent, "probe")[0] for s in levels]
        stacked = np.concatenate(rows)
        gram += stacked @ stacked.T
    # signs have E u u^T = 1: a probe stands for the sum over outputs, which the exact way goes through
    gram /= outputs if probes is None else outputs * number_of
    return TangentGram(levels, gram.reshape(levels.size, count, levels.size, count), probes is None)
