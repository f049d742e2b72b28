"""Noise levels at which losses are recorded."""

import codesign_opt as co

LEVELS = co.Levels.log_uniform(0.1, 10.0, 4)
