"""Every public callable with plausible arguments: what stubs and lists of names offer, and methods that users call.

A method counts where no parameter of it is an array that the package has checked already, a design, a point of a
program or a tensor of a run: those are what files of the package hand each other.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import codesign_opt as co
from tests.hostile.parameters import NAMED, OWN
from tests.hostile.plausible import (
    FEATURES,
    GRID,
    LEVELS,
    PRICES,
    estimated,
    evidence,
    model,
    ones,
    plan,
    problem,
    run,
    spectrum,
)

PLACES = ("", "estimate", "training", "testbed", "peers", "exports")
INNER = re.compile(
    r"\bArray\b|Indices|\bDesign\b|\bPoint\b|Tensor|cp\.|Numbers|NDArray|LagrangianBound|NodeErrors|FitRules|StepSlopes"
    r"|SigmaStep|Coefficients|Passes|DenoiserCall|Axes|Mapping\[str, Array\]"
)
LEFT_OUT = re.compile(r"^(from_dict|from_state|from_record|merged|load_state_dict|restore|plot|unchecked_\w+)$|^_")
LONG = re.compile(
    r"estimate\.(network|evidence|pilot|fit_solver|descend_grid|replicated_runs|slope_errors|spectrum)$"
    r"|\.fit$|testbed\.(trained?|cached|digits|photo_patches|fashion_mnist)$|peers\.AlignYourSteps|^compare$|\.accuracy$"
)
# what takes long even where it is plausible, or loads other packages
HEAVY = re.compile(
    r"^(codesign|audit|frontier|best_|stopping_exponent|pilot_density|estimate\.|testbed\.|Problem)|diffusers|Estimated|Pilot"
)
# what methods are called on
INSTANCES: dict[str, Callable[[], Any]] = {
    "GaussianModel": model, "EstimatedModel": estimated, "Plan": plan, "Problem": problem, "Spectrum": spectrum,
    "Prices": lambda: PRICES, "Levels": lambda: LEVELS, "TrainingRun": run, "TrainingDensity":
    lambda: plan().training_density, "EDM": lambda: co.EDM(), "VP": lambda: co.VP(), "VE": lambda: co.VE(),
    "FlowMatching": lambda: co.FlowMatching(), "Cosine": lambda: co.Cosine(), "Heun": lambda: co.Heun(), "UniPC":
    lambda: co.UniPC(), "DPMpp2M": lambda: co.DPMpp2M(), "EulerMaruyama": lambda: co.EulerMaruyama(), "HeunChurn":
    lambda: co.HeunChurn(), "LinearMultistep": lambda: co.LinearMultistep(GRID, np.zeros(5), np.ones((5, 1))),
    "LogNormal": lambda: co.LogNormal(), "AveragedSGD": lambda: co.AveragedSGD(), "ConstantStepSGD":
    lambda: co.ConstantStepSGD(1e-3, 8), "SGD": lambda: co.SGD(co.LearningRate(1e-3), 8, 50), "Adam":
    lambda: co.Adam(co.LearningRate(1e-3), 8, 50), "Measured": lambda: co.Measured([0.1, 1.0, 10.0], np.ones(3)),
    "Local": lambda: co.Local(), "PerLevel": lambda: co.PerLevel([0.01, 1.0, 100.0]), "PerStep": lambda:
    co.PerStep(1.0), "Transfer": lambda: co.Transfer(), "LevelStatistics": lambda: co.LevelStatistics([0.1, 1.0, 10.0]),
    "LearningRate": lambda: co.LearningRate(0.01), "WeightAverage": lambda: co.WeightAverage.power(0.1), "Stage":
    lambda: co.Stage("a", 1.0), "Stages": lambda: co.Stages([co.Stage("a", 1.0)]), "StepSizeError": lambda:
    co.StepSizeError(ones, ones), "KLDivergence": lambda: co.KLDivergence(co.LogNormal()), "Turnover": lambda:
    co.Turnover(np.ones(8)), "peers.EDMRho": lambda: co.peers.EDMRho(), "peers.LogSNR": lambda: co.peers.LogSNR(),
    "peers.Evidence": evidence, "peers.OnlineSchedule": lambda: co.peers.OnlineSchedule([80.0, 1.0, 0.1]),
    "peers.Weighting": lambda: co.peers.weighting("edm"), "peers.OnLevels": lambda: co.peers.OnLevels(LEVELS,
    np.full(8, 0.125)), "training.SigmaSampler": lambda: co.training.SigmaSampler(co.LogNormal()), "testbed.Mixture":
    lambda: co.testbed.circle8(), "estimate.Moments": lambda: co.estimate.Moments((4,)), "estimate.TransferKernel":
    lambda: co.estimate.TransferKernel(1.0), "SharedParameters": lambda: co.SharedParameters(LEVELS, FEATURES,
    np.ones((8, 3, 2))),
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A public callable and how to make its plausible arguments anew."""

    name: str
    function: Callable[..., Any]
    parameters: dict[str, str]
    given: Callable[[], dict[str, Any]]
    keywords: bool = False


