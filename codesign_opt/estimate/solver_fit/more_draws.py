"""A joint fit on ever more draws, where its held-out error says that the draws it has were learned by heart."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..steps.grid_error import objective_of
from .joint import FitState, JointFit
from .rows import Rows

__all__ = ["GrownFit"]

_OVER = 1.5  # held-out error over that of the fitted draws from which on more draws are asked for
_STEPS = 2  # on twice the draws that must be affordable


@dataclass(frozen=True, eq=False)
class GrownFit:
    """The best rows on the held-out draws of the last and largest sets, and the fit that found them.

    Few draws, near a boundary between two outcomes of the fine solution, may carry most of the mean squared error. A
    fit on draws without such ones forgets them: its own error falls on and the held-out error stays (docs/theory.md
    section 7.11). Both sets are doubled then, the earlier draws among them, and the fit goes on.

    Attributes:
        joint: the last fit: its draws, and what was spent.
        best: the rows, with squared errors on fitted and held-out draws.
        reason: why it stopped.
    """

    joint: JointFit
    best: FitState
    reason: str

    @classmethod
    def of(cls, joint: JointFit, start: Rows) -> GrownFit:
        """Fits from these rows on, each on twice the draws of the one before, as far as the budget goes."""
        found = cls(joint, *joint.fit(start))
        while found._forgets and found._affords_more:
            more, best = _doubled(found.joint), found.best
            found = cls(more, *more.fit(best.rows, best.damping))
        return found

    @property
    def _forgets(self) -> bool:
        """Whether the held-out error stays far above that of the fitted draws."""
        value = objective_of(self.joint.objective)
        return 0 < _OVER * value(self.best.errors)[0] < value(self.best.held_out)[0]

    @property
    def _affords_more(self) -> bool:
        """Whether the budget has room for steps on twice the draws, and for two runs to compare on them."""
        more, rows = _doubled(self.joint), self.best.rows
        return more.spent + _STEPS * more.cost(rows) + 2 * more.trial_cost(rows) <= more.budget


def _doubled(joint: JointFit) -> JointFit:
    runs, held_out = joint.runs.doubled(), joint.held_out.doubled()
    return replace(joint, runs=runs, held_out=held_out, name=f"{joint.name}, {runs.draws.count} draws")
