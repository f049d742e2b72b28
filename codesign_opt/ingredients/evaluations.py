"""Steps and evaluations of a grid: under "denoise" the last step is one call of the denoiser, whatever the sampler."""

from __future__ import annotations

__all__ = ["MOST_STEPS", "evaluations", "final_steps", "least_steps", "steps_within"]

MOST_STEPS = 100_000  # of a grid that is handed out


def final_steps(terminal: str) -> int:
    """Steps that go to zero noise: 1 under "denoise", 0 under "rescale"."""
    return 1 if terminal == "denoise" else 0


def least_steps(terminal: str) -> int:
    """The fewest steps of any grid: one between noise levels, and the last one to zero."""
    return 1 + final_steps(terminal)


def evaluations(steps: int, per_step: int, terminal: str) -> int:
    """Calls of the denoiser for one image: `per_step` in each step between noise levels, one in the last to zero.

    >>> evaluations(18, 2, "denoise"), evaluations(18, 2, "rescale")
    (35, 36)
    """
    final = final_steps(terminal)
    return (steps - final) * per_step + final


def steps_within(allowed: int, per_step: int, terminal: str) -> int:
    """The most steps whose evaluations do not exceed `allowed`; fewer than `least_steps` where none fits.

    >>> steps_within(36, 2, "denoise"), steps_within(36, 2, "rescale"), steps_within(2, 2, "denoise")
    (18, 18, 1)
    """
    final = final_steps(terminal)
    return (allowed - final) // per_step + final
