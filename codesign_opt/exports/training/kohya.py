"""kohya-ss's trainers: sd-scripts and musubi-tuner.

Flow models by `--timestep_sampling shift`: t = sigmoid(sigmoid_scale N(0, 1)), then shift t / (1 + (shift - 1) t) with
the shift --discrete_flow_shift, so that ln sigma ~ N(ln shift, sigmoid_scale^2) (get_noisy_model_input_and_timesteps in
library/flux_train_utils.py of sd-scripts and in training/trainer_base.py of musubi-tuner). sd-scripts' default shift
is 3, musubi's 1; only musubi has "logsnr": t = sigmoid(-x / 2), x ~ N(logit_mean, logit_std^2).

Three laws beside it run in different directions. `--timestep_sampling sigma` takes the index floor(1000 u) of a
schedule from noise to data (u logit-normal by --weighting_scheme logit_normal), shifted by --discrete_flow_shift in
sd-scripts and by nothing in musubi, whose scheduler shifts only in set_timesteps. sd-scripts' SD3 scripts shift u by
--training_shift and take t = floor(1000 u) / 1000, from data to noise (library/sd3_train_utils.py). SD1, SD2 and SDXL
draw whole timesteps uniformly from --min_timestep to --max_timestep (library/train_util.py, get_timesteps).
"""

from __future__ import annotations

import numpy as np

from ...basics.checks import Array, choice
from ...ingredients.densities import LogNormal, SigmaDensity
from ...peers.densities.families import LogLogistic
from ...peers.densities.of_timesteps import flow_timesteps, noise_table, timesteps
from .index_laws import STEPS, logit_normal_share, mode_share, parts, unshifted
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, flags, rounded
from .timestep_ranges import closest_range

__all__ = ["write_musubi", "write_sd_scripts"]

_PLAIN = ("uniform", "none", "sigma_sqrt", "cosmap", "")  # weighting schemes that leave u uniform
_BY_SIZE = ("flux_shift", "flux2_shift", "qwen_shift", "krea2_shift", "ideogram4_shift", "nextdit_shift")
_MUSUBI_ONLY = (
    "logsnr",
    "flux2_shift",
    "qwen_shift",
    "krea2_shift",
    "ideogram4_shift",
    "qinglong_flux",
    "qinglong_qwen",
)


def _shifted(density: SigmaDensity) -> tuple[dict[str, object], LogNormal]:
    normal = density.nearest_lognormal()
    shift, scale = rounded(float(np.exp(normal.mean))), rounded(normal.std)
    said = {"timestep_sampling": "shift", "discrete_flow_shift": shift, "sigmoid_scale": scale}
    return said, LogNormal(float(np.log(shift)), scale)


def write_sd_scripts(density: SigmaDensity, model: str = "flow", table: object = None) -> Written:
    """Options of sd-scripts.

    Args:
        density: what is to be drawn.
        model: "flow" (FLUX and the others with --timestep_sampling), "sd3", or "sdxl" (SD1, SD2 and SDXL, which take a
            range of timesteps alone).
        table: of "sdxl": a scheduler or noise levels; Stable Diffusion's unless given.
    """
    kind = choice(model, "export_training.model", ("flow", "sd3", "sdxl"))
    if kind == "flow":
        said, found = _shifted(density)
        return Written(said, flags(said), found)
    if kind == "sd3":
        normal = density.nearest_lognormal()
        said = {"weighting_scheme": "logit_normal", "logit_mean": rounded(normal.mean),
                "logit_std": rounded(normal.std), "training_shift": 1.0}  # fmt: skip
        return Written(said, flags(said), _sd3(Settings(said)))
    first, last = closest_range(density, table)
    said = {"min_timestep": first, "max_timestep": last}
    notes = ("SD1, SD2 and SDXL draw timesteps uniformly in a range: a loss weight (--min_snr_gamma) stays as it is",)
    return Written(said, flags(said), timesteps(table, _range(first, last, noise_table(table).sigmas.size)), notes)


def write_musubi(density: SigmaDensity, sampling: str = "shift") -> Written:
    """Options of musubi-tuner.

    Args:
        density: what is to be drawn.
        sampling: "shift", or "logsnr", the same density by the mean and standard deviation of the log-SNR.
    """
    if choice(sampling, "export_training.sampling", ("shift", "logsnr")) == "shift":
        said, found = _shifted(density)
        return Written(said, flags(said), found)
    normal = density.nearest_lognormal()
    mean, std = rounded(-2 * normal.mean), rounded(2 * normal.std)
    said = {"timestep_sampling": "logsnr", "logit_mean": mean, "logit_std": std}
    return Written(said, flags(said), LogNormal(-mean / 2, std / 2))


def _range(first: int, last: int, count: int) -> Array:
    at = np.arange(count)
    return ((at >= first) & (at < last)).astype(np.float64)


def _limits(settings: Settings) -> tuple[float, float]:
    low = settings.number("min_timestep", 0.0, nonnegative=True, maximum=999.0)
    high = settings.number("max_timestep", 1000.0, positive=True, maximum=1000.0)
    if not low < high:
        raise ValueError(f"{settings.place}: min_timestep is {low:g} but max_timestep is {high:g}; it must be smaller.")
    return low, high


