"""What a model is made of: names become what they name, and every part is of its kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import choice, shown
from ..ingredients.coupling import Coupling
from ..ingredients.process import Process
from ..ingredients.spectrum import Spectrum
from ..samplers.members import Sampler

__all__ = ["check_parts", "name_parts"]

_PARTS: dict[str, tuple[type, str]] = {
    "spectrum": (Spectrum, "co.Spectrum.from_samples(data) makes one, co.Spectrum.from_eigenvalues(…) states one"),
    "process": (Process, "such as co.EDM()"),
    "sampler": (Sampler, "such as co.Heun()"),
    "coupling": (Coupling, "such as co.Local(log_width=2.7)"),
}


def name_parts(model: Any) -> None:
    """Names of a process and a sampler become what they name; for `__post_init__` of models.

    Raises:
        ValueError: neither, by the field.
    """
    for name, kind in (("process", Process), ("sampler", Sampler)):
        object.__setattr__(model, name, kind.named(getattr(model, name), f"{type(model).__name__}.{name}"))


def check_parts(model: Any) -> None:
    """Whether spectrum, process, sampler, coupling and terminal are what they must be.

    Raises:
        ValueError: one of them, by name.
    """
    kind = type(model).__name__
    for name, (needed, remedy) in _PARTS.items():
        value = getattr(model, name, None)  # a model of one's own may have forgotten its spectrum
        if not isinstance(value, needed):
            said = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else shown(value)
            raise ValueError(f"{kind}.{name} is {said}; a {needed.__name__} is needed: {remedy}.")
    choice(model.terminal, f"{kind}.terminal", ("denoise", "rescale"))
