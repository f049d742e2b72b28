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

import codesign_opt as co
from tests.hostile.instances import INSTANCES, OF_METHODS
from tests.hostile.parameters import NAMED, OWN

PLACES = ("", "estimate", "training", "testbed", "peers", "exports")
INNER = re.compile(
    r"\bArray\b|Indices|\bDesign\b|\bPoint\b|Tensor|cp\.|Numbers|NDArray|LagrangianBound|NodeErrors|FitRules|StepSlopes"
    r"|SigmaStep|Coefficients|Passes|DenoiserCall|Axes|Mapping\[str, Array\]"
)
LEFT_OUT = re.compile(r"^(from_dict|from_state|from_record|merged|load_state_dict|restore|plot|unchecked_\w+)$|^_")
LONG = re.compile(
    r"estimate\.(network|evidence|pilot|fit_solver|descend_grid|replicated_runs|slope_errors|spectrum)$"
    r"|\.fit$|testbed\.(trained?|cached|digits|photo_patches|fashion_mnist)$|Plan\(\)\.report$"
    r"|peers\.AlignYourSteps|^compare$|\.accuracy$"
)
# what takes long even where it is plausible, or loads other packages
HEAVY = re.compile(
    r"^(codesign|audit|frontier|best_|stopping_exponent|pilot_density|Problem|Estimated|Pilot)|[dD]iffusers|\breport$"
    r"|estimate\.(shared_features|decoupling)$"
)


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
    return [call for call in whole if call is not None] + list(methods())


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
    own = OWN.get(name, {}) | OF_METHODS.get(name, {})
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


def methods() -> Iterator[Call]:
    """Methods of instances of every public class, and its class methods."""
    seen: set[str] = set()
    for name, thing in public():
        if not inspect.isclass(thing):
            continue
        make = instance_of(name, thing)
        for key in sorted(dir(thing)):
            kind, member = inspect.getattr_static(thing, key), getattr(thing, key)
            whole = isinstance(kind, (classmethod, staticmethod))
            if LEFT_OUT.search(key) or not (whole or (inspect.isfunction(kind) and make is not None)):
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
                assert make is not None
                found = Call(home, _bound(make, key), found.parameters, found.given, found.keywords)
            yield found


def instance_of(name: str, thing: type) -> Callable[[], Any] | None:
    """How to make an instance: one that is written here, or the class with plausible arguments; None of results."""
    if name in INSTANCES:
        return INSTANCES[name]
    made = call_of(name, thing)
    needed = set() if made is None else required(made)
    stated = NAMED.keys() | OWN.get(name, {}).keys() | OF_METHODS.get(name, {}).keys()
    if inspect.isabstract(thing) or getattr(thing, "_is_protocol", False) or not needed <= stated:
        return None
    return lambda: thing(**({} if made is None else made.given()))


def _bound(make: Callable[[], Any], key: str) -> Callable[..., Any]:
    return lambda **given: getattr(make(), key)(**given)
