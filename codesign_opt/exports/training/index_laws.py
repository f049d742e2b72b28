"""Shares of a trainer's timesteps under the laws that trainers share: of u in [0, 1], cut into equal parts."""

from __future__ import annotations

import numpy as np
from scipy.special import logit, ndtr

from ...basics.checks import Array
from ...peers.densities.families import Mode

__all__ = ["STEPS", "logit_normal_share", "mode_share", "parts", "unshifted"]

STEPS = 1000


def logit_normal_share(u: Array, mean: float, std: float) -> Array:
    """P(sigmoid(N(mean, std^2)) <= u)."""
    with np.errstate(divide="ignore"):
        return np.asarray(ndtr((logit(u) - mean) / std))


def mode_share(u: Array, scale: float) -> Array:
    """P(1 - v - scale (cos^2(pi v / 2) - 1 + v) <= u), v uniform: Stable Diffusion 3's mode sampling."""
    with np.errstate(divide="ignore"):
        return Mode(scale).tails(np.asarray(u) / (1 - np.asarray(u)))[0]


def unshifted(time: Array, shift: float) -> Array:
    """The time that shift t / (1 + (shift - 1) t) moves to `time`."""
    return np.asarray(time / (shift - (shift - 1) * time))


def parts(below: Array) -> Array:
    """Probabilities of equal parts from the distribution function at their (T+1,) edges."""
    return np.diff(np.concatenate([[0.0], below[1:-1], [1.0]]))
