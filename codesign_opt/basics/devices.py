"""Devices of torch by name, tried where they are named rather than in the middle of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checks import shown
from .user_code import first_line

if TYPE_CHECKING:
    import torch

__all__ = ["device_of"]


def device_of(value: Any, name: str, *, holds: bool = True) -> torch.device | None:
    """The device that a user names; None where none is named.

    Args:
        value: as torch takes it.
        name: of the argument, for messages.
        holds: whether it must hold numbers, which "meta" does not.

    Raises:
        ValueError: torch does not know it, this machine does not have it, or it holds no numbers.
    """
    if value is None:
        return None
    import torch

    try:
        device = torch.device(value)
        found = torch.zeros(1, device=device)
        if holds:
            found.tolist()
    except Exception as error:  # RuntimeError (meta's too), TypeError, AssertionError (no CUDA)
        here = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(
            f"{name} is {shown(value)}: {first_line(error)}; devices here are {', '.join(here)}."
        ) from None
    return device
