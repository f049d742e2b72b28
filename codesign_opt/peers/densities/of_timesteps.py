"""Training densities of networks that are told whole timesteps: of a table of noise levels, and of flow schedules."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...basics.checks import AT_ONCE, Array, choice, integer, number, scale_of, takes, vector
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ...schedulers.noise_table import NoiseTable
from .of_time import OnLevels

__all__ = ["beta_table", "flow_timesteps", "timestep_probabilities", "timesteps"]

_TOP = 1e6  # sigma of the upper edge of the timestep that is pure noise


def beta_table(
    beta_start: float = 0.00085, beta_end: float = 0.012, schedule: str = "scaled_linear", count: int = 1000
) -> NoiseTable:
    """The noise levels of the timesteps of a discrete process: those of Stable Diffusion 1, 2 and XL unless given.

    sigma = sqrt((1 - a) / a), a the running product of 1 - beta; beta is even ("linear", DDPM: 1e-4 to 0.02) or its
    root is ("scaled_linear").

    >>> table = beta_table()
    >>> round(table.lowest, 4), round(table.highest, 2)
    (0.0292, 14.61)
    """
    low = number(beta_start, "beta_table.beta_start", positive=True, maximum=1.0)
    high = number(beta_end, "beta_table.beta_end", positive=True, maximum=1.0)
    size = integer(count, "beta_table.count", minimum=2, maximum=AT_ONCE)
    power = {"linear": 1.0, "scaled_linear": 0.5}[choice(schedule, "beta_table.schedule", ("linear", "scaled_linear"))]
    betas = np.linspace(low**power, high**power, size) ** (1 / power)
    kept = np.cumprod(1 - betas)
    if not kept[-1] > 0:
        raise ValueError(f"beta_table.beta_end is {high:g}: of {size} such betas no signal is left.")
    return NoiseTable(np.sqrt((1 - kept) / kept))


def timesteps(table: Any = None, probability: Any = None) -> OnLevels:
    """Whole timesteps drawn with given probabilities, uniformly unless given: what discrete processes train on.

    The probability of a timestep lies on its cell, which ends halfway, in log sigma, to its neighbours.

    Args:
        table: `NoiseTable`, a diffusers scheduler with alphas_cumprod, or (T,) ascending noise levels; that of Stable
            Diffusion unless given.
        probability: (T,) of the timesteps 0 … T - 1, >= 0, divided by their sum; one more for a table's pure noise.

    >>> timesteps().quantile(np.array([0.5])).round(3).tolist()
    [1.616]
    """
    edges = cells(noise_table(table))
    share = np.ones(edges.size - 1) if probability is None else probability
    return OnLevels(Levels(edges), vector(share, "timesteps.probability", length=edges.size - 1, nonnegative=True))


def flow_timesteps(shift: float = 1.0, count: int = 1000, probability: Any = None) -> OnLevels:
    """Flow matching's times i / count, i = 1 … count, moved by a shift that multiplies sigma, with given probabilities.

    Args:
        shift: of the scheduler, 3 for Stable Diffusion 3.
        count: number of timesteps; the last is pure noise.
        probability: (count,) from low noise to high; even unless given.

    >>> flow_timesteps(3.0).quantile(np.array([0.5])).round(2).tolist()
    [3.0]
    """
    size = integer(count, "flow_timesteps.count", minimum=3, maximum=AT_ONCE)
    factor = scale_of(shift, "flow_timesteps.shift")
    i = np.arange(1, size, dtype=np.float64)
    return timesteps(NoiseTable(factor * i / (size - i), endless=True), probability)


@takes(density=SigmaDensity)
def timestep_probabilities(density: SigmaDensity, table: Any = None) -> Array:
    """(T,) probability of every timestep of a table under a density: the share of its cell, ends extended.

    >>> timestep_probabilities(timesteps(), None).round(6).tolist()[:2]
    [0.001, 0.001]
    """
    edges = cells(noise_table(table))
    edges[0], edges[-1] = 0.0, np.inf
    return density.mass(edges)


def noise_table(table: Any) -> NoiseTable:
    """A table in any accepted form.

    Raises:
        ValueError: a scheduler without alphas_cumprod, or levels that do not ascend.
    """
    if table is None:
        return beta_table()
    if isinstance(table, NoiseTable):
        return table
    found = NoiseTable.of(table) if hasattr(table, "config") else NoiseTable(table)
    if found is None:
        raise ValueError(f"timesteps.table is {type(table).__name__}, which has no alphas_cumprod; give noise levels.")
    return found


def cells(table: NoiseTable) -> Array:
    """(T+1,) edges between timesteps."""
    edges = Levels.around(table.sigmas).edges
    return np.append(edges, _TOP * edges[-1]) if table.endless else np.array(edges)
