"""What a squared error of the denoiser costs at the end, level by level, as weights for teachers and students."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, instance
from ..ingredients.densities import SigmaDensity
from ..ingredients.levels import Levels

__all__ = ["DistillationWeights"]


@dataclass(frozen=True, eq=False)
class DistillationWeights:
    """Importance of noise levels for the samples, relative to a density that they are drawn from (theory section 4.4).

    Called with noise levels it gives the factor of each example's |D - D_teacher|^2 (or |D - x0|^2): mean 1 under the
    base density on the plan's levels, 0 outside them. It is a weight for `SigmaSampler(..., weight=weights)`.

    Attributes:
        levels: the plan's.
        share: (L,) part of each level in the sum over levels of gamma K; sums to 1.
        importance: (L,) share over the base density's probability of the level.
        last: part of the last evaluation in the sum, which `share` holds on the levels of the step above the stopping
            point; 0 under "rescale".
    """

    levels: Levels
    share: Array
    importance: Array
    last: float

    @classmethod
    def of(
        cls, levels: Levels, steps: Array, sensitivity: Array, base: SigmaDensity, *, denoise: bool
    ) -> DistillationWeights:
        """From a plan's steps and the squared terminal error per squared error of the output.

        Args:
            levels: L of them.
            steps: (L,) sampler steps on each.
            sensitivity: (L,) g^2.
            base: density that noise levels are drawn from.
            denoise: whether a last evaluation at the stopping point goes to the output as it is.

        Raises:
            ValueError: the plan has no steps, or the base density no examples where the plan needs some.
        """
        instance(base, SigmaDensity, "distillation_weights: base", "Give one such as co.LogNormal(-1.2, 1.2).")
        if not np.any(steps > 0):
            raise ValueError("distillation_weights: the plan has no sampler steps, whose lengths are in the weights.")
        with np.errstate(divide="ignore"):
            length = np.where(steps > 0, levels.log_width / np.maximum(steps, 1e-300), 0.0)  # gamma / sigma
        cost = levels.log_width * length * sensitivity
        if denoise:
            first = int(np.argmax(steps > 0))
            low = float(levels.edges[0])
            last_step = levels.overlap(low, low * float(np.exp(min(max(length[first], 1e-12), 600.0))))
            cost = cost + last_step / last_step.sum()
        total = float(cost.sum())
        share, drawn = cost / total, base.on_levels(levels)
        missed = np.flatnonzero((share > 0) & (drawn <= 0))
        if missed.size:
            raise ValueError(
                f"distillation_weights: base has no mass at sigma = {levels.sigma[missed[0]]:.3g}, where the plan "
                "needs some; widen it."
            )
        importance = np.divide(share, drawn, out=np.zeros_like(share), where=drawn > 0)
        return cls(levels, share, importance, 1.0 / total if denoise else 0.0)

    def __call__(self, sigma: Any) -> Array:
        """(N,) importance of noise levels."""
        values, edges = np.asarray(sigma, dtype=np.float64), self.levels.edges
        level = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(self.levels) - 1)
        return np.where((values >= edges[0]) & (values <= edges[-1]), self.importance[level], 0.0)

    def __repr__(self) -> str:
        top = float(self.levels.sigma[np.argmax(self.importance)])
        return f"DistillationWeights({len(self.levels)} levels, largest at sigma {top:.3g}, last {self.last:.2g})"
