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
from .weights import digest_of_weights, in_half_precision

__all__ = ["ROUNDING", "SAME", "check_same_denoiser", "shared_range"]

SAME = 0.02  # relative distance of two answers to one question, by half precision
# by float32 on another device or with other threads: sums of a network's layers in another order differ by some
# hundred units of rounding, here 256, of the answer; or of the state, where the answer is a difference from it
ROUNDING = 256 * float(torch.finfo(torch.float32).eps)
_TF32 = 2e-3  # by tensor cores, which keep ten bits: let through off the CPU where all weights are the same


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
    most: float | None = None,
) -> None:
    """The folder's items are of this denoiser: it answers as the one did that they were measured on.

    Answers may differ by what rounding makes of them on another device or with other threads: 3e-5 of an answer (or of
    its state, where that is larger) in float32 and above, 2e-3 off the CPU where all weights are the same
    (tensor cores keep ten bits), 2e-2 of networks in half precision. A module with other weights is another one.

    Args:
        denoiser: asked at `states` times every level.
        folder: where the answers are kept; None checks nothing.
        question: plain values that the answers depend on.
        name: of the denoiser, for the message.
        within: folder to name in the message; `folder` unless given.
        most: distance of answers, relative to the largest of their level, up to which they are one denoiser's;
            by the precision unless given.

    Raises:
        ValueError: the answers kept are those of another denoiser.
    """
    asked = np.array([float(s) for s in levels])
    turns = -(-denoiser.conditions // states.shape[0])  # of several conditions each is asked
    states = states.repeat(turns, *(1,) * (states.ndim - 1)) if turns > 1 else states
    answers = torch.stack([denoiser(float(s) * states, float(s)) for s in asked]).cpu().double().numpy()

    if folder is None:  # asked all the same, so that a folder changes no count of evaluations
        return
    weights = _as_numbers(digest_of_weights(denoiser))
    now = {"answers": answers, "weights": weights, "on cpu": np.array(states.device.type == "cpu")}
    found = Ledger(folder, question).item("answers", lambda: now)
    kept, before = found.get("answers", np.zeros(0)), found.get("weights", np.zeros(0))
    allowed = most
    if allowed is None:
        allowed = SAME if in_half_precision(denoiser) else ROUNDING
    size = float(states.abs().max())
    apart = _apart(kept, answers, asked, size, allowed) if kept.shape == answers.shape else np.inf
    known = min(weights.size, before.size) > 0  # both are modules, whose weights tell them apart
    alike = known and np.array_equal(weights, before)
    if alike and not (now["on cpu"] and found.get("on cpu", True)):
        allowed = max(allowed, _TF32)
    if not apart <= allowed or (known and not alike and most is None):
        how = "its weights are others" if apart <= allowed else f"more than rounding makes ({allowed:.1g})"
        raise ValueError(
            f"{within or folder} holds results of another {name}: the answers of {denoiser.name!r} are {apart:.2g} "
            f"apart (relative) from those kept, {how}; give another folder, or delete it."
        )


def _as_numbers(digest: str) -> Array:
    return np.frombuffer(bytes.fromhex(digest), dtype=np.uint8).astype(np.float64)


def _apart(kept: Array, answers: Array, sigma: Array, state: float, allowed: float) -> float:
    """Largest relative distance of (L, ...) answers, level by level, beyond the rounding of states; NaN is apart."""
    size, distance = (np.abs(values).reshape(sigma.size, -1).max(axis=1) for values in (kept, answers - kept))
    # an answer of zero has no relative distance: against a thousandth of the state, or the largest answer of all
    floor = np.maximum(np.minimum(1e-3 * sigma, size.max()), 1e-30)
    apart = distance / np.maximum(size, floor)
    rounded = distance <= ROUNDING * sigma * state
    return float(np.max(np.where(rounded & (apart > allowed), allowed, apart)))
