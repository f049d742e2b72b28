"""The names that training densities of the literature go by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ...basics.checks import choice
from ...ingredients.densities import LogNormal, SigmaDensity
from ...ingredients.process import VP
from .families import Cauchy, LaplaceDensity, LogitNormal, LogLogistic, LogUniform, Mode, VDiffusion
from .of_time import TimeStairs, loss_second_moment, speed_density, uniform_time

__all__ = ["training_densities", "training_density"]


def _edm(mean: float = -1.2, std: float = 1.2) -> LogNormal:
    """EDM (Karras et al. 2022, table 1): ln sigma ~ N(-1.2, 1.2^2)."""
    return LogNormal(mean, std)


def _edm2(mean: float = -0.4, std: float = 1.0) -> LogNormal:
    """EDM2 (Karras et al. 2024): ln sigma ~ N(-0.4, 1), beside the learned uncertainty of `weighting("edm2")`."""
    return LogNormal(mean, std)


def _vp_uniform(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> TimeStairs:
    """Uniform in the time of the VP process with linear beta (Song et al. 2021)."""
    return uniform_time(VP(beta_min, beta_max, t_min))


_KINDS: dict[str, Callable[..., SigmaDensity]] = {
    "cauchy": Cauchy,
    "cosine": VDiffusion,
    "edm": _edm,
    "edm2": _edm2,
    "laplace": LaplaceDensity,
    "log_logistic": LogLogistic,
    "log_uniform": LogUniform,
    "logit_normal": LogitNormal,
    "loss_second_moment": loss_second_moment,
    "mode": Mode,
    "speed": speed_density,
    "uniform_time": uniform_time,
    "v_diffusion": VDiffusion,
    "vp_uniform": _vp_uniform,
}


def training_density(name: str, **parameters: Any) -> SigmaDensity:
    """A training density of the literature by its name, for `TrainingRun`, `audit` and training itself.

    Args:
        name: one of `training_densities()`: "edm", "edm2", "laplace", "cauchy", "logit_normal" and "mode" (Stable
            Diffusion 3), "v_diffusion" ("cosine"), "log_uniform", "log_logistic", "vp_uniform", "uniform_time" of any
            process, "loss_second_moment" (IDDPM, from a loss log) and "speed".
        parameters: its own, by name; besides, `sigma_min` and `sigma_max` together restrict any of them to a range.

    Raises:
        ValueError: an unknown name (the known ones are listed), or a parameter that it does not have.

    >>> training_density("laplace", scale=1.0)
    LaplaceDensity(mean=0.0, scale=1.0)
    >>> training_density("cauchy", sigma_min=0.002, sigma_max=80.0).quantile(1.0).round(9).item()
    80.0
    """
    kind = _KINDS[choice(name, "training_density", _KINDS)]
    known = inspect.signature(kind).parameters
    limits = {key: parameters.pop(key) for key in ("sigma_min", "sigma_max") if key in set(parameters) - set(known)}
    if unknown := set(parameters) - set(known):
        raise ValueError(
            f"training density {name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}."
        )
    missing = [key for key, p in known.items() if p.default is p.empty and key not in parameters]
    if missing:
        raise ValueError(f"training density {name} needs {', '.join(missing)}.")
    if len(limits) == 1:
        raise ValueError(
            f"training density {name}: give sigma_min and sigma_max together; only {next(iter(limits))} is there."
        )
    density = kind(**parameters)
    return density.between(**limits) if limits else density


def training_densities() -> list[str]:
    """Names that `training_density` knows.

    >>> "laplace" in training_densities()
    True
    """
    return sorted(_KINDS)
