"""Prediction targets y = c_x x0 + c_eps eps, and what an error of the denoiser is worth in each.

With x = alpha x0 + sigma_t eps, any estimate D of x0 is an estimate of every target through eps = (x - alpha D) /
sigma_t; its error in the target is (c_x sigma_t - c_eps alpha) / sigma_t times its error in x0. This is 1 / c_out of
docs/theory.md section 5, and it turns weights, losses and Bayes floors of one target into those of another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..basics.checks import Array, choice, number, vector
from ..ingredients.process import Process

__all__ = ["TARGETS", "amplitudes", "target_coefficients", "target_gain", "target_name"]

TARGETS = ("eps", "x0", "v", "flow", "edm")
_OTHER_NAMES = {"u": "flow", "F": "edm"}


def target_name(target: Any, what: str) -> str:
    """One of `TARGETS`; "u" and "F" are other names of "flow" and "edm".

    >>> target_name("u", "target")
    'flow'
    """
    return choice(_OTHER_NAMES.get(target, target) if isinstance(target, str) else target, what, TARGETS)


def amplitudes(sigma: Any, target: str, process: Process | None = None) -> tuple[Array, Array]:
    """(L,) alpha and sigma_t of x = alpha x0 + sigma_t eps at noise levels sigma = sigma_t / alpha.

    Args:
        sigma: (L,) noise levels, > 0.
        target: decides the schedule where no process is given, the one it was made for: variance preserving for
            "v", the straight path alpha = 1 - t, sigma_t = t for "flow", alpha = 1 for the rest.
        process: the schedule in use; it must reach these levels.

    >>> [part.round(6).tolist() for part in amplitudes([1.0], "flow")]
    [[0.5], [0.5]]
    """
    levels = vector(sigma, "sigma", positive=True)
    name = target_name(target, "target")
    if process is not None:
        alpha = np.asarray(process.scale(process.time(levels)))
    elif name == "v":
        alpha = 1 / np.hypot(1.0, levels)
    elif name == "flow":
        alpha = 1 / (1 + levels)
    else:
        alpha = np.ones_like(levels)
    return alpha, alpha * levels


def target_coefficients(target: str, alpha: Array, noise: Array, *, sigma_data: float = 0.5) -> tuple[Array, Array]:
    """(L,) c_x and c_eps of the target y = c_x x0 + c_eps eps under x = alpha x0 + noise eps.

    eps: (0, 1); x0: (1, 0); v = alpha eps - noise x0; flow u = eps - x0; EDM's F = (x0 - c_skip (x0 + sigma eps)) /
    c_out with sigma = noise / alpha (ERD, arXiv:2605.10790, section 2.1; Karras et al. 2022, table 1).

    >>> [part.tolist() for part in target_coefficients("v", np.array([0.6]), np.array([0.8]))]
    [[-0.8], [0.6]]
    """
    name = target_name(target, "target")
    one, zero = np.ones_like(alpha), np.zeros_like(alpha)
    if name == "edm":
        s, sigma = number(sigma_data, "sigma_data", positive=True), noise / alpha
        total = np.hypot(sigma, s)
        return sigma / (s * total), -s / total
    return {"eps": (zero, one), "x0": (one, zero), "v": (-noise, alpha), "flow": (-one, one)}[name]


def target_gain(target: str, sigma: Any, process: Process | None = None, *, sigma_data: float = 0.5) -> Array:
    """(L,) error in the target per unit error of the denoiser, signed: (c_x sigma_t - c_eps alpha) / sigma_t.

    Args:
        target: one of `TARGETS`.
        sigma: (L,) noise levels, > 0.
        process: schedule; that of the target unless given (see `amplitudes`).
        sigma_data: of "edm".

    >>> target_gain("eps", [0.5]).tolist(), target_gain("v", [1.0]).round(6).tolist()
    ([-2.0], [-1.414214])
    """
    alpha, noise = amplitudes(sigma, target, process)
    c_x, c_eps = target_coefficients(target, alpha, noise, sigma_data=sigma_data)
    return np.asarray((c_x * noise - c_eps * alpha) / noise)
