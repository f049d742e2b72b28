"""What the plans of a run did, and what they bought by the run's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..basics.wording import aligned, percent, quantity
from ..ingredients.levels import Levels

__all__ = ["Replan", "RunReport", "shape_of"]


def shape_of(share: Array, levels: Levels) -> tuple[float, float]:
    """Mean and standard deviation of log sigma of a density on levels.

    >>> mean, std = shape_of(np.array([0.5, 0.5]), Levels([0.1, 1.0, 10.0]))
    >>> round(mean, 6), bool(abs(std - np.log(10) / 2) < 1e-9)
    (0.0, True)
    """
    logs = np.log(levels.sigma)
    mean = float(share @ logs)
    return mean, float(np.sqrt(share @ (logs - mean) ** 2))


@dataclass(frozen=True, eq=False)
class Replan:
    """One plan of the rest of a run.

    Attributes:
        examples: that the run had seen.
        kept: predicted score error at the end where the density in use stays, by the law of that moment.
        planned: the same at the plan's density, never above `kept`.
        moved: Kullback-Leibler divergence of the plan's density from the one in use, nats, at most `ReplanRules.trust`.
        price: shadow price of the trust region: what a nat more would win beyond `ReplanRules.caution`, over `kept`;
            0 where the plan ends before the region does.
        optimal: whether the certificate proved the plan optimal within its tolerance.
        share: (L,) the plan's density on the levels.
        note: empty, or why nothing was planned: the density in use stayed.
    """

    examples: int
    kept: float
    planned: float
    moved: float
    price: float
    optimal: bool
    share: Array
    note: str = ""

    @property
    def words(self) -> str:
        """In a few words: what the plan gains, or why there is none."""
        if self.note:
            return f"the density stays, {self.note}"
        gain = percent(1 - self.planned / self.kept) if self.kept else percent(0.0)
        return f"density moved by {self.moved:.2g} nats, for {gain} less error at the end"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"share": self.share.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Replan:
        """What `to_dict` gave."""
        return cls(**{**values, "share": np.array(values["share"], dtype=np.float64)})


@dataclass(frozen=True, eq=False)
class RunReport:
    """What a run bought by its plans: predicted score errors at its end, all by the last law of its own log.

    Attributes:
        levels: of the plans.
        start: (L,) the first density.
        plans: in order.
        examples: seen, and all of the run.
        error: of the examples as drawn, those to come at the density in use.
        stayed: had the run stayed at its first density.
        best: of the best density for all examples from the first on, without a trust region: what hindsight leaves.
        against: name -> of other densities from the first example on.
    """

    levels: Levels
    start: Array
    plans: tuple[Replan, ...]
    examples: tuple[int, int]
    error: float
    stayed: float
    best: float
    against: Mapping[str, float]

    @property
    def bought(self) -> float:
        """Fall of the predicted score error, relative to staying at the first density."""
        return 1.0 - self.error / self.stayed

    def __str__(self) -> str:
        seen, total = self.examples
        title = ("examples", "", "mean, std of log sigma", "moved, nats", "predicted: stay", "plan", "proved")
        rows = [["0", "", "{:.2f}, {:.2f}".format(*shape_of(self.start, self.levels)), "", "", "", ""]]
        for plan in self.plans:
            shape = "{:.2f}, {:.2f}".format(*shape_of(plan.share, self.levels))
            said = [
                f"{plan.moved:.3f}",
                quantity(plan.kept, 4),
                quantity(plan.planned, 4),
                "yes" if plan.optimal else "no",
            ]
            rows.append([f"{plan.examples:,}", "", shape, *(said if not plan.note else ["", "", "", ""])])
        lines = [f"Run planned {len(self.plans)} times, {seen:,} of {total:,} examples seen", *aligned(title, rows)]
        lines += [
            "score error at the end by the run's own log: "
            f"{quantity(self.error, 4)} as drawn, {quantity(self.stayed, 4)} at the first density "
            f"({self.bought:+.1%} bought), {quantity(self.best, 4)} by the best of hindsight",
            *(f"  {quantity(error, 4)} at {name}" for name, error in self.against.items()),
            *(f"note: at {plan.examples:,} examples {plan.note}" for plan in self.plans if plan.note),
        ]
        return "\n".join(lines)
