"""Noise levels against the timesteps of a network: tables of discrete timesteps, and flow times with their shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, Indices, choice, number, vector

__all__ = ["FlowShift", "NoiseTable", "flow_time", "pure_noise", "sigma_of_flow_time"]

_STANDS_FOR_ZERO = 2.0**-24  # the last alphas_cumprod of schedulers that need a number for zero terminal SNR
_ALMOST = 2e-6  # 1 - t of a flow's first time that stands for 1


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """sigma of every training timestep, sqrt((1 - a) / a) with a = alphas_cumprod (docs/theory.md section 1).

    Args:
        sigmas: (T,) strictly ascending noise levels sigma_t / s_t of the timesteps 0 … T - 1.
        endless: whether a timestep T follows that is pure noise, sigma infinite (zero-terminal-SNR tables).

    Raises:
        ValueError: the table does not ascend or is not positive and finite.

    >>> table = NoiseTable([0.1, 1.0, 10.0])
    >>> float(table.timestep(np.sqrt(10.0))), float(table.timestep(5.5, "linear")), int(table.nearest(4.0))
    (1.5, 1.5, 2)
    """

    sigmas: Array
    endless: bool = False

    def __post_init__(self) -> None:
        found = vector(self.sigmas, "NoiseTable.sigmas", minimum_length=2, positive=True, ascending=True)
        object.__setattr__(self, "sigmas", found)

    @classmethod
    def of(cls, scheduler: Any) -> NoiseTable | None:
        """The table of a scheduler with alphas_cumprod, computed as the scheduler does; None where it has none.

        A last entry of pure noise is none of its levels: 0, or 2^-24 where the scheduler needs a number there.
        """
        kept = getattr(scheduler, "alphas_cumprod", None)
        if kept is None:
            return None
        share = np.asarray(kept.detach().cpu().double() if hasattr(kept, "detach") else kept, dtype=np.float64)
        pure = bool(share[-1] == 0 or abs(share[-1] / _STANDS_FOR_ZERO - 1) < 1e-3)
        finite = share[:-1] if pure else share
        return cls(np.sqrt((1.0 - finite) / finite), pure)

    @property
    def lowest(self) -> float:
        """sigma of timestep 0."""
        return float(self.sigmas[0])

    @property
    def highest(self) -> float:
        """sigma of the last timestep."""
        return float(self.sigmas[-1])

    def level(self, timestep: Any) -> Array:
        """sigma at whole timesteps, infinite at that of pure noise; timesteps outside go to the ends."""
        known = np.append(self.sigmas, np.inf) if self.endless else self.sigmas
        return np.asarray(known[np.clip(timestep, 0, known.size - 1)])

    def sigma(self, timestep: Any, scale: str = "log") -> Array:
        """sigma at fractional timesteps, interpolated in log sigma ("log") or in sigma ("linear")."""
        places = np.arange(self.sigmas.size, dtype=np.float64)
        if choice(scale, "scale", ("log", "linear")) == "log":
            return np.exp(np.interp(timestep, places, np.log(self.sigmas)))
        return np.interp(timestep, places, self.sigmas)

    def timestep(self, sigma: Any, scale: str = "log") -> Array:
        """Fractional timesteps of noise levels, the inverse of `sigma`; levels outside go to the ends."""
        places = np.arange(self.sigmas.size, dtype=np.float64)
        if choice(scale, "scale", ("log", "linear")) == "log":
            return np.interp(np.log(sigma), np.log(self.sigmas), places)
        return np.interp(sigma, self.sigmas, places)

    def nearest(self, sigma: Any) -> Indices:
        """The whole timestep whose level is nearest in log sigma."""
        middles = 0.5 * (np.log(self.sigmas[1:]) + np.log(self.sigmas[:-1]))
        return np.asarray(np.searchsorted(middles, np.log(sigma)))


def flow_time(sigma: Any) -> Any:
    """t = sigma / (1 + sigma), the time of flow matching x_t = (1 - t) x0 + t z.

    >>> flow_time(3.0)
    0.75
    """
    return sigma / (1.0 + sigma)


def sigma_of_flow_time(time: Any) -> Any:
    """sigma = t / (1 - t), infinite at t = 1.

    >>> sigma_of_flow_time(0.75), sigma_of_flow_time(1.0)
    (3.0, inf)
    """
    with np.errstate(divide="ignore"):
        found = np.asarray(time, dtype=np.float64) / (1.0 - np.asarray(time, dtype=np.float64))
    return float(found) if found.ndim == 0 else found


def pure_noise(sigma: Array, *, flow: bool, patched: bool) -> Array:
    """Levels with those that stand for pure noise made infinite: a flow's t = 1 - 1e-6, or 4096 of a table's 2^-24.

    >>> pure_noise(np.array([999_999.0, 3.0]), flow=True, patched=False).tolist()
    [inf, 3.0]
    """
    highest = 1.0 / _ALMOST if flow else 0.999 * _STANDS_FOR_ZERO**-0.5 if patched else np.inf
    return np.where(np.asarray(sigma) > highest, np.inf, sigma)


@dataclass(frozen=True)
class FlowShift:
    """What a flow-matching scheduler does to the times it is given: t -> factor t / (1 + (factor - 1) t).

    In noise levels the shift multiplies: sigma -> factor sigma. The exponential dynamic shift with mu has
    the factor exp(mu), the linear one mu. `terminal` then stretches the times so that the last is `terminal`.

    Args:
        factor: > 0, 1 for no shift.
        terminal: the time that the last node is moved to, or None.

    >>> shift = FlowShift(3.0)
    >>> shift.apply(shift.undo(np.array([0.9, 0.5]))).tolist()
    [0.9, 0.5]
    """

    factor: float = 1.0
    terminal: float | None = None

    def __post_init__(self) -> None:
        number(self.factor, "FlowShift.factor", positive=True)

    def apply(self, time: Array) -> Array:
        """The times that the scheduler uses when it is given `time`."""
        moved = self.factor * time / (1.0 + (self.factor - 1.0) * time)
        if self.terminal is None:
            return moved
        return 1.0 - (1.0 - moved) * (1.0 - self.terminal) / (1.0 - moved[-1])

    def undo(self, time: Array) -> Array:
        """The times to give so that the scheduler uses `time`; with `terminal`, time[-1] must be `terminal`."""
        return time / (self.factor - (self.factor - 1.0) * time)
