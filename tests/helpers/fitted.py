"""Solvers as a fit leaves them, without a fit."""

import numpy as np

import codesign_opt as co

GRID = co.edm_grid(6, 0.05, 12.0)


def solver(grid=GRID, history=3, seed=0, consistent=True, mean=0.0):
    """Euler's rows, moved at random, whose weights sum to one."""
    draws = np.random.default_rng(seed)
    steps = len(grid) - 1
    a = grid[1:] / grid[:-1] * (1 + 0.1 * draws.normal(size=steps))
    c = np.tril(0.1 * draws.normal(size=(steps, history)))
    c[:, 0] += 1 - a - c.sum(1) if consistent else 1 - a
    return co.LinearMultistep(grid, a, c, mean)
