"""Prediction targets y = c_x x0 + c_eps eps, and what an error of the denoiser is worth in each.

With x = alpha x0 + sigma_t eps, any estimate D of x0 is an estimate of every target through eps = (x - alpha D) /
sigma_t; its error in the target is (c_x sigma_t - c_eps alpha) / sigma_t times its error in x0. This is 1 / c_out of
docs/theory.md section 5, and it turns weights, losses and Bayes floors of one target into those of another.
"""

from __future__ import annotations

__all__ = []
