"""Half precision: states, times and levels in float32 or float64, the network's input and output alone are cast."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["asked", "full", "network_dtype", "of_dtype"]

_HALF = (torch.float16, torch.bfloat16)


def full(x: torch.Tensor) -> torch.Tensor:
    """A tensor in at least float32.

    >>> full(torch.ones(1, dtype=torch.bfloat16)).dtype, full(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.to(torch.float32) if x.dtype in _HALF else x


def network_dtype(network: Any, x: torch.Tensor) -> torch.dtype:
    """The dtype of most floating parameters of a module; that of the states where there are none, or no module.

    Some layers of half precision networks stay in float32, such as embeddings of the time.

    >>> network_dtype(torch.nn.Linear(1, 1).to(torch.bfloat16), torch.ones(1)), network_dtype(len, torch.ones(1))
    (torch.bfloat16, torch.float32)
    """
    module = getattr(network, "__self__", network)  # a bound method of a module
    count: dict[torch.dtype, int] = {}
    for p in module.parameters() if isinstance(module, torch.nn.Module) else ():
        if p.is_floating_point():
            count[p.dtype] = count.get(p.dtype, 0) + p.numel()
    return max(count, key=lambda dtype: count[dtype]) if count else x.dtype


def asked(network: Any, x: torch.Tensor, *rest: Any, **condition: Any) -> Any:
    """network(x, *rest), with x in the network's dtype and its answer in that of x; times and levels stay as they are.

    >>> asked(torch.nn.Identity(), torch.ones(1)).dtype, asked(lambda x: x.half(), torch.ones(1)).dtype
    (torch.float32, torch.float32)
    """
    dtype = network_dtype(network, x)
    out = network(of_dtype(x, dtype), *rest, **condition)
    cast = torch.is_tensor(out) and (dtype != x.dtype or out.dtype in _HALF)
    return out.to(x.dtype) if cast else out


def of_dtype(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Floating numbers in a dtype; whole ones as they are."""
    return x.to(dtype) if x.is_floating_point() else x
