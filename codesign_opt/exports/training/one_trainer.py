"""OneTrainer: its JSON configuration.

modules/modelSetup/mixin/ModelSetupNoiseMixin.py (_get_timestep_discrete): u by timestep_distribution, LOGIT_NORMAL with
mean noising_bias and standard deviation noising_weight + 1; the timestep 1000 u, shifted by timestep_shift, is cut to
a whole number. Flow models (ModelSetupFlowMatchingMixin) add noise t = (timestep + 1) / 1000; Stable Diffusion 1, 2 and
XL take that timestep of their table.
"""

from __future__ import annotations

import json

import numpy as np
from scipy.special import expit
from scipy.stats import beta as beta_law

from ...basics.checks import Array, choice
from ...ingredients.densities import SigmaDensity
from ...peers.densities.of_timesteps import flow_timesteps, noise_table, timesteps
from .index_laws import STEPS, logit_normal_share, mode_share, parts, unshifted
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, rounded

__all__ = ["write_one_trainer"]

_KINDS = ("uniform", "logit_normal", "heavy_tail", "beta", "cos_map", "sigmoid", "inverted_parabola")


def write_one_trainer(density: SigmaDensity) -> Written:
    """Entries of the configuration, for flow models; whole timesteps are as near as t = i / 1000 comes."""
    normal = density.nearest_lognormal()
    said = {
        "timestep_distribution": "LOGIT_NORMAL", "noising_bias": rounded(normal.mean),
        "noising_weight": rounded(normal.std - 1), "timestep_shift": 1.0, "dynamic_timestep_shifting": False,
        "min_noising_strength": 0.0, "max_noising_strength": 1.0,
    }  # fmt: skip
    return Written(said, json.dumps(said, indent=2), _read(Settings(said), Assumed()))


def _u_share(settings: Settings, kind: str, u: Array) -> Array:
    """P(draw <= u) of the continuous distributions."""
    weight, bias = settings.number("noising_weight", 0.0), settings.number("noising_bias", 0.0)
    if kind == "logit_normal":
        if weight <= -1:
            raise ValueError(f"{settings.place}: noising_weight is {weight:g}; LOGIT_NORMAL needs more than -1.")
        return logit_normal_share(u, bias, weight + 1)
    if kind == "heavy_tail":
        return mode_share(u, weight)
    if kind == "beta":
        return np.asarray(beta_law(max(1e-4, weight), max(1e-4, bias)).cdf(u))
    return u


def _weights(settings: Settings, kind: str, shift: float, count: int) -> Array:
    """Weights of the distributions that are drawn as tables."""
    line = np.linspace(0.0, 1.0, count)
    at, slope = line / (shift - shift * line + line), shift / (shift + line - line * shift) ** 2
    weight, bias = settings.number("noising_weight", 0.0), settings.number("noising_bias", 0.0) + 0.5
    if kind == "cos_map":
        return np.asarray(2 / (np.pi - 2 * np.pi * at + 2 * np.pi * at**2) * slope)
    if kind == "sigmoid":
        return np.asarray(expit(weight * (at / (shift - shift * at + at) - bias)) * slope)
    return np.asarray(np.maximum(-weight * (at - bias) ** 2 + 2, 0.0) * slope)


def _read(settings: Settings, assumed: Assumed) -> SigmaDensity:
    name = f"{settings.place}: timestep_distribution"
    kind = choice(settings.text("timestep_distribution", "uniform"), name, _KINDS)
    shift = settings.number("timestep_shift", 1.0, positive=True)
    if settings.flag("dynamic_timestep_shifting"):
        if assumed.shift is None:
            raise ValueError(f"{settings.place}: dynamic_timestep_shifting goes by the size of an image; give shift=.")
        shift = assumed.shift
    low, high = (int(STEPS * settings.number(f"{end}_noising_strength", default, nonnegative=True, maximum=1.0))
                 for end, default in (("min", 0.0), ("max", 1.0)))  # fmt: skip
    if not low < high:
        raise ValueError(f"{settings.place}: min_noising_strength must be below max_noising_strength.")
    if kind in ("cos_map", "sigmoid", "inverted_parabola"):
        share = np.zeros(STEPS)
        share[low:high] = _weights(settings, kind, shift, high - low)
    else:
        u = (unshifted(np.linspace(0.0, 1.0, STEPS + 1), shift) * STEPS - low) / (high - low)
        share = parts(_u_share(settings, kind, np.clip(u, 0.0, 1.0)))
    model = settings.text("model_type")
    if model.startswith("stable_diffusion") and not model.startswith("stable_diffusion_3"):
        return timesteps(noise_table(assumed.table), share)
    return flow_timesteps(1.0, STEPS, share)


add_training_target(TrainingTarget("onetrainer", (), write_one_trainer, lambda s: "timestep_distribution" in s, _read))
