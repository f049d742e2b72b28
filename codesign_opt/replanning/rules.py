"""When a run is planned again, how far its density moves, and what is taken as known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..basics.checks import entries, integer, number, vector
from ..ingredients.coupling import Coupling, Local, Transfer

__all__ = ["ReplanRules"]

_GEOMETRIC = (0.05, 0.1, 0.2, 0.4, 0.7)


@dataclass(frozen=True)
class ReplanRules:
    """When to plan again and how far to move.

    Args:
        at: ascending fractions of the run's examples in (0, 1) at which it is planned again: by default at ratios of
            about two, as the losses fall by the logarithm of the examples. Not used where `every` is given.
        every: steps (calls of `record`) between plans, >= 1; None: at `at`.
        trust: the most that one plan moves the density, Kullback-Leibler divergence in nats, > 0. Was the density in
            use the best, a move of that size leaves about 2 x trust more of the error that the rest of the run
            decides (docs/theory.md section 7.13).
        caution: what a nat of such a move must win, as a part of the error at the end, >= 0: 0.5 asks for 5 % from a
            move of 0.1. Late plans promise little, and moves that only `trust` held lost by them (docs/replanning.md).
        floor: part of the density in use that stays on every level, in [0, 1).
        transfer: width in log sigma over which examples teach neighbouring levels, >= 0; 0: each level for itself.
        log_width: correlation length, within which examples are counted, > 0.
        levels: of the program, the log and its curves, over the range of the process, >= 8.

    Raises:
        ValueError: a field out of its range.

    >>> ReplanRules(every=500).trust
    0.1
    """

    at: Sequence[float] = _GEOMETRIC
    every: int | None = None
    trust: float = 0.1
    caution: float = 0.5
    floor: float = 0.1
    transfer: float = 0.4
    log_width: float = 2.7
    levels: int = 48

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "ReplanRules"
        stated = entries(self.at, f"{name}.at")
        at = vector(stated, f"{name}.at") if stated else np.empty(0)
        if at.size and vector(at, f"{name}.at", positive=True, ascending=True)[-1] >= 1:
            raise ValueError(f"{name}.at ends at {at[-1]:g}; fractions of the run's examples must be < 1.")
        put(self, "at", tuple(float(share) for share in at))
        if self.every is not None:
            put(self, "every", integer(self.every, f"{name}.every", minimum=1))
        put(self, "trust", number(self.trust, f"{name}.trust", positive=True))
        put(self, "caution", number(self.caution, f"{name}.caution", nonnegative=True))
        put(self, "floor", number(self.floor, f"{name}.floor", nonnegative=True))
        if self.floor >= 1:
            raise ValueError(f"{name}.floor is {self.floor:g}; below 1, or nothing could move.")
        put(self, "transfer", number(self.transfer, f"{name}.transfer", nonnegative=True))
        put(self, "log_width", number(self.log_width, f"{name}.log_width", positive=True))
        put(self, "levels", integer(self.levels, f"{name}.levels", minimum=8))

    @property
    def coupling(self) -> Coupling:
        """How levels share examples and errors."""
        return Transfer(self.transfer, self.log_width) if self.transfer else Local(self.log_width)

    def due(self, before: int, after: int, total: int, step: int) -> bool:
        """Whether to plan after a step that brought the examples from `before` to `after` of `total`.

        >>> [ReplanRules(at=(0.5,)).due(before, before + 20, 100, 1) for before in (20, 40, 60)]
        [False, True, False]
        """
        before, after, total, step = (
            integer(value, f"ReplanRules.due: {name}", minimum=0)
            for name, value in (("before", before), ("after", after), ("total", total), ("step", step))
        )
        if self.every is not None:
            return step % self.every == 0
        return any(before < share * total <= after for share in self.at)
