"""Training densities out to the settings of trainers and back.

>>> from codesign_opt import LogNormal
>>> from codesign_opt.exports.training import export_training, read_training
>>> read_training(export_training(LogNormal(0.3, 0.9), "edm2").text)
LogNormal(mean=0.3, std=0.9)
"""

from __future__ import annotations

from .exporting import TrainingExport, export_training
from .reading import read_training
from .settings import Settings
from .targets import Assumed, TrainingTarget, Written, add_training_target, training_targets

__all__ = [
    "Assumed",
    "Settings",
    "TrainingExport",
    "TrainingTarget",
    "Written",
    "add_training_target",
    "export_training",
    "read_training",
    "training_targets",
]
