"""What a plan says of its own numbers: errors that cancel for one spectrum alone, and where laws may fail."""

from __future__ import annotations

from dataclasses import fields, replace

from ..basics.causes import BIAS, TOTAL
from ..basics.wording import quantity
from ..ingredients.coupling import Local
from ..models.gaussian import GaussianModel
from ..results.plan import Plan
from .question import Study

__all__ = ["trust"]

_CANCELLED = 0.5  # of what stopping alone leaves, below which the bias is a difference
_REACHED = 4.0  # times the data's standard deviation, below which the noise hardly hides them
_STARTED = 0.25  # of the program's error, from which on the start is worth a word
_OTHER = 0.1  # relative change of all variances that a plan is tried on


def trust(study: Study, plan: Plan) -> list[str]:
    """Notes on a handed-out plan of Gaussian data; none where its law is not exact.

    Args:
        study: the question.
        plan: with its grid and the errors that are handed out.
    """
    model = study.model
    if not isinstance(model, GaussianModel) or plan.sigmas is None:
        return []
    started = [*_scaled(model), *_started(model, plan)]
    return [*started, *_cancelled(model, plan), *_unproven(study, model, plan), *_assumed(study, model, plan)]


def _scaled(model: GaussianModel) -> list[str]:
    """That the noise does not reach from below the data to far above: mostly data in other units than the network's."""
    spread, low, top = model.spectrum.sigma_data, model.process.sigma_min, model.process.sigma_max
    if spread < low:
        return [
            f"the lowest sigma, {quantity(low, 3)}, is above the data's standard deviation {quantity(spread, 3)}, "
            "so that no step sees them: state them as the network sees them"
        ]
    if top >= _REACHED * spread:
        return []
    return [
        f"the noise ends at sigma {quantity(top, 3)}, {top / spread:.2g} times the data's standard deviation "
        f"{quantity(spread, 3)}: state the data as the network sees them (bytes: x / 127.5 - 1), or a wider process"
    ]


def _started(model: GaussianModel, plan: Plan) -> list[str]:
    """That a start at the data's mean would take away much of the error, and how a sampler then starts."""
    if model.start != "noise" or not plan.error > 0:
        return []
    mean = replace(model, start="mean")
    saved = model.initial_error(plan.stopping_sigma) - mean.initial_error(plan.stopping_sigma)
    if saved < _STARTED * plan.error:
        return []
    return [
        f"starting at zero instead of the data's mean makes {saved / plan.error:.0%} of the error; start='mean' leaves "
        "none of it: begin at x = mean + sigma_max * noise (in x_t: s times that)"
    ]


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


def _unproven(study: Study, model: GaussianModel, plan: Plan) -> list[str]:
    """Where the law of training errors, which is of leading order, may fail."""
    if plan.sigmas is None or not study.taught or study.terms or not plan.examples.sum() > 0:
        return []
    found = model.predict(plan.sigmas, plan.examples, levels=plan.levels)
    return list(found.outside) if found.regressors == 1 else []  # those of full matrices are told by their law


def _assumed(study: Study, model: GaussianModel, plan: Plan) -> list[str]:
    """What the correlation length and the training noise, which nobody knows, do to this plan's error if wrong.

    Half as much of each and half as much again: the same grid and examples under another coupling, and with the
    examples that leave so much more or less noise (a level's error falls as one over them, section 5.1).
    """
    coupling, total = model.coupling, plan.handed_out[TOTAL]
    if not study.taught or study.terms or not isinstance(coupling, Local) or not total > 0:
        return []
    own, stated = coupling.log_width, any(field.name == "log_width" and field.init for field in fields(coupling))
    if not stated or callable(own) or not plan.examples.sum() > 0:
        return []

    def moved(length: float, noise: float) -> str:
        other = replace(model, coupling=replace(coupling, log_width=length * own))
        assert plan.sigmas is not None
        change = other.predict(plan.sigmas, plan.examples / noise, levels=plan.levels).total / total - 1
        return "0 %" if abs(change) < 5e-4 else f"{100 * change:+.2g} %"

    lengths, noises = [[moved(*at) for at in pair] for pair in (((0.5, 1), (1.5, 1)), ((1, 0.5), (1, 1.5)))]
    return [
        f"not known: if the correlation length ({quantity(own, 2)}) is half or 1.5 times that, this error moves by "
        f"{lengths[0]} or {lengths[1]}; if the training noise (kappa) is, by {noises[0]} or {noises[1]}"
    ]
