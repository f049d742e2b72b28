"""k-diffusion: `sigma_sample_density` in the model's part of a configuration.

k_diffusion/config.py (make_sample_density) and k_diffusion/utils.py (rand_log_normal and its neighbours): "lognormal"
(mean or loc, std or scale), "loglogistic", "loguniform", "v-diffusion" or "cosine", "split-lognormal" and
"cosine-interpolated". There is no type that takes a table.
"""

from __future__ import annotations

import json

import numpy as np

from ...basics.checks import choice
from ...ingredients.densities import LogNormal, SigmaDensity, closest
from ...peers.densities.families import LogLogistic, LogUniform, VDiffusion
from ...peers.densities.split import SplitLogNormal
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, rounded

__all__ = ["write_k_diffusion"]

_FORMS = ("lognormal", "split-lognormal")
_ENDLESS = 1e300


def write_k_diffusion(density: SigmaDensity, form: str = "split-lognormal") -> Written:
    """`sigma_sample_density` of a configuration, as JSON.

    Args:
        density: what is to be drawn.
        form: "split-lognormal", or "lognormal", which k-diffusion stratifies over processes and costs more.
    """
    kind = choice(form, "export_training.form", _FORMS)
    normal = density.nearest_lognormal()
    found: SigmaDensity = LogNormal(rounded(normal.mean), rounded(normal.std))
    said: dict[str, object] = {"type": kind, "mean": rounded(normal.mean), "std": rounded(normal.std)}
    if kind == "split-lognormal":
        start = np.array([normal.mean, np.log(normal.std), np.log(normal.std)])
        split = closest(density, SplitLogNormal.of_parameters, start)[0]
        place, low, high = (rounded(value) for value in (split.location, split.scale_1, split.scale_2))
        found, said = SplitLogNormal(place, low, high), {"type": kind, "mean": place, "std_1": low, "std_2": high}
    settings = {"model": {"sigma_sample_density": said}}
    return Written(settings, json.dumps(settings, indent=2), found)


def _either(settings: Settings, name: str, other: str, default: float | None = None, **limits: bool) -> float:
    at = f"sigma_sample_density.{name if f'sigma_sample_density.{name}' in settings else other}"
    return settings.number(at, default, **limits)


def _read(settings: Settings, assumed: Assumed) -> SigmaDensity:
    part = "sigma_sample_density"
    data = settings.number("sigma_data", 1.0, positive=True)
    kind = choice(settings.text(f"{part}.type"), f"{settings.place}: {part}.type",
                  (*_FORMS, "loglogistic", "loguniform", "v-diffusion", "cosine", "cosine-interpolated"))  # fmt: skip
    if kind == "lognormal":
        return LogNormal(_either(settings, "mean", "loc"), _either(settings, "std", "scale", positive=True))
    if kind == "split-lognormal":
        scales = (_either(settings, f"std_{i}", f"scale_{i}", positive=True) for i in (1, 2))
        return SplitLogNormal(_either(settings, "mean", "loc"), *scales)
    if kind == "loguniform":
        ends = (
            f"{part}.{end}_value" if f"{part}.{end}_value" in settings else f"sigma_{end}" for end in ("min", "max")
        )
        return LogUniform(*(settings.number(end, positive=True) for end in ends))
    if kind == "cosine-interpolated":
        raise ValueError(
            f"{settings.place}: {part}.type is 'cosine-interpolated', which is not read; give its density, such as "
            "peers.training_density('v_diffusion')."
        )
    law: SigmaDensity = VDiffusion(data)
    low, high = 1e-3, 1e3
    if kind == "loglogistic":
        place = settings.number(f"{part}.loc", float(np.log(data)))
        law = LogLogistic(place, settings.number(f"{part}.scale", 0.5, positive=True))
        low, high = 0.0, _ENDLESS
    low = settings.number(f"{part}.min_value", low, nonnegative=True)
    high = settings.number(f"{part}.max_value", high, positive=True)
    return law if (low, high) == (0.0, _ENDLESS) else law.between(low, high)


add_training_target(
    TrainingTarget("k-diffusion", ("form",), write_k_diffusion, lambda s: "sigma_sample_density" in s, _read)
)
