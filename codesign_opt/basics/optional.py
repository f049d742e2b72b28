"""Optional packages: imported where they are used, missed with the command that installs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["needs"]


def needs(module: str, package: str, who: str) -> Any:
    """Import a module of an optional package, or say how to install it.

    Raises:
        ImportError: the package is missing; the message has the pip command.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{who} takes its data from {package}, which is not there ({error}); pip install "codesign_opt[data]"'
        ) from None
