"""A small U-Net denoiser for 28 x 28 images, made to be quick on one processor core."""

from __future__ import annotations

from torch import Tensor, nn

from ...basics.checks import entries, integer
from .preconditioning import LevelEmbedding, Preconditioned, check_size, zeroed

__all__ = ["UNet"]

_silu = nn.functional.silu


class _Residual(nn.Module):
    """Norm, SiLU, convolution, twice; the level scales and shifts between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(level)[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(self.conv1(_silu(self.norm1(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv2(_silu(hidden))


class _Attention(nn.Module):
    """Self-attention over the pixels, written out so that every transform of torch.func applies."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.inward = nn.Conv2d(width, 3 * width, 1)
        self.outward = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, width, height, across = x.shape
        split = self.inward(self.norm(x)).reshape(n, 3, self.heads, width // self.heads, height * across)
        query, key, value = split.unbind(1)
        share = (query.transpose(-1, -2) @ key / (width // self.heads) ** 0.5).softmax(-1)
        mixed = (value @ share.transpose(-1, -2)).reshape(n, width, height, across)
        return x + self.outward(mixed)


class UNet(Preconditioned):
    """U-Net with EDM preconditioning: D(x (N, 1, 28, 28), sigma (N,)) -> estimate of x0, unconditional.

    Three resolutions (28, 14, 7 pixels), few channels where pixels are many, self-attention at 7 x 7 alone.
    Nothing is written in place and no layer mixes images, so that torch.func transforms and per-sample
    gradients apply.

    Args:
        sigma_data: standard deviation of all pixels, > 0.
        widths: channels at 28, 14 and 7 pixels; multiples of 8.
        heads: attention heads.

    >>> import torch
    >>> UNet(sigma_data=0.5)(torch.zeros(2, 1, 28, 28), torch.ones(2)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self, *, sigma_data: float, widths: tuple[int, int, int] = (16, 32, 96), heads: int = 4, embedding: int = 96
    ) -> None:
        super().__init__(sigma_data)
        channels = tuple(integer(width, "UNet.widths", minimum=8) for width in entries(widths, "UNet.widths"))
        heads, embedding = integer(heads, "UNet.heads", minimum=1), integer(embedding, "UNet.embedding", minimum=1)
        if len(channels) != 3:
            raise ValueError(f"UNet.widths has {len(channels)} entries; those at 28, 14 and 7 pixels are needed.")
        fine, middle, coarse = channels
        check_size(
            40 * max(widths) ** 2 + 10 * max(widths) * embedding, f"UNet.widths {widths} and embedding {embedding}"
        )
        if any(width % 8 for width in channels) or coarse % heads:
            raise ValueError(f"UNet.widths is {channels}; multiples of 8 are needed, the last also of heads = {heads}.")
        self.level = LevelEmbedding(embedding)
        self.stem = nn.Conv2d(1, fine, 3, padding=1)
        self.to14 = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.down14 = _Residual(middle, middle, embedding)
        self.to7 = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.first7, self.second7 = _Residual(coarse, coarse, embedding), _Residual(coarse, coarse, embedding)
        self.attention = _Attention(coarse, heads)
        self.from7 = nn.Conv2d(coarse, middle, 1)
        self.up14 = _Residual(middle, middle, embedding)
        self.from14 = nn.Conv2d(middle, fine, 1)
        self.up28 = _Residual(fine, fine, embedding)
        self.norm = nn.GroupNorm(8, fine)
        self.head = zeroed(nn.Conv2d(fine, 1, 3, padding=1))

    def raw(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        level = self.level(log_sigma)
        at28 = self.stem(x)
        at14 = self.down14(self.to14(at28), level)
        at7 = self.second7(self.attention(self.first7(self.to7(at14), level)), level)
        up14 = self.up14(at14 + _doubled(self.from7(at7)), level)
        up28 = self.up28(at28 + _doubled(self.from14(up14)), level)
        return self.head(_silu(self.norm(up28)))


def _doubled(x: Tensor) -> Tensor:
    """Every pixel as a square of four."""
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
