"""Coefficients of a linear multistep solver fitted to a denoiser by convex programs (torch)."""
