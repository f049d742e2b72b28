"""The page around its sections: title, style and script inside, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..basics.checks import as_path
from ..basics.files import write_whole

__all__ = ["Answer", "assembled", "write_page"]


class Answer:
    """What a page says first: what to type, what it buys, how sure it is.

    Args:
        title: of the page.
        lines: (question, answer) pairs.
    """

    def __init__(self, title: str, lines: Sequence[tuple[str, str]]) -> None:
        self.title, self.lines = title, tuple((question, text) for question, text in lines if text)

    def html(self) -> str:
        """The header of the page."""
        rows = "\n".join(f"<dt>{escape(question)}</dt><dd>{escape(text)}</dd>" for question, text in self.lines)
        return f"<header><h1>{escape(self.title)}</h1>\n<dl>{rows}</dl></header>"


def assembled(answer: Answer, sections: Sequence[str], data: Mapping[str, Any] | None = None, foot: str = "") -> str:
    """One page: the answer, its sections, and what its script reads.

    Args:
        answer: what it says first.
        sections: elements in order; empty ones are left out.
        data: for the script, as JSON.
        foot: last line.
    """
    here = files(__package__)
    style, script = (here.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    # "</" inside a script would end it
    record = json.dumps(data or {}, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    body = "\n".join(part for part in sections if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(answer.title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{answer.html()}
{body}
</main>
<footer>{escape(foot)}</footer>
<p id="said" class="said" role="status" aria-live="polite"></p>
<script id="data" type="application/json">{record}</script>
<script>
{script}</script>
</body>
</html>
"""


def write_page(path: str | Path, page: str) -> Path:
    """Write a page whole; returns its path."""
    return write_whole(as_path(path), page)
