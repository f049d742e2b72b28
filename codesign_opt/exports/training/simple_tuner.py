"""SimpleTuner: config.json or its command line.

simpletuner/helpers/models/common.py (sample_flow_sigmas): t = sigmoid(flow_sigmoid_scale N(0, 1)), or uniform, or Beta,
then shift t / (1 + (shift - 1) t) (apply_flow_schedule_shift; flow_schedule_shift is 3 unless set, 0 for none). A list
flow_custom_timesteps is drawn from uniformly and not shifted; it holds times where none is above 1, else timesteps
to 1000.
"""

from __future__ import annotations

import json

import numpy as np
from scipy.stats import beta as beta_law

from ...basics.checks import AT_ONCE, Array, boolean, integer, vector
from ...ingredients.densities import LogNormal, SigmaDensity
from ...ingredients.levels import Levels
from ...peers.densities.families import LogLogistic
from ...peers.densities.of_time import OnLevels
from ...schedulers.noise_table import flow_time
from .index_laws import unshifted
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, rounded

__all__ = ["write_simple_tuner"]

_NAMES = ("flow_sigmoid_scale", "flow_schedule_shift", "flow_custom_timesteps", "flow_use_uniform_schedule",
          "flow_use_beta_schedule", "flow_schedule_auto_shift", "flux_fast_schedule")  # fmt: skip
_BINS = Levels.log_uniform(1e-6, 1e6, 4000)


def write_simple_tuner(density: SigmaDensity, exact: bool = False, count: int = 1000) -> Written:
    """Entries of config.json.

    Args:
        density: what is to be drawn.
        exact: `count` quantiles of the density itself as flow_custom_timesteps, instead of two numbers.
        count: number of quantiles.
    """
    if boolean(exact, "export_training.exact"):
        size = integer(count, "export_training.count", minimum=2, maximum=AT_ONCE)
        times = np.round(flow_time(density.quantile((np.arange(size) + 0.5) / size)), 7)
        said: dict[str, object] = {"flow_custom_timesteps": ",".join(f"{time:.7g}" for time in times)}
        return Written(said, json.dumps(said, indent=2), drawn_from(times, "flow_custom_timesteps"))
    normal = density.nearest_lognormal()
    shift, scale = rounded(float(np.exp(normal.mean))), rounded(normal.std)
    said = {"flow_sigmoid_scale": scale, "flow_schedule_shift": shift}
    notes = ("some models set their own flow_schedule_shift (Sana none, Wan by stage): look at the log of the run",)
    return Written(said, json.dumps(said, indent=2), LogNormal(float(np.log(shift)), scale), notes)


def drawn_from(times: Array, name: str) -> OnLevels:
    """The density of uniform draws from a list of flow times, each spread to halfway between its neighbours."""
    inside = np.clip(times, 1e-7, 1 - 1e-7)
    at, count = np.unique(inside, return_counts=True)
    if at.size < 2:
        raise ValueError(f"{name} has one noise level alone; at least 2 are needed for a density.")
    return OnLevels(Levels.around(at / (1 - at)), count.astype(np.float64))


def _listed(settings: Settings) -> Array:
    value = settings.get("flow_custom_timesteps")
    if isinstance(value, str):
        value = [word for word in value.strip("[] ").replace(";", ",").split(",") if word.strip()]
    name = f"{settings.place}: flow_custom_timesteps"
    try:
        times = vector([float(word) for word in value], name, nonnegative=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no list of times ({error}).") from None
    return np.asarray(times if times.max() <= 1 else np.clip(times, 0.0, 1000.0) / 1000)


def _shift(settings: Settings, assumed: Assumed) -> float:
    shift = settings.number("flow_schedule_shift", 3.0)
    if shift > 0:
        return shift
    if settings.flag("flow_schedule_auto_shift"):
        if assumed.shift is None:
            raise ValueError(f"{settings.place}: flow_schedule_auto_shift goes by the size of an image; give shift=.")
        return assumed.shift
    return 1.0


def _read(settings: Settings, assumed: Assumed) -> SigmaDensity:
    if settings.text("flow_custom_timesteps", "none") not in ("none", ""):
        return drawn_from(_listed(settings), f"{settings.place}: flow_custom_timesteps")
    if settings.flag("flux_fast_schedule") or "flow_cubic_schedule_weights" in settings:
        raise ValueError(f"{settings.place}: flux_fast_schedule and flow_cubic_schedule_weights are not read.")
    shift = _shift(settings, assumed)
    if settings.flag("flow_use_uniform_schedule"):
        return LogLogistic(float(np.log(shift)), 1.0)
    if settings.flag("flow_use_beta_schedule"):
        alpha, beta = (settings.number(f"flow_beta_schedule_{name}", 2.0, positive=True) for name in ("alpha", "beta"))
        return OnLevels(_BINS, np.diff(beta_law(alpha, beta).cdf(unshifted(flow_time(_BINS.edges), shift))))
    return LogNormal(float(np.log(shift)), settings.number("flow_sigmoid_scale", 1.0, positive=True))


add_training_target(
    TrainingTarget(
        "simpletuner", ("exact", "count"), write_simple_tuner, lambda s: any(name in s for name in _NAMES), _read
    )
)
