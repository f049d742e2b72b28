"""What-ifs on a page: answers worked out in advance, chosen by sliders."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from ..basics.wording import percent, quantity
from ..planning.what_if import what_if
from ..planning.what_if_table import WhatIf
from ..results.plan import Plan
from .elements import paragraph

__all__ = ["Sliders", "asked_in_advance", "slider"]

_ANSWERS = {
    "error": "Error of the program", "ratio": "Over the plan's", "whole": "To expect of whole steps",
    "training": "Share of training", "examples": "Training examples", "steps": "Sampler steps",
    "stop": "Stops at sigma",
}  # fmt: skip
_BUDGETS, _FACTOR = 25, 16.0  # budgets from the plan's over this factor to it times this factor
_STEPS = 16


@dataclass(frozen=True)
class Sliders:
    """The sliders as an element, and what the script reads; both empty where nothing was asked."""

    html: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def asked_in_advance(plan: Plan) -> WhatIf:
    """Budgets around the plan's, and limits on steps around its number of them.

    Raises:
        ValueError: the plan does not hold what was asked.
    """
    count = plan.number_of_steps
    least = 2 if plan.terminal == "denoise" else 1
    tried = np.unique(np.geomspace(least, 4 * max(count, 2), _STEPS).round())
    steps = sorted({*(int(number) for number in tried), count})
    budget = plan.question.get("budget")
    if budget is None:
        return what_if(plan, steps=steps)
    budgets = float(budget) * np.geomspace(1 / _FACTOR, _FACTOR, _BUDGETS)
    return what_if(plan, budget=budgets, steps=[*steps, None])


def slider(found: WhatIf | None) -> Sliders:
    """Sliders over the axes that vary, and the answers of every setting as texts."""
    if found is None:
        return Sliders()
    unit = f" {found.price_unit}" if found.price_unit else ""
    axes = {
        "budget": ("Budget", [f"{quantity(v)}{unit}" for v in found.budgets], found.setting["budget"], found.budgets),
        "steps": ("Most sampler steps", ["any number" if np.isinf(v) else quantity(v) for v in found.steps],
                  found.setting["steps"], found.steps),
        "images": ("Images", [quantity(v) for v in found.images], found.setting["images"], found.images),
    }  # fmt: skip
    controls = [_control(name, *axis) for name, axis in axes.items() if len(axis[1]) > 1]
    cells = _texts(found)
    shown = [name for name in _ANSWERS if any(cells[name])]
    rows = "\n".join(
        f'<dt>{escape(_ANSWERS[name])}</dt><dd><output id="answer-{name}">{escape(cells[name][0])}</output></dd>'
        for name in shown
    )
    note = paragraph(
        "Every answer is the certified optimum of the plan's program for that setting, to leading order, at a stopping "
        "point of its own; whole steps leave about as much of it as the plan's do.", "note",
    )  # fmt: skip
    html = f'<div class="ask">{"".join(controls)}<dl>{rows}</dl>{note}</div>'
    data = {
        "axes": [{"name": name, "texts": axis[1]} for name, axis in axes.items()],
        "answers": {name: cells[name] for name in shown},
    }
    return Sliders(html, {"what_if": data})


def _control(name: str, title: str, texts: list[str], own: float, values: Any) -> str:
    with np.errstate(invalid="ignore"):
        at = int(np.argmax(values == own)) if (values == own).any() else int(np.nanargmin(np.abs(values - own)))
    return (
        f'<label for="ask-{name}">{title}: '
        f'<output id="said-{name}" for="ask-{name}">{escape(texts[at])}</output></label>'
        f'<input type="range" id="ask-{name}" min="0" max="{len(texts) - 1}" step="1" value="{at}">'
    )


def _texts(found: WhatIf) -> dict[str, list[str]]:
    """Texts of every setting by answer, in the order of the arrays."""
    none = np.isnan(found.error.ravel())
    trained = bool(np.isfinite(found.budgets).any())
    whole = found.error * found.whole_steps if found.whole_steps is not None else np.full(found.error.shape, np.nan)

    def texts(values: Any, write: Any) -> list[str]:
        return ["no plan" if lacks else write(v) for v, lacks in zip(values.ravel().tolist(), none, strict=True)]

    empty = [""] * none.size
    return {
        "error": texts(found.error, quantity),
        "ratio": texts(found.ratio, lambda v: f"{quantity(v, 3)} times"),
        "whole": empty if found.whole_steps is None else texts(whole, lambda v: f"about {quantity(v, 2)}"),
        "training": texts(found.training_share, percent) if trained else empty,
        "examples": texts(found.examples, lambda v: quantity(v, 3)) if trained else empty,
        "steps": texts(found.number_of_steps, lambda v: quantity(v, 3)),
        "stop": texts(found.stopping_sigma, lambda v: quantity(v, 3)),
    }
