"""report(): a plan, an audit or a comparison as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..basics.checks import instance
from ..comparison.table import Comparison
from ..planning.audit import Audit
from ..planning.what_if_table import WhatIf
from ..results.plan import Plan
from .assembly import write_page
from .audit_page import audit_html
from .comparison_page import comparison_html
from .plan_page import plan_html
from .slider import asked_in_advance

__all__ = ["report"]


def report(result: Any, path: str | Path, *, what_if: WhatIf | None = None) -> Path:
    """Write one self-contained HTML page: it needs no other file and asks the network for nothing.

    Of a plan: what to type, figures, the error by cause, certificate, shadow prices, the levels in every export's form
    and sliders over budget and steps whose answers were worked out in advance. Readable by day and by night, on a phone
    and on paper (two pages of A4).

    Args:
        result: a Plan, an Audit or a Comparison.
        path: the file to write, such as "plan.html".
        what_if: answers for the sliders of a plan; some four hundred settings are asked unless given, where the plan
            knows what was asked.

    Returns:
        The path.

    Raises:
        ValueError: another kind of result, or settings for one that is no plan.

    >>> import codesign_opt as co, pathlib, tempfile
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> plan = co.codesign(model, steps=5, stopping_sigma=0.1, levels=20, polish=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report(plan, pathlib.Path(folder) / "plan.html").read_text(encoding="utf-8")
    >>> page.startswith("<!DOCTYPE html>"), "http://" in page.replace("http://www.w3.org/", "")
    (True, False)
    """
    if what_if is not None and not isinstance(result, Plan):
        raise ValueError(f"report: what_if is given with a {type(result).__name__}; it belongs to a plan.")
    if what_if is not None:
        instance(what_if, WhatIf, "report: what_if", "co.what_if(plan, …) makes one.")
    if isinstance(result, Plan):
        why = ""
        if what_if is None:
            try:
                what_if = asked_in_advance(result)
            except ValueError as error:
                why = f"No sliders: {error} Then give report(plan, path, what_if=co.what_if(plan, …))."
        return write_page(path, plan_html(result, what_if, why))
    if isinstance(result, Audit):
        return write_page(path, audit_html(result))
    if isinstance(result, Comparison):
        return write_page(path, comparison_html(result))
    raise ValueError(f"report: {type(result).__name__} has no report; give a Plan, an Audit or a Comparison.")
