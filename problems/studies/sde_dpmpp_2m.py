"""SDE-DPM-Solver++(2M) on any denoiser: the stochastic multistep sampler of the tables that papers compare with."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array

__all__ = ["sde_dpmpp_2m"]


def sde_dpmpp_2m(denoiser: Any, sigmas: Array, x: torch.Tensor, noise: co.estimate.BrownianPath) -> torch.Tensor:
    """The sampler's output from states x at sigmas[0], with h = log(sigma / sigma'), r = h_previous / h:

    x' = (sigma'/sigma) e^(-h) x + (1 - e^(-2h)) D' + sigma' sqrt(1 - e^(-2h)) z,   D' = D + (D - D_previous) / (2 r).

    Lu et al. 2022 (DPM-Solver++), the midpoint form of diffusers' `sde-dpmsolver++`, in rescaled states
    x = x0 + sigma z. The first step and a last step to 0 have no extrapolation; without it this is DDIM with eta = 1.

    Args:
        denoiser: (x, sigma) -> x0, sigma (N,) or one number.
        sigmas: (K+1,) descending noise levels; a last 0 is the plain denoiser at the level before.
        x: (N, d) states at sigmas[0].
        noise: path of the injected noise.

    Returns:
        (N, d).

    Raises:
        ValueError: a grid that does not descend.

    >>> path = co.estimate.BrownianPath(0, ("test",), 2.0, 1.0)
    >>> exact = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> sde_dpmpp_2m(exact, [2.0, 1.0, 0.0], torch.zeros(3, 1), path).shape
    torch.Size([3, 1])
    """
    grid = np.asarray(sigmas, dtype=np.float64)
    if not (grid.ndim == 1 and grid.size > 1 and np.all(np.diff(grid) < 0) and grid[-1] >= 0):
        raise ValueError(f"sigmas are {grid}; at least two noise levels that descend are needed, the last >= 0.")
    before: torch.Tensor | None = None
    length = 0.0
    for high, low in pairwise(grid.tolist()):
        clean = denoiser(x, torch.full((x.shape[0],), high, dtype=x.dtype, device=x.device))
        if low == 0:
            return clean
        step = math.log(high / low)
        used = clean if before is None else clean + step / (2 * length) * (clean - before)
        kept, fresh = (low / high) ** 2, -math.expm1(-2 * step)
        ends = torch.tensor([high, low], dtype=torch.float64)
        draw = noise.draw(ends[0], ends[1], x)
        x = kept * x + fresh * used + low * math.sqrt(fresh) * draw
        before, length = clean, step
    return x
