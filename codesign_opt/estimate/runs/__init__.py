"""Sampler runs of a denoiser under fixed noise, and their fine solutions."""
