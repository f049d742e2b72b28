"""Settings of the documentation's site; docs/build_site.py arranges the pages and runs it."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

project = "codesign_opt"
extensions = ["myst_parser"]
html_math_renderer = "mathml"  # which browsers draw themselves: the pages ask no other host for anything
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4  # as on the pages of a repository: theory.md#63-what-was-measured
html_theme = "alabaster"
html_theme_options = {
    "page_width": "75em",
    "body_max_width": "none",
    "sidebar_width": "17em",
    "description": "diffusion schedules, certified",
    "code_font_size": "0.76em",  # a printed plan, 88 letters wide, is seen whole
}
html_static_path: list[str] = []
html_show_sphinx = False
html_show_copyright = False
highlight_language = "python"


def setup(app: Any) -> None:
    """Formulas as MathML."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode
