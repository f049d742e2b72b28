"""A fitted solver for ComfyUI and k-diffusion: numbers in their states and levels, and the code that runs them."""

from __future__ import annotations

import json
from pprint import pformat
from typing import Any

import numpy as np

from ..schedulers.noise_table import flow_time
from .standalone import source_of
from .targets import PlannedLevels

__all__ = ["FITTED_KIND", "FITTED_VERSION", "comfyui_files", "comfyui_text", "k_diffusion_text"]

FITTED_KIND = "codesign_opt.fitted_solver"
FITTED_VERSION = 1
_NODES = "comfyui_fitted_solvers.py"
_TITLE = '''"""A fitted solver of {steps} steps, one call of the model each, called as the samplers of k-diffusion are.

    sample_fitted(model, sigmas[0] * noise, torch.tensor(sigmas)), with sigmas = SOLVER["sigmas"]
"""
'''


def comfyui_text(levels: PlannedLevels, flow: bool = False) -> str:
    """JSON that the node of ComfyUI reads; the solver itself is in it, too, with every digit."""
    return json.dumps(_record(levels, flow), indent=1) + "\n"


def comfyui_files(levels: PlannedLevels) -> dict[str, str]:
    """The file of the node, for a fitted solver."""
    return {_NODES: source_of(_NODES)} if levels.own_steps else {}


def k_diffusion_text(levels: PlannedLevels, flow: bool = False) -> str:
    """Text of a module with `sample_fitted` and the solver's numbers."""
    record = _record(levels, flow)
    code = source_of(_NODES).split("# ---- the node of ComfyUI ----")[0].rstrip() + "\n"
    imports = code[code.index("import json") :].replace("import json\nfrom pathlib import Path\n", "")
    numbers = pformat(record, width=116, sort_dicts=False, compact=True)
    empty = "SOLVER: dict[str, Any] = {}"
    return _TITLE.format(steps=record["steps"]) + "\n" + imports.replace(empty, f"SOLVER: dict[str, Any] = {numbers}")


def _record(levels: PlannedLevels, flow: bool) -> dict[str, Any]:
    """x' = a x + sum_j c_j D_j + shift in the states that the program keeps, on what it calls sigmas.

    A flow's states are (1 - t) times ours, so that its rows carry the scales of both ends of the step.
    """
    solver, sigma = levels.sampler, levels.sigmas
    a, c, mean = (np.asarray(solver[part], dtype=np.float64) for part in ("a", "c", "mean"))
    rest = 1.0 - a - c.sum(axis=1)
    rest = np.where(np.abs(rest) > 1e-12, rest, 0.0)
    scale = 1.0 / (1.0 + sigma) if flow else np.ones(sigma.size)
    shift = [(after * left * mean).tolist() for after, left in zip(scale[1:], rest, strict=True)]
    return {
        "kind": FITTED_KIND,
        "schema_version": FITTED_VERSION,
        "flow": flow,
        "steps": a.size,
        "sigmas": (flow_time(sigma) if flow else sigma).tolist(),
        "a": (a * scale[1:] / scale[:-1]).tolist(),
        "c": (c * scale[1:, None]).tolist(),
        "shift": shift,
        "solver": {"name": solver["name"], **{part: solver[part] for part in ("levels", "a", "c", "mean")}},
    }
