"""The target "python": a fitted solver, or a stock multistep sampler on a grid, as a loop that needs no package."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..samplers import exponential, members, raised, unipc  # noqa: F401  they enter their names
from ..samplers.base import Sampler
from ..samplers.linear_multistep import LinearMultistep
from .targets import PlannedLevels, Target, add_target

__all__: list[str] = []

_LOOP = '''"""{title}

x: states at sigmas[0] times the scale s of your process (1 for EDM): mean + sigmas[0] * unit normal noise.
denoiser(x, sigma) -> x0: NumPy arrays, or tensors of PyTorch.
"""

sigmas = {sigmas}
a = {a}
c = {c}
{mean}

def sample(denoiser, x):
    outputs = []  # of the denoiser, the latest first
    for k in range(len(a)):
        outputs.insert(0, denoiser(x, sigmas[k]))
        now = outputs[0]
        step = a[k] * (x - now)
        for j in range(1, min(len(c[k]), len(outputs))):
            step = step + c[k][j] * (outputs[j] - now)
        x = now + step
        del outputs[len(c[k]) :]
    return x
'''


def _python(levels: PlannedLevels) -> tuple[str, str]:
    """Text of a module with `sample(denoiser, x)`; refused for samplers that such a loop is not."""
    a, c = _rows(levels)
    mean = levels.sampler.get("mean", 0.0)
    said = f"mean = {mean!r}  # of the data: the loop does without, since its rows sum to one\n" if np.any(mean) else ""
    lines = {"sigmas": _list(levels.sigmas.tolist()), "a": _list(a), "c": _table(c), "mean": said}
    text = _LOOP.format(title=f"A sampler of {len(a)} steps, one call of the denoiser each.", **lines)
    return text, text


def _rows(levels: PlannedLevels) -> tuple[list[float], list[list[float]]]:
    said = levels.sampler
    if levels.own_steps:
        if any(abs(1 - factor - sum(row)) > 1e-9 for factor, row in zip(said["a"], said["c"], strict=True)):
            raise ValueError("export: the rows of this solver do not sum to one; its loop would need the data's mean.")
        return said["a"], said["c"]
    if said.get("name", "euler") == "euler":
        ratios = [float(low / high) for high, low in pairwise(levels.sigmas)]
        return ratios, [[1 - ratio] for ratio in ratios]
    sampler = Sampler.from_dict(said)
    if sampler.stochastic or sampler.evaluations_per_step != 1:
        raise ValueError(
            f"export: the target 'python' writes steps of one denoiser call without noise, not {said['name']}'s; "
            'fit a solver with codesign(..., solver="fit"), or take the levels to a program that has this sampler.'
        )
    rows = LinearMultistep.of(sampler, levels.sigmas)
    return rows.a.tolist(), rows.c.tolist()


def _list(values: list[float]) -> str:
    return "[" + ", ".join(repr(float(value)) for value in values) + "]"


def _table(rows: list[list[float]]) -> str:
    return "[\n" + "".join(f"    {_list(row)},\n" for row in rows) + "]"


add_target(Target("python", (), _python, takes_solver=True))
