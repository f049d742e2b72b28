"""The names that training densities of the literature go by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...ingredients.densities import DENSITIES, LogNormal, SigmaDensity
from ...ingredients.process import VP
from .families import VDiffusion
from .information import infonoise
from .of_time import TimeStairs, loss_second_moment, speed_density, uniform_time
from .of_timesteps import flow_timesteps, timesteps
from .split import SplitLogNormal  # noqa: F401  it enters its name

__all__ = ["training_densities", "training_density"]


def edm_density(mean: float = -1.2, std: float = 1.2) -> LogNormal:
    """EDM (Karras et al. 2022, table 1): ln sigma ~ N(-1.2, 1.2^2)."""
    return LogNormal(mean, std)


def edm2_density(mean: float = -0.4, std: float = 1.0) -> LogNormal:
    """EDM2 (Karras et al. 2024): ln sigma ~ N(-0.4, 1), beside the learned uncertainty of `weighting("edm2")`."""
    return LogNormal(mean, std)


def vp_uniform(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> TimeStairs:
    """Uniform in the time of the VP process with linear beta (Song et al. 2021)."""
    return uniform_time(VP(beta_min, beta_max, t_min))


_FUNCTIONS: dict[str, Callable[..., SigmaDensity]] = {  # the classes of `families` state their names themselves
    "cosine": VDiffusion,
    "edm": edm_density,
    "edm2": edm2_density,
    "flow_timesteps": flow_timesteps,
    "infonoise": infonoise,
    "loss_second_moment": loss_second_moment,
    "speed": speed_density,
    "timesteps": timesteps,
    "uniform_time": uniform_time,
    "vp_uniform": vp_uniform,
}
for _name, _function in _FUNCTIONS.items():
    DENSITIES.add(_name, _function)


def training_density(name: str, **parameters: Any) -> SigmaDensity:
    """A training density of the literature by its name, for `TrainingRun`, `audit` and training itself.

    Args:
        name: one of `training_densities()`: "edm", "edm2", "laplace", "cauchy", "logit_normal" and "mode" (Stable
            Diffusion 3), "v_diffusion" ("cosine"), "log_uniform", "log_logistic" and "split_lognormal" (k-diffusion),
            "vp_uniform", "uniform_time" of any process, "timesteps" of a table and "flow_timesteps" (uniform unless
            told), "loss_second_moment" (IDDPM, from a loss log), "infonoise" (from a risk) and "speed"; or the `name`
            of a SigmaDensity of one's own.
        parameters: its own, by name; besides, `sigma_min` and `sigma_max` together restrict any of them to a range.

    Raises:
        ValueError: an unknown name (the known ones are listed), or a parameter that it does not have.

    >>> training_density("laplace", scale=1.0)
    LaplaceDensity(mean=0.0, scale=1.0)
    >>> training_density("cauchy", sigma_min=0.002, sigma_max=80.0).quantile(1.0).round(9).item()
    80.0
    """
    own = DENSITIES.parameters(name)
    limits = {key: parameters.pop(key) for key in ("sigma_min", "sigma_max") if key in set(parameters) - set(own)}
    if len(limits) == 1:
        raise ValueError(
            f"training density {name}: give sigma_min and sigma_max together; only {next(iter(limits))} is there."
        )
    density: SigmaDensity = DENSITIES.make(name, parameters)
    return density.between(**limits) if limits else density


def training_densities() -> list[str]:
    """Names that `training_density` knows, those of subclasses of SigmaDensity elsewhere included.

    >>> "laplace" in training_densities()
    True
    """
    return DENSITIES.names()
