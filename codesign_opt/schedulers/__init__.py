"""Schedulers of diffusers as they stand: their settings, tables of noise levels, and the levels that they run."""
