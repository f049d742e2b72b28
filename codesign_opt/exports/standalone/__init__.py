"""Files that go out to other programs as they are: none of them imports this package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["source_of"]


def source_of(name: str) -> str:
    """Text of one of these files.

    >>> "NODE_CLASS_MAPPINGS" in source_of("comfyui_fitted_solvers.py")
    True
    """
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
