"""What the file of a plan must hold: kinds of its fields, numbers that agree with each other, and its checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, number, vector
from ..ingredients.grids import check_grid

__all__ = ["check_agreement", "check_kinds", "check_levels", "checksum", "read_only"]

_ROUNDING = 1e-6  # of sums of the parts that are stated beside them
_PROVED = 1e-3  # of the objective's parts: far above what a gap of any tolerance in use leaves, far below a false bound

_SCALAR = (int, float, str, bool, type(None))
_LENGTHS = ("discretization", "marginal_gain", "step_price", "continuous_examples")
_PER_LEVEL = ("score", "floor", "score_weight", "final_window", "example_price", "prior_examples")


def checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of what a file's JSON says, whatever its spaces and the order of its names; its own entry left out.

    >>> checksum({"a": 1.0, "b": [2]}) == checksum({"b": [2], "a": 1.0, "checksum": "…"})
    True
    """
    content = {name: value for name, value in data.items() if name != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"


def check_kinds(data: Mapping[str, Any]) -> None:
    """Refuse a field of another kind than a plan's, by name.

    Raises:
        ValueError: the first field that is not a number, text, list or mapping as it must be.
    """
    for name, check in _KINDS.items():
        if name in data:
            check(data[name], f"Plan.{name}")


def check_agreement(plan: Any) -> None:
    """Refuse numbers that contradict each other: parts and their sum, value, bound and gap of the certificate.

    Raises:
        ValueError: the numbers that disagree, by name and amount.
    """
    if plan.sigmas is not None:
        last = float(plan.sigmas[plan.sigmas > 0][-1])
        if not abs(last - plan.stopping_sigma) <= _ROUNDING * last:
            raise ValueError(f"Plan.stopping_sigma is {plan.stopping_sigma:g}, but Plan.sigmas stop at {last:g}")
    parts, proof = np.array(list(plan.breakdown.values()), dtype=np.float64), plan.certificate
    size = float(np.abs(parts).sum()) if parts.size else abs(plan.error)
    if parts.size and not abs(parts.sum() - plan.error) <= _ROUNDING * size:
        raise ValueError(f"Plan.error is {plan.error:g}, but the parts of Plan.breakdown sum to {parts.sum():g}")
    if not proof.optimal:
        return
    if not abs(proof.value - plan.error) <= _PROVED * size:
        raise ValueError(f"Plan.certificate.value is {proof.value:g}, but Plan.error is {plan.error:g}")
    if not abs(proof.value - proof.lower_bound) <= _PROVED * max(size, abs(proof.value)):
        raise ValueError(
            f"Plan.certificate: value {proof.value:g} and lower_bound {proof.lower_bound:g} are no relative gap "
            f"of {proof.relative_gap:g}"
        )


def check_levels(plan: Any) -> None:
    """Refuse amounts of levels that no plan has: below zero, not finite, or more or fewer than levels.

    Raises:
        ValueError: the field, its entry and the rule.
    """
    size = len(plan.levels)
    for name in ("examples", "new_examples", "steps"):
        vector(getattr(plan, name), f"Plan.{name}", length=size, nonnegative=True)
    for name in _PER_LEVEL:
        if name in plan.tables:
            vector(plan.tables[name], f"Plan.tables[{name!r}]", length=size, nonnegative=True)
    for name in _LENGTHS:
        if name in plan.tables and np.shape(plan.tables[name]) != (size,):
            shape = np.shape(plan.tables[name])
            raise ValueError(f"Plan.tables[{name!r}] has shape {shape}; one entry for each of {size} levels is needed")
    for name, each in plan.samplings.items():
        vector(each.steps, f"Plan.samplings[{name!r}].steps", length=size, nonnegative=True)
        if each.sigmas is not None:
            check_grid(each.sigmas, f"Plan.samplings[{name!r}].sigmas")
        choice(each.terminal, f"Plan.samplings[{name!r}].terminal", ("denoise", "rescale"))


def read_only(values: Any, name: str) -> Array:
    """A float64 copy of an array of numbers that nobody can change.

    Raises:
        ValueError: other things than numbers, or rows of unequal lengths.
    """
    try:
        result = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is not a rectangular array of numbers") from None
    result.setflags(write=False)
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any, name: str) -> None:
    if not _is_number(value) or value != value:
        raise ValueError(f"{name} is {_short(value)}; a number is needed")


