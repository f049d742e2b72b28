"""The causes of a plan's error in words, for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..basics import causes

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["CAUSES", "beside", "cause_cells", "cause_of", "clip"]

# What each part of the error is, for a reader who has not read docs/theory.md.
CAUSES = {
    causes.DISCRETIZATION: "finite sampler steps",
    causes.SCORE: "too few training examples",
    causes.FLOOR: "training noise that stays",
    causes.LAST_EVALUATION: "denoiser error in the final call",
    causes.TOGETHER: "errors that these two share",
    causes.BESIDE_BIAS: "what is unlearned, beside steps",
    causes.TRUNCATION: "stopping above zero noise",
    causes.INITIAL: "starting from pure noise",
    causes.BIAS: "steps, stop and start, exactly",
    causes.INFORMATION: "too few training examples",
    causes.SIGNED_GRAM: "finite sampler steps, signed",
    causes.POSITIVE_GRAM: "finite sampler steps, upper model",
    causes.COHERENT_SCORE: "too few training examples",
}


def cause_cells(name: str, plan: PlanRecord) -> list[str]:
    """A cause of error as the first two cells of a row: its short name and what it is."""
    short = "discretization" if name.startswith("discretization (") else clip(name, 20)
    if name == causes.BIAS and plan.bias != "exact":
        return [short, f"steps, stop and start, {plan.bias}"]
    return [short, CAUSES.get(cause_of(name, plan), "term of this problem")]


def beside(now: Mapping[str, float], best: Mapping[str, float]) -> list[tuple[str, float | None, float | None]]:
    """The causes of two errors that leave something in either, and how much in each."""
    names = [name for name in {**now, **best} if name not in causes.NOT_CAUSES]
    return [(name, now.get(name), best.get(name)) for name in names if now.get(name) or best.get(name)]


def cause_of(name: str, plan: PlanRecord) -> str:
    """The cause behind a part of the error, without the name of the sampler whose it is."""
    sampler, _, rest = name.partition(": ")
    return rest if sampler in plan.samplings else name


def clip(name: str, width: int = 30) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
