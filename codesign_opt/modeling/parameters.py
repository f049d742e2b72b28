"""Numbers that are set later: a `cp.Parameter` where a term, a bound or a constraint takes a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import number
from ..ingredients.levels import Levels
from ..models.coefficients import Coefficients

__all__ = ["amount", "parameters_of", "refuse_unset", "settled"]

_PLAIN = frozenset({np.ndarray, str, int, float, bool, type(None), Levels, Coefficients})  # hold numbers alone


def amount(value: Any, name: str, *, nonnegative: bool = False, hint: str = "") -> Any:
    """`value` as a number, or as it is where it is a scalar `cp.Parameter` (or an expression of some).

    Raises:
        ValueError: neither; or a parameter that may be negative where it must not be.
    """
    if not is_parameter(value):
        return number(value, name, nonnegative=nonnegative, hint=hint)
    if value.size != 1:
        raise ValueError(f"{name} is a parameter of shape {value.shape}; one number is needed.")
    if nonnegative and not value.is_nonneg():
        raise ValueError(f"{name} is a parameter of any sign; declare it with cp.Parameter(nonneg=True).{hint}")
    return value


def is_parameter(value: Any) -> bool:
    """Whether a number is set later: an expression of parameters alone."""
    if not hasattr(type(value), "parameters") or not isinstance(value, cp.Expression):
        return False  # in this order: for numbers and terms cvxpy need not be there, which may be put off
    return bool(value.parameters()) and not value.variables()


def parameters_of(what: Any) -> list[cp.Parameter]:
    """Every parameter in a term, bound or constraint, once each; functions of the design are not looked into."""
    found = {parameter.id: parameter for value in _numbers(what) for parameter in value.parameters()}
    return list(found.values())


def settled(what: Any, default: float | None = None) -> Any:
    """The same term, bound or constraint with the values of its parameters; itself where it has none.

    Args:
        what: anything that a problem is stated with.
        default: value of parameters that have none yet.

    Raises:
        ValueError: a parameter without a value, by name.

    >>> import cvxpy as cp
    >>> from codesign_opt.modeling import Steps
    >>> limit = cp.Parameter(value=18.0, name="steps")
    >>> settled(Steps() <= limit)
    Steps <= 18
    """
    if is_parameter(what):
        return _value(what, default)
    if isinstance(what, tuple):
        changed = tuple(settled(item, default) for item in what)
        return changed if any(new is not old for new, old in zip(changed, what, strict=True)) else what
    if isinstance(what, Mapping):
        entries = {key: settled(item, default) for key, item in what.items()}
        return entries if any(entries[key] is not what[key] for key in what) else what
    if not is_dataclass(what) or isinstance(what, type):
        return what
    values = {item.name: getattr(what, item.name) for item in fields(what) if item.init}
    changes = {name: settled(value, default) for name, value in values.items()}
    changes = {name: value for name, value in changes.items() if value is not values[name]}
    return replace(what, **changes) if changes else what


def refuse_unset(name: str, expression: Any) -> None:
    """Refuse an expression or a constraint of cvxpy in which a user's parameter has no value yet.

    Raises:
        ValueError: with the names of the parameters.
    """
    if not isinstance(expression, (cp.Expression, cp.Constraint)):
        return
    names = ", ".join(p.name() for p in expression.parameters() if p.value is None)
    if names:
        raise ValueError(f"{name}: the parameter {names} has no value; set {names}.value before solving.")


def _value(parameter: cp.Expression, default: float | None) -> float:
    names = ", ".join(p.name() for p in parameter.parameters() if p.value is None)
    if not names:
        return float(np.asarray(parameter.value).item())
    if default is None:
        raise ValueError(f"Problem: the parameter {names} has no value; set {names}.value before solving.")
    return default


def _numbers(what: Any) -> Iterator[cp.Expression]:
    kind: Any = type(what)
    if kind in _PLAIN:
        return
    if kind is tuple or isinstance(what, tuple):
        for item in what:
            yield from _numbers(item)
    elif is_parameter(what):
        yield what
    elif isinstance(what, Mapping):
        yield from _numbers(tuple(what.values()))
    else:
        for name in _stated(kind):
            yield from _numbers(getattr(what, name))


@lru_cache(maxsize=256)
def _stated(kind: type) -> tuple[str, ...]:
    """Names of what instances of a dataclass are made from; none of another class."""
    return tuple(item.name for item in fields(kind) if item.init) if is_dataclass(kind) else ()
