"""Errors of a measured spectrum from a uniform sample of the examples."""

from __future__ import annotations

import numpy as np
import torch

from ...basics.checks import Array
from ..draws.streams import seeded

__all__ = ["energy_error", "norm_bound", "significant", "trace_error"]

_SIGNS = 60
_SIGN_ROWS = 256
_NUMBERS = 1 << 17
# Eigenvalues below this fraction of the largest are rounding, not data (as in Spectrum.from_samples).
_NUMERICAL_ZERO = 1e-12


def significant(values: Array, *, examples: int, mean_size: float) -> Array:
    """Descending eigenvalues with rounding set to 0.

    Args: values (d,), the number of examples, and the largest absolute entry of the data mean, about which
    the sums may be off by N eps. Raises ValueError when nothing is left.
    """
    eps = float(np.finfo(np.float64).eps)
    floor = max(_NUMERICAL_ZERO, eps * min(examples, values.size)) * max(float(values[0]), 0.0)
    floor = max(floor, values.size * (eps * examples * mean_size) ** 2)
    if not values[0] > floor:
        raise ValueError("data: the examples do not vary; a covariance needs variation.")
    return np.where(values > floor, values, 0.0)


def energy_error(energies: Array, count: int) -> Array:
    """(B,) standard error of a mean over `count` examples, from (M, B) squared coordinates of some of them."""
    if energies.shape[0] < 2:
        return np.full(energies.shape[1], np.sqrt(2.0 / count)) * energies.sum(axis=0)
    return energies.std(axis=0, ddof=1) / np.sqrt(count)


def trace_error(rows: torch.Tensor, count: int) -> float:
    """Standard error of the trace from (M, d) centred examples."""
    return float(energy_error((rows**2).sum(dim=1, keepdim=True).cpu().numpy(), count)[0])


def norm_bound(rows: torch.Tensor, count: int, *, seed: int) -> float:
    """95 % quantile of ||sample covariance - covariance|| for `count` examples, by random signs.

    The norm of sum_i s_i x_i x_i^T / m over m of the (M, d) centred examples has the law of the covariance
    error from m examples or is larger (symmetrisation); it is scaled by sqrt(m/count). Its nonzero
    eigenvalues are those of the m x m matrix R^T S R with R R^T the Gram matrix, so d may be large.
    """
    part = rows[:_SIGN_ROWS].to("cpu", torch.float64)
    size, dimension = part.shape
    if dimension > size:
        values, vectors = torch.linalg.eigh(part @ part.T)
        part = vectors * values.clamp(min=0).sqrt()
    signs = 2.0 * torch.randint(0, 2, (_SIGNS, size), generator=seeded(seed, "signs")).to(torch.float64) - 1.0
    together = max(1, _NUMBERS // part.numel())  # small matrices in one call
    norms = [
        torch.linalg.eigvalsh(part.T @ (some[:, :, None] * part)).abs().amax(dim=1) for some in signs.split(together)
    ]
    return float(np.quantile(torch.cat(norms).numpy(), 0.95) / np.sqrt(size * count))
