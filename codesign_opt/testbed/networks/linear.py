"""A linear denoiser: the exact one of Gaussian data, or one with known errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...basics.checks import matrix, vector

__all__ = ["LinearDenoiser"]


class LinearDenoiser(nn.Module):
    """D(x, sigma) = mean + U diag(w) U^T (x - mean) + E (x - mean), w = lambda / (lambda + sigma^2).

    The posterior mean of N(mean, U diag(lambda) U^T) (docs/theory.md section 2) plus an error of the user's
    choice: every estimate on it has a closed form. It computes in the dtype of x, float64 included.

    Args:
        eigenvalues: (d,) lambda >= 0, squared data units.
        vectors: (d, d) orthonormal columns U; the identity unless given.
        mean: (d,) of the data; zero unless given.
        weights: function of sigma (N,) -> (N, d) instead of lambda / (lambda + sigma^2), such as learned ones.
        perturbation: E, a (d, d) matrix in data coordinates or a function of sigma (N,) -> (N, d, d).

    Raises:
        ValueError: negative eigenvalues, sizes that differ, columns that are not orthonormal.

    >>> denoiser = LinearDenoiser([1.0, 0.25])
    >>> denoiser(torch.ones(1, 2, dtype=torch.float64), torch.tensor([0.5])).tolist()
    [[0.8, 0.5]]
    """

    eigenvalues: Tensor
    vectors: Tensor
    mean: Tensor

    def __init__(
        self,
        eigenvalues: Any,
        vectors: Any = None,
        mean: Any = None,
        weights: Callable[[Tensor], Tensor] | None = None,
        *,
        perturbation: Any = None,
    ) -> None:
        super().__init__()
        values = torch.tensor(vector(eigenvalues, "LinearDenoiser.eigenvalues", nonnegative=True))
        d = values.numel()
        columns = torch.eye(d, dtype=torch.float64)
        if vectors is not None:
            columns = torch.tensor(matrix(vectors, "LinearDenoiser.vectors", shape=(d, d)))
            off = float((columns.T @ columns - torch.eye(d, dtype=torch.float64)).abs().max())
            if off > 1e-6:
                raise ValueError(f"LinearDenoiser.vectors are off orthonormal by {off:.2g}; give eigenvectors.")
        centre = torch.zeros(d, dtype=torch.float64)
        if mean is not None:
            centre = torch.tensor(vector(mean, "LinearDenoiser.mean", length=d))
        self.register_buffer("eigenvalues", values)
        self.register_buffer("vectors", columns)
        self.register_buffer("mean", centre)
        self.weights = weights
        self.perturbation = perturbation
        if perturbation is not None and not callable(perturbation):
            self.perturbation = torch.tensor(matrix(perturbation, "LinearDenoiser.perturbation", shape=(d, d)))

    def gains(self, sigma: Tensor) -> Tensor:
        """(N, d) factors along the eigenvectors at levels sigma (N,)."""
        if self.weights is not None:
            return self.weights(sigma)
        values = self.eigenvalues.to(sigma)
        return values / (values + sigma[:, None] ** 2)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate of the clean data (N, *shape), prod(shape) = d; sigma is (N,) or one number."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])
        columns, centre = self.vectors.to(x), self.mean.to(x)
        away = x.flatten(1) - centre
        clean = centre + (away @ columns * self.gains(sigma)) @ columns.T
        return (clean + self._error(away, sigma)).reshape(x.shape)

    def _error(self, away: Tensor, sigma: Tensor) -> Tensor:
        if self.perturbation is None:
            return torch.zeros_like(away)
        error = self.perturbation(sigma) if callable(self.perturbation) else self.perturbation
        error = error.to(away)
        return away @ error.T if error.dim() == 2 else (error @ away[:, :, None])[:, :, 0]
