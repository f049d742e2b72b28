"""Worlds to try plans on: small data sets, networks trained here, and denoisers known in closed form (torch).

The reader `testbed.fashion_mnist.fashion_mnist` needs numpy alone; `python -m codesign_opt.testbed NAME`
trains a network.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "LinearDenoiser": "linear",
    "MLP": "mlp",
    "Mixture": "mixtures",
    "TrainedDenoiser": "training",
    "UNet": "unet",
    "circle8": "mixtures",
    "clusters4": "mixtures",
    "digits": "datasets",
    "grid8": "mixtures",
    "photo_patches": "datasets",
    "train": "training",
    "trained": "networks",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
