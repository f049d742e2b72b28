"""Samplers on noise levels of their own: those whose numbers were fitted step by step."""

from __future__ import annotations

from dataclasses import fields
from hashlib import blake2b
from typing import Any

import numpy as np

from ..basics.checks import Array
from .base import Sampler

__all__ = ["OnOwnLevels"]


class OnOwnLevels(Sampler):
    """A sampler with numbers for every step of one grid, `levels`: it runs on this grid alone.

    A dataclass of arrays and texts (eq=False) with a field `levels`, (K+1,) noise levels. It has no error per length of
    a step, so that programs which need one refuse it; its exact law, where it has one, is that of its rows.
    """

    levels: Array

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, OnOwnLevels) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.tag)

    @property
    def own_levels(self) -> Array:
        """`levels`."""
        return self.levels

    @property
    def signed(self) -> bool:
        """False: it has no local error."""
        return False

    @property
    def tag(self) -> str:
        """Its name, its texts and a digest of its numbers."""
        digest, texts = blake2b(digest_size=8), [self.name]
        for value in self._parts().values():
            if isinstance(value, np.ndarray):
                digest.update(value.tobytes())
            else:
                texts.append(str(value))
        return "-".join([*texts, digest.hexdigest()])

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, as plain values."""
        plain = {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in self._parts().items()}
        return {"name": self.name, **plain}

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """Refused: coefficients on levels of their own have no local error per length of a step.

        Raises:
            ValueError: always.
        """
        self.check_plannable()
        raise AssertionError("it has levels of its own")

    def _parts(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def _keep(self, **parts: Array) -> None:
        """Read-only copies into the fields: the caller's arrays may be written to."""
        for name, part in parts.items():
            own = part.copy()
            own.setflags(write=False)
            object.__setattr__(self, name, own)
