"""How the optimum depends on every coefficient: partial derivatives of the Lagrangian, at no further cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import Solved

__all__ = ["sensitivities"]


def sensitivities(solved: Solved) -> dict[str, Any]:
    """Derivative of the optimum by each coefficient, by name (envelope theorem, docs/theory.md section 8.2).

    Names are those of the table's fields and of the prices; those of a second table or of a second price end in
    " (2)". A coefficient that enters both objective and a bound has one derivative, the sum.
    """
    design, point = solved.compiled.design, solved.point
    told = []
    for leaf in solved.compiled.leaves:
        told += [(leaf.weight * w, t, d) for w, t, d in leaf.term.sensitivities(design, point, leaf.auxiliary)]
    for row, multiplier in zip(solved.compiled.rows, solved.multipliers, strict=True):
        if row.bound is not None and multiplier[0] > 0:
            for weight, term in row.bound.term.leaves():
                found = term.sensitivities(design, point, ())
                told += [(float(multiplier[0]) * weight * w, t, d) for w, t, d in found]
    result: dict[str, Any] = {}
    owners: dict[str, list[int]] = {}
    for weight, term, derivatives in told:
        for name, values in derivatives.items():
            known = owners.setdefault(name, [])
            owner = id(term.owner)
            if owner not in known:
                known.append(owner)
            label = name if known.index(owner) == 0 else f"{name} ({known.index(owner) + 1})"
            result[label] = result.get(label, 0.0) + weight * np.asarray(values)
    return {name: value if np.ndim(value) else float(value) for name, value in result.items()}
