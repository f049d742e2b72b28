"""Figures as SVG inside a page: in the page's own colours by day and by night, their names unlike those of others."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["svg_of"]

_INK, _PAPER = "#010203", "#fdfeff"  # stand for the page's own colours, and for nothing else
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"), _INK
    ),
    "legend.facecolor": _PAPER,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


def svg_of(draw: Callable[[Axes], Any], name: str, size: tuple[float, float] = (5.4, 3.7)) -> str:
    """What `draw` puts on axes, as an SVG element that is as wide as its place.

    Args:
        draw: function of the Axes.
        name: unlike that of any other figure of the page.
        size: width and height in inches, which fix the size of its letters.
    """
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        drawn = Figure(figsize=size, layout="constrained")
        axes = drawn.add_subplot()
        draw(axes)
        axes.set_title("", loc="left")  # the caption has it
        file = io.StringIO()
        drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inside(file.getvalue(), name)


def _inside(text: str, name: str) -> str:
    """The element alone, ids prefixed, black as the page's ink and white as its paper."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(rf"(?i){_INK}|#000000", "currentColor", svg)
    svg = re.sub(rf"(?i){_PAPER}|#ffffff", "var(--paper)", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    return re.sub(r"\n\s*", "\n", svg).strip().replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
