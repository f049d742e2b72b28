"""What a misspelt name meant: the nearest of those that there are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

__all__ = ["meant", "nearest", "refuse_unknown", "spelled"]

P = ParamSpec("P")
T = TypeVar("T")


def nearest(name: Any, options: Iterable[str]) -> str | None:
    """The option that a name is a misspelling, another writing or the beginning of; None where none is near.

    >>> nearest("DPM++ 2M", ["heun", "dpmpp_2m"]), nearest("flow", ["vp", "flow_matching"]), nearest("x", ["heun"])
    ('dpmpp_2m', 'flow_matching', None)
    """
    if not isinstance(name, str) or not name or len(name) > 100:
        return None
    from difflib import get_close_matches  # for a wrong name alone: 2 ms that a start need not wait for

    plain = {_plain(option): option for option in options}
    asked = _plain(name)
    near = get_close_matches(asked, plain, 1)
    near = near or [option for option in plain if len(asked) > 1 and option.startswith(asked)]
    return plain[near[0]] if near else None


def meant(name: Any, options: Iterable[str]) -> str:
    """The end of a message that lists options: the nearest one, or a full stop.

    >>> meant("huen", ["euler", "heun"]), meant("x", ["heun"])
    ("; did you mean 'heun'?", '.')
    """
    near = nearest(name, options)
    return "." if near is None else f"; did you mean {near!r}?"


def refuse_unknown(named: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse keyword arguments that a function does not have, as Python does, with the one that was meant.

    Raises:
        TypeError: the first unknown one.

    >>> refuse_unknown(["bugdet"], ["prices", "budget"], "codesign")
    Traceback (most recent call last):
    TypeError: codesign() got an unexpected keyword argument 'bugdet'; did you mean 'budget'?
    """
    options = list(known)
    for name in named:
        if name not in options:
            near = nearest(name, options)
            has = f"did you mean {near!r}?" if near else f"it takes {', '.join(options)}."
            raise TypeError(f"{what}() got an unexpected keyword argument {name!r}; {has}")


def spelled(inner: Callable[P, T]) -> Callable[P, T]:
    """Decorator of a public function, or of a class: misspelt keyword arguments are answered with those it has.

    >>> @spelled
    ... def area(width, height=1.0): ...
    >>> area(2.0, hieght=3.0)
    Traceback (most recent call last):
    TypeError: area() got an unexpected keyword argument 'hieght'; did you mean 'height'?
    """
    if isinstance(inner, type):
        inner.__init__ = spelled(inner.__init__)  # type: ignore[misc]
        return inner
    parameters = inspect.signature(inner).parameters
    known = [name for name in parameters if name != "self"]
    name = inner.__qualname__.removesuffix(".__init__")

    @functools.wraps(inner)
    def checked(*given: P.args, **named: P.kwargs) -> T:
        if not named.keys() <= parameters.keys():
            refuse_unknown(named, known, name)
        return inner(*given, **named)

    return checked


def _plain(name: str) -> str:
    """Letters and digits alone, small: "DPM++ 2M" and "dpmpp_2m" are one name."""
    return "".join(c for c in name.lower().replace("++", "pp") if c.isalnum())
