"""Grids: descending noise levels, from a step density or from the families of the literature."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..basics.checks import AT_ONCE, Array, choice, integer, noise_level, number, scale_of, takes, vector
from .evaluations import final_steps, least_steps
from .levels import Levels

__all__ = [
    "FLATTEST",
    "Grid",
    "check_grid",
    "edm_grid",
    "ended",
    "family_grids",
    "flow_grid",
    "grid_from_steps",
    "log_snr_grid",
    "steps_on_levels",
]

FLATTEST = 1e6  # rho beyond which nothing changes but rounding


def edm_grid(steps: int, sigma_min: float, sigma_max: float, *, rho: float = 7.0, terminal: str = "denoise") -> Array:
    """EDM's grid: equal increments of sigma^(1/rho) (Karras et al. 2022, equation 5).

    Args:
        steps: number of steps K, the last step to zero included under "denoise".
        sigma_min, sigma_max: lowest positive and highest noise level.
        rho: 7 is EDM's default; larger is denser at low noise.
        terminal: "denoise" ends with 0 (K levels and a zero), "rescale" ends at sigma_min (K+1 levels).

    Returns:
        (K+1,) descending noise levels.

    >>> edm_grid(3, 1.0, 8.0, rho=3.0).tolist()
    [8.0, 3.375, 1.0, 0.0]
    """
    low = noise_level(sigma_min, "sigma_min")
    high = noise_level(sigma_max, "sigma_max")
    power = number(rho, "rho", positive=True, maximum=FLATTEST)
    last = (low / high) ** (1 / power)
    return _finish(high * np.linspace(1.0, last, _nodes(steps, terminal)) ** power, low, high, terminal)


def log_snr_grid(steps: int, sigma_min: float, sigma_max: float, *, terminal: str = "denoise") -> Array:
    """Equal increments of log-SNR, a geometric progression of noise levels; arguments as for `edm_grid`.

    >>> log_snr_grid(2, 1.0, 4.0, terminal="rescale").round(12).tolist()
    [4.0, 2.0, 1.0]
    """
    low = noise_level(sigma_min, "sigma_min")
    high = noise_level(sigma_max, "sigma_max")
    return _finish(np.geomspace(high, low, _nodes(steps, terminal)), low, high, terminal)


def flow_grid(
    steps: int, sigma_min: float, sigma_max: float, *, shift: float = 1.0, terminal: str = "denoise"
) -> Array:
    """Equal steps of flow-matching time u, shifted: sigma = t / (1 - t) with t = shift u / (1 + (shift - 1) u).

    Args:
        steps: number of steps K, the last step to zero included under "denoise".
        sigma_min, sigma_max: lowest positive and highest noise level.
        shift: of the time (Esser et al. 2024, equation 23): 1 is none, 3 that of Stable Diffusion 3.
        terminal: "denoise" or "rescale", as in `edm_grid`.

    Returns:
        (K+1,) descending noise levels.

    >>> flow_grid(3, 0.25, 4.0).round(12).tolist(), flow_grid(3, 0.25, 4.0, shift=3.0)[1].round(3).item()
    ([4.0, 1.0, 0.25, 0.0], 1.439)
    """
    low = noise_level(sigma_min, "sigma_min")
    high = noise_level(sigma_max, "sigma_max")
    factor = scale_of(shift, "shift")
    time = np.linspace(high / (factor + high), low / (factor + low), _nodes(steps, terminal))
    return _finish(factor * time / (1 - time), low, high, terminal)


def family_grids(steps: int, stop: float, top: float, terminal: str) -> dict[str, Array]:
    """The usual families, by the names that a plan prints as peers."""
    return {
        "edm": edm_grid(steps, stop, top, terminal=terminal),
        "log_snr": log_snr_grid(steps, stop, top, terminal=terminal),
    }


def grid_from_steps(levels: Levels, steps: Array, number_of_steps: int, *, terminal: str = "denoise") -> Array:
    """Nodes at equal increments of the accumulated step count (docs/theory.md section 7, integer grid).

    Args:
        levels: the levels; the grid runs from their highest edge to their lowest.
        steps: (L,) steps on each level; rescaled so that their sum is the integer wanted.
        number_of_steps: K, the last step to zero included under "denoise".
    """
    count = vector(steps, "steps", length=len(levels), nonnegative=True)
    accumulated = np.concatenate([[0.0], np.cumsum(count)])
    if accumulated[-1] <= 0:
        raise ValueError("steps sum to 0; at least one level needs steps.")
    keep = np.concatenate([[True], np.diff(accumulated) > 1e-12 * accumulated[-1]])
    targets = np.linspace(accumulated[-1], 0.0, _nodes(number_of_steps, terminal))
    grid = np.exp(np.interp(targets, accumulated[keep], np.log(levels.edges)[keep]))
    low, high = float(levels.edges[0]), float(levels.edges[-1])
    return _finish(grid, low, high, terminal)


@takes(levels=Levels)
def steps_on_levels(levels: Levels, sigmas: Array) -> Array:
    """(L,) steps that a grid takes on each level: an interval counts in proportion to its overlap in sigma.

    A step of length h covers each unit of sigma inside it 1/h times, so that steps sum to their number.
    """
    nodes = vector(sigmas, "sigmas", nonnegative=True, descending=True)
    nodes = vector(nodes[nodes > 0][::-1], "the positive ones of sigmas")
    count = np.interp(levels.edges, nodes, np.arange(nodes.size, dtype=np.float64))
    return np.diff(count)


def _nodes(steps: int, terminal: str) -> int:
    choice(terminal, "terminal", ("denoise", "rescale"))
    final = final_steps(terminal)
    hint = "Under 'denoise' the last step goes to zero, so 2 is the least." if final else ""
    return integer(steps, "steps", minimum=least_steps(terminal), maximum=AT_ONCE, hint=hint) + 1 - final


def _finish(positive: Array, low: float, high: float, terminal: str) -> Array:
    if not low < high:
        raise ValueError(f"sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
    grid = np.array(positive, dtype=np.float64)
    grid[0], grid[-1] = high, low
    return ended(grid, terminal)


def ended(positive: Array, terminal: str) -> Array:
    """A grid from its positive nodes: with a last zero under "denoise".

    >>> ended(np.array([2.0, 1.0]), "denoise").tolist(), ended(np.array([2.0, 1.0]), "rescale").tolist()
    ([2.0, 1.0, 0.0], [2.0, 1.0])
    """
    return np.append(positive, np.zeros(final_steps(terminal)))


class Grid(NamedTuple):
    """A checked grid of noise levels: what `check_grid` returns."""

    sigmas: Array
    terminal: str
    stopping_sigma: float


def check_grid(sigmas: Any, name: str = "sigmas") -> Grid:
    """The noise levels of a sampler, checked, with the terminal map that they imply.

    A grid that ends with 0 hands out the denoiser at its last positive node ("denoise"), a grid
    that ends above 0 keeps the state ("rescale"): docs/theory.md section 2.

    Args:
        sigmas: (K+1,) strictly descending noise levels, data units; only the last may be 0; K >= 1.
        name: what error messages call the grid.

    Returns:
        sigmas as a read-only float64 array, terminal, and stopping_sigma, the last positive node.

    Raises:
        ValueError: sigmas is not 1-D, finite, nonnegative, strictly descending, of at least 2 entries.

    >>> check_grid([80.0, 1.0, 0.1, 0.0]).terminal, check_grid([80.0, 1.0, 0.1]).stopping_sigma
    ('denoise', 0.1)
    """
    hint = "A grid is strictly descending; only its last entry may be 0."
    grid = vector(sigmas, name, minimum_length=2, nonnegative=True, descending=True, hint=hint)
    if grid[-1] == 0.0:
        return Grid(grid, "denoise", float(grid[-2]))
    return Grid(grid, "rescale", float(grid[-1]))
