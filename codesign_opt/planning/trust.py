"""What a plan says of its own numbers: errors that cancel for one spectrum alone, and where the program's law fails."""

from __future__ import annotations

from dataclasses import replace

from ..basics.causes import BIAS, TOTAL
from ..basics.wording import quantity
from ..models.gaussian import GaussianModel
from ..results.plan import Plan
from .question import Study

__all__ = ["trust"]

_CANCELLED = 0.5  # of what stopping alone leaves, below which the bias is a difference
_OTHER = 0.1  # relative change of all variances that a plan is tried on
_APART = 0.07  # relative difference between the program's law and the prediction that adds errors first


def trust(study: Study, plan: Plan) -> list[str]:
    """Notes on a handed-out plan of Gaussian data; none where its law is not exact.

    Args:
        study: the question.
        plan: with its grid and the errors that are handed out.
    """
    model = study.model
    if not isinstance(model, GaussianModel) or model.metric.measure or plan.sigmas is None:
        return []
    return [*_cancelled(model, plan), *_apart(study, model, plan)]


def _cancelled(model: GaussianModel, plan: Plan) -> list[str]:
    """That steps and stop cancel, and what the grid leaves for data of slightly other variances."""
    assert plan.sigmas is not None
    alone, bias = sum(model.truncation_and_start(plan.stopping_sigma)), plan.handed_out[BIAS]
    if not 0 < bias < _CANCELLED * alone:
        return []
    spectrum = model.spectrum
    others = [
        replace(model, spectrum=replace(spectrum, eigenvalues=spectrum.eigenvalues * (1 + change)))
        for change in (-_OTHER, _OTHER)
    ]
    low, high = sorted(other.bias(plan.sigmas) for other in others)
    return [
        f"stopping here alone leaves {quantity(alone, 3)}, errors of steps cancel it to {quantity(bias, 3)}: for this "
        f"spectrum; where all variances are {_OTHER:.0%} smaller or larger, {quantity(low, 3)} and {quantity(high, 3)}"
    ]


def _apart(study: Study, model: GaussianModel, plan: Plan) -> list[str]:
    """That errors added before they are squared are another number than the program's law, and why."""
    if not study.trains or study.terms or not plan.examples.sum() > 0:
        return []
    found, total = model.predict(plan.sigmas, plan.examples, levels=plan.levels), plan.handed_out[TOTAL]
    if abs(found.total - total) <= _APART * total:
        return []
    fewest, where = found.fewest
    few = f"; {quantity(fewest, 2)} examples teach sigma {quantity(where, 3)}" if fewest < 10 else ""
    return [
        f"errors that steps and the last evaluation share add up to {quantity(found.total)} in all "
        f"(model.predict; co.validate trains and samples it){few}"
    ]
