"""What was asked, as plain values in a plan and its file, from which the same question is stated once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ..basics.checks import ndim
from ..ingredients.metrics import Wasserstein
from ..ingredients.prices import Prices
from ..models.base import Model
from ..models.gaussian import GaussianModel
from ..results.plan import Plan
from .question import Study

__all__ = ["asked_of", "question_of"]

Range = tuple[float, float]


def question_of(study: Study, stopping_sigma: float | None, between: Range | None) -> dict[str, Any]:
    """A question as plain values; empty where a part of it is the user's code, an array, or measured on a network.

    Args:
        study: the question.
        stopping_sigma: the stopping point that is given, or None.
        between: range of the stopping points that are searched, or None for the model's own.
    """
    model = study.model
    if type(model) is not GaussianModel or study.constraints or study.terms or study.run is not None:
        return {}
    if not isinstance(model.metric, Wasserstein) or any(map(_has_functions, (model.training, model.coupling))):
        return {}
    prices: dict[str, float] | None = None
    if study.prices is not None:
        if any(callable(price) or ndim(price) for price in (study.prices.example, study.prices.evaluation)):
            return {}
        prices = {name: float(getattr(study.prices, name)) for name in ("example", "evaluation", "images")}
    said = model.to_dict()
    said["spectrum"].pop("sampling", None)  # how sure the eigenvalues are moves no answer
    return {
        "model": said, "prices": prices, "budget": study.budget, "steps": study.steps,
        "levels": study.levels, "stopping_sigma": stopping_sigma, "search": None if between is None else list(between),
    }  # fmt: skip


def _has_functions(part: Any) -> bool:
    return not is_dataclass(part) or any(callable(getattr(part, field.name)) for field in fields(part))


def asked_of(plan: Plan, model: Model | None = None, prices: Prices | None = None) -> tuple[Study, Range]:
    """The question that a plan answers, and the range of its stopping points; one value where that is given.

    Args:
        plan: a plan of `codesign`.
        model, prices: those of the plan where its file could not keep them.

    Raises:
        ValueError: what was asked is not in the plan, and `model` or `prices` is missing; with the reason.
    """
    said: Mapping[str, Any] = plan.question
    if not said and (model is None or plan.sigmas is None):
        why = "no sampler was planned" if plan.sigmas is None else "its model, prices, constraints or run are not plain"
        raise ValueError(
            f"what_if: the plan does not hold what was asked ({why}); give model= and prices=, and plan constraints "
            "anew with co.codesign or co.frontier."
        )
    if not said and np.any(plan.examples > plan.new_examples):
        raise ValueError(
            "what_if: the plan was made beside a training run, which a plan does not hold; ask co.codesign(…, run=…) "
            "for each setting."
        )
    if model is None:
        model = GaussianModel.from_dict(said["model"])
    if prices is None and said.get("prices") is not None:
        prices = Prices(**said["prices"])
    budget = said.get("budget", plan.costs.get("budget: limit"))
    steps = said.get("steps", None if budget is not None else plan.number_of_steps)
    if budget is not None and prices is None:
        raise ValueError("what_if: the plan has a budget, and its prices are not in it; give prices=co.Prices(...).")
    study = Study(model, prices, budget, steps, None, (), (), int(said.get("levels", 200)), 1e-6)
    return study, _range(study, plan, said)


def _range(study: Study, plan: Plan, said: Mapping[str, Any]) -> Range:
    given = said.get("stopping_sigma", plan.stopping_sigma if plan.outer.get("status") == "given" else None)
    if given is not None:
        return float(given), float(given)
    between = said.get("search")
    if between is None:
        return float(plan.outer.get("low", study.model.process.sigma_min)), float(
            plan.outer.get("high", min(study.model.spectrum.sigma_data, 0.5 * study.model.process.sigma_max))
        )
    return float(between[0]), float(between[1])
