"""Entropic time: equal conditional entropy of the data in every step, read off the losses (Stancevic et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...basics.checks import Array, shown
from ...models.evidence import Evidence
from ..paths.arc_length import equal_increments
from .base import Schedule

__all__ = ["EntropicTime"]

_FINE = 2048


@dataclass(frozen=True)
class EntropicTime(Schedule):
    """Equal increments of the conditional entropy H[x0 | x_sigma], dH = mmse(sigma) / sigma^3 d sigma (I-MMSE).

    Rescaled: equal increments of the integral of sigma dH, which spends less at low noise, where the entropy of
    continuous data falls like d log sigma. On one Gaussian band that is the tangent law. Stancevic, Handke, Ambrogioni
    2025 (arXiv 2504.13612); the mmse is the denoiser's risk, as there.

    Args:
        rescaled: whether the rescaled form is taken, their choice for images.

    Raises:
        ValueError: from `sigmas`, a risk that is 0 over the whole range.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.from_eigenvalues([1.0]), terminal="rescale")
    >>> angles = np.arctan(EntropicTime().sigmas(4, Evidence.of(model)))
    >>> np.diff(angles).round(3).tolist()
    [-0.389, -0.389, -0.389, -0.389]
    """

    rescaled: bool = True
    name: ClassVar[str] = "entropic"
    title: ClassVar[str] = "entropic time"
    needs: ClassVar[tuple[str, ...]] = ("risk",)

    def __post_init__(self) -> None:
        if not isinstance(self.rescaled, bool):
            raise ValueError(f"EntropicTime.rescaled is {shown(self.rescaled)}; True or False is needed.")

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        assert evidence.risk is not None  # held by `needs`
        if count == 1:
            return np.array([evidence.sigma_max])
        levels = np.geomspace(evidence.sigma_min, evidence.sigma_max, _FINE)
        rate = evidence.risk(levels) / levels ** (1 if self.rescaled else 2)  # per unit log sigma
        pieces = 0.5 * (rate[1:] + rate[:-1]) * np.diff(np.log(levels))
        length = np.concatenate([[0.0], np.cumsum(pieces)])
        return evidence.between(equal_increments(levels, length, count))
