"""One batch of noise levels and losses, as training loops have them: tensors on any device, arrays, numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array, numbers, shown

__all__ = ["as_batch", "check_sizes", "on_host", "refused", "two_rows"]


def as_batch(value: Any, name: str) -> Any:
    """A tensor of real numbers where it is, without its gradient; anything else as a float64 array; never of no axis.

    Raises:
        ValueError: no real numbers, or a tensor that holds none: sparse, or on the device "meta".
    """
    if not hasattr(value, "detach"):
        return np.atleast_1d(numbers(value, name))
    kind = str(value.dtype)
    if value.is_meta or str(value.layout) != "torch.strided" or kind == "torch.bool" or value.is_complex():
        raise ValueError(f"{name} is {shown(value)}; a dense tensor of real numbers is needed.")
    found = value.detach()
    return found.reshape(1) if found.ndim == 0 else found


def two_rows(sigma: Any, loss: Any) -> tuple[Any, Any]:
    """Tensors are copied into one (2, N) tensor where they are, without waiting for them; arrays stay arrays."""
    losses, levels = (as_batch(loss, "LevelStatistics.record: loss"), as_batch(sigma, "LevelStatistics.record: sigma"))
    if not hasattr(loss, "detach"):
        losses = losses.sum(axis=tuple(range(1, losses.ndim)))
        if hasattr(sigma, "detach"):
            levels = numbers(levels, "LevelStatistics.record: sigma")
        levels = levels.ravel()
        check_sizes(levels.size, losses.size)
        return np.broadcast_to(levels, losses.shape).copy(), losses.copy()
    losses = losses if losses.element_size() == 8 else losses.float()
    losses = losses.flatten(1).sum(1) if losses.ndim > 1 else losses
    levels = levels.reshape(-1) if hasattr(sigma, "detach") else losses.new_tensor(np.array(levels)).reshape(-1)
    check_sizes(levels.numel(), losses.numel())
    pair = losses.new_empty((2, losses.numel()))
    pair[0], pair[1] = levels, losses
    return pair, None


def check_sizes(levels: int, losses: int) -> None:
    if levels not in (1, losses):
        raise ValueError(
            f"LevelStatistics.record: {levels} noise levels but {losses} losses; give the loss of every example "
            "(no mean over the batch)."
        )


def refused(sigma: Array, loss: Array) -> str:
    """What is wrong with a batch; nothing, if nothing is."""
    if not np.all(sigma > 0):
        return f"sigma is {sigma[~(sigma > 0)][0]:g}; a noise level must be > 0."
    if np.any(loss < 0):
        return f"loss is {loss[loss < 0][0]:g}; |D - x0|^2 is >= 0: record the loss itself, not its logarithm."
    return ""


def on_host(sigma: Any, loss: Any) -> tuple[Array, Array]:
    if loss is not None:
        return sigma, loss
    pair = sigma.cpu().numpy().astype(np.float64)
    return pair[0], pair[1]
