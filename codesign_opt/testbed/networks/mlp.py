"""A multilayer perceptron denoiser for vectors: 8 x 8 images, points of the plane."""

from __future__ import annotations

from torch import Tensor, nn

from ...basics.checks import integer
from .preconditioning import LevelEmbedding, Preconditioned, check_size, zeroed

__all__ = ["MLP"]


class MLP(Preconditioned):
    """Residual perceptron with EDM preconditioning: D(x (N, d), sigma (N,)) -> estimate of x0 (N, d).

    Each layer adds W SiLU(h (1 + scale) + shift) with scale and shift from ln(sigma).

    Args:
        dimension: d >= 1.
        sigma_data: standard deviation of the pooled coordinates of the data, > 0.
        width: hidden units.
        layers: residual layers, >= 1.

    >>> import torch
    >>> MLP(2, sigma_data=1.0, width=16)(torch.zeros(3, 2), torch.ones(3)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dimension: int, *, sigma_data: float, width: int = 128, layers: int = 3) -> None:
        super().__init__(sigma_data)
        dimension = integer(dimension, "MLP.dimension", minimum=1)
        width, layers = integer(width, "MLP.width", minimum=1), integer(layers, "MLP.layers", minimum=1)
        check_size(
            3 * layers * width**2 + 2 * width * dimension,
            f"MLP.dimension {dimension}, width {width} and layers {layers}",
        )
        self.level = LevelEmbedding(width)
        self.inward = nn.Linear(dimension, width)
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.outward = zeroed(nn.Linear(width, dimension))

    def raw(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        level, hidden = self.level(log_sigma), self.inward(x)
        for modulation, layer in zip(self.modulations, self.layers, strict=True):
            scale, shift = modulation(level).chunk(2, dim=1)
            hidden = hidden + layer(nn.functional.silu(hidden * (1 + scale) + shift))
        return self.outward(nn.functional.silu(hidden))
