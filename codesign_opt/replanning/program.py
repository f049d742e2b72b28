"""The program of one re-plan: what the rest of a run is trained on, docs/theory.md section 7.13."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..basics.checks import Array
from ..ingredients.levels import Levels
from ..ingredients.prices import Prices
from ..modeling import Compute, Design, Floor, KLDivergence, Point, ScoreError, named
from ..models.gaussian import GaussianModel
from ..programs.problem import Problem
from ..results.plan import Plan
from .rules import ReplanRules
from .run_law import RunLaw

if TYPE_CHECKING:
    import cvxpy as cp

__all__ = ["TRUST", "RestOfRun"]

TRUST = "trust region"

_STEPS = 10.0  # in a unit of log sigma: far more than the correlation length asks for, the sampler is no question here


@dataclass(frozen=True, eq=False)
class RestOfRun:
    """What is left to train: spent examples count, the rest is to be planned.

    Args:
        model: of the data.
        levels: of the program.
        rules: trust region, floor, and how levels share examples.
        spent: (L,) examples so far.
        left: examples still to be trained, > 0.
        share: (L,) the density in use.
    """

    model: GaussianModel
    levels: Levels
    rules: ReplanRules
    spent: Array
    left: float
    share: Array

    def score(self, law: RunLaw) -> ScoreError:
        """The score error by a law."""
        return ScoreError(law.model(self.model, self.rules).coefficients(self.levels.edges[0], self.levels))

    def plan(self, law: RunLaw, *, trust: float | None = None) -> Plan:
        """Least score error at the end of the run, and what a move must win, within the trust region, proved optimal.

        Args:
            law: of the errors.
            trust: divergence in nats; None: no limit, no floor, and moves that need win nothing.
        """
        limits: list[Any] = [self._paid <= self.left]
        error: Any = self.score(law)
        if trust is not None:
            floor = self.spent + self.rules.floor * self.left * self.share
            limits += [named(TRUST, self._within(trust)), Floor(floor, "examples")]
            price = self.rules.caution * self.error(law, self.share) / self.left
            if price > 0:
                error = error + KLDivergence(self.share, price=price, quantity="new_examples")
        return Problem(error, limits, steps=_STEPS * self.levels.log_width, spent=self.spent).solve()

    def _within(self, trust: float) -> Callable[[Design], cp.Constraint]:
        """sum m log(m / (q sum m)) <= trust sum m: the divergence of shapes, whatever the number of examples.

        `KLDivergence(...) <= trust x left` is this only where all that is left is spent; a plan could spend less and
        move farther. This one is homogeneous, so that the budget always binds.
        """

        def near(design: Design) -> cp.Constraint:
            import cvxpy as cp

            share = design.new_examples / self.left
            return cp.sum(cp.rel_entr(share, cp.multiply(self.share, cp.sum(share)))) <= trust * cp.sum(share)

        return near

    @property
    def _paid(self) -> Compute:
        return Compute(Prices(1.0, 1.0, 1), part="training")

    def error(self, law: RunLaw, share: Array) -> float:
        """Score error at the end of the run where its rest has this density, by a law."""
        point = Point(self.left * share, self.spent, _STEPS * self.levels.log_width)
        score = self.score(law)
        return float(sum(part.sum() for part in score.levels_value(point)) + sum(score.final_value(point)))
