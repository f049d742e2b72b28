"""The page of an audit."""

from __future__ import annotations

from ..basics.causes import TOTAL
from ..basics.wording import quantity
from ..planning.audit import Audit
from ..results.cause_words import beside, cause_cells
from ..results.text import certificate_line, outer_line, share_of
from .assembly import Answer, assembled
from .copies import copies
from .elements import columns, figure, paragraph, section, table
from .origin import foot, origin

__all__ = ["audit_html"]


def audit_html(audit: Audit) -> str:
    """The page of an audit as text: what today's schedule costs, why, and the best of the same compute to copy."""
    best = audit.optimum
    first, others = copies(best)
    parts = [
        section("Where it is lost", columns(_figure(audit), _gaps(audit), _causes(audit))),
        section("What to type instead", *first),
        section("For other programs", *others, kind="screen"),
        section("Where the numbers come from", origin(best)),
    ]
    return assembled(_answer(audit), parts, foot=foot())


def _answer(audit: Audit) -> Answer:
    best = audit.optimum
    largest = max(audit.gap.items(), key=lambda item: item[1], default=("", 0.0))
    now = audit.sigmas[audit.sigmas > 0][-1]
    outer = outer_line(best)
    lines = [
        ("Today", f"{audit.sigmas.size - 1:,} steps to sigma {quantity(now)}, {quantity(audit.examples.sum())} "
                  f"examples: error {quantity(audit.current[TOTAL])}"),
        ("Best", f"{best.number_of_steps:,} steps to sigma {quantity(best.stopping_sigma)}, "
                 f"{quantity(best.examples.sum())} examples: error {quantity(best.handed_out.get(TOTAL))}, "
                 f"at the same compute, {quantity(audit.budget)}"),
        ("Change first", f"the {largest[0]}: {share_of(largest[1], sum(audit.gap.values()))} of the excess"
                         if largest[1] > 0 else "nothing: no change was found that removes error"),
        ("How sure it is", certificate_line(best) + (f"; {outer}" if outer else "")),
    ]  # fmt: skip
    return Answer(f"Audit: today's schedule makes {quantity(audit.ratio, 3)} times the error it has to", lines)


def _figure(audit: Audit) -> str:
    try:
        from .svg_figure import svg_of
    except ImportError as error:
        return paragraph(f'The figure is left out ({error}): pip install "codesign_opt[plots]"', "note")
    said = "Excess score error by noise level over the best density at the same grid."
    return figure(svg_of(audit.plot, "f0"), "Where today's training loses", said)


def _gaps(audit: Audit) -> str:
    whole = sum(audit.gap.values())
    rows = [[name, quantity(value), share_of(value, whole)] for name, value in audit.gap.items()]
    return table("Excess removed by changing, in turn", ["change", "error", "share"], rows)


def _causes(audit: Audit) -> str:
    now, best = audit.current, audit.optimum.handed_out
    rows = [[*cause_cells(name, audit.optimum), *map(quantity, errors)] for name, *errors in beside(now, best)]
    rows.append([TOTAL, "", quantity(now[TOTAL]), quantity(best.get(TOTAL))])
    return table("Error by cause", ["cause", "what it is", "today", "best"], rows, left=2)
