"""read_training: the density that a trainer's settings stand for."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ...ingredients.densities import SigmaDensity
from .exporting import TRAINING_TARGETS
from .settings import Settings, read_settings
from .targets import Assumed

__all__ = ["read_training"]

_ORDER = ("timesteps", "json", "k-diffusion", "onetrainer", "simpletuner", "diffusion-pipe", "musubi-tuner",
          "sd-scripts", "edm2", "edm", "diffusers-sdxl", "diffusers")  # fmt: skip


def read_training(
    source: Any, *, target: str | None = None, shift: float | None = None, table: Any = None
) -> SigmaDensity:
    """The density over noise levels that a trainer draws by its settings: for `audit`, what do my settings cost?

    Args:
        source: path or text of a TOML, JSON or YAML file (YAML by PyYAML, where it is installed), of a shell script
            with the command line, or of a CSV of quantiles; a list of words; a dict.
        target: the trainer; recognised by names of its settings unless given.
        shift: factor on sigma of a flow's scheduler or of an image's size, where settings leave it to the model.
        table: of networks that are told whole timesteps: a diffusers scheduler or (T,) noise levels; Stable
            Diffusion's unless given.

    Returns:
        A SigmaDensity; `TrainingRun(density=...)` takes it.

    Raises:
        ValueError: settings of no known trainer, a value that is wrong, or a law that is not read; by name.
        ImportError: YAML without PyYAML.

    >>> read_training("flux_train.py --timestep_sampling shift --discrete_flow_shift 1.0 --sigmoid_scale 1.3")
    LogNormal(mean=0.0, std=1.3)
    >>> read_training({"model": {"timestep_sample_method": "gaussian"}})
    Traceback (most recent call last):
    ValueError: the settings: timestep_sample_method is 'gaussian'; it must be one of 'logit_normal', 'uniform'.
    """
    settings = _quantile_table(source) or read_settings(source)
    assumed = Assumed(shift, table)
    if target is not None:
        return TRAINING_TARGETS.find(target).read(settings, assumed)
    own = [name for name in TRAINING_TARGETS.names() if name not in _ORDER and name != "csv"]
    for name in (*own, *_ORDER):
        if TRAINING_TARGETS.find(name).owns(settings):
            return TRAINING_TARGETS.find(name).read(settings, assumed)
    some = ", ".join(list(dict.fromkeys(key.split(".")[-1] for key in settings.values))[:8])
    raise ValueError(
        f"{settings.place}: no setting of a known trainer says where noise levels are drawn (found: {some}). Give "
        f"target= if its defaults are meant: {', '.join(_ORDER)}."
    )


def _quantile_table(source: Any) -> Settings | None:
    """Columns of a CSV that `export_training` wrote."""
    if isinstance(source, Path) or (isinstance(source, str) and "\n" not in source):
        path = Path(source)
        if path.suffix.lower() != ".csv":
            return None
        source = path.read_text(encoding="utf-8-sig")
    if not isinstance(source, str) or not source.startswith("u,sigma,time"):
        return None
    rows = list(csv.DictReader(io.StringIO(source)))
    return Settings(
        {"kind": "codesign_opt.training_density", "sigma": [float(row["sigma"]) for row in rows]}, "the CSV"
    )
