"""What is left of the variance at the end of sampling, by the kind of the last step."""

from __future__ import annotations

from typing import Any

from ..basics.checks import Array, choice, noise_level, variances

__all__ = ["TERMINALS", "terminal_weight"]


TERMINALS = ("denoise", "rescale")


def terminal_weight(eigenvalues: Any, stopping_sigma: float, terminal: str = "denoise") -> Array:
    """Variance of the sampler's output along each direction when everything before it is exact.

    P_b = v_b(sigma_r) for "rescale" and lambda_b^2 / v_b(sigma_r) for "denoise", docs/theory.md section 2.

    Args:
        eigenvalues: (B,), squared data units, >= 0.
        stopping_sigma: last positive noise level sigma_r, data units, > 0.
        terminal: "denoise" (one last denoiser call) or "rescale".

    Returns:
        (B,), squared data units; zero where lambda_b = 0 and the terminal map is "denoise".

    Raises:
        ValueError: an argument is out of its range.

    >>> terminal_weight([1.0, 0.25], 0.5, "rescale")
    array([1.25, 0.5 ])
    """
    lam = variances(eigenvalues, "eigenvalues")
    stop = noise_level(stopping_sigma, "stopping_sigma")
    end = lam + stop**2
    return end if choice(terminal, "terminal", TERMINALS) == "rescale" else lam**2 / end
