"""Where a page's numbers come from: its last section and its last line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..basics.wording import quantity
from ..results.plan import Plan
from .elements import details, paragraph, table

__all__ = ["foot", "origin"]

_SHORT = 90  # letters of a value


def origin(plan: Plan) -> str:
    """Data, process, sampler, training law and notes of a plan."""
    rows = [[name.replace("_", " "), _plain(value)] for name, value in plan.provenance.items()]
    said = [paragraph(note) for note in plan.notes]
    record = json.dumps(dict(plan.provenance), indent=1, default=_listed)
    whole = details(
        "Everything that was recorded", f'<pre tabindex="0" aria-label="Provenance">{_escaped(record)}</pre>'
    )
    return "\n".join([table("Provenance", ["what", "value"], rows, left=2), *said, whole])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_plain(each)}" for key, each in value.items() if each is not None)
    elif isinstance(value, np.ndarray) or (isinstance(value, Sequence) and not isinstance(value, str)):
        items = np.asarray(value, dtype=object).ravel()
        text = f"{items.size} numbers" if items.size > 3 else ", ".join(map(_plain, items))
    elif isinstance(value, float):
        text = quantity(value)
    else:
        text = str(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def foot() -> str:
    """Which version wrote the page."""
    try:
        number = version("codesign_opt")
    except PackageNotFoundError:  # a source tree that was never installed
        number = "(not installed)"
    return f"Written by codesign_opt {number}. This page is one file and asks no other place for anything."
