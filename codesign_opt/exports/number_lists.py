"""The targets that take a list of numbers: k-diffusion's tensor, ComfyUI's SIGMAS, JSON and CSV."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array
from ..schedulers.noise_table import flow_time
from .fitted_files import comfyui_files, comfyui_text, k_diffusion_text
from .schedule_files import csv_text, json_text, list_text
from .targets import PlannedLevels, Target, add_target

__all__: list[str] = []


def _k_diffusion(levels: PlannedLevels, flow: bool = False) -> tuple[Any, str]:
    """A float32 torch tensor; the file has every digit. Of a fitted solver a module with `sample_fitted`."""
    if levels.own_steps:
        text = k_diffusion_text(levels, flow)
        return text, text
    numbers = _numbers(levels, flow)
    return _tensor(numbers), list_text(numbers)


def _comfyui(levels: PlannedLevels, flow: bool = False) -> tuple[Any, str]:
    """A list of numbers, SIGMAS with its trailing 0. Of a fitted solver the JSON that its node reads."""
    if levels.own_steps:
        text = comfyui_text(levels, flow)
        return text, text
    numbers = _numbers(levels, flow)
    return numbers.tolist(), list_text(numbers)


def _json(levels: PlannedLevels) -> tuple[str, str]:
    solver = dict(levels.sampler) if levels.own_steps else None
    text = json_text(levels.sigmas, solver)
    return text, text


def _csv(levels: PlannedLevels) -> tuple[str, str]:
    text = csv_text(levels.sigmas)
    return text, text


def _numbers(levels: PlannedLevels, flow: bool) -> Array:
    numbers = flow_time(levels.sigmas) if flow else levels.sigmas
    _distinct(numbers, "flow times" if flow else "levels", "double precision")
    return numbers


def _tensor(levels: Array) -> Any:
    import torch

    largest = float(np.finfo(np.float32).max)
    if levels[0] > largest:
        raise ValueError(f"level 0 is {levels[0]:.4g}; float32 ends at {largest:.4g}: start from a smaller level.")
    single = levels.astype(np.float32)
    _distinct(levels, "levels", "float32", single)
    return torch.from_numpy(single)


def _distinct(levels: Array, what: str, precision: str, rounded: Any = None) -> None:
    same = np.flatnonzero(np.diff(levels if rounded is None else rounded) >= 0)
    if same.size:
        i = int(same[0])
        raise ValueError(
            f"{what} {i} and {i + 1} ({levels[i]:.9g}, {levels[i + 1]:.9g}) are one number in {precision}."
        )


for _target in (
    Target("k-diffusion", ("flow",), _k_diffusion, takes_solver=True),
    Target("comfyui", ("flow",), _comfyui, takes_solver=True, beside=comfyui_files),
    Target("json", (), _json, takes_solver=True),
    Target("csv", (), _csv),
):
    add_target(_target)
