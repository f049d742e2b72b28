"""Checks of input, errors, wording and other things that know nothing of diffusion."""
