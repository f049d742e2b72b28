"""Figures as SVG inside a page: in the page's own colours by day and by night, their names unlike those of others."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

__all__ = ["svg_of"]

_INK, _PAPER = "#010203", "#fdfeff"  # stand for the page's own colours, and for nothing else
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
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
        FigureCanvasSVG(drawn)
        axes = drawn.add_subplot()
        draw(axes)
        for each in drawn.axes:
            each.set_title("", loc="left")  # the caption has it
            for axis in (each.xaxis, each.yaxis):
                if axis.get_scale() == "log":
                    axis.set_major_formatter(_Powers())
                    axis.set_minor_formatter(_Powers(minor_thresholds=(1.0, 0.4)))
        engine = drawn.get_layout_engine()
        if engine is not None:
            engine.execute(drawn)
            drawn.set_layout_engine(None)  # which would draw all once more before the file is written
        file = io.StringIO()
        drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inside(file.getvalue(), name)


class _Powers(LogFormatter):
    """Powers of ten as letters, 10⁻³: read out and copied as such; as formulas their layout takes seconds."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        power = np.log10(x)
        if not super().__call__(x, pos):  # this tick gets no label
            return ""
        whole = int(np.floor(power + 1e-9))
        times = f"{x / 10.0**whole:.3g}"
        if -2 <= whole <= 3:
            return f"{x:g}"
        return ("" if times == "1" else f"{times}·") + "10" + str(whole).translate(_RAISED)


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
