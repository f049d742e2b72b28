"""Whole steps whose errors are added before they are squared: what is handed out and said (docs/theory.md section 6.6).

The programs know the density at each level alone. Once the grid is known, so is which of its nodes the same examples
teach, and how their errors go together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.causes import TOTAL
from ..basics.checks import Array
from ..ingredients.levels import Levels
from ..models.base import Model
from ..models.gaussian import GaussianModel
from ..models.node_windows import window_table
from .question import Study
from .settling import Settled, settle_on

__all__ = ["error_of", "exactly_known", "knows_shared", "with_shared_errors"]


def exactly_known(model: Model) -> bool:
    """Whether the model's law says how errors of nodes go together."""
    return isinstance(model, GaussianModel)


def knows_shared(study: Study) -> bool:
    """Whether errors that nodes share are told: of an exact law, and no other terms than its own."""
    return study.taught and not study.terms and exactly_known(study.model)


def error_of(model: Model, sigmas: Array, examples: Array, levels: Levels) -> dict[str, float]:
    """Error by cause of a grid and its examples, those of nodes that share examples added first, and the total."""
    found = model.predict(sigmas, examples, levels=levels)
    return {**found.parts, TOTAL: found.total}


def with_shared_errors(study: Study, settled: Settled) -> Settled:
    """The grid with what its errors leave together, and the better of two trainings; itself where that is not known.

    One is the program's, the other that of errors which windows of one correlation length share.
    """
    if settled.table is None or not knows_shared(study):
        return settled
    told = _told(study, settled)
    if not np.isfinite(told.total):
        return settled
    if not study.trains:
        return told
    terms = study.model.node_terms(settled.sigmas)
    table = None if terms is None else window_table(settled.table, terms, study.model.coupling)
    other = None if table is None else settle_on(study, settled.sigmas, table, settled.table)
    return min([told, *([] if other is None else [_told(study, other)])], key=lambda each: each.total)


def _told(study: Study, settled: Settled) -> Settled:
    assert settled.table is not None
    examples = study.spent(settled.table) if settled.examples is None else settled.examples.examples
    assert examples is not None
    return replace(settled, handed_out=error_of(study.model, settled.sigmas, examples, settled.table.levels))
