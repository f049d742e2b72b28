"""A denoiser is a function of the state and the noise level, and of nothing else."""

from __future__ import annotations

import torch

from .denoiser import Denoiser, DenoiserError
from .same_denoiser import ROUNDING, SAME
from .weights import in_half_precision

__all__ = ["PURE_CALLS", "check_alone", "check_pure"]

PURE_CALLS = 3


@torch.no_grad()
def check_pure(denoiser: Denoiser, states: torch.Tensor, sigma: float) -> None:
    """The same answer twice, in any company, in a tensor of its own, with the input left as it was; three calls.

    Args:
        denoiser: asked at one level.
        states: (N, *shape) of order one, N at least 2.
        sigma: the level; states are multiplied by it.

    Raises:
        DenoiserError: a network that is random or in training mode, writes into its input, or hands out the
            same buffer at every call.
    """
    x, half, at = float(sigma) * states, states.shape[0] // 2, f"denoiser {denoiser.name!r} at sigma {sigma:.4g}"
    given = x.clone()
    first = denoiser(given, sigma)
    if not torch.equal(given, x):
        raise DenoiserError(f"{at} writes into its input; let it work on a copy (x.clone()).")
    kept = first.clone()
    denoiser(-x, sigma)  # other states, so that a shared buffer shows
    if not torch.equal(first, kept):
        raise DenoiserError(f"{at} hands out the same buffer at every call, so that a later call changes an earlier "
                            "answer; return a copy (.clone()).")  # fmt: skip
    _compared(denoiser, x, kept[:half], sigma)


@torch.no_grad()
def check_alone(denoiser: Denoiser, states: torch.Tensor, sigma: float) -> None:
    """The first half of (N, *shape) states of order one get the same answers alone as among the others; two calls.

    Raises:
        DenoiserError: a network that is random or in training mode.
    """
    x = float(sigma) * states
    _compared(denoiser, x, denoiser(x, sigma)[: states.shape[0] // 2], sigma)


def _compared(denoiser: Denoiser, x: torch.Tensor, among: torch.Tensor, sigma: float) -> None:
    alone = denoiser(x[: among.shape[0]], sigma)
    distance = float((among - alone).abs().max())
    apart = distance / max(float(alone.abs().max()), 1e-30)
    # of a batch of another size the layers' sums may be in another order; on tensor cores with ten bits
    allowed = SAME if in_half_precision(denoiser) else ROUNDING if x.device.type == "cpu" else SAME / 10
    if apart > allowed and distance > ROUNDING * float(x.abs().max()):
        raise DenoiserError(
            f"denoiser {denoiser.name!r} at sigma {sigma:.4g}: the same states give answers {apart:.2g} apart "
            "(relative), alone and among others; a network in training mode (dropout, batch normalisation) is random: "
            "call .eval() first."
        )
