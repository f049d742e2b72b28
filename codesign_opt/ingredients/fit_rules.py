"""FitRules: what a fit of a solver to a denoiser lowers, and what it may change."""

from __future__ import annotations

from dataclasses import dataclass

from ..basics.checks import choice, integer
from .measured_error import OBJECTIVES

__all__ = ["FitRules"]

MOVES = ("both", "coefficients", "levels")
_FIRST = 3
_MOST = 1_000


@dataclass(frozen=True)
class FitRules:
    """What a fit of a multistep solver lowers, and what it may change.

    Args:
        history: outputs of the denoiser that a step takes, h >= 1; 1 is a step of Euler's kind. "all": three, and then,
            as a last polish that is kept where held-out draws say so, every output before it.
        moves: "both", "coefficients" or "levels".
        objective: "mean", "geometric" or "trimmed" of the squared errors of draws.
        free_stop: whether the last positive level moves with the others.

    Raises:
        ValueError: a field out of its range, by name.

    >>> FitRules(history="all").first_history
    3
    """

    history: int | str = 3
    moves: str = "both"
    objective: str = "mean"
    free_stop: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.history, str) or self.history != "all":
            hint = 'Or "all": three, then every output as a last polish.'
            object.__setattr__(self, "history", integer(self.history, "history", minimum=1, maximum=_MOST, hint=hint))
        choice(self.moves, "moves", MOVES)
        choice(self.objective, "objective", OBJECTIVES)

    @property
    def polishes(self) -> bool:
        """Whether every output is taken at last."""
        return self.history == "all" and self.moves != "levels"

    @property
    def first_history(self) -> int:
        """Outputs that a step takes before that."""
        return _FIRST if isinstance(self.history, str) else self.history
