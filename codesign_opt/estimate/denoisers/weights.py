"""The modules inside a denoiser: their precision, and a digest of the weights of one that is a module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import torch

from .denoiser import Denoiser

__all__ = ["digest_of_weights", "in_half_precision", "modules_inside"]

_DEPTH = 4  # of wrappers around a module


def modules_inside(function: Any) -> list[torch.nn.Module]:
    """Modules that a callable is, is a method of, or holds: attributes, closure, arguments, a global.

    >>> net = torch.nn.Linear(1, 1)
    >>> [type(m).__name__ for m in modules_inside(lambda x, sigma: net(x))]
    ['Linear']
    """
    found: dict[int, torch.nn.Module] = {}
    seen: set[int] = set()
    front = [function.function if isinstance(function, Denoiser) else function]
    for _ in range(_DEPTH):
        front = [part for part in front if id(part) not in seen]
        seen.update(map(id, front))
        found.update((id(part), part) for part in front if isinstance(part, torch.nn.Module))
        front = [part for one in front if not isinstance(one, torch.nn.Module) for part in _held(one)]
    return list(found.values())


def in_half_precision(function: Any) -> bool:
    """Whether some module inside computes in half precision, as far as its parameters say."""
    half = (torch.float16, torch.bfloat16)
    return any(p.dtype in half for module in modules_inside(function) for p in module.parameters())


def digest_of_weights(denoiser: Denoiser) -> str:
    """SHA-256 of the parameters and floating buffers of a module, in order; empty where the function is none.

    Names do not count: wrappers of compilers and of several devices change them.
    """
    module = getattr(denoiser.function, "__self__", denoiser.function)
    if not isinstance(module, torch.nn.Module):
        return ""
    found = hashlib.sha256()
    for value in module.state_dict().values():
        if torch.is_tensor(value) and value.is_floating_point():
            raw = value.detach().cpu().contiguous()
            found.update(f"{tuple(raw.shape)} {raw.dtype}".encode())
            found.update(raw.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _held(one: Any) -> Iterator[Any]:
    if isinstance(one, (type, ModuleType)):
        return
    for cell in getattr(one, "__closure__", None) or ():
        with suppress(ValueError):  # a name that has no value yet
            yield cell.cell_contents
    known, code = getattr(one, "__globals__", {}), getattr(one, "__code__", None)
    yield from (known[name] for name in getattr(code, "co_names", ()) if name in known)
    parts = [getattr(one, name, None) for name in ("__self__", "__wrapped__", "func", "args", "__dict__")]
    for part in parts:
        yield from part.values() if isinstance(part, dict) else part if isinstance(part, tuple) else (part,)
