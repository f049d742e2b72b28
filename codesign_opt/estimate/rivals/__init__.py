"""Solvers and grids of the literature that are fitted to a denoiser: peers that need runs of it."""
