"""The page of a comparison."""

from __future__ import annotations

import numpy as np

from ..basics.wording import quantity
from ..comparison.table import Comparison
from .assembly import Answer, assembled
from .elements import columns, copy_block, details, figure, paragraph, section, table
from .origin import foot

__all__ = ["comparison_html"]

_COPIED = 60  # grids to copy


def comparison_html(found: Comparison) -> str:
    """The page of a comparison as text: who leaves how much, by sampler and evaluations, and the grids to copy."""
    grids = [
        copy_block(
            f"{row.peer}, {row.sampler}, {row.evaluations} evaluations",
            f"sigmas = [{', '.join(f'{sigma:.9g}' for sigma in row.sigmas)}]",
        )
        for row in found.rows[:_COPIED]
    ]
    parts = [
        section("Who leaves how much", _figure(found), _ratios(found)),
        section("All numbers", details(f"{len(found.rows)} rows", _rows(found)), kind="screen"),
        section("Noise levels to copy", details(f"{len(grids)} grids", columns(*grids)), kind="screen"),
        section("What was left out", *map(paragraph, found.notes)),
    ]
    return assembled(_answer(found), parts, foot=foot())


def _answer(found: Comparison) -> Answer:
    best = [found.cell(*cell)[0] for cell in found.cells]
    wins = {name: sum(row.peer == name for row in best) for name in dict.fromkeys(row.peer for row in best)}
    said = ", ".join(f"{name} in {count}" for name, count in sorted(wins.items(), key=lambda item: -item[1]))
    lines = [("Least error", f"{said} of {len(best)} cells"), ("Measure", found.measure)]
    if "plan" in found.peers:
        level = found.share_level()
        lines.insert(1, ("The plan", f"best, or within one standard error of it, in {level:.0%} of its cells"))
    measured = any(row.standard_error > 0 for row in found.rows)
    lines.append(("How sure it is", "standard errors of paired draws" if measured else "errors are exact"))
    return Answer(f"Comparison on {found.title}" if found.title else "Comparison", lines)


def _figure(found: Comparison) -> str:
    if not found.rows:
        return ""
    samplers = list(dict.fromkeys(sampler for sampler, _ in found.cells))
    if len(samplers) > 1:
        return ""  # one panel each: the table below says the same
    try:
        from .svg_figure import svg_of
    except ImportError as error:
        return paragraph(f'The figure is left out ({error}): pip install "codesign_opt[plots]"', "note")
    said = "Error over that of the plan, or of the best where there is none, against evaluations."
    return figure(svg_of(lambda ax: found.plot([ax]), "f0", (8.0, 3.6)), samplers[0], said)


def _ratios(found: Comparison) -> str:
    title = ["schedule", *(f"{sampler} {count}" for sampler, count in found.cells)]
    ratios = found.ratios("")
    rows = [[name, *("–" if np.isnan(ratio) else quantity(ratio, 3) for ratio in ratios[name])] for name in found.peers]
    return table("Error over the least of the cell (sampler and evaluations)", title, rows)


def _rows(found: Comparison) -> str:
    title = ["schedule", "sampler", "evaluations", "steps", "error", "±", "rank"]
    rows = [
        [row.peer, row.sampler, f"{row.used:g} of {row.evaluations}", str(row.steps), quantity(row.error),
         quantity(row.standard_error, 2), str(row.rank)]
        for row in found.rows
    ]  # fmt: skip
    return table("Every schedule in every cell", title, rows, left=2)
