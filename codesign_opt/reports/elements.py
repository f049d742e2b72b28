"""Pieces of a page: headings, tables, figures, blocks to copy. Everything that is text is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

__all__ = ["columns", "copy_block", "details", "figure", "paragraph", "section", "slug", "table"]


def slug(text: str) -> str:
    """A text as the name of an element.

    >>> slug("Levels for k-diffusion (list)")
    'levels-for-k-diffusion-list'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, of a class where one is named."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def section(title: str, *parts: str, kind: str = "") -> str:
    """A titled section; empty where it has no part."""
    body = "\n".join(part for part in parts if part)
    if not body:
        return ""
    name = slug(title)
    return (
        f'<section class="{kind}" aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n{body}\n</section>'
    )


def columns(*parts: str) -> str:
    """Parts side by side where there is room."""
    found = [part for part in parts if part]
    return f'<div class="columns">\n{chr(10).join(found)}\n</div>' if found else ""


def table(caption: str, title: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table with a caption; empty where there are no rows.

    Args:
        caption: what the table tells.
        title: of the columns.
        rows: as many texts each.
        left: how many columns, from the left, hold words; the first one heads its row.

    >>> print(table("Prices", ["what", "price"], [["a & b", "3"]]))
    <div class="wide"><table><caption>Prices</caption>
    <thead><tr><th scope="col" class="word">what</th><th scope="col">price</th></tr></thead>
    <tbody><tr><th scope="row" class="word">a &amp; b</th><td>3</td></tr></tbody></table></div>
    """
    if not rows:
        return ""
    words = [' class="word"' if i < left else "" for i in range(len(title))]
    head = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(title, words, strict=True))
    body = "\n".join(f"<tr>{_row(row, words)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: Sequence[str], words: Sequence[str]) -> str:
    first = f'<th scope="row"{words[0]}>{escape(row[0])}</th>'
    return first + "".join(f"<td{kind}>{escape(text)}</td>" for text, kind in zip(row[1:], words[1:], strict=True))


def figure(svg: str, title: str, said: str) -> str:
    """A drawing with its title and what is to be seen in it, which those are told who do not see it."""
    label = escape(f"{title}: {said}")
    return (
        f'<figure><div class="drawing" role="img" aria-label="{label}">{svg}</div>'
        f"<figcaption><b>{escape(title)}</b>. {escape(said)}</figcaption></figure>"
    )


def details(title: str, *parts: str) -> str:
    """Parts that open when their title is asked for; empty where there is none."""
    body = "\n".join(part for part in parts if part)
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>" if body else ""


def copy_block(title: str, text: str, note: str = "") -> str:
    """A text to type elsewhere, with a button that copies it.

    >>> 'data-copy="text-of-csv"' in copy_block("CSV", "80,3,0")
    False
    >>> 'data-copy="copy-csv"' in copy_block("CSV", "80,3,0")
    True
    """
    name = f"copy-{slug(title)}"
    said = paragraph(note, "note") if note else ""
    return (
        f'<div class="copy"><div class="bar"><h3>{escape(title)}</h3>'
        f'<button type="button" data-copy="{name}" aria-label="Copy {escape(title)}">Copy</button></div>'
        f'<pre id="{name}" tabindex="0" aria-label="{escape(title)}">{escape(text.rstrip())}</pre>{said}</div>'
    )