def index_share(settings: Settings, u: Array, uniform: str) -> Array:
    """P(draw <= u) of the u that a weighting scheme draws, as in diffusers' scripts.

    Raises:
        ValueError: an unknown scheme.
    """
    scheme = settings.text("weighting_scheme", uniform)
    if scheme == "logit_normal":
        return logit_normal_share(
            u, settings.number("logit_mean", 0.0), settings.number("logit_std", 1.0, positive=True)
        )
    if scheme == "mode":
        return mode_share(u, settings.number("mode_scale", 1.29))
    choice(scheme, f"{settings.place}: weighting_scheme", ("logit_normal", "mode", *_PLAIN))
    return np.asarray(u)


def from_noise(settings: Settings, shift: float, uniform: str) -> SigmaDensity:
    """The density of the index floor(1000 u) in a schedule that runs from noise to data."""
    share = parts(index_share(settings, np.linspace(0.0, 1.0, STEPS + 1), uniform))
    return flow_timesteps(shift, STEPS, share[::-1])


def _sd3(settings: Settings) -> SigmaDensity:
    low, high = _limits(settings)
    shift = settings.number("training_shift", 1.0, positive=True)
    time = np.clip((np.arange(STEPS + 1) - low) / (high - low), 0.0, 1.0)
    share = parts(index_share(settings, unshifted(time, shift), "uniform"))
    return flow_timesteps(1.0, STEPS, np.append(share[1:], 0.0))  # the first timestep is without noise: nothing to say


def _sampling(settings: Settings, assumed: Assumed, shift: float) -> SigmaDensity:
    """The laws of `--timestep_sampling` that both trainers share; `shift` is the trainer's default."""
    kind = settings.text("timestep_sampling", "sigma")
    scale = settings.number("sigmoid_scale", 1.0, positive=True)
    if kind == "uniform":
        return LogLogistic(0.0, 1.0)
    if kind == "sigmoid":
        return LogNormal(0.0, scale)
    if kind == "shift":
        factor = settings.number("discrete_flow_shift", shift, positive=True)
        return LogNormal(float(np.log(factor)), scale)
    if kind in _BY_SIZE and assumed.shift is not None and kind != "ideogram4_shift":
        return LogNormal(float(np.log(assumed.shift)), scale)
    if kind in _BY_SIZE:
        raise ValueError(
            f"{settings.place}: timestep_sampling {kind!r} shifts by the size of an image; give shift=, the factor on "
            "sigma at yours (3.16 for FLUX at 1024 x 1024)."
        )
    choice(kind, f"{settings.place}: timestep_sampling", ("sigma", "uniform", "sigmoid", "shift", *_BY_SIZE, "logsnr"))
    raise ValueError(f"{settings.place}: timestep_sampling 'logsnr' is musubi-tuner's; say target='musubi-tuner'.")


def _read_sd_scripts(settings: Settings, assumed: Assumed) -> SigmaDensity:
    if "training_shift" in settings or "sd3" in settings.words:
        return _sd3(settings)
    if "timestep_sampling" in settings or "flux" in settings.words or "lumina" in settings.words:
        if settings.text("timestep_sampling", "sigma") == "sigma":
            return from_noise(settings, settings.number("discrete_flow_shift", 3.0, positive=True), "uniform")
        return _sampling(settings, assumed, 3.0)
    low, high = _limits(settings)
    return timesteps(assumed.table, _range(int(low), int(high), noise_table(assumed.table).sigmas.size))


def _read_musubi(settings: Settings, assumed: Assumed) -> SigmaDensity:
    low, high = _limits(settings)
    if settings.text("timestep_sampling", "sigma") == "logsnr":
        std = settings.number("logit_std", 1.0, positive=True)
        found: SigmaDensity = LogNormal(-settings.number("logit_mean", 0.0) / 2, std / 2)
    elif settings.text("timestep_sampling", "sigma") == "sigma":
        if (low, high) != (0.0, 1000.0):
            raise ValueError(f"{settings.place}: a range of timesteps with timestep_sampling 'sigma' is not read.")
        return from_noise(settings, 1.0, "none")
    else:
        found = _sampling(settings, assumed, 1.0)
    if (low, high) == (0.0, 1000.0):
        return found
    if not settings.flag("preserve_distribution_shape"):
        raise ValueError(
            f"{settings.place}: min_timestep and max_timestep squeeze the whole density into t from {low / 1000:g} to "
            f"{high / 1000:g}, which is not read; add preserve_distribution_shape, which cuts it off there."
        )
    return found.between(low / (1000 - low), high / (1000 - high) if high < 1000 else 1e300)


def _owns_musubi(settings: Settings) -> bool:
    named = any(
        word in settings.words for word in ("musubi", "hv_train", "wan_train", "qwen_image_train", "fpack_train")
    )
    return named or settings.text("timestep_sampling") in _MUSUBI_ONLY or "preserve_distribution_shape" in settings


def _owns_sd_scripts(settings: Settings) -> bool:
    names = ("timestep_sampling", "training_shift", "discrete_flow_shift", "min_timestep", "max_timestep")
    return any(name in settings for name in names)


add_training_target(TrainingTarget("musubi-tuner", ("sampling",), write_musubi, _owns_musubi, _read_musubi))
add_training_target(
    TrainingTarget("sd-scripts", ("model", "table"), write_sd_scripts, _owns_sd_scripts, _read_sd_scripts)
)
