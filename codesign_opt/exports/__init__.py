"""Noise levels and fitted solvers out to other programs and in from them: diffusers, k-diffusion, ComfyUI, JSON, CSV.

>>> from codesign_opt.exports import export, read_schedule
>>> read_schedule(export([14.6, 2.5, 0.3, 0.0], "comfyui")).tolist()
[14.6, 2.5, 0.3, 0.0]
"""

from __future__ import annotations

from .diffusers_export import DiffusersExport, for_diffusers
from .exporting import export
from .pipeline_calls import PipelineCall
from .reading import read_schedule
from .solver_reading import read_solver
from .targets import PlannedLevels, Target, add_target, targets

__all__ = [
    "DiffusersExport",
    "PipelineCall",
    "PlannedLevels",
    "Target",
    "add_target",
    "export",
    "for_diffusers",
    "read_schedule",
    "read_solver",
    "targets",
]
