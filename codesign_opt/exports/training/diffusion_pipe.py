"""diffusion-pipe: the model's table of its TOML file.

models/flux.py and the other models (prepare_inputs): t = sigmoid(sigmoid_scale N(0, 1)) for timestep_sample_method
'logit_normal', the default, or uniform; then shift t / (1 + (shift - 1) t) where a shift is set.
"""

from __future__ import annotations

import numpy as np

from ...basics.checks import choice
from ...ingredients.densities import LogNormal, SigmaDensity
from ...peers.densities.families import LogLogistic
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, rounded

__all__ = ["write_diffusion_pipe"]


def write_diffusion_pipe(density: SigmaDensity) -> Written:
    """Lines of the table [model]."""
    normal = density.nearest_lognormal()
    shift, scale = rounded(float(np.exp(normal.mean))), rounded(normal.std)
    said = {"timestep_sample_method": "logit_normal", "sigmoid_scale": scale, "shift": shift}
    text = f"[model]\ntimestep_sample_method = 'logit_normal'\nsigmoid_scale = {scale}\nshift = {shift}"
    return Written(said, text, LogNormal(float(np.log(shift)), scale))


def _read(settings: Settings, assumed: Assumed) -> SigmaDensity:
    method = settings.text("timestep_sample_method", "logit_normal")
    choice(method, f"{settings.place}: timestep_sample_method", ("logit_normal", "uniform"))
    scale = settings.number("sigmoid_scale", 1.0, positive=True)
    shift = settings.number("shift", 0.0, nonnegative=True)
    if shift == 0 and settings.flag("flux_shift"):
        if assumed.shift is None:
            raise ValueError(
                f"{settings.place}: flux_shift goes by the size of an image; give shift=, its factor on sigma."
            )
        shift = assumed.shift
    place = float(np.log(shift)) if shift else 0.0
    return LogNormal(place, scale) if method == "logit_normal" else LogLogistic(place, 1.0)


add_training_target(
    TrainingTarget("diffusion-pipe", (), write_diffusion_pipe, lambda s: "timestep_sample_method" in s, _read)
)
