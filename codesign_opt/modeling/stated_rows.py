"""The cvxpy constraints that a constraint states on a design, whatever form it was given in."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import shown
from ..basics.user_code import told_in
from .constraints import Constraint, Named
from .design import Design
from .parameters import refuse_unset

__all__ = ["stated_rows"]


def stated_rows(item: Named, design: Design) -> list[Any]:
    """What the constraint returns for this design, as a list; what goes wrong inside is told with its name.

    Raises:
        TypeError: it returned nothing that could be a constraint.
    """
    what: Any = item.what
    with told_in(f"the constraint '{item.name}'"):
        produced = what.constraints(design) if isinstance(what, Constraint) else what(design)
    if isinstance(produced, (cp.Constraint, bool, np.bool_)):
        produced = [produced]
    if not isinstance(produced, (list, tuple)):
        raise TypeError(f"'{item.name}' returned {shown(produced)}; return a cvxpy constraint or a list of them.")
    for row in produced:
        refuse_unset(f"the constraint '{item.name}'", row)
    return list(produced)
