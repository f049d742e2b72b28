"""The samplers that share a plan's training, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..basics.wording import aligned, quantity

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["samplers_lines"]

_MOST = 8


def samplers_lines(plan: PlanRecord) -> list[str]:
    """A row for each sampler: its steps, its images, its error in the program and with whole steps."""
    if not plan.samplings:
        return []
    exact = any(each.handed_out for each in plan.samplings.values())
    rows = []
    for name, each in list(plan.samplings.items())[:_MOST]:
        count = float(np.sum(each.steps)) + (each.terminal == "denoise")
        images = "" if each.images is None else quantity(each.images)
        row = [name, quantity(each.number_of_steps), quantity(count), images, quantity(each.weight)]
        row += [quantity(each.error), *([quantity(each.handed_out.get("total"))] if exact else [])]
        rows.append(row)
    columns = ["Samplers", "steps", "in the program", "images", "weight", "error", *(["whole steps"] if exact else [])]
    lines = aligned(columns, rows)
    if len(plan.samplings) > _MOST:
        lines.append(f"  … and {len(plan.samplings) - _MOST} more in plan.samplings")
    return lines
