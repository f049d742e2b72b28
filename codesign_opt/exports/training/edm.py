"""EDM and EDM2: ln sigma ~ N(P_mean, P_std^2).

EDM's training/loss.py (EDMLoss: `sigma = (rnd_normal * self.P_std + self.P_mean).exp()`); its train.py has no options
for the two, which go into `c.loss_kwargs`. EDM2's training/training_loop.py (EDM2Loss) draws alike; its train_edm2.py
has --P_mean and --P_std, and presets: -0.4 and 1 for img512, -0.8 and 1.6 for img64 (its `config_presets`).
"""

from __future__ import annotations

from ...ingredients.densities import LogNormal, SigmaDensity
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, rounded

__all__ = ["EDM2_PRESETS"]

EDM2_PRESETS = {"edm2_img512": (-0.4, 1.0), "edm2_img64": (-0.8, 1.6)}


def _write(density: SigmaDensity, text: str) -> Written:
    normal = density.nearest_lognormal()
    found = LogNormal(rounded(normal.mean), rounded(normal.std))
    settings = {"P_mean": found.mean, "P_std": found.std}
    return Written(settings, text.format(**settings), found)


def write_edm(density: SigmaDensity) -> Written:
    """A line for EDM's train.py, after `c.loss_kwargs` is made."""
    return _write(density, "c.loss_kwargs.update(P_mean={P_mean}, P_std={P_std})")


def write_edm2(density: SigmaDensity) -> Written:
    """Options of EDM2's train_edm2.py."""
    return _write(density, "--P_mean={P_mean} --P_std={P_std}")


def _owns_edm2(settings: Settings) -> bool:
    loss = settings.text("loss_kwargs.class_name")
    return settings.text("preset").startswith("edm2") or "edm2" in loss or "train_edm2" in settings.words


def _owns_edm(settings: Settings) -> bool:
    return "p_mean" in settings or "p_std" in settings or settings.text("loss_kwargs.class_name").endswith("edmloss")


def _read_edm(settings: Settings, assumed: Assumed) -> SigmaDensity:
    return LogNormal(settings.number("p_mean", -1.2), settings.number("p_std", 1.2, positive=True))


def _read_edm2(settings: Settings, assumed: Assumed) -> SigmaDensity:
    preset = settings.text("preset", "edm2-img512-s").replace("-", "_")
    mean, std = next((v for k, v in EDM2_PRESETS.items() if preset.startswith(k)), (None, None))
    return LogNormal(settings.number("p_mean", mean), settings.number("p_std", std, positive=True))


add_training_target(TrainingTarget("edm2", (), write_edm2, _owns_edm2, _read_edm2))
add_training_target(TrainingTarget("edm", (), write_edm, _owns_edm, _read_edm))