def public() -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for place in PLACES:
        package = getattr(co, place) if place else co
        for name in sorted(package.__all__):
            thing = getattr(package, name)
            if callable(thing) and id(thing) not in seen and not inspect.ismodule(thing):
                seen.add(id(thing))
                yield (f"{place}.{name}" if place else name), thing


def every() -> list[Call]:
    """Functions, constructors and methods, in the order of their names."""
    whole = [call_of(name, thing) for name, thing in public() if not _error(thing)]
    return [call for call in whole if call is not None] + list(methods(INSTANCES))


def required(call: Call) -> set[str]:
    """Parameters without a default."""
    found = signature(call.function)
    assert found is not None
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in found.parameters.values() if p.default is p.empty and p.kind not in kinds}


def _error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def given_for(name: str, parameters: list[inspect.Parameter]) -> Callable[[], dict[str, Any]]:
    own = OWN.get(name, {})
    takes = {p.name for p in parameters}
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def given() -> dict[str, Any]:
        made = {key: make() for key, make in own.items() if key in takes or everything}
        for p in parameters:
            if p.name in made or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            if p.default is p.empty and p.name in NAMED:
                made[p.name] = NAMED[p.name]()
        return made

    return given


def call_of(name: str, function: Any) -> Call | None:
    found = signature(function)
    if found is None:
        return None
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    texts = {p.name: str(p.annotation) for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if not texts:
        return None
    return Call(name, function, texts, given_for(name, parameters), any(p.kind is p.VAR_KEYWORD for p in parameters))


def methods(instances: dict[str, Callable[[], Any]]) -> Iterator[Call]:
    """Methods of the instances and class methods of every public class."""
    seen: set[str] = set()
    for name, thing in public():
        if not inspect.isclass(thing):
            continue
        for key in sorted(dir(thing)):
            kind, member = inspect.getattr_static(thing, key), getattr(thing, key)
            whole = isinstance(kind, (classmethod, staticmethod))
            if LEFT_OUT.search(key) or not (whole or (inspect.isfunction(kind) and name in instances)):
                continue
            home = f"{name}.{key}" if whole else f"{name}().{key}"
            if not (member.__module__ or "").startswith("codesign_opt"):
                continue
            found = call_of(home, member)
            text = str(signature(member))
            if found is None or INNER.search(text.split("->")[0]) or f"{member.__qualname__}{name}" in seen:
                continue
            seen.add(f"{member.__qualname__}{name}")
            if not whole:
                found = Call(home, _bound(instances[name], key), found.parameters, found.given, found.keywords)
            yield found


def _bound(make: Callable[[], Any], key: str) -> Callable[..., Any]:
    return lambda **given: getattr(make(), key)(**given)
