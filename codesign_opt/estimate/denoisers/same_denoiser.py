"""What every measurement with a folder asks first: which noise levels, and is the folder of this denoiser."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...basics.ledger import Ledger
from ...ingredients.process import Process
from .denoiser import Denoiser

__all__ = ["SAME", "check_same_denoiser", "shared_range"]

SAME = 0.02  # relative distance of two answers to one question, by half precision or another device


def shared_range(process: Process, denoiser: Denoiser) -> tuple[float, float]:
    """The noise levels that both the process and the network cover.

    Raises:
        ValueError: they share none.

    >>> from codesign_opt import EDM
    >>> shared_range(EDM(), Denoiser(lambda x, sigma: x))
    (0.002, 80.0)
    """
    low, high = process.sigma_min, process.sigma_max
    if denoiser.sigma_range is not None:
        low, high = max(low, denoiser.sigma_range[0]), min(high, denoiser.sigma_range[1])
    if not low < high:
        raise ValueError(
            f"the process runs from {process.sigma_min:.4g} to {process.sigma_max:.4g}, the network from "
            f"{denoiser.sigma_range}; they share no noise levels."
        )
    return low, high


@torch.no_grad()
def check_same_denoiser(
    denoiser: Denoiser,
    levels: Iterable[float],
    states: torch.Tensor,
    folder: Path | None,
    question: dict[str, Any],
    *,
    name: str = "denoiser",
    within: Path | None = None,
    most: float = SAME,
) -> None:
    """The folder's items are of this denoiser: it answers as the one did that they were measured on.

    Args:
        denoiser: asked at `states` times every level.
        folder: where the answers are kept; None checks nothing.
        question: plain values that the answers depend on.
        name: of the denoiser, for the message.
        within: folder to name in the message; `folder` unless given.
        most: distance of answers, relative to the largest of their level, up to which they are one denoiser's.

    Raises:
        ValueError: the answers kept are those of another denoiser.
    """
    asked = np.array([float(s) for s in levels])
    answers = torch.stack([denoiser(float(s) * states, float(s)) for s in asked]).cpu().double().numpy()
    kept = Ledger(folder, question).item("answers", lambda: {"answers": answers})["answers"]
    apart = _apart(kept, answers, asked) if kept.shape == answers.shape else np.inf
    if apart > most:
        raise ValueError(
            f"{within or folder} holds results of another {name}: the answers of {denoiser.name!r} are {apart:.2g} "
            "apart (relative) from those kept; give another folder, or delete it."
        )


def _apart(kept: Array, answers: Array, sigma: Array) -> float:
    """Largest relative distance of (L, ...) answers, level by level: those at low noise are small."""
    size, distance = (np.abs(values).reshape(sigma.size, -1).max(axis=1) for values in (kept, answers - kept))
    # an answer of zero has no relative distance: against a thousandth of the state, or the largest answer of all
    floor = np.maximum(np.minimum(1e-3 * sigma, size.max()), 1e-30)
    return float(np.max(distance / np.maximum(size, floor)))
