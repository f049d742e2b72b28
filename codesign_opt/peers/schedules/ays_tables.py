"""The published tables of Align Your Steps, and schedules that use them as their users do."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...basics.checks import Array, choice, integer
from ...ingredients.evaluations import MOST_STEPS, final_steps
from ...models.evidence import Evidence
from .base import Schedule

__all__ = ["AYSXL", "AYS_TABLES", "AYS_TIMESTEPS", "AYSDeepFloyd", "AYSStableDiffusion", "AYSVideo", "ays_table"]

# Noise levels of 10 steps, sigma_max first and sigma_min last (Sabour et al. 2024, table 3)
AYS_TABLES: dict[str, tuple[float, ...]] = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
    "deepfloyd": (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006),
}

# The timesteps of the same levels, for schedulers that take timesteps alone; the last level is replaced by 0
AYS_TIMESTEPS: dict[str, tuple[int, ...]] = {
    "sd15": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
    "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
    "deepfloyd": (995, 920, 811, 686, 555, 418, 315, 174, 109, 12),
}


def ays_table(name: str, steps: int = 10, *, terminal: str = "denoise") -> Array:
    """Noise levels of a published table at any number of steps, by linear interpolation of log sigma.

    As diffusers and ComfyUI use it: the 11 values at equal places of [0, 1], read at steps + 1 equal places, and the
    last replaced by 0.

    Args:
        name: "sd15", "sdxl", "svd" or "deepfloyd".
        steps: number of steps K.
        terminal: "denoise" ends with 0, "rescale" keeps the last value, the model's sigma_min.

    Returns:
        (K+1,) descending, in the model's own units: sigma_t / alpha_t.

    Raises:
        ValueError: an unknown table or terminal, less than 1 step.

    >>> ays_table("sdxl", 5).round(3).tolist()
    [14.615, 3.771, 1.342, 0.555, 0.234, 0.0]
    """
    table = np.array(AYS_TABLES[choice(name, "table", AYS_TABLES)])
    count = integer(steps, "steps", minimum=1, maximum=MOST_STEPS) + 1
    if count != table.size:
        table = np.exp(np.interp(np.linspace(0, 1, count), np.linspace(0, 1, table.size), np.log(table)))
    if choice(terminal, "terminal", ("denoise", "rescale")) == "denoise":
        table[-1] = 0.0
    return table


class _Table(Schedule):
    """A table of Align Your Steps, stretched in log sigma so that its ends are the evidence's; on its own range itself.

    Under "denoise" the table's last value gives way to 0, as its users have it: sigma_min is not one of the levels.

    >>> AYSStableDiffusion().sigmas(10, Evidence(sigma_min=0.029, sigma_max=14.615)).tolist()
    [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    >>> AYSXL().sigmas(2, Evidence(sigma_min=0.029, sigma_max=14.615)).round(3).tolist()
    [14.615, 0.862, 0.0]
    >>> AYSVideo().sigmas(2, Evidence(sigma_min=0.002, sigma_max=700.0)).round(3).tolist()
    [700.0, 1.789, 0.0]
    >>> AYSDeepFloyd().sigmas(2, Evidence(sigma_min=0.006, sigma_max=160.41)).round(3).tolist()
    [160.41, 0.785, 0.0]
    """

    table: ClassVar[str]

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        steps = count - 1 + final_steps(evidence.terminal)
        own = ays_table(self.table, steps, terminal="rescale")
        if np.allclose((own[0], own[-1]), (evidence.sigma_max, evidence.sigma_min), rtol=1e-12, atol=0):
            return own[:count]
        place = np.log(own / own[-1]) / np.log(own[0] / own[-1])
        stretched = evidence.sigma_min * (evidence.sigma_max / evidence.sigma_min) ** place
        return evidence.between(stretched)[:count]


class AYSStableDiffusion(_Table):
    name: ClassVar[str] = "ays_sd15"
    title: ClassVar[str] = "Align Your Steps, table for Stable Diffusion 1.5"
    table: ClassVar[str] = "sd15"


class AYSXL(_Table):
    name: ClassVar[str] = "ays_sdxl"
    title: ClassVar[str] = "Align Your Steps, table for Stable Diffusion XL"
    table: ClassVar[str] = "sdxl"


class AYSVideo(_Table):
    name: ClassVar[str] = "ays_svd"
    title: ClassVar[str] = "Align Your Steps, table for Stable Video Diffusion"
    table: ClassVar[str] = "svd"


class AYSDeepFloyd(_Table):
    name: ClassVar[str] = "ays_deepfloyd"
    title: ClassVar[str] = "Align Your Steps, table for DeepFloyd-IF"
    table: ClassVar[str] = "deepfloyd"
