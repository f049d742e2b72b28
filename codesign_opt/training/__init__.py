"""What training leaves in the score, and how that error reaches the samples."""

from . import constant_step, measured, optimisers  # noqa: F401  they enter their names
