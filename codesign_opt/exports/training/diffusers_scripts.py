"""The training scripts of diffusers' examples.

Flow models (train_dreambooth_sd3.py, train_dreambooth_flux.py and 22 others): u = compute_density_for_timestep_sampling
(training_utils.py), index floor(1000 u) into the scheduler's timesteps, which run from noise to data: t = 1 - index /
1000, shifted by the scheduler's `shift` (3 for Stable Diffusion 3; 1 where use_dynamic_shifting is set, as for FLUX.1).
logit u therefore is ln shift - ln sigma: the mean has the other sign than in every trainer that draws t itself.

SDXL (text_to_image/train_text_to_image_sdxl.py, generate_timestep_weights): whole timesteps, those of a range
--timestep_bias_multiplier times as often as the rest.
"""

from __future__ import annotations

import numpy as np

from ...basics.checks import choice, scale_of
from ...ingredients.densities import SigmaDensity
from ...peers.densities.of_timesteps import noise_table, timesteps
from .kohya import from_noise
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, flags, rounded
from .timestep_ranges import biased, closest_bias

__all__ = ["write_diffusers", "write_diffusers_sdxl"]


def write_diffusers(density: SigmaDensity, shift: float = 1.0) -> Written:
    """Options of the scripts for flow models.

    Args:
        density: what is to be drawn.
        shift: of the scheduler that the script loads: 3 for Stable Diffusion 3, 1 for FLUX.1.
    """
    factor = scale_of(shift, "export_training.shift")
    normal = density.nearest_lognormal()
    said = {"weighting_scheme": "logit_normal", "logit_mean": rounded(float(np.log(factor)) - normal.mean),
            "logit_std": rounded(normal.std)}  # fmt: skip
    notes = (f"for a scheduler of shift {factor:g}; indices run from noise to data, so that the mean is ln shift - m",)
    return Written(said, flags(said), from_noise(Settings(said), factor, "none"), notes)


def write_diffusers_sdxl(density: SigmaDensity, table: object = None) -> Written:
    """Bias options of train_text_to_image_sdxl.py.

    Args:
        density: what is to be drawn.
        table: a scheduler or noise levels; Stable Diffusion's unless given.
    """
    first, last, factor = closest_bias(density, table)
    said = {"timestep_bias_strategy": "range", "timestep_bias_begin": first, "timestep_bias_end": last,
            "timestep_bias_multiplier": rounded(factor)}  # fmt: skip
    found = timesteps(table, biased(first, last, rounded(factor), noise_table(table).sigmas.size))
    return Written(said, flags(said), found, ("the loss weight (--snr_gamma) stays as it is",))


def _read_flow(settings: Settings, assumed: Assumed) -> SigmaDensity:
    if assumed.shift is None:
        raise ValueError(
            f"{settings.place}: the shift is the scheduler's and not among these settings; give shift= (3 for Stable "
            "Diffusion 3, 1 for FLUX.1)."
        )
    return from_noise(settings, assumed.shift, "none")


def _read_sdxl(settings: Settings, assumed: Assumed) -> SigmaDensity:
    table = noise_table(assumed.table)
    count, name = table.sigmas.size, f"{settings.place}: timestep_bias_strategy"
    kind = choice(settings.text("timestep_bias_strategy", "none"), name, ("none", "earlier", "later", "range"))
    if kind == "none":
        return timesteps(table)
    factor = settings.number("timestep_bias_multiplier", 1.0, positive=True)
    part = int(settings.number("timestep_bias_portion", 0.25, positive=True, maximum=1.0) * count)
    first, last = (0, part) if kind == "earlier" else (count - part, count)
    if kind == "range":
        first = int(settings.number("timestep_bias_begin", 0.0, nonnegative=True))
        last = int(settings.number("timestep_bias_end", 1000.0, positive=True, maximum=float(count)))
    if not first < last:
        raise ValueError(f"{settings.place}: the biased range from {first} to {last} has no timestep.")
    return timesteps(table, biased(first, last, factor, count))


add_training_target(
    TrainingTarget(
        "diffusers-sdxl", ("table",), write_diffusers_sdxl, lambda s: "timestep_bias_strategy" in s, _read_sdxl
    )
)
add_training_target(
    TrainingTarget(
        "diffusers", ("shift",), write_diffusers, lambda s: "weighting_scheme" in s or "logit_mean" in s, _read_flow
    )
)
