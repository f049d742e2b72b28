"""Densities as tables for any loop: exact quantiles as JSON or CSV, and probabilities of timesteps."""

from __future__ import annotations

import json

import numpy as np

from ...basics.checks import AT_ONCE, Array, integer, vector
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ...peers.densities.of_time import OnLevels
from ...peers.densities.of_timesteps import noise_table, timestep_probabilities, timesteps
from ...schedulers.noise_table import flow_time
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target

__all__ = ["write_csv", "write_json", "write_timesteps"]

_KIND = "codesign_opt.training_density"


def _quantiles(density: SigmaDensity, count: int) -> tuple[Array, Array]:
    size = integer(count, "export_training.count", minimum=2, maximum=AT_ONCE)
    u = (np.arange(size) + 0.5) / size
    return u, density.quantile(u)


def write_json(density: SigmaDensity, count: int = 1000) -> Written:
    """`count` noise levels to draw from uniformly, the middles of equal shares, with their flow times."""
    _, sigma = _quantiles(density, count)
    said = {"kind": _KIND, "sigma": sigma.tolist(), "time": flow_time(sigma).tolist()}
    return Written(said, json.dumps(said), _spread(sigma))


def write_csv(density: SigmaDensity, count: int = 1000) -> Written:
    """The same as a table: share below, noise level, flow time."""
    u, sigma = _quantiles(density, count)
    lines = [
        f"{a!r},{b!r},{c!r}" for a, b, c in zip(u.tolist(), sigma.tolist(), flow_time(sigma).tolist(), strict=True)
    ]
    said = {"u": u.tolist(), "sigma": sigma.tolist(), "time": flow_time(sigma).tolist()}
    return Written(said, "\n".join(["u,sigma,time", *lines]), _spread(sigma))


def write_timesteps(density: SigmaDensity, table: object = None) -> Written:
    """Probabilities of whole timesteps, for torch.multinomial; or the loss weights that stand for them.

    Args:
        density: what is to be drawn.
        table: a scheduler or noise levels; Stable Diffusion's unless given.
    """
    levels = noise_table(table)
    share = timestep_probabilities(density, levels)
    even = share * share.size
    said = {"kind": f"{_KIND}.timesteps", "probability": share.tolist(), "loss_weight": even.tolist(),
            "sigma": levels.sigmas.tolist()}  # fmt: skip
    above, below = float(share[-1]), float(density.tails(np.array([levels.lowest]))[0][0])
    notes = [
        f"instead of the probabilities, uniform timesteps with loss_weight have the same mean and "
        f"{float(np.mean(even**2)):.3g} times the second moment"
    ]
    if max(above, below) > 0.01:
        notes.append(f"{below:.1%} lies below the table's levels and {above:.1%} on its last: there at its ends")
    return Written(said, json.dumps(said), timesteps(levels, share), tuple(notes))


def _spread(sigma: Array) -> OnLevels:
    at, count = np.unique(sigma, return_counts=True)
    return OnLevels(Levels.around(at), count.astype(np.float64))


def _read_json(settings: Settings, assumed: Assumed) -> SigmaDensity:
    sigma = vector(settings.get("sigma"), f"{settings.place}: sigma", minimum_length=2, positive=True)
    return _spread(sigma)


def _read_timesteps(settings: Settings, assumed: Assumed) -> SigmaDensity:
    return timesteps(settings.get("sigma") if assumed.table is None else assumed.table, settings.get("probability"))


def _no_csv(settings: Settings) -> bool:
    return False  # no table of settings; `read_training` reads its columns


add_training_target(
    TrainingTarget(
        "timesteps", ("table",), write_timesteps, lambda s: s.get("kind") == f"{_KIND}.timesteps", _read_timesteps
    )
)
add_training_target(TrainingTarget("json", ("count",), write_json, lambda s: s.get("kind") == _KIND, _read_json))
add_training_target(TrainingTarget("csv", ("count",), write_csv, _no_csv, _read_json))
