"""Fields that may be functions of sigma: checked, tabulated, written to files and read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, scale_of, scales_of, shown, vector
from ..basics.user_code import answer

__all__ = ["LogWidth", "SigmaTable", "log_width_field", "plain_field", "restored_field", "tabulate"]


LogWidth = float | Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class SigmaTable:
    """A function of sigma from a table, linear in log sigma; beyond its ends the end values stay.

    >>> SigmaTable([1.0, 4.0], [2.0, 3.0])(np.array([0.5, 2.0])).tolist()
    [2.0, 2.5]
    """

    sigma: Array
    value: Array

    def __post_init__(self) -> None:
        at = vector(self.sigma, "SigmaTable.sigma", positive=True, ascending=True)
        object.__setattr__(self, "sigma", at)
        object.__setattr__(self, "value", vector(self.value, "SigmaTable.value", length=at.size))

    def __call__(self, sigma: Array) -> Array:
        return np.interp(np.log(sigma), np.log(self.sigma), self.value)


def plain_field(value: Any, sigma: Any, name: str) -> Any:
    """A field as JSON holds it."""
    if callable(value):
        if sigma is None:
            return "function of sigma"
        if not isinstance(value, SigmaTable):
            at = vector(sigma, "sigma", positive=True, ascending=True)
            value = SigmaTable(at, tabulate(value, at, name))
        return {"sigma": value.sigma.tolist(), "value": value.value.tolist()}
    if isinstance(value, (np.ndarray, np.generic, tuple, list)):
        return np.asarray(value).tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"{name} is {shown(value)}, which a file cannot hold; keep numbers, texts, arrays and functions of sigma in "
        "fields."
    )


def restored_field(value: Any, name: str) -> Any:
    """A field from what `plain_field` made of it."""
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"sigma", "value"}:
        raise ValueError(f"Coupling.{name} has the keys {sorted(value)}; sigma and value are needed.")
    return SigmaTable(**value)


def log_width_field(value: Any, name: str) -> LogWidth:
    return value if callable(value) else scale_of(value, name)


def tabulate(value: LogWidth, sigma: Array, name: str) -> Array:
    if callable(value):
        return scales_of(answer(value, sigma, name), f"{name}(sigma)", length=sigma.size)
    return np.full(sigma.size, value)