def _finite(value: Any, name: str) -> None:
    number(value, name)


def _text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_short(value)}; a text is needed")


def _scalar(value: Any, name: str) -> None:
    if not isinstance(value, _SCALAR):
        raise ValueError(f"{name} is {_short(value)}; a number or a text is needed")


def _numeric(value: Any, name: str) -> None:
    """A number or nested lists of numbers."""
    if isinstance(value, list):
        read_only(value, name)
        if any(isinstance(entry, (str, bool)) for entry in value):
            raise ValueError(f"{name} has entries that are not numbers")
    elif not _is_number(value):
        raise ValueError(f"{name} is {_short(value)}; a number or an array is needed")


def _list(value: Any, name: str) -> None:
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_short(value)}; a list is needed")
    _numeric(value, name)


def _anything(value: Any, name: str) -> None:
    pass


_Check = Callable[[Any, str], None]


def _optional(check: _Check) -> _Check:
    def checked(value: Any, name: str) -> None:
        if value is not None:
            check(value, name)

    return checked


def _named(check: _Check) -> _Check:
    """A mapping whose every value passes a check."""

    def checked(value: Any, name: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is {_short(value)}; a mapping by name is needed")
        for key, entry in value.items():
            check(entry, f"{name}[{key[:60]!r}]")

    return checked


def _several(check: _Check) -> _Check:
    """A list whose every entry passes a check."""

    def checked(value: Any, name: str) -> None:
        if not isinstance(value, list):
            raise ValueError(f"{name} is {_short(value)}; a list is needed")
        for i, entry in enumerate(value):
            check(entry, f"{name}[{i}]")

    return checked


def _fields(**checks: _Check) -> _Check:
    """A mapping that has these entries, each of its kind."""

    def checked(value: Any, name: str) -> None:
        _named(_anything)(value, name)
        for key, check in checks.items():
            if key in value:
                check(value[key], f"{name}.{key}")

    return checked


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_amounts, _records = _named(_number), _several(_named(_scalar))

_KINDS: dict[str, _Check] = {
    **dict.fromkeys(("levels", "examples", "new_examples", "steps"), _list),
    "sigmas": _optional(_list),
    **dict.fromkeys(("terminal", "bias", "price_unit", "speaks_of", "measure"), _text),
    "stopping_sigma": _finite,
    **dict.fromkeys(("error", "final_score", "final_prior"), _number),
    **dict.fromkeys(("program_stopping_sigma", "trace", "examples_gap"), _optional(_number)),
    **dict.fromkeys(("breakdown", "costs", "handed_out"), _amounts),
    "elasticities": _named(_optional(_number)),
    **dict.fromkeys(("peers", "fits"), _named(_amounts)),
    "constraints": _named(_named(_optional(_number))),
    **dict.fromkeys(("shadow_prices", "sensitivities"), _named(_optional(_numeric))),
    "tables": _named(_list),
    "outer": _named(_anything),
    **dict.fromkeys(("curve", "attempts"), _records),
    "notes": _several(_text),
    **dict.fromkeys(("sampler", "provenance", "question"), _named(_anything)),
    "certificate": _fields(
        **dict.fromkeys(("value", "lower_bound", "infeasibility", "tolerance"), _number),
        relative_gap=_numeric,
        method=_text,
    ),
    "samplings": _named(_fields(steps=_list, sigmas=_optional(_list), breakdown=_amounts, handed_out=_amounts)),
}
