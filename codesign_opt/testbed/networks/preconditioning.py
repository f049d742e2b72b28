"""EDM preconditioning: what surrounds a raw network so that its input and target have unit variance at every level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...basics.checks import noise_level

__all__ = ["LevelEmbedding", "Preconditioned", "check_size"]

_MOST = 1_000_000_000  # weights of a small network


def check_size(weights: int, of: str) -> None:
    """Refuse sizes of layers that no machine of this kind holds, before memory is asked for."""
    if weights > _MOST:
        raise ValueError(f"{of} make {weights:.3g} weights; at most {_MOST:.0e} are made here.")


class LevelEmbedding(nn.Module):
    """Sines and cosines of ln(sigma) at fixed geometric frequencies, through one layer: (N,) -> (N, width)."""

    frequencies: Tensor

    def __init__(self, width: int, *, waves: int = 16, lowest: float = 0.03, highest: float = 2.0) -> None:
        super().__init__()
        ratio = (highest / lowest) ** (1.0 / (waves - 1))
        self.register_buffer("frequencies", lowest * ratio ** torch.arange(waves, dtype=torch.get_default_dtype()))
        self.layer = nn.Linear(2 * waves, width)

    def forward(self, log_sigma: Tensor) -> Tensor:
        angle = log_sigma[:, None] * self.frequencies
        return nn.functional.silu(self.layer(torch.cat([angle.cos(), angle.sin()], dim=1)))


class Preconditioned(nn.Module):
    """A denoiser from a raw network F: D(x, sigma) = c_skip x + c_out F(c_in x, ln sigma).

    Karras et al. 2022, table 1, column "Ours": c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2) with s = sigma_data, so that F sees and predicts unit variance at every
    level. Subclasses define `raw(x, log_sigma)`.

    Args:
        sigma_data: standard deviation of the pooled coordinates of the data, data units, > 0.
    """

    def __init__(self, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = noise_level(sigma_data, "sigma_data")

    def raw(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        """F: the scaled noisy data (N, *shape) and ln sigma (N,) to a prediction of the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate of the clean data (N, *shape) from x = x0 + sigma noise; sigma is (N,) or one number."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])
        level = sigma.reshape(-1, *[1] * (x.dim() - 1))
        total = (level**2 + self.sigma_data**2).sqrt()
        raw = self.raw(x / total, sigma.log())
        return (self.sigma_data / total) ** 2 * x + (level * self.sigma_data / total) * raw


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with zero weights: residual branches and the output start as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
